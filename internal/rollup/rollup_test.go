package rollup_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/migrations"
	"github.com/signpost/signpost/queries"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// base is a month that has a partition.
var base = postgres.MonthOf(time.Now())

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	pgtest.Exec(t, pool, sql, args...)
}

func number(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) (n int64) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), sql, args...).Scan(&n), sql)
	return n
}

func apply(t *testing.T, pool *pgxpool.Pool, c *rollup.Changes) {
	t.Helper()
	require.NoError(t, c.Apply(t.Context(), queries.New(pool)))
}

func fold(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	require.NoError(t, rollup.Fold(t.Context(), pool))
}

func check(t *testing.T, pool *pgxpool.Pool) rollup.Comparison {
	t.Helper()
	c, err := rollup.Check(t.Context(), pool)
	require.NoError(t, err)
	return c
}

// wantSame checks that n clicks are in the events and in the statistics.
func wantSame(t *testing.T, pool *pgxpool.Pool, n int64) {
	t.Helper()
	c := check(t, pool)
	require.Zero(t, c.Differ, "%v", c)
	assert.Equal(t, n, c.Events, "clicks in the events")
	assert.Equal(t, n, c.Clicks, "clicks in the statistics")
	assert.Zero(t, c.Waiting, "link-days that wait to be counted again")
}

// randomClick returns a click on one of a few links and days.
func randomClick(r *rand.Rand) rollup.Event {
	e := rollup.Event{
		URLID: 1 + r.Int64N(5), UserID: 1 + r.Int64N(2),
		At:      base.AddDate(0, 0, -1).Add(time.Duration(r.Int64N(int64(72*time.Hour)/1000)) * 1000),
		Kind:    []string{rollup.Person, rollup.Person, "bot", "preview"}[r.IntN(4)],
		Country: []string{"", "DE", "NP"}[r.IntN(3)], Referrer: []string{"", "example.org"}[r.IntN(2)],
		Browser: "Firefox", System: "Linux", Device: []string{"mobile", "desktop"}[r.IntN(2)], Trigger: []string{"link", "qr"}[r.IntN(2)],
	}
	if e.Kind == rollup.Person && r.IntN(2) == 0 {
		e.First, e.FirstOfAll = true, r.IntN(2) == 0
	}
	return e
}

// crowd makes a click one of a day that has more referrers than are told apart.
func crowd(r *rand.Rand, e *rollup.Event) {
	e.URLID, e.At = 1, base.Add(e.At.Sub(base).Abs()%(24*time.Hour))
	e.Referrer = fmt.Sprintf("%d.example.org", r.IntN(1000))
}

// insert inserts the event of a click.
func insert(t *testing.T, db queries.DBTX, e rollup.Event) (id int64) {
	t.Helper()
	var firsts int16
	if e.First {
		firsts |= 1
	}
	if e.FirstOfAll {
		firsts |= 2
	}
	err := db.QueryRow(t.Context(), `INSERT INTO events (occurred_at, url_id, user_id, event_type, bot, kind, firsts, country, referrer_host, browser, os, device, trigger)
		VALUES ($1, $2, $3, 'clicked', $4, $5, $6, NULLIF($7, ''), NULLIF($8, ''), $9, $10, $11, NULLIF($12, 'link')) RETURNING id`,
		e.At, e.URLID, e.UserID, e.Kind != rollup.Person, e.Kind, firsts, e.Country, e.Referrer, e.Browser, e.System, e.Device, e.Trigger).Scan(&id)
	require.NoError(t, err)
	return id
}

// links makes users and links for the clicks, some of them with tags. The clicks on the
// link 5 are of a link that is gone.
func links(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	exec(t, pool, `INSERT INTO users (id, username, email) VALUES (1, 'ann', 'ann@example.org'), (2, 'bob', 'bob@example.org')`)
	exec(t, pool, `INSERT INTO urls (id, user_id, short_code, original_url, tags) VALUES
		(1, 1, 'one', 'https://example.org/1', '{sale,spring}'), (2, 1, 'two', 'https://example.org/2', '{sale}'),
		(3, 2, 'three', 'https://example.org/3', '{}'), (4, 2, 'four', 'https://example.org/4', '{}')`)
	require.NoError(t, postgres.EnsurePartitions(t.Context(), pool, []time.Time{base.AddDate(0, -1, 0)}))
}

