package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/queries"
)

// clicked stores clicks and counts them.
func (b *bundle) clicked(events ...rollup.Event) {
	b.t.Helper()
	var changes rollup.Changes
	var times []time.Time
	for _, e := range events {
		times = append(times, e.At)
	}
	require.NoError(b.t, postgres.EnsurePartitions(b.t.Context(), b.pool, times))
	for _, e := range events {
		firsts := 0
		if e.First {
			firsts |= 1
		}
		if e.FirstOfAll {
			firsts |= 2
		}
		b.exec(`INSERT INTO events (occurred_at, url_id, user_id, event_type, kind, bot, country, referrer_host, browser, os, device, trigger, firsts)
			VALUES ($1, $2, $3, 'clicked', $4, $4 <> 'person', NULLIF($5, ''), NULLIF($6, ''), NULLIF($7, ''), NULLIF($8, ''), NULLIF($9, ''), NULLIF($10, ''), $11)`,
			e.At, e.URLID, e.UserID, e.Kind, e.Country, e.Referrer, e.Browser, e.System, e.Device, e.Trigger, firsts)
		changes.Add(e)
	}
	require.NoError(b.t, changes.Apply(b.t.Context(), queries.New(b.pool)))
	require.NoError(b.t, rollup.Fold(b.t.Context(), b.pool))
}

// statsSetup starts an API with two users, three links and clicks on the last Sunday of
// March 2025, on which Berlin's clocks changed, and on the day before.
func statsSetup(t *testing.T) *bundle {
	t.Helper()
	b := setup(t)
	b.exec("INSERT INTO users (id, username, email) VALUES (71, 'ann', 'ann@example.com'), (72, 'bob', 'bob@example.com')")
	b.exec("INSERT INTO domains (id, host) OVERRIDING SYSTEM VALUE VALUES (5, 'go.example')")
	b.exec(`INSERT INTO urls (id, user_id, domain_id, short_code, original_url, title, tags) VALUES
		(101, 71, 1, 'one', 'https://example.com', 'First', '{sale,spring}'),
		(102, 71, 5, 'two', 'https://example.com', NULL, '{sale}'),
		(103, 72, 1, 'three', 'https://example.com', NULL, '{}')`)
	at := func(text string) time.Time {
		when, err := time.Parse(time.RFC3339, text)
		require.NoError(t, err)
		return when
	}
	b.clicked(
		rollup.Event{URLID: 101, UserID: 71, At: at("2025-03-29T22:59:59Z"), Kind: "person", Country: "DE", Browser: "Firefox", First: true, FirstOfAll: true},
		rollup.Event{URLID: 101, UserID: 71, At: at("2025-03-29T23:00:00Z"), Kind: "person", Country: "DE", Browser: "Firefox", Referrer: "news.example"},
		rollup.Event{URLID: 101, UserID: 71, At: at("2025-03-30T01:00:00Z"), Kind: "bot", Country: "US", Browser: "Googlebot"},
		rollup.Event{URLID: 101, UserID: 71, At: at("2025-03-30T21:59:59Z"), Kind: "person", Country: "AT", Browser: "Chrome", First: true, FirstOfAll: true},
		rollup.Event{URLID: 101, UserID: 71, At: at("2025-03-30T22:00:00Z"), Kind: "person", First: true, FirstOfAll: true},
		rollup.Event{URLID: 102, UserID: 71, At: at("2025-03-30T12:00:00Z"), Kind: "preview", Country: "DE"},
		rollup.Event{URLID: 102, UserID: 71, At: at("2025-03-30T12:20:00Z"), Kind: "person", Country: "DE", First: true},
		rollup.Event{URLID: 103, UserID: 72, At: at("2025-03-30T12:40:00Z"), Kind: "person", Country: "DE", First: true},
	)
	return b
}

// sunday is the day of 23 hours, as parameters.
const sunday = "from=2025-03-30&to=2025-03-31&tz=Europe/Berlin"

// without returns an answer as JSON, without what depends on the present.
func without(t *testing.T, a answer) string {
	t.Helper()
	asOf, err := time.Parse(time.RFC3339, fmt.Sprint(a.body["as_of"]))
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now(), asOf, time.Minute)
	assert.Equal(t, time.UTC, asOf.Location())
	delete(a.body, "as_of")
	text, err := json.Marshal(a.body)
	require.NoError(t, err)
	return string(text)
}

