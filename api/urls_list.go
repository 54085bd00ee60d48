package api

import (
	"context"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/service"
)

type urlListInput struct {
	OrderInput
	UserID   int64       `query:"user_id" minimum:"1" doc:"Only links of this user."`
	IsActive filterParam `query:"is_active" doc:"Only links that are, or are not, active."`
	Tag      string      `query:"tag" doc:"Only links with this tag."`
	Domain   string      `query:"domain" doc:"Only links of the domain with this host."`
	// ShortCode serves clients that know a short link, and not its id.
	ShortCode string  `query:"short_code" example:"spring" doc:"Only the link with this code, on the domain that domain names, or on the main one. It goes with no other filter."`
	IDs       []int64 `query:"ids" maxItems:"100" uniqueItems:"true" example:"[3,7]" doc:"Only the links with these ids, separated by commas, in their order. They go with no other parameter than format; a file has them oldest first."`
	Sort      string  `query:"sort" enum:"clicks,-clicks,people,-people,last_clicked_at,-last_clicked_at" doc:"Sorted by one of the link's numbers instead, with - the largest first, and links without clicks as if they had the smallest. Where a link stands may lag behind its clicks by a minute or two, and order_as_of says so; the numbers shown do not. Such a list is walked by cursor."`
	Search    string  `query:"search" doc:"Only links with this text in their title or target, whatever the case; three letters or digits in a row at least."`
}

// Resolve implements huma.Resolver.
func (in *urlListInput) Resolve(h huma.Context) []error {
	var faults []error
	u := h.URL()
	switch given := u.Query()["ids"]; {
	case len(given) > 1:
		faults = []error{&huma.ErrorDetail{Location: "query.ids", Message: "must be given once, with commas between the ids"}}
	case len(given) == 1 && len(in.IDs) == 0:
		faults = []error{&huma.ErrorDetail{Location: "query.ids", Message: "must name a link"}}
	}
	return slices.Concat(faults, in.ExportInput.Resolve(h),
		checkText("tag", in.Tag, links.MaxTag), checkText("domain", in.Domain, links.MaxHost), checkSearch(in.Search),
		checkText("short_code", in.ShortCode, links.MaxCode))
}

// checkSearch returns an error for a text that cannot be searched for.
func checkSearch(text string) []error {
	if errs := checkText("search", text, service.MaxSearch); errs != nil || text == "" {
		return errs
	}
	if err := service.CheckSearch(text); err != nil {
		return []error{&huma.ErrorDetail{Location: "query.search", Message: err.Error()}}
	}
	return nil
}

// list returns the list that the request asks for. It shares no memory with the
// request.
func (in *urlListInput) list() (service.LinkList, error) {
	fallback := newestFirst
	if in.whole() {
		fallback = oldestFirst // as a file that an import reads begins
	}
	order, at, err := in.place(urlCursors, fallback, 1)
	if err != nil {
		return service.LinkList{}, err
	}
	l := service.LinkList{
		Oldest: order == oldestFirst, UserID: given(in.UserID), IsActive: in.IsActive.value(),
		Tag: strings.Clone(in.Tag), Search: strings.Clone(in.Search), Domain: strings.Clone(in.Domain),
	}
	if at != nil {
		l.After = at[0]
	}
	return l, nil
}

func (a *API) listURLs(ctx context.Context, in *urlListInput) (*listOutput[URL], error) {
	switch {
	case len(in.IDs) > 0:
		return a.listPickedURLs(ctx, in)
	case in.ShortCode != "":
		return a.listURLOfCode(ctx, in)
	case in.Sort != "":
		return a.listSortedURLs(ctx, in)
	}
	l, err := in.list()
	if err != nil {
		return nil, err
	}
	found, next, err := a.service.ListLinks(ctx, actorIn(ctx), l, in.offset(), in.size())
	if err != nil {
		return nil, err
	}
	cursors := urlCursors[newestFirst]
	if l.Oldest {
		cursors = urlCursors[oldestFirst]
	}
	out, err := newList(&in.PageInput, found, func(l service.Link) URL { return URL(l) }, func(l service.Link) string {
		return makeCursor(cursors, l.ID)
	})
	if err == nil && out.Body.NextCursor == nil && next != 0 {
		cursor := makeCursor(cursors, next)
		out.Body.NextCursor = &cursor
	}
	return out, err
}

