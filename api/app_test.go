package api

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"html"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/internal/service"
)

// browser is a client of the dashboard that keeps its cookie, as a browser does.
type browser struct {
	b      *bundle
	cookie string
	header map[string]string
}

func (b *bundle) browser() *browser {
	return &browser{b: b, header: map[string]string{"Sec-Fetch-Site": "same-origin"}}
}

// signedIn returns a browser with a session of a token of the role.
func (b *bundle) signedIn(role Role) *browser {
	b.t.Helper()
	w := b.browser()
	a := w.post("/app/sign-in", url.Values{"token": {b.tokens[role]}})
	require.Equal(b.t, 303, a.status, "sign in: %s", a.raw)
	require.Equal(b.t, "/app", a.header.Get("Location"))
	return w
}

func (w *browser) get(path string) answer { return w.do("GET", path, "") }

func (w *browser) post(path string, form url.Values) answer { return w.do("POST", path, form.Encode()) }

func (w *browser) do(method, path, form string) answer {
	w.b.t.Helper()
	ctx, cancel := context.WithTimeout(w.b.t.Context(), 30*time.Second)
	defer cancel()
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader(form)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+w.b.addr+path, body)
	require.NoError(w.b.t, err)
	if method == "POST" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if public, err := url.Parse(w.b.api.PublicURL); err == nil {
		req.Host = public.Host
	}
	for name, value := range w.header {
		req.Header.Set(name, value)
		if name == "Host" {
			req.Host = value
		}
	}
	if w.cookie != "" {
		req.Header.Set("Cookie", w.cookie)
	}
	resp, err := noRedirects.Do(req)
	require.NoError(w.b.t, err)
	for _, c := range resp.Cookies() {
		w.cookie = ""
		if c.MaxAge >= 0 && c.Value != "" {
			w.cookie = c.Name + "=" + c.Value
		}
	}
	a, err := answerOf(resp)
	require.NoError(w.b.t, err)
	return a
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.browser()
	a := w.get("/app/links?q=abc")
	assert.Equal(t, 303, a.status)
	assert.Equal(t, "/app/sign-in?next=%2Fapp%2Flinks%3Fq%3Dabc", a.header.Get("Location"))
	assert.Contains(t, string(w.get(a.header.Get("Location")).raw), `value="/app/links?q=abc"`)

	a = w.post("/app/sign-in", url.Values{"token": {"sp_wrong"}})
	assert.Equal(t, 401, a.status)
	assert.Contains(t, string(a.raw), "the token is unknown, expired or revoked")
	assert.Empty(t, w.cookie)

	a = w.post("/app/sign-in", url.Values{"token": {b.tokens[RoleReader]}, "next": {"/app/links?q=abc"}})
	assert.Equal(t, 303, a.status)
	assert.Equal(t, "/app/links?q=abc", a.header.Get("Location"))
	set := a.header.Get("Set-Cookie")
	for _, attribute := range []string{"__Host-signpost=", "path=/", "HttpOnly", "secure", "SameSite=Lax"} {
		assert.Contains(t, set, attribute)
	}
	assert.Equal(t, 200, w.get("/app").status)

	// Signing in again renews the session: the one before has ended.
	before := *w
	require.Equal(t, 303, w.post("/app/sign-in", url.Values{"token": {b.tokens[RoleReader]}}).status)
	assert.NotEqual(t, before.cookie, w.cookie)
	assert.Equal(t, 303, before.get("/app").status)
	assert.Equal(t, 200, w.get("/app").status)

	gone := *w
	assert.Equal(t, 303, w.post("/app/sign-out", nil).status)
	assert.Empty(t, w.cookie)
	assert.Equal(t, 303, gone.get("/app").status)
}

func TestSignInLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	for _, next := range []string{
		"", "https://evil.example/", "//evil.example/app", "/apple", "/app\\@evil.example", "/app/\r\nX: y", "/urls",
		"/app/../promo", "/app/%2e%2e/promo", "/app/.%2E/promo", "/app/links/../../promo", "/app/./links", "/app//evil.example", "/app/.\t./promo", "/app/%5c..%5cpromo",
		"/app?a=b\tc", "/%61pp/links", "http:/app", "/app/%zz",
	} {
		assert.Equal(t, "/app", ownPath(next), next)
	}
	for _, next := range []string{"/app", "/app/links", "/app?range=7d", "/app/links?q=../a%09b&tag=%5C", "/app/links/1#feed"} {
		assert.Equal(t, next, ownPath(next))
	}
}

// Strangers hold no memory: a form to sign in is small, and says so.
func TestSignInTakesSmallFormsOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	token := b.tokens[RoleReader]
	assert.Equal(t, 413, b.browser().post("/app/sign-in", url.Values{"token": {token}, "next": {strings.Repeat("x", heldLeast)}}).status)
	conn := b.dial()
	form := "token=" + token
	b.write(conn, "POST /app/sign-in HTTP/1.1\r\nHost: sign.example\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(form), form)
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	assert.Contains(t, line, " 413 ")
}