// Answers from one snapshot agree with each other, whatever is counted meanwhile.
func TestSnapshotOfStatistics(t *testing.T) {
	t.Parallel()
	b := statsSetup(t)
	reader, q := Actor{Role: RoleReader}, service.StatisticsQuery{URLID: 103, Time: rollup.Request{Range: "all"}}
	err := b.api.service.InSnapshot(t.Context(), reader, func(s *service.Snapshot) error {
		first, err := s.Statistics(q)
		require.NoError(t, err)
		assert.Equal(t, int64(1), first.Totals.Clicks)
		b.clicked(rollup.Event{URLID: 103, UserID: 72, At: time.Date(2025, 3, 30, 12, 50, 0, 0, time.UTC), Kind: "person"})
		again, err := s.Statistics(q)
		require.NoError(t, err)
		assert.Equal(t, first, again)
		link, err := s.Link(103)
		require.NoError(t, err)
		assert.Equal(t, int64(1), link.Clicks)
		links, err := s.Breakdown(service.StatisticsQuery{Time: q.Time}, service.BreakdownPage{Of: service.ByLinks, Limit: 10})
		require.NoError(t, err)
		assert.Equal(t, int64(8), links.Totals.Clicks)
		assert.Equal(t, first.Range.To, links.Range.To)
		return nil
	})
	require.NoError(t, err)
	after, err := b.api.service.GetStatistics(t.Context(), reader, q)
	require.NoError(t, err)
	assert.Equal(t, int64(2), after.Totals.Clicks)
}

func TestStatisticsOfLink(t *testing.T) {
	t.Parallel()
	b := statsSetup(t)
	a := b.want(200, RoleReader, "GET", "/urls/101/stats?from=2025-03-29&to=2025-04-01&tz=Europe/Berlin&compare=previous", nil)
	assert.JSONEq(t, `{
		"range": {"from": "2025-03-29T00:00:00+01:00", "to": "2025-04-01T00:00:00+02:00", "tz": "Europe/Berlin", "interval": "day",
			"previous_from": "2025-03-26T00:00:00+01:00", "previous_to": "2025-03-29T00:00:00+01:00"},
		"totals": {"clicks": 5, "people": 4, "robots": 1, "visitors": 3},
		"previous": {"clicks": 0, "people": 0, "robots": 0, "visitors": 0},
		"series": [
			{"start": "2025-03-29T00:00:00+01:00", "clicks": 1, "people": 1, "robots": 0, "visitors": 1},
			{"start": "2025-03-30T00:00:00+01:00", "clicks": 3, "people": 2, "robots": 1, "visitors": 1},
			{"start": "2025-03-31T00:00:00+02:00", "clicks": 1, "people": 1, "robots": 0, "visitors": 1}
		],
		"imported_clicks": 0, "pending": 0, "visitors_window": "day", "visitors_of": "link", "source": "statistics"
	}`, without(t, a))

	// Clicks that another service had counted are told apart.
	b.exec("UPDATE urls SET imported_clicks = 1500 WHERE id = 101")
	for _, path := range []string{"/urls/101/stats?", "/stats?short_code=one&"} {
		a = b.want(200, RoleReader, "GET", path+sunday, nil)
		assert.Equal(t, 1500.0, a.body["imported_clicks"], path)
		assert.Equal(t, 3.0, a.body["totals"].(map[string]any)["clicks"], path)
	}
	assert.NotContains(t, b.want(200, RoleReader, "GET", "/stats?"+sunday, nil).body, "imported_clicks")

	a = b.want(200, RoleReader, "GET", "/urls/101/stats?interval=hour&compare=previous&"+sunday, nil)
	series := a.body["series"].([]any)
	assert.Len(t, series, 23, "hours of the day on which the clocks are set forward")
	assert.Equal(t, map[string]any{"start": "2025-03-30T03:00:00+02:00", "clicks": 1.0, "people": 0.0, "robots": 1.0, "visitors": 0.0}, series[2])
	assert.Equal(t, map[string]any{"clicks": 1.0, "people": 1.0, "robots": 0.0, "visitors": 1.0}, a.body["previous"])
}

