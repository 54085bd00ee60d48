package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/queries"
)

// StatisticsQuery says which clicks are counted.
type StatisticsQuery struct {
	URLID int64 // of one link; 0 for all
	// UserID, Domain and Tag, of which at most one may be set, leave only clicks on links
	// that had that owner, domain or tag when they were clicked.
	UserID      int64
	Domain, Tag string
	// ShortCode stands for URLID: the link with that code on Domain, or on the main one.
	ShortCode string

	Time rollup.Request
	// Filters has the values of a dimension, separated by commas, each with a minus sign
	// in front of it if clicks with it do not count. A missing dimension is no filter.
	Filters map[rollup.Dimension]string
	// Breakdowns are the dimensions whose most frequent values are asked for with the
	// totals. Top is how many values of each.
	Breakdowns []rollup.Dimension
	Top        int
}

// Counts are numbers of clicks.
type Counts struct {
	Clicks   int64 `json:"clicks" example:"812" doc:"All clicks: those of people and of robots."`
	People   int64 `json:"people" example:"640" doc:"Clicks of the kind person."`
	Robots   int64 `json:"robots" example:"172" doc:"Clicks of all other kinds."`
	Visitors int64 `json:"visitors" example:"512" doc:"People, each counted once a day."`
}

// StatisticsRange is a range of time as it was understood.
type StatisticsRange struct {
	From     time.Time `json:"from" example:"2025-03-01T00:00:00+01:00"`
	To       time.Time `json:"to" example:"2025-04-01T00:00:00+02:00" doc:"Not part of the range."`
	TZ       string    `json:"tz" example:"Europe/Berlin"`
	Interval string    `json:"interval" enum:"15m,hour,day,week,month" example:"day"`
	// The range to compare with.
	PreviousFrom *time.Time `json:"previous_from,omitempty" doc:"Start of the range that was compared with."`
	PreviousTo   *time.Time `json:"previous_to,omitempty" doc:"End of the range that was compared with."`
}

// StatisticsBasis says what an answer rests on.
type StatisticsBasis struct {
	AsOf           time.Time `json:"as_of" doc:"Every click that was accepted before this time is in the answer."`
	Pending        int64     `json:"pending" example:"4" doc:"How many accepted clicks are not in the answer yet, wherever they belong."`
	VisitorsWindow string    `json:"visitors_window" enum:"day" example:"day" doc:"A visitor of two days counts twice."`
	VisitorsOf     string    `json:"visitors_of" enum:"scope,link" example:"link" doc:"scope: a visitor of two links counts once. link: twice."`
	Source         string    `json:"source" enum:"statistics,events" example:"statistics" doc:"events: single clicks were counted for this answer."`
}

// Bucket is one bucket of a series.
type Bucket struct {
	Start time.Time `json:"start" example:"2025-03-01T00:00:00+01:00"`
	Counts
}

// Statistics are counts of clicks over time.
type Statistics struct {
	Range      StatisticsRange           `json:"range"`
	Totals     Counts                    `json:"totals"`
	Previous   *Counts                   `json:"previous" doc:"Totals of the range to compare with; null without compare."`
	Series     []Bucket                  `json:"series" nullable:"false"`
	Breakdowns map[string][]BreakdownRow `json:"breakdowns,omitempty" doc:"The most frequent values of each dimension that breakdowns names."`
	// Imported clicks have no time, so that they belong to no range.
	ImportedClicks *int64 `json:"imported_clicks,omitempty" example:"1500" doc:"Of one link: clicks that another service had counted before the link was imported, in all. They have no time, and are in none of the other numbers."`
	StatisticsBasis
}

// BreakdownRow is the clicks with one value.
type BreakdownRow struct {
	Value string `json:"value" example:"DE" doc:"(none) if there is none. (other) for all values beyond the 200 that are told apart each day."`
	Counts
	Share    float64    `json:"share" example:"0.369" doc:"Part of all clicks of the answer, from 0 to 1."`
	Previous *Counts    `json:"previous" doc:"The same in the range to compare with; null without compare. A value may have clicks in that range only."`
	Link     *NamedLink `json:"link,omitempty" doc:"Of a link that was not deleted; its id is the value."`

	at BreakdownAt
}

