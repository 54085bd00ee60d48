package worker

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/internal/visits"
	"github.com/signpost/signpost/internal/zone"
)

// by returns a click of a visitor, who is known by the address.
func by(visitor int, url int64, at time.Time) clicks.Click {
	c := click(url, at)
	c.IP = netip.AddrFrom4([4]byte{8, 8, 8, byte(visitor)})
	return c
}

// Each visitor counts once a day for each link and once for all links, whatever batches
// its clicks come in, on however many workers at once.
func TestVisitorsCountOnce(t *testing.T) {
	s := setup(t)
	noon := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -1).Add(12 * time.Hour)
	for n := range 12 {
		var batch []clicks.Click
		for i := range 40 {
			c := by(i%10, int64(1+i%3), noon.Add(time.Duration(n*40+i)*time.Second).AddDate(0, 0, n%2))
			switch {
			case i%7 == 0:
				c.UserAgent = "curl/8.5.0"
			case i%11 == 0:
				c.Private = true
			}
			batch = append(batch, c)
		}
		s.ship(fmt.Sprintf("batch-%02d", n), batch)
	}
	s.start(map[string]int{jobs.QueueClicks: 3})
	s.start(map[string]int{jobs.QueueClicks: 3})
	s.eventually("batches are ingested", s.allIngested)
	s.wantCounted(12 * 40)
	const people = " FROM events WHERE kind = 'person' AND visitor IS NOT NULL"
	links := s.int("SELECT count(DISTINCT (occurred_at::date, url_id, visitor))" + people)
	all := s.int("SELECT count(DISTINCT (occurred_at::date, visitor))" + people)
	require.Equal(t, int64(20), all)
	s.wantInt(links, "SELECT count(*)"+people+" AND firsts & 1 = 1")
	s.wantInt(all, "SELECT count(*)"+people+" AND firsts & 2 = 2")
	s.wantInt(0, "SELECT count(*) FROM events WHERE firsts > 0 AND (kind <> 'person' OR visitor IS NULL)")
	s.fold()
	s.wantInt(links, "SELECT sum(visitors) FROM rollups WHERE scope > 0")
	s.wantInt(all, "SELECT sum(visitors) FROM rollups WHERE scope = 0")
	s.wantInt(links, "SELECT sum(r.visitors) FROM rollups r JOIN rollup_scopes s ON s.id = -r.scope WHERE s.kind = 'owner'")
}

