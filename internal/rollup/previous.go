package rollup

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/signpost/signpost/queries"
)

// quarterChanges are changes of click_quarters and click_days, which the previous
// release reads. They are kept in step until the next release.
type quarterChanges struct {
	quarters, days map[slot]count
	removed        bool
}

// slot names a row of click_quarters or click_days.
type slot struct {
	url   int64
	start time.Time
}

type count struct{ clicks, bots int64 }

// add notes the change of a row of rollups.
func (c *quarterChanges) add(k key, change *sides) {
	if c.quarters == nil {
		c.quarters, c.days = map[slot]count{}, map[slot]count{}
	}
	c.addDay(k, &change.added, 1)
	c.addDay(k, &change.removed, -1)
	c.removed = c.removed || !change.removed.Empty()
}

func (c *quarterChanges) addDay(k key, d *Day, by int64) {
	for _, v := range d.values[Kind] {
		for _, cell := range v.cells {
			n := count{by * cell.Clicks, by * (cell.Clicks - cell.People)}
			start := dateOf(k.day)
			addCount(c.days, slot{k.scope, start}, n)
			addCount(c.quarters, slot{k.scope, start.Add(time.Duration(cell.quarter) * quarter)}, n)
		}
	}
}

func addCount(to map[slot]count, s slot, n count) {
	sum := to[s]
	to[s] = count{sum.clicks + n.clicks, sum.bots + n.bots}
}

func (c *quarterChanges) apply(ctx context.Context, q *queries.Queries) error {
	if len(c.quarters) == 0 {
		return nil
	}
	quarters, days := columnsOf(c.quarters), columnsOf(c.days)
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
	return wrap("drop empty days", q.DropEmptyDays(ctx, days.urls, days.starts))
}

// columns holds rows in the order of their keys, as one slice for each column.
type columns struct {
	urls         []int64
	starts       []time.Time
	clicks, bots []int64
}

func columnsOf(counts map[slot]count) columns {
	slots := make([]slot, 0, len(counts))
	for s := range counts {
		slots = append(slots, s)
	}
	slices.SortFunc(slots, func(a, b slot) int { return cmp.Or(cmp.Compare(a.url, b.url), a.start.Compare(b.start)) })
	var c columns
	for _, s := range slots {
		c.urls, c.starts = append(c.urls, s.url), append(c.starts, s.start)
		c.clicks, c.bots = append(c.clicks, counts[s].clicks), append(c.bots, counts[s].bots)
	}
	return c
}
