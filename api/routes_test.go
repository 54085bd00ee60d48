package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/require"
)

// served is one route of the router.
type served struct{ method, pattern string }

// served returns every route of the router and of short links, so that no test can forget
// one, except for those of the dashboard, whose tests are in app_test.go.
func (b *bundle) served() []served {
	return slices.DeleteFunc(b.routed(), served.ofApp)
}

// routed returns all routes.
func (b *bundle) routed() []served {
	var all []served
	for _, stack := range b.api.app.Stack() {
		for _, r := range stack {
			s := served{r.Method, r.Path}
			// Handlers that stand before all routes match every path and are no routes.
			if r.Path != "/" && !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	for _, method := range []string{"GET", "HEAD"} { // the routes of links are not in the router
		all = append(all, served{method, "/"}, served{method, routeShort}, served{method, routeLong})
	}
	if len(all) < 30 {
		b.t.Fatalf("the router has only %d routes: %v", len(all), all)
	}
	return all
}

// ofApp reports whether the route is one of the dashboard.
func (s served) ofApp() bool { return s.pattern == "/app" || strings.HasPrefix(s.pattern, "/app/") }

// path fills the parameters of a pattern.
func (s served) path(id any) string {
	path := strings.ReplaceAll(s.pattern, ":id", fmt.Sprint(id))
	path = strings.ReplaceAll(path, ":batch", "nothing")
	path = strings.ReplaceAll(path, ":name", "nothing")
	path = strings.ReplaceAll(path, ":code", "nothing")
	path = strings.ReplaceAll(path, ":dimension", "countries")
	path = strings.ReplaceAll(path, ":size", "-120x120")
	return strings.ReplaceAll(path, ":file", "start.js")
}

// takesJSON says whether a route reads a JSON body.
func (s served) takesJSON() bool {
	switch s.pattern {
	case "/imports", "/imports/preview", "/users/bulk", "/imports/:id/cancel", "/imports/:id/retry", "/imports/:id/undo", "/admin/batches/:batch/retry":
		return false
	}
	return s.method == "POST" || s.method == "PUT" || s.method == "PATCH" || s.method == "DELETE" && s.pattern == "/urls/bulk"
}

// open are the routes that need no token, by pattern.
var open = []string{
	"/", "/robots.txt", "/favicon.ico", "/apple-touch-icon.png", "/apple-touch-icon:size.png", "/.well-known/security.txt", "/health", "/ready", "/openapi.json", "/docs", "/docs/:file", "/r/:code", "/:code",
}

// roleOf returns the least role that the contract requires for a route, 0 for an open
// one.
func (s served) roleOf() Role {
	reading := s.method == "GET" || s.method == "HEAD"
	switch resource, _, _ := strings.Cut(s.pattern[1:], "/"); {
	case slices.Contains(open, s.pattern):
		return 0
	case resource == "tokens", resource == "domains", resource == "marks", resource == "admin", resource == "users" && !reading:
		return RoleAdmin
	case resource == "urls" && !reading, resource == "tags" && !reading, resource == "imports" && !reading:
		return RoleEditor
	default:
		return RoleReader
	}
}

func TestEveryRouteAsksForItsRole(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, s := range b.served() {
		for role := Role(0); role <= RoleAdmin; role++ {
			// The id exists nowhere, so that nothing changes.
			a := b.do(role, s.method, s.path(1<<40), nil)
			want := 0
			switch {
			case s.roleOf() == 0:
			case role == 0:
				want = 401
			case role < s.roleOf():
				want = 403
			}
			refused := a.status == 401 || a.status == 403
			if refused != (want != 0) || want != 0 && a.status != want {
				t.Errorf("%s %s as %s: %d %s, want %d", s.method, s.pattern, role, a.status, a.raw, want)
			}
			if a.status >= 400 && s.method != "HEAD" {
				checkShape(t, s.method+" "+s.pattern, a)
			}
			if want == 403 && s.method != "HEAD" && !strings.Contains(string(a.raw), s.roleOf().String()) {
				t.Errorf("%s %s: the answer does not say which role is needed: %s", s.method, s.pattern, a.raw)
			}
		}
	}
}

// hostileBodies are bodies that no route accepts, with the status that a route which
// reads JSON answers.
var hostileBodies = []struct {
	name, body, contentType string
	status                  int
}{
	{"nothing", "", "", 400},
	{"empty", "", "application/json", 400},
	{"cut off", `{"username":`, "application/json", 400},
	{"garbage", "\x00\x01\x02", "application/json", 400},
	{"two values", `{} {}`, "application/json", 400},
	{"array", `[]`, "application/json", 400},
	{"null", `null`, "application/json", 400},
	{"string", `"x"`, "application/json", 400},
	{"number", `1e999`, "application/json", 400},
	{"invalid UTF-8", "{\"username\":\"\xff\"}", "application/json", 400},
	{"huge number", `{"user_id":1e999,"name":1e999,"username":1e999}`, "application/json", 400},
	{"deep", strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000), "application/json", 400},
	{"deep array", strings.Repeat("[", 20_000), "application/json", 400},
	{
		"wrong types", `{"username":1,"email":[],"user_id":"x","original_url":{},"short_code":true,"title":7,` +
			`"tags":"x","is_active":"yes","expires_at":12,"redirect_status":"302","forward_query":1,"name":{},"role":0,"host":1}`,
		"application/json", 400,
	},
	{
		"NUL", `{"username":"a\u0000","email":"a\u0000@example.com","user_id":1,"original_url":"https://example.com/\u0000",` +
			`"title":"\u0000","tags":["\u0000"],"short_code":"\u0000","name":"\u0000","role":"\u0000","host":"\u0000"}`, "application/json", 400,
	},
	{"form", "username=a", "application/x-www-form-urlencoded", 415},
	{"text", `{}`, "text/plain", 415},
	{"nonsense type", `{}`, "\"", 415},
	{"broken multipart", "--x", "multipart/form-data", 415},
	{"oversized", `{"username":"` + strings.Repeat("a", maxBody) + `"}`, "application/json", 413},
}

func TestHostileBodies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.user("ann")
	for _, s := range b.served() {
		for _, h := range hostileBodies {
			if s.method == "HEAD" || s.method == "DELETE" && s.pattern == "/users/:id" {
				continue
			}
			what := s.method + " " + s.pattern + " with " + h.name
			a := b.do(RoleAdmin, s.method, s.path(id), h.body, "Content-Type", h.contentType)
			if s.takesJSON() && a.status != h.status {
				t.Errorf("%s: %d %s, want %d", what, a.status, a.raw, h.status)
			}
			checkAnswer(t, what, a)
		}
	}
	// If the length of a body is not announced, no more of it is read either.
	for _, s := range b.served() {
		if s.takesJSON() {
			what := s.method + " " + s.pattern + " with an oversized body in chunks"
			body := strings.NewReader(`{"x":"` + strings.Repeat("a", 2*maxBody) + `"}`)
			a := b.stream(s.method, s.path(id), body)
			if a.status != 413 {
				t.Errorf("%s: %d %s", what, a.status, a.raw)
			}
			checkShape(t, what, a)
		}
	}
}

