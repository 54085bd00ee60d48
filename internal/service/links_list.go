package service

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// maxOffset is the largest offset at which a numbered page of links may begin.
// maxSifted is the same for lists whose rows have to be read to be counted.
const maxOffset, maxSifted = 200_000, 10_000

// Reach bounds how far lists are searched for the links of a page.
type Reach struct {
	// A walk along the list, from its beginning or a cursor, first reads the number of
	// links in First, which takes about a millisecond. Then it reads the number in
	// Long, or in Apart if each link is on another page: some tens of milliseconds. A list
	// sorted by a number reads First at a time, up to Apart.
	First, Long, Apart int64
	// Links that are on this many of 64 pages count as scattered.
	Spread int64
	// Matches and Timeout bound the reading of all links with a tag or text.
	Matches int
	Timeout time.Duration
}

// UsualReach returns the reach of a server; tests have shorter ones.
func UsualReach() Reach {
	return Reach{First: 1000, Long: 100_000, Apart: 20_000, Spread: 6, Matches: 50_000, Timeout: 300 * time.Millisecond}
}

// ErrTooDeep refuses a numbered page that would take reading very many rows.
var ErrTooDeep = Invalid(FieldError{"page", "is too far in for this list: follow next_cursor instead"})

// LinkList is a list of links and a position in it.
type LinkList struct {
	Oldest bool  // the oldest link first; otherwise the newest
	After  int64 // the id after which the list goes on; 0 for its beginning

	UserID      *int64
	IsActive    *bool
	Tag, Search string // "" for any; Search is part of a title or target
	Domain      string // the host of a domain; "" for any
}

// linkList is a LinkList as the database understands it.
type linkList struct {
	oldest bool
	at     int64

	userID, domainID *int64
	isActive         *bool
	tag, search      *string
}

func (s *Service) linkList(ctx context.Context, in LinkList) (linkList, error) {
	l := linkList{oldest: in.Oldest, at: in.After, userID: in.UserID, isActive: in.IsActive, search: containing(in.Search)}
	if !l.oldest && l.at == 0 {
		l.at = math.MaxInt64
	}
	if in.Tag != "" {
		l.tag = &in.Tag
	}
	if in.Domain != "" {
		id, err := s.FindDomain(ctx, in.Domain)
		if err != nil {
			return linkList{}, err
		}
		l.domainID = &id
	}
	return l, nil
}

// FindLinks returns the link with a code on the domain with a host, "" for the main one,
// or no link.
func (s *Service) FindLinks(ctx context.Context, actor Actor, host, code string) ([]Link, error) {
	if err := actor.Require(ReadsLinks); err != nil {
		return nil, err
	}
	domainID, err := s.FindDomain(ctx, host)
	if err != nil {
		return nil, err
	}
	id, err := s.lists().FindLink(ctx, domainID, links.NormalCode(code))
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return []Link{}, nil
	case err != nil:
		return nil, err
	}
	return s.linksOf(ctx, []int64{id})
}

// minRun is how many letters or digits in a row the index of texts needs.
const minRun = 3

// MaxSearch is the longest text that is searched for, in characters.
const MaxSearch = 2048

var errSearch = errors.New("must have at least three letters or digits in a row")

// CheckSearch returns an error for a text that cannot be searched for. The index of
// texts consists of groups of three letters or digits; a text without such a group
// would have to be compared with all links. The message can follow the field's name.
func CheckSearch(text string) error {
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
	return errSearch
}

var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// containing returns the LIKE pattern for texts that contain s, nil if s is empty.
func containing(s string) *string {
	if s == "" {
		return nil
	}
	pattern := "%" + likeEscaper.Replace(s) + "%"
	return &pattern
}

// customDomain returns the domain of the list. It returns nil for the main domain,
// which has no index because nearly all links are in it.
func (l linkList) customDomain() *int64 {
	if l.domainID == nil || *l.domainID == linkcache.MainDomain {
		return nil
	}
	return l.domainID
}