// NamedLink is a link in a breakdown.
type NamedLink struct {
	ShortURL string  `json:"short_url" example:"https://sign.example/spring"`
	Title    *string `json:"title" example:"Spring sale"`
}

// BreakdownAt is a place in a breakdown.
type BreakdownAt struct {
	Rank  int64
	Value string
}

// At returns the place after the row.
func (r BreakdownRow) At() BreakdownAt { return r.at }

// Breakdown is a page of a breakdown.
type Breakdown struct {
	Rows     []BreakdownRow
	Range    StatisticsRange
	Totals   Counts
	Previous *Counts
	// Overlapping says that a click counts for several values, so that the rows are more
	// than the totals.
	Overlapping bool
	StatisticsBasis
}

// Names of breakdowns that are none of a dimension.
const (
	ByLinks   = "links"
	ByTags    = "tags"
	ByDomains = "domains"
)

// BreakdownPage says which rows of a breakdown are wanted.
type BreakdownPage struct {
	Of    string       // a dimension, links, tags or domains
	Sort  string       // clicks, people, visitors or value, with a minus sign for the most first; empty for -clicks
	After *BreakdownAt // nil for the first page
	Limit int
}

// none is the name of the empty value.
const none = "(none)"

// GetStatistics counts clicks over time.
func (s *Service) GetStatistics(ctx context.Context, actor Actor, in StatisticsQuery) (st Statistics, err error) {
	err = s.InSnapshot(ctx, actor, func(p *Snapshot) error {
		st, err = p.Statistics(in)
		return err
	})
	return st, err
}

// Statistics counts clicks over time.
func (p *Snapshot) Statistics(in StatisticsQuery) (st Statistics, err error) {
	err = p.count(in, func(c *counting) error {
		c.query.Breakdowns = in.Breakdowns
		got, err := c.read()
		if err != nil {
			return err
		}
		st = Statistics{
			Range: viewRange(c.query.Range), Totals: viewCounts(got.Totals), Previous: c.previous(got.Previous), StatisticsBasis: c.basis(got.FromEvents),
			Series: make([]Bucket, len(got.Series)), ImportedClicks: c.imported,
		}
		for i, start := range c.query.Range.Starts() {
			st.Series[i] = Bucket{start, viewCounts(got.Series[i])}
		}
		for of, values := range got.Breakdowns {
			if st.Breakdowns == nil {
				st.Breakdowns = map[string][]BreakdownRow{}
			}
			rows := c.rows(values, got.Totals, order{by: rollup.RankByClicks})
			st.Breakdowns[of.String()] = rows[:min(in.Top, len(rows))]
		}
		return nil
	})
	return st, err
}

// GetBreakdown counts the clicks with each value of a dimension, or of each link, tag or
// domain.
func (s *Service) GetBreakdown(ctx context.Context, actor Actor, in StatisticsQuery, page BreakdownPage) (b Breakdown, err error) {
	err = s.InSnapshot(ctx, actor, func(p *Snapshot) error {
		b, err = p.Breakdown(in, page)
		return err
	})
	return b, err
}

// Breakdown counts the clicks with each value of a dimension, or of each link, tag or
// domain.
func (p *Snapshot) Breakdown(in StatisticsQuery, page BreakdownPage) (Breakdown, error) {
	b, err := p.breakDown(in, page)
	if err == nil && page.Of == ByLinks {
		err = p.service.nameLinks(p.ctx, p.q, b.Rows)
	}
	return b, err
}

// breakDown is Breakdown without the names of links.
func (p *Snapshot) breakDown(in StatisticsQuery, page BreakdownPage) (b Breakdown, err error) {
	err = p.count(in, func(c *counting) error {
		o, err := parseSort(page.Sort)
		if err != nil {
			return err
		}
		c.query.Range = c.query.Range.Undivided()
		b, err = c.breakDown(page, o)
		return err
	})
	return b, err
}

// ExportSeries exports the series of statistics.
func (s *Service) ExportSeries(_ context.Context, actor Actor, in StatisticsQuery) (Export, error) {
	return Export{
		Kind: "statistics", Piece: math.MaxInt32, Header: []string{"start", "clicks", "people", "robots", "visitors"},
		Next: func(ctx context.Context, _ int32) ([]ExportRow, error) {
			st, err := s.GetStatistics(ctx, actor, in)
			return exportRows(st.Series), err
		},
	}, actor.Require(ReadsStatistics)
}