// Random clicks are added and taken away in transactions of random sizes, links change
// in between, and digests are merged at random moments, or counted again. The statistics
// always say what the events say.
func TestStatisticsFollowEvents(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			r, pool := rand.New(rand.NewPCG(seed, 13)), pgtest.Pool(t)
			links(t, pool)
			type stored struct {
				id    int64
				event rollup.Event
			}
			var there []stored
			recent := int64(0)
			for i := range 40 {
				var changes rollup.Changes
				clicks, removals := 1+r.IntN(40), 30
				if seed < 2 && i == 0 {
					clicks = 3000 // so many that recent ones are stored beside them
				} else if seed < 2 {
					clicks, removals = 1+r.IntN(4), 1+r.IntN(2)*r.IntN(30)
				}
				for range clicks {
					e := randomClick(r)
					if seed < 2 {
						crowd(r, &e)
					}
					there = append(there, stored{insert(t, pool, e), e})
					changes.Add(e)
				}
				for range r.IntN(min(len(there), removals)) {
					i := r.IntN(len(there))
					exec(t, pool, "DELETE FROM events WHERE id = $1", there[i].id)
					changes.Remove(there[i].event)
					there = append(there[:i], there[i+1:]...)
				}
				apply(t, pool, &changes)
				switch r.IntN(8) {
				case 0, 1, 2:
					fold(t, pool)
				case 3:
					exec(t, pool, "UPDATE urls SET tags = CASE WHEN tags = '{}' THEN '{sale}' ELSE '{}' END::text[] WHERE id = $1", 1+r.IntN(4))
				case 4:
					exec(t, pool, "INSERT INTO rollup_recounts (day, url_id) VALUES ($1, $2)", base.AddDate(0, 0, r.IntN(3)-1), r.IntN(6))
					fold(t, pool)
				}
				recent += number(t, pool, "SELECT count(*) FROM rollups WHERE recent <> ''")
				if r.IntN(3) > 0 {
					continue
				}
				if c := check(t, pool); c.Differ != 0 {
					t.Fatal(c)
				}
			}
			fold(t, pool)
			assert.Equal(t, seed < 2, recent > 0, "rows with recent cells")
			wantSame(t, pool, int64(len(there)))
			require.NoError(t, rollup.AddUpTotals(t.Context(), pool))
			assert.Zero(t, number(t, pool, `
				SELECT count(*) FROM link_totals t
				FULL JOIN (SELECT url_id, count(*) AS clicks, count(*) FILTER (WHERE kind = 'person') AS people, max(occurred_at) AS last_at FROM events GROUP BY 1) e USING (url_id)
				WHERE (t.clicks, t.people, t.last_clicked_at) IS DISTINCT FROM (e.clicks, e.people, e.last_at)`), "totals of links")
			var changes rollup.Changes
			for _, s := range there {
				changes.Remove(s.event)
			}
			exec(t, pool, "DELETE FROM events")
			apply(t, pool, &changes)
			fold(t, pool)
			require.NoError(t, rollup.AddUpTotals(t.Context(), pool))
			assert.Zero(t, number(t, pool, "SELECT (SELECT count(*) FROM rollups) + (SELECT count(*) FROM link_totals)"), "rows without clicks")
		})
	}
}

// The last click of a link is taken away in the batch that brings an earlier one.
func TestLastClickIsTakenAway(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	links(t, pool)
	clicks := clickOn(1, base.Add(time.Hour), 3)
	ingest(t, pool, []rollup.Event{clicks[0], clicks[2]})
	fold(t, pool)
	wantTotals(t, pool)
	exec(t, pool, "DELETE FROM events WHERE occurred_at = $1", clicks[2].At)
	var changes rollup.Changes
	changes.Remove(clicks[2])
	changes.Add(clicks[1])
	apply(t, pool, &changes)
	clicks[1].Kind = rollup.Person
	insert(t, pool, clicks[1])
	fold(t, pool)
	wantSame(t, pool, 2)
	wantTotals(t, pool)
}

