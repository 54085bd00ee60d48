package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
	"github.com/gofiber/fiber/v2"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/internal/service"
)

// StatsInput are the parameters of all statistics. It is exported for Huma, like
// PageInput, and its Resolve must be called too.
type StatsInput struct {
	Range     string `query:"range" enum:"today,yesterday,24h,7d,30d,90d,12mo,mtd,ytd,all" doc:"Days of the zone up to now; 30d if neither range nor from is given. mtd and ytd begin with the month and the year."`
	From      string `query:"from" example:"2025-03-01" doc:"Start, in place of range: a date, which is its midnight in the zone, or a time in RFC 3339. Rounded down to a quarter of an hour."`
	To        string `query:"to" example:"2025-04-01" doc:"End, which is not part of the range; now if not given. Rounded up to a quarter of an hour."`
	TZ        string `query:"tz" example:"Europe/Berlin" doc:"The time zone, by its IANA name; TIME_ZONE of the server if not given."`
	Interval  string `query:"interval" enum:"auto,15m,hour,day,week,month" doc:"The length of the buckets of a series; auto if not given."`
	WeekStart string `query:"week_start" enum:"monday,sunday" doc:"monday if not given."`
	Compare   string `query:"compare" enum:"previous,year" doc:"previous compares with the range before this one, year with the same range a year before."`

	Kind     string `query:"kind" example:"person" doc:"Only clicks of these kinds, separated by commas; with a minus sign before each, all others. The same holds for the next six."`
	Country  string `query:"country" example:"DE,AT"`
	Referrer string `query:"referrer" example:"-news.example"`
	Browser  string `query:"browser" example:"Firefox"`
	System   string `query:"system" example:"Android"`
	Device   string `query:"device" example:"mobile"`
	Trigger  string `query:"trigger" example:"qr"`

	Format      string `query:"format" enum:"json,csv,ndjson" doc:"csv or ndjson answer with the rows alone, as a file; goes before the header Accept."`
	IfNoneMatch string `header:"If-None-Match" doc:"The ETag of an earlier answer. If nothing but as_of and pending has changed since, the answer is 304."`

	accept exportFormat // the format that the header Accept prefers
}

// Resolve implements huma.Resolver.
func (in *StatsInput) Resolve(h huma.Context) []error {
	in.accept = preferredFormat([]byte(h.Header(fiber.HeaderAccept)))
	var errs []error
	for of, text := range in.filters() {
		errs = append(errs, checkText(of.One(), text, maxFilter)...)
	}
	return errs
}

// maxFilter is how long the values of a filter may be together, in characters.
const maxFilter = 4096

func (in *StatsInput) asStats() *StatsInput { return in }

func (in *StatsInput) format() exportFormat {
	if in.Format != "" {
		return exportFormat(strings.Clone(in.Format))
	}
	return in.accept
}

// filters returns the filters that are set.
func (in *StatsInput) filters() map[rollup.Dimension]string {
	set := map[rollup.Dimension]string{
		rollup.Kind: in.Kind, rollup.Country: in.Country, rollup.Referrer: in.Referrer, rollup.Browser: in.Browser,
		rollup.System: in.System, rollup.Device: in.Device, rollup.Trigger: in.Trigger,
	}
	for of, text := range set {
		if set[of] = strings.Clone(text); text == "" {
			delete(set, of)
		}
	}
	return set
}

// query returns what is asked for. It shares no memory with the request.
func (in *StatsInput) query() service.StatisticsQuery {
	return service.StatisticsQuery{
		Time: rollup.Request{
			Range: strings.Clone(in.Range), From: strings.Clone(in.From), To: strings.Clone(in.To), Zone: strings.Clone(in.TZ),
			Interval: strings.Clone(in.Interval), WeekStart: strings.Clone(in.WeekStart), Compare: strings.Clone(in.Compare),
		},
		Filters: in.filters(),
	}
}

