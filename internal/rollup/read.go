package rollup

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/signpost/signpost/queries"
)

// words are the names of the dimensions: of one value, and of all.
var words = [dimensions]struct{ one, all string }{
	Kind: {"kind", "kinds"}, Country: {"country", "countries"}, Referrer: {"referrer", "referrers"},
	Browser: {"browser", "browsers"}, System: {"system", "systems"}, Device: {"device", "devices"}, Trigger: {"trigger", "triggers"},
}

// One returns the name of one value of the dimension, such as country.
func (d Dimension) One() string { return words[d].one }

// String returns the name of all values of the dimension, such as countries.
func (d Dimension) String() string { return words[d].all }

// Dimensions returns all dimensions.
func Dimensions() []Dimension {
	all := make([]Dimension, dimensions)
	for i := range all {
		all[i] = Dimension(i)
	}
	return all
}

// Kinds returns the kinds of clicks.
func Kinds() []string { return slices.Clone(common[Kind]) }

// Values is a filter: clicks with one of the names, or with none of them.
type Values struct {
	Names []string
	Not   bool
}

func (v Values) pass(name string) bool { return slices.Contains(v.Names, name) != v.Not }

// Filter is a filter for each of some dimensions. Clicks have to pass all.
type Filter map[Dimension]Values

// Query says which clicks are counted, and how they are divided.
type Query struct {
	Scope      int64 // 0 for all links, a link's id, or a negative number of another scope
	UserID     int64 // of the scope of an owner; 0 of others
	Range      Range
	Filter     Filter
	Breakdowns []Dimension
	// Links asks for a breakdown by links, too. It is only for queries of which
	// NeedsEvents is true.
	Links bool
}

// Statistics are the answer to a Query.
type Statistics struct {
	Totals   Counts
	Previous Counts   // of the range to compare with
	Series   []Counts // of each bucket of the range
	// Breakdowns has the values of each dimension that was asked for; a value may be
	// empty. Values that are only in the range to compare with are included.
	Breakdowns map[Dimension]Breakdown
	Links      Breakdown // by link ids
	FromEvents bool      // whether events were counted, and not statistics read
}

// Breakdown holds the counts of each value.
type Breakdown map[string]*Compared

// Compared are the counts in a range, and in the one to compare with.
type Compared struct {
	Counts
	Previous Counts
}

// maxNames is how many values of a dimension an answer has. Every day may bring 200 new
// ones, since referrers are for anybody to make up. The rest is added up as Other.
const maxNames = 10_000

// bound adds the values with the fewest clicks up as Other, once there are twice as many
// as may be. Values that come again after that begin with nothing.
func (b Breakdown) bound() {
	if len(b) < 2*maxNames {
		return
	}
	clicks := func(name string) int64 { return b[name].Clicks + b[name].Previous.Clicks }
	names := slices.SortedFunc(maps.Keys(b), func(x, y string) int { return cmp.Or(cmp.Compare(clicks(y), clicks(x)), cmp.Compare(x, y)) })
	for _, name := range names[maxNames:] {
		if n := *b[name]; name != Other {
			delete(b, name)
			other := b.row(Other)
			other.Counts, other.Previous = other.Plus(n.Counts), other.Previous.Plus(n.Previous)
		}
	}
}

func (b Breakdown) row(name string) *Compared {
	row := b[name]
	if row == nil {
		row = new(Compared)
		b[strings.Clone(name)] = row // the name shares the memory of a day's cells
	}
	return row
}

// part is a part of all clicks that every count can tell.
type part string

const (
	everyone part = ""
	people   part = "people"
	robots   part = "robots"
)

// of returns the part of the counts.
func (p part) of(n Counts) Counts {
	switch p {
	case people:
		return Counts{n.People, n.People, n.Visitors}
	case robots:
		return Counts{Clicks: n.Clicks - n.People}
	}
	return n
}

// split takes a filter by kind that asks for people only, or for all but people, off the
// filter, since every count can tell these two apart.
func (f Filter) split() (part, Filter) {
	kinds, ok := f[Kind]
	if !ok || len(kinds.Names) != 1 || kinds.Names[0] != Person {
		return everyone, f
	}
	rest := Filter{}
	for of, values := range f {
		if of != Kind {
			rest[of] = values
		}
	}
	if kinds.Not {
		return robots, rest
	}
	return people, rest
}

// NeedsEvents reports whether statistics cannot tell the answer: they know nothing of
// two dimensions together.
func (q Query) NeedsEvents() bool {
	_, rest := q.Filter.split()
	if len(rest) > 1 || len(rest) > 0 && q.Links {
		return true
	}
	for filtered := range rest {
		if slices.ContainsFunc(q.Breakdowns, func(of Dimension) bool { return of != filtered }) {
			return true
		}
	}
	return false
}