// Check notices each way in which a row can be wrong, and a rebuild mends it.
func TestCheckFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"a link's row is gone":                 "DELETE FROM rollups WHERE scope = 2",
		"a row too many":                       "INSERT INTO rollups SELECT 9, day, clicks, people, visitors, last_at, scopes, cells FROM rollups WHERE scope = 1",
		"a wrong total":                        "UPDATE rollups SET clicks = clicks + 1 WHERE scope = 1",
		"wrong cells of a link":                "UPDATE rollups SET cells = (SELECT cells FROM rollups r WHERE r.scope = 2 LIMIT 1) WHERE scope = 1",
		"a wrong last click":                   "UPDATE rollups SET last_at = last_at + interval '1 second' WHERE scope = 1",
		"all links' row is gone":               "DELETE FROM rollups WHERE scope = 0",
		"a wrong row of an owner":              "UPDATE rollups SET clicks = 1, cells = (SELECT cells FROM rollups r WHERE r.scope = 1 LIMIT 1) WHERE scope = -1",
		"an owner's row is gone":               "DELETE FROM rollups WHERE scope = -2",
		"a click that nobody counted":          "INSERT INTO events (occurred_at, url_id, event_type, bot) SELECT min(occurred_at), 3, 'clicked', false FROM events",
		"a click that is gone from the events": "DELETE FROM events WHERE id = (SELECT min(id) FROM events)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			links(t, pool)
			r := rand.New(rand.NewPCG(1, 2))
			var changes rollup.Changes
			for range 200 {
				e := randomClick(r)
				insert(t, pool, e)
				changes.Add(e)
			}
			apply(t, pool, &changes)
			fold(t, pool)
			wantSame(t, pool, 200)
			exec(t, pool, damage)
			require.NotZero(t, check(t, pool).Differ)
			_, err := rollup.Rebuild(t.Context(), pool, time.Time{}, time.Time{})
			require.NoError(t, err)
			fold(t, pool)
			wantSame(t, pool, number(t, pool, "SELECT count(*) FROM events"))
		})
	}
}

// The previous release counts clicks in click_quarters, beside this release, which keeps
// both in step where that release has been in use.
func TestClicksOfThePreviousRelease(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	links(t, pool)
	exec(t, pool, "UPDATE installation SET keeps_quarters = true")
	previous := func(e rollup.Event, by int) {
		t.Helper()
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		if by > 0 {
			pgtest.Exec(t, tx, "INSERT INTO events (occurred_at, url_id, user_id, event_type, bot) VALUES ($1, $2, $3, 'clicked', $4)", e.At, e.URLID, e.UserID, e.Kind != rollup.Person)
		} else {
			pgtest.Exec(t, tx, "DELETE FROM events WHERE ctid = (SELECT ctid FROM events WHERE url_id = $1 AND occurred_at = $2 LIMIT 1) AND occurred_at = $2", e.URLID, e.At)
		}
		bots := 0
		if e.Kind != rollup.Person {
			bots = by
		}
		require.NoError(t, queries.New(tx).AddClickQuarters(t.Context(), queries.AddClickQuartersParams{
			URLIds: []int64{e.URLID}, Buckets: []time.Time{e.At.Truncate(15 * time.Minute)}, Clicks: []int64{int64(by)}, Bots: []int64{int64(bots)},
		}))
		require.NoError(t, queries.New(tx).AddClickDays(t.Context(), queries.AddClickDaysParams{
			URLIds: []int64{e.URLID}, Days: []time.Time{e.At.Truncate(24 * time.Hour)}, Clicks: []int64{int64(by)}, Bots: []int64{int64(bots)},
		}))
		require.NoError(t, tx.Commit(t.Context()))
	}
	r, n := rand.New(rand.NewPCG(3, 4)), int64(0)
	var olds []rollup.Event
	for range 60 {
		e := randomClick(r)
		switch r.IntN(4) {
		case 0, 1:
			previous(e, 1)
			olds = append(olds, e)
			n++
		case 2:
			if len(olds) > 0 {
				previous(olds[0], -1)
				olds = olds[1:]
				n--
			}
		default:
			var changes rollup.Changes
			insert(t, pool, e)
			changes.Add(e)
			apply(t, pool, &changes)
			n++
		}
		if r.IntN(5) == 0 {
			fold(t, pool)
			wantSame(t, pool, n)
		}
	}
	fold(t, pool)
	wantSame(t, pool, n)
	assert.Zero(t, number(t, pool, `
		SELECT count(*) FROM (SELECT url_id, sum(clicks) AS clicks, sum(bots) AS bots FROM click_quarters GROUP BY 1) q
		FULL JOIN (SELECT url_id, count(*) AS clicks, count(*) FILTER (WHERE bot) AS bots FROM events GROUP BY 1) e USING (url_id)
		WHERE (q.clicks, q.bots) IS DISTINCT FROM (e.clicks, e.bots)`), "quarters that differ")
	assert.Zero(t, number(t, pool, `
		SELECT count(*) FROM (SELECT url_id, sum(clicks) AS clicks, sum(bots) AS bots FROM click_days GROUP BY 1) q
		FULL JOIN (SELECT url_id, count(*) AS clicks, count(*) FILTER (WHERE bot) AS bots FROM events GROUP BY 1) e USING (url_id)
		WHERE (q.clicks, q.bots) IS DISTINCT FROM (e.clicks, e.bots)`), "days that differ")
	assert.Zero(t, number(t, pool, "SELECT count(*) FROM rollup_recounts"), "our own changes of quarters are not counted again")
}

