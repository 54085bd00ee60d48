// Package rollup keeps the number of clicks of each link. It is the only writer of
// click_quarters (a row for each link and quarter of an hour) and of click_days (a row
// for each link and UTC day).
//
// A transaction that writes or removes clicks collects them in [Changes] and calls
// Apply last, so that events and rollups are changed together or not at all.
package rollup

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/signpost/signpost/queries"
)

const (
	quarter = 15 * time.Minute
	day     = 24 * time.Hour
)

// Event is a click, with the fields that the rollups need.
type Event struct {
	URLID int64
	At    time.Time
	Bot   bool
}

// Changes collects clicks that are added to the rollups and taken away from them.
// The zero value is empty and ready. It is not safe for concurrent use.
type Changes struct {
	quarters map[key]count
	removed  bool
}

type key struct {
	url   int64
	start int64 // the start of the quarter or day, in seconds since 1970
}

type count struct{ clicks, bots int64 }

// Add counts a click.
func (c *Changes) Add(e Event) { c.change(e, 1) }

// Remove takes away a click that was counted.
func (c *Changes) Remove(e Event) {
	c.change(e, -1)
	c.removed = true
}

func (c *Changes) change(e Event, by int64) {
	if c.quarters == nil {
		c.quarters = map[key]count{}
	}
	k := key{e.URLID, e.At.Truncate(quarter).Unix()}
	n := c.quarters[k]
	n.clicks += by
	if e.Bot {
		n.bots += by
	}
	c.quarters[k] = n
}

// Apply writes the changes in the caller's transaction, to which q is bound. It has to
// be the last step of the transaction: popular links are in every batch, and their rows
// stay locked from here to the commit. Quarters are written before days, and both in
// the order of their keys, so that two transactions never wait for each other in a
// circle. Rows whose count becomes zero are removed.
func (c *Changes) Apply(ctx context.Context, q *queries.Queries) error {
	if len(c.quarters) == 0 {
		return nil
	}
	quarters, days := columnsOf(c.quarters), columnsOf(c.days())
	err := q.AddClickQuarters(ctx, queries.AddClickQuartersParams{
		URLIds: quarters.urls, Buckets: quarters.starts, Clicks: quarters.clicks, Bots: quarters.bots,
	})
	if err != nil {
		return fmt.Errorf("add to quarters: %w", err)
	}
	err = q.AddClickDays(ctx, queries.AddClickDaysParams{
		URLIds: days.urls, Days: days.starts, Clicks: days.clicks, Bots: days.bots,
	})
	if err != nil {
		return fmt.Errorf("add to days: %w", err)
	}
	if !c.removed {
		return nil
	}
	if err := q.DropEmptyQuarters(ctx, quarters.urls, quarters.starts); err != nil {
		return fmt.Errorf("drop empty quarters: %w", err)
	}
	if err := q.DropEmptyDays(ctx, days.urls, days.starts); err != nil {
		return fmt.Errorf("drop empty days: %w", err)
	}
	return nil
}

func (c *Changes) days() map[key]count {
	days := map[key]count{}
	for k, n := range c.quarters {
		k.start = time.Unix(k.start, 0).Truncate(day).Unix()
		sum := days[k]
		days[k] = count{sum.clicks + n.clicks, sum.bots + n.bots}
	}
	return days
}

// columns holds rows in the order of their keys, as one slice for each column, since
// the queries take them in this form.
type columns struct {
	urls         []int64
	starts       []time.Time
	clicks, bots []int64
}

func columnsOf(counts map[key]count) columns {
	keys := make([]key, 0, len(counts))
	for k := range counts {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int { return cmp.Or(cmp.Compare(a.url, b.url), cmp.Compare(a.start, b.start)) })
	var c columns
	for _, k := range keys {
		c.urls = append(c.urls, k.url)
		c.starts = append(c.starts, time.Unix(k.start, 0).UTC())
		c.clicks = append(c.clicks, counts[k].clicks)
		c.bots = append(c.bots, counts[k].bots)
	}
	return c
}

// Comparison says how the rollups of a database compare with its events.
type Comparison struct {
	Events   int64 // clicks among the events
	Quarters int64 // clicks in the quarters of an hour
	Days     int64 // clicks in the days
	Differ   int64 // rollup rows that disagree with the events, or are missing
}

// Check compares all rollups with all events, row by row. Archived months have rollups
// but no events any more. In these months, a difference is only counted if there are
// more events than the rollups say.
func Check(ctx context.Context, db queries.DBTX) (Comparison, error) {
	row, err := queries.New(db).CompareRollups(ctx)
	if err != nil {
		return Comparison{}, fmt.Errorf("compare rollups with events: %w", err)
	}
	return Comparison(row), nil
}

// String implements [fmt.Stringer].
func (c Comparison) String() string {
	return fmt.Sprintf("rollups: %d clicks in the quarters of an hour, %d in the days, %d in the events; %d rows differ",
		c.Quarters, c.Days, c.Events, c.Differ)
}
