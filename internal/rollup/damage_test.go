package rollup_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/queries"
)

// clickOn returns n clicks on a link at a time.
func clickOn(url int64, at time.Time, n int) []rollup.Event {
	clicks := make([]rollup.Event, n)
	for i := range clicks {
		clicks[i] = rollup.Event{URLID: url, UserID: 1, At: at.Add(time.Duration(i) * time.Second), Country: "DE", Referrer: "example.org"}
	}
	return clicks
}

// ingest inserts clicks and leaves a digest of them.
func ingest(t *testing.T, pool *pgxpool.Pool, clicks []rollup.Event) {
	t.Helper()
	var changes rollup.Changes
	for _, e := range clicks {
		e.Kind = rollup.Person
		insert(t, pool, e)
		changes.Add(e)
	}
	apply(t, pool, &changes)
}

func wantTotals(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	require.NoError(t, rollup.AddUpTotals(t.Context(), pool))
	assert.Zero(t, number(t, pool, `
		SELECT count(*) FROM link_totals t
		FULL JOIN (SELECT url_id, count(*) AS clicks, count(*) FILTER (WHERE kind = 'person') AS people, max(occurred_at) AS last_at FROM events GROUP BY 1) e USING (url_id)
		WHERE (t.clicks, t.people, t.last_clicked_at) IS DISTINCT FROM (e.clicks, e.people, e.last_at)`), "totals of links")
}

// A digest that cannot be decoded is set aside. The others are merged, and its clicks
// are counted as soon as its days are counted again, each once.
func TestDigestThatCannotBeDecoded(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string][]byte{
		"of an unknown form": {9},
		"no frame":           {1, 2, 3},
		"cells of no day":    rollup.DigestOf(1, base, []byte{9}),
		"cells of all links": rollup.DigestOf(rollup.All, base, []byte{9}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			links(t, pool)
			day := base.AddDate(0, 0, -2)
			at := day.Add(time.Hour)
			ingest(t, pool, clickOn(1, at, 5))
			ingest(t, pool, clickOn(2, at.Add(time.Hour), 3))
			ingest(t, pool, clickOn(3, at, 4))
			exec(t, pool, "UPDATE rollup_digests SET payload = $1 WHERE clicks = 3", damage)
			_, err := rollup.FoldOnce(t.Context(), pool, rollup.MaxClicks, rollup.MaxRecounts)
			require.Error(t, err, "a newer release may understand it")

			exec(t, pool, "UPDATE rollup_digests SET created_at = created_at - interval '10 minutes'")
			did, err := rollup.FoldOnce(t.Context(), pool, rollup.MaxClicks, rollup.MaxRecounts)
			require.NoError(t, err)
			require.NotNil(t, did.Failed)
			assert.Equal(t, int32(3), did.Failed.Clicks)
			assert.True(t, at.Add(time.Hour).Equal(did.Failed.OldestAt))
			require.True(t, did.More)
			fold(t, pool)
			assert.Equal(t, int64(9), number(t, pool, "SELECT clicks FROM rollups WHERE scope = 0"))

			fresh, err := rollup.ReadFreshness(t.Context(), queries.New(pool))
			require.NoError(t, err)
			assert.Equal(t, rollup.Freshness{AsOf: at.Add(time.Hour), Pending: 3}, fresh)
			clicked, err := rollup.FindClicked(t.Context(), queries.New(pool), []int64{2, 4})
			require.NoError(t, err)
			assert.Equal(t, []int64{2}, clicked, "links whose clicks may be in it")
			leave, err := queries.New(pool).ListMonthsToLeave(t.Context(), pgtype.Interval{Valid: true})
			require.NoError(t, err)
			assert.Contains(t, leave, postgres.MonthOf(day), "months that are not archived")

			_, err = rollup.Rebuild(t.Context(), pool, day.AddDate(0, 0, 1), time.Time{})
			require.NoError(t, err)
			assert.Equal(t, int64(3), number(t, pool, "SELECT sum(clicks) FROM failed_rollup_digests"), "its day was not counted again")
			_, err = rollup.Rebuild(t.Context(), pool, day, time.Time{})
			require.NoError(t, err)
			fold(t, pool)
			wantSame(t, pool, 12)
			wantTotals(t, pool)
			assert.Zero(t, number(t, pool, "SELECT count(*) FROM failed_rollup_digests"))
		})
	}
}