func TestLinkToSignIn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	secret := b.api.Tokens.NewSignIn()
	w := b.browser()
	assert.Equal(t, 401, w.post("/app/sign-in", url.Values{"link": {"#" + secret[1:]}}).status)
	require.Equal(t, 303, w.post("/app/sign-in", url.Values{"link": {"http://x/app/sign-in#" + secret}}).status)
	assert.Contains(t, string(w.get("/app").raw), bootstrapName)
	assert.Equal(t, 401, b.browser().post("/app/sign-in", url.Values{"link": {secret}}).status, "it is valid once")
	assert.Regexp(t, "^[A-Z2-7]{26}$", secret, "app.js knows it by this")
	assert.Contains(t, string(w.get("/app/sign-in").raw), "data-sign-in", "somebody who is signed in may follow one too")
	assert.NotEmpty(t, w.cookie)

	old := b.api.Tokens.NewSignIn()
	for hash := range b.api.Tokens.links.until {
		b.api.Tokens.links.until[hash] = time.Now().Add(-time.Second)
	}
	assert.Equal(t, 401, b.browser().post("/app/sign-in", url.Values{"link": {old}}).status, "it is too old")
}

// Who goes on working is known to have a session for another hour with each request.
func TestSessionIsRememberedFromItsLastUse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.signedIn(RoleReader)
	_, reference, _ := strings.Cut(w.cookie, "=")
	until := func() time.Time {
		entry, ok := b.api.Tokens.limiter.valid.GetEntryQuietly(sha256.Sum256([]byte(reference)))
		require.True(t, ok)
		return entry.ExpiresAt()
	}
	require.Equal(t, 200, w.get("/app/links").status)
	first := until()
	assert.Eventually(t, func() bool { return w.get("/app/links").status == 200 && until().After(first) }, 10*time.Second, time.Millisecond)
}

func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, end := range map[string]string{
		"idle":    "UPDATE sessions SET used_at = now() - interval '8 days'",
		"old":     "UPDATE sessions SET created_at = now() - interval '31 days'",
		"revoked": "UPDATE api_tokens SET revoked_at = now() WHERE role = 'reader'",
	} {
		b.exec("UPDATE api_tokens SET revoked_at = NULL")
		w := b.signedIn(RoleReader)
		require.Equal(t, 200, w.get("/app").status, name)
		b.exec(end)
		feed := *w
		assert.Equal(t, 303, w.get("/app").status, name)
		assert.Empty(t, w.cookie, name)
		assert.Equal(t, 401, feed.get("/app/live").status, name)
		assert.Empty(t, feed.cookie, name)
	}
	b.exec("UPDATE api_tokens SET revoked_at = NULL")
	first, second, other := b.signedIn(RoleEditor), b.signedIn(RoleEditor), b.signedIn(RoleAdmin)
	assert.Equal(t, 3, strings.Count(string(first.get("/app/sessions").raw), "<tr>"), "a head and two sessions")
	assert.Equal(t, 303, second.post("/app/sessions/end", nil).status)
	assert.Equal(t, 303, first.get("/app").status)
	assert.Equal(t, 303, second.get("/app").status)
	assert.Equal(t, 200, other.get("/app").status)
}

// The sessions of ADMIN_TOKEN end when it is another one.
func TestSessionsOfAdminToken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.browser()
	require.Equal(t, 303, w.post("/app/sign-in", url.Values{"token": {testAdminToken}}).status)
	require.Equal(t, 200, w.get("/app").status)
	for _, token := range []string{"another-token-of-the-tests", ""} {
		again := setupOn(t, b.pool, func(o *Options) { o.Tokens = NewTokens(o.Pool, token) })
		assert.Equal(t, 303, (&browser{b: again, cookie: w.cookie}).get("/app").status, token)
		if token == "" {
			continue
		}
		other := again.browser()
		require.Equal(t, 303, other.post("/app/sign-in", url.Values{"token": {token}}).status)
		assert.Equal(t, 2, strings.Count(string(other.get("/app/sessions").raw), "<tr>"), "a head and its own session")
	}
	assert.Equal(t, 200, w.get("/app").status)
	// One that the release before began gets its key when it is used.
	b.exec("UPDATE sessions SET admin_key = NULL, used_at = now() - interval '2 minutes' WHERE id = 1")
	assert.Equal(t, 2, strings.Count(string(w.get("/app/sessions").raw), "<tr>"))
}

// Guessing at the page to sign in uses up the allowance of the API, and the other
// way round.
func TestGuessesAtSignIn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range failuresAtOnce / 2 {
		require.Equal(t, 401, b.browser().post("/app/sign-in", url.Values{"token": {newSecret()}}).status)
		require.Equal(t, 401, b.browser().post("/app/sign-in", url.Values{"link": {newSecret()}}).status)
	}
	a := b.browser().post("/app/sign-in", url.Values{"token": {newSecret()}})
	assert.Equal(t, 429, a.status)
	assert.NotEmpty(t, a.header.Get("Retry-After"))
	assert.Contains(t, string(a.raw), "too many wrong tokens")
	b.want(429, 0, "GET", "/users", nil, "Authorization", "Bearer "+newSecret())
	guess := &browser{b: b, cookie: "__Host-signpost=AAAAAAAAAAAAAAAAAAAAAAAAAA"}
	assert.Equal(t, 429, guess.get("/app").status)
}