// Workers of the previous release change a row of click_quarters all the time, which a
// merge has to change too. It gets its turn.
func TestMergingBesidePreviousRelease(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	links(t, pool)
	exec(t, pool, "UPDATE installation SET keeps_quarters = true")
	ctx, stop := context.WithCancel(t.Context())
	var previous sync.WaitGroup
	written := make(chan struct{}, 1000)
	for range 2 {
		previous.Go(func() {
			for ctx.Err() == nil {
				_, _ = pool.Exec(ctx, `INSERT INTO click_quarters VALUES (1, $1, 1, 0)
					ON CONFLICT ON CONSTRAINT click_quarters_pkey DO UPDATE SET clicks = click_quarters.clicks + 1`, base)
				select {
				case written <- struct{}{}:
				default:
				}
			}
		})
	}
	<-written
	for range 5 {
		var changes rollup.Changes
		for url := range int64(500) {
			changes.Add(rollup.Event{URLID: 1 + url, UserID: 1, At: base})
		}
		apply(t, pool, &changes)
		did, err := rollup.FoldOnce(t.Context(), pool, rollup.MaxClicks, 0)
		require.NoError(t, err)
		assert.Equal(t, int64(500), did.Clicks)
	}
	stop()
	previous.Wait()
}

// A month that was archived keeps its statistics. What the previous release counts in it
// is added.
func TestArchivedMonths(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	links(t, pool)
	exec(t, pool, "UPDATE installation SET keeps_quarters = true")
	var changes rollup.Changes
	for range 20 {
		changes.Add(rollup.Event{URLID: 1, UserID: 1, At: base.Add(time.Hour), Country: "DE"})
	}
	apply(t, pool, &changes)
	fold(t, pool)
	require.NotZero(t, check(t, pool).Differ, "statistics without events")
	exec(t, pool, "INSERT INTO event_parts (month, part, table_name) VALUES ($1, 1, 'events_part')", base)
	require.Zero(t, check(t, pool).Differ)
	_, err := rollup.Rebuild(t.Context(), pool, time.Time{}, time.Time{})
	require.NoError(t, err)
	fold(t, pool)
	require.Equal(t, int64(20), number(t, pool, "SELECT clicks FROM rollups WHERE scope = 1"), "a rebuild leaves it alone")

	exec(t, pool, "INSERT INTO events (occurred_at, url_id, event_type, bot) VALUES ($1, 1, 'clicked', true)", base.Add(time.Hour))
	exec(t, pool, "UPDATE click_quarters SET clicks = clicks + 1, bots = bots + 1") // as the previous release does
	fold(t, pool)
	assert.Equal(t, int64(21), number(t, pool, "SELECT clicks FROM rollups WHERE scope = 1"))
	assert.Equal(t, int64(20), number(t, pool, "SELECT people FROM rollups WHERE scope = 1"))
	assert.Equal(t, int64(21), number(t, pool, "SELECT clicks FROM rollups WHERE scope = 0"))
	exec(t, pool, "INSERT INTO events (occurred_at, url_id, event_type, bot) VALUES ($1, 9, 'clicked', false)", base)
	assert.Equal(t, int64(1), check(t, pool).Differ, "a late click that was not counted")
}

