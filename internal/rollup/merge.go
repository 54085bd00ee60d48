package rollup

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

const (
	// mergePiece is how many rows of links are in memory at once.
	mergePiece = 1000
	// mergeOthers is from how many changed rows of owners, domains and tags on these are
	// written before more are collected. Links come day by day, so that few of them are
	// written twice.
	mergeOthers = 10_000
)

// merge is a transaction that merges digests into rollups and counts link-days again.
//
// The clicks of a link on a day count for the link, for all links, and for the owner,
// the domain and the tags that the link has when its row of the day is made. The row
// names these scopes, so that whatever is added or taken away later counts for the same
// ones: their rows are always the sums of those of links.
type merge struct {
	tx       pgx.Tx
	q        *queries.Queries
	recounts map[key]bool   // rows to be counted again
	others   map[key]*sides // what changes in rows that are not of links
	totals   queries.AddLinkTotalChangesParams
	damaged  []string // rows that could not be decoded
	again    bool     // whether a later merge has to count rows again

	quarters bool         // whether the previous release may still be in use
	whole    map[int]bool // months that have all of their events
}

// task is what is to be done with a row.
type task struct {
	key
	entries []entry
	recount bool
}

// run merges entries and counts again what m.recounts says.
func (m *merge) run(ctx context.Context, entries []entry) error {
	links, wholeDays, err := m.tasks(entries)
	if err != nil {
		return err
	}
	if err := m.prepare(ctx, links, wholeDays); err != nil {
		return err
	}
	for piece := range pieces(links, func(t task) key { return t.key }) {
		if err := m.links(ctx, piece); err != nil {
			return err
		}
		if len(m.others) < mergeOthers {
			continue
		}
		if err := m.saveOthers(ctx); err != nil {
			return err
		}
	}
	if err := m.saveOthers(ctx); err != nil {
		return err
	}
	for _, day := range wholeDays {
		if err := m.recountDay(ctx, day); err != nil {
			return err
		}
	}
	if len(m.totals.URLIds) == 0 {
		return nil
	}
	return wrap("note changed totals", m.q.AddLinkTotalChanges(ctx, m.totals))
}

// tasks sorts out what is to be done with which link, in the order of keys, and which
// days are to be counted again as a whole.
func (m *merge) tasks(entries []entry) (links []task, wholeDays []int32, err error) {
	byKey := map[key]*task{}
	for _, e := range entries {
		if e.scope == All {
			if err := e.addTo(m.other(e.key)); err != nil {
				return nil, nil, err
			}
			continue
		}
		t := byKey[e.key]
		if t == nil {
			t = &task{key: e.key}
			byKey[e.key] = t
		}
		t.entries = append(t.entries, e)
	}
	for k := range m.recounts {
		if k.scope == All {
			wholeDays = append(wholeDays, k.day)
		} else if t := byKey[k]; t != nil {
			t.recount = true
		} else {
			byKey[k] = &task{key: k, recount: true}
		}
	}
	for _, t := range byKey {
		links = append(links, *t)
	}
	slices.SortFunc(links, func(a, b task) int { return a.compare(b.key) })
	slices.Sort(wholeDays)
	return links, wholeDays, nil
}

// other returns the changes of a row that is not of a link.
func (m *merge) other(k key) *sides {
	s := m.others[k]
	if s == nil {
		s = &sides{}
		m.others[k] = s
	}
	return s
}

// prepare reads what the merge has to know, and looks whether all partitions are there.
func (m *merge) prepare(ctx context.Context, links []task, wholeDays []int32) error {
	var err error
	if m.quarters, err = m.q.KeepsQuarters(ctx); err != nil {
		return fmt.Errorf("look whether quarters are kept: %w", err)
	}
	if m.quarters {
		if err := m.q.CountForPrevious(ctx); err != nil {
			return fmt.Errorf("count for the previous release: %w", err)
		}
	}
	if m.whole, err = wholeMonths(ctx, m.q); err != nil {
		return err
	}
	months := map[time.Time]bool{}
	for _, t := range links {
		months[postgres.MonthOf(dateOf(t.day))] = true
	}
	for _, day := range wholeDays {
		months[postgres.MonthOf(dateOf(day))] = true
	}
	missing, err := m.q.MissingRollupMonths(ctx, slices.Collect(maps.Keys(months)))
	if err != nil {
		return fmt.Errorf("look for months: %w", err)
	}
	if len(missing) > 0 {
		return monthsError(missing)
	}
	return nil
}

// wholeMonths returns the months that have all of their events. Statistics of other
// months, which were archived or which an operator has taken away, are only added to.
func wholeMonths(ctx context.Context, q *queries.Queries) (map[int]bool, error) {
	months, err := q.ListWholeMonths(ctx)
	if err != nil {
		return nil, fmt.Errorf("list months of events: %w", err)
	}
	whole := map[int]bool{}
	for _, month := range months {
		whole[monthOf(dayNumber(month))] = true
	}
	return whole, nil
}