// exportRanked is how many rows of a breakdown an export reads at once. To read them by
// pieces would add all clicks up again for each.
const exportRanked = 50_000

// ExportBreakdown exports all rows of a breakdown, from the place in page on.
func (s *Service) ExportBreakdown(_ context.Context, actor Actor, in StatisticsQuery, page BreakdownPage) (Export, error) {
	header := []string{"value", "clicks", "people", "robots", "visitors", "share", "previous_clicks"}
	if page.Of == ByLinks {
		header = append(header, "short_url", "title")
	}
	var rows []BreakdownRow // that were read, and not returned yet
	last := false           // there are no more behind them
	return Export{
		Kind: "statistics", Piece: ExportPiece, Header: header,
		Next: func(ctx context.Context, limit int32) ([]ExportRow, error) {
			if len(rows) < int(limit) && !last {
				if page.Limit = exportRanked; limit < ExportPiece {
					page.Limit = int(limit)
				}
				var b Breakdown
				err := s.InSnapshot(ctx, actor, func(p *Snapshot) (err error) {
					b, err = p.breakDown(in, page)
					return err
				})
				if err != nil {
					return nil, err
				}
				if last = len(b.Rows) < page.Limit; len(b.Rows) > 0 {
					at := b.Rows[len(b.Rows)-1].At()
					page.After, rows = &at, append(rows, b.Rows...)
				}
			}
			piece := rows[:min(int(limit), len(rows))]
			if page.Of != ByLinks {
				rows = rows[len(piece):]
				return exportRows(piece), nil
			}
			if err := s.nameLinks(ctx, s.lists(), piece); err != nil {
				return nil, err
			}
			rows = rows[len(piece):]
			return views(piece, func(r BreakdownRow) ExportRow { return linkRow{r} }), nil
		},
	}, actor.Require(ReadsStatistics)
}

func (n Counts) cells(to []string) []string {
	return append(to, cellID(n.Clicks), cellID(n.People), cellID(n.Robots), cellID(n.Visitors))
}

// Cells implements ExportRow.
func (b Bucket) Cells(to []string) []string { return b.cells(append(to, b.Start.Format(time.RFC3339))) }

// Cells implements ExportRow.
func (r BreakdownRow) Cells(to []string) []string {
	previous := ""
	if r.Previous != nil {
		previous = cellID(r.Previous.Clicks)
	}
	return append(r.cells(append(to, cellText(r.Value))), strconv.FormatFloat(r.Share, 'f', -1, 64), previous)
}

// linkRow is a row of a breakdown by links.
type linkRow struct{ BreakdownRow }

// Cells implements ExportRow.
func (r linkRow) Cells(to []string) []string {
	shortURL, title := "", ""
	if r.Link != nil {
		shortURL = r.Link.ShortURL
		if r.Link.Title != nil {
			title = *r.Link.Title
		}
	}
	return append(r.BreakdownRow.Cells(to), cellText(shortURL), cellText(title))
}

func viewCounts(n rollup.Counts) Counts {
	return Counts{n.Clicks, n.People, n.Clicks - n.People, n.Visitors}
}

func viewRange(r rollup.Range) StatisticsRange {
	view := StatisticsRange{From: r.From, To: r.To, TZ: r.Zone().String(), Interval: string(r.Interval)}
	if r.Compared() {
		view.PreviousFrom, view.PreviousTo = &r.PreviousFrom, &r.PreviousTo
	}
	return view
}

// A Snapshot answers several questions from one state of the database, and as of one time,
// so that the answers agree with each other. It must not be used concurrently.
type Snapshot struct {
	service *Service
	ctx     context.Context
	actor   Actor
	q       *queries.Queries
	planned *queries.Queries // for queries whose filters make the plan
	now     time.Time
	fresh   rollup.Freshness
}

// InSnapshot calls do with a snapshot, which it may use until it returns. It must not ask the
// service anything meanwhile, since that would take a second connection.
func (s *Service) InSnapshot(ctx context.Context, actor Actor, do func(*Snapshot) error) error {
	if err := actor.Require(ReadsStatistics); err != nil {
		return err
	}
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return pgx.BeginTxFunc(ctx, s.Pool, options, func(tx pgx.Tx) (err error) {
		p := &Snapshot{service: s, ctx: ctx, actor: actor, q: queries.New(tx), planned: queries.New(queries.Planned{DBTX: tx}), now: time.Now()}
		if p.fresh, err = rollup.ReadFreshness(ctx, p.q); err != nil {
			return err
		}
		return do(p)
	})
}