func TestForeignForms(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) { o.PublicURL = "http://sign.example" })
	w := b.signedIn(RoleEditor)
	for _, c := range []struct {
		name   string
		header map[string]string
		status int
	}{
		{"our own page", map[string]string{"Sec-Fetch-Site": "same-origin"}, 404},
		{"the address bar", map[string]string{"Sec-Fetch-Site": "none"}, 404},
		{"another site", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"another host of the site", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		{"another site that gives our origin", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "http://sign.example", "Host": "sign.example"}, 403},
		{"our own origin", map[string]string{"Origin": "http://sign.example", "Host": "sign.example"}, 404},
		{"another origin", map[string]string{"Origin": "http://evil.example", "Host": "sign.example"}, 403},
		{"another port", map[string]string{"Origin": "http://sign.example:81", "Host": "sign.example"}, 403},
		{"no origin", map[string]string{"Origin": "null"}, 403},
		{"a forwarded host, of no proxy", map[string]string{"Origin": "http://evil.example", "Host": "sign.example", "X-Forwarded-Host": "evil.example"}, 403},
		{"nothing", nil, 403},
	} {
		from := &browser{b: b, cookie: w.cookie, header: c.header}
		a := from.post("/app/links/1099511627776/delete", nil)
		assert.Equal(t, c.status, a.status, c.name)
		assert.Equal(t, "text/html; charset=utf-8", a.header.Get("Content-Type"), c.name)
	}
	without := &browser{b: b}
	assert.Equal(t, 303, without.post("/app/sign-in", url.Values{"token": {b.tokens[RoleReader]}}).status, "there is no session that could be used")
}

func TestForwardedHost(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) {
		o.AppURL, o.TrustedProxies = "https://app.example", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	header := map[string]string{"Host": "internal:8080", "X-Forwarded-Host": "app.example", "Origin": "https://app.example"}
	w := &browser{b: b, header: header}
	require.Equal(t, 303, w.post("/app/sign-in", url.Values{"token": {b.tokens[RoleReader]}}).status)
	a := w.get("/app")
	assert.Equal(t, 200, a.status)
	assert.Equal(t, "max-age=31536000", a.header.Get("Strict-Transport-Security"))
	header["Origin"] = "http://app.example"
	assert.Equal(t, 403, w.post("/app/sign-out", nil).status, "a page without TLS is another origin")
	// The dashboard is on no other host.
	for _, host := range []string{"sign.example", "internal:8080"} {
		header["X-Forwarded-Host"] = host
		a := w.get("/app")
		assert.Equal(t, 404, a.status, host)
		assert.Contains(t, string(a.raw), "The dashboard is at https://app.example/app.", host)
		assert.Equal(t, 404, w.get("/app/sign-in").status, host)
	}
}

// Without APP_URL the dashboard is on the hosts of the service, if these are known for sure:
// over TLS somebody has set PUBLIC_URL.
func TestHostsOfDashboardWithoutItsOwn(t *testing.T) {
	t.Parallel()
	own, err := links.ParseHosts("sign.example", "old.example")
	require.NoError(t, err)
	for public, hosts := range map[string]map[string]bool{
		"http://sign.example":  {"sign.example": true, "192.168.1.5:8080": true, "anything.example": true},
		"https://sign.example": {"sign.example": true, "SIGN.example.:443": true, "old.example": true, "192.168.1.5:8080": false, "localhost": false, "anything.example": false, "": false},
	} {
		a := &API{Options: Options{PublicURL: public, OwnHosts: own}}
		for host, is := range hosts {
			assert.Equal(t, is, a.isAppHost(host), "%s: %s", public, host)
		}
	}
	b := setup(t)
	w := b.browser()
	w.header["Host"] = "rebound.example"
	a := w.post("/app/sign-in", url.Values{"token": {b.tokens[RoleReader]}})
	assert.Equal(t, 404, a.status)
	assert.Contains(t, string(a.raw), "The dashboard is at https://sign.example/app.")
	assert.Empty(t, w.cookie)
}

