package api

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/links"
)

const htmlAccept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

// testLink is a row of urls.
type testLink struct {
	code, target string
	inactive     bool
	expires      any // nil becomes NULL, which means never
	status       int // 0 is 302
	forward      bool
}

// insertLink makes a link in the database and returns its id and the id of its owner.
func (b *bundle) insertLink(l testLink) (id, userID int64) {
	b.t.Helper()
	if l.status == 0 {
		l.status = 302
	}
	err := b.pool.QueryRow(b.t.Context(), `
		WITH owner AS (
			INSERT INTO users (username, email) VALUES (md5($1), md5($1) || '@example.com') RETURNING id
		)
		INSERT INTO urls (user_id, short_code, original_url, is_active, expires_at, redirect_status, forward_query)
		SELECT id, $1, $2, $3, $4, $5, $6 FROM owner RETURNING id, user_id`,
		l.code, l.target, !l.inactive, l.expires, l.status, l.forward).Scan(&id, &userID)
	require.NoError(b.t, err)
	return id, userID
}

// clicks returns the clicks in the spool, oldest first.
func (b *bundle) clicks() []clicks.Click {
	b.t.Helper()
	require.NoError(b.t, b.api.Spool.SealNow(b.t.Context()))
	segments, err := b.api.Spool.Segments("")
	require.NoError(b.t, err)
	var all []clicks.Click
	for _, s := range segments {
		batch, err := b.api.Spool.Read(s)
		require.NoError(b.t, err)
		part, err := clicks.DecodeBatch(batch.ID, batch.Payload)
		require.NoError(b.t, err)
		all = append(all, part...)
	}
	return all
}

