package rollup_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/rollup"
)

// counter counts queries.
type counter struct{ atomic.Int64 }

func (c *counter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.Add(1)
	return ctx
}

func (c *counter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// A merge that takes clicks of many links away, and a comparison of many scopes, ask for
// many rows at once.
func TestQueriesAreForManyRows(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool := pgtest.Open(t, url)
	cfg, err := pgxpool.ParseConfig(url)
	require.NoError(t, err)
	var n counter
	cfg.ConnConfig.Tracer = &n
	traced, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(traced.Close)

	const many = 200
	exec(t, pool, "INSERT INTO users (id, username, email) VALUES (1, 'ann', 'ann@example.org')")
	exec(t, pool, `INSERT INTO urls (id, user_id, short_code, original_url, tags)
		SELECT i, 1, 'code' || i, 'https://example.org/', ARRAY['tag ' || i] FROM generate_series(1, $1) i`, many)
	var clicks []rollup.Event
	for url := range int64(many) {
		clicks = append(clicks, clickOn(1+url, base.Add(time.Hour), 2)...)
	}
	ingest(t, pool, clicks)
	fold(t, pool)
	exec(t, pool, "DELETE FROM events WHERE occurred_at = $1", base.Add(time.Hour+time.Second))
	var changes rollup.Changes
	for i := range many {
		changes.Remove(clicks[2*i+1])
	}
	apply(t, pool, &changes)

	_, err = rollup.FoldOnce(t.Context(), traced, rollup.MaxClicks, 0)
	require.NoError(t, err)
	assert.Less(t, n.Swap(0), int64(many/2), "queries of a merge")
	wantSame(t, pool, many)
	wantTotals(t, pool)
	found, err := rollup.CheckSample(t.Context(), traced, base.AddDate(0, 0, 1))
	require.NoError(t, err)
	assert.Zero(t, found.Differ)
	assert.Less(t, n.Load(), int64(many/2), "queries of a comparison")
}
