package rollup

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/queries"
)

// counted is the clicks of a link on a day, as its events say.
type counted struct {
	cells *Day
	owner int64
	last  time.Time
	// missing says that these are clicks that the row lacks, rather than all that it
	// should have.
	missing bool
}

// clicksOfDay is not one of the sqlc queries, because those keep all rows in memory, and
// a day may have millions.
const clicksOfDay = `
SELECT url_id, COALESCE(user_id, 0), occurred_at, COALESCE(kind, CASE WHEN bot THEN 'bot' ELSE 'person' END),
    COALESCE(country, ''), COALESCE(referrer_host, ''), COALESCE(browser, ''), COALESCE(os, ''), COALESCE(device, ''),
    COALESCE(trigger, 'link'), COALESCE(firsts, 0)
FROM events
WHERE event_type = 'clicked' AND url_id IS NOT NULL AND occurred_at >= $1 AND occurred_at < $2`

// Bits of the column firsts of events.
const (
	FirstOfLink = 1 << iota
	FirstOfAll
)

// readClicks calls each for every click of a day, of the given links or of all.
func readClicks(ctx context.Context, tx pgx.Tx, day int32, urls []int64, each func(*Event)) error {
	sql, args := clicksOfDay, []any{pgx.QueryExecModeCacheDescribe, dateOf(day), dateOf(day + 1)}
	if urls != nil {
		sql, args = sql+" AND url_id = ANY($3)", append(args, urls)
	}
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("read clicks: %w", err)
	}
	var e Event
	var firsts int16
	fields := []any{&e.URLID, &e.UserID, &e.At, &e.Kind, &e.Country, &e.Referrer, &e.Browser, &e.System, &e.Device, &e.Trigger, &firsts}
	_, err = pgx.ForEachRow(rows, fields, func() error {
		e.First, e.FirstOfAll = firsts&FirstOfLink != 0, firsts&FirstOfAll != 0
		each(&e)
		return nil
	})
	return wrap("read clicks", err)
}

// countLinks counts the clicks of links on a day from their events.
func countLinks(ctx context.Context, tx pgx.Tx, day int32, urls []int64) (map[key]*counted, error) {
	found := make(map[key]*counted, len(urls))
	for _, url := range urls {
		found[key{url, day}] = &counted{cells: new(Day)}
	}
	err := readClicks(ctx, tx, day, urls, func(e *Event) {
		c, visit := found[key{e.URLID, day}], e.visit()
		c.cells.Add(&visit, e.counts(e.First))
		c.last = later(c.last, e.At.UTC())
		if c.owner == 0 {
			c.owner = e.UserID
		}
	})
	return found, err
}

// countAll counts the clicks of all links on a day from their events.
func countAll(ctx context.Context, tx pgx.Tx, day int32) (*Day, error) {
	all := new(Day)
	err := readClicks(ctx, tx, day, nil, func(e *Event) {
		visit := e.visit()
		all.Add(&visit, e.counts(e.FirstOfAll))
	})
	return all, err
}

// recount counts the rows that are to be counted again. The rows are as they were before
// this merge.
func (m *merge) recount(ctx context.Context, tasks []task, rows map[key]*row) (map[key]*counted, error) {
	byDay := map[int32][]int64{}
	for _, t := range tasks {
		if t.recount {
			byDay[t.day] = append(byDay[t.day], t.scope)
		}
	}
	all := map[key]*counted{}
	for day, urls := range byDay {
		count := func() (map[key]*counted, error) { return countLinks(ctx, m.tx, day, urls) }
		if !m.whole[monthOf(day)] {
			count = func() (map[key]*counted, error) { return m.countMissing(ctx, day, urls, rows) }
		}
		found, err := count()
		if err != nil {
			return nil, err
		}
		for k, c := range found {
			all[k] = c
		}
	}
	return all, nil
}