func TestRedirect(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const long = "https://Example.com/a/../b//c?q=1&q=%20#part"
	now := time.Now()
	b.insertLink(testLink{code: "plain", target: long})
	b.insertLink(testLink{code: "Case-1_", target: "https://example.com/case"})
	b.insertLink(testLink{code: strings.Repeat("x", links.MaxCode), target: "https://example.com/long"})
	b.insertLink(testLink{code: "moved", target: "https://example.com/301", status: 301})
	b.insertLink(testLink{code: "temporary", target: "https://example.com/307", status: 307})
	b.insertLink(testLink{code: "permanent", target: "https://example.com/308", status: 308})
	b.insertLink(testLink{code: "forward", target: "https://example.com/f?own=1#part", forward: true})
	b.insertLink(testLink{code: "off", target: "https://example.com/off", inactive: true})
	b.insertLink(testLink{code: "over", target: "https://example.com/over", expires: now.Add(-time.Second)})
	b.insertLink(testLink{code: "until", target: "https://example.com/until", expires: now.Add(time.Hour)})
	b.insertLink(testLink{code: "health", target: "https://example.com/shadow"})

	const temporary, permanent = "private, no-store, max-age=0", "private, max-age=90"
	tests := []struct {
		path   string
		status int
		target string
		cache  string
	}{
		{"/r/plain", 302, long, temporary},
		{"/plain", 302, long, temporary},
		{"/r/plain?a=b", 302, long, temporary},
		{"/plain?", 302, long, temporary},
		{"/r/pl%61in", 302, long, temporary},
		{"/%70lain?x", 302, long, temporary},
		{"/r/Case-1_", 302, "https://example.com/case", temporary},
		{"/" + strings.Repeat("x", links.MaxCode), 302, "https://example.com/long", temporary},
		{"/r/moved", 301, "https://example.com/301", permanent},
		{"/r/temporary", 307, "https://example.com/307", temporary},
		{"/r/permanent", 308, "https://example.com/308", permanent},
		{"/r/forward", 302, "https://example.com/f?own=1#part", temporary},
		{"/r/forward?a=%41&b=é", 302, "https://example.com/f?own=1&a=%41&b=%C3%A9#part", temporary},
		{"/%66orward?a=1", 302, "https://example.com/f?own=1&a=1#part", temporary},
		{"/r/until", 302, "https://example.com/until", temporary},
		{"/r/health", 302, "https://example.com/shadow", temporary}, // as SQL can make it

		{"/r/off", 410, "", "no-store"},
		{"/over", 410, "", "no-store"},
		{"/r/nothing", 404, "", "no-store"},
		{"/nothing", 404, "", "no-store"},
		{"/r/PLAIN", 404, "", "no-store"},
		{"/r/case-1_", 404, "", "no-store"},
		{"/metrics", 404, "", "no-store"}, // not on this port
		{"/r", 404, "", "no-store"},
		{"/r/", 404, "", "no-store"},
		{"/r/plain/", 302, long, temporary},
		{"//plain", 302, long, temporary},
		{"/r/plain/x", 404, "", "no-store"},
		{"/r/pl.ain", 404, "", "no-store"},
		{"/r/%00", 404, "", "no-store"},
		{"/r/%zz", 404, "", "no-store"},
		{"/r/plain%2f", 302, long, temporary},
		{"/" + strings.Repeat("x", links.MaxCode+1), 404, "", "no-store"},
	}
	for _, method := range []string{"GET", "HEAD"} {
		for _, test := range tests {
			a := b.raw(method, test.path)
			if a.status != test.status || a.header.Get("Location") != test.target {
				t.Errorf("%s %s: %d to %q, want %d to %q", method, test.path,
					a.status, a.header.Get("Location"), test.status, test.target)
				continue
			}
			if got := a.header.Get("Cache-Control"); got != test.cache {
				t.Errorf("%s %s: Cache-Control is %q, want %q", method, test.path, got, test.cache)
			}
			if a.header.Get("X-Request-Id") == "" {
				t.Errorf("%s %s: no request id", method, test.path)
			}
			switch {
			case test.status < 400 && (len(a.raw) > 0 || a.header.Get("Content-Type") != ""):
				t.Errorf("%s %s: a redirect with the body %q", method, test.path, a.raw)
			case test.status >= 400 && method == "GET":
				checkShape(t, method+" "+test.path, a)
			}
		}
	}
	if a := b.do(0, "GET", "/health", nil); a.status != 200 || a.body["status"] != "ok" {
		t.Errorf("a link shadows /health: %d %s", a.status, a.raw)
	}
	if a := b.want(405, 0, "POST", "/r/plain", nil); a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: Allow is %q", a.header.Get("Allow"))
	}
	want := 0
	for _, test := range tests {
		if test.status < 400 {
			want++
		}
	}
	if got := len(b.clicks()); got != want {
		t.Errorf("%d clicks, want %d: each GET that was redirected and nothing else", got, want)
	}
}

// raw sends a request whose path the client does not change.
func (b *bundle) raw(method, path string) answer { return b.rawOn("sign.example", method, path) }

// The router handles paths that are written in an unusual way. The answer must be the
// same.
func TestRedirectIsTheSameThroughTheRouter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertLink(testLink{code: "same", target: "https://example.com/same"})
	for _, accept := range []string{"*/*", htmlAccept} {
		for _, pair := range [][2]string{{"/r/same", "/r/%73ame"}, {"/same", "/sam%65"}, {"/r/other", "/r/%6fther"}} {
			quick := b.do(0, "GET", pair[0], nil, "Accept", accept)
			routed := b.do(0, "GET", pair[1], nil, "Accept", accept)
			for _, a := range []answer{quick, routed} {
				a.header.Del("Date")
				a.header.Del("X-Request-Id")
			}
			if quick.status != routed.status || !bytes.Equal(quick.raw, routed.raw) ||
				!maps.EqualFunc(quick.header, routed.header, slices.Equal) {
				t.Errorf("%s: %d %v, %s: %d %v", pair[0], quick.status, quick.header, pair[1], routed.status, routed.header)
			}
		}
	}
	got := map[string]float64{}
	families, err := b.api.Registry.(*prometheus.Registry).Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() != "signpost_http_requests_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			key := ""
			for _, l := range m.GetLabel() { // sorted by name
				key += l.GetValue() + " "
			}
			if n := m.GetCounter().GetValue(); n > 0 {
				got[key] = n
			}
		}
	}
	want := map[string]float64{"GET /:code 3xx ": 4, "GET /r/:code 3xx ": 4, "GET /r/:code 4xx ": 4}
	if !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