// isFiltered reports whether the list is more than that of all links, the domain aside.
func (in *urlListInput) isFiltered() bool {
	return in.UserID != 0 || in.IsActive.value() != nil || in.Tag != "" || in.Search != "" || in.Sort != "" || in.Cursor != "" || in.numbered()
}

// picked returns the ids of the links that are asked for.
func (in *urlListInput) picked() ([]int64, error) {
	if in.isFiltered() || in.Domain != "" || in.ShortCode != "" || in.Order != "" || in.Limit != 0 {
		return nil, invalid("ids", "go with no other parameter than format")
	}
	return slices.Clone(in.IDs), nil
}

// listPickedURLs lists the links with some ids.
func (a *API) listPickedURLs(ctx context.Context, in *urlListInput) (*listOutput[URL], error) {
	ids, err := in.picked()
	if err != nil {
		return nil, err
	}
	found, err := a.service.GetLinks(ctx, actorIn(ctx), ids)
	if err != nil {
		return nil, err
	}
	all := PageInput{Limit: service.MaxPicked}
	out, err := newList(&all, found, func(l service.Link) URL { return URL(l) }, func(service.Link) string { return "" })
	if err == nil && out.Body.NextCursor != nil {
		return nil, invalid("ids", "name links of more than 1 MiB: ask for fewer, or for a file")
	}
	return out, err
}

// listURLOfCode lists the link with a code, if there is one.
func (a *API) listURLOfCode(ctx context.Context, in *urlListInput) (*listOutput[URL], error) {
	if in.isFiltered() {
		return nil, errOnlyCode
	}
	found, err := a.service.FindLinks(ctx, actorIn(ctx), strings.Clone(in.Domain), strings.Clone(in.ShortCode))
	if err != nil {
		return nil, err
	}
	return newList(&in.PageInput, found, func(l service.Link) URL { return URL(l) }, func(service.Link) string { return "" })
}

var errOnlyCode = invalid("short_code", "goes with no other filter than domain")

// listSortedURLs lists links by one of their numbers. A cursor goes on in its own list
// only.
func (a *API) listSortedURLs(ctx context.Context, in *urlListInput) (*listOutput[URL], error) {
	switch {
	case in.numbered():
		return nil, invalid("page", "cannot be used together with sort: follow next_cursor instead")
	case in.Order != "":
		return nil, invalid("order", "cannot be used together with sort")
	}
	name := "urls_by_" + strings.Clone(in.Sort)
	by, descending := strings.CutPrefix(strings.Clone(in.Sort), "-")
	var after *service.Place
	if in.Cursor != "" {
		at := parseCursor(in.Cursor, name, 2)
		if at == nil {
			return nil, errCursor
		}
		after = &service.Place{Key: at[0], ID: at[1]}
	}
	l := service.LinkList{
		UserID: given(in.UserID), IsActive: in.IsActive.value(),
		Tag: strings.Clone(in.Tag), Search: strings.Clone(in.Search), Domain: strings.Clone(in.Domain),
	}
	asOf, err := a.service.SortedAsOf(ctx) // before the list, which may be newer
	if err != nil {
		return nil, err
	}
	found, next, err := a.service.ListSortedLinks(ctx, actorIn(ctx), l, service.Sort{By: by, Descending: descending}, after, in.size())
	if err != nil {
		return nil, err
	}
	out, err := newList(&in.PageInput, found, func(l service.PlacedLink) URL { return URL(l.Link) }, func(l service.PlacedLink) string {
		return makeCursor(name, l.Place.Key, l.Place.ID)
	})
	if err != nil {
		return nil, err
	}
	out.Body.OrderAsOf = &asOf
	if out.Body.NextCursor == nil && next != nil {
		cursor := makeCursor(name, next.Key, next.ID)
		out.Body.NextCursor = &cursor
	}
	return out, nil
}

// exportURLs exports the links that listURLs would list: all of them, or the page that
// the request names.
func (a *API) exportURLs(ctx context.Context, in *urlListInput) (service.Export, error) {
	switch {
	case len(in.IDs) > 0:
		ids, err := in.picked()
		if err != nil {
			return service.Export{}, err
		}
		return a.service.ExportPicked(ctx, actorIn(ctx), ids)
	case in.ShortCode != "":
		return service.Export{}, invalid("short_code", "is for lists")
	case in.Sort != "":
		return service.Export{}, invalid("sort", "is for lists; a file is in the order of ids")
	}
	l, err := in.list()
	if err != nil {
		return service.Export{}, err
	}
	return a.service.ExportLinks(ctx, actorIn(ctx), l, in.offset())
}
