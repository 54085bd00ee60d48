package postgres_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestOpenSetsUpSessions(t *testing.T) {
	t.Parallel()
	pool, err := postgres.Open(t.Context(), pgtest.URL(t), postgres.Options{
		Role: "api", MaxConns: 3, StatementTimeout: 1500 * time.Millisecond, LockTimeout: time.Second, IdleInTxTimeout: time.Minute,
	})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	for name, want := range map[string]string{
		"application_name": "signpost api", "timezone": "UTC", "statement_timeout": "1500ms", "lock_timeout": "1s",
		"idle_in_transaction_session_timeout": "1min",
	} {
		if got := scanText(t, pool, "SELECT current_setting($1)", name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if got := pool.Config().MaxConns; got != 3 {
		t.Errorf("max conns = %d, want 3", got)
	}
}

func scanText(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) string {
	t.Helper()
	var s string
	require.NoError(t, pool.QueryRow(t.Context(), sql, args...).Scan(&s))
	return s
}

func TestOpenKeepsConnectionsReady(t *testing.T) {
	t.Parallel()
	for wanted, want := range map[int]int32{0: 0, 2: 2, 10: 3} { // not beyond MaxConns
		pool, err := postgres.Open(t.Context(), pgtest.URL(t), postgres.Options{MaxConns: 3, IdleConns: wanted})
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		eventually(t, func() bool { return pool.Stat().IdleConns() == want })
	}
}

func TestOpenKeepsTheURLsName(t *testing.T) {
	t.Parallel()
	pool := pgtest.Open(t, pgtest.URL(t)+"&application_name=mine")
	if got := scanText(t, pool, "SELECT current_setting('application_name')"); got != "mine" {
		t.Errorf("application_name = %q, want mine", got)
	}
}

func TestOpenRefusesNonsenseWithoutShowingIt(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"postgres://user:s3cret@db:port/x", "postgres://user:s3/cret@db/x", "mysql://user:s3cret@db/x",
		"postgres://user:s3cret%zz@db/x", "s3cret", "postgres://user:s3cret@db/x?sslmode=s3cretive",
		"postgres://user:pa ss?s3cret@db/x", "postgres://user:12#s3cret@db/x", "postgres://user:12/s3cret@db/x",
	} {
		_, err := postgres.Open(t.Context(), url, postgres.Options{})
		if err == nil {
			t.Errorf("%s was accepted", url)
			continue
		}
		if strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "cret@") {
			t.Errorf("error shows part of the URL: %v", err)
		}
	}
}

func TestInTx(t *testing.T) {
	t.Parallel()
	pool := pgtest.Open(t, pgtest.Empty(t))
	pgtest.Exec(t, pool, "CREATE TABLE t (who text)")
	insert := func(ctx context.Context, who string, then func() error) error {
		return postgres.InTx(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO t VALUES ($1)", who); err != nil {
				return err
			}
			return then()
		})
	}
	require.NoError(t, insert(t.Context(), "kept", func() error { return nil }))
	failure := errors.New("no")
	if err := insert(t.Context(), "failed", func() error { return failure }); err != failure { //nolint:errorlint // as it is
		t.Errorf("error = %v, want what fn returned", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := insert(ctx, "canceled", func() error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("commit after cancel: %v", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic did not pass through")
			}
		}()
		_ = insert(t.Context(), "panicked", func() error { panic("no") })
	}()
	if got := scanText(t, pool, "SELECT string_agg(who, ',') FROM t"); got != "kept" {
		t.Errorf("rows = %s, want only those of the transaction that succeeded", got)
	}
	// Every connection went back to the pool or was closed; none is held.
	eventually(t, func() bool { return pool.Stat().AcquiredConns() == 0 })
}

// After a failover an old primary may live on, read-only. Sessions on it are closed, so
// that the next ones find the new primary.
func TestReadOnlySessionsAreGivenUp(t *testing.T) {
	t.Parallel()
	pool, err := postgres.Open(t.Context(), pgtest.URL(t), postgres.Options{MaxConns: 1})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	const pid = "SELECT pg_backend_pid()::text"
	before := scanText(t, pool, pid)
	pgtest.Exec(t, pool, "SET default_transaction_read_only = on")
	if again := scanText(t, pool, pid); again != before {
		t.Fatalf("the pool of one has two sessions: %s and %s", before, again)
	}
	if _, err := pool.Exec(t.Context(), "CREATE TABLE x ()"); postgres.Code(err) != "25006" {
		t.Fatalf("write in a read-only session: %v", err)
	}
	if after := scanText(t, pool, pid); after == before {
		t.Error("the read-only session is still in the pool")
	}
}

// If a statement exceeds its deadline, the pool must not lose its connection: a server
// that is slow should not have to make new sessions.
func TestADeadlineCostsNoConnection(t *testing.T) {
	t.Parallel()
	pool, err := postgres.Open(t.Context(), pgtest.URL(t), postgres.Options{MaxConns: 1, KeepCanceled: true})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	const pid = "SELECT pg_backend_pid()::text"
	before := scanText(t, pool, pid)
	slow := func(name string, run func(context.Context) error) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := run(ctx); !postgres.Unavailable(err) {
			t.Errorf("%s that took too long: %v, want one that says the server was too slow", name, err)
		}
		if after := scanText(t, pool, pid); after != before {
			t.Errorf("after %s the pool of one has session %s in place of %s", name, after, before)
		}
	}
	slow("a statement", func(ctx context.Context) error {
		_, err := pool.Exec(ctx, "SELECT pg_sleep(60)")
		return err
	})
	slow("a transaction", func(ctx context.Context) error {
		return postgres.InTx(ctx, pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "SELECT pg_sleep(60)")
			return err
		})
	})
	slow("a query", func(ctx context.Context) error {
		rows, err := pool.Query(ctx, "SELECT pg_sleep(60)")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
		}
		return rows.Err()
	})
	slow("a wait for a lock", func(ctx context.Context) error {
		other, err := postgres.Connect(t.Context(), pool)
		require.NoError(t, err)
		defer other.Close(t.Context()) //nolint:errcheck // it gives the lock back
		pgtest.Exec(t, other, "SELECT pg_advisory_lock(7)")
		_, err = pool.Exec(ctx, "SELECT pg_advisory_lock(7)")
		return err
	})
	if n := pool.Stat().NewConnsCount(); n != 1 {
		t.Errorf("%d sessions were opened, want 1", n)
	}
}

// A server that does not even cancel a statement is given up.
func TestAFrozenServerIsLeft(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	pool, err := postgres.Open(t.Context(), cluster.URL("postgres"), postgres.Options{MaxConns: 1, KeepCanceled: true})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	pid := int(conn.Conn().PgConn().PID())
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	defer syscall.Kill(pid, syscall.SIGCONT) //nolint:errcheck // or it is gone
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := conn.Exec(ctx, "SELECT 1"); !postgres.Unavailable(err) {
		t.Errorf("a session that hangs: %v", err)
	}
	if !conn.Conn().IsClosed() {
		t.Error("the session that hangs is still in use")
	}
}