func TestRedirectRecordsTheClick(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id, userID := b.insertLink(testLink{code: "seen", target: "https://example.com/"})
	before := time.Now().Truncate(time.Microsecond)
	agent, referrer := "Agent/1.0 (é\xff\x00)", strings.Repeat("r", 2000)
	b.want(302, 0, "GET", "/r/seen", nil, "User-Agent", "Agent/1.0 (é)", "Referer", "https://from.example/")
	b.want(302, 0, "GET", "/seen", nil, "User-Agent", agent[:len(agent)-2], "Referer", referrer)
	b.want(302, 0, "HEAD", "/r/seen", nil)
	after := time.Now()

	got := b.clicks()
	if len(got) != 2 {
		t.Fatalf("got %d clicks, want 2", len(got))
	}
	for _, c := range got {
		if c.URLID != id || c.UserID != userID || c.IP.String() != "127.0.0.1" || c.At.Before(before) || c.At.After(after) {
			t.Errorf("recorded %+v of link %d of user %d", c, id, userID)
		}
	}
	if got[0].UserAgent != "Agent/1.0 (é)" || got[0].Referrer != "https://from.example/" {
		t.Errorf("recorded the texts %q and %q", got[0].UserAgent, got[0].Referrer)
	}
	if got[1].UserAgent != "Agent/1.0 (é\uFFFD" || got[1].Referrer != referrer[:clicks.MaxReferrer] {
		t.Errorf("recorded the texts %q and %q", got[1].UserAgent, got[1].Referrer)
	}
}

// I1: the redirect waits for nothing else, and the click can be read from the disk.
func TestClickIsOnDiskBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	dir := t.TempDir()
	spool, err := clicks.Open(clicks.Options{Dir: dir, SegmentAge: time.Hour})
	require.NoError(t, err)
	b.api.Spool = spool // the other one is closed when the test ends
	b.insertLink(testLink{code: "disk", target: "https://example.com/"})
	for i := range 20 {
		marker := fmt.Sprintf("marker-%d-of-the-test", i)
		b.want(302, 0, "GET", "/r/disk", nil, "User-Agent", marker)
		if !folderContains(t, dir, marker) {
			t.Fatalf("answered, but %q is not on disk", marker)
		}
	}
	assert.NoError(t, spool.Close())
}

func folderContains(t *testing.T, dir, text string) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		found = found || bytes.Contains(data, []byte(text))
		return err
	})
	require.NoError(t, err)
	return found
}

// I3: no trouble on the click path makes a redirect fail.
func TestRedirectGoesOnWithoutSpool(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertLink(testLink{code: "on", target: "https://example.com/on"})
	require.NoError(t, b.api.Spool.Close())
	a := b.want(302, 0, "GET", "/r/on", nil)
	if a.header.Get("Location") != "https://example.com/on" {
		t.Errorf("led to %q", a.header.Get("Location"))
	}
}

// I3 and I4: without Postgres, cached links are served and all others are answered with
// 503.
func TestRedirectWithoutPostgres(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertLink(testLink{code: "cached", target: "https://example.com/cached"})
	b.insertLink(testLink{code: "uncached", target: "https://example.com/uncached"})
	b.want(302, 0, "GET", "/r/cached", nil)
	b.pool.Close()
	b.want(302, 0, "GET", "/r/cached", nil)
	b.want(503, 0, "GET", "/r/uncached", nil)
	page := b.do(0, "GET", "/r/uncached", nil, "Accept", htmlAccept)
	if page.status != 503 || page.header.Get("Retry-After") == "" || !bytes.Contains(page.raw, []byte("<h1>")) {
		t.Errorf("a browser got %d %v %s", page.status, page.header, page.raw)
	}
}

