package web

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/service"
)

// linksPage is the list of links.
type linksPage struct {
	Exact    []exactLink
	Rows     []linkRow
	Search   string
	Tag      string
	Owner    string
	Domain   string
	Owners   []service.User // to choose from, see choices
	Domains  []string
	State    string
	Sort     string
	Orders   []option
	Columns  map[string]column
	OrderAt  *moment // the numbers of this time make the order; nil where none do
	Next     string  // the path of the next page; "" on the last
	First    string  // the path of the first page; "" on it
	Filtered bool
	Export   string            // the path of a file of all that the filter finds
	Filters  map[string]string // those that are set, and the order
	Did      *did
	CanWrite bool
	Errors   fieldErrors
}

// linkRow is a link in the list.
type linkRow struct {
	service.Link
	TagViews []tagView
	Name     string // without the scheme
	Target   string // without the scheme
	State    linkState
	Created  moment
	Last     *moment // when it was last clicked on
	Href     string
}

// exactLink is a link whose short code, or short URL, is what was searched for. The list has
// only those in whose title or target it is.
type exactLink struct {
	Name, Title, Href string
}

// findExact returns the links with a short code, which is typed alone or as a short URL.
func (w *Web) findExact(ctx context.Context, r *Request, text, domain string, domains []string) (exact []exactLink, err error) {
	found, err := w.linksWithCode(ctx, r, text, domain, domains)
	for _, l := range found {
		e := exactLink{Name: withoutScheme(l.ShortURL), Href: linkPath(l.ID)}
		if l.Title != nil {
			e.Title = *l.Title
		}
		exact = append(exact, e)
	}
	return exact, err
}

// column is a column by which the list can be sorted.
type column struct {
	Href    string
	Current string // ascending or descending, if the list is sorted by it
}

// orders are the orders of the list. The heads of columns lead to them, and where these have
// no room one chooses among them.
var orders = []option{
	{"", "newest first"},
	{"oldest", "oldest first"},
	{"-people", "most people"},
	{"people", "fewest people"},
	{"-clicks", "most clicks"},
	{"clicks", "fewest clicks"},
	{"-last_clicked_at", "clicked last"},
	{"last_clicked_at", "clicked longest ago"},
}

// linksOnPage is how many links a page of the list has.
const linksOnPage = 25

func (w *Web) links(ctx context.Context, r *Request) (*Answer, error) {
	loc := w.place(r)
	did, err := w.whatItDid(ctx, r)
	if err != nil {
		return nil, err
	}
	r.Query.Del("did") // no link leads to the same once more
	p := linksPage{
		Did: did, Filters: map[string]string{},
		Search: r.Query.text("q"), Tag: r.Query.text("tag"), Owner: r.Query.text("user_id"), Domain: r.Query.text("domain"),
		State: r.Query.text("state"), Sort: r.Query.text("sort"), Orders: orders, Columns: map[string]column{}, CanWrite: r.may(service.WritesLinks),
	}
	for _, name := range []string{"people", "clicks", "last_clicked_at", "id"} {
		p.Columns[name] = columnOf(r, name, p.Sort)
	}
	p.Filtered = len(r.Query.only(filterNames...).Values) > 0
	p.Export = r.Query.only(filterNames...).href("/app/links/export", "format", "csv")
	for name, values := range r.Query.only(append([]string{"sort"}, filterNames...)...).Values {
		p.Filters[name] = values[0]
	}
	if p.Owners, p.Domains, err = w.choices(ctx, r); err != nil {
		return nil, err
	}
	if p.Search != "" && len(p.Search) <= links.MaxHost+links.MaxCode && r.Query.text("cursor") == "" {
		if p.Exact, err = w.findExact(ctx, r, p.Search, p.Domain, p.Domains); err != nil {
			return nil, err
		}
	}
	if _, sorted := sortOf(p.Sort); sorted {
		at, err := w.Service.SortedAsOf(ctx) // before the list, which may be newer
		if err != nil {
			return nil, err
		}
		if at.Unix() > 0 { // the numbers were added up once
			p.OrderAt = momentAt(&at, loc)
		}
	}
	found, next, err := w.findLinks(ctx, r, p)
	status := 200
	if faults, code, ok := asFields(err); ok {
		p.Errors, status = faults, code
	} else if err != nil {
		return nil, err
	}
	tags, err := w.tagViews(ctx, r, found)
	if err != nil {
		return nil, err
	}
	for _, l := range found {
		row := linkRow{
			Link: l, TagViews: tags[l.ID], Name: withoutScheme(l.ShortURL), Target: withoutScheme(l.OriginalURL), State: stateOf(l, loc),
			Created: momentOf(l.CreatedAt, loc), Href: linkPath(l.ID),
		}
		if l.LastClickedAt != nil {
			last := momentOf(*l.LastClickedAt, loc)
			row.Last = &last
		}
		p.Rows = append(p.Rows, row)
	}
	if next != "" {
		p.Next = r.Query.href(r.Path, "cursor", next, "done", "")
	}
	if r.Query.text("cursor") != "" {
		p.First = r.Query.href(r.Path, "cursor", "", "done", "")
	}
	return w.page(r, status, "Links", "links.html", p)
}

