package worker

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
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
//
// The rows that are not there yet are copied, which takes a quarter of the time and half
// of the log of inserting them with ON CONFLICT. If another batch was faster with one of
// them, that is done after all.
func claimVisitors(ctx context.Context, tx pgx.Tx, events []event) error {
	claims := firstVisits(events)
	if len(claims) == 0 {
		return nil
	}
	// This lock keeps rows from being taken away after it was seen that they are there.
	if _, err := tx.Exec(ctx, "LOCK TABLE ONLY visitors IN ROW EXCLUSIVE MODE"); err != nil {
		return fmt.Errorf("keep visitors: %w", err)
	}
	fresh, err := newVisits(ctx, queries.New(queries.Planned{DBTX: tx}), claims)
	if err != nil {
		return fmt.Errorf("look for visitors: %w", err)
	}
	if len(fresh) == 0 {
		return nil
	}
	err = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		return copyRows(ctx, tx, copyVisitorsSQL, fresh, appendVisitor)
	})
	if postgres.Duplicate(err) {
		fresh, err = insertVisitors(ctx, queries.New(tx), fresh)
	}
	for _, c := range fresh {
		if e := &events[c.event]; c.url == 0 {
			e.firsts |= rollup.FirstOfAll
		} else {
			e.firsts |= rollup.FirstOfLink
		}
	}
	return wrap("claim visitors", err)
}

// newVisits returns the claims, which are in the order of their keys, without those whose
// rows are there. Most visitors follow one link: if they are not known at all, it is not
// asked whether they are known for a link. So a row may be there after all that somebody
// has released only in part, see ReleaseVisitors.
func newVisits(ctx context.Context, q *queries.Queries, claims []firstVisit) ([]firstVisit, error) {
	known := make([]bool, len(claims))
	find := func(wanted func(i int) bool) error {
		days := map[int64]*queries.FindVisitorsParams{}
		for i, c := range claims {
			if !wanted(i) {
				continue
			}
			p := days[c.day]
			if p == nil {
				p = &queries.FindVisitorsParams{Day: dateOf(c.day)}
				days[c.day] = p
			}
			p.Places, p.URLIds, p.Visitors = append(p.Places, int32(i)), append(p.URLIds, c.url), append(p.Visitors, c.visitor)
		}
		for _, p := range days {
			places, err := q.FindVisitors(ctx, *p)
			if err != nil {
				return err
			}
			for _, place := range places {
				known[place] = true
			}
		}
		return nil
	}
	if err := find(func(i int) bool { return claims[i].url == 0 }); err != nil {
		return nil, err
	}
	visitor := 0 // the place of the claim for all links, which is before the others
	err := find(func(i int) bool {
		if claims[i].url == 0 {
			visitor = i
			return false
		}
		return known[visitor]
	})
	fresh := make([]firstVisit, 0, len(claims))
	for i, c := range claims {
		if !known[i] {
			fresh = append(fresh, c)
		}
	}
	return fresh, err
}

const copyVisitorsSQL = "COPY visitors (day, url_id, visitor) FROM STDIN (FORMAT binary)"

func appendVisitor(b []byte, v *firstVisit) []byte {
	b = append(b, 0, 3, 0, 0, 0, 4)
	b = binary.BigEndian.AppendUint32(b, uint32(int32(v.day-epochDay)))
	b = appendInt(b, v.url)
	return appendInt(b, v.visitor)
}

// epochDay is the day from which Postgres counts.
var epochDay = dayOf(epoch)

// firstVisits returns the visits that may be the first ones, in the order of their keys,
// and sets firsts of all events to 0.
func firstVisits(events []event) []firstVisit {
	var claims []firstVisit
	for i := range events {
		e := &events[i]
		e.firsts = 0
		if e.kind == visits.Person && !e.private {
			claims = append(claims, firstVisit{visitorKey{e.day, 0, e.visitor}, i}, firstVisit{visitorKey{e.day, e.urlID, e.visitor}, i})
		}
	}
	slices.SortFunc(claims, func(a, b firstVisit) int { return cmp.Or(a.compare(b.visitorKey), cmp.Compare(a.event, b.event)) })
	return slices.CompactFunc(claims, func(a, b firstVisit) bool { return a.visitorKey == b.visitorKey })
}

// insertVisitors inserts the rows that are not there, waiting for others that insert the
// same, and returns which these are.
func insertVisitors(ctx context.Context, q *queries.Queries, claims []firstVisit) ([]firstVisit, error) {
	days, urls, visitors := make([]time.Time, len(claims)), make([]int64, len(claims)), make([]int64, len(claims))
	for i, c := range claims {
		days[i], urls[i], visitors[i] = dateOf(c.day), c.url, c.visitor
	}
	won, err := q.ClaimVisitors(ctx, days, urls, visitors)
	fresh := make([]firstVisit, len(won))
	for i, w := range won {
		key := visitorKey{dayOf(w.Day.UnixMicro()), w.URLID, w.Visitor}
		place, _ := slices.BinarySearchFunc(claims, key, func(c firstVisit, k visitorKey) int { return c.compare(k) })
		fresh[i] = claims[place]
	}
	return fresh, err
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
