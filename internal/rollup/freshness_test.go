package rollup

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/queries"
)

// Whatever holds clicks that are not counted holds back the time up to which statistics
// are complete, and the oldest of them decides.
func TestFreshness(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	fresh := func() Freshness {
		t.Helper()
		f, err := ReadFreshness(t.Context(), queries.New(pool))
		require.NoError(t, err)
		return f
	}
	check := func(what string, asOf time.Time, pending int64) {
		t.Helper()
		f := fresh()
		assert.Equal(t, asOf, f.AsOf, what)
		assert.Equal(t, pending, f.Pending, what)
	}
	before := fresh()
	assert.Zero(t, before.Pending)
	assert.WithinDuration(t, time.Now(), before.AsOf, time.Minute)

	at := func(hour int) time.Time { return time.Date(2026, 3, 4, hour, 0, 0, 0, time.UTC) }
	pgtest.Exec(t, pool, "INSERT INTO replicas (id, host, folders, spooled, complete_to) VALUES ('a', 'a', '{f}', 1, $1), ('b', 'b', '{g}', 0, $2)", at(10), at(9))
	check("what is spooled", at(9), 1)
	pgtest.Exec(t, pool, "INSERT INTO click_batches (id, payload, clicks, oldest_at) VALUES ('b-1', '', 20, $1), ('b-2', '', 30, $2)", at(8), at(12))
	check("batches", at(8), 51)
	pgtest.Exec(t, pool, "UPDATE click_batches SET failed_at = now(), failure = 'x' WHERE id = 'b-1'")
	check("a failed batch", at(8), 51)

	// A batch becomes a digest, which is merged.
	pgtest.Exec(t, pool, "UPDATE click_batches SET payload = NULL, ingested_at = now() WHERE id = 'b-1'")
	var changes Changes
	changes.Add(Event{URLID: 1, At: at(8).Add(time.Minute)})
	require.NoError(t, changes.Apply(t.Context(), queries.New(pool)))
	check("a digest", at(8).Add(time.Minute), 32)
	require.NoError(t, Fold(t.Context(), pool))
	check("no digest any more", at(9), 31)

	pgtest.Exec(t, pool, "INSERT INTO rollup_recounts (day, url_id) VALUES ('2026-03-04', 1), ('2026-03-03', 1)")
	check("a day that is counted again", time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC), 31)
	require.NoError(t, Fold(t.Context(), pool))
	pgtest.Exec(t, pool, "DELETE FROM replicas")
	pgtest.Exec(t, pool, "DELETE FROM click_batches")
	last := fresh()
	assert.Zero(t, last.Pending)
	assert.False(t, last.AsOf.Before(before.AsOf))
}