func TestStatisticsOfAll(t *testing.T) {
	t.Parallel()
	b := statsSetup(t)
	totals := func(query string) string {
		t.Helper()
		a := b.want(200, RoleReader, "GET", "/stats?"+sunday+query, nil)
		n := a.body["totals"].(map[string]any)
		return fmt.Sprint(n["clicks"], n["people"], n["robots"], n["visitors"], " ", a.body["source"], " ", a.body["visitors_of"])
	}
	for query, want := range map[string]string{
		"":                                    "6 4 2 1 statistics scope", // a visitor of several links counts once
		"&user_id=71":                         "5 3 2 2 statistics link",
		"&user_id=99":                         "0 0 0 0 statistics link",
		"&domain=go.example":                  "2 1 1 1 statistics link",
		"&domain=sign.example":                "4 3 1 2 statistics link",
		"&tag=spring":                         "3 2 1 1 statistics link",
		"&tag=none":                           "0 0 0 0 statistics link",
		"&kind=person":                        "4 4 0 1 statistics scope",
		"&kind=-person":                       "2 0 2 0 statistics scope",
		"&kind=bot,preview":                   "2 0 2 0 statistics scope",
		"&country=de":                         "4 3 1 0 statistics scope",
		"&country=-DE":                        "2 1 1 1 statistics scope",
		"&country=DE,AT&kind=person":          "4 4 0 1 statistics scope",
		"&referrer=(none)":                    "5 3 2 1 statistics scope",
		"&country=DE&referrer=news.example":   "1 1 0 0 events scope",
		"&user_id=71&country=DE&browser=-x":   "3 2 1 1 events link",
		"&kind=preview&country=DE":            "1 0 1 0 events scope",
		"&country=DE&kind=person&device=none": "0 0 0 0 events scope",
	} {
		assert.Equal(t, want, totals(query), query)
	}
}