// AllStatsInput are the parameters of statistics of all links. It is exported for Huma,
// like PageInput.
type AllStatsInput struct {
	StatsInput
	UserID int64  `query:"user_id" minimum:"1" doc:"Only clicks on links of this user. At most one of user_id, tag, and domain or short_code may be given."`
	Tag    string `query:"tag" doc:"Only clicks on links that had this tag when their clicks of the day began to be counted."`
	Domain string `query:"domain" doc:"Only clicks on links of the domain with this host."`
	// ShortCode serves clients that know a short link, and not its id.
	ShortCode string `query:"short_code" example:"spring" doc:"Only clicks on the link with this code, on the domain that domain names, or on the main one."`
}

// Resolve implements huma.Resolver.
func (in *AllStatsInput) Resolve(h huma.Context) []error {
	return slices.Concat(in.StatsInput.Resolve(h), checkText("tag", in.Tag, links.MaxTag), checkText("domain", in.Domain, links.MaxHost),
		checkText("short_code", in.ShortCode, links.MaxCode))
}

func (in *AllStatsInput) query() service.StatisticsQuery {
	q := in.StatsInput.query()
	q.UserID, q.Tag, q.Domain, q.ShortCode = in.UserID, strings.Clone(in.Tag), strings.Clone(in.Domain), strings.Clone(in.ShortCode)
	return q
}

// LinkStatsInput are the parameters of statistics of a link. It is exported for Huma,
// like PageInput.
type LinkStatsInput struct {
	IDInput
	StatsInput
}

// Resolve implements huma.Resolver.
func (in *LinkStatsInput) Resolve(h huma.Context) []error { return in.StatsInput.Resolve(h) }

func (in *LinkStatsInput) query() service.StatisticsQuery {
	q := in.StatsInput.query()
	q.URLID = in.ID
	return q
}

// TopInput are the parameters of breakdowns beside a series. It is exported for Huma,
// like PageInput.
type TopInput struct {
	Breakdowns []string `query:"breakdowns" enum:"kinds,countries,referrers,browsers,systems,devices,triggers" doc:"Dimensions whose most frequent values are to be in the answer."`
	Top        int      `query:"top" minimum:"1" maximum:"200" doc:"How many values of each of these; 10 if not given."`
}

func (in *TopInput) addTo(q service.StatisticsQuery) service.StatisticsQuery {
	q.Top = cmp.Or(in.Top, 10)
	for _, of := range rollup.Dimensions() {
		if slices.Contains(in.Breakdowns, of.String()) {
			q.Breakdowns = append(q.Breakdowns, of)
		}
	}
	return q
}

// RowsInput are the parameters of a breakdown. It is exported for Huma, like PageInput.
type RowsInput struct {
	Dimension string `path:"dimension" example:"countries" doc:"kinds, countries, referrers, browsers, systems, devices or triggers; of all links also links, tags or domains."`
	Limit     int    `query:"limit" minimum:"1" maximum:"100" doc:"How many rows to return at most; 20 if not given, and all in a file."`
	Cursor    string `query:"cursor" doc:"next_cursor of the page before this one."`
	Sort      string `query:"sort" enum:"-clicks,clicks,-people,people,-visitors,visitors,value,-value" doc:"-clicks if not given: the most clicks first."`
}

func (in *RowsInput) asRows() *RowsInput { return in }

// page returns the part of the breakdown that is asked for.
func (in *RowsInput) page() (service.BreakdownPage, error) {
	page := service.BreakdownPage{Of: strings.Clone(in.Dimension), Sort: strings.Clone(in.Sort), Limit: cmp.Or(in.Limit, defaultLimit)}
	if in.Cursor == "" {
		return page, nil
	}
	sort, at, ok := parseBreakdownCursor(in.Cursor, page.Of)
	switch {
	case !ok:
		return page, errCursor
	case page.Sort != "" && page.Sort != sort:
		return page, invalid("cursor", "is of the list in another order")
	}
	page.Sort, page.After = sort, &at
	return page, nil
}

// maxBreakdownCursor bounds the cursor of a breakdown, which holds a value.
const maxBreakdownCursor = 1024

