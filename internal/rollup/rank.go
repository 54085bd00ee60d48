package rollup

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/signpost/signpost/queries"
)

// Ranking asks for the links, tags or domains with the most clicks in a range.
type Ranking struct {
	Of     ScopeKind
	Range  Range
	Filter Filter // by kind at most, for people or for all but people
	// UserID, DomainID and Tag, if set, leave only links that have them now.
	UserID, DomainID *int64
	Tag              *string

	By    RankBy
	Least bool // the least first; otherwise the most
	After *RankAt
	Limit int
}

// ScopeKind is a kind of scopes.
type ScopeKind string

// The kinds of scopes. Links are no rows of rollup_scopes.
const (
	LinkScope   ScopeKind = "link"
	OwnerScope  ScopeKind = "owner"
	DomainScope ScopeKind = "domain"
	TagScope    ScopeKind = "tag"
)

// RankBy says by which number scopes are ranked.
type RankBy string

// The orders of scopes.
const (
	RankByClicks   RankBy = "clicks"
	RankByPeople   RankBy = "people"
	RankByVisitors RankBy = "visitors"
	RankByValue    RankBy = "value"
)

// RankAt is a place between two scopes of a ranking.
type RankAt struct{ Rank, Scope int64 }

// Ranked is a scope in a ranking.
type Ranked struct {
	Scope int64
	Compared
	At RankAt // the place after it
}

// Rank returns the first scopes of a ranking behind a place in it, and the counts of all
// scopes of the ranking together. The totals are zero if there is no scope behind the
// place.
func Rank(ctx context.Context, q *queries.Queries, ranking Ranking) ([]Ranked, Counts, error) {
	rows, err := ranking.read(ctx, q, ranking.Range, nil)
	if err != nil || len(rows) == 0 {
		return nil, Counts{}, err
	}
	ranked, scopes, place := make([]Ranked, len(rows)), make([]int64, len(rows)), map[int64]int{}
	for i, row := range rows {
		ranked[i] = Ranked{row.Scope, Compared{Counts: Counts{row.Clicks, row.People, row.Visitors}}, RankAt{row.Rank, row.Scope}}
		scopes[i], place[row.Scope] = row.Scope, i
	}
	totals := Counts{rows[0].TotalClicks, rows[0].TotalPeople, rows[0].TotalVisitors}
	if !ranking.Range.Compared() {
		return ranked, totals, nil
	}
	ranking.After, ranking.Limit = nil, len(scopes)
	before, err := ranking.read(ctx, q, ranking.Range.previous(), scopes)
	for _, row := range before {
		ranked[place[row.Scope]].Previous = Counts{row.Clicks, row.People, row.Visitors}
	}
	return ranked, totals, err
}

// read ranks the scopes by one range; scopes, if not nil, are the only ones that count.
func (k Ranking) read(ctx context.Context, q *queries.Queries, r Range, scopes []int64) ([]queries.RankScopesRow, error) {
	if r.empty() {
		return nil, nil
	}
	part, _ := k.Filter.split()
	from, to := r.wholeDays()
	p := queries.RankScopesParams{
		Kind: string(k.Of), FromDay: from, ToDay: to, Scopes: scopes, UserID: k.UserID, DomainID: k.DomainID, Tag: k.Tag,
		Part: string(part), RankBy: string(k.By), Sign: 1, AfterRank: math.MaxInt64, RowLimit: int32(k.Limit),
	}
	if k.Least {
		p.Sign = -1
	}
	if k.After != nil {
		p.AfterRank, p.AfterScope = k.After.Rank, k.After.Scope
	}
	if err := k.addRagged(ctx, q, r, &p); err != nil {
		return nil, err
	}
	rows, err := q.RankScopes(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("rank scopes: %w", err)
	}
	return rows, nil
}

// addRagged adds the counts of days that are only partly in the range.
func (k Ranking) addRagged(ctx context.Context, q *queries.Queries, r Range, p *queries.RankScopesParams) error {
	days := r.raggedDays()
	if len(days) == 0 {
		return nil
	}
	rows, err := q.ReadRaggedRollups(ctx, queries.ReadRaggedRollupsParams{
		Days: days, FromTime: r.From, Kind: string(k.Of), Scopes: p.Scopes, UserID: k.UserID, DomainID: k.DomainID, Tag: k.Tag,
	})
	if err != nil {
		return fmt.Errorf("read days at the ends: %w", err)
	}
	whole := oneBucket(r.From, r.To)
	for _, row := range rows {
		var sum Counts
		buckets := whole.bucketsOf(row.Day)
		err := Series(row.Cells, func(_ string, quarter int, n Counts) {
			if buckets[quarter] != outside {
				sum = sum.Plus(n)
			}
		})
		if err != nil {
			return fmt.Errorf("statistics of scope %d on %s: %w", row.Scope, row.Day.Format(time.DateOnly), err)
		}
		if sum != (Counts{}) {
			p.RaggedScopes = append(p.RaggedScopes, row.Scope)
			p.RaggedClicks = append(p.RaggedClicks, sum.Clicks)
			p.RaggedPeople = append(p.RaggedPeople, sum.People)
			p.RaggedVisitors = append(p.RaggedVisitors, sum.Visitors)
		}
	}
	return nil
}

// wholeDays returns the first UTC day that is in the range as a whole, and the first
// after it that is not. They are the same if there is none.
func (r Range) wholeDays() (from, to time.Time) {
	from, to = r.days()
	if from.Before(r.From) {
		from = from.AddDate(0, 0, 1)
	}
	if to.After(r.To) {
		to = to.AddDate(0, 0, -1)
	}
	if to.Before(from) {
		to = from
	}
	return from, to
}

// raggedDays returns the UTC days that are only partly in the range.
func (r Range) raggedDays() (days []time.Time) {
	first, end := r.days()
	last := end.AddDate(0, 0, -1)
	if first.Before(r.From) || first.Equal(last) && end.After(r.To) {
		days = append(days, first)
	}
	if end.After(r.To) && !last.Equal(first) {
		days = append(days, last)
	}
	return days
}