// sifted reports whether links have to be read to find out whether they are in the
// list. That is so if no index has exactly the links of the list in their order.
func (l linkList) sifted() bool {
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
func (s *Service) page(ctx context.Context, l linkList, offset, want int) (found, error) {
	if !l.sifted() {
		return s.walk(ctx, l, offset, want, 0)
	}
	got, err := s.walk(ctx, l, offset, want, s.Reach.First)
	if err != nil || got.edge == 0 {
		return got, err
	}
	if all, ok, err := s.find(ctx, l, offset, want); ok || err != nil {
		return all, err
	}
	return s.walk(ctx, l, offset, want, s.farthest(l))
}

// piece finds up to want links of a list that is read to its end, less also if
// the next of them are further away than a walk goes. edge says where to go on.
func (s *Service) piece(ctx context.Context, l linkList, want int) (found, error) {
	if !l.sifted() {
		return s.walk(ctx, l, 0, want, 0)
	}
	got, err := s.walk(ctx, l, 0, want, s.farthest(l))
	if err != nil || got.edge == 0 || len(got.ids) > 0 {
		return got, err
	}
	if all, ok, err := s.find(ctx, l, 0, want); ok || err != nil {
		return all, err
	}
	return got, nil
}

// farthest returns the largest number of links that a walk reads. It takes links of a
// user, of a custom domain and inactive ones to be each on a page of its own.
func (s *Service) farthest(l linkList) int64 {
	if l.userID != nil || l.customDomain() != nil || l.isActive != nil && !*l.isActive {
		return s.Reach.Apart
	}
	return s.Reach.Long
}

// walk reads up to limit links, in the order of the list and along an index; a limit of
// 0 means as many as it takes.
func (s *Service) walk(ctx context.Context, l linkList, offset, want int, limit int64) (found, error) {
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
		up, err = s.lists().WalkURLsUp(ctx, queries.WalkURLsUpParams(p))
		for _, row := range up {
			rows = append(rows, queries.WalkURLsDownRow(row))
		}
	} else {
		rows, err = s.lists().WalkURLsDown(ctx, p)
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
func (s *Service) find(ctx context.Context, l linkList, offset, want int) (found, bool, error) {
	if l.tag == nil && l.search == nil {
		return found{}, false, nil
	}
	pages, err := s.lists().SampleURLs(ctx, l.tag, l.search)
	if err != nil || pages >= s.Reach.Spread {
		return found{}, false, err
	}
	var rows []queries.FindURLsRow
	err = postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		q := queries.New(queries.Planned{DBTX: tx})
		if err := q.PreferBitmaps(ctx, s.Reach.Timeout.Milliseconds()); err != nil {
			return err
		}
		var err error
		rows, err = q.FindURLs(ctx, queries.FindURLsParams{
			UserID: l.userID, DomainID: l.domainID, IsActive: l.isActive, Tag: l.tag, Search: l.search, RowLimit: int32(s.Reach.Matches + 1),
		})
		return err
	})
	if ctx.Err() == nil && postgres.StatementTimeout(err) || len(rows) > s.Reach.Matches {
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

// ListLinks returns a page of a list, and the id after which the list goes on behind
// it, 0 if the page is the last one. A page may have fewer links than its limit and not
// be the last.
func (s *Service) ListLinks(ctx context.Context, actor Actor, in LinkList, offset, limit int) (links []Link, next int64, err error) {
	if err := actor.Require(ReadsLinks); err != nil {
		return nil, 0, err
	}
	l, err := s.linkList(ctx, in)
	if err != nil {
		return nil, 0, err
	}
	if offset > maxOffset || offset > maxSifted && l.sifted() {
		return nil, 0, ErrTooDeep
	}
	got, err := s.page(ctx, l, offset, limit+1)
	if err != nil {
		return nil, 0, err
	}
	if offset > 0 && got.edge != 0 {
		return nil, 0, ErrTooDeep
	}
	next = got.edge
	if len(got.ids) > limit {
		got.ids = got.ids[:limit]
		next = got.ids[limit-1]
	}
	links, err = s.linksOf(ctx, got.ids)
	return links, next, err
}

// nextLinks returns the next limit links of a list, fewer only if there are no more,
// and the position after them.
func (s *Service) nextLinks(ctx context.Context, l linkList, limit int) (links []Link, at int64, err error) {
	for {
		want := limit - len(links)
		got, err := s.piece(ctx, l, want)
		if err != nil {
			return nil, 0, err
		}
		more, err := s.linksOf(ctx, got.ids)
		if err != nil {
			return nil, 0, err
		}
		links = append(links, more...)
		switch {
		case got.edge != 0:
			l.at = got.edge
		case len(got.ids) < want:
			return links, l.at, nil
		default:
			l.at = got.ids[want-1]
		}
		if len(links) == limit {
			return links, l.at, nil
		}
	}
}