// The host of the dashboard is known in every spelling, and the last proxy tells it.
func TestHostOfDashboard(t *testing.T) {
	t.Parallel()
	for own, hosts := range map[string]map[string]bool{
		"https://app.example:443":   {"app.example": true, "APP.example.": true, "app.example:443": true, "app.example:8443": false, "sign.example": false, "": false},
		"https://app.example":       {"app.example:443": true},
		"http://app.example:8080":   {"app.example:8080": true, "app.example": false},
		"https://bücher.example":    {"xn--bcher-kva.example": true, "bucher.example": false},
		"http://[2001:db8::1]:8080": {"[2001:db8:0::1]:8080": true, "[2001:db8::2]:8080": false},
	} {
		a := &API{Options: Options{AppURL: own}}
		for host, is := range hosts {
			assert.Equal(t, is, a.isAppHost(host), "%s: %s", own, host)
		}
	}
	b := setup(t, func(o *Options) {
		o.AppURL, o.TrustedProxies = "https://app.example", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	conn := b.dial()
	b.write(conn, "GET /app/sign-in HTTP/1.1\r\nHost: x\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Host: evil.example, app.example\r\n\r\n")
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	assert.Contains(t, line, " 200 ")
}

// appRoles are the least roles of the routes of the dashboard, 0 for open ones.
var appRoles = map[string]Role{
	"GET /app": RoleReader, "GET /app/links": RoleReader, "GET /app/links/:id": RoleReader, "GET /app/sessions": RoleReader,
	"POST /app/sessions/end": RoleReader, "GET /app/live": RoleReader, "GET /app/links/:id/live": RoleReader, "GET /app/*": RoleReader,
	"GET /app/links/new": RoleEditor, "POST /app/links/new": RoleEditor, "GET /app/links/:id/edit": RoleEditor, "POST /app/links/:id/edit": RoleEditor,
	"GET /app/links/:id/delete": RoleEditor, "POST /app/links/:id/delete": RoleEditor, "POST /app/links/:id/active": RoleEditor,
	"GET /app/links/:id/qr": RoleReader, "GET /app/links/:id/qr.svg": RoleReader, "GET /app/links/:id/qr.png": RoleReader,
	"GET /app/tags": RoleReader, "GET /app/tags/edit": RoleEditor, "POST /app/tags/edit": RoleEditor, "GET /app/tags/delete": RoleEditor, "POST /app/tags/delete": RoleEditor,
	"GET /app/links/:id/history": RoleReader, "POST /app/links/:id/put-back": RoleEditor,
	"GET /app/events": RoleReader, "GET /app/events/export": RoleReader, "GET /app/users": RoleReader, "GET /app/users/export": RoleReader,
	"GET /app/marks": RoleAdmin, "GET /app/marks/new": RoleAdmin, "POST /app/marks/new": RoleAdmin, "GET /app/marks/:id/delete": RoleAdmin,
	"POST /app/marks/:id/delete": RoleAdmin, "GET /app/users/new": RoleAdmin, "POST /app/users/new": RoleAdmin, "GET /app/users/:id/edit": RoleAdmin,
	"POST /app/users/:id/edit": RoleAdmin, "GET /app/users/:id/delete": RoleAdmin, "POST /app/users/:id/delete": RoleAdmin, "GET /app/domains": RoleAdmin,
	"GET /app/domains/new": RoleAdmin, "POST /app/domains/new": RoleAdmin, "GET /app/domains/:id/edit": RoleAdmin, "POST /app/domains/:id/edit": RoleAdmin,
	"GET /app/domains/:id/delete": RoleAdmin, "POST /app/domains/:id/delete": RoleAdmin, "GET /app/tokens": RoleAdmin, "GET /app/tokens/new": RoleAdmin,
	"POST /app/tokens/new": RoleAdmin, "GET /app/tokens/:id/revoke": RoleAdmin, "POST /app/tokens/:id/revoke": RoleAdmin, "GET /app/system": RoleAdmin,
	"GET /app/system/retry": RoleAdmin, "POST /app/system/retry": RoleAdmin, "GET /app/system/drop": RoleAdmin, "POST /app/system/drop": RoleAdmin,
	"GET /app/links/export": RoleReader, "GET /app/links/bulk": RoleEditor, "POST /app/links/bulk": RoleEditor, "POST /app/links/bulk/undo": RoleEditor, "GET /app/links/paste": RoleEditor, "POST /app/links/paste": RoleEditor,
	"GET /app/imports": RoleReader, "GET /app/imports/:id": RoleReader, "GET /app/imports/:id/rows": RoleReader,
	"GET /app/imports/:id/errors.csv": RoleReader, "GET /app/imports/:id/result.csv": RoleReader,
	"POST /app/imports": RoleEditor, "POST /app/imports/preview": RoleEditor, "GET /app/imports/samples/:file": RoleEditor,
	"POST /app/imports/:id/cancel": RoleEditor, "POST /app/imports/:id/retry": RoleEditor,
	"GET /app/imports/:id/undo": RoleEditor, "POST /app/imports/:id/undo": RoleEditor,
	"GET /app/sign-in": 0, "POST /app/sign-in": 0, "POST /app/sign-out": 0, "GET /app/assets/:hash/:file": 0,
}

func TestEveryPageAsksForItsRole(t *testing.T) {
	t.Parallel()
	b := setup(t)
	browsers := map[Role]*browser{0: b.browser(), RoleReader: b.signedIn(RoleReader), RoleEditor: b.signedIn(RoleEditor)}
	var seen []string
	for _, s := range b.routed() {
		name := s.method + " " + s.pattern
		if !s.ofApp() || s.method == "HEAD" {
			continue
		}
		seen = append(seen, name)
		role, known := appRoles[name]
		require.True(t, known, "%s is not in the list", name)
		for actor, w := range browsers {
			if role == 0 || name == "POST /app/sessions/end" && actor != 0 {
				continue
			}
			a := (&browser{b: b, cookie: w.cookie, header: w.header}).do(s.method, strings.ReplaceAll(s.path(1<<40), "*", "nothing"), "")
			switch {
			case actor == 0 && strings.HasSuffix(s.pattern, "/live"):
				assert.Equal(t, 401, a.status, name)
			case actor == 0:
				assert.Equal(t, 303, a.status, name)
				assert.Contains(t, a.header.Get("Location"), "/app/sign-in", name)
			case actor < role:
				assert.Equal(t, 403, a.status, name)
			default:
				assert.NotContains(t, []int{303, 401, 403}, a.status, name)
				assert.Less(t, a.status, 500, name)
			}
		}
	}
	assert.Len(t, seen, len(appRoles))
}

// A role is not shown actions that it may not do.
func TestPagesShowWhatARoleMayDo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for role, may := range map[Role]bool{RoleReader: false, RoleEditor: true} { // there is nothing yet
		w := b.signedIn(role)
		for _, path := range []string{"/app", "/app/links"} {
			page := string(w.get(path).raw)
			assert.Equal(t, may, strings.Contains(page, "/app/links/new"), "%s: %s", role, path)
			assert.Equal(t, may, strings.Contains(page, "New link"), "%s: %s", role, path)
			assert.Equal(t, may, strings.Contains(strings.ToLower(page), "import those you have"), "%s: %s", role, path)
		}
	}
	for role, may := range map[Role]bool{RoleEditor: false, RoleAdmin: true} {
		page := string(b.signedIn(role).get("/app/links/new").raw)
		assert.Equal(t, may, strings.Contains(page, `name="username"`), role)
		assert.Equal(t, !may, strings.Contains(page, "An administrator can add somebody"), role)
	}
	refused := b.signedIn(RoleReader).get("/app/links/new")
	assert.Equal(t, 403, refused.status)
	assert.Contains(t, string(refused.raw), "/app/sign-out", "the page is in its frame")

	link := b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": b.user("ann"), "original_url": "https://example.com/"}).id()
	for role, may := range map[Role]bool{RoleReader: false, RoleEditor: true} {
		w := b.signedIn(role)
		overview, page := string(w.get("/app").raw), string(w.get(appLink(link)).raw)
		assert.Equal(t, may, strings.Contains(overview, "/app/links/new"), role)
		for _, form := range []string{"/edit", "/delete", "/active"} {
			assert.Equal(t, may, strings.Contains(page, appLink(link)+form), "%s: %s", role, form)
		}
	}
}

func TestHeadersOfPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.signedIn(RoleReader)
	for _, path := range []string{"/app", "/app/links", "/app/sessions", "/app/nothing", "/app/links/0", "/app/sign-in", "/app/links?%ff"} {
		a := w.get(path)
		assert.Equal(t, appPolicy, a.header.Get("Content-Security-Policy"), path)
		assert.Equal(t, "nosniff", a.header.Get("X-Content-Type-Options"), path)
		assert.Equal(t, "same-origin", a.header.Get("Referrer-Policy"), path)
		assert.Equal(t, "no-store", a.header.Get("Cache-Control"), path)
		assert.Equal(t, "max-age=31536000", a.header.Get("Strict-Transport-Security"), path)
		assert.NotContains(t, string(a.raw), " style=", path)
		assert.NotContains(t, string(a.raw), "<style", path)
		assert.NotContains(t, string(a.raw), "<script>", path)
	}
	assert.NotContains(t, appPolicy, "unsafe")
	assert.NotContains(t, appPolicy, "nonce")
}