// columnOf returns the head of a column. It sorts by the column, the largest or newest
// first; the other way round if it is sorted so already.
func columnOf(r *Request, name, current string) column {
	down, up := "-"+name, name
	if name == "id" {
		down, up = "", "oldest"
	}
	c := column{Href: r.Query.href(r.Path, "sort", down, "cursor", "", "done", "")}
	switch current {
	case down:
		c.Current, c.Href = "descending", r.Query.href(r.Path, "sort", up, "cursor", "", "done", "")
	case up:
		c.Current = "ascending"
	}
	return c
}

// sortOf returns the number of its links by which a list is sorted, if it is.
func sortOf(order string) (by service.Sort, sorted bool) {
	by.By, by.Descending = strings.CutPrefix(order, "-")
	return by, by.By != "" && by.By != "oldest"
}

// findLinks returns the links of a page of the list, and the cursor of the next page, ""
// if there is none.
func (w *Web) findLinks(ctx context.Context, r *Request, p linksPage) (found []service.Link, next string, err error) {
	var faults service.Faults
	list, err := w.filterOf(ctx, r, r.Query, &faults)
	if err != nil {
		return nil, "", err
	}
	list.Oldest = p.Sort == "oldest"
	if !slices.ContainsFunc(orders, func(o option) bool { return o.Value == p.Sort }) {
		faults.Add("sort", "is not an order of this list")
	}
	at, ok := parseCursor(r.Query.text("cursor"), p.Sort)
	if !ok {
		faults.Add("cursor", "is not a page of this list")
	}
	if err := faults.Err(); err != nil {
		return nil, "", err
	}
	by, sorted := sortOf(p.Sort)
	if !sorted {
		if at != nil {
			list.After = at.ID
		}
		found, id, err := w.Service.ListLinks(ctx, r.Actor, list, 0, linksOnPage)
		if id != 0 {
			next = makeCursor(p.Sort, service.Place{ID: id})
		}
		return found, next, err
	}
	placed, end, err := w.Service.ListSortedLinks(ctx, r.Actor, list, by, at, linksOnPage)
	if end != nil {
		next = makeCursor(p.Sort, *end)
	}
	for _, l := range placed {
		found = append(found, l.Link)
	}
	return found, next, err
}

// filterOf returns the list that a query asks for, and adds what is wrong with it.
func (w *Web) filterOf(ctx context.Context, r *Request, v Values, faults *service.Faults) (service.LinkList, error) {
	owner, err := w.userID(ctx, r.Actor, v)
	if err := note(faults, err); err != nil {
		return service.LinkList{}, err
	}
	list := service.LinkList{UserID: owner, Tag: v.text("tag"), Domain: v.text("domain"), Search: v.text("q")}
	switch state := v.text("state"); state {
	case "":
	case "on", "off":
		on := state == "on"
		list.IsActive = &on
	default:
		faults.Add("state", "must be on or off")
	}
	for _, f := range list.Check() {
		switch f.Field {
		case "search":
			faults.Add("q", f.Message)
		case "tag", "domain":
			*faults = append(*faults, f)
		}
	}
	return list, nil
}