// makeBreakdownCursor returns the cursor for a place in a breakdown.
func makeBreakdownCursor(page service.BreakdownPage, at service.BreakdownAt) string {
	text := strings.Join([]string{"stats", page.Of, cmp.Or(page.Sort, "-clicks"), strconv.FormatInt(at.Rank, 10), at.Value}, ":")
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

func parseBreakdownCursor(cursor, of string) (sort string, at service.BreakdownAt, ok bool) {
	if len(cursor) > maxBreakdownCursor {
		return "", at, false
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return "", at, false
	}
	parts := strings.SplitN(string(text), ":", 5)
	if len(parts) != 5 || parts[0] != "stats" || parts[1] != of {
		return "", at, false
	}
	at.Rank, err = strconv.ParseInt(parts[3], 10, 64)
	at.Value = parts[4]
	return parts[2], at, err == nil
}

type (
	allStatsInput struct {
		AllStatsInput
		TopInput
	}
	linkStatsInput struct {
		LinkStatsInput
		TopInput
	}
	allRowsInput struct {
		AllStatsInput
		RowsInput
	}
	linkRowsInput struct {
		LinkStatsInput
		RowsInput
	}
)

// Statistics are counts of clicks over time. They have this name in the API.
type Statistics service.Statistics

// Breakdown is a page of a breakdown.
type Breakdown struct {
	Data        []service.BreakdownRow  `json:"data" nullable:"false" doc:"The rows of this page."`
	Count       int                     `json:"count" doc:"How many rows this page has."`
	NextCursor  *string                 `json:"next_cursor" doc:"Cursor of the next page; null if this is the last."`
	Range       service.StatisticsRange `json:"range"`
	Totals      service.Counts          `json:"totals" doc:"Of all rows together, those of further pages included."`
	Previous    *service.Counts         `json:"previous" doc:"Totals of the range to compare with; null without compare, and of links."`
	Overlapping bool                    `json:"overlapping,omitempty" doc:"True of tags: a click counts once for each tag of its link, so that rows may add up to more than the totals, or less."`
	service.StatisticsBasis
}

// settled returns the answer without what changes though nothing was clicked.
func (s Statistics) settled() any {
	s.AsOf, s.Pending = s.Range.From, 0
	return s
}

func (b Breakdown) settled() any {
	b.AsOf, b.Pending = b.Range.From, 0
	return b
}

func (a *API) allStats(ctx context.Context, in *allStatsInput) (Statistics, error) {
	st, err := a.service.GetStatistics(ctx, actorIn(ctx), in.addTo(in.query()))
	return Statistics(st), err
}

func (a *API) linkStats(ctx context.Context, in *linkStatsInput) (Statistics, error) {
	st, err := a.service.GetStatistics(ctx, actorIn(ctx), in.addTo(in.query()))
	return Statistics(st), err
}

func (a *API) exportAllStats(ctx context.Context, in *allStatsInput) (service.Export, error) {
	return a.service.ExportSeries(ctx, actorIn(ctx), in.query())
}

func (a *API) exportLinkStats(ctx context.Context, in *linkStatsInput) (service.Export, error) {
	return a.service.ExportSeries(ctx, actorIn(ctx), in.query())
}

func (a *API) allRows(ctx context.Context, in *allRowsInput) (Breakdown, error) {
	return a.breakdown(ctx, in.query(), &in.RowsInput)
}

func (a *API) linkRows(ctx context.Context, in *linkRowsInput) (Breakdown, error) {
	return a.breakdown(ctx, in.query(), &in.RowsInput)
}

func (a *API) exportAllRows(ctx context.Context, in *allRowsInput) (service.Export, error) {
	return a.exportRows(ctx, in.query(), &in.RowsInput)
}

func (a *API) exportLinkRows(ctx context.Context, in *linkRowsInput) (service.Export, error) {
	return a.exportRows(ctx, in.query(), &in.RowsInput)
}

func (a *API) breakdown(ctx context.Context, q service.StatisticsQuery, in *RowsInput) (Breakdown, error) {
	page, err := in.page()
	if err != nil {
		return Breakdown{}, err
	}
	page.Limit++ // to find out whether there is a next page
	b, err := a.service.GetBreakdown(ctx, actorIn(ctx), q, page)
	if err != nil {
		return Breakdown{}, err
	}
	page.Limit--
	out := Breakdown{
		Data:  append([]service.BreakdownRow{}, b.Rows[:min(page.Limit, len(b.Rows))]...), // never null
		Range: b.Range, Totals: b.Totals, Previous: b.Previous,
		Overlapping: b.Overlapping, StatisticsBasis: b.StatisticsBasis,
	}
	out.Count = len(out.Data)
	if out.Count < len(b.Rows) {
		next := makeBreakdownCursor(page, out.Data[out.Count-1].At())
		out.NextCursor = &next
	}
	return out, nil
}

func (a *API) exportRows(ctx context.Context, q service.StatisticsQuery, in *RowsInput) (service.Export, error) {
	page, err := in.page()
	if err != nil {
		return service.Export{}, err
	}
	return a.service.ExportBreakdown(ctx, actorIn(ctx), q, page)
}

// rowsWanted returns how many rows a file should have.
func rowsWanted(in any) int64 {
	if rows, ok := in.(interface{ asRows() *RowsInput }); ok && rows.asRows().Limit > 0 {
		return int64(rows.asRows().Limit)
	}
	return everyRow
}

// manageStats registers a route of statistics, whose answer is JSON or a file of its
// rows.
func manageStats[I any, T interface{ settled() any }, P interface {
	*I
	asStats() *StatsInput
}](a *API, r route, row reflect.Type,
	get func(context.Context, *I) (T, error), export func(context.Context, *I) (service.Export, error),
) {
	op := a.operation(r)
	op.Errors = append(op.Errors, http.StatusUnprocessableEntity)
	get = listing(a, get)
	schemas := a.huma.OpenAPI().Components.Schemas
	op.Responses = map[string]*huma.Response{
		"200": {
			Description: http.StatusText(http.StatusOK),
			Content: map[string]*huma.MediaType{
				fiber.MIMEApplicationJSON: {Schema: schemas.Schema(reflect.TypeFor[T](), true, reflect.TypeFor[T]().Name())},
				mimeCSV:                   {Schema: &huma.Schema{Type: huma.TypeString, Description: "A header and a line for each row."}},
				mimeNDJSON:                {Schema: schemas.Schema(row, true, row.Name())},
			},
			Headers: map[string]*huma.Param{fiber.HeaderETag: {
				Description: "Changes when anything of a JSON answer but as_of and pending does.", Schema: &huma.Schema{Type: huma.TypeString},
			}},
		},
		"304": {Description: "Nothing but as_of and pending has changed since the answer that If-None-Match names."},
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		params := P(in).asStats()
		if format := params.format(); format != formatJSON {
			source, err := export(ctx, in)
			if err != nil {
				return nil, answerable(a.Log, requestIDOf(ctx), err)
			}
			return &huma.StreamResponse{Body: func(h huma.Context) { a.export(humafiber.Unwrap(h), source, format, rowsWanted(in)) }}, nil
		}
		out, err := get(ctx, in)
		if err != nil {
			return nil, answerable(a.Log, requestIDOf(ctx), err)
		}
		return &huma.StreamResponse{Body: func(h huma.Context) { a.writeStats(humafiber.Unwrap(h), out, params.IfNoneMatch) }}, nil
	})
}

// writeStats answers with statistics, or with 304 if the client has them. The tag is a
// weak one, since answers with the same tag may differ in as_of and pending.
func (a *API) writeStats(c *fiber.Ctx, out interface{ settled() any }, known string) {
	settled, err := json.Marshal(out.settled())
	if err != nil {
		_ = a.fail(c, fmt.Errorf("encode statistics: %w", err)) // never fails
		return
	}
	sum := sha256.Sum256(settled)
	tag := `W/"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	c.Set(fiber.HeaderETag, tag)
	c.Set(fiber.HeaderCacheControl, "private, no-cache") // may be kept, and has to be asked for
	if hasTag(known, tag) {
		c.Vary(fiber.HeaderAccept)
		c.Status(http.StatusNotModified)
		return
	}
	a.writeList(c, out)
}

// hasTag reports whether an If-None-Match header names the tag; * names every one.
func hasTag(header, tag string) bool {
	for named := range bytes.SplitSeq([]byte(header), []byte(",")) {
		named := strings.TrimSpace(string(named))
		if named == "*" || strings.TrimPrefix(named, "W/") == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}