// Large pages and answers of the API arrive whole, whether or not a client takes them packed.
func TestLargeAnswersAreWhole(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	noise := func(n int) (text string) { // large when it is packed too
		for range n {
			text += rand.Text()
		}
		return text
	}
	for range 25 {
		b.newLink(ann, "https://example.com/"+noise(10), object{"title": noise(8)})
	}
	w := b.signedIn(RoleEditor)
	// A form with a fault is given back.
	form := url.Values{"key": {"large"}, "lines": {"https://example.com/" + noise(1000)}, "user_id": {"nobody"}}
	_, style, _ := strings.Cut(string(w.get("/app").raw), `<link rel="stylesheet" href="`)
	style, _, _ = strings.Cut(style, `"`)
	for _, coding := range []string{"identity", "gzip"} {
		w.header["Accept-Encoding"] = coding
		for name, a := range map[string]answer{
			"list": w.get("/app/links"), "form": w.post("/app/links/paste", form), "style": w.get(style),
			"API": b.want(200, RoleReader, "GET", "/urls", nil, "Accept-Encoding", coding),
		} {
			text := a.raw
			if a.header.Get("Content-Encoding") == "gzip" {
				r, err := gzip.NewReader(bytes.NewReader(a.raw))
				require.NoError(t, err, name)
				text, err = io.ReadAll(r)
				require.NoError(t, err, name)
			}
			assert.Greater(t, len(text), heldLeast, "%s, %s", name, coding)
			assert.Regexp(t, `(</html>|})\s*$`, string(text), "%s, %s", name, coding)
		}
	}
}

func TestAssets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	page := string(b.browser().get("/app/sign-in").raw)
	_, rest, _ := strings.Cut(page, `<link rel="stylesheet" href="`)
	path, _, _ := strings.Cut(rest, `"`)
	for _, name := range []string{"app.css", "app.js", "parts.js", "dialog.js", "live.js", "times.js", "chart.js", "many.js", "imports.js"} {
		a := b.browser().get(strings.Replace(path, "app.css", name, 1))
		assert.Equal(t, 200, a.status, name)
		assert.Equal(t, "public, max-age=31536000, immutable", a.header.Get("Cache-Control"), name)
		assert.Contains(t, a.header.Get("Vary"), "Accept-Encoding", name)
		assert.NotEmpty(t, a.raw, name)
	}
	a := b.browser().get("/app/assets/0000000000000000/app.css")
	assert.Equal(t, 404, a.status, "of another release")
	assert.Equal(t, "no-store", a.header.Get("Cache-Control"))

	give, err := b.api.held.take(Actor{}, heldBytes/2)
	require.NoError(t, err)
	defer give()
	w := b.browser()
	w.header["Accept-Encoding"] = "identity"
	a = w.get(path)
	assert.GreaterOrEqual(t, a.status, 400, "too many read it slowly")
	assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
}

