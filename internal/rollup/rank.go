package rollup

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"time"

	"github.com/signpost/signpost/queries"
)

// Ranking asks for the links with the most clicks in a range.
type Ranking struct {
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
	// ragged is how many rows of days that are partly in the range are in memory at
	// once; 0 means 20,000.
	ragged int
}

// ScopeKind is a kind of scopes.
type ScopeKind string

// The kinds of scopes. Links are not among them: their ids are scopes themselves.
const (
	OwnerScope  ScopeKind = "owner"
	DomainScope ScopeKind = "domain"
	TagScope    ScopeKind = "tag"
)

// RankBy says by which number links are ranked.
type RankBy string

// The orders of links.
const (
	RankByClicks   RankBy = "clicks"
	RankByPeople   RankBy = "people"
	RankByVisitors RankBy = "visitors"
	RankByValue    RankBy = "value"
)

// RankAt is a place between two links of a ranking.
type RankAt struct{ Rank, Scope int64 }

// Ranked is a link in a ranking.
type Ranked struct {
	Scope int64
	Compared
	At RankAt // the place after it
}

// MaxScopes is how many tags or domains are counted at most: those with the most clicks.
const MaxScopes = 50_000

// CountScopes returns the clicks of every scope of a kind that has some in the range, or
// in the one to compare with. The filter is by kind at most, for people or for all but
// people.
func CountScopes(ctx context.Context, q *queries.Queries, kind ScopeKind, r Range, f Filter) (map[int64]*Compared, error) {
	scopes, err := q.ListRollupScopes(ctx, string(kind))
	if err != nil || len(scopes) == 0 {
		return nil, err
	}
	for i := range scopes {
		scopes[i] = -scopes[i]
	}
	k, found := Ranking{Filter: f, By: RankByClicks, Limit: MaxScopes}, map[int64]*Compared{}
	count := func(r Range, counts func(*Compared) *Counts) error {
		rows, err := k.read(ctx, q, r, scopes)
		for _, row := range rows {
			if found[row.Scope] == nil {
				found[row.Scope] = new(Compared)
			}
			*counts(found[row.Scope]) = Counts{row.Clicks, row.People, row.Visitors}
		}
		return err
	}
	err = count(r, func(c *Compared) *Counts { return &c.Counts })
	if err == nil && r.Compared() {
		err = count(r.previous(), func(c *Compared) *Counts { return &c.Previous })
	}
	return found, err
}

// Rank returns the first links of a ranking behind a place in it, and the counts of all
// links of the ranking together. The totals are zero if there is no link behind the
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

// read ranks links by one range, or scopes, if these are not nil.
func (k Ranking) read(ctx context.Context, q *queries.Queries, r Range, scopes []int64) ([]queries.RankScopesRow, error) {
	if r.empty() {
		return nil, nil
	}
	part, _ := k.Filter.split()
	from, to := r.wholeDays()
	p := queries.RankScopesParams{
		FromDay: from, ToDay: to, Scopes: scopes, UserID: k.UserID, DomainID: k.DomainID, Tag: k.Tag,
		Part: string(part), RankBy: string(k.By), Sign: 1, AfterRank: math.MaxInt64, RowLimit: int32(k.Limit),
		LastDay: r.raggedEnd(), FromTime: r.From, ToTime: r.To, RaggedDays: r.raggedDays(),
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
	return k.Limit <= k.mostBusy() && !k.Least && k.After == nil && k.By != RankByValue && k.UserID == nil && k.DomainID == nil && k.Tag == nil
}

// mostBusy is how many links are counted exactly to find the first ones.
func (k Ranking) mostBusy() int { return cmp.Or(k.candidates, 2000) }

// busyFrom is the number of clicks from which on a day of a link counts as busy: most
// days of most links have a single click.
const busyFrom = 2

// readBusiest ranks the busiest of all links without adding up the days of every link,
// which takes five times as long. It adds up the busy days only, since on all others
// together a link cannot have more than a click a day. Only links that may be among the
// first even so are counted exactly. It returns nil if it cannot tell which they are.
func (k Ranking) readBusiest(ctx context.Context, q *queries.Queries, p queries.RankScopesParams) ([]queries.RankScopesRow, error) {
	candidates := k.mostBusy()
	busy, err := q.RankBusyLinks(ctx, queries.RankBusyLinksParams{
		Least: busyFrom, Part: p.Part, RankBy: p.RankBy, FromDay: p.FromDay, ToDay: p.ToDay, RaggedScopes: p.RaggedScopes,
		RaggedClicks: p.RaggedClicks, RaggedPeople: p.RaggedPeople, RaggedVisitors: p.RaggedVisitors, RowLimit: int32(candidates),
		LastDay: p.LastDay, FromTime: p.FromTime, ToTime: p.ToTime, RaggedDays: p.RaggedDays,
	})
	if err != nil {
		return nil, fmt.Errorf("rank busy links: %w", err)
	}
	if len(busy) < k.Limit {
		return nil, nil
	}
	days := int64(p.ToDay.Sub(p.FromDay)/(24*time.Hour)) + 2 // with those that are partly in the range
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
	if len(p.RaggedDays) == 0 {
		return nil
	}
	ask := queries.ReadRaggedRollupsParams{
		Days: p.RaggedDays, FromTime: r.From, Scopes: p.Scopes, UserID: k.UserID, DomainID: k.DomainID, Tag: k.Tag,
		LastDay: p.LastDay, ToTime: p.ToTime, Front: frontOfSeries, RowLimit: int32(cmp.Or(k.ragged, 20_000)), AfterScope: math.MinInt64,
	}
	for {
		rows, err := q.ReadRaggedRollups(ctx, ask)
		if err != nil {
			return fmt.Errorf("read days at the ends: %w", err)
		}
		for _, row := range rows {
			if err := addRow(ctx, q, oneBucket(r.From, r.To), row, p); err != nil {
				return fmt.Errorf("statistics of scope %d on %s: %w", row.Scope, row.Day.Format(time.DateOnly), err)
			}
		}
		if len(rows) < int(ask.RowLimit) {
			return nil
		}
		ask.AfterScope, ask.AfterDay = rows[len(rows)-1].Scope, rows[len(rows)-1].Day
	}
}

// addRow adds the clicks of a day's row that are in the range.
func addRow(ctx context.Context, q *queries.Queries, r Range, row queries.ReadRaggedRollupsRow, p *queries.RankScopesParams) error {
	cells := row.Cells
	if len(cells) == frontOfSeries && !hasSeries(cells) {
		var err error
		if cells, err = readCells(ctx, q, row.Scope, row.Day); err != nil {
			return err
		}
	}
	var sum Counts
	buckets := r.bucketsOf(row.Day)
	for _, cells := range [][]byte{cells, row.Recent} {
		if len(cells) == 0 {
			continue
		}
		err := Series(cells, func(_ string, quarter int, n Counts) {
			if buckets[quarter] != outside {
				sum = sum.Plus(n)
			}
		})
		if err != nil {
			return err
		}
	}
	if sum == (Counts{}) {
		return nil
	}
	p.RaggedScopes, p.RaggedClicks = append(p.RaggedScopes, row.Scope), append(p.RaggedClicks, sum.Clicks)
	p.RaggedPeople, p.RaggedVisitors = append(p.RaggedPeople, sum.People), append(p.RaggedVisitors, sum.Visitors)
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