func TestRedirectSurvivesAPanic(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertLink(testLink{code: "boom", target: "https://example.com/"})
	b.api.Spool = nil
	a := b.want(500, 0, "GET", "/r/boom", nil)
	if !strings.Contains(b.log.String(), "request panicked") || !strings.Contains(b.log.String(), a.header.Get("X-Request-Id")) {
		t.Errorf("the panic was not logged: %s", b.log)
	}
}

func TestPageForBrowsers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertLink(testLink{code: "off", target: "https://example.com/off", inactive: true})
	b.insertLink(testLink{code: "over", target: "https://example.com/over", expires: time.Now().Add(-time.Hour)})
	tests := []struct {
		path   string
		status int
		text   string
	}{
		{"/r/nothing", 404, "no such link"},
		{"/nothing", 404, "no such link"},
		{"/r/%3Cscript%3E", 404, "no such link"},
		{"/r/off", 410, "deactivated"},
		{"/over", 410, "expired"},
	}
	for _, test := range tests {
		a := b.do(0, "GET", test.path, nil, "Accept", htmlAccept)
		if a.status != test.status || !strings.Contains(string(a.raw), test.text) {
			t.Errorf("%s: %d %s", test.path, a.status, a.raw)
		}
		want := map[string]string{
			"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Vary": "Accept",
			"X-Content-Type-Options": "nosniff", "Content-Security-Policy": pagePolicy,
		}
		for name, value := range want {
			if got := a.header.Get(name); got != value {
				t.Errorf("%s: %s is %q, want %q", test.path, name, got, value)
			}
		}
		for _, bad := range []string{"http://", "https://", "//", "<script", "src=", "url("} {
			if strings.Contains(string(a.raw), bad) {
				t.Errorf("%s: the page has %q", test.path, bad)
			}
		}
		if !strings.Contains(string(a.raw), `content="noindex"`) {
			t.Errorf("%s: the page may be indexed", test.path)
		}
		head := b.do(0, "HEAD", test.path, nil, "Accept", htmlAccept)
		if head.status != test.status || head.header.Get("Content-Length") != fmt.Sprint(len(a.raw)) || len(head.raw) > 0 {
			t.Errorf("HEAD %s: %d %v", test.path, head.status, head.header)
		}
	}
	// On all other routes, browsers get JSON too.
	b.want(404, 0, "GET", "/urls/no/place", nil, "Accept", htmlAccept)
	b.want(401, 0, "GET", "/urls", nil, "Accept", htmlAccept)
}

func TestPageEscapes(t *testing.T) {
	t.Parallel()
	var r fasthttp.Response
	writeErrorPage(&r, badRequest(`<b onclick="x">&'`))
	if body := string(r.Body()); strings.Contains(body, "<b onclick") || !strings.Contains(body, "&lt;b onclick=&#34;x&#34;&gt;&amp;&#39;") {
		t.Errorf("the page is %s", body)
	}
}

func TestPrefersHTML(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{
		"":                            false,
		"*/*":                         false,
		"text/*":                      false,
		"application/json":            false,
		"text/html":                   true,
		htmlAccept:                    true,
		" Text/HTML ;Q=0.5":           true,
		"application/json, text/html": false,
		"text/html, application/json": true,
		"text/html;q=0.5, application/json;q=0.6": false,
		"text/html;q=0.6, application/json;q=0.5": true,
		"application/json;q=0.5, text/html":       true,
		"text/html;q=0":                           false,
		"text/html;q=nan":                         false,
		"text/html;q=2":                           false,
		"text/html;level=1;q=0.4, */*":            true,
		",,;;=,text/html":                         true,
	}
	for accept, want := range tests {
		if got := prefersHTML([]byte(accept)); got != want {
			t.Errorf("prefersHTML(%q) = %v", accept, got)
		}
	}
}

func FuzzPrefersHTML(f *testing.F) {
	f.Add(htmlAccept)
	f.Add("application/json;q=0.5, text/html;q=0.25;q=x,,;")
	f.Fuzz(func(t *testing.T, accept string) {
		if prefersHTML([]byte(accept)) && !strings.Contains(strings.ToLower(accept), "text/html") {
			t.Errorf("HTML for %q", accept)
		}
	})
}