// Link returns a link with its numbers.
func (p *Snapshot) Link(id int64) (Link, error) { return p.service.getLink(p.ctx, p.q, p.actor, id) }

// counting is the work of one question.
type counting struct {
	*Snapshot
	in     StatisticsQuery
	query  rollup.Query
	domain *int64 // the id of in.Domain

	imported *int64 // clicks that the link was imported with, nil if it is not one link
}

// count calls do with the query that in stands for.
func (p *Snapshot) count(in StatisticsQuery, do func(*counting) error) error {
	in.Time.Zone = cmp.Or(in.Time.Zone, p.service.TimeZone)
	if in.severalScopes() {
		return unanswerable("clicks of an owner, a tag and a domain are not counted together", "give only one of user_id, tag, and domain or short_code")
	}
	filter, err := parseFilters(in.Filters)
	if err != nil {
		return err
	}
	c := &counting{Snapshot: p, in: in, query: rollup.Query{UserID: in.UserID, Filter: filter}}
	if err := c.prepare(); err != nil {
		return err
	}
	return explain(do(c))
}

// severalScopes reports whether more than one of owner, tag, and domain or code is
// given.
func (q StatisticsQuery) severalScopes() bool {
	given := 0
	for _, set := range []bool{q.UserID != 0, q.Tag != "", q.Domain != "" || q.ShortCode != ""} {
		if set {
			given++
		}
	}
	return given > 1
}

// prepare finds the scope and the range of the query.
func (c *counting) prepare() error {
	known, err := c.findScope()
	if err != nil {
		return err
	}
	var extent rollup.Extent
	if c.in.Time.Range == "all" && known {
		days, err := c.q.RollupExtent(c.ctx, c.query.Scope)
		if err != nil {
			return fmt.Errorf("find first day: %w", err)
		}
		extent = rollup.Extent{First: days.FirstDay, Last: days.LastDay}
	}
	if c.query.Range, err = c.in.Time.Resolve(c.now, extent); err == nil {
		return nil
	}
	var found rollup.RequestErrors
	if !errors.As(err, &found) {
		return err
	}
	var faults Faults
	for _, f := range found {
		faults.Add(f.Field, f.Message)
	}
	return faults.Err()
}

// noScope is a scope without clicks.
const noScope = math.MinInt64

// findScope sets the scope of the query. It returns false if no click was ever counted
// for it.
func (c *counting) findScope() (known bool, err error) {
	var kind rollup.ScopeKind
	var name string
	if c.in.ShortCode != "" {
		if c.in.URLID, err = c.findLink(); err != nil {
			return false, err
		}
	}
	switch {
	case c.in.URLID != 0:
		c.query.Scope = c.in.URLID
		link, err := c.q.HasStatistics(c.ctx, c.in.URLID)
		if err == nil && !link.Known {
			err = NotFound("link")
		}
		c.imported = &link.ImportedClicks
		return link.Known, err
	case c.in.UserID != 0:
		kind, name = rollup.OwnerScope, strconv.FormatInt(c.in.UserID, 10)
	case c.in.Tag != "":
		kind, name = rollup.TagScope, c.in.Tag
	case c.in.Domain != "":
		id, _, err := c.service.findDomain(c.ctx, c.q, c.in.Domain)
		if err != nil {
			return false, err
		}
		c.domain = &id
		kind, name = rollup.DomainScope, strconv.FormatInt(id, 10)
	default:
		return true, nil
	}
	id, err := c.q.FindRollupScope(c.ctx, string(kind), name)
	if errors.Is(err, pgx.ErrNoRows) {
		c.query.Scope = noScope
		return false, nil
	}
	c.query.Scope = -id
	return true, err
}

// findLink returns the id of the link with the code that is asked for.
func (c *counting) findLink() (int64, error) {
	domain, _, err := c.service.findDomain(c.ctx, c.q, c.in.Domain)
	if err != nil {
		return 0, err
	}
	id, err := c.q.FindLink(c.ctx, domain, links.NormalCode(c.in.ShortCode))
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, NotFound("link")
	}
	return id, err
}