// countMissing returns the clicks that the previous release has counted and rows lack,
// for a day that may lack events.
func (m *merge) countMissing(ctx context.Context, day int32, urls []int64, rows map[key]*row) (map[key]*counted, error) {
	if !m.quarters {
		return nil, nil
	}
	quarters, err := m.q.ListQuartersOfDay(ctx, urls, dateOf(day), dateOf(day+1))
	if err != nil {
		return nil, fmt.Errorf("read quarters: %w", err)
	}
	sums := map[key]int64{}
	for _, quarter := range quarters {
		sums[key{quarter.URLID, day}] += quarter.Clicks
	}
	found := map[key]*counted{}
	for _, quarter := range quarters {
		k, at := key{quarter.URLID, day}, quarter.Bucket.UTC()
		if sums[k] <= rows[k].cells.Totals().Clicks {
			continue // it lacks none, though they may be elsewhere in a row that was damaged
		}
		visit := (&Event{At: at}).visit()
		has := rows[k].cells.at(visit.Quarter)
		people := quarter.Clicks - quarter.Bots - has.People
		robots := quarter.Bots - (has.Clicks - has.People)
		c := found[k]
		if c == nil {
			c = &counted{cells: new(Day), missing: true}
			found[k] = c
		}
		if people > 0 {
			c.cells.Add(&visit, Counts{Clicks: people, People: people})
			c.last = later(c.last, at)
		}
		if robots > 0 {
			visit.Values[Kind] = "bot"
			c.cells.Add(&visit, Counts{Clicks: robots})
			c.last = later(c.last, at)
		}
	}
	return found, nil
}

// at returns the clicks of a quarter of an hour.
func (d *Day) at(quarter int) (sum Counts) {
	for _, v := range d.values[Kind] {
		if i, found := findCell(v.cells, uint8(quarter)); found {
			sum = sum.Plus(v.cells[i].Counts)
		}
	}
	return sum
}

// recountDay counts the row of all links of a day from its events, unless it lacks some,
// and makes those of owners, domains and tags the sums of the rows of links.
func (m *merge) recountDay(ctx context.Context, day int32) error {
	// A link that is counted later changes the other rows by its difference, so that they
	// have to come after it.
	links, err := m.q.AreLinksToRecount(ctx, dateOf(day))
	if err != nil {
		return fmt.Errorf("look for links to count again: %w", err)
	}
	if links {
		return m.countAgain(ctx, key{All, day})
	}
	scopes, err := m.q.ListRollupsOfDay(ctx, dateOf(day))
	if err != nil {
		return fmt.Errorf("list rollups: %w", err)
	}
	sums, damaged, err := sumScopes(ctx, m.q, day, scopes)
	if err != nil {
		return err
	}
	if len(damaged) > 0 { // links that have to come first, too
		for _, r := range damaged {
			if err := m.countAgain(ctx, r.key); err != nil {
				return err
			}
		}
		return m.countAgain(ctx, key{All, day})
	}
	whole := m.whole[monthOf(day)]
	if whole {
		if sums[All], err = countAll(ctx, m.tx, day); err != nil {
			return err
		}
	}
	var rows []*row
	for scope, cells := range sums {
		rows = append(rows, &row{key: key{scope, day}, cells: cells, stored: true})
	}
	return save(ctx, m.q, rows)
}

// sumScopes adds up the rows of links of a day by the other scopes that they count for.
// scopes are those of all rows of the day. One that is no link's has a sum, if only an
// empty one; so has not the scope All. Without the damaged rows, sums may be too small.
func sumScopes(ctx context.Context, q *queries.Queries, day int32, scopes []int64) (sums map[int64]*Day, damaged []*row, err error) {
	sums = map[int64]*Day{}
	var links []int64
	for _, scope := range scopes {
		if scope > 0 {
			links = append(links, scope)
		} else if scope < 0 {
			sums[scope] = new(Day)
		}
	}
	for piece := range slices.Chunk(links, mergePiece) {
		rows, err := loadWhole(ctx, q, keysOf(piece, day))
		if err != nil {
			return nil, nil, err
		}
		for _, r := range rows {
			if r.damaged {
				damaged = append(damaged, r)
			}
			for _, id := range r.scopes {
				if sums[-id] == nil {
					sums[-id] = new(Day)
				}
				sums[-id].Merge(r.cells)
			}
		}
	}
	return sums, damaged, nil
}