// The rows of a day that are not of links are counted after those of its links, in
// whatever order that was asked for.
func TestWholeDayIsCountedLast(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	links(t, pool)
	for url := range int64(2) {
		exec(t, pool, "INSERT INTO events (occurred_at, url_id, user_id, event_type, bot) VALUES ($1, $2, 1, 'clicked', false)", base, url+1)
	}
	exec(t, pool, "INSERT INTO rollup_recounts (day, url_id) VALUES ($1, 0), ($1, 1), ($1, 2)", base)
	for range 6 {
		_, err := rollup.FoldOnce(t.Context(), pool, rollup.MaxClicks, 1)
		require.NoError(t, err)
	}
	assert.Zero(t, number(t, pool, "SELECT count(*) FROM rollup_recounts"))
	assert.Equal(t, int64(2), number(t, pool, "SELECT clicks FROM rollups WHERE scope = 0"))
	assert.Zero(t, check(t, pool).Differ)
}

// A month that an operator has taken out of events keeps its statistics too.
func TestMonthTakenAway(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	links(t, pool)
	var changes rollup.Changes
	changes.Add(rollup.Event{URLID: 1, UserID: 1, At: base.Add(time.Hour), Country: "DE"})
	apply(t, pool, &changes)
	fold(t, pool)
	require.NotZero(t, check(t, pool).Differ, "statistics without events")
	exec(t, pool, "ALTER TABLE events DETACH PARTITION "+base.Format("events_2006_01"))
	require.Zero(t, check(t, pool).Differ)
	_, err := rollup.CheckSample(t.Context(), pool, base.AddDate(0, 0, 1))
	require.NoError(t, err)
	_, err = rollup.Rebuild(t.Context(), pool, time.Time{}, time.Time{})
	require.NoError(t, err)
	fold(t, pool)
	require.Equal(t, int64(2), number(t, pool, "SELECT sum(clicks) FROM rollups WHERE scope IN (0, 1)"))

	query := rollup.Query{
		Scope: 1, Filter: rollup.Filter{rollup.Country: {Names: []string{"DE"}}, rollup.Browser: {Names: []string{""}}},
	}
	query.Range, err = rollup.Request{From: base.Format(time.DateOnly), To: base.AddDate(0, 0, 2).Format(time.DateOnly)}.Resolve(base.AddDate(0, 0, 1), rollup.Extent{})
	require.NoError(t, err)
	_, err = rollup.Read(t.Context(), queries.New(pool), query)
	var archived *rollup.ArchivedEventsError
	require.ErrorAs(t, err, &archived, "its events are not counted as none")
	assert.Equal(t, base, archived.Month)
	query.Range.From = base.AddDate(0, 0, 1)
	_, err = rollup.Read(t.Context(), queries.New(pool), query)
	require.NoError(t, err, "a range without clicks")
}

// A partition that an operator made holds its months, whatever it is called.
func TestMonthsOfAnOperatorsPartition(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	exec(t, pool, "CREATE TABLE events_old PARTITION OF events FOR VALUES FROM (MINVALUE) TO ('2011-05-01')")
	exec(t, pool, "CREATE TABLE events_half PARTITION OF events FOR VALUES FROM ('2011-05-01') TO ('2011-05-15')")
	ingest(t, pool, clickOn(1, time.Date(2011, time.April, 3, 4, 5, 6, 0, time.UTC), 3))
	ingest(t, pool, clickOn(1, time.Date(2011, time.May, 3, 4, 5, 6, 0, time.UTC), 2))
	fold(t, pool)
	exec(t, pool, "DELETE FROM events WHERE id = (SELECT min(id) FROM events)")
	exec(t, pool, "DELETE FROM events WHERE id = (SELECT max(id) FROM events)")
	assert.Equal(t, int64(2), check(t, pool).Differ, "rows of the month that is there as a whole")
	_, err := rollup.Rebuild(t.Context(), pool, time.Time{}, time.Time{})
	require.NoError(t, err)
	fold(t, pool)
	assert.Equal(t, int64(2), number(t, pool, "SELECT sum(clicks) FROM rollups WHERE scope = 0 AND day < '2011-05-01'"))
	assert.Equal(t, int64(2), number(t, pool, "SELECT sum(clicks) FROM rollups WHERE scope = 0 AND day >= '2011-05-01'"))
	assert.Zero(t, check(t, pool).Differ)
}

