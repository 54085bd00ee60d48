package web

import (
	"context"
	"strconv"

	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/internal/service"
)

// overviewPage is the first page: how many came, from where, and whether all is well.
type overviewPage struct {
	Today, Yesterday service.Counts // yesterday up to the same time
	Numbers          numbers
	Top              panel // links
	Panels           []panel
	Feed             feed
	NoLinks          bool // there is nothing to click on yet
	NoClicks         bool // nothing was ever clicked on
	CanWrite         bool
}

func (w *Web) overview(ctx context.Context, r *Request) (*Answer, error) {
	loc := w.place(r)
	p := overviewPage{CanWrite: r.may(service.WritesLinks)}
	err := w.Service.InSnapshot(ctx, r.Actor, func(s *service.Snapshot) error { return w.countAll(s, r, &p) })
	if err != nil {
		return nil, err
	}
	if p.Feed, err = w.latest(ctx, r, 0, loc); err != nil {
		return nil, err
	}
	if p.NoClicks = len(p.Feed.Rows) == 0 && p.Numbers.Totals.Clicks == 0 && p.Numbers.Pending == 0; p.NoClicks {
		links, _, err := w.Service.ListLinks(ctx, r.Actor, service.LinkList{}, 0, 1)
		if err != nil {
			return nil, err
		}
		p.NoLinks = len(links) == 0
	}
	status := 200
	if p.Numbers.Period.Errors != nil {
		status = 400
	}
	return w.page(r, status, "Overview", "overview.html", p)
}

// countAll reads all numbers of the page.
func (w *Web) countAll(s *service.Snapshot, r *Request, p *overviewPage) error {
	loc := w.place(r)
	today, err := s.Statistics(service.StatisticsQuery{
		Time: rollup.Request{Range: "today", Zone: loc.String(), Compare: "previous"},
	})
	if err != nil {
		return err
	}
	p.Today, p.Yesterday = today.Totals, *today.Previous
	q := w.statisticsQuery(r, loc)
	q.Filters = nil // this page has none
	if p.Numbers, err = w.count(s, r, &q, "all links"); err != nil {
		return err
	}
	rows, err := breakDown(s, q, rollup.Referrer, rollup.Country)
	if err != nil {
		return err
	}
	for _, t := range []titled{{"Referrers", rollup.Referrer}, {"Countries", rollup.Country}} {
		p.Panels = append(p.Panels, panelOf(t, rows, peopleOf, nil))
	}
	p.Top, err = topLinks(s, r, q, p.Numbers.Totals.People)
	return err
}

// topLinks returns the links that most of the people clicked on.
func topLinks(s *service.Snapshot, r *Request, q service.StatisticsQuery, people int64) (panel, error) {
	p := panel{Title: "Links", Rest: people}
	q.Time.Compare = ""
	b, err := s.Breakdown(q, service.BreakdownPage{Of: service.ByLinks, Sort: "-people", Limit: panelRows})
	if err != nil {
		return p, err
	}
	for _, row := range b.Rows {
		if row.People == 0 {
			continue
		}
		bar := barRow{Value: row.Value, Name: "deleted link", Count: row.People}
		if row.Link != nil {
			bar.Name = withoutScheme(row.Link.ShortURL)
			if row.Link.Title != nil {
				bar.Reason = *row.Link.Title
			}
			if id, err := strconv.ParseInt(row.Value, 10, 64); err == nil {
				bar.Href = r.Query.only("range", "from", "to", "tz").href(linkPath(id))
			}
		}
		p.Rows = append(p.Rows, bar)
		p.Rest -= row.People
	}
	p.Rows = withShares(p.Rows)
	return p, nil
}