func (c *counting) read() (rollup.Statistics, error) {
	if c.query.NeedsEvents() {
		return rollup.Read(c.ctx, c.planned, c.query)
	}
	return rollup.Read(c.ctx, c.q, c.query)
}

// previous returns the counts of the range to compare with, nil if there is none.
func (c *counting) previous(n rollup.Counts) *Counts {
	if !c.query.Range.Compared() {
		return nil
	}
	view := viewCounts(n)
	return &view
}

func (c *counting) basis(fromEvents bool) StatisticsBasis {
	b := StatisticsBasis{AsOf: c.fresh.AsOf, Pending: c.fresh.Pending, VisitorsWindow: "day", VisitorsOf: "link", Source: "statistics"}
	if c.query.Scope == 0 {
		b.VisitorsOf = "scope"
	}
	if fromEvents {
		b.Source = "events"
	}
	return b
}

// breakDown returns a page of a breakdown.
func (c *counting) breakDown(page BreakdownPage, o order) (Breakdown, error) {
	if c.in.URLID != 0 && slices.Contains([]string{ByLinks, ByTags, ByDomains}, page.Of) {
		return Breakdown{}, NotFound("breakdown of a link")
	}
	switch page.Of {
	case ByLinks:
		return c.byLinks(page, o)
	case ByTags, ByDomains:
		return c.byScopes(page, o)
	}
	for _, of := range rollup.Dimensions() {
		if of.String() == page.Of {
			c.query.Breakdowns = []rollup.Dimension{of}
			got, err := c.read()
			return c.page(c.rows(got.Breakdowns[of], got.Totals, o), got, page, o), err
		}
	}
	return Breakdown{}, NotFound("breakdown")
}

// page returns a page of sorted rows.
func (c *counting) page(rows []BreakdownRow, got rollup.Statistics, page BreakdownPage, o order) Breakdown {
	if page.After != nil {
		after, found := slices.BinarySearchFunc(rows, *page.After, func(r BreakdownRow, at BreakdownAt) int { return o.compare(r.at, at) })
		if found {
			after++
		}
		rows = rows[after:]
	}
	return Breakdown{
		Rows: rows[:min(page.Limit, len(rows))], Range: viewRange(c.query.Range), Totals: viewCounts(got.Totals),
		Previous: c.previous(got.Previous), StatisticsBasis: c.basis(got.FromEvents),
	}
}

// rows returns the values of a breakdown that have clicks in one of the two ranges,
// sorted.
func (c *counting) rows(values rollup.Breakdown, totals rollup.Counts, o order) []BreakdownRow {
	rows := make([]BreakdownRow, 0, len(values))
	for value, n := range values {
		if n.Clicks > 0 || n.Previous.Clicks > 0 {
			rows = append(rows, c.row(cmp.Or(value, none), *n, totals, o))
		}
	}
	slices.SortFunc(rows, func(a, b BreakdownRow) int { return o.compare(a.at, b.at) })
	return rows
}

func (c *counting) row(value string, n rollup.Compared, totals rollup.Counts, o order) BreakdownRow {
	row := BreakdownRow{Value: value, Counts: viewCounts(n.Counts), Previous: c.previous(n.Previous), at: BreakdownAt{o.rank(n.Counts), value}}
	if totals.Clicks > 0 {
		row.Share = math.Round(1000*float64(n.Clicks)/float64(totals.Clicks)) / 1000
	}
	return row
}

