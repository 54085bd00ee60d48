package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// Single failures happen (a server that restarts, a backend that was killed). The
	// server is taken for down only from the second failure in a row on.
	downAfter = 2
	// These bound the pause between two attempts at a server that is down. A request
	// that waits for the server waits longer by at most the greater one.
	minRetry = 50 * time.Millisecond
	maxRetry = 500 * time.Millisecond
)

// A backoff spares a server that accepts no sessions: the process then tries one
// connection at a time, with a pause after each, and every other request for a
// connection fails at once. Without it, every request for a link that is in no cache
// would try for itself. A server that recovers from a crash would spend its time on
// refusing them, and one that was frozen would wake up to a queue of dead clients.
//
// A pool and Connect share one backoff. The driver tells it how each attempt ended.
type backoff struct {
	mu        sync.Mutex
	err       error // the error of the newest attempt that failed
	failed    int   // failures in a row
	trying    int   // attempts under way
	notBefore time.Time
}

// enter returns nil if a connection may be tried now.
func (b *backoff) enter(_ context.Context, _ *pgx.ConnConfig) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed < downAfter {
		return nil
	}
	now := time.Now()
	if b.trying > 0 || now.Before(b.notBefore) {
		return fmt.Errorf("not tried again yet: %w", b.err)
	}
	b.notBefore = now.Add(maxRetry) // holds back others until this attempt is under way
	return nil
}

// TraceConnectStart implements [pgx.ConnectTracer].
func (b *backoff) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying++
	b.notBefore = time.Now().Add(minRetry)
	return ctx
}

// TraceConnectEnd implements [pgx.ConnectTracer].
func (b *backoff) TraceConnectEnd(_ context.Context, data pgx.TraceConnectEndData) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying--
	switch {
	case data.Err == nil:
		b.failed = 0
	case errors.Is(data.Err, context.Canceled): // this says nothing about the server
	default:
		b.err = data.Err
		b.failed++
		b.notBefore = time.Now().Add(retryAfter(b.failed))
	}
}

// retryAfter returns the pause after so many failures in a row. It doubles each time,
// up to a bound, and is spread at random so that processes do not try in step.
func retryAfter(failed int) time.Duration {
	d := min(minRetry<<min(max(failed-downAfter, 0), 10), maxRetry)
	return d/2 + rand.N(d/2) //nolint:gosec // no secret
}

// TraceQueryStart implements [pgx.QueryTracer], which every tracer has to be.
func (b *backoff) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd implements [pgx.QueryTracer].
func (b *backoff) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// Connect returns a connection outside of the pool. It is set up like the pool's
// connections, except for KeepCanceled: it is for a caller that waits on one connection
// for long, and closes it when a statement takes too long. While the server is down,
// Connect fails at once most of the time, as the pool does. The caller closes the
// connection.
func Connect(ctx context.Context, pool *pgxpool.Pool) (*pgx.Conn, error) {
	cfg := pool.Config()
	if cfg.BeforeConnect != nil {
		if err := cfg.BeforeConnect(ctx, cfg.ConnConfig); err != nil {
			return nil, err
		}
	}
	cfg.ConnConfig.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.DeadlineContextWatcherHandler{Conn: c.Conn()}
	}
	return pgx.ConnectConfig(ctx, cfg.ConnConfig)
}