// Read counts clicks. To be of one moment, q should be bound to a transaction that sees
// one snapshot. Where events have to be counted, the error may be
// [ErrNoEventsOfScope], [ErrNoOtherOfEvents], a [*TooManyEventsError] or an
// [*ArchivedEventsError].
func Read(ctx context.Context, q *queries.Queries, query Query) (Statistics, error) {
	if query.NeedsEvents() {
		return readEvents(ctx, q, query)
	}
	st := newStatistics(query)
	count := func(r Range, series []Counts, counts func(*Compared) *Counts) error {
		t := newTally(query, r, series, counts)
		for of, breakdown := range st.Breakdowns {
			t.breakdowns[of] = breakdown
		}
		return t.read(ctx, q)
	}
	if err := count(query.Range, st.Series, func(c *Compared) *Counts { return &c.Counts }); err != nil {
		return Statistics{}, err
	}
	if query.Range.Compared() {
		before := []Counts{{}}
		if err := count(query.Range.previous(), before, func(c *Compared) *Counts { return &c.Previous }); err != nil {
			return Statistics{}, err
		}
		st.Previous = before[0]
	}
	st.sumUp()
	return st, nil
}

func newStatistics(query Query) Statistics {
	st := Statistics{
		Series:     make([]Counts, max(len(query.Range.edges)-1, 0)),
		Breakdowns: make(map[Dimension]Breakdown, len(query.Breakdowns)),
	}
	for _, of := range query.Breakdowns {
		st.Breakdowns[of] = Breakdown{}
	}
	if query.Links {
		st.Links = Breakdown{}
	}
	return st
}

func (st *Statistics) sumUp() {
	for _, n := range st.Series {
		st.Totals = st.Totals.Plus(n)
	}
}

// One query reads so many days: mostly a year and more, or, if the cells of each may be
// needed, which may have 100 KB, less.
const (
	readDays         = 400
	readFilteredDays = 50
)

// tally adds up the rows of one range.
type tally struct {
	query  Query
	r      Range
	part   part
	series []Counts
	counts func(*Compared) *Counts // those of this range

	// If filtered, only the clicks with some values of one dimension count.
	filtered bool
	of       Dimension
	values   Values

	breakdowns [dimensions]Breakdown // nil if not asked for
}

func newTally(query Query, r Range, series []Counts, counts func(*Compared) *Counts) *tally {
	t := &tally{query: query, r: r, series: series, counts: counts}
	var rest Filter
	t.part, rest = query.Filter.split()
	for of, values := range rest { // one at most: NeedsEvents is false
		t.filtered, t.of, t.values = true, of, values
	}
	return t
}

func (t *tally) read(ctx context.Context, q *queries.Queries) error {
	if t.r.empty() {
		return nil
	}
	from, end := t.r.days()
	days := readDays
	if t.filtered {
		days = readFilteredDays
	}
	for from.Before(end) {
		to := from.AddDate(0, 0, days)
		if to.After(end) {
			to = end
		}
		p := queries.ReadRollupsParams{Scope: t.query.Scope, FromDay: from, ToDay: to, Front: t.front()}
		p.CellDays, p.FrontDays = t.cellDays(from, to)
		rows, err := q.ReadRollups(ctx, p)
		if err != nil {
			return fmt.Errorf("read statistics: %w", err)
		}
		for _, row := range rows {
			if err := t.complete(ctx, q, &row); err != nil {
				return err
			}
			if err := t.add(row); err != nil {
				return fmt.Errorf("statistics of scope %d on %s: %w", t.query.Scope, row.Day.Format(time.DateOnly), err)
			}
			for _, breakdown := range t.breakdowns {
				breakdown.bound()
			}
		}
		from = to
	}
	return nil
}

// These bytes of a day's cells are read before it is known whether there is more: they
// hold the kinds, or the sums of all values, too. On a day with 200 referrers, the latter
// have 6 KB.
const (
	frontOfSeries = 4 << 10
	frontOfSums   = 12 << 10
)

// front returns how many bytes of cells suffice for most days of which no other cells
// than those of kinds are asked for.
func (t *tally) front() int32 {
	if t.filtered || len(t.query.Breakdowns) > 0 {
		return frontOfSums
	}
	return frontOfSeries
}

