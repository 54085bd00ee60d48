package api

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

const (
	// maxOffset is the largest offset at which a numbered page of links may begin.
	// maxSifted is the same for lists whose rows have to be read to be counted.
	maxOffset, maxSifted = 200_000, 10_000
	// minRun is how many letters or digits in a row the index of texts needs.
	minRun = 3
	// maxSearch is the longest text that is searched for, in characters.
	maxSearch = 2048
)

// reach bounds how far lists are searched for the links of a page.
type reach struct {
	// A walk along the list, from its beginning or a cursor, first reads the number of
	// links in first, which takes about a millisecond. Then it reads the number in
	// long, or in apart if each link is on another page: some tens of milliseconds.
	first, long, apart int64
	// Links that are on this many of 64 pages count as scattered.
	spread int64
	// matches and timeout bound the reading of all links with a tag or text.
	matches int
	timeout time.Duration
}

func usualReach() reach {
	return reach{first: 1000, long: 100_000, apart: 20_000, spread: 6, matches: 50_000, timeout: 300 * time.Millisecond}
}

var errTooDeep = invalid(FieldError{Field: "page", Message: "is too far in for this list: follow next_cursor instead"})

type urlListInput struct {
	OrderInput
	UserID   int64       `query:"user_id" minimum:"1" doc:"Only links of this user."`
	IsActive filterParam `query:"is_active" doc:"Only links that are, or are not, active."`
	Tag      string      `query:"tag" doc:"Only links with this tag."`
	Domain   string      `query:"domain" doc:"Only links of the domain with this host."`
	Search   string      `query:"search" doc:"Only links with this text in their title or target, whatever the case; three letters or digits in a row at least."`
}

// Resolve implements huma.Resolver.
func (in *urlListInput) Resolve(h huma.Context) []error {
	return slices.Concat(in.ExportInput.Resolve(h),
		checkText("tag", in.Tag, links.MaxTag), checkText("domain", in.Domain, links.MaxHost), checkSearch(in.Search))
}

// checkSearch returns an error for a text that cannot be searched for. The index of
// texts consists of groups of three letters or digits; a text without such a group
// would have to be compared with all links.
func checkSearch(text string) []error {
	if errs := checkText("search", text, maxSearch); errs != nil || text == "" {
		return errs
	}
	run := 0
	for _, r := range text {
		if !unicode.In(r, unicode.Letter, unicode.Mark, unicode.Number) {
			run = 0
			continue
		}
		if run++; run == minRun {
			return nil
		}
	}
	return []error{&huma.ErrorDetail{Location: "query.search", Message: "must have at least three letters or digits in a row"}}
}

// urlList is a list of links and a position in it.
type urlList struct {
	oldest bool  // the oldest link first; otherwise the newest
	at     int64 // the id after which the list goes on

	userID, domainID *int64
	isActive         *bool
	tag, search      *string
}

// urlList returns the list that the request asks for. It shares no memory with the
// request.
func (a *API) urlList(ctx context.Context, in *urlListInput) (urlList, error) {
	fallback := newestFirst
	if in.whole() {
		fallback = oldestFirst // as a file that an import reads begins
	}
	order, at, err := in.place(urlCursors, fallback, 1)
	if err != nil {
		return urlList{}, err
	}
	l := urlList{
		oldest: order == oldestFirst, at: math.MaxInt64,
		userID: given(in.UserID), isActive: in.IsActive.value(),
		tag: given(strings.Clone(in.Tag)), search: containing(in.Search),
	}
	switch {
	case at != nil:
		l.at = at[0]
	case l.oldest:
		l.at = 0
	}
	if in.Domain != "" {
		id, err := a.service.FindDomain(ctx, strings.Clone(in.Domain))
		if err != nil {
			return urlList{}, err
		}
		l.domainID = &id
	}
	return l, nil
}

// customDomain returns the domain of the list. It returns nil for the main domain,
// which has no index because nearly all links are in it.
func (l urlList) customDomain() *int64 {
	if l.domainID == nil || *l.domainID == linkcache.MainDomain {
		return nil
	}
	return l.domainID
}

func (l urlList) cursor(id int64) string {
	if l.oldest {
		return makeCursor(urlCursors[oldestFirst], id)
	}
	return makeCursor(urlCursors[newestFirst], id)
}

