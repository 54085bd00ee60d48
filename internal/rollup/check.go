package rollup

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// Comparison says how statistics compare with the events.
type Comparison struct {
	Events  int64 // clicks among the events
	Clicks  int64 // clicks in the rows of links, with those that wait to be merged
	Waiting int64 // days of links that wait to be counted again, and were not compared
	Differ  int64 // rows that disagree with the events, or are missing
	// Examples are some of the rows that differ.
	Examples []string

	differ []key
}

// String implements [fmt.Stringer].
func (c Comparison) String() string {
	text := fmt.Sprintf("rollups: %d clicks, %d in the events; %d rows differ", c.Clicks, c.Events, c.Differ)
	if c.Waiting > 0 {
		text += fmt.Sprintf("; %d days of links wait to be counted again", c.Waiting)
	}
	for _, example := range c.Examples {
		text += "\n  " + example
	}
	return text
}

const maxExamples = 10

// Check compares all statistics with all events, row by row. Clicks that wait to be
// merged count as merged, so it is exact while clicks come in. Archived months have
// statistics but no events any more: there, a difference is only counted if there are
// more events than the statistics say.
func Check(ctx context.Context, db postgres.DB) (Comparison, error) {
	return CheckRange(ctx, db, time.Time{}, time.Time{})
}

// CheckRange is like Check for the UTC days from one to before another. Zero times stand
// for the beginning and the end.
func CheckRange(ctx context.Context, db postgres.DB, from, to time.Time) (c Comparison, err error) {
	err = inSnapshot(ctx, db, func(tx pgx.Tx) error {
		v, err := newChecker(ctx, tx)
		if err != nil {
			return err
		}
		days, err := v.days(ctx, from, to)
		if err != nil {
			return err
		}
		for _, day := range days {
			if err := v.day(ctx, day); err != nil {
				return err
			}
		}
		c = v.found
		return nil
	})
	if err != nil {
		return Comparison{}, fmt.Errorf("compare statistics with events: %w", err)
	}
	return c, nil
}

// inSnapshot calls do with a transaction that sees the database as it is now.
func inSnapshot(ctx context.Context, db postgres.DB, do func(pgx.Tx) error) error {
	return postgres.InTx(ctx, db, func(tx pgx.Tx) error {
		for _, sql := range []string{
			"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
			"LOCK TABLE ONLY events IN ACCESS SHARE MODE", // no month can be detached meanwhile
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return fmt.Errorf("begin to read: %w", err)
			}
		}
		return do(tx)
	})
}

// checker compares statistics with events in one snapshot.
type checker struct {
	tx       pgx.Tx
	q        *queries.Queries
	waiting  map[int32][]entry // to be merged, by day
	recounts map[int32]map[int64]bool
	whole    map[int]bool
	found    Comparison
}

func newChecker(ctx context.Context, tx pgx.Tx) (*checker, error) {
	v := &checker{tx: tx, q: queries.New(queries.Planned{DBTX: tx}), waiting: map[int32][]entry{}, recounts: map[int32]map[int64]bool{}}
	var err error
	if v.whole, err = wholeMonths(ctx, v.q); err != nil {
		return nil, err
	}
	digests, err := v.q.ListRollupDigests(ctx)
	if err != nil {
		return nil, fmt.Errorf("list digests: %w", err)
	}
	var entries []entry
	for _, payload := range digests {
		if entries, err = decodeDigest(entries, payload); err != nil {
			return nil, err
		}
	}
	for _, e := range entries {
		v.waiting[e.day] = append(v.waiting[e.day], e)
	}
	recounts, err := v.q.ListRollupRecounts(ctx)
	for _, r := range recounts {
		day := dayNumber(r.Day)
		if v.recounts[day] == nil {
			v.recounts[day] = map[int64]bool{}
		}
		v.recounts[day][r.URLID] = true
	}
	return v, wrap("list link-days to count again", err)
}

// days returns the days of a range that have statistics or clicks.
func (v *checker) days(ctx context.Context, from, to time.Time) ([]int32, error) {
	if to.IsZero() {
		to = time.Date(9999, time.January, 1, 0, 0, 0, 0, time.UTC)
	}
	found, err := v.q.ListDaysWithClicks(ctx, queries.ListDaysWithClicksParams{FromDay: from, ToDay: to, FromTime: from, ToTime: to})
	if err != nil {
		return nil, fmt.Errorf("list days: %w", err)
	}
	var days []int32
	for _, date := range found {
		days = append(days, dayNumber(date))
	}
	for day := range v.waiting { // to be taken away, perhaps
		if !dateOf(day).Before(from) && dateOf(day).Before(to) {
			days = append(days, day)
		}
	}
	slices.Sort(days)
	return slices.Compact(days), nil
}

// day compares all rows of a day.
func (v *checker) day(ctx context.Context, day int32) error {
	scopes, err := v.q.ListRollupsOfDay(ctx, dateOf(day))
	if err != nil {
		return fmt.Errorf("list rollups: %w", err)
	}
	clicked, err := v.q.ListLinksClicked(ctx, dateOf(day), dateOf(day+1))
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	links := slices.DeleteFunc(slices.Concat(scopes, clicked), func(scope int64) bool { return scope <= 0 })
	for _, e := range v.waiting[day] {
		if e.scope != All {
			links = append(links, e.scope)
		}
	}
	slices.Sort(links)
	for piece := range slices.Chunk(slices.Compact(links), mergePiece) {
		if err := v.links(ctx, day, piece); err != nil {
			return err
		}
	}
	if err := v.all(ctx, day); err != nil {
		return err
	}
	return v.others(ctx, day, scopes)
}

