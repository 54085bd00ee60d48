package web

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/internal/service"
)

// rangeNames are the ranges that one click chooses.
var rangeNames = []struct{ value, name string }{
	{"24h", "24 hours"}, {"7d", "7 days"}, {"30d", "30 days"}, {"90d", "90 days"}, {"12mo", "12 months"},
}

const usualRange = "30d"

// period is the choice of range and zone, as a form and as links.
type period struct {
	Action   string // where the form leads
	Ranges   []choice
	From, To string
	TZ       string
	Kept     map[string]string // what else the form has to send
	Errors   fieldErrors
}

// numbers are the clicks of a range, as a page shows them.
type numbers struct {
	Period   period
	Totals   service.Counts
	Previous service.Counts
	Chart    chart
	AsOf     moment
	Pending  int64
	Unknown  string // why there are no numbers, "" if there are
}

// barRow is a row of a breakdown.
type barRow struct {
	Value, Name, Reason string
	Count               int64
	Share               float64 // of the largest row
	Href                string  // filters by the value, or leads to what it names
	Current             bool    // is filtered by
}

// panel is a breakdown with a title. It adds up to all that it breaks down.
type panel struct {
	Title, Dimension string
	Rows             []barRow
	Rest             int64 // of all values that have no row, also of those that are not told apart
}

// A titled dimension is one of the breakdowns of a page.
type titled struct {
	title string
	of    rollup.Dimension
}

// statisticsQuery returns the part of a query that the request asks for: the range, the
// zone and the filters.
func (w *Web) statisticsQuery(r *Request, loc *time.Location) service.StatisticsQuery {
	q := service.StatisticsQuery{
		Time: rollup.Request{
			Range: r.Query.text("range"), From: r.Query.text("from"), To: r.Query.text("to"), Zone: loc.String(),
			Interval: r.Query.text("interval"), Compare: "previous",
		},
		Filters: map[rollup.Dimension]string{},
	}
	if tz := r.Query.text("tz"); tz != "" {
		q.Time.Zone = tz // also if it is wrong, so that somebody says so
	}
	for _, of := range rollup.Dimensions() {
		if value := r.Query.text(of.One()); value != "" {
			q.Filters[of] = value
		}
	}
	return q
}

// panelRows is how many rows a breakdown on a page has.
const panelRows = 8

// count reads the totals and the series of a page. A wrong range is told beside its field,
// and the numbers are those of the usual one. Under some filters there are none, and the
// page says why.
func (w *Web) count(s *service.Snapshot, r *Request, q *service.StatisticsQuery, of string) (numbers, error) {
	loc := w.place(r)
	n := numbers{Period: w.period(r, loc)}
	st, err := s.Statistics(*q)
	faults, _, ok := asFields(err)
	if ok && faults[""] != "" {
		n.Unknown = sentence(faults[""])
		return n, nil
	}
	if ok {
		n.Period.Errors = faults
		q.Time = rollup.Request{Zone: loc.String(), Compare: "previous"}
		for of := range q.Filters {
			if faults[of.One()] != "" {
				delete(q.Filters, of)
			}
		}
		st, err = s.Statistics(*q)
	}
	if err != nil {
		return n, err
	}
	earlier, err := before(s, *q, st)
	if err != nil {
		return n, err
	}
	n.Totals, n.AsOf, n.Pending = st.Totals, momentOf(st.AsOf, loc), st.Pending
	if st.Previous != nil {
		n.Previous = *st.Previous
	}
	n.Chart = newChart(of, st, earlier)
	return n, nil
}

// before reads the series of the range to compare with, nil if there is none or it cannot be
// told: it may begin before all time that is counted, or have too many clicks.
func before(s *service.Snapshot, q service.StatisticsQuery, st service.Statistics) ([]service.Bucket, error) {
	from, to := st.Range.PreviousFrom, st.Range.PreviousTo
	if from == nil || to == nil || !from.Before(*to) {
		return nil, nil
	}
	q.Time = rollup.Request{
		From: from.Format(time.RFC3339), To: to.Format(time.RFC3339), Zone: q.Time.Zone, Interval: st.Range.Interval,
	}
	earlier, err := s.Statistics(q)
	if _, _, ok := asFields(err); ok {
		return nil, nil
	}
	return earlier.Series, err
}

// breakDown returns the rows of some dimensions, all of them: in the order of which clicks
// they are wanted, the caller knows.
func breakDown(s *service.Snapshot, q service.StatisticsQuery, of ...rollup.Dimension) (map[string][]service.BreakdownRow, error) {
	q.Time.Compare, q.Breakdowns, q.Top = "", of, math.MaxInt
	st, err := s.Statistics(q)
	return st.Breakdowns, err
}

// These are the clicks that a panel counts.
func clicksOf(n service.Counts) int64 { return n.Clicks }
func peopleOf(n service.Counts) int64 { return n.People }
func robotsOf(n service.Counts) int64 { return n.Robots }

// period returns the choice of a range on a page.
func (w *Web) period(r *Request, loc *time.Location) period {
	p := period{
		Action: r.Path, From: r.Query.text("from"), To: r.Query.text("to"), TZ: loc.String(), Kept: map[string]string{},
	}
	current := r.Query.text("range")
	if current == "" && p.From == "" && p.To == "" {
		current = usualRange
	}
	for _, known := range rangeNames {
		href := r.Query.href(r.Path, "range", known.value, "from", "", "to", "", "interval", "", "done", "")
		p.Ranges = append(p.Ranges, choice{known.name, href, known.value == current})
	}
	for _, of := range rollup.Dimensions() {
		if value := r.Query.text(of.One()); value != "" {
			p.Kept[of.One()] = value
		}
	}
	return p
}

// robotKinds returns the kinds of robots, each with the reason why it is one.
func robotKinds(rows []service.BreakdownRow) []barRow {
	var kinds []barRow
	for _, row := range rows {
		if row.Value != "person" {
			kinds = append(kinds, barRow{Value: row.Value, Name: label("kind", row.Value), Reason: kindReason(row.Value), Count: row.Clicks})
		}
	}
	return withShares(kinds)
}

// panelOf returns the breakdown of a dimension. With a request, a click on a row filters its
// page by the value, and a second one no longer.
func panelOf(t titled, rows map[string][]service.BreakdownRow, count func(service.Counts) int64, filters *Request) panel {
	p := panel{Title: t.title, Dimension: t.of.One()}
	for _, row := range rows[t.of.String()] {
		b := barRow{Value: row.Value, Name: label(t.of.One(), row.Value), Count: count(row.Counts)}
		switch {
		case b.Count == 0:
			continue
		case row.Value == other: // nothing tells which they are
			p.Rest += b.Count
			continue
		case filters != nil:
			b.Current = filters.Query.text(t.of.One()) == row.Value
			b.Href = filters.Query.href(filters.Path, t.of.One(), map[bool]string{false: row.Value}[b.Current], "done", "")
		}
		p.Rows = append(p.Rows, b)
	}
	slices.SortStableFunc(p.Rows, func(a, b barRow) int { return cmp.Compare(b.Count, a.Count) })
	for _, row := range p.Rows[min(panelRows, len(p.Rows)):] {
		p.Rest += row.Count
	}
	p.Rows = withShares(p.Rows[:min(panelRows, len(p.Rows))])
	return p
}

// withShares sets the length of the bars: that of the largest row is 1.
func withShares(rows []barRow) []barRow {
	most := int64(1)
	for _, row := range rows {
		most = max(most, row.Count)
	}
	for i := range rows {
		rows[i].Share = float64(rows[i].Count) / float64(most)
	}
	return rows
}
