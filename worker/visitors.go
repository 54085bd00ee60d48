package worker

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/internal/visits"
	"github.com/signpost/signpost/queries"
)

// calendar tells on which day of a time zone a click was. It remembers the quarter of an
// hour of the last one, within which no zone has changed its day since 2000. It is for
// one goroutine.
type calendar struct {
	zone    *time.Location // nil is UTC
	quarter int64
	last    int64
	used    bool
}

// day returns the number of the day of a time in microseconds since 1970, as if the days
// since 1970 were counted in UTC.
func (c *calendar) day(at int64) int64 {
	const quarter = int64(15 * time.Minute / time.Microsecond)
	if q := floorDiv(at, quarter); !c.used || q != c.quarter {
		c.quarter, c.last, c.used = q, dayIn(c.zone, time.UnixMicro(at)), true
	}
	return c.last
}

// dayIn returns the number of the day that t is on in a zone, nil for UTC.
func dayIn(zone *time.Location, t time.Time) int64 {
	year, month, day := t.In(cmp.Or(zone, time.UTC)).Date()
	return dayOf(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).UnixMicro())
}

// dateOf returns a day as queries take it.
func dateOf(day int64) time.Time { return time.Unix(day*int64(utcDay/time.Second), 0).UTC() }

// visitorsName is how the partition of a day is called.
const visitorsName = "visitors_2006_01_02"

// visitorDays remembers which days have a partition of visitors. It is safe for
// concurrent use.
type visitorDays struct {
	pool  *pgxpool.Pool
	mu    sync.Mutex
	known map[int64]bool
}

// ensure makes the partitions of days, unless it knows that they are there.
func (d *visitorDays) ensure(ctx context.Context, days ...int64) error {
	for _, day := range days {
		d.mu.Lock()
		known := d.known[day]
		d.mu.Unlock()
		if known {
			continue
		}
		date := dateOf(day)
		err := postgres.EnsurePartition(ctx, d.pool, postgres.Partition{
			Of: "visitors", Name: date.Format(visitorsName), From: date, To: date.AddDate(0, 0, 1),
		})
		if err != nil {
			return err
		}
		d.mu.Lock()
		d.known[day] = true
		d.mu.Unlock()
	}
	return nil
}

// forget makes the next ensure look again.
func (d *visitorDays) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.known)
}

// firstVisit is the first click of a visitor in a batch, for a link or, with the link 0, for
// all of them.
type firstVisit struct {
	visitorKey
	event int
}

type visitorKey struct{ day, url, visitor int64 }

func (k visitorKey) compare(l visitorKey) int {
	return cmp.Or(cmp.Compare(k.day, l.day), cmp.Compare(k.visitor, l.visitor), cmp.Compare(k.url, l.url))
}

// claimVisitors says of each event, which are oldest first, whether it is the first click
// of its visitor: the visitor's row can be inserted once. Rows are inserted in the order
// of their keys, so that batches never wait for each other in a circle.
func claimVisitors(ctx context.Context, q *queries.Queries, events []event) error {
	var claims []firstVisit
	for i := range events {
		e := &events[i]
		e.firsts = 0
		if e.kind == visits.Person && !e.private {
			claims = append(claims, firstVisit{visitorKey{e.day, 0, e.visitor}, i}, firstVisit{visitorKey{e.day, e.urlID, e.visitor}, i})
		}
	}
	if len(claims) == 0 {
		return nil
	}
	slices.SortFunc(claims, func(a, b firstVisit) int { return cmp.Or(a.compare(b.visitorKey), cmp.Compare(a.event, b.event)) })
	claims = slices.CompactFunc(claims, func(a, b firstVisit) bool { return a.visitorKey == b.visitorKey })
	days, urls, visitors := make([]time.Time, len(claims)), make([]int64, len(claims)), make([]int64, len(claims))
	for i, c := range claims {
		days[i], urls[i], visitors[i] = dateOf(c.day), c.url, c.visitor
	}
	won, err := q.ClaimVisitors(ctx, days, urls, visitors)
	if err != nil {
		return fmt.Errorf("look for first visits: %w", err)
	}
	for _, w := range won {
		key := visitorKey{dayOf(w.Day.UnixMicro()), w.URLID, w.Visitor}
		i, _ := slices.BinarySearchFunc(claims, key, func(c firstVisit, k visitorKey) int { return c.compare(k) })
		if e := &events[claims[i].event]; key.url == 0 {
			e.firsts |= rollup.FirstOfAll
		} else {
			e.firsts |= rollup.FirstOfLink
		}
	}
	return nil
}

// dropVisitors drops the visitors of days whose salt was destroyed: no visitor of such a
// day can come again.
func (d *deps) dropVisitors(ctx context.Context, before time.Time) error {
	names, err := postgres.PartitionsOf(ctx, d.pool, "visitors")
	if err != nil {
		return err
	}
	// Salts are read after that: a day's salt is made before its partition.
	salts, err := queries.New(d.pool).ListSaltDays(ctx)
	if err != nil {
		return fmt.Errorf("list salts: %w", err)
	}
	for _, name := range names {
		date, err := time.Parse(visitorsName, name)
		if err != nil || !date.Before(before) || slices.ContainsFunc(salts, date.Equal) {
			continue
		}
		if err := postgres.DropPartition(ctx, d.pool, name); err != nil {
			return err
		}
		d.visitors.forget()
	}
	return nil
}