// exportLinks sends the links that are ticked, or all that a query asks for, as a file.
func (w *Web) exportLinks(ctx context.Context, r *Request) (*Answer, error) {
	source, err := w.linksToExport(ctx, r)
	return &Answer{Status: 200, Export: &source, Format: cmp.Or(r.Query.text("format"), r.Query.text("picked"))}, worded(err, r.Query)
}

func (w *Web) linksToExport(ctx context.Context, r *Request) (source service.Export, err error) {
	if r.Query.Has("picked") && r.Query.Get("all") == "" {
		picked, _, err := w.selectionOf(ctx, r, r.Query)
		switch {
		case err != nil:
			return source, err
		case len(picked.IDs) == 0:
			return source, &service.Error{Kind: service.KindInvalid, Message: "tick some links in the list first, or choose all that the filter finds"}
		case len(picked.IDs) > service.MaxPicked:
			return source, service.Invalid(service.FieldError{Field: "ids", Message: fmt.Sprintf("has %d links, and a file has at most %d", len(picked.IDs), service.MaxPicked)})
		}
		return w.Service.ExportPicked(ctx, r.Actor, picked.IDs)
	}
	var faults service.Faults
	list, err := w.filterOf(ctx, r, r.Query, &faults)
	if err != nil {
		return source, err
	}
	list.Oldest = true // as a file that an import reads begins
	if err := faults.Err(); err != nil {
		return source, err
	}
	return w.Service.ExportLinks(ctx, r.Actor, list, 0)
}

// makeCursor returns the text for a place in a list that is sorted so.
func makeCursor(sort string, at service.Place) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s %d %d", sort, at.Key, at.ID))
}

// parseCursor returns the place in a cursor, nil for the beginning.
func parseCursor(cursor, sort string) (at *service.Place, ok bool) {
	if cursor == "" {
		return nil, true
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return nil, false
	}
	parts := strings.Split(string(text), " ")
	if len(parts) != 3 || parts[0] != sort {
		return nil, false
	}
	key, err1 := strconv.ParseInt(parts[1], 10, 64)
	id, err2 := strconv.ParseInt(parts[2], 10, 64)
	return &service.Place{Key: key, ID: id}, err1 == nil && err2 == nil
}

func (w *Web) askDeleteLink(ctx context.Context, r *Request) (*Answer, error) {
	link, err := w.Service.GetLink(ctx, r.Actor, r.ID)
	if err != nil {
		return nil, err
	}
	return w.ask(r, 200, askPage{
		Title: fmt.Sprintf("Delete %s?", withoutScheme(link.ShortURL)), Back: linkPath(link.ID), Button: "Delete",
		Text: []string{
			fmt.Sprintf("It leads to %s. Whoever follows it after this finds nothing. Its %s %s in the statistics, and somebody else may use its code.",
				link.OriginalURL, number(link.Clicks), plural(link.Clicks, "click stays", "clicks stay")),
			"To stop it for a while, switch it off instead.",
		},
	})
}

func (w *Web) deleteLink(ctx context.Context, r *Request) (*Answer, error) {
	if err := w.Service.DeleteLink(ctx, r.Actor, r.ID); err != nil {
		return nil, err
	}
	return seeOther("/app/links?done=deleted"), nil
}

// switchLink switches a link on or off.
func (w *Web) switchLink(ctx context.Context, r *Request) (*Answer, error) {
	var in service.LinkFields
	on := r.Form.Get("is_active") == "true"
	in.IsActive.Sent, in.IsActive.Value = true, on
	if _, err := w.Service.UpdateLink(ctx, r.Actor, r.ID, in); err != nil {
		return nil, err
	}
	done := "off"
	if on {
		done = "on"
	}
	return seeOther(linkPath(r.ID) + "?done=" + done), nil
}