func appLink(id int64) string { return "/app/links/" + service.Link{ID: id}.Path()[len("/urls/"):] }

func TestLinkForms(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.signedIn(RoleAdmin)
	// The first link brings its owner with it.
	a := w.post("/app/links/new", url.Values{"original_url": {"https://example.com/a"}, "username": {"ann"}, "email": {"no address"}})
	assert.Equal(t, 400, a.status)
	assert.Contains(t, string(a.raw), `id="email-fault"`)
	a = w.post("/app/links/new", url.Values{"original_url": {"example"}, "username": {"ann"}, "email": {"ann@example.com"}})
	assert.Equal(t, 400, a.status)
	assert.Contains(t, string(a.raw), `id="original_url-fault"`)
	assert.Contains(t, string(a.raw), `selected>ann<`, "she is made, and chosen")

	owner := b.want(200, RoleAdmin, "GET", "/users", nil).rows()[0]["id"].(float64)
	form := url.Values{
		"user_id": {service.Link{ID: int64(owner)}.Path()[len("/urls/"):]}, "original_url": {"https://example.com/a"}, "short_code": {"spring"},
		"title": {"Spring"}, "tags": {"sale, news"}, "expires_at": {""}, "domain": {""}, "redirect_status": {"307"}, "forward_query": {"false", "true"},
	}
	a = w.post("/app/links/new", form)
	require.Equal(t, 303, a.status, "%s", a.raw)
	path, _, _ := strings.Cut(a.header.Get("Location"), "?")
	link := b.want(200, RoleAdmin, "GET", "/urls", nil).rows()[0]
	assert.Equal(t, "https://sign.example/spring", link["short_url"])
	assert.Equal(t, []any{"sale", "news"}, link["tags"])
	assert.Equal(t, 307.0, link["redirect_status"])
	assert.Equal(t, true, link["forward_query"])
	assert.Equal(t, "Spring", link["title"])
	assert.Contains(t, string(w.get(a.header.Get("Location")).raw), "The link is made.")

	// Faults are said while one types, and nothing is written.
	a = w.get("/app/links/new?check=&original_url=&short_code=a+b&title=x")
	assert.Equal(t, 200, a.status)
	assert.Contains(t, string(a.raw), `id="short_code-fault"`)
	assert.NotContains(t, string(a.raw), `id="original_url-fault"`)
	assert.Contains(t, string(w.get("/app/links/new?check=&short_code=spring").raw), `id="short_code-fault">is taken`)
	a = w.get("/app/links/new?check=&short_code=spring&domain=elsewhere.example")
	assert.Contains(t, string(a.raw), `id="domain-fault"`)
	assert.NotContains(t, string(a.raw), `id="short_code-fault"`)
	a = w.get(path + "/edit?check=&original_url=example")
	assert.Contains(t, string(a.raw), `id="original_url-fault"`)

	a = w.post("/app/links/new", form)
	assert.Equal(t, 409, a.status)
	assert.Contains(t, string(a.raw), `id="short_code-fault">is taken`)
	for field, wrong := range map[string]string{
		"original_url": "javascript:alert(1)", "short_code": "a b", "title": strings.Repeat("x", 256), "tags": strings.Repeat("x", 101),
		"expires_at": "yesterday", "domain": "elsewhere.example", "redirect_status": "200", "user_id": "1000000",
	} {
		bad := url.Values{}
		for name, values := range form {
			bad[name] = values
		}
		bad.Set("short_code", "other")
		bad.Set(field, wrong)
		for _, to := range []string{"/app/links/new", path + "/edit"} {
			a = w.post(to, bad)
			assert.Equal(t, 400, a.status, "%s %s", to, field)
			assert.Contains(t, string(a.raw), `id="`+field+`-fault"`, to)
			assert.Contains(t, string(a.raw), `aria-describedby="`+field+`-fault" autofocus`, to)
		}
	}

	form.Set("title", "")
	form.Set("expires_at", "2099-01-31T12:30")
	form["forward_query"] = []string{"false"}
	require.Equal(t, 303, w.post(path+"/edit", form).status)
	link = b.want(200, RoleAdmin, "GET", "/urls", nil).rows()[0]
	assert.Nil(t, link["title"])
	assert.Equal(t, "2099-01-31T12:30:00Z", link["expires_at"])
	assert.Equal(t, false, link["forward_query"])
	assert.Contains(t, string(w.get(path+"/edit").raw), `value="2099-01-31T12:30"`)

	require.Equal(t, 303, w.post(path+"/active", url.Values{"is_active": {"false"}}).status)
	assert.Contains(t, string(w.get(path).raw), `<span class="state off">`)
	assert.Equal(t, 410, b.do(0, "GET", "/spring", nil).status)
	require.Equal(t, 303, w.post(path+"/active", url.Values{"is_active": {"true"}}).status)
	assert.Equal(t, 307, b.do(0, "GET", "/spring", nil).status)

	assert.Contains(t, string(w.get(path+"/delete").raw), "Delete sign.example/spring?")
	require.Equal(t, 303, w.post(path+"/delete", nil).status)
	assert.Equal(t, 404, w.get(path).status)
}

