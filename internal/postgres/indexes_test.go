package postgres_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/migrations"
)

// An index that a migration made only on events itself is built for each partition
// while events are written, even if an earlier attempt was interrupted.
func TestIndexesOfPartitions(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	url := pool.Config().ConnString()
	months := []time.Time{month(2011, 12), month(2012, 1), month(2012, 2), month(2012, 3)}
	require.NoError(t, postgres.EnsurePartitions(t.Context(), pool, months))
	// This is the state in the previous release, with a month that was detached then.
	pgtest.Exec(t, pool, "DROP INDEX events_url_id_change_idx")
	require.NoError(t, postgres.DetachMonth(t.Context(), pool, month(2012, 3), "away", func(pgx.Tx) error { return nil }))
	for _, sql := range []string{
		"CREATE INDEX events_url_id_change_idx ON ONLY events (url_id, occurred_at, id) WHERE event_type <> 'clicked'",
		"CREATE INDEX whole ON events_2011_12 (url_id, occurred_at, id) WHERE event_type <> 'clicked'",
		"CREATE INDEX broken ON events_2012_01 (url_id, occurred_at, id) WHERE event_type <> 'clicked'",
		"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass",
	} {
		pgtest.Exec(t, pool, sql)
	}
	writer, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = writer.Rollback(t.Context()) }()
	const insert = "INSERT INTO events (occurred_at, event_type) VALUES ('2012-02-03', 'created')"
	pgtest.Exec(t, writer, insert)
	done := make(chan error, 1)
	go func() { done <- postgres.Migrate(t.Context(), url, slog.New(slog.DiscardHandler)) }()
	eventually(t, func() bool {
		return scanText(t, pool, `SELECT count(*)::text FROM pg_stat_activity
			WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'`) == "1"
	})
	err = postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "SET LOCAL lock_timeout = '10s'")
		if err == nil {
			_, err = tx.Exec(t.Context(), insert)
		}
		return err
	})
	assert.NoError(t, err, "events are not written while the index is built")
	require.NoError(t, writer.Commit(t.Context()))
	require.NoError(t, <-done)
	got := scanText(t, pool, `
		SELECT string_agg(t.relname || ' ' || x.indisvalid, ', ' ORDER BY t.relname)
		FROM pg_index x JOIN pg_class t ON t.oid = x.indrelid
		WHERE pg_get_indexdef(indexrelid) LIKE '%(url_id, occurred_at, id) WHERE%' AND (t.relname = 'events' OR t.relname < 'events_2013')`)
	if want := "events true, events_2011_12 true, events_2012_01 true, events_2012_02 true"; got != want {
		t.Errorf("indexes: %s, want %s", got, want)
	}
	if left := scanText(t, pool, "SELECT concat(to_regclass('whole'), ' ', to_regclass('broken'))"); strings.TrimSpace(left) != "whole" {
		t.Errorf("of the indexes of an earlier attempt %q are left, want whole", left)
	}
}

// A worker of the previous release may retire a month while indexes are built.
func TestIndexesOfPartitionsWhileAMonthIsDetached(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	require.NoError(t, postgres.EnsurePartitions(t.Context(), pool, []time.Time{month(2012, 1), month(2012, 2)}))
	pgtest.Exec(t, pool, `DROP INDEX events_url_id_change_idx;
		CREATE INDEX events_url_id_change_idx ON ONLY events (url_id, occurred_at, id) WHERE event_type <> 'clicked'`)
	writer, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = writer.Rollback(t.Context()) }()
	pgtest.Exec(t, writer, "LOCK TABLE events_2012_02 IN ROW EXCLUSIVE MODE")
	done := make(chan error, 1)
	go func() {
		done <- postgres.Migrate(t.Context(), pool.Config().ConnString(), slog.New(slog.DiscardHandler))
	}()
	eventually(t, func() bool {
		return scanText(t, pool, `SELECT count(*)::text FROM pg_stat_activity
			WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONCURRENTLY ON events_2012_02%' AND wait_event_type = 'Lock'`) == "1"
	})
	require.NoError(t, postgres.DetachMonth(t.Context(), pool, month(2012, 1), "away", func(pgx.Tx) error { return nil }))
	require.NoError(t, writer.Commit(t.Context()))
	assert.NoError(t, <-done)
}

// The index that finds codes in another case is built while links are written, and is
// built again if an attempt was interrupted.
func TestIndexOfCodesInAnotherCase(t *testing.T) {
	t.Parallel()
	pool := pgtest.Open(t, pgtest.Empty(t))
	provider, err := goose.NewProvider(goose.DialectPostgres, stdlib.OpenDBFromPool(pool), migrations.FS)
	require.NoError(t, err)
	defer func() { _ = provider.Close() }()
	if _, err := provider.UpTo(t.Context(), 28); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"INSERT INTO users (id, username, email) VALUES (1, 'ada', 'ada@example.com')",
		"CREATE INDEX urls_short_code_lower_idx ON urls (lower(short_code))",
		"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'urls_short_code_lower_idx'::regclass",
	} {
		pgtest.Exec(t, pool, sql)
	}
	writer, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = writer.Rollback(t.Context()) }()
	const insert = "INSERT INTO urls (user_id, short_code, original_url) VALUES (1, $1, 'https://example.com/')"
	pgtest.Exec(t, writer, insert, "before")
	done := make(chan error, 1)
	go func() {
		done <- postgres.Migrate(t.Context(), pool.Config().ConnString(), slog.New(slog.DiscardHandler))
	}()
	eventually(t, func() bool {
		return scanText(t, pool, `SELECT count(*)::text FROM pg_stat_activity
			WHERE datname = current_database() AND query LIKE '%INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'`) == "1"
	})
	if _, err := pool.Exec(t.Context(), insert, "meanwhile"); err != nil {
		t.Errorf("links are not written while the index is built: %v", err)
	}
	require.NoError(t, writer.Commit(t.Context()))
	require.NoError(t, <-done)
	if got := scanText(t, pool, "SELECT indisvalid::text FROM pg_index WHERE indexrelid = 'urls_short_code_lower_idx'::regclass"); got != "true" {
		t.Errorf("the index is whole: %s", got)
	}
}
