package rollup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/signpost/signpost/queries"
)

// maxEventClicks is how many events are read at most for one answer: some tenths of a
// second.
const maxEventClicks = 500_000

// ErrNoEventsOfScope says that events cannot be counted in place of statistics, because
// they do not tell which domain and tags a link had.
var ErrNoEventsOfScope = errors.New("events do not tell the scope")

// ErrNoOtherOfEvents says that events cannot be filtered by Other: which values it has on
// a day, only statistics know.
var ErrNoOtherOfEvents = errors.New("events do not tell what belongs to " + Other)

// TooManyEventsError says that counting events would take too long.
type TooManyEventsError struct{ Clicks, Limit int64 }

// Error implements error.
func (e *TooManyEventsError) Error() string {
	return fmt.Sprintf("%d events would have to be read, more than %d", e.Clicks, e.Limit)
}

// ArchivedEventsError says that events of the range are not in the database any more.
type ArchivedEventsError struct{ Month time.Time }

// Error implements error.
func (e *ArchivedEventsError) Error() string {
	return "events of " + e.Month.Format("2006-01") + " are archived"
}

// readEvents does the work of Read by counting events.
func readEvents(ctx context.Context, q *queries.Queries, query Query) (Statistics, error) {
	if query.Scope < 0 && query.UserID == 0 {
		return Statistics{}, ErrNoEventsOfScope
	}
	for _, values := range query.Filter {
		if slices.Contains(values.Names, Other) {
			return Statistics{}, ErrNoOtherOfEvents
		}
	}
	if err := checkEvents(ctx, q, query); err != nil {
		return Statistics{}, err
	}
	st := newStatistics(query)
	st.FromEvents = true
	if err := st.countEvents(ctx, q, query, query.Range, st.Series, func(c *Compared) *Counts { return &c.Counts }); err != nil {
		return Statistics{}, err
	}
	if query.Range.Compared() {
		before := []Counts{{}}
		err := st.countEvents(ctx, q, query, query.Range.previous(), before, func(c *Compared) *Counts { return &c.Previous })
		if err != nil {
			return Statistics{}, err
		}
		st.Previous = before[0]
	}
	st.sumUp()
	return st, nil
}

// checkEvents returns an error if the events of the query are archived or too many. Each
// is counted once for the series and once for each breakdown.
func checkEvents(ctx context.Context, q *queries.Queries, query Query) error {
	clicks, most := int64(0), maxEventClicks/int64(1+len(query.Breakdowns))
	if query.Links {
		most /= 2 // there is no other breakdown then
	}
	whole, err := wholeMonths(ctx, q)
	if err != nil {
		return err
	}
	for _, r := range query.ranges() {
		from, to := r.days()
		months, err := q.ListMonthsOfRollups(ctx, from, to)
		if err != nil {
			return fmt.Errorf("list months with clicks: %w", err)
		}
		for _, month := range slices.Backward(months) {
			if !whole[monthOf(dayNumber(month))] {
				return &ArchivedEventsError{month}
			}
		}
		n, err := countClicks(ctx, q, query, r, most+1)
		if err != nil {
			return fmt.Errorf("count clicks: %w", err)
		}
		clicks += n
	}
	if clicks > most {
		return &TooManyEventsError{clicks, most}
	}
	return nil
}

// countClicks returns how many events a range has. For an owner these are counted, up to
// most: a link that changed hands may have more than the statistics of its new owner.
func countClicks(ctx context.Context, q *queries.Queries, query Query, r Range, most int64) (int64, error) {
	if query.UserID != 0 {
		return q.CountClicksOfUser(ctx, queries.CountClicksOfUserParams{UserID: &query.UserID, FromTime: r.From, ToTime: r.To, Most: most})
	}
	from, to := r.days()
	return q.CountRollupClicks(ctx, query.Scope, from, to)
}

// ranges returns the range of the query, and the one to compare with, unless they are
// empty.
func (q Query) ranges() []Range {
	var all []Range
	if !q.Range.empty() {
		all = append(all, q.Range)
	}
	if before := q.Range.previous(); q.Range.Compared() && !before.empty() {
		all = append(all, before)
	}
	return all
}

// countEvents adds the clicks of a range that pass the filter.
func (st *Statistics) countEvents(
	ctx context.Context, q *queries.Queries, query Query, r Range, series []Counts, counts func(*Compared) *Counts,
) error {
	if r.empty() {
		return nil
	}
	dimensions, breakdowns := []string{""}, map[string]Breakdown{}
	for of, breakdown := range st.Breakdowns {
		dimensions, breakdowns[of.String()] = append(dimensions, of.String()), breakdown
	}
	if st.Links != nil {
		dimensions, breakdowns["links"] = append(dimensions, "links"), st.Links
	}
	f := query.Filter
	p := queries.ReadEventsParams{
		Starts: r.Starts(), FromTime: r.From, ToTime: r.To, Dimensions: dimensions, FirstBit: FirstOfLink,
		MostValues: maxNames, Other: Other,
		Kinds: f.names(Kind), NotKinds: f[Kind].Not, Countries: f.names(Country), NotCountries: f[Country].Not,
		Referrers: f.names(Referrer), NotReferrers: f[Referrer].Not, Browsers: f.names(Browser), NotBrowsers: f[Browser].Not,
		Systems: f.names(System), NotSystems: f[System].Not, Devices: f.names(Device), NotDevices: f[Device].Not,
		Triggers: f.names(Trigger), NotTriggers: f[Trigger].Not,
	}
	switch {
	case query.UserID != 0:
		p.UserID = &query.UserID
	case query.Scope > 0:
		p.URLID = &query.Scope
	case !query.Links: // of single links, visitors are those of each
		p.FirstBit = FirstOfAll
	}
	rows, err := q.ReadEvents(ctx, p)
	if err != nil {
		return fmt.Errorf("count events: %w", err)
	}
	for _, row := range rows {
		n := Counts{row.Clicks, row.People, row.Visitors}
		if row.Dimension == "" {
			series[row.Bucket-1] = n
		} else {
			*counts(breakdowns[row.Dimension].row(row.Value)) = n
		}
	}
	return nil
}

// names returns the names of a filter, nil if there is none.
func (f Filter) names(of Dimension) []string {
	values, ok := f[of]
	if !ok {
		return nil
	}
	return append([]string{}, values.Names...)
}