// Two transactions have clicks of one visitor. The second waits for the first, and counts
// the visitor only if that one does not.
func TestVisitorOfTwoBatchesAtOnce(t *testing.T) {
	for _, commits := range []bool{true, false} {
		t.Run(fmt.Sprint("the first commits: ", commits), func(t *testing.T) {
			s := setup(t)
			day := dayOf(time.Now().UnixMicro())
			days := visitorDays{pool: s.pool, known: map[int64]bool{}}
			s.ok(days.ensure(s.ctx, day))
			of := func(visitors ...int64) (events []event) {
				for _, v := range visitors {
					events = append(events, event{day: day, urlID: 1, visitor: v, kind: visits.Person})
				}
				return events
			}
			firsts := func(events []event) (all []int16) {
				for _, e := range events {
					all = append(all, e.firsts)
				}
				return all
			}
			first, err := s.pool.Begin(s.ctx)
			s.ok(err)
			defer first.Rollback(context.WithoutCancel(s.ctx)) //nolint:errcheck // it may be done
			one, two := of(1, 2, 2), of(2, 3)
			s.ok(claimVisitors(s.ctx, first, one))
			assert.Equal(t, []int16{3, 3, 0}, firsts(one))
			done := make(chan error)
			go func() {
				done <- pgx.BeginFunc(s.ctx, s.pool, func(tx pgx.Tx) error { return claimVisitors(s.ctx, tx, two) })
			}()
			s.eventually("the second waits", func() bool { return s.int("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0 })
			want := []int16{3, 3}
			if commits {
				s.ok(first.Commit(s.ctx))
				want = []int16{0, 3}
			} else {
				s.ok(first.Rollback(s.ctx))
			}
			s.ok(<-done)
			assert.Equal(t, want, firsts(two))
		})
	}
}

// A visitor who was released for all links, and not for the one that was followed, is new
// for all of them only.
func TestVisitorThatWasReleasedInPart(t *testing.T) {
	s := setup(t)
	day := dayOf(time.Now().UnixMicro())
	days := visitorDays{pool: s.pool, known: map[int64]bool{}}
	s.ok(days.ensure(s.ctx, day))
	claim := func() []int16 {
		events := []event{{day: day, urlID: 1, visitor: 7, kind: visits.Person}, {day: day, urlID: 2, visitor: 8, kind: visits.Person}}
		s.ok(pgx.BeginFunc(s.ctx, s.pool, func(tx pgx.Tx) error { return claimVisitors(s.ctx, tx, events) }))
		return []int16{events[0].firsts, events[1].firsts}
	}
	assert.Equal(t, []int16{3, 3}, claim())
	assert.Equal(t, []int16{0, 0}, claim())
	s.exec("DELETE FROM visitors WHERE url_id = 0 AND visitor = 7")
	assert.Equal(t, []int16{rollup.FirstOfAll, 0}, claim())
	s.exec("DELETE FROM visitors WHERE url_id = 1")
	assert.Equal(t, []int16{rollup.FirstOfLink, 0}, claim())
}

// A click that Postgres refuses is not its visitor's first one: the next is.
func TestVisitorOfARefusedClick(t *testing.T) {
	s := setup(t)
	s.exec("ALTER TABLE events ADD CONSTRAINT events_no_three CHECK (url_id <> 3)")
	at := time.Now().Add(-time.Hour)
	s.ship("a-1", []clicks.Click{by(1, 3, at), by(1, 4, at.Add(time.Second)), by(1, 4, at.Add(2*time.Second))})
	s.start(nil)
	s.eventually("batch is ingested", s.allIngested)
	s.wantText("3 0", "SELECT string_agg(firsts::text, ' ' ORDER BY occurred_at) FROM events")
	s.wantRollups()
}

// A visitor's day is a day of the time zone.
func TestVisitorsOfAZone(t *testing.T) {
	s := setup(t)
	kathmandu, err := zone.Load("Asia/Kathmandu")
	s.ok(err)
	midnight := time.Date(2024, time.March, 1, 0, 0, 0, 0, kathmandu)
	s.ship("a-1", []clicks.Click{
		by(1, 1, midnight.Add(-time.Second)), by(1, 1, midnight), by(1, 1, midnight.Add(24*time.Hour-time.Second)), by(1, 1, midnight.Add(24*time.Hour)),
	})
	s.start(nil, func(d *deps) { d.zone = kathmandu })
	s.eventually("batch is ingested", s.allIngested)
	s.wantText("3 3 0 3", "SELECT string_agg(firsts::text, ' ' ORDER BY occurred_at) FROM events")
	s.wantText("2024-02-29 2024-03-01 2024-03-02", "SELECT string_agg(DISTINCT day::text, ' ' ORDER BY day::text) FROM visitors WHERE day < '2025-01-01'")
}

// The visitors of a day are dropped together with its salt. A click that comes later has
// another salt, and a place.
func TestVisitorsGoWithTheirSalt(t *testing.T) {
	s := setup(t)
	old := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -5).Add(12 * time.Hour)
	s.ship("a-1", []clicks.Click{by(1, 1, old), by(1, 1, time.Now())})
	s.start(nil)
	s.eventually("batch is ingested", s.allIngested)
	s.run(jobs.Prune{})
	s.wantInt(4, "SELECT count(*) FROM visitors")
	s.saltsWereGivenNotice()
	s.run(jobs.Prune{})
	s.wantInt(2, "SELECT count(*) FROM visitors")
	s.ship("a-2", []clicks.Click{by(1, 1, old)})
	s.eventually("late click is ingested", s.allIngested)
	s.wantInt(4, "SELECT count(*) FROM visitors")
	s.wantCounted(3)
	s.wantInt(0, "SELECT count(*) FROM click_rejects")
}

func TestDaysOfACalendar(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"UTC", "Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"} {
		where, err := zone.Load(name)
		require.NoError(t, err)
		c := calendar{zone: where}
		for at := time.Date(2011, time.December, 1, 0, 0, 0, 0, time.UTC); at.Year() < 2013; at = at.Add(7 * time.Minute) {
			want := at.In(where).Format(time.DateOnly)
			if got := dateOf(c.day(at.UnixMicro())).Format(time.DateOnly); got != want {
				assert.Equal(t, want, got, "%s in %s", at, name)
				break
			}
		}
	}
}

// One worker compares statistics with events in each period. A row that does not agree
// is counted, and counted again from the events.
func TestStatisticsAreCompared(t *testing.T) {
	s := setup(t)
	s.ship("a-1", many(50, time.Now().AddDate(0, 0, -1)))
	w := s.start(nil)
	s.eventually("batch is ingested", s.allIngested)
	s.fold()
	differ := func() float64 { return testutil.ToFloat64(w.deps.metrics.rollupsDiffer) }
	s.ok(w.deps.checkOnce(s.ctx, 0))
	require.Zero(t, differ())
	s.exec("UPDATE rollups SET clicks = clicks + 1 WHERE scope = 3")
	s.ok(w.deps.checkOnce(s.ctx, time.Hour)) // the last one was a moment ago
	require.Zero(t, differ())
	s.ok(w.deps.checkOnce(s.ctx, 0))
	require.NotZero(t, differ())
	s.fold()
	s.wantCounted(50)
}
