// Package postgres is everything that Signpost knows about its database server: the
// connection pool, transactions, the meaning of errors, the schema and its version, and
// the partitions of events. Queries are in package queries; this package knows no
// tables but events and the ones that hold schema versions.
package postgres

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	connectTimeout  = 2 * time.Second
	pingTimeout     = 2 * time.Second
	rollbackTimeout = 2 * time.Second
	// cancelGrace is how long a server has to give up a statement whose context ended.
	// If it has not answered by then, the connection is closed.
	cancelGrace = 500 * time.Millisecond
)

// Options says how one process uses the database. The zero value is usable.
type Options struct {
	// Role names the process to the server: application_name becomes
	// "signpost <role>". Empty means plain "signpost".
	Role string
	// MaxConns bounds the pool. 0 leaves it to pool_max_conns in the URL, or
	// else to the driver's default (4, or the number of CPUs if larger).
	MaxConns int
	// IdleConns is how many connections are kept open beyond those in use, as far as
	// MaxConns allows. A burst, above all the first one, then need not wait for new
	// sessions. They are opened in the background.
	IdleConns int
	// StatementTimeout, LockTimeout and IdleInTxTimeout are limits that the server
	// enforces on every statement, lock wait and idle transaction of this pool, so that
	// they also hold if the client is gone. 0 leaves the server's own setting. They are
	// sent as startup parameters; a connection pooler in front of Postgres may have to
	// be configured to accept them.
	StatementTimeout time.Duration
	LockTimeout      time.Duration
	IdleInTxTimeout  time.Duration
	// KeepCanceled keeps a connection whose statement runs when its context ends. The
	// server is asked to give the statement up, which it reports as an error of its own
	// (see Unavailable). Only if it does not do so within half a second is the
	// connection closed. Without KeepCanceled, the connection is closed at once, and
	// the error is the one of the context.
	KeepCanceled bool
	// ShortQueries keeps the server from using several of its processes for one query,
	// so that a query takes no more than one core, and from compiling it (JIT), which
	// takes longer than a page of a list may take.
	ShortQueries bool
}

// Open returns a pool of connections to the database that url names (a postgres:// URL
// or a keyword/value string). No connection is made before the first use, except for
// IdleConns in the background, so Postgres need not be up. The only error is that url
// cannot be understood; its text never holds a password. The caller closes the pool.
//
// While the server accepts no connections, one connection at a time is tried, with
// pauses of up to half a second. Other requests for a connection fail at once, with the
// error of the last attempt.
//
// A connection is closed rather than used again if it reports a fatal error, or that
// its server became read-only (a primary that was demoted).
func Open(ctx context.Context, url string, o Options) (*pgxpool.Pool, error) {
	cfg, err := poolConfig(url, o)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("create connection pool: %w", err)
	}
	return pool, nil
}

func poolConfig(url string, o Options) (*pgxpool.Config, error) {
	cfg, err := parseURL(url)
	if err != nil {
		return nil, fmt.Errorf("parse database URL: %w", err)
	}
	if o.MaxConns > 0 {
		cfg.MaxConns = int32(min(o.MaxConns, 10_000))
	}
	cfg.MinIdleConns = min(int32(min(o.IdleConns, 10_000)), cfg.MaxConns)
	// Connections are renewed so that a changed DNS record or a new replica behind a
	// proxy is noticed. The jitter keeps them from being renewed all at once.
	cfg.MaxConnLifetime = 30 * time.Minute
	cfg.MaxConnLifetimeJitter = 5 * time.Minute
	cfg.MaxConnIdleTime = 5 * time.Minute
	cfg.HealthCheckPeriod = 15 * time.Second
	cfg.PingTimeout = pingTimeout

	conn := cfg.ConnConfig
	if conn.ConnectTimeout == 0 || conn.ConnectTimeout > time.Minute {
		conn.ConnectTimeout = connectTimeout
	}
	// A peer that vanished without closing the connection is noticed within half a
	// minute, and not after the operating system's two hours.
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}
	conn.DialFunc = dialer.DialContext
	conn.OnPgError = keepConnection
	if o.KeepCanceled {
		conn.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
			return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: cancelGrace}
		}
	}
	b := &backoff{}
	cfg.BeforeConnect, conn.Tracer = b.enter, b
	setDefault(conn.RuntimeParams, "application_name", strings.TrimSpace("signpost "+o.Role))
	conn.RuntimeParams["timezone"] = "UTC"
	setLimit(conn.RuntimeParams, "statement_timeout", o.StatementTimeout)
	setLimit(conn.RuntimeParams, "lock_timeout", o.LockTimeout)
	setLimit(conn.RuntimeParams, "idle_in_transaction_session_timeout", o.IdleInTxTimeout)
	if o.ShortQueries {
		conn.RuntimeParams["max_parallel_workers_per_gather"] = "0"
		conn.RuntimeParams["jit"] = "off"
	}
	return cfg, nil
}

func setDefault(params map[string]string, name, value string) {
	if params[name] == "" {
		params[name] = value
	}
}

func setLimit(params map[string]string, name string, d time.Duration) {
	if d > 0 {
		params[name] = strconv.FormatInt(max(1, d.Milliseconds()), 10)
	}
}

// keepConnection reports whether a connection is worth keeping after err.
func keepConnection(_ *pgconn.PgConn, err *pgconn.PgError) bool {
	severity := err.SeverityUnlocalized
	if severity == "" {
		severity = err.Severity
	}
	return severity != "FATAL" && severity != "PANIC" && err.Code != codeReadOnly
}

// DB is a pool of connections, or one of them.
type DB interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// InTx runs fn in a transaction. It commits when fn returns nil, and rolls back when fn
// returns an error, which InTx returns as it is, or panics. The rollback has a short
// deadline of its own, so that it also happens when ctx has ended.
//
// When the commit itself fails, the outcome may be unknown: the server may have
// committed and only its answer was lost. So callers must make repetition harmless.
func InTx(ctx context.Context, db DB, fn func(pgx.Tx) error) error {
	tx, err := db.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer rollback(ctx, tx)
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit transaction: %w", err)
	}
	return nil
}

// rollback ends tx unless it has ended. Its error is ignored: if the rollback fails,
// the connection is closed, which rolls back as well.
func rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	_ = tx.Rollback(ctx)
}