func TestBreakdowns(t *testing.T) {
	t.Parallel()
	b := statsSetup(t)
	a := b.want(200, RoleReader, "GET", "/stats/countries?compare=previous&"+sunday, nil)
	assert.JSONEq(t, `{
		"data": [
			{"value": "DE", "clicks": 4, "people": 3, "robots": 1, "visitors": 0, "share": 0.667, "previous": {"clicks": 1, "people": 1, "robots": 0, "visitors": 1}},
			{"value": "AT", "clicks": 1, "people": 1, "robots": 0, "visitors": 1, "share": 0.167, "previous": {"clicks": 0, "people": 0, "robots": 0, "visitors": 0}},
			{"value": "US", "clicks": 1, "people": 0, "robots": 1, "visitors": 0, "share": 0.167, "previous": {"clicks": 0, "people": 0, "robots": 0, "visitors": 0}}
		],
		"count": 3, "next_cursor": null,
		"range": {"from": "2025-03-30T00:00:00+01:00", "to": "2025-03-31T00:00:00+02:00", "tz": "Europe/Berlin", "interval": "hour",
			"previous_from": "2025-03-29T00:00:00+01:00", "previous_to": "2025-03-30T00:00:00+01:00"},
		"totals": {"clicks": 6, "people": 4, "robots": 2, "visitors": 1},
		"previous": {"clicks": 1, "people": 1, "robots": 0, "visitors": 1},
		"pending": 0, "visitors_window": "day", "visitors_of": "scope", "source": "statistics"
	}`, without(t, a))

	// Values that had clicks in the range to compare with only are rows too.
	a = b.want(200, RoleReader, "GET", "/stats/countries?compare=previous&from=2025-03-31&to=2025-04-01&tz=Europe/Berlin", nil)
	var shown []string
	for _, row := range a.body["data"].([]any) {
		row := row.(map[string]any)
		shown = append(shown, fmt.Sprint(row["value"], "=", row["clicks"], "/", row["previous"].(map[string]any)["clicks"]))
	}
	assert.Equal(t, []string{"(none)=1/0", "AT=0/1", "DE=0/4", "US=0/1"}, shown)

	rows := func(path string) string {
		t.Helper()
		var shown []string
		for cursor := ""; ; {
			a := b.want(200, RoleReader, "GET", path+"&limit=1&"+sunday+"&cursor="+cursor, nil)
			for _, row := range a.body["data"].([]any) {
				row := row.(map[string]any)
				shown = append(shown, fmt.Sprint(row["value"], "=", row["clicks"]))
			}
			if a.body["next_cursor"] == nil {
				return strings.Join(shown, " ")
			}
			cursor = a.body["next_cursor"].(string)
		}
	}
	for path, want := range map[string]string{
		"/stats/countries?":                          "DE=4 AT=1 US=1",
		"/stats/countries?sort=clicks":               "AT=1 US=1 DE=4",
		"/stats/countries?sort=value":                "AT=1 DE=4 US=1",
		"/stats/countries?sort=-value":               "US=1 DE=4 AT=1",
		"/stats/countries?sort=-visitors":            "AT=1 DE=4 US=1",
		"/stats/countries?country=-DE":               "AT=1 US=1",
		"/stats/countries?kind=person":               "DE=3 AT=1",
		"/stats/kinds?":                              "person=4 bot=1 preview=1",
		"/stats/referrers?":                          "(none)=5 news.example=1",
		"/stats/triggers?":                           "link=6",
		"/stats/browsers?country=DE":                 "(none)=3 Firefox=1",
		"/stats/links?":                              "101=3 102=2 103=1",
		"/stats/links?sort=clicks":                   "103=1 102=2 101=3",
		"/stats/links?sort=value":                    "101=3 102=2 103=1",
		"/stats/links?kind=person":                   "101=2 102=1 103=1",
		"/stats/links?user_id=71":                    "101=3 102=2",
		"/stats/links?tag=spring":                    "101=3",
		"/stats/links?domain=go.example":             "102=2",
		"/stats/links?country=DE":                    "102=2 101=1 103=1",
		"/stats/links?country=DE&sort=-value":        "103=1 102=2 101=1",
		"/stats/tags?":                               "sale=5 spring=3",
		"/stats/domains?":                            "sign.example=4 go.example=2",
		"/stats/domains?kind=-person":                "go.example=1 sign.example=1",
		"/urls/101/stats/browsers?":                  "Chrome=1 Firefox=1 Googlebot=1",
		"/urls/101/stats/browsers?kind=person":       "Chrome=1 Firefox=1",
		"/urls/101/stats/browsers?country=DE,US":     "Firefox=1 Googlebot=1",
		"/urls/101/stats/countries?from=2026-01-01&": "",
	} {
		if strings.Contains(path, "from=") {
			a := b.want(200, RoleReader, "GET", path, nil)
			assert.Empty(t, a.body["data"])
			assert.NotNil(t, a.body["data"])
			continue
		}
		assert.Equal(t, want, rows(path), path)
	}

	a = b.want(200, RoleReader, "GET", "/stats/links?limit=1&"+sunday, nil)
	assert.Equal(t, map[string]any{"short_url": "https://sign.example/one", "title": "First"}, a.body["data"].([]any)[0].(map[string]any)["link"])
	b.exec("DELETE FROM urls WHERE id = 101")
	a = b.want(200, RoleReader, "GET", "/stats/links?limit=1&"+sunday, nil)
	row := a.body["data"].([]any)[0].(map[string]any)
	assert.Equal(t, "101", row["value"], "a deleted link keeps its numbers")
	assert.NotContains(t, row, "link")
	b.want(200, RoleReader, "GET", "/urls/101/stats", nil)
	a = b.want(200, RoleReader, "GET", "/stats/tags?"+sunday, nil)
	assert.Equal(t, true, a.body["overlapping"])
}

func TestBreakdownsBesideSeries(t *testing.T) {
	t.Parallel()
	b := statsSetup(t)
	a := b.want(200, RoleReader, "GET", "/urls/101/stats?breakdowns=countries,kinds&top=1&"+sunday, nil)
	var body struct {
		Breakdowns map[string][]struct {
			Value  string
			Clicks int
		}
	}
	require.NoError(t, json.Unmarshal(a.raw, &body))
	require.Len(t, body.Breakdowns, 2)
	assert.Equal(t, "AT", body.Breakdowns["countries"][0].Value)
	assert.Equal(t, "person", body.Breakdowns["kinds"][0].Value)
	assert.Equal(t, 2, body.Breakdowns["kinds"][0].Clicks)
	assert.Len(t, body.Breakdowns["kinds"], 1)
}