// byLinks breaks down by links. With a filter by owner, domain or tag, these are the
// links that have it now, with all of their clicks, and the totals are theirs. Without one,
// the totals are those of all links together.
func (c *counting) byLinks(page BreakdownPage, o order) (Breakdown, error) {
	o.numbers = true
	if c.query.Links = true; c.query.NeedsEvents() {
		got, err := c.read()
		if err != nil {
			return Breakdown{}, err
		}
		maps.DeleteFunc(got.Links, func(_ string, n *rollup.Compared) bool { return n.Clicks == 0 })
		b := c.page(c.rows(got.Links, got.Totals, o), got, page, o)
		b.Previous, b.VisitorsOf = nil, "link"
		return b, nil
	}
	k := rollup.Ranking{Range: c.query.Range, Filter: c.query.Filter, By: o.by, Least: o.least, Limit: page.Limit, DomainID: c.domain}
	if c.in.UserID != 0 {
		k.UserID = &c.in.UserID
	}
	if c.in.Tag != "" {
		k.Tag = &c.in.Tag
	}
	if page.After != nil {
		scope, err := strconv.ParseInt(page.After.Value, 10, 64)
		if err != nil {
			return Breakdown{}, errBreakdownAt
		}
		k.After = &rollup.RankAt{Rank: page.After.Rank, Scope: scope}
	}
	ranked, totals, err := rollup.Rank(c.ctx, c.planned, k)
	if err != nil {
		return Breakdown{}, err
	}
	b := c.page(nil, rollup.Statistics{Totals: totals}, page, o)
	for _, r := range ranked {
		row := c.row(strconv.FormatInt(r.Scope, 10), r.Compared, totals, o)
		row.at.Rank = r.At.Rank
		b.Rows = append(b.Rows, row)
	}
	if b.Previous = nil; k.UserID != nil || k.DomainID != nil || k.Tag != nil {
		b.VisitorsOf = "link"
	}
	return b, nil
}

var errBreakdownAt = Invalid(FieldError{"cursor", "is not a cursor of this list"})

// nameLinks says of each row, whose value is the id of a link, which link that is.
func (s *Service) nameLinks(ctx context.Context, q *queries.Queries, rows []BreakdownRow) error {
	ids, place := make([]int64, 0, len(rows)), map[int64]int{}
	for i, row := range rows {
		id, err := strconv.ParseInt(row.Value, 10, 64)
		if err != nil {
			return fmt.Errorf("link of a breakdown: %w", err)
		}
		ids, place[id] = append(ids, id), i
	}
	found, err := q.NameLinks(ctx, ids)
	if err != nil {
		return fmt.Errorf("name links: %w", err)
	}
	for _, l := range found {
		rows[place[l.ID]].Link = &NamedLink{s.ShortURL(l.Host, l.ShortCode), l.Title}
	}
	return nil
}

// byScopes breaks down by tags or domains. A click counts for each tag of its link;
// without a domain are clicks on links that were deleted before they were counted.
func (c *counting) byScopes(page BreakdownPage, o order) (Breakdown, error) {
	if c.query.Scope != 0 {
		return Breakdown{}, unanswerable("tags and domains are counted for all links only", "leave out user_id, tag and domain")
	}
	if c.query.Links = true; c.query.NeedsEvents() { // as for links, only people and robots are told apart
		return Breakdown{}, unanswerable("clicks of tags and domains are counted by people and robots only", "leave out all filters but kind=person or kind=-person")
	}
	c.query.Links = false
	of := rollup.TagScope
	if page.Of == ByDomains {
		of = rollup.DomainScope
	}
	got, err := c.read()
	if err != nil {
		return Breakdown{}, err
	}
	counts, err := rollup.CountScopes(c.ctx, c.planned, of, c.query.Range, c.query.Filter)
	if err != nil {
		return Breakdown{}, err
	}
	values, err := c.nameScopes(of, counts)
	if err != nil {
		return Breakdown{}, err
	}
	if of == rollup.DomainScope {
		rest := rollup.Compared{Counts: got.Totals, Previous: got.Previous}
		for _, n := range values {
			rest.Counts, rest.Previous = rest.Minus(n.Counts), rest.Previous.Minus(n.Previous)
		}
		rest.Visitors, rest.Previous.Visitors = max(rest.Visitors, 0), max(rest.Previous.Visitors, 0)
		values[""] = &rest
	}
	b := c.page(c.rows(values, got.Totals, o), got, page, o)
	b.Overlapping = of == rollup.TagScope
	b.VisitorsOf = "link"
	return b, nil
}

// nameScopes returns the counts of scopes by their names.
func (c *counting) nameScopes(of rollup.ScopeKind, counts map[int64]*rollup.Compared) (rollup.Breakdown, error) {
	ids := make([]int64, 0, len(counts))
	for scope := range counts {
		ids = append(ids, -scope)
	}
	scopes, err := c.q.NameScopes(c.ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("name scopes: %w", err)
	}
	values := rollup.Breakdown{}
	for _, scope := range scopes {
		name := scope.Name
		if of == rollup.DomainScope {
			name = c.service.hostOf(scope.Host)
		}
		values[name] = counts[-scope.ID]
	}
	return values, nil
}

