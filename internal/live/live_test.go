package live

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/queries"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const insert = `INSERT INTO live_clicks (occurred_at, url_id, kind, more)
	SELECT '2026-01-01Z'::timestamptz + i * interval '1 second', i, 'person', 0 FROM generate_series($1::int, $2) i`

func newSource(t *testing.T) (*Source, *pgxpool.Pool) {
	t.Helper()
	pool := pgtest.Pool(t)
	return NewSource(pool, slog.New(slog.DiscardHandler)), pool
}

func (s *Source) hear(t *testing.T, urlID int64, since string) *Listener {
	t.Helper()
	l, err := s.Listen(t.Context(), urlID, since)
	require.NoError(t, err)
	t.Cleanup(l.Close)
	return l
}

// links returns the links of the next clicks, until there are n of them, and the last
// position.
func (l *Listener) links(t *testing.T, n int) (ids []int64, at string) {
	t.Helper()
	for len(ids) < n {
		select {
		case p := <-l.Pages():
			only := l.Only(p)
			ids, at = append(ids, linksOf(only)...), only.ID
		case <-time.After(time.Minute):
			t.Fatalf("only %v came", ids)
		}
	}
	return ids, at
}

func linksOf(p Page) (ids []int64) {
	for _, c := range p.Clicks {
		ids = append(ids, c.URLID)
	}
	return ids
}

// Transactions commit in another order than they began. No click is left out, and none
// comes twice.
func TestOverlappingTransactions(t *testing.T) {
	t.Parallel()
	s, pool := newSource(t)
	ctx := context.Background()
	early, err := pool.Begin(ctx) // before anybody listens
	require.NoError(t, err)
	pgtest.Exec(t, early, insert, 1, 1)
	pgtest.Exec(t, pool, insert, 100, 100) // nobody listens yet

	l := s.hear(t, 0, "")
	second, err := pool.Begin(ctx)
	require.NoError(t, err)
	pgtest.Exec(t, second, insert, 2, 2)
	pgtest.Exec(t, pool, insert, 3, 3)
	ids, _ := l.links(t, 1)
	assert.Equal(t, []int64{3}, ids)
	require.NoError(t, early.Commit(ctx))
	ids, _ = l.links(t, 1)
	assert.Equal(t, []int64{1}, ids)
	pgtest.Exec(t, pool, insert, 4, 4)
	ids, _ = l.links(t, 1)
	assert.Equal(t, []int64{4}, ids)
	require.NoError(t, second.Rollback(ctx))
	pgtest.Exec(t, pool, insert, 5, 5)
	ids, _ = l.links(t, 1)
	assert.Equal(t, []int64{5}, ids)
}

// counted is a database that tells how many clicks its queries read.
type counted struct {
	queries.DBTX
	t    *testing.T
	read *float64
}

func (c counted) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	var plan []byte
	require.NoError(c.t, c.DBTX.QueryRow(ctx, "EXPLAIN (ANALYZE, FORMAT JSON) "+sql, args...).Scan(&plan))
	var nodes any
	require.NoError(c.t, json.Unmarshal(plan, &nodes))
	c.add(nodes)
	return c.DBTX.Query(ctx, sql, args...)
}

// add adds what the nodes of a plan read of live_clicks.
func (c counted) add(node any) {
	switch node := node.(type) {
	case []any:
		for _, n := range node {
			c.add(n)
		}
	case map[string]any:
		if node["Relation Name"] == "live_clicks" {
			removed, _ := node["Rows Removed by Filter"].(float64)
			*c.read += node["Actual Rows"].(float64) + removed
		}
		for _, n := range node {
			c.add(n)
		}
	}
}

// A transaction that goes on for long does not make each poll read all clicks since its
// start again, and its own clicks come when it ends.
func TestLongTransaction(t *testing.T) {
	t.Parallel()
	s, pool := newSource(t)
	long, err := pool.Begin(t.Context())
	require.NoError(t, err)
	pgtest.Exec(t, long, insert, 1, 1)
	for i := range 20 {
		pgtest.Exec(t, pool, insert, 1000*i, 1000*i+999)
	}
	at, err := s.want(t.Context())
	require.NoError(t, err)
	pgtest.Exec(t, pool, insert, 2, 2)

	read := 0.0
	poll := func() (ids []int64) {
		rows, err := queries.New(counted{pool, t, &read}).PollLive(t.Context(), queries.PollLiveParams{Since: at, RowLimit: maxClicks})
		require.NoError(t, err)
		for _, r := range rows {
			ids = append(ids, r.URLID)
		}
		return ids
	}
	assert.Equal(t, []int64{2}, poll())
	assert.LessOrEqual(t, read, 2.0)
	require.NoError(t, long.Commit(t.Context()))
	assert.Equal(t, []int64{2, 1}, poll())
}

// A client that was cut off gets what it missed, from any process.
func TestResume(t *testing.T) {
	t.Parallel()
	s, pool := newSource(t)
	l := s.hear(t, 0, "")
	assert.Empty(t, l.First().Clicks)
	pgtest.Exec(t, pool, insert, 1, 2)
	_, at := l.links(t, 2)
	l.Close()
	require.False(t, s.reading(), "nobody listens")

	slow, err := pool.Begin(t.Context())
	require.NoError(t, err)
	pgtest.Exec(t, slow, insert, 3, 3)
	pgtest.Exec(t, pool, insert, 4, 5)
	other := NewSource(pool, s.log)
	again, ofFive, anew := other.hear(t, 0, at), other.hear(t, 5, at), other.hear(t, 0, "1:1:1,nonsense")
	assert.Equal(t, []int64{4, 5}, linksOf(again.First()))
	assert.Equal(t, []int64{5}, linksOf(ofFive.First()))
	assert.Empty(t, anew.First().Clicks)
	require.NoError(t, slow.Commit(t.Context()))
	pgtest.Exec(t, pool, insert, 6, 6)
	ids, _ := again.links(t, 2)
	assert.ElementsMatch(t, []int64{3, 6}, ids)
}

// A listener that does not keep up is told how many clicks it missed; others miss none.
func TestSlowListener(t *testing.T) {
	t.Parallel()
	s, pool := newSource(t)
	slow, quick := s.hear(t, 0, ""), s.hear(t, 0, "")
	for i := range maxPages + 3 {
		pgtest.Exec(t, pool, insert, i+1, i+1)
		ids, _ := quick.links(t, 1)
		require.Equal(t, []int64{int64(i + 1)}, ids)
	}
	assert.Empty(t, slow.Position(), "something waits for it")
	var seen []int64
	missed := int64(0)
	for len(slow.Pages()) > 0 {
		only := slow.Only(<-slow.Pages())
		seen, missed = append(seen, linksOf(only)...), missed+only.Missed
	}
	assert.Len(t, seen, maxPages)
	assert.EqualValues(t, 3, missed)
	assert.NotEmpty(t, slow.Position())
}

// More clicks than anybody can read are counted.
func TestTooMany(t *testing.T) {
	t.Parallel()
	s, pool := newSource(t)
	l := s.hear(t, 0, "")
	pgtest.Exec(t, pool, insert, 1, maxClicks+50)
	only := l.Only(<-l.Pages())
	assert.EqualValues(t, 50, only.Missed)
	ids := linksOf(only)
	assert.Len(t, ids, maxClicks)
	assert.True(t, slices.IsSorted(ids))
	assert.EqualValues(t, 51, ids[0])
}

// Workers write clicks only while somebody has listened lately.
func TestLease(t *testing.T) {
	t.Parallel()
	s, pool := newSource(t)
	wanted := func() (is bool) {
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT until > now() + interval '4 minutes' FROM live_wanted").Scan(&is))
		return is
	}
	require.False(t, wanted())
	l := s.hear(t, 0, "")
	assert.True(t, wanted())
	pgtest.Exec(t, pool, "INSERT INTO live_clicks (written_at, occurred_at, url_id, kind, more) VALUES (now() - interval '11 minutes', now(), 1, 'bot', 0)")
	require.NoError(t, s.renew(t.Context()))
	var left int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM live_clicks").Scan(&left))
	assert.Zero(t, left)
	l.Close()
	assert.False(t, s.reading())
	// It begins anew with the next one.
	l = s.hear(t, 0, "")
	pgtest.Exec(t, pool, insert, 9, 9)
	ids, _ := l.links(t, 1)
	assert.Equal(t, []int64{9}, ids)
}
