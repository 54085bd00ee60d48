// Package rollup keeps the statistics of clicks. It is the only writer and reader of
// rollups, a row for each scope and UTC day. A scope is a link, all links, or an owner,
// a domain or a tag.
//
// A transaction that writes or removes clicks collects them in [Changes] and calls
// Apply, which leaves a digest of them. So events and digests are changed together or
// not at all. [Fold] merges digests into rollups, each exactly once: it removes them in
// the transaction that changes the rows.
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
	// All is the scope of all links.
	All = 0
)

// Event is a click, with the fields that statistics need. An empty text means that
// there is none; an empty Kind is a person's, and an empty Trigger is a link.
type Event struct {
	URLID, UserID int64
	At            time.Time

	Kind, Country, Referrer, Browser, System, Device, Trigger string

	// First says that the click is its visitor's first one for the link on this day,
	// and FirstOfAll that it is the first one for any link.
	First, FirstOfAll bool
}

func (e *Event) visit() Visit {
	return Visit{
		Quarter: int(e.At.Sub(dateOf(dayNumber(e.At))) / quarter),
		Values: [dimensions]string{
			Kind: cmp.Or(e.Kind, Person), Country: e.Country, Referrer: e.Referrer, Browser: e.Browser,
			System: e.System, Device: e.Device, Trigger: cmp.Or(e.Trigger, "link"),
		},
	}
}

// counts returns how the click counts. first is about its visitor.
func (e *Event) counts(first bool) Counts {
	n := Counts{Clicks: 1}
	if cmp.Or(e.Kind, Person) == Person {
		n.People = 1
		if first {
			n.Visitors = 1
		}
	}
	return n
}

// key names a row of rollups.
type key struct {
	scope int64
	day   int32 // since 1970
}

// String implements [fmt.Stringer].
func (k key) String() string {
	return fmt.Sprintf("scope %d, %s", k.scope, dateOf(k.day).Format(time.DateOnly))
}

// keysOf returns the keys of the rows of scopes on a day.
func keysOf(scopes []int64, day int32) []key {
	keys := make([]key, len(scopes))
	for i, scope := range scopes {
		keys[i] = key{scope, day}
	}
	return keys
}

// dayNumber returns the number of whole UTC days between 1970 and t.
func dayNumber(t time.Time) int32 {
	return int32((t.Unix() - floorMod(t.Unix(), 86400)) / 86400)
}

func floorMod(a, b int64) int64 { return (a%b + b) % b }

// dateOf returns the start of a day.
func dateOf(day int32) time.Time { return time.Unix(int64(day)*86400, 0).UTC() }

// monthOf returns a number that grows with the months of days.
func monthOf(day int32) int {
	year, month, _ := dateOf(day).Date()
	return year*12 + int(month) - 1
}

// compare orders keys by day and scope.
func (k key) compare(l key) int {
	return cmp.Or(cmp.Compare(k.day, l.day), cmp.Compare(k.scope, l.scope))
}

// Changes collects clicks that are added to the statistics and taken away from them.
// The zero value is empty and ready. It is not safe for concurrent use.
type Changes struct{ changes []change }

type change struct {
	key     key
	event   Event
	removed bool
}

// Add counts a click.
func (c *Changes) Add(e Event) { c.change(e, false) }

// Remove takes away a click that was counted.
func (c *Changes) Remove(e Event) { c.change(e, true) }

func (c *Changes) change(e Event, removed bool) {
	if e.URLID != 0 { // a file may have clicks of no link
		c.changes = append(c.changes, change{key{e.URLID, dayNumber(e.At)}, e, removed})
	}
}

// Apply leaves a digest of the changes in the caller's transaction, to which q is bound.
// It waits for nobody.
func (c *Changes) Apply(ctx context.Context, q *queries.Queries) error {
	if len(c.changes) == 0 {
		return nil
	}
	oldest := slices.MinFunc(c.changes, func(a, b change) int { return a.event.At.Compare(b.event.At) })
	err := q.AddRollupDigest(ctx, int32(len(c.changes)), oldest.event.At, encodeDigest(c.entries()))
	if err != nil {
		return fmt.Errorf("leave a digest: %w", err)
	}
	return nil
}

// entries returns the changes of each link and day, and those of each day for all links.
func (c *Changes) entries() []entry {
	order := make([]*change, len(c.changes))
	for i := range c.changes {
		order[i] = &c.changes[i]
	}
	slices.SortStableFunc(order, func(a, b *change) int {
		return cmp.Or(cmp.Compare(a.key.day, b.key.day), cmp.Compare(a.key.scope, b.key.scope))
	})
	var entries []entry
	for len(order) > 0 {
		n := 0
		for n < len(order) && order[n].key.day == order[0].key.day {
			n++
		}
		entries = append(entries, entriesOfDay(order[:n])...)
		order = order[n:]
	}
	return entries
}

// entriesOfDay returns the entries of a day, whose changes are in the order of links.
func entriesOfDay(of []*change) []entry {
	all := sides{}
	entries := []entry{{key: key{All, of[0].key.day}}}
	for len(of) > 0 {
		link, e := sides{}, entry{key: of[0].key, owner: of[0].event.UserID}
		for len(of) > 0 && of[0].key == e.key {
			c := of[0]
			visit := c.event.visit()
			link.side(c.removed).Add(&visit, c.event.counts(c.event.First))
			all.side(c.removed).Add(&visit, c.event.counts(c.event.FirstOfAll))
			if !c.removed {
				e.last = max(e.last, c.event.At.UnixMicro())
			}
			of = of[1:]
		}
		e.pack(&link)
		entries = append(entries, e)
	}
	entries[0].pack(&all)
	return entries
}
