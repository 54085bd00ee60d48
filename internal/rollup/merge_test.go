package rollup

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// watched calls back before each query.
type watched struct {
	queries.DBTX
	each func()
}

func (w watched) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	w.each()
	return w.DBTX.Query(ctx, sql, args...)
}

// A merge holds few rows in memory, however many links it is of and tags these have.
func TestMergeHoldsFewRows(t *testing.T) {
	t.Parallel()
	pool, now := pgtest.Pool(t), time.Now()
	const n, tags = 6000, 3
	pgtest.Exec(t, pool, "INSERT INTO users (id, username, email) VALUES (1, 'ann', 'ann@example.org')")
	pgtest.Exec(t, pool, `INSERT INTO urls (id, user_id, short_code, original_url, tags)
		SELECT i, 1, 'code' || i, 'https://example.org/', (SELECT array_agg(i || '-' || j) FROM generate_series(1, $2) j) FROM generate_series(1, $1) i`, n, tags)
	var changes Changes
	for i := range int64(n) {
		changes.Add(Event{URLID: i + 1, UserID: 1, At: now})
	}
	require.NoError(t, changes.Apply(t.Context(), queries.New(pool)))
	require.NoError(t, EnsureMonths(t.Context(), pool, []time.Time{postgres.MonthOf(now)}))
	most := 0
	require.NoError(t, postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		m := merge{tx: tx, others: map[key]*sides{}}
		m.q = queries.New(watched{queries.Planned{DBTX: tx}, func() { most = max(most, len(m.others)) }})
		entries, err := m.take(t.Context(), new(Folded), MaxClicks, 0)
		require.NoError(t, err)
		return m.run(t.Context(), entries)
	}))
	assert.Less(t, most, mergeOthers+mergePiece*(tags+2))
	var rows int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM rollups WHERE clicks > 0").Scan(&rows))
	assert.Equal(t, n+n*tags+3, rows, "rows of links, tags, all links, the owner and the domain")
}
