package service

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/signpost/signpost/queries"
)

// Sort is how a list of links is sorted: by clicks, people or last_clicked_at, the
// numbers of link_totals. The zero value sorts by id.
type Sort struct {
	By         string
	Descending bool
}

// Place is a place in a sorted list: behind the link with this id, by whose number Key
// the list is sorted. Key is -1 for links without clicks, and a time is in microseconds.
type Place struct{ Key, ID int64 }

func (p Place) compare(q Place) int {
	return cmp.Or(cmp.Compare(p.Key, q.Key), cmp.Compare(p.ID, q.ID))
}

// PlacedLink is a link and its place.
type PlacedLink struct {
	Link
	Place Place
}

// fewLinks is how many links of a user, domain or tag are sorted in memory.
const fewLinks = 5000

// SortedAsOf returns the time whose numbers the order of sorted lists has, if they are
// read after it.
func (s *Service) SortedAsOf(ctx context.Context) (time.Time, error) {
	at, err := queries.New(s.Pool).GetTotalsAt(ctx)
	if err != nil {
		return at, fmt.Errorf("look how old the totals of links are: %w", err)
	}
	return at.UTC(), nil
}

// ListSortedLinks returns a page of a sorted list behind a place, nil for its beginning,
// and the place where the list goes on behind the page, nil if the page is the last one.
// A page may have fewer links than its limit and not be the last.
func (s *Service) ListSortedLinks(ctx context.Context, actor Actor, in LinkList, by Sort, after *Place, limit int) ([]PlacedLink, *Place, error) {
	if err := actor.Require(ReadsLinks); err != nil {
		return nil, nil, err
	}
	l, err := s.linkList(ctx, in)
	if err != nil {
		return nil, nil, err
	}
	start := Place{-1, 0}
	if by.Descending {
		start = Place{math.MaxInt64, math.MaxInt64}
	}
	if after != nil {
		start = *after
	}
	places, next, err := s.sortFew(ctx, l, by, start, limit)
	if err == nil && places == nil {
		places, next, err = s.sortAll(ctx, l, by, start, limit)
	}
	if err != nil {
		return nil, nil, err
	}
	ids := make([]int64, len(places))
	of := make(map[int64]Place, len(places))
	for i, p := range places {
		ids[i], of[p.ID] = p.ID, p
	}
	links, err := s.linksOf(ctx, ids)
	return views(links, func(l Link) PlacedLink { return PlacedLink{l, of[l.ID]} }), next, err
}

// sortFew sorts the links of a user, domain or tag. It returns nil if these are many, or
// if the list is of all of them.
func (s *Service) sortFew(ctx context.Context, l linkList, by Sort, at Place, limit int) (places []Place, next *Place, err error) {
	if l.userID == nil && l.tag == nil && l.customDomain() == nil {
		return nil, nil, nil
	}
	rows, err := s.lists().SortFewLinks(ctx, queries.SortFewLinksParams{
		SortBy: by.By, UserID: l.userID, DomainID: l.domainID, Tag: l.tag, IsActive: l.isActive, Search: l.search, RowLimit: fewLinks + 1,
	})
	if err != nil || len(rows) > fewLinks {
		return nil, nil, err
	}
	sign := 1
	if by.Descending {
		sign = -1
	}
	places = []Place{}
	for _, row := range rows {
		if p := (Place{row.Key, row.ID}); row.Passes && sign*p.compare(at) > 0 {
			places = append(places, p)
		}
	}
	slices.SortFunc(places, func(a, b Place) int { return sign * a.compare(b) })
	if len(places) > limit {
		places = places[:limit]
		next = &places[limit-1]
	}
	return places, next, nil
}

// sortAll walks through the totals of links, and through the links without any.
func (s *Service) sortAll(ctx context.Context, l linkList, by Sort, at Place, limit int) (places []Place, next *Place, err error) {
	for walked := int64(0); walked < s.Reach.Apart; walked += s.Reach.First {
		rows, err := s.sortPiece(ctx, l, by, at)
		if err != nil {
			return nil, nil, err
		}
		for _, row := range rows {
			if row.Passes && len(places) == limit {
				return places, &places[limit-1], nil
			}
			at = Place{row.Key, row.ID}
			if row.Passes {
				places = append(places, at)
			}
		}
		switch unclicked := at.Key < 0; {
		case len(rows) == int(s.Reach.First):
		case by.Descending && !unclicked:
			at = Place{-1, math.MaxInt64}
		case !by.Descending && unclicked:
			at = Place{0, 0}
		default:
			return places, nil, nil
		}
	}
	return places, &at, nil
}

func (s *Service) sortPiece(ctx context.Context, l linkList, by Sort, at Place) ([]queries.SortLinksDownRow, error) {
	p := queries.SortLinksDownParams{
		SortBy: by.By, AtKey: at.Key, AtID: at.ID, AtTime: time.UnixMicro(min(at.Key, math.MaxInt64/1000)).UTC(), WalkLimit: s.Reach.First,
		UserID: l.userID, DomainID: l.domainID, Tag: l.tag, IsActive: l.isActive, Search: l.search,
	}
	if at.Key < 0 {
		p.SortBy = "unclicked"
	}
	if by.Descending {
		return s.lists().SortLinksDown(ctx, p)
	}
	rows, err := s.lists().SortLinksUp(ctx, queries.SortLinksUpParams(p))
	return views(rows, func(r queries.SortLinksUpRow) queries.SortLinksDownRow { return queries.SortLinksDownRow(r) }), err
}