// checkAnswer fails the test if an answer is an error of the server, or an error
// without the shape of errors.
func checkAnswer(t *testing.T, what string, a answer) {
	t.Helper()
	if a.status >= 500 {
		t.Errorf("%s: %d %s", what, a.status, a.raw)
	}
	if a.status >= 400 {
		checkShape(t, what, a)
	}
}

func TestHostileParameters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := []string{
		"0", "-1", "abc", "1.5", "9223372036854775808", "-9223372036854775809", "99999999999999999999999999",
		"1e3", "0x1", "+1", "1_0", "%00", "%ff", "%2e%2e", "1%00", "%20", "1%2F2", "null", "' OR 1=1--", "١", strings.Repeat("9", 4000),
	}
	queries := []string{
		"limit=0", "limit=101", "limit=-1", "limit=x", "limit=", "limit=9223372036854775808", "page=0", "page=10001", "page=x",
		"per_page=0", "per_page=101", "cursor=x", "cursor=%00", "cursor=%ff", "cursor=" + strings.Repeat("A", 5000),
		"cursor=" + makeCursor("users", -1<<63), "cursor=" + makeCursor("events", -1<<63, 0), "cursor=" + makeCursor("urls", 1, 2),
		"cursor=" + makeCursor("users", 1) + "&page=2", "user_id=0", "user_id=x", "user_id=9223372036854775808", "url_id=-1",
		"is_active=maybe", "tag=%00", "tag=%ff", "tag=" + strings.Repeat("a", 51), "search=%00", "search=%ff%fe", "search=%25_%5C",
		"search=" + strings.Repeat("a", 2049), "event_type=none", "event_type=%00", "from=yesterday", "from=%00",
		"from=0000-01-01T00:00:00Z", "from=99999-01-01T00:00:00Z", "to=2026-13-01T00:00:00Z", "to=x", "kind=none", "kind=%00",
		"%00=%00", "%=%", "&&&===", "limit=1&limit=2",
	}
	for _, s := range b.served() {
		if s.method == "HEAD" {
			continue
		}
		if strings.Contains(s.pattern, ":id") {
			for _, id := range ids {
				path := s.path(strings.ReplaceAll(id, " ", "%20"))
				a := b.do(RoleAdmin, s.method, path, object{})
				if a.status != 404 && a.status != 405 { // 1%2F2 is another route
					t.Errorf("%s %s: %d %s", s.method, path, a.status, a.raw)
				}
				checkAnswer(t, s.method+" "+path, a)
			}
		}
		if strings.Contains(s.pattern, ":id") { // not even this is told to everyone
			checkShape(t, s.pattern, b.want(401, 0, s.method, s.path("abc"), nil))
		}
		for _, query := range queries {
			path := s.path(1<<40) + "?" + query
			checkAnswer(t, s.method+" "+path, b.do(RoleAdmin, s.method, path, nil))
		}
	}
	// On lists, each of these is refused with a reason.
	for path, field := range map[string]string{
		"/users?limit=0": "limit", "/users?limit=101": "limit", "/users?limit=x": "limit", "/users?page=0": "page",
		"/users?page=10001": "page", "/users?per_page=101": "per_page", "/users?cursor=x": "cursor",
		"/users?cursor=" + makeCursor("urls", 1): "cursor", "/users?page=1&cursor=" + makeCursor("users", 1): "cursor",
		"/urls?page=1&cursor=" + makeCursor("urls", 1): "cursor", "/urls?user_id=0": "user_id", "/urls?is_active=maybe": "is_active",
		"/urls?tag=%00": "tag", "/urls?search=%ff": "search", "/events?url_id=x": "url_id", "/events?event_type=none": "event_type",
		"/events?from=yesterday": "from", "/events?to=2026-13-01T00:00:00Z": "to",
		"/events?cursor=" + makeCursor("events", 1<<62, 0): "cursor", "/tokens?limit=1000": "limit",
	} {
		if a := b.want(400, RoleAdmin, "GET", path, nil); len(a.fields()) != 1 || a.fields()[field] == "" {
			t.Errorf("GET %s: fields %v, want %s", path, a.fields(), field)
		}
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	b := setup(t)
	allowed := map[string][]string{}
	for _, s := range b.served() {
		allowed[s.path(1)] = append(allowed[s.path(1)], s.method)
	}
	methods := []string{
		"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO", "PROPFIND", "get", "M-SEARCH",
		strings.Repeat("X", 200),
	}
	for path, served := range allowed {
		// The word bulk might also be the id of a user or link.
		if resource, bulk := strings.CutSuffix(path, "/bulk"); bulk {
			served = append(served, allowed[resource+"/1"]...)
		}
		if path == "/imports/preview" { // likewise
			served = append(served, allowed["/imports/1"]...)
		}
		for _, method := range methods {
			if slices.Contains(served, method) {
				continue
			}
			a := b.want(405, RoleAdmin, method, path, nil)
			got := strings.Split(strings.ReplaceAll(a.header.Get("Allow"), " ", ""), ",")
			slices.Sort(got)
			slices.Sort(served)
			if want := slices.Compact(slices.Clone(served)); !slices.Equal(got, want) {
				t.Errorf("%s %s: Allow is %v, want %v", method, path, got, want)
			}
		}
	}
}