// links compares rows of links of a day.
func (v *checker) links(ctx context.Context, day int32, urls []int64) error {
	rows, err := v.load(ctx, day, urls)
	if err != nil {
		return err
	}
	counted, err := countLinks(ctx, v.tx, day, urls)
	if err != nil {
		return err
	}
	for _, url := range urls {
		k := key{url, day}
		c, r := counted[k], rows[k]
		v.found.Events += c.cells.Totals().Clicks
		v.found.Clicks += r.cells.Totals().Clicks
		switch {
		case v.recounts[day][url]:
			v.found.Waiting++
		case !v.whole[monthOf(day)]:
			v.compare(k, r, c.cells, c.cells.Totals().Clicks <= r.cells.Totals().Clicks && c.cells.Totals().People <= r.cells.Totals().People)
		default:
			v.compare(k, r, c.cells, same(r.cells, c.cells) && (r.cells.Empty() || r.last.Equal(c.last)))
		}
	}
	return nil
}

// load returns rows with the clicks that wait to be merged into them.
func (v *checker) load(ctx context.Context, day int32, scopes []int64) (map[key]*row, error) {
	rows, err := loadWhole(ctx, v.q, keysOf(scopes, day))
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		r.damaged = r.damaged || r.totals != r.cells.Totals()
	}
	changes := map[key]*sides{}
	for _, e := range v.waiting[day] {
		r := rows[e.key]
		if r == nil {
			continue
		}
		if changes[e.key] == nil {
			changes[e.key] = &sides{}
		}
		if err := e.addTo(changes[e.key]); err != nil {
			return nil, err
		}
		if e.last != 0 {
			r.last = later(r.last, time.UnixMicro(e.last).UTC())
		}
	}
	var lowered []key
	for k, change := range changes {
		rows[k].cells.Merge(&change.added)
		rows[k].cells.Subtract(&change.removed)
		if !change.removed.Empty() {
			lowered = append(lowered, k)
		}
	}
	last, err := findLast(ctx, v.q, lowered)
	for k, at := range last { // as a merge will do
		rows[k].last = at
	}
	return rows, err
}

// all compares the row of all links.
func (v *checker) all(ctx context.Context, day int32) error {
	if len(v.recounts[day]) > 0 || !v.whole[monthOf(day)] {
		return nil
	}
	rows, err := v.load(ctx, day, []int64{All})
	if err != nil {
		return err
	}
	counted, err := countAll(ctx, v.tx, day)
	if err != nil {
		return err
	}
	r := rows[key{All, day}]
	v.compare(r.key, r, counted, same(r.cells, counted))
	return nil
}

// others compares the rows of owners, domains and tags with the sums of those of links.
// Clicks that wait to be merged are in neither.
func (v *checker) others(ctx context.Context, day int32, scopes []int64) error {
	if v.recounts[day][All] {
		return nil
	}
	sums, damaged, err := sumScopes(ctx, v.q, day, scopes)
	if err != nil {
		return err
	}
	for _, r := range damaged {
		if !slices.Contains(v.found.differ, r.key) {
			v.compare(r.key, r, r.cells, true)
		}
	}
	if len(damaged) > 0 {
		return nil // they are counted again before the others
	}
	for piece := range slices.Chunk(slices.Sorted(maps.Keys(sums)), mergePiece) {
		rows, err := loadWhole(ctx, v.q, keysOf(piece, day))
		if err != nil {
			return err
		}
		for k, r := range rows {
			sum := sums[k.scope]
			v.compare(k, r, sum, same(r.cells, sum) && r.totals == sum.Totals())
		}
	}
	return nil
}

func (v *checker) compare(k key, r *row, want *Day, same bool) {
	if same && !r.damaged {
		return
	}
	v.found.Differ++
	v.found.differ = append(v.found.differ, k)
	example := fmt.Sprintf("%v: %+v in the row, not %+v", k, r.cells.Totals(), want.Totals())
	if r.damaged {
		example = fmt.Sprintf("%v: its cells are damaged, or not those of its totals", k)
	}
	if len(v.found.Examples) < maxExamples {
		v.found.Examples = append(v.found.Examples, example)
	}
}

// same reports whether two days have the same clicks. Which values are told apart in a
// day that has too many of them depends on the order in which they came.
func same(a, b *Day) bool {
	for i := range a.values {
		_, inA := find(a.values[i], Other)
		_, inB := find(b.values[i], Other)
		if inA || inB {
			if bySlot(a.values[i]) != bySlot(b.values[i]) {
				return false
			}
		} else if !slices.EqualFunc(a.values[i], b.values[i], func(v, w value) bool { return v.name == w.name && slices.Equal(v.cells, w.cells) }) {
			return false
		}
	}
	return true
}

// bySlot returns the clicks of all values by quarter of an hour.
func bySlot(values []value) (sums [Quarters]Counts) {
	for _, v := range values {
		for _, c := range v.cells {
			sums[c.quarter] = sums[c.quarter].Plus(c.Counts)
		}
	}
	return sums
}