var hiddenField = regexp.MustCompile(`<input type="hidden" name="(shown_[a-z_]+)" value="([^"]*)">`)

// A form changes only what somebody has touched: neither what others have changed since,
// nor the seconds of a time, which it does not show.
func TestFormsLeaveTheRestAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	link := b.want(201, RoleAdmin, "POST", "/urls", object{
		"user_id": b.user("ann"), "original_url": "https://example.com/a", "title": "a & \"b\"", "tags": []string{"sale", "news"},
		"expires_at": "2099-01-31T12:30:45Z", "forward_query": true,
	})
	w := b.signedIn(RoleEditor)
	path := appLink(link.id())
	form := url.Values{}
	for _, field := range hiddenField.FindAllStringSubmatch(string(w.get(path+"/edit").raw), -1) {
		value := html.UnescapeString(field[2])
		form.Set(field[1], value)
		form.Set(strings.TrimPrefix(field[1], "shown_"), value)
	}
	require.Len(t, form, 18)
	form["forward_query"] = []string{"false", "true"} // as a box that is ticked is sent
	b.want(200, RoleAdmin, "PATCH", service.Link{ID: link.id()}.Path(), object{"original_url": "https://example.com/b"})

	form.Set("title", strings.Repeat("x", 256))
	a := w.post(path+"/edit", form)
	require.Equal(t, 400, a.status)
	assert.Len(t, hiddenField.FindAllString(string(a.raw), -1), 9, "they are kept")
	form.Set("title", "c")
	require.Equal(t, 303, w.post(path+"/edit", form).status)
	got := b.want(200, RoleAdmin, "GET", service.Link{ID: link.id()}.Path(), nil).body
	assert.Equal(t, "c", got["title"])
	assert.Equal(t, "https://example.com/b", got["original_url"])
	assert.Equal(t, "2099-01-31T12:30:45Z", got["expires_at"])
	assert.Equal(t, []any{"sale", "news"}, got["tags"])
	assert.Equal(t, true, got["forward_query"])

	form.Set("expires_at", "")
	form["forward_query"] = []string{"false"}
	require.Equal(t, 303, w.post(path+"/edit", form).status)
	got = b.want(200, RoleAdmin, "GET", service.Link{ID: link.id()}.Path(), nil).body
	assert.Nil(t, got["expires_at"])
	assert.Equal(t, false, got["forward_query"])
}

func TestForeignBodies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.signedIn(RoleAdmin)
	assert.Equal(t, 400, w.do("POST", "/app/links/new", "title=%ff").status)
	assert.Equal(t, 400, w.do("POST", "/app/links/new", "title=%00").status)
	assert.Equal(t, 413, w.do("POST", "/app/links/new", "title="+strings.Repeat("x", maxBody)).status)
	w.header["Content-Type"] = "application/json"
	assert.Equal(t, 415, w.do("POST", "/app/links/new", "{}").status)
}

// Texts of strangers stay texts.
func TestPagesEscape(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	hostile := `"><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}`
	link := b.want(201, RoleAdmin, "POST", "/urls", object{
		"user_id": ann, "original_url": "https://example.com/?q=%22%3E<script>alert(2)</script>'\"", "title": hostile, "tags": []string{`<b onclick="x">`},
	}).id()
	// Programs that click say who they are, and imported clicks may have any details.
	now := time.Now().UTC()
	for _, kind := range []string{"person", "bot"} {
		b.clicked(rollup.Event{URLID: link, UserID: ann, At: now, Kind: kind, Country: hostile, Referrer: hostile, Browser: hostile, System: hostile, Device: hostile})
	}
	b.exec(`INSERT INTO events (occurred_at, url_id, event_type, details)
		VALUES ($1, $2, 'clicked', jsonb_build_object('referrer', $3::text, 'device', $3::text, 'country', $3::text, 'kind', $3::text))`, now, link, hostile)
	w := b.signedIn(RoleAdmin)
	assert.GreaterOrEqual(t, strings.Count(string(w.get(appLink(link)).raw), "&lt;script&gt;alert(1)"), 12, "in breakdowns and in the feed")
	for _, path := range []string{
		"/app", "/app/links", appLink(link), appLink(link) + "/edit", appLink(link) + "/delete",
		"/app/links?q=" + url.QueryEscape(hostile), "/app/links?tag=" + url.QueryEscape(hostile), "/app/links?domain=" + url.QueryEscape(hostile),
		appLink(link) + "?country=" + url.QueryEscape(hostile), appLink(link) + "?from=" + url.QueryEscape(hostile), "/app?tz=" + url.QueryEscape(hostile),
		"/app/links?sort=" + url.QueryEscape(hostile), "/app/links?cursor=" + url.QueryEscape(hostile), "/app/sign-in?next=" + url.QueryEscape("/app/"+hostile),
	} {
		page := string(w.get(path).raw)
		assert.NotContains(t, page, "<script>alert", path)
		assert.NotContains(t, page, "<img src=x", path)
		assert.NotContains(t, page, "<b onclick", path)
	}
}