func TestUnknownPaths(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, path := range []string{
		"/users/", "/USERS/1", "/users/1/2", "/r/", "/r/a/b", "/a/b", "/docs/", "/docs/index.html", "/docs/%2e%2e%2fapi.go", "/docs/..%2fgo.mod",
		"/docs/swagger-ui.css.map", "/debug/pprof/", "/schemas/Error.json", "/" + strings.Repeat("a/", 5000), "//", "/%00/%ff", "/r/%00/x",
		"/.git/config", "/;/../..", "/users/1/", "/urls/1/errors",
	} {
		for _, method := range []string{"GET", "POST", "FOO"} {
			a := b.do(RoleAdmin, method, path, nil)
			if a.status != 404 && a.status != 400 && (method == "GET" || a.status != 405) {
				t.Errorf("%s %s: %d %s", method, path, a.status, a.raw)
			}
			checkAnswer(t, method+" "+path, a)
		}
	}
}

func TestSpecificationHasEveryRoute(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := b.want(200, 0, "GET", "/openapi.json", nil)
	var spec struct {
		OpenAPI    string
		Paths      map[string]map[string]operation
		Components struct {
			Schemas         map[string]any
			SecuritySchemes map[string]any
		}
	}
	require.NoError(t, json.Unmarshal(a.raw, &spec))
	if spec.OpenAPI != "3.1.0" || spec.Components.SecuritySchemes[tokenScheme] == nil {
		t.Errorf("version %q, security %v", spec.OpenAPI, spec.Components.SecuritySchemes)
	}
	described := 0
	for _, s := range b.served() {
		if s.method == "HEAD" {
			continue
		}
		path := s.pattern
		for _, name := range []string{"id", "code", "file", "size", "dimension", "name", "batch"} {
			path = strings.ReplaceAll(path, ":"+name, "{"+name+"}")
		}
		op, ok := spec.Paths[path][strings.ToLower(s.method)]
		if !ok {
			t.Errorf("%s %s is not described", s.method, path)
			continue
		}
		described++
		if _, own := op.Responses["422"]; own != strings.Contains(path, "/stats") {
			t.Errorf("%s %s: answers 422 is %v", s.method, path, own)
		}
		op.check(t, s, spec.Components.Schemas)
	}
	for path, ops := range spec.Paths {
		described -= len(ops)
		if len(ops) == 0 {
			t.Errorf("%s has no operation", path)
		}
	}
	if described != 0 {
		t.Errorf("%d operations are described that nothing serves", -described)
	}
	if strings.Contains(string(a.raw), "problem+json") {
		t.Error("the specification has errors of another shape")
	}
}