// Every path whose first segment is not reserved is the path of a short link. So the
// first segment of each route must be reserved, and no others except for planned ones.
func TestRoutesAreReserved(t *testing.T) {
	t.Parallel()
	b := setup(t)
	routed, planned := links.ReservedWords()
	found := map[string]bool{"r": true} // this is not a route of the router
	for _, s := range b.routed() {
		first, _, _ := strings.Cut(strings.TrimPrefix(s.pattern, "/"), "/")
		if first == "" || s.pattern == routeShort {
			continue
		}
		found[first] = true
		if !links.Reserved(s.path(1)[1:]) {
			t.Errorf("a link could shadow %s %s", s.method, s.pattern)
		}
	}
	for _, word := range routed {
		if !found[word] {
			t.Errorf("%q is reserved for a route that there is not", word)
		}
	}
	for _, word := range planned {
		if found[word] {
			t.Errorf("%q is routed, not planned", word)
		}
	}
}

// runCache makes the cache follow changes until the test ends.
func (b *bundle) runCache() {
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- b.api.Cache.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		assert.NoError(b.t, <-stopped)
	})
}

// HEAD does everything except for the click; with many clicks, its cost is shared by
// many. The test is not parallel, since AllocsPerRun counts the allocations of all
// goroutines.
func TestPlainRedirectAllocatesNothing(t *testing.T) {
	b := setup(t)
	b.api.Log = slog.New(slog.DiscardHandler)
	b.insertLink(testLink{code: "plain", target: "https://example.com/"})
	b.runCache()
	var request fasthttp.Request
	request.Header.SetMethod(http.MethodHead)
	request.SetRequestURI("/plain")
	var ctx fasthttp.RequestCtx
	ctx.Init(&request, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, nil)
	handler := b.api.Handler()
	if n := testing.AllocsPerRun(1000, func() {
		handler(&ctx)
		ctx.Response.Reset()
	}); n != 0 {
		t.Errorf("a redirect of a cached link allocates %v times", n)
	}
}

// BenchmarkRedirect is a redirect with its click recorded, without the network. It is
// compared with BenchmarkConstant302.
func BenchmarkRedirect(bench *testing.B) {
	b := setup(bench)
	b.api.Log = slog.New(slog.DiscardHandler)
	b.insertLink(testLink{code: "bench", target: "https://example.org/a/page/somewhere"})
	b.runCache()
	benchmarkHandler(bench, b.api.Handler(), "/r/bench")
}

func BenchmarkConstant302(bench *testing.B) {
	app := fiber.New(fiber.Config{CaseSensitive: true, StrictRouting: true, DisableStartupMessage: true})
	app.Get("/r/:code", func(c *fiber.Ctx) error {
		c.Set(fiber.HeaderLocation, "https://example.org/a/page/somewhere")
		c.Set(fiber.HeaderCacheControl, "private, no-store")
		return c.SendStatus(fiber.StatusFound)
	})
	benchmarkHandler(bench, app.Handler(), "/r/bench")
}

func benchmarkHandler(b *testing.B, handler fasthttp.RequestHandler, path string) {
	b.Helper()
	remote := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
	b.ReportAllocs()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var request fasthttp.Request
		request.SetRequestURI(path)
		request.Header.SetHost("sign.example")
		request.Header.SetUserAgent("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0")
		request.Header.SetReferer("https://news.example.org/story")
		var ctx fasthttp.RequestCtx
		ctx.Init(&request, remote, nil)
		for pb.Next() {
			handler(&ctx)
			if ctx.Response.StatusCode() != http.StatusFound {
				b.Errorf("answered %d", ctx.Response.StatusCode())
				return
			}
			ctx.Response.Reset()
		}
	})
}