// sifted reports whether links have to be read to find out whether they are in the
// list. That is so if no index has exactly the links of the list in their order.
func (l urlList) sifted() bool {
	switch {
	case l.tag != nil, l.search != nil, l.isActive != nil && *l.isActive, l.domainID != nil && l.customDomain() == nil:
		return true
	case l.userID != nil:
		return l.isActive != nil || l.domainID != nil
	}
	return l.isActive != nil && l.domainID != nil
}

// found has the ids of the next links of a list.
type found struct {
	ids []int64
	// edge is the id up to which the list was searched, if the search stopped before
	// the end and before it found as many links as were wanted; otherwise 0.
	edge int64
}

// page finds up to want links of a list. It finds fewer if there are no more, or if it
// gives up; edge then says where to go on. So no list is slow, however its links are
// spread:
//
//   - Links that have come lately are found by a short walk along the list.
//   - Those that are all over the place, by a longer one.
//   - The others are few or all in one place. An index tells which there are.
//
// The planner knows only how many there are, and takes them to be all over the
// place: it would walk from one end of the list to the other for a few.
func (a *API) page(ctx context.Context, l urlList, offset, want int) (found, error) {
	if !l.sifted() {
		return a.walk(ctx, l, offset, want, 0)
	}
	got, err := a.walk(ctx, l, offset, want, a.reach.first)
	if err != nil || got.edge == 0 {
		return got, err
	}
	if all, ok, err := a.find(ctx, l, offset, want); ok || err != nil {
		return all, err
	}
	return a.walk(ctx, l, offset, want, a.farthest(l))
}

// piece finds up to want links of a list that is read to its end, less also if
// the next of them are further away than a walk goes. edge says where to go on.
func (a *API) piece(ctx context.Context, l urlList, want int) (found, error) {
	if !l.sifted() {
		return a.walk(ctx, l, 0, want, 0)
	}
	got, err := a.walk(ctx, l, 0, want, a.farthest(l))
	if err != nil || got.edge == 0 || len(got.ids) > 0 {
		return got, err
	}
	if all, ok, err := a.find(ctx, l, 0, want); ok || err != nil {
		return all, err
	}
	return got, nil
}

// farthest returns the largest number of links that a walk reads. It takes links of a
// user, of a custom domain and inactive ones to be each on a page of its own.
func (a *API) farthest(l urlList) int64 {
	if l.userID != nil || l.customDomain() != nil || l.isActive != nil && !*l.isActive {
		return a.reach.apart
	}
	return a.reach.long
}

// walk reads up to limit links, in the order of the list and along an index; a limit of
// 0 means as many as it takes.
func (a *API) walk(ctx context.Context, l urlList, offset, want int, limit int64) (found, error) {
	p := queries.WalkURLsDownParams{
		AtID: l.at, UserID: l.userID, DomainID: l.domainID, IsActive: l.isActive, Tag: l.tag, Search: l.search,
		WalkLimit: cmp.Or(limit, math.MaxInt64), EdgeLimit: int32(min(limit, 1)),
		RowLimit: int32(want), RowOffset: int32(offset),
	}
	switch { // one index
	case l.userID != nil:
	case l.customDomain() != nil:
		p.CustomDomainID = l.domainID
	default:
		p.Inactive = l.isActive != nil && !*l.isActive
	}
	var rows []queries.WalkURLsDownRow
	var err error
	if l.oldest {
		var up []queries.WalkURLsUpRow
		up, err = a.lists().WalkURLsUp(ctx, queries.WalkURLsUpParams(p))
		for _, row := range up {
			rows = append(rows, queries.WalkURLsDownRow(row))
		}
	} else {
		rows, err = a.lists().WalkURLsDown(ctx, p)
	}
	if err != nil {
		return found{}, err
	}
	var got found
	for _, row := range rows {
		if row.IsEdge {
			got.edge = row.ID
		} else {
			got.ids = append(got.ids, row.ID)
		}
	}
	if len(got.ids) == want {
		got.edge = 0
	}
	return got, nil
}

