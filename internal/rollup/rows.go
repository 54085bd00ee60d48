package rollup

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/signpost/signpost/queries"
)

// row is a row of rollups.
//
// Clicks that are merged into a row with many cells are stored as its recent cells, so
// that the others need not be written again for each click. Such a row is partial: its
// cells here are the recent ones, and of the others only their sum is known.
type row struct {
	key
	cells   *Day
	partial bool
	others  Counts    // of a partial row
	last    time.Time // of the last click of a link
	scopes  []int64   // further scopes of a link
	stored  bool
	totals  Counts // as they are stored
	// placed says that scopes are known, and damaged that cells or scopes could not be
	// decoded. Then the cells stand for the totals, until the row is counted again.
	placed, damaged bool
}

const (
	// manyCells are so many bytes of cells that recent ones are stored beside them.
	manyCells = 8 << 10
	// mostRecent is from how many bytes on recent cells join the others.
	mostRecent = 1 << 10
)

func (r *row) sum() Counts { return r.others.Plus(r.cells.Totals()) }

// loadWhole reads rows of one month with all cells.
func loadWhole(ctx context.Context, q *queries.Queries, keys []key) (map[key]*row, error) {
	return load(ctx, q, keys, slices.Repeat([]bool{true}, len(keys)))
}

// load reads rows of one month. Those that there are not are empty. A row may be partial,
// unless whole says that all of its cells are needed.
func load(ctx context.Context, q *queries.Queries, keys []key, whole []bool) (map[key]*row, error) {
	rows := make(map[key]*row, len(keys))
	p := queries.LoadRollupsParams{
		FromDay: dateOf(keys[0].day), ToDay: dateOf(keys[0].day), Whole: whole,
		Many: manyCells, MostRecent: mostRecent, Version: []byte{busyDay},
	}
	for _, k := range keys {
		rows[k] = &row{key: k, cells: new(Day)}
		p.Scopes, p.Days = append(p.Scopes, k.scope), append(p.Days, dateOf(k.day))
		if date := dateOf(k.day); date.Before(p.FromDay) {
			p.FromDay = date
		} else if date.After(p.ToDay) {
			p.ToDay = date
		}
	}
	found, err := q.LoadRollups(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("read rollups: %w", err)
	}
	var again []key
	for _, f := range found {
		r := rows[key{f.Scope, dayNumber(f.Day)}]
		if r.read(&f); r.partial && r.damaged {
			again = append(again, r.key) // only the whole row tells what is missing
		}
	}
	if len(again) == 0 {
		return rows, nil
	}
	wholly, err := loadWhole(ctx, q, again)
	maps.Copy(rows, wholly)
	return rows, err
}

// read takes over a stored row.
func (r *row) read(f *queries.LoadRollupsRow) {
	r.stored, r.totals = true, Counts{f.Clicks, f.People, f.Visitors}
	if f.LastAt != nil {
		r.last = f.LastAt.UTC()
	}
	errCells := r.decode(f)
	scopes, errScopes := unpackScopes(f.Scopes)
	if r.partial = !f.Whole; r.partial {
		r.others = r.totals.Minus(r.cells.Totals())
	} else if errCells != nil {
		r.cells.Merge(standIn(r.totals.Minus(r.cells.Totals())))
	}
	r.scopes, r.placed, r.damaged = scopes, errScopes == nil, errCells != nil || errScopes != nil
}

// decode sets the cells of a row, or those that can be decoded.
func (r *row) decode(f *queries.LoadRollupsRow) (err error) {
	for _, cells := range [][]byte{f.Cells, f.Recent} {
		if len(cells) == 0 {
			continue
		}
		switch d, errDay := DecodeDay(cells); {
		case errDay != nil:
			err = errDay
		case r.cells.Empty():
			r.cells = d
		default:
			r.cells.Merge(d)
		}
	}
	if f.Whole && len(f.Cells) == 0 {
		err = errCells
	}
	return err
}

// standIn returns a day with totals of which nothing else is known.
func standIn(totals Counts) *Day {
	d := new(Day)
	visit := Visit{Values: [dimensions]string{Country: Other, Referrer: Other, Browser: Other, System: Other, Device: Other, Trigger: Other}}
	if visit.Values[Kind] = Person; totals.People > 0 {
		d.Add(&visit, Counts{totals.People, totals.People, totals.Visitors})
	}
	if visit.Values[Kind] = "bot"; totals.Clicks > totals.People {
		d.Add(&visit, Counts{Clicks: totals.Clicks - totals.People})
	}
	return d
}

// save writes rows of one month, and removes those that have become empty.
func save(ctx context.Context, q *queries.Queries, rows []*row) error {
	slices.SortFunc(rows, func(a, b *row) int { return a.compare(b.key) })
	var p queries.SaveRollupsParams
	gone := queries.DropRollupsParams{}
	for _, r := range rows {
		date := dateOf(r.day)
		sum := r.sum()
		if sum == (Counts{}) {
			if r.stored {
				gone.Scopes, gone.Days = append(gone.Scopes, r.scope), append(gone.Days, date)
			}
			continue
		}
		cells, recent := r.cells.Append(nil), []byte{}
		if r.partial {
			cells, recent = recent, cells
		}
		p.Scopes, p.Days = append(p.Scopes, r.scope), append(p.Days, date)
		p.Clicks, p.People, p.Visitors = append(p.Clicks, sum.Clicks), append(p.People, sum.People), append(p.Visitors, sum.Visitors)
		p.LastAts = append(p.LastAts, r.last)
		p.OtherScopes = append(p.OtherScopes, packScopes(r.scopes))
		p.Cells, p.Recent = append(p.Cells, cells), append(p.Recent, recent)
	}
	if len(p.Scopes) > 0 {
		if err := q.SaveRollups(ctx, p); err != nil {
			return fmt.Errorf("write rollups: %w", err)
		}
	}
	if len(gone.Scopes) == 0 {
		return nil
	}
	gone.FromDay, gone.ToDay = slices.MinFunc(gone.Days, time.Time.Compare), slices.MaxFunc(gone.Days, time.Time.Compare)
	return wrap("remove empty rollups", q.DropRollups(ctx, gone))
}

// packScopes returns ids as uvarints.
func packScopes(ids []int64) []byte {
	b := []byte{}
	for _, id := range ids {
		b = binary.AppendUvarint(b, uint64(id))
	}
	return b
}

func unpackScopes(b []byte) (ids []int64, err error) {
	r := reader{rest: b}
	for len(r.rest) > 0 {
		ids = append(ids, int64(r.number(1<<62)))
	}
	if r.err != nil {
		return nil, r.err
	}
	return ids, nil
}