// order is the order of a breakdown.
type order struct {
	by      rollup.RankBy
	least   bool
	numbers bool // the values are positive numbers
}

func parseSort(text string) (order, error) {
	by, most := strings.CutPrefix(cmp.Or(text, "-clicks"), "-")
	switch o := (order{by: rollup.RankBy(by), least: !most}); o.by {
	case rollup.RankByClicks, rollup.RankByPeople, rollup.RankByVisitors, rollup.RankByValue:
		return o, nil
	}
	return order{}, Invalid(FieldError{"sort", "must be clicks, people, visitors or value, with a minus sign for the other direction"})
}

// rank returns the number by which a row is sorted, the greatest first.
func (o order) rank(n rollup.Counts) (rank int64) {
	switch o.by {
	case rollup.RankByClicks:
		rank = n.Clicks
	case rollup.RankByPeople:
		rank = n.People
	case rollup.RankByVisitors:
		rank = n.Visitors
	}
	if o.least {
		return -rank
	}
	return rank
}

func (o order) compare(a, b BreakdownAt) int {
	byValue := cmp.Compare(a.Value, b.Value)
	if o.numbers {
		byValue = cmp.Or(cmp.Compare(len(a.Value), len(b.Value)), byValue)
	}
	if o.by == rollup.RankByValue && !o.least {
		return -byValue
	}
	return cmp.Or(cmp.Compare(b.Rank, a.Rank), byValue)
}

// maxNames is how many values a filter may have.
const maxNames = 100

// parseFilters reads the filters of a query.
func parseFilters(texts map[rollup.Dimension]string) (rollup.Filter, error) {
	filter, faults := rollup.Filter{}, Faults{}
	for _, of := range rollup.Dimensions() {
		text, ok := texts[of]
		if !ok {
			continue
		}
		values, message := parseValues(of, text)
		if message != "" {
			faults.Add(of.One(), message)
			continue
		}
		filter[of] = values
	}
	return filter, faults.Err()
}

// parseValues reads one filter. The message is "" if it is sound.
func parseValues(of rollup.Dimension, text string) (values rollup.Values, message string) {
	for i, name := range strings.Split(text, ",") {
		name, not := strings.CutPrefix(strings.TrimSpace(name), "-")
		switch {
		case name == "":
			return values, "must be values separated by commas; (none) stands for clicks without one"
		case i == maxNames:
			return values, fmt.Sprintf("must be at most %d values", maxNames)
		case i > 0 && not != values.Not:
			return values, "must either name values, or exclude all that it names with a minus sign"
		case of == rollup.Kind && !slices.Contains(rollup.Kinds(), name):
			return values, "must be of " + strings.Join(rollup.Kinds(), ", ")
		case name == none:
			name = ""
		case of == rollup.Country && name != rollup.Other:
			name = strings.ToUpper(name)
		}
		values.Names, values.Not = append(values.Names, strings.Clone(name)), not
	}
	return values, ""
}

// unanswerable returns the error that the numbers cannot be told, or not at a bearable
// cost, and the advice what to ask instead.
func unanswerable(message, hint string) *Error {
	return &Error{Kind: KindUnanswerable, Message: message, Hint: hint}
}

// explain turns errors of package rollup into ones for users.
func explain(err error) error {
	var many *rollup.TooManyEventsError
	var archived *rollup.ArchivedEventsError
	switch {
	case errors.Is(err, rollup.ErrNoEventsOfScope):
		return unanswerable("several properties of the clicks on links of a domain or tag cannot be counted together",
			"leave out a filter, or ask for one link or for all")
	case errors.Is(err, rollup.ErrNoOtherOfEvents):
		return unanswerable("(other) is counted by statistics only, and this would have to read single clicks",
			"leave out (other), or every other filter and breakdown")
	case errors.As(err, &many):
		return unanswerable(fmt.Sprintf("this would have to read more than %d single clicks, once for each breakdown", many.Limit),
			"ask for a shorter range, or leave out a filter or a breakdown")
	case errors.As(err, &archived):
		return unanswerable("this would have to read single clicks, and those of "+archived.Month.Format("January 2006")+" are not in the database any more",
			"ask for a later range, or leave out a filter")
	}
	return err
}