// find reads all links with the tag and the text, wherever they are. It returns false
// if they are scattered, too many, or take too long.
func (a *API) find(ctx context.Context, l urlList, offset, want int) (found, bool, error) {
	if l.tag == nil && l.search == nil {
		return found{}, false, nil
	}
	pages, err := a.lists().SampleURLs(ctx, l.tag, l.search)
	if err != nil || pages >= a.reach.spread {
		return found{}, false, err
	}
	var rows []queries.FindURLsRow
	err = postgres.InTx(ctx, a.Pool, func(tx pgx.Tx) error {
		q := queries.New(planned{tx})
		if err := q.PreferBitmaps(ctx, a.reach.timeout.Milliseconds()); err != nil {
			return err
		}
		var err error
		rows, err = q.FindURLs(ctx, queries.FindURLsParams{
			UserID: l.userID, DomainID: l.domainID, IsActive: l.isActive, Tag: l.tag, Search: l.search, RowLimit: int32(a.reach.matches + 1),
		})
		return err
	})
	if ctx.Err() == nil && postgres.StatementTimeout(err) || len(rows) > a.reach.matches {
		return found{}, false, nil
	}
	if err != nil {
		return found{}, false, err
	}
	var ids []int64
	for _, row := range rows {
		if row.Passes && (l.oldest && row.ID > l.at || !l.oldest && row.ID < l.at) {
			ids = append(ids, row.ID)
		}
	}
	slices.Sort(ids)
	if !l.oldest {
		slices.Reverse(ids)
	}
	ids = ids[min(offset, len(ids)):]
	return found{ids: ids[:min(want, len(ids))]}, true, nil
}

// urlsOf returns those links with these ids that still exist, in the order of the ids.
func (a *API) urlsOf(ctx context.Context, ids []int64) ([]URL, error) {
	found, err := a.service.LinksOf(ctx, ids)
	urls := make([]URL, len(found))
	for i, link := range found {
		urls[i] = URL(link)
	}
	return urls, err
}

// urlPage returns a page of a list.
func (a *API) urlPage(ctx context.Context, l urlList, p *PageInput) (*listOutput[URL], error) {
	offset, size := p.offset(), p.size()
	if offset > maxOffset || offset > maxSifted && l.sifted() {
		return nil, errTooDeep
	}
	got, err := a.page(ctx, l, offset, size+1)
	if err != nil {
		return nil, err
	}
	if offset > 0 && got.edge != 0 {
		return nil, errTooDeep
	}
	urls, err := a.urlsOf(ctx, got.ids)
	if err != nil {
		return nil, err
	}
	out, err := newList(p, urls, asIs, func(u URL) string { return l.cursor(u.ID) })
	if err != nil || out.Body.NextCursor != nil {
		return out, err
	}
	if len(got.ids) > size {
		got.edge = got.ids[size] // some of the links were deleted in the meantime
	}
	if got.edge != 0 {
		cursor := l.cursor(got.edge)
		out.Body.NextCursor = &cursor
	}
	return out, nil
}

func (a *API) listURLs(ctx context.Context, in *urlListInput) (*listOutput[URL], error) {
	l, err := a.urlList(ctx, in)
	if err != nil {
		return nil, err
	}
	return a.urlPage(ctx, l, &in.PageInput)
}

// exportURLs reads the links that listURLs would list: all of them, or the page that
// the request names.
func (a *API) exportURLs(ctx context.Context, in *urlListInput) (exportSource, error) {
	l, err := a.urlList(ctx, in)
	source := exportSource{kind: csvimport.KindLinks, header: urlColumns}
	if in.whole() {
		source.next = func(ctx context.Context, limit int32) ([]exportRow, error) {
			urls, at, err := a.nextURLs(ctx, l, int(limit))
			if err == nil {
				l.at = at
			}
			return exportRows(urls, asIs), err
		}
		return source, err
	}
	page := in.PageInput
	source.next = func(ctx context.Context, _ int32) ([]exportRow, error) {
		out, err := a.urlPage(ctx, l, &page)
		if err != nil {
			return nil, err
		}
		return exportRows(out.Body.Data, asIs), nil
	}
	return source, err
}

// nextURLs returns the next limit links of a list, fewer only if there are no more, and
// the position after them.
func (a *API) nextURLs(ctx context.Context, l urlList, limit int) (urls []URL, at int64, err error) {
	for {
		want := limit - len(urls)
		got, err := a.piece(ctx, l, want)
		if err != nil {
			return nil, 0, err
		}
		more, err := a.urlsOf(ctx, got.ids)
		if err != nil {
			return nil, 0, err
		}
		urls = append(urls, more...)
		switch {
		case got.edge != 0:
			l.at = got.edge
		case len(got.ids) < want:
			return urls, l.at, nil
		default:
			l.at = got.ids[want-1]
		}
		if len(urls) == limit {
			return urls, l.at, nil
		}
	}
}