// complete reads all cells of a row whose first ones do not suffice.
func (t *tally) complete(ctx context.Context, q *queries.Queries, row *queries.ReadRollupsRow) error {
	has := hasSums
	if t.front() == frontOfSeries {
		has = hasSeries
	}
	if len(row.Cells) != int(t.front()) || has(row.Cells) {
		return nil
	}
	cells, err := readCells(ctx, q, t.query.Scope, row.Day)
	if err == nil {
		row.Cells = cells
	}
	return err
}

// readCells reads all cells of a row, which is there.
func readCells(ctx context.Context, q *queries.Queries, scope int64, day time.Time) ([]byte, error) {
	rows, err := q.ReadRollups(ctx, queries.ReadRollupsParams{
		Scope: scope, FromDay: day, ToDay: day.AddDate(0, 0, 1), CellDays: []time.Time{day}, FrontDays: []time.Time{},
	})
	if err != nil || len(rows) == 0 {
		return nil, wrap("read statistics", err)
	}
	return rows[0].Cells, nil
}

// cellDays returns the days of which all cells are needed, and those of which only the
// first are. Of a day that is in one bucket as a whole, nothing is needed for its total.
func (t *tally) cellDays(from, to time.Time) (all, front []time.Time) {
	all, front = []time.Time{}, []time.Time{}
	broken := len(t.query.Breakdowns) > 0
	for day := from; day.Before(to); day = day.AddDate(0, 0, 1) {
		buckets := t.r.bucketsOf(day)
		switch whole := inOneBucket(buckets); {
		case t.filtered && !whole, broken && !within(buckets):
			all = append(all, day)
		case t.filtered, broken, !whole:
			front = append(front, day)
		}
	}
	return all, front
}

// inOneBucket and within take the buckets of a day's quarters. They say whether the day
// is in one bucket as a whole, or in the range.
func inOneBucket(buckets [Quarters]int) bool {
	return within(buckets) && buckets[0] == buckets[Quarters-1]
}

func within(buckets [Quarters]int) bool {
	return buckets[0] != outside && buckets[Quarters-1] != outside
}

// add counts the row of a day.
func (t *tally) add(row queries.ReadRollupsRow) error {
	buckets := t.r.bucketsOf(row.Day)
	whole := inOneBucket(buckets)
	if whole && !t.filtered {
		t.count(buckets[0], Counts{row.Clicks, row.People, row.Visitors})
	}
	for _, cells := range [][]byte{row.Cells, row.Recent} {
		if len(row.Cells) == 0 || len(cells) == 0 {
			continue
		}
		if err := t.addCells(cells, buckets, whole); err != nil {
			return err
		}
	}
	return nil
}

// addCells counts cells of a day. If the day is in one bucket as a whole, its total was
// counted before.
func (t *tally) addCells(cells []byte, buckets [Quarters]int, whole bool) error {
	if t.filtered {
		return t.addFiltered(cells, buckets)
	}
	if !whole {
		err := Series(cells, func(_ string, quarter int, n Counts) { t.count(buckets[quarter], n) })
		if err != nil {
			return err
		}
	}
	switch {
	case len(t.query.Breakdowns) == 0:
		return nil
	case within(buckets):
		return Sums(cells, func(of Dimension, name string, n Counts) {
			if t.breakdowns[of] != nil {
				t.breakDown(of, name, n)
			}
		})
	default:
		return Cells(cells, func(of Dimension, name string, quarter int, n Counts) {
			if t.breakdowns[of] != nil && buckets[quarter] != outside {
				t.breakDown(of, name, n)
			}
		})
	}
}

// addFiltered counts the clicks of a day that pass the filter.
func (t *tally) addFiltered(cells []byte, buckets [Quarters]int) error {
	if inOneBucket(buckets) {
		return Sums(cells, func(of Dimension, name string, n Counts) {
			if of == t.of && t.values.pass(name) {
				t.count(buckets[0], n)
				t.breakDown(of, name, n)
			}
		})
	}
	last, passes := "", t.values.pass("") // the quarters of a value follow each other
	return CellsOf(cells, t.of, func(name string, quarter int, n Counts) {
		if name != last {
			last, passes = name, t.values.pass(name)
		}
		if passes && buckets[quarter] != outside {
			t.count(buckets[quarter], n)
			t.breakDown(t.of, name, n)
		}
	})
}

func (t *tally) count(bucket int, n Counts) {
	if bucket != outside {
		t.series[bucket] = t.series[bucket].Plus(t.part.of(n))
	}
}

func (t *tally) breakDown(of Dimension, name string, n Counts) {
	if n = t.part.of(n); t.breakdowns[of] == nil || n == (Counts{}) {
		return
	}
	sum := t.counts(t.breakdowns[of].row(name))
	*sum = sum.Plus(n)
}
