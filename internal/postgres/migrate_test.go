package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

// logLines collects a log that several goroutines write, and can be searched.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logLines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), part)
}

func (l *logLines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func TestMigrateThreeAtOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	var lines logLines
	errs := make(chan error, 3)
	for range 3 {
		go func() { errs <- postgres.Migrate(t.Context(), url, lines.logger()) }()
	}
	for range 3 {
		assert.NoError(t, <-errs)
	}
	if n := lines.count(`"schema migration applied" version=1 `); n != 1 {
		t.Errorf("the first migration was applied %d times", n)
	}
	if n := lines.count(`"the schema is up to date"`); n != 3 {
		t.Errorf("%d of 3 say that the schema is up to date", n)
	}
	pool := pgtest.Open(t, url)
	assert.NoError(t, postgres.CheckSchema(t.Context(), pool))
	if n := scanText(t, pool, `SELECT count(*)::text FROM pg_locks
		WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`); n != "0" {
		t.Errorf("%s advisory locks are left", n)
	}
	const insert = "INSERT INTO events (occurred_at, event_type) SELECT now() + make_interval(months => i), 'clicked' FROM generate_series(0, 3) i"
	if _, err := pool.Exec(t.Context(), insert); err != nil {
		t.Errorf("partitions ahead: %v", err)
	}
}

func TestCheckSchema(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change string
		want   string // a part of the message; "" for no error
	}{
		{"same", "SELECT 1", ""},
		{"newer", "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)", ""},
		{"newer job queue", "INSERT INTO river_migration (line, version) VALUES ('main', 9999)", ""},
		{"older", "DELETE FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version)", "run `signpost migrate`"},
		{"none", "DROP TABLE goose_db_version", "no schema yet: run `signpost migrate`"},
		{"older job queue", "DELETE FROM river_migration WHERE version = (SELECT max(version) FROM river_migration)", "job queue's tables are older than this release needs: run `signpost migrate`"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.URL(t)
			pool := pgtest.Open(t, url)
			pgtest.Exec(t, pool, tt.change)
			err := postgres.WaitForSchema(t.Context(), pool, slog.New(slog.DiscardHandler))
			if tt.want == "" {
				require.NoError(t, err)
				// This release's migrate leaves it alone.
				assert.NoError(t, postgres.Migrate(t.Context(), url, slog.New(slog.DiscardHandler)), "migrate")
				return
			}
			var older *postgres.SchemaError
			if !errors.As(err, &older) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v; want one that says %q", err, tt.want)
			}
		})
	}
}

func TestSchemaErrorSaysWhatToDo(t *testing.T) {
	t.Parallel()
	want := "the database schema is at version 3 but this release needs 4: run `signpost migrate`"
	if got := (&postgres.SchemaError{Have: 3, Want: 4}).Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMigrateAndCheckWaitForPostgres(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	require.NoError(t, cluster.CreateDatabase(t.Context(), "late"))
	pool := pgtest.Open(t, cluster.URL("late"))
	var lines logLines
	migrate := func(ctx context.Context) error { return postgres.Migrate(ctx, cluster.URL("late"), lines.logger()) }
	check := func(ctx context.Context) error { return postgres.WaitForSchema(ctx, pool, lines.logger()) }
	for _, try := range []func(context.Context) error{migrate, check} {
		cluster.Kill()
		seen := lines.count("postgres is not available, trying again")
		result := make(chan error, 1)
		go func() { result <- try(t.Context()) }()
		eventually(t, func() bool { return lines.count("postgres is not available, trying again") > seen+1 })
		require.NoError(t, cluster.Start(t.Context()))
		assert.NoError(t, <-result)
	}
	if lines.count("server="+postgres.Address(pool)+" ") < 4 {
		t.Error("the log does not tell which server is waited for")
	}
	if lines.count(`reason="no such file or directory"`)+lines.count(`reason="connection refused"`) == 0 {
		t.Error("the log does not tell why")
	}
	if lines.count("attempt=2") != 2 || lines.count("retry_in=") < 4 {
		t.Error("the log does not tell attempts and waits")
	}
	cluster.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for _, try := range []func(context.Context) error{migrate, check} {
		if err := try(ctx); err == nil {
			t.Error("no error although Postgres never came")
		}
	}
}

func TestRefusalIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	url := strings.Replace(pgtest.URL(t), "/test_", "/missing_", 1)
	err := postgres.Migrate(t.Context(), url, slog.New(slog.DiscardHandler))
	if postgres.Code(err) != "3D000" {
		t.Errorf("error = %v; want that the database does not exist", err)
	}
}

// A migration that cannot have its lock gives way and tries again.
func TestMigrateWaitsForAnotherMigration(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	pool := pgtest.Open(t, url)
	holder := acquire(t, pool)
	defer holder.Release()
	const key = 0x7369676e706f7374
	pgtest.Exec(t, holder, "SELECT pg_advisory_lock($1)", int64(key))
	var lines logLines
	result := make(chan error, 1)
	go func() { result <- postgres.Migrate(t.Context(), url, lines.logger()) }()
	eventually(t, func() bool { return lines.count("another process is migrating") == 1 })
	if tables := countTables(t, pool); tables != 0 {
		t.Errorf("%d tables were made without the lock", tables)
	}
	pgtest.Exec(t, holder, "SELECT pg_advisory_unlock($1)", int64(key))
	assert.NoError(t, <-result)
}

func countTables(t *testing.T, pool *pgxpool.Pool) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(scanText(t, pool, "SELECT count(*)::text FROM pg_tables WHERE schemaname = 'public'"), &n); err != nil {
		t.Fatal(err)
	}
	return n
}
