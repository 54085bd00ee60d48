package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

type meaning struct{ Unavailable, DataFault, Retryable, NoPartition bool }

func meaningOf(err error) meaning {
	return meaning{postgres.Unavailable(err), postgres.DataFault(err), postgres.Retryable(err), postgres.NoPartition(err)}
}

func TestMeaningOfErrorsTheServerReports(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	pgtest.Exec(t, pool, "INSERT INTO users (username, email) VALUES ('ada', 'ada@example.com')")
	for _, tt := range []struct {
		name           string
		sql            string
		args           []any
		want           meaning
		wantCode       string
		wantConstraint string
	}{
		{"duplicate", "INSERT INTO users (username, email) VALUES ('ADA', 'other@example.com')", nil, meaning{DataFault: true}, "23505", "users_username_key"},
		{"check", "INSERT INTO users (username, email) VALUES ('', 'other@example.com')", nil, meaning{DataFault: true}, "23514", "users_username_length"},
		{"foreign key", "INSERT INTO urls (user_id, short_code, original_url) VALUES (999, 'a', 'http://a.example')", nil, meaning{DataFault: true}, "23503", "urls_user_id_fkey"},
		{"NUL in text", "SELECT $1::text", []any{"a\x00b"}, meaning{DataFault: true}, "22021", ""},
		{"division by zero", "SELECT 1/0", nil, meaning{DataFault: true}, "22012", ""},
		{"too large for an index", "INSERT INTO api_tokens (name, role, hash) SELECT 'x', 'admin', decode(string_agg(md5(i::text), ''), 'hex') FROM generate_series(1, 2000) i", nil, meaning{DataFault: true}, "23514", "api_tokens_hash_length"},
		{"no partition", "INSERT INTO events (occurred_at, event_type) VALUES ('1999-12-31', 'clicked')", nil, meaning{NoPartition: true}, "23514", ""},
		{"syntax", "SELEC 1", nil, meaning{}, "42601", ""},
		{"no such table", "SELECT * FROM nothing", nil, meaning{}, "42P01", ""},
		{"read only", "SET TRANSACTION READ ONLY; CREATE TABLE x ()", nil, meaning{Unavailable: true}, "25006", ""},
		{"statement timeout", "SET LOCAL statement_timeout = 1; SELECT pg_sleep(60)", nil, meaning{Unavailable: true}, "57014", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), tt.sql, tt.args...)
				return err
			})
			checkMeaning(t, err, tt.want)
			if postgres.Code(err) != tt.wantCode || postgres.Constraint(err) != tt.wantConstraint {
				t.Errorf("code %q, constraint %q; want %q, %q (%v)",
					postgres.Code(err), postgres.Constraint(err), tt.wantCode, tt.wantConstraint, err)
			}
		})
	}
}

func checkMeaning(t *testing.T, err error, want meaning) {
	t.Helper()
	if got := meaningOf(err); got != want {
		t.Errorf("%v means %+v, want %+v", err, got, want)
	}
	if wrapped := fmt.Errorf("do it: %w", err); meaningOf(wrapped) != want {
		t.Errorf("%v loses its meaning when it is wrapped", wrapped)
	}
}

// Codes that are hard to provoke are raised by their names.
func TestMeaningOfCodes(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	for code, want := range map[string]meaning{
		"40001": {Retryable: true}, "40P01": {Retryable: true},
		"53300": {Unavailable: true}, "53100": {Unavailable: true}, "53200": {Unavailable: true},
		"57P01": {Unavailable: true}, "57P02": {Unavailable: true}, "57P03": {Unavailable: true},
		"08006": {Unavailable: true}, "55P03": {Unavailable: true}, "58030": {Unavailable: true}, "28P01": {Unavailable: true},
		"54000": {DataFault: true}, "P0001": {}, "XX000": {}, "42501": {},
	} {
		_, err := pool.Exec(t.Context(), fmt.Sprintf("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '%s'; END $$", code))
		if postgres.Code(err) != code {
			t.Fatalf("raised %s, got %v", code, err)
		}
		checkMeaning(t, err, want)
	}
}