func TestStatisticsAsFile(t *testing.T) {
	t.Parallel()
	b := statsSetup(t)
	a := b.want(200, RoleReader, "GET", "/urls/101/stats?format=csv&interval=day&from=2025-03-29&to=2025-03-31&tz=Europe/Berlin", nil)
	assert.Equal(t, "start,clicks,people,robots,visitors\r\n2025-03-29T00:00:00+01:00,1,1,0,1\r\n2025-03-30T00:00:00+01:00,3,2,1,1\r\n",
		strings.ReplaceAll(strings.ReplaceAll(string(a.raw), "\r\n", "\n"), "\n", "\r\n"))
	assert.Contains(t, a.header.Get("Content-Disposition"), "signpost-statistics-")
	a = b.want(200, RoleReader, "GET", "/stats/countries?"+sunday, nil, "Accept", "text/csv")
	assert.Equal(t, []string{"value,clicks,people,robots,visitors,share,previous_clicks", "DE,4,3,1,0,0.667,", "AT,1,1,0,1,0.167,", "US,1,0,1,0,0.167,"},
		strings.Fields(string(a.raw)))
	a = b.want(200, RoleReader, "GET", "/stats/links?limit=1&format=csv&"+sunday, nil)
	assert.Equal(t, []string{"value,clicks,people,robots,visitors,share,previous_clicks,short_url,title", "101,3,2,1,1,0.5,,https://sign.example/one,First"},
		strings.Fields(string(a.raw)))
	a = b.want(200, RoleReader, "GET", "/stats/countries?format=ndjson&"+sunday, nil)
	lines := strings.Split(strings.TrimSpace(string(a.raw)), "\n")
	require.Len(t, lines, 3)
	assert.JSONEq(t, `{"value": "DE", "clicks": 4, "people": 3, "robots": 1, "visitors": 0, "share": 0.667, "previous": null}`, lines[0])
	b.want(400, RoleReader, "GET", "/stats/countries?format=csv&tz=Mars", nil)
}

// A file has the ranking of one moment: clicks that come meanwhile neither repeat a link
// nor leave one out, and nothing is added up again for each piece of the file.
func TestRankingAsFile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	day := time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)
	require.NoError(t, rollup.EnsureMonths(t.Context(), b.pool, []time.Time{day}))
	b.exec("INSERT INTO rollups (scope, day, clicks, people, visitors, last_at, cells) SELECT i, $1::date, 9000 - i, 0, 0, $1::date, '' FROM generate_series(1, 4500) i", day)
	in := service.StatisticsQuery{Time: rollup.Request{From: "2025-03-01", To: "2025-03-02"}}
	file, err := b.api.service.ExportBreakdown(t.Context(), service.Actor{Role: RoleReader}, in, service.BreakdownPage{Of: service.ByLinks})
	require.NoError(t, err)
	var got []string
	for piece := []service.ExportRow{nil}; len(piece) > 0; {
		piece, err = file.Next(t.Context(), file.Piece)
		require.NoError(t, err)
		for _, row := range piece {
			got = append(got, row.Cells(nil)[0])
		}
		b.exec("UPDATE rollups SET clicks = 10000 + random() * 1000")
	}
	require.Len(t, got, 4500)
	for i, id := range got {
		require.Equal(t, fmt.Sprint(i+1), id)
	}
}

func TestETagOfStatistics(t *testing.T) {
	t.Parallel()
	b := statsSetup(t)
	for _, path := range []string{"/urls/101/stats?" + sunday, "/stats/countries?" + sunday} {
		a := b.want(200, RoleReader, "GET", path, nil)
		tag := a.header.Get("ETag")
		assert.Regexp(t, `^W/"[\w-]+"$`, tag)
		assert.Equal(t, "private, no-cache", a.header.Get("Cache-Control"))
		for _, known := range []string{tag, `"other", ` + tag, strings.TrimPrefix(tag, "W/"), "*"} {
			a = b.want(304, RoleReader, "GET", path, nil, "If-None-Match", known)
			assert.Empty(t, a.raw)
			assert.Equal(t, tag, a.header.Get("ETag"))
		}
		b.want(200, RoleReader, "GET", path, nil, "If-None-Match", `"other"`)
		b.clicked(rollup.Event{URLID: 101, UserID: 71, At: time.Date(2025, 3, 30, 9, 0, 0, 0, time.UTC), Kind: "person", Country: "DE"})
		a = b.want(200, RoleReader, "GET", path, nil, "If-None-Match", tag)
		assert.NotEqual(t, tag, a.header.Get("ETag"))
	}
}