type operation struct {
	Summary   string
	Security  []map[string]any
	Responses map[string]struct {
		Content map[string]struct {
			Schema map[string]any
		}
	}
}

func (op operation) check(t *testing.T, s served, schemas map[string]any) {
	t.Helper()
	if op.Summary == "" || (len(op.Security) > 0) != (s.roleOf() > 0) {
		t.Errorf("%s %s: summary %q, security %v", s.method, s.pattern, op.Summary, op.Security)
	}
	for status, response := range op.Responses {
		if status < "400" {
			continue
		}
		ref, _ := response.Content["application/json"].Schema["$ref"].(string)
		if name, ok := strings.CutPrefix(ref, "#/components/schemas/"); !ok || name != "Error" || schemas[name] == nil {
			t.Errorf("%s %s: the schema of a %s is %q", s.method, s.pattern, status, ref)
		}
	}
	if s.roleOf() > 0 {
		for _, status := range []string{"400", "401", "403", "429", "503"} {
			if _, ok := op.Responses[status]; !ok {
				t.Errorf("%s %s: no %s is described", s.method, s.pattern, status)
			}
		}
	}
}

// This must stay so: Fiber answers HEAD where it answers GET.
func TestHead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user("ann")
	for _, s := range b.served() {
		if s.method != fiber.MethodGet {
			continue
		}
		get := b.do(RoleAdmin, "GET", s.path(1), nil)
		head := b.do(RoleAdmin, "HEAD", s.path(1), nil)
		if head.status != get.status || len(head.raw) > 0 {
			t.Errorf("HEAD %s: %d with %d bytes, GET is %d", s.pattern, head.status, len(head.raw), get.status)
		}
		if got, want := head.header.Get("Content-Type"), get.header.Get("Content-Type"); got != want {
			t.Errorf("HEAD %s: content type %q, GET has %q", s.pattern, got, want)
		}
	}
	if a := b.do(0, http.MethodHead, "/users", nil); a.status != 401 {
		t.Errorf("HEAD /users without a token: %d", a.status)
	}
}