// An operator's table in the place of a partition of rollups is named.
func TestDetachedRollups(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	links(t, pool)
	ingest(t, pool, clickOn(1, base, 1))
	fold(t, pool)
	exec(t, pool, "ALTER TABLE rollups DETACH PARTITION "+base.Format("rollups_2006_01"))
	ingest(t, pool, clickOn(1, base, 1))
	err := rollup.Fold(t.Context(), pool)
	require.ErrorIs(t, err, postgres.ErrDetached)
	assert.ErrorContains(t, err, base.Format("rollups_2006_01"))
	exec(t, pool, fmt.Sprintf("ALTER TABLE rollups ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')",
		base.Format("rollups_2006_01"), base.Format(time.DateOnly), base.AddDate(0, 1, 0).Format(time.DateOnly)))
	fold(t, pool)
	wantSame(t, pool, 2)
}

// Many processes merge while clicks come in. Connections are cut in the middle.
func TestMergingAtOnce(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	links(t, pool)
	stop := make(chan struct{})
	var merging, writing sync.WaitGroup
	for range 3 {
		merging.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = rollup.FoldOnce(t.Context(), pool, rollup.MaxClicks, rollup.MaxRecounts) // its connection may be cut
				}
			}
		})
	}
	merging.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				_, _ = pool.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
			}
		}
	})
	const writers, batches, clicks = 3, 40, 10
	for w := range uint64(writers) {
		writing.Go(func() {
			r := rand.New(rand.NewPCG(w, 5))
			for range batches {
				tx, err := pool.Begin(t.Context())
				if !assert.NoError(t, err) {
					return
				}
				var changes rollup.Changes
				for range clicks {
					e := randomClick(r)
					insert(t, tx, e)
					changes.Add(e)
				}
				assert.NoError(t, changes.Apply(t.Context(), queries.New(tx)))
				assert.NoError(t, tx.Commit(t.Context()))
			}
		})
	}
	writing.Wait()
	close(stop)
	merging.Wait()
	fold(t, pool)
	wantSame(t, pool, writers*batches*clicks)
}

// An upgrade counts all earlier clicks again from the events, those of an archived month
// from the quarters of the previous release, while new clicks come in.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	address := pgtest.Empty(t)
	pool := pgtest.Open(t, address)
	provider, err := goose.NewProvider(goose.DialectPostgres, stdlib.OpenDBFromPool(pool), migrations.FS)
	require.NoError(t, err)
	_, err = provider.UpTo(t.Context(), 40)
	require.NoError(t, err)
	links(t, pool)
	require.NoError(t, postgres.EnsurePartitions(t.Context(), pool, []time.Time{base}))
	r, old := rand.New(rand.NewPCG(9, 9)), base.AddDate(0, -2, 0)
	for range 300 {
		e := randomClick(r)
		exec(t, pool, "INSERT INTO events (occurred_at, url_id, user_id, event_type, bot, country) VALUES ($1, $2, $3, 'clicked', $4, 'DE')", e.At, e.URLID, e.UserID, e.Kind != rollup.Person)
	}
	exec(t, pool, `INSERT INTO click_quarters SELECT url_id, date_bin('15 minutes', occurred_at, '2000-01-01Z'), count(*), count(*) FILTER (WHERE bot) FROM events GROUP BY 1, 2`)
	exec(t, pool, "INSERT INTO click_quarters VALUES (1, $1, 7, 3)", old) // its events are archived
	exec(t, pool, "INSERT INTO event_parts (month, part, table_name, state) VALUES ($1, 1, 'events_old_part_1', 'dropped')", old)
	exec(t, pool, `INSERT INTO click_days SELECT url_id, (bucket AT TIME ZONE 'UTC')::date, sum(clicks), sum(bots) FROM click_quarters GROUP BY 1, 2`)
	before := number(t, pool, "SELECT sum(clicks) FROM click_quarters")

	_, err = provider.Up(t.Context())
	require.NoError(t, err)
	var changes rollup.Changes
	for range 20 {
		e := randomClick(r)
		insert(t, pool, e)
		changes.Add(e)
	}
	apply(t, pool, &changes)
	fold(t, pool)
	c := check(t, pool)
	require.Zero(t, c.Differ, "%v", c)
	require.Zero(t, c.Waiting)
	assert.Equal(t, int64(320), c.Events)
	assert.Equal(t, int64(327), c.Clicks)
	assert.Equal(t, int64(7), number(t, pool, "SELECT clicks FROM rollups WHERE scope = 1 AND day = $1", old))
	assert.Equal(t, int64(4), number(t, pool, "SELECT people FROM rollups WHERE scope = 0 AND day = $1", old))
	assert.Equal(t, before+20, number(t, pool, "SELECT sum(clicks) FROM click_quarters"), "what the previous release reads")
}