func TestFaultsOfStatistics(t *testing.T) {
	t.Parallel()
	b := statsSetup(t)
	for query, field := range map[string]string{
		"tz=Europe/Nowhere": "tz", "tz=Local": "tz", "range=decade": "range", "range=7d&from=2025-01-01": "range", "from=now": "from",
		"to=2025-01-01": "from", "from=2025-01-01&to=2025-01-01": "from", "from=2025-01-01&to=x": "to", "interval=second": "interval",
		"interval=15m&range=12mo": "interval", "week_start=tuesday": "week_start", "compare=best": "compare", "compare=year&range=all": "compare",
		"kind=human": "kind", "country=DE,-AT": "country", "country=DE,,AT": "country", "device=-": "device",
		"referrer=" + strings.Repeat("a,", 100) + "a": "referrer", "browser=%00": "browser", "system=%ff": "system",
		"format=xml": "format", "user_id=0": "user_id", "user_id=x": "user_id", "domain=elsewhere.example": "domain", "tag=%00": "tag",
		"breakdowns=languages": "breakdowns", "top=0": "top", "top=201": "top",
	} {
		a := b.want(400, RoleReader, "GET", "/stats?"+query, nil)
		fields := a.body["fields"].([]any)
		assert.Len(t, fields, 1, query)
		assert.Equal(t, field, fields[0].(map[string]any)["field"], query)
	}
	other := b.want(200, RoleReader, "GET", "/stats/countries?limit=1&"+sunday, nil).body["next_cursor"].(string)
	for query, field := range map[string]string{
		"sort=size": "sort", "limit=0": "limit", "limit=101": "limit", "cursor=x": "cursor", "cursor=" + other: "cursor",
		"cursor=" + makeCursor("urls", 3): "cursor",
	} {
		a := b.want(400, RoleReader, "GET", "/stats/links?"+query, nil)
		assert.Equal(t, field, a.body["fields"].([]any)[0].(map[string]any)["field"], query)
	}
	b.want(400, RoleReader, "GET", "/stats/countries?sort=value&cursor="+other, nil)
	b.want(200, RoleReader, "GET", "/stats/countries?sort=-clicks&cursor="+other, nil)
	for _, path := range []string{
		"/urls/999/stats", "/urls/999/stats/countries", "/urls/101/stats/links", "/urls/101/stats/tags", "/urls/101/stats/domains",
		"/stats/languages", "/stats/" + url.PathEscape("a/b"), "/stats/", "/urls/x/stats",
	} {
		b.want(404, RoleReader, "GET", path, nil)
	}
	for _, path := range []string{
		"/stats?user_id=71&tag=sale", "/stats?tag=sale&country=DE&browser=Firefox", "/stats/countries?domain=go.example&browser=Firefox",
		"/stats/links?tag=sale&country=DE", "/stats/tags?user_id=71", "/stats/domains?country=DE", "/stats/tags?kind=bot",
		"/stats?country=(other)&browser=Firefox", "/stats/links?referrer=-(other)",
	} {
		a := b.want(422, RoleReader, "GET", path+"&"+sunday, nil)
		assert.NotEmpty(t, a.body["hint"], path)
	}
}

func TestStatisticsOfArchivedMonths(t *testing.T) {
	t.Parallel()
	b := statsSetup(t)
	b.exec("INSERT INTO event_parts (month, part, table_name) VALUES ('2025-03-01', 1, 'events_part')")
	b.want(200, RoleReader, "GET", "/urls/101/stats?country=DE&"+sunday, nil)
	a := b.want(422, RoleReader, "GET", "/urls/101/stats?country=DE&browser=Firefox&"+sunday, nil)
	assert.Contains(t, a.body["error"], "March 2025")
	b.want(200, RoleReader, "GET", "/urls/101/stats?country=DE&browser=Firefox&from=2025-04-02&to=2025-04-03", nil)
}

func TestZoneOfStatistics(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) { o.TimeZone = "Asia/Kathmandu" })
	for query, want := range map[string]string{"": "Asia/Kathmandu", "?tz=UTC": "UTC"} {
		a := b.want(200, RoleReader, "GET", "/stats"+query, nil)
		assert.Equal(t, want, a.body["range"].(map[string]any)["tz"])
		assert.Len(t, a.body["series"], 30)
	}
}

// Without clicks, every breakdown is an empty list, and a wrong choice is told in words.
func TestBreakdownsOfNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, of := range []string{
		"countries", "referrers", "browsers", "systems", "devices", "kinds", "triggers", "links", "tags", "domains",
	} {
		got := b.want(200, RoleReader, "GET", "/stats/"+of, nil)
		assert.Equal(t, []any{}, got.body["data"], of)
	}
	message := b.want(400, RoleReader, "GET", "/stats/links?sort=up", nil).fields()["sort"]
	assert.True(t, strings.HasPrefix(message, "must be one of -clicks, clicks, "), message)
}
