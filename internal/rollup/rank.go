package rollup

import (
	"cmp"
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

	// candidates is how many links are counted exactly to find the first ones; 0 means
	// 2000.
	candidates int
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
		LastDay: r.raggedEnd(), ToTime: r.To,
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
	if scopes == nil && k.ofBusiest() {
		if rows, err := k.readBusiest(ctx, q, p); rows != nil || err != nil {
			return rows, err
		}
	}
	return rankScopes(ctx, q, p)
}

func rankScopes(ctx context.Context, q *queries.Queries, p queries.RankScopesParams) ([]queries.RankScopesRow, error) {
	rows, err := q.RankScopes(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("rank scopes: %w", err)
	}
	return rows, nil
}

// ofBusiest reports whether the ranking begins with the busiest of all links.
func (k Ranking) ofBusiest() bool {
	return k.Of == LinkScope && !k.Least && k.After == nil && k.By != RankByValue && k.UserID == nil && k.DomainID == nil && k.Tag == nil
}

// busyFrom is the number of clicks from which on a day of a link counts as busy: most
// days of most links have a single click.
const busyFrom = 2

// readBusiest ranks the busiest of all links without adding up the days of every link,
// which takes five times as long. It adds up the busy days only, since on all others
// together a link cannot have more than a click a day. Only links that may be among the
// first even so are counted exactly. It returns nil if it cannot tell which they are.
func (k Ranking) readBusiest(ctx context.Context, q *queries.Queries, p queries.RankScopesParams) ([]queries.RankScopesRow, error) {
	candidates := cmp.Or(k.candidates, 2000)
	busy, err := q.RankBusyLinks(ctx, queries.RankBusyLinksParams{
		Least: busyFrom, Part: p.Part, RankBy: p.RankBy, FromDay: p.FromDay, ToDay: p.ToDay, RaggedScopes: p.RaggedScopes,
		RaggedClicks: p.RaggedClicks, RaggedPeople: p.RaggedPeople, RaggedVisitors: p.RaggedVisitors, RowLimit: int32(candidates),
		LastDay: p.LastDay, ToTime: p.ToTime,
	})
	if err != nil {
		return nil, fmt.Errorf("rank busy links: %w", err)
	}
	if len(busy) < k.Limit {
		return nil, nil
	}
	days := int64(p.ToDay.Sub(p.FromDay)/(24*time.Hour)) + 1 // with last_day
	others := days * (busyFrom - 1)                          // most that a link can have on days that are not busy
	if len(busy) == candidates {
		others += busy[candidates-1].Ranked
	}
	if busy[k.Limit-1].Ranked <= others {
		return nil, nil
	}
	for _, b := range busy {
		p.Scopes = append(p.Scopes, b.Scope)
	}
	keepRagged(&p)
	rows, err := rankScopes(ctx, q, p)
	for i := range rows {
		rows[i].TotalClicks, rows[i].TotalPeople, rows[i].TotalVisitors = busy[0].TotalClicks, busy[0].TotalPeople, busy[0].TotalVisitors
	}
	return rows, err
}

// addRagged adds the counts of days that are only partly in the range.
func (k Ranking) addRagged(ctx context.Context, q *queries.Queries, r Range, p *queries.RankScopesParams) error {
	days := r.raggedDays()
	if len(days) == 0 {
		return nil
	}
	rows, err := q.ReadRaggedRollups(ctx, queries.ReadRaggedRollupsParams{
		Days: days, FromTime: r.From, Kind: string(k.Of), Scopes: p.Scopes, UserID: k.UserID, DomainID: k.DomainID, Tag: k.Tag,
		LastDay: p.LastDay, ToTime: p.ToTime,
	})
	if err != nil {
		return fmt.Errorf("read days at the ends: %w", err)
	}
	whole := oneBucket(r.From, r.To)
	for _, row := range rows {
		var sum Counts
		buckets := whole.bucketsOf(row.Day)
		for _, cells := range [][]byte{row.Cells, row.Recent} {
			if len(cells) == 0 {
				continue
			}
			err := Series(cells, func(_ string, quarter int, n Counts) {
				if buckets[quarter] != outside {
					sum = sum.Plus(n)
				}
			})
			if err != nil {
				return fmt.Errorf("statistics of scope %d on %s: %w", row.Scope, row.Day.Format(time.DateOnly), err)
			}
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

// keepRagged leaves only the ragged counts of the scopes that count.
func keepRagged(p *queries.RankScopesParams) {
	keep := make(map[int64]bool, len(p.Scopes))
	for _, scope := range p.Scopes {
		keep[scope] = true
	}
	n := 0
	for i, scope := range p.RaggedScopes {
		if keep[scope] {
			p.RaggedScopes[n], p.RaggedClicks[n] = scope, p.RaggedClicks[i]
			p.RaggedPeople[n], p.RaggedVisitors[n] = p.RaggedPeople[i], p.RaggedVisitors[i]
			n++
		}
	}
	p.RaggedScopes, p.RaggedClicks = p.RaggedScopes[:n], p.RaggedClicks[:n]
	p.RaggedPeople, p.RaggedVisitors = p.RaggedPeople[:n], p.RaggedVisitors[:n]
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

// raggedEnd returns the UTC day in which the range ends and does not begin, nil if there
// is none. A row of that day is in the range as a whole if its last click is.
func (r Range) raggedEnd() *time.Time {
	first, end := r.days()
	if last := end.AddDate(0, 0, -1); end.After(r.To) && (last.After(first) || !first.Before(r.From)) {
		return &last
	}
	return nil
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