// A change of a link is visible at once in the process that made it, whatever it
// remembered before.
func TestRedirectFollowsItsOwnChangesAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	want := func(path string, status int, location string) {
		t.Helper()
		a := b.raw("GET", path)
		if a.status != status || a.header.Get("Location") != location {
			t.Errorf("GET %s: %d to %q, want %d to %q", path, a.status, a.header.Get("Location"), status, location)
		}
	}
	for i := range 20 { // often enough that luck does not matter
		one, two := fmt.Sprintf("/one%d", i), fmt.Sprintf("/two%d", i)
		want(one, 404, "")
		want(two, 404, "")
		link := fmt.Sprintf("/urls/%d", b.newLink(ann, "https://example.com/1", object{"short_code": one[1:]}).id())
		want(one, 302, "https://example.com/1")
		b.want(200, RoleEditor, "PATCH", link, object{"original_url": "https://example.com/2"})
		want(one, 302, "https://example.com/2")
		b.want(200, RoleEditor, "PATCH", link, object{"is_active": false})
		want(one, 410, "")
		b.want(200, RoleEditor, "PATCH", link, object{"is_active": true, "short_code": two[1:]})
		want(one, 404, "")
		want(two, 302, "https://example.com/2")
		b.want(204, RoleEditor, "DELETE", link, nil)
		want(two, 404, "")
	}
}

// The headers that tell a prefetch from a click, and those of visitors who do not want
// to be tracked, come back with the click, whatever their spelling.
func TestRedirectReadsFlags(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertLink(testLink{code: "plain", target: "https://example.com/"})
	type flags struct{ prefetch, private bool }
	tests := []struct {
		headers string
		want    flags
	}{
		{"", flags{}},
		{"Sec-Purpose: prefetch\r\n", flags{prefetch: true}},
		{"sec-purpose: prefetch;prerender\r\n", flags{prefetch: true}},
		{"SEC-PURPOSE: prefetch;anonymous-client-ip\r\n", flags{prefetch: true}},
		{"Purpose: Prefetch\r\n", flags{prefetch: true}},
		{"Purpose: prerender\r\n", flags{prefetch: true}},
		{"X-Purpose: preview\r\n", flags{prefetch: true}},
		{"x-purpose: ; preview\r\n", flags{prefetch: true}},
		{"X-Moz: prefetch\r\n", flags{prefetch: true}},
		{"X-Moz: \r\n", flags{}},
		{"Purpose: no-prefetch\r\n", flags{}},
		{"Sec-Purpose: payment\r\n", flags{}},
		{"Sec-Fetch-Purpose: prefetch\r\n", flags{}},
		{"DNT: 1\r\n", flags{private: true}},
		{"dnt:  1 \r\n", flags{private: true}},
		{"DNT: 0\r\n", flags{}},
		{"DNT: null\r\n", flags{}},
		{"Sec-GPC: 1\r\n", flags{private: true}},
		{"Sec-GPC: 0\r\n", flags{}},
		{"DNT: 0\r\nSec-GPC: 1\r\n", flags{private: true}},
		{"Sec-GPC: 1\r\nSec-Purpose: prefetch\r\nCookie: a=b\r\n", flags{true, true}},
	}
	for _, test := range tests {
		b.rawAll("GET /plain HTTP/1.1\r\nHost: sign.example\r\n"+test.headers+"\r\n", 1)
	}
	clicks := b.clicks()
	require.Len(t, clicks, len(tests))
	for i, test := range tests {
		assert.Equal(t, test.want, flags{clicks[i].Prefetch, clicks[i].Private}, "headers %q", test.headers)
	}
}

func TestReadFlagsAllocatesNothing(t *testing.T) { // not parallel: it counts what the process allocates
	var h fasthttp.RequestHeader
	for _, header := range []string{"Accept", "Accept-Language", "Sec-Fetch-Mode", "Cookie"} {
		h.Set(header, "x=y")
	}
	h.Set("Sec-GPC", "1")
	h.Set("Sec-Purpose", "prefetch;prerender")
	readFlags(&h)
	if n := testing.AllocsPerRun(1000, func() { readFlags(&h) }); n != 0 {
		t.Errorf("reading the flags allocates %v times", n)
	}
}
