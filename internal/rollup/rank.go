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

	// candidates is how many links are counted exactly at most, to find the first ones
	// without counting all; 0 means 2000.
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

// Rank returns the first links of a ranking behind a place in it, and the totals: of all
// links, with each visitor counted once, or the sums of those that an owner, a domain or a
// tag has left. The latter are zero if there is no link behind the place.
func Rank(ctx context.Context, q *queries.Queries, ranking Ranking) ([]Ranked, Counts, error) {
	rows, totals, err := ranking.first(ctx, q)
	if err != nil || len(rows) == 0 {
		return nil, totals, err
	}
	ranked, scopes, place := make([]Ranked, len(rows)), make([]int64, len(rows)), map[int64]int{}
	for i, row := range rows {
		ranked[i] = Ranked{row.Scope, Compared{Counts: Counts{row.Clicks, row.People, row.Visitors}}, RankAt{row.Rank, row.Scope}}
		scopes[i], place[row.Scope] = row.Scope, i
	}
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

// first returns the first links, and the totals.
func (k Ranking) first(ctx context.Context, q *queries.Queries) (rows []queries.RankScopesRow, totals Counts, err error) {
	if k.UserID != nil || k.DomainID != nil || k.Tag != nil {
		if rows, err = k.read(ctx, q, k.Range, nil); len(rows) > 0 {
			totals = Counts{rows[0].TotalClicks, rows[0].TotalPeople, rows[0].TotalVisitors}
		}
		return rows, totals, err
	}
	all, err := Read(ctx, q, Query{Range: oneBucket(k.Range.From, k.Range.To), Filter: k.Filter})
	if err != nil {
		return nil, Counts{}, err
	}
	if !k.Least && k.After == nil && k.By != RankByValue {
		if rows, err = k.readBusiest(ctx, q); rows != nil || err != nil {
			return rows, all.Totals, err
		}
	}
	rows, err = k.read(ctx, q, k.Range, nil)
	return rows, all.Totals, err
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
	rows, err := q.RankScopes(ctx, p)
	return rows, wrap("rank scopes", err)
}

// readBusiest ranks the busiest of all links without adding up the days of every link. The
// classes of a link's days tell how many clicks it may have at most: once it is known how
// many the last place takes, few links are left that may have as many. It returns nil if it
// cannot tell which they are.
func (k Ranking) readBusiest(ctx context.Context, q *queries.Queries) ([]queries.RankScopesRow, error) {
	if k.Range.empty() {
		return nil, nil
	}
	from, to := k.Range.days()
	most := cmp.Or(k.candidates, 2000)
	busy, err := q.ListBusyLinks(ctx, queries.ListBusyLinksParams{LastClass: lastClass, FromDay: from, ToDay: to, RowLimit: int32(most)})
	if err != nil {
		return nil, fmt.Errorf("list busy links: %w", err)
	}
	scopes := make([]int64, len(busy))
	for i, b := range busy {
		scopes[i] = b.Scope
	}
	counted := min(2*k.Limit, len(busy))
	rows, err := k.read(ctx, q, k.Range, scopes[:counted])
	if err != nil || len(rows) < k.Limit {
		return nil, err
	}
	// A link without a busy day, or beyond the candidates, must not have as many as the last
	// place.
	quiet := int64(to.Sub(from)/(24*time.Hour)) * mostOfClass(0)
	beyond := rows[k.Limit-1].Rank - quiet
	if beyond <= 0 || len(busy) == most && busy[most-1].Beyond >= beyond {
		return nil, nil
	}
	candidates := counted
	for candidates < len(busy) && busy[candidates].Beyond >= beyond {
		candidates++
	}
	if candidates == counted {
		return rows, nil
	}
	return k.read(ctx, q, k.Range, scopes[:candidates])
}

// The column busy of rollups is the class of a day: 0 below 4 clicks, and another one from
// each power of two on. The last one has no bound.
const lastClass = 16

// mostOfClass returns the most clicks that a day of a class other than the last can have.
func mostOfClass(class int) int64 { return 4<<class - 1 }

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