// pieces yields what is in the order of keys in pieces of one month.
func pieces[T any](all []T, keyOf func(T) key) func(yield func([]T) bool) {
	return func(yield func([]T) bool) {
		for len(all) > 0 {
			n, month := 1, monthOf(keyOf(all[0]).day)
			for n < len(all) && n < mergePiece && monthOf(keyOf(all[n]).day) == month {
				n++
			}
			if !yield(all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}

// links does what is to be done with rows of links.
func (m *merge) links(ctx context.Context, tasks []task) error {
	keys, whole := make([]key, len(tasks)), make([]bool, len(tasks))
	var lowered []key
	for i, t := range tasks {
		removes := slices.ContainsFunc(t.entries, func(e entry) bool { return e.removed != nil })
		if keys[i], whole[i] = t.key, t.recount || removes; removes {
			lowered = append(lowered, t.key)
		}
	}
	rows, err := load(ctx, m.q, keys, whole)
	if err != nil {
		return err
	}
	last, err := findLast(ctx, m.q, lowered)
	if err != nil {
		return err
	}
	owners := map[key]int64{}
	for i := range tasks {
		if t := &tasks[i]; len(t.entries) > 0 {
			owners[t.key] = t.entries[0].owner
		}
	}
	counted, err := m.recount(ctx, tasks, rows)
	if err != nil {
		return err
	}
	for k, c := range counted {
		owners[k] = cmp.Or(owners[k], c.owner)
	}
	if err := m.place(ctx, rows, owners); err != nil {
		return err
	}
	var kept quarterChanges
	for i := range tasks {
		t := &tasks[i]
		if err := m.link(ctx, t, rows[t.key], counted[t.key], last, &kept); err != nil {
			return err
		}
	}
	if m.quarters {
		if err := kept.apply(ctx, m.q); err != nil {
			return err
		}
	}
	return m.save(ctx, rows)
}

// save writes rows, and notes which of them were damaged.
func (m *merge) save(ctx context.Context, rows map[key]*row) error {
	for k, r := range rows {
		if r.damaged {
			m.damaged = append(m.damaged, k.String())
		}
	}
	return save(ctx, m.q, slices.Collect(maps.Values(rows)))
}

// link does what is to be done with one row, and notes what that changes elsewhere.
func (m *merge) link(ctx context.Context, t *task, r *row, counted *counted, lasts map[key]time.Time, kept *quarterChanges) error {
	before, lastBefore := r.sum(), r.last
	var change sides
	for i := range t.entries {
		if err := t.entries[i].addTo(&change); err != nil {
			return err
		}
		if last := t.entries[i].last; last != 0 {
			r.last = later(r.last, time.UnixMicro(last).UTC())
		}
	}
	kept.add(t.key, &change)
	r.cells.Merge(&change.added)
	whole := r.cells.Subtract(&change.removed)
	m.spread(r, &change)
	if last, lowered := lasts[r.key]; lowered {
		r.last = last
	}
	if counted != nil {
		m.correct(r, counted)
	}
	if again := !whole || r.damaged && m.whole[monthOf(r.day)]; again && counted == nil {
		if err := m.countAgain(ctx, r.key); err != nil {
			return err
		}
	}
	if !whole || r.damaged {
		if err := m.countAgain(ctx, key{All, r.day}); err != nil {
			return err
		}
	}
	m.noteTotals(r, before, lastBefore)
	return nil
}

// noteTotals notes by how much the totals of a link change with one of its rows. That its
// last click was taken away is told by a negative change.
func (m *merge) noteTotals(r *row, before Counts, lastBefore time.Time) {
	after := r.sum()
	if after == before && r.last.Equal(lastBefore) {
		return
	}
	changes := []Counts{after.Minus(before)}
	if r.last.Before(lastBefore) {
		changes = []Counts{Counts{}.Minus(before), after}
	}
	for _, n := range changes {
		m.totals.URLIds = append(m.totals.URLIds, r.scope)
		m.totals.Clicks = append(m.totals.Clicks, n.Clicks)
		m.totals.People = append(m.totals.People, n.People)
		m.totals.LastAts = append(m.totals.LastAts, r.last)
	}
}

// correct makes a row of a link what was counted, and changes the rows of all links and
// of the other scopes by the difference.
func (m *merge) correct(r *row, counted *counted) {
	change := sides{added: *counted.cells, removed: *r.cells}
	if counted.missing { // these clicks are to be added
		change.removed = Day{}
	} else if string(r.cells.Append(nil)) == string(counted.cells.Append(nil)) {
		r.last = counted.last
		return
	}
	all := m.other(key{All, r.day})
	all.added.Merge(&change.added)
	all.removed.Merge(&change.removed)
	m.spread(r, &change)
	if counted.missing {
		r.cells.Merge(counted.cells)
		r.last = later(r.last, counted.last)
	} else {
		r.cells, r.last = counted.cells, counted.last
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// spread notes the change of a link for its owner, domain and tags.
func (m *merge) spread(r *row, change *sides) {
	for _, id := range r.scopes {
		s := m.other(key{-id, r.day})
		s.added.Merge(&change.added)
		s.removed.Merge(&change.removed)
	}
}

// findLast returns the last clicks of links on days, which are in the order of keys, as
// far as their events are there.
func findLast(ctx context.Context, q *queries.Queries, keys []key) (map[key]time.Time, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	p := queries.FindLastClicksParams{FromTime: dateOf(keys[0].day), ToTime: dateOf(keys[len(keys)-1].day + 1)}
	for _, k := range keys {
		p.URLIds, p.Days = append(p.URLIds, k.scope), append(p.Days, dateOf(k.day))
	}
	found, err := q.FindLastClicks(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("look for the last clicks: %w", err)
	}
	last := make(map[key]time.Time, len(found))
	for _, f := range found {
		last[key{f.URLID, dayNumber(f.Day)}] = f.OccurredAt.UTC()
	}
	return last, nil
}

// countAgain has a row counted again by a later merge.
func (m *merge) countAgain(ctx context.Context, k key) error {
	m.again = true
	return addRecounts(ctx, m.q, k)
}

// addRecounts has rows counted again by a later merge: those of links from their events,
// and with the scope All every other row of a day.
func addRecounts(ctx context.Context, q *queries.Queries, keys ...key) error {
	days, urls := make([]time.Time, len(keys)), make([]int64, len(keys))
	for i, k := range keys {
		days[i], urls[i] = dateOf(k.day), k.scope
	}
	return wrap("have statistics counted again", q.AddRollupRecounts(ctx, days, urls))
}

// scopeName names a scope that is not a link.
type scopeName struct{ kind, name string }

// place finds the scopes for rows of links that are new, or whose scopes are damaged.
func (m *merge) place(ctx context.Context, rows map[key]*row, owners map[key]int64) error {
	var ids []int64
	for _, r := range rows {
		if !r.placed {
			ids = append(ids, r.scope)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	found, err := m.q.FindLinksOfRollups(ctx, slices.Compact(ids))
	if err != nil {
		return fmt.Errorf("look for links: %w", err)
	}
	links := map[int64]queries.FindLinksOfRollupsRow{}
	for _, f := range found {
		links[f.ID] = f
	}
	names, all := map[key][]scopeName{}, map[scopeName]int64{}
	for k, r := range rows {
		if r.placed {
			continue
		}
		link, there := links[k.scope]
		if owner := cmp.Or(owners[k], link.UserID); owner != 0 {
			names[k] = append(names[k], scopeName{"owner", strconv.FormatInt(owner, 10)})
		}
		if there {
			names[k] = append(names[k], scopeName{"domain", strconv.FormatInt(link.DomainID, 10)})
		}
		for _, tag := range link.Tags {
			names[k] = append(names[k], scopeName{"tag", tag})
		}
		for _, name := range names[k] {
			all[name] = 0
		}
	}
	if err := m.findScopes(ctx, all); err != nil {
		return err
	}
	for k, names := range names {
		for _, name := range names {
			rows[k].scopes = append(rows[k].scopes, all[name])
		}
		slices.Sort(rows[k].scopes)
		rows[k].scopes = slices.Compact(rows[k].scopes) // a link may have a tag twice
	}
	return nil
}

// findScopes sets the ids of scopes, and makes those that there are not.
func (m *merge) findScopes(ctx context.Context, ids map[scopeName]int64) error {
	for _, create := range []bool{false, true} {
		var kinds, names []string
		for name, id := range ids {
			if id == 0 {
				kinds, names = append(kinds, name.kind), append(names, name.name)
			}
		}
		if len(kinds) == 0 {
			return nil
		}
		if create {
			if err := m.q.MakeRollupScopes(ctx, kinds, names); err != nil {
				return fmt.Errorf("make scopes: %w", err)
			}
		}
		found, err := m.q.FindRollupScopes(ctx, kinds, names)
		if err != nil {
			return fmt.Errorf("look for scopes: %w", err)
		}
		for _, f := range found {
			ids[scopeName{f.Kind, f.Name}] = f.ID
		}
	}
	return nil
}

// saveOthers changes the rows that are not of links.
func (m *merge) saveOthers(ctx context.Context) error {
	keys := slices.SortedFunc(maps.Keys(m.others), key.compare)
	for piece := range pieces(keys, func(k key) key { return k }) {
		whole := make([]bool, len(piece))
		for i, k := range piece {
			whole[i] = !m.others[k].removed.Empty()
		}
		rows, err := load(ctx, m.q, piece, whole)
		if err != nil {
			return err
		}
		for _, r := range rows {
			change := m.others[r.key]
			r.cells.Merge(&change.added)
			if whole := r.cells.Subtract(&change.removed); !whole || r.damaged {
				if err := m.countAgain(ctx, key{All, r.day}); err != nil {
					return err
				}
			}
		}
		if err := m.save(ctx, rows); err != nil {
			return err
		}
	}
	clear(m.others)
	return nil
}

// wrap says which action err kept from being done; it returns nil for nil.
func wrap(action string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", action, err)
}