func TestMeaningOfErrorsOfOurOwn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want meaning
	}{
		{nil, meaning{}},
		{errors.New("bug"), meaning{}},
		{pgx.ErrNoRows, meaning{}},
		{context.Canceled, meaning{}},
		{context.DeadlineExceeded, meaning{Unavailable: true}},
		{io.ErrUnexpectedEOF, meaning{Unavailable: true}},
		{&net.OpError{Op: "dial", Err: errors.New("no route to host")}, meaning{Unavailable: true}},
		{&net.DNSError{Name: "db"}, meaning{Unavailable: true}},
		{pgconn.ErrConnClosed, meaning{Unavailable: true}},
	} {
		checkMeaning(t, tt.err, tt.want)
	}
}

func TestClosedPoolIsUnavailable(t *testing.T) {
	t.Parallel()
	pool, err := postgres.Open(t.Context(), pgtest.URL(t), postgres.Options{})
	require.NoError(t, err)
	pool.Close()
	checkMeaning(t, pool.Ping(t.Context()), meaning{Unavailable: true})
}

func TestNobodyListensIsUnavailable(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := listener.Addr().String()
	require.NoError(t, listener.Close())
	for _, url := range []string{
		"postgres://u:s3cret@" + addr + "/x?sslmode=disable", "postgres://u:s3cret@name.invalid/x", "host=/nowhere user=u password=s3cret",
	} {
		err := pgtest.Open(t, url).Ping(t.Context())
		checkMeaning(t, err, meaning{Unavailable: true})
		if strings.Contains(fmt.Sprint(err), "s3cret") {
			t.Errorf("error shows the password: %v", err)
		}
	}
}

func TestMissingDatabaseIsUnavailable(t *testing.T) {
	t.Parallel()
	url := strings.Replace(pgtest.URL(t), "/test_", "/missing_", 1)
	checkMeaning(t, pgtest.Open(t, url).Ping(t.Context()), meaning{Unavailable: true})
}

func TestCanceledRequestIsNotUnavailable(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	checkMeaning(t, pgtest.Pool(t).Ping(ctx), meaning{})
}

// The server goes away in every possible way, below an idle session, a session that
// waits for an answer, and one that has not connected yet.
func TestOutagesAreUnavailable(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	url := cluster.URL("postgres")
	stopFast := func(t *testing.T) {
		t.Helper()
		require.NoError(t, cluster.Stop(t.Context()))
	}
	kill := func(*testing.T) { cluster.Kill() }
	hang := func(t *testing.T) {
		t.Helper()
		require.NoError(t, cluster.Pause())
	}
	for _, tt := range []struct {
		name     string
		goAway   func(*testing.T)
		comeBack func(context.Context) error
	}{
		{"stopped", stopFast, cluster.Start},
		{"killed", kill, cluster.Start},
		{"hanging", hang, func(context.Context) error { return cluster.Resume() }},
	} {
		pool := pgtest.Open(t, url)
		busy := startBusy(t, pool, tt.name)
		idle := acquire(t, pool)
		tt.goAway(t)
		for what, try := range map[string]func(context.Context) error{
			"an idle session": func(ctx context.Context) error { _, err := idle.Exec(ctx, "SELECT 1"); return err },
			"a new session":   pgtest.Open(t, url).Ping,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			if err := try(ctx); !postgres.Unavailable(err) {
				t.Errorf("%s, %s: %v; want unavailable", tt.name, what, err)
			}
			cancel()
		}
		if err := <-busy; !postgres.Unavailable(err) {
			t.Errorf("%s, a busy session: %v; want unavailable", tt.name, err)
		}
		idle.Release()
		require.NoError(t, tt.comeBack(t.Context()))
		assert.NoErrorf(t, pool.Ping(t.Context()), "%s: the same pool afterwards", tt.name)
	}
}

func acquire(t *testing.T, pool *pgxpool.Pool) *pgxpool.Conn {
	t.Helper()
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	return conn
}

// startBusy returns once a session waits in a statement. The channel gets the result of
// the statement, within a few seconds.
func startBusy(t *testing.T, pool *pgxpool.Pool, name string) <-chan error {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := pool.Exec(ctx, "SELECT /* "+name+" */ pg_sleep(60)")
		result <- err
	}()
	eventually(t, func() bool {
		var n int
		err := pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE $1",
			"%/* "+name+" */%").Scan(&n)
		return err == nil && n == 1
	})
	return result
}

// eventually polls until ok is true, and fails the test if that takes too long.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("it did not happen in time")
		}
	}
}