// headOf is the link of the head of a column.
var headOf = regexp.MustCompile(`<a href="/app/links\?sort=([-a-z_]*)"`)

func TestListOfLinks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	for i := range 30 {
		code := "code" + string(rune('a'+i%26)) + string(rune('a'+i/26))
		b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": ann, "original_url": "https://example.com/" + code, "short_code": code, "tags": []string{"all"}, "is_active": i != 3})
	}
	w := b.signedIn(RoleReader)
	rows := func(path string) int { return strings.Count(string(w.get(path).raw), `<th scope="row">`) }
	assert.Equal(t, 25, rows("/app/links"))
	for _, sort := range []string{"", "oldest", "-people", "clicks", "-last_clicked_at"} {
		page := string(w.get("/app/links?sort=" + sort).raw)
		_, next, found := strings.Cut(page, `<a class="button quiet" href="`)
		require.True(t, found, sort)
		next, _, _ = strings.Cut(next, `"`)
		assert.Equal(t, 5, rows(strings.ReplaceAll(next, "&amp;", "&")), sort)
	}
	// The form of the search has the order too, in which the heads of the columns put the list.
	for _, sort := range []string{"", "oldest", "-people", "people", "-clicks", "clicks", "-last_clicked_at", "last_clicked_at"} {
		a := w.get("/app/links?sort=" + sort)
		assert.Equal(t, 200, a.status, sort)
		assert.Equal(t, 1, strings.Count(string(a.raw), `<option value="`+sort+`" selected>`), sort)
		heads := headOf.FindAllStringSubmatch(string(a.raw), -1)
		assert.NotEmpty(t, heads)
		for _, head := range heads {
			assert.Contains(t, string(a.raw), `<option value="`+head[1]+`"`)
		}
	}
	assert.Equal(t, 1, rows("/app/links?q=codeca"))
	assert.Equal(t, 1, rows("/app/links?state=off"))
	assert.Equal(t, 0, rows("/app/links?tag=none"))
	for path, field := range map[string]string{
		"/app/links?q=" + strings.Repeat("x", 2049): "q", "/app/links?tag=" + strings.Repeat("x", 51): "tag", "/app/links?domain=" + strings.Repeat("x", 254): "domain",
		"/app/links?q=ab": "q", "/app/links?state=x": "state", "/app/links?user_id=x": "user_id", "/app/links?sort=x": "sort", "/app/links?sort=-oldest": "sort", "/app/links?cursor=x": "cursor", "/app/links?domain=x.example": "domain",
	} {
		a := w.get(path)
		assert.Equal(t, 400, a.status, path)
		assert.Contains(t, string(a.raw), `id="`+field+`-fault"`, path)
	}
}

func TestWrongRangeIsSaidBesideItsField(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": b.user("ann"), "original_url": "https://example.com/"})
	w := b.signedIn(RoleReader)
	for query, field := range map[string]string{"range=x": "range", "from=x": "from", "to=x": "to", "tz=x": "tz"} {
		a := w.get("/app?" + query)
		assert.Equal(t, 400, a.status, query)
		assert.Contains(t, string(a.raw), `id="`+field+`-fault"`, query)
	}
	assert.Equal(t, 200, w.get("/app?from=2026-01-01&to=2026-02-01&tz=Europe/Berlin").status)
	// The time before this one begins too early to be counted. To read 16 years may take
	// longer than a page may on a busy machine.
	b.until("it is counted", func() bool { return w.get("/app?from=2010-01-01").status == 200 })
}

// A page whose filters cannot be answered shows them, so that one can take some away.
func TestPageWithoutNumbers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := appLink(b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": b.user("ann"), "original_url": "https://example.com/"}).id())
	a := b.signedIn(RoleReader).get(path + "?browser=(other)&country=DE")
	assert.Equal(t, 422, a.status)
	assert.Contains(t, string(a.raw), "This cannot be counted")
	assert.Contains(t, string(a.raw), "browser: all others")
	assert.Contains(t, string(a.raw), `href="`+path+`?country=DE"`)
}

// A feed ends when its session does, although the token of a long request is looked at
// much more seldom.
func TestFeedEndsWithItsSession(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.api.listeners.life, b.api.clientLimits.recheckToken = time.Hour, time.Hour
	w := b.signedIn(RoleReader)
	conn := b.dial()
	b.write(conn, "GET /app/live HTTP/1.1\r\nHost: sign.example\r\nCookie: %s\r\n\r\n", w.cookie)
	lines := bufio.NewReader(conn)
	for line := ""; line != "event: ready\n"; {
		var err error
		line, err = lines.ReadString('\n')
		require.NoError(t, err)
	}
	b.exec("UPDATE api_tokens SET revoked_at = now() WHERE role = 'reader'")
	rest, err := io.ReadAll(untilEnd{lines})
	require.NoError(t, err)
	assert.NotEmpty(t, rest)
}

// untilEnd reads a chunked body to its last chunk.
type untilEnd struct{ *bufio.Reader }

func (r untilEnd) Read(p []byte) (int, error) {
	line, err := r.ReadString('\n')
	if line == "0\r\n" {
		err = io.EOF
	}
	return copy(p, line), err
}