// A row that cannot be decoded is counted again from the events, when clicks are to be
// added to it or when it is in a sample.
func TestRowThatCannotBeDecoded(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"a link":          `cells = '\x09' WHERE scope = 1`,
		"a link's scopes": `scopes = '\x80' WHERE scope = 1`,
		"recent cells":    `recent = '\x09' WHERE scope IN (0, 1)`,
		"all links":       `cells = '\x' WHERE scope = 0`,
		"an owner":        `cells = '\x01ff' WHERE scope = -1`,
		"everything":      `cells = '\x09', scopes = '\x80'`,
	} {
		for _, more := range []int{0, 2} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				pool := pgtest.Pool(t)
				links(t, pool)
				ingest(t, pool, clickOn(1, base.Add(time.Hour), 5))
				ingest(t, pool, clickOn(2, base.Add(time.Hour), 3))
				fold(t, pool)
				exec(t, pool, "UPDATE rollups SET "+damage)
				if more > 0 {
					ingest(t, pool, clickOn(1, base.Add(2*time.Hour), more))
					did, err := rollup.FoldOnce(t.Context(), pool, rollup.MaxClicks, 0)
					require.NoError(t, err)
					assert.NotEmpty(t, did.Damaged)
					fold(t, pool)
				}
				found, err := rollup.CheckSample(t.Context(), pool, base.AddDate(0, 0, 1))
				require.NoError(t, err)
				if more == 0 { // nobody has read the row since
					require.NotZero(t, found.Differ)
				} else {
					require.Zero(t, found.Differ, "%v", found)
				}
				fold(t, pool)
				wantSame(t, pool, int64(8+more))
				wantTotals(t, pool)
			})
		}
	}
}

// Recent cells that cannot be decoded, beside many others that can, are found again in the
// events. No click of them is counted twice.
func TestRecentCellsThatCannotBeDecoded(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	links(t, pool)
	r := rand.New(rand.NewPCG(1, 2))
	many := make([]rollup.Event, 3000)
	for i := range many {
		many[i] = randomClick(r)
		crowd(r, &many[i])
	}
	for _, clicks := range [][]rollup.Event{many, many[:7], many[7:9]} { // the last ones into damaged rows
		ingest(t, pool, clicks)
		fold(t, pool)
		exec(t, pool, `UPDATE rollups SET recent = '\x09' WHERE recent <> '' AND scope >= 0`)
	}
	assert.NotZero(t, number(t, pool, "SELECT count(*) FROM rollups WHERE octet_length(cells) > 8192"))
	ingest(t, pool, many[9:10])
	fold(t, pool)
	wantSame(t, pool, 3010)
	wantTotals(t, pool)
}

// The scopes of a link's row cannot be decoded when its whole day is counted again.
func TestDayOfADamagedLink(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	links(t, pool)
	ingest(t, pool, clickOn(1, base.Add(time.Hour), 5))
	ingest(t, pool, clickOn(2, base.Add(time.Hour), 3))
	fold(t, pool)
	exec(t, pool, `UPDATE rollups SET scopes = '\x80' WHERE scope = 1`)
	exec(t, pool, "INSERT INTO rollup_recounts (day, url_id) VALUES ($1, 0)", base)
	fold(t, pool)
	wantSame(t, pool, 8)
	wantTotals(t, pool)
}

// A row of an archived month that cannot be decoded keeps its totals: there are no
// events to count it again from.
func TestArchivedRowThatCannotBeDecoded(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	links(t, pool)
	exec(t, pool, "UPDATE installation SET keeps_quarters = true")
	ingest(t, pool, clickOn(1, base.Add(time.Hour), 5))
	fold(t, pool)
	exec(t, pool, "DELETE FROM events")
	exec(t, pool, "INSERT INTO event_parts (month, part, table_name) VALUES ($1, 1, 'events_part')", base)
	exec(t, pool, `UPDATE rollups SET cells = '\x09' WHERE scope >= 0`)
	exec(t, pool, "INSERT INTO rollup_recounts (day, url_id) VALUES ($1, 1), ($1, 0)", base)
	ingest(t, pool, clickOn(1, base.Add(2*time.Hour), 2))
	fold(t, pool)
	for _, scope := range []int64{0, 1, -1} {
		assert.Equal(t, int64(7), number(t, pool, "SELECT clicks FROM rollups WHERE scope = $1", scope), "scope %d", scope)
	}
	assert.Zero(t, check(t, pool).Differ)
}
