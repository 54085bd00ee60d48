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
	Tags     []tagView
	Owner    string
	Name     string // without the scheme
	State    linkState
	Created  moment
	Changed  moment
	Numbers  numbers
	Filters  []choice // those that are set; each leads to the page without it
	Panels   []panel
	Kinds    []barRow // of robots
	Programs panel    // of robots
	NoPanels string   // why there are no breakdowns, if there are none
	Feed     feed
	History  historyPage
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
	p := linkPage{Filters: filtersOf(r), CanWrite: r.may(service.WritesLinks)}
	err := w.Service.InSnapshot(ctx, r.Actor, func(s *service.Snapshot) (err error) {
		if p.Link, err = s.Link(r.ID); err != nil {
			return err
		}
		p.Name = withoutScheme(p.Link.ShortURL)
		q := w.statisticsQuery(r, loc)
		q.URLID = p.Link.ID
		return w.countLink(s, r, q, &p)
	})
	if err != nil {
		return nil, err
	}
	p.State, p.Created, p.Changed = stateOf(p.Link, loc), momentOf(p.Link.CreatedAt, loc), momentOf(p.Link.UpdatedAt, loc)
	owner, err := w.Service.GetUser(ctx, r.Actor, p.Link.UserID)
	if err != nil {
		return nil, err
	}
	p.Owner = owner.Username
	tags, err := w.tagViews(ctx, r, []service.Link{p.Link})
	if err != nil {
		return nil, err
	}
	p.Tags = tags[p.Link.ID]
	if p.Feed, err = w.latest(ctx, r, p.Link.ID, loc); err != nil {
		return nil, err
	}
	if p.History, err = w.history(ctx, r, p.Link, nil, firstChanges); err != nil {
		return nil, err
	}
	p.NoClicks = p.Link.Clicks == 0 && len(p.Feed.Rows) == 0
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
func (w *Web) countLink(s *service.Snapshot, r *Request, q service.StatisticsQuery, p *linkPage) (err error) {
	if p.Numbers, err = w.count(s, r, &q, p.Name); err != nil {
		return err
	}
	if p.Numbers.Unknown != "" {
		return nil
	}
	rows, err := breakDown(s, q, rollup.Dimensions()...)
	if faults, _, ok := asFields(err); ok { // one may be known where all are not
		p.NoPanels = sentence(faults[""])
		rows, err = breakDown(s, q, rollup.Kind)
		if _, _, ok := asFields(err); ok {
			return nil
		}
		p.Kinds = robotKinds(rows[rollup.Kind.String()])
		return err
	}
	if err != nil {
		return err
	}
	of := peopleOf
	if q.Filters[rollup.Kind] != "" {
		of = clicksOf // those of the kind
	}
	for _, t := range linkPanels {
		one := panelOf(t, rows, of, r)
		if t.of != rollup.Trigger || len(one.Rows) > 1 { // else it says nothing that the reader does not know
			p.Panels = append(p.Panels, one)
		}
	}
	p.Kinds = robotKinds(rows[rollup.Kind.String()])
	p.Programs = panelOf(titled{"Their programs", rollup.Browser}, rows, robotsOf, nil)
	return nil
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
