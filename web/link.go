package web

import (
	"context"
	"strings"
	"time"

	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/internal/service"
)

// linkPage is everything about one link.
type linkPage struct {
	Link     service.Link
	Owner    string
	Name     string // without the scheme
	State    linkState
	Created  moment
	Changed  moment
	Numbers  numbers
	Filters  []choice // those that are set; each leads to the page without it
	Panels   []panel
	Programs panel  // of robots
	NoPanels string // why there are no breakdowns, if there are none
	Feed     feed
	NoClicks bool // nobody ever clicked on it
	CanWrite bool
}

// linkState is whether a link leads to its target now.
type linkState struct {
	Name    string // active, off or expired
	Expires *moment
}

func stateOf(l service.Link, loc *time.Location) linkState {
	s := linkState{Name: "active"}
	if l.ExpiresAt != nil {
		at := momentOf(*l.ExpiresAt, loc)
		if s.Expires = &at; !l.ExpiresAt.After(time.Now()) {
			s.Name = "expired"
		}
	}
	if !l.IsActive {
		s.Name = "off"
	}
	return s
}

var linkPanels = []titled{
	{"Referrers", rollup.Referrer},
	{"Countries", rollup.Country},
	{"Browsers", rollup.Browser},
	{"Systems", rollup.System},
	{"Devices", rollup.Device},
	{"Reached by", rollup.Trigger},
}

func (w *Web) link(ctx context.Context, r *Request) (*Answer, error) {
	loc := w.place(r)
	link, err := w.Service.GetLink(ctx, r.Actor, r.ID)
	if err != nil {
		return nil, err
	}
	p := linkPage{
		Link: link, Name: withoutScheme(link.ShortURL), State: stateOf(link, loc),
		Created: momentOf(link.CreatedAt, loc), Changed: momentOf(link.UpdatedAt, loc), Filters: filtersOf(r),
		CanWrite: r.may(service.WritesLinks),
	}
	owner, err := w.Service.GetUser(ctx, r.Actor, link.UserID)
	if err != nil {
		return nil, err
	}
	p.Owner = owner.Username
	q := w.statisticsQuery(r, loc)
	q.URLID = link.ID
	if err := w.countLink(ctx, r, q, &p); err != nil {
		return nil, err
	}
	if p.Feed, err = w.latest(ctx, r, link.ID, loc); err != nil {
		return nil, err
	}
	p.NoClicks = link.Clicks == 0 && len(p.Feed.Rows) == 0
	status := 200
	switch {
	case p.Numbers.Unknown != "":
		status = 422
	case p.Numbers.Period.Errors != nil:
		status = 400
	}
	return w.page(r, status, p.Name, "link.html", p)
}

// countLink reads all numbers of a link. Under some filters there are totals and no
// breakdowns; the page then says why.
func (w *Web) countLink(ctx context.Context, r *Request, q service.StatisticsQuery, p *linkPage) (err error) {
	if p.Numbers, err = w.count(ctx, r, &q, p.Name); err != nil {
		return err
	}
	if p.Numbers.Unknown != "" {
		return nil
	}
	p.Panels, err = w.peoplePanels(ctx, r, q, linkPanels, true)
	if faults, _, ok := asFields(err); ok {
		p.NoPanels = sentence(faults[""])
		return nil
	}
	if err != nil || p.Numbers.Totals.Robots == 0 {
		return err
	}
	robots := q
	robots.Filters = map[rollup.Dimension]string{}
	for dimension, value := range q.Filters {
		robots.Filters[dimension] = value
	}
	if robots.Filters[rollup.Kind] == "" {
		robots.Filters[rollup.Kind] = "-person"
	}
	programs, err := w.peoplePanels(ctx, r, robots, []titled{{"Their programs", rollup.Browser}}, false)
	if err == nil {
		p.Programs = programs[0]
	}
	return err
}

// filtersOf returns the filters of a page.
func filtersOf(r *Request) []choice {
	var set []choice
	for _, of := range rollup.Dimensions() {
		if value := r.Query.text(of.One()); value != "" {
			set = append(set, choice{Name: of.One() + ": " + label(of.One(), value), Href: r.Query.href(r.Path, of.One(), "", "done", "")})
		}
	}
	return set
}

func withoutScheme(url string) string {
	_, rest, found := strings.Cut(url, "://")
	if !found {
		return url
	}
	return rest
}
