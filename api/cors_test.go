package api

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

const pageOrigin = "https://app.example"

// list returns the members of a header that is a list, in lower case.
func (a answer) list(name string) []string {
	var members []string
	for _, value := range a.header.Values(name) {
		for member := range strings.SplitSeq(value, ",") {
			members = append(members, strings.ToLower(strings.TrimSpace(member)))
		}
	}
	return members
}

// corsHeadersOf returns the headers of an answer that let a page of another origin read
// it.
func (a answer) corsHeadersOf() (names []string) {
	for name := range a.header {
		if strings.HasPrefix(name, "Access-Control-") {
			names = append(names, name)
		}
	}
	return names
}

func TestPreflights(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) { o.CORSOrigins = []string{"http://localhost:3000", pageOrigin} })
	for _, s := range b.served() {
		ask := []string{"Access-Control-Request-Method", s.method, "Access-Control-Request-Headers", "authorization,content-type,idempotency-key"}
		allowed := b.do(0, http.MethodOptions, s.path(1), nil, append(ask, "Origin", pageOrigin)...)
		if s.pattern == routeShort || s.pattern == routeLong {
			if names := allowed.corsHeadersOf(); allowed.status != 405 || len(names) > 0 {
				t.Errorf("%s is a short link, and a preflight is answered %d with %v", s.pattern, allowed.status, names)
			}
			continue
		}
		if allowed.status != 204 || len(allowed.raw) > 0 || allowed.header.Get("Access-Control-Allow-Origin") != pageOrigin ||
			!slices.Contains(allowed.list("Access-Control-Allow-Methods"), strings.ToLower(s.method)) {
			t.Errorf("%s %s: %d with %v", s.method, s.pattern, allowed.status, allowed.header)
		}
		// Libraries add headers of their own, which are allowed by the *.
		for _, name := range append(strings.Split(ask[3], ","), "*") {
			if !slices.Contains(allowed.list("Access-Control-Allow-Headers"), name) {
				t.Errorf("%s %s: the header %s is not allowed", s.method, s.pattern, name)
			}
		}
		for _, vary := range []string{"origin", "access-control-request-method", "access-control-request-headers"} {
			if !slices.Contains(allowed.list("Vary"), vary) {
				t.Errorf("%s %s: the answer varies by %v", s.method, s.pattern, allowed.list("Vary"))
			}
		}
		for _, header := range [][]string{
			append(ask, "Origin", "https://evil.example"), append(ask, "Origin", "null"),
			append(ask, "Origin", "https://app.example.evil.example"), append(ask, "Origin", pageOrigin+":8443"),
			ask,
			{"Origin", "https://evil.example"},
		} {
			a := b.do(0, http.MethodOptions, s.path(1), nil, header...)
			if a.header.Get("Access-Control-Allow-Origin") != "" || !slices.Contains(a.list("Vary"), "origin") {
				t.Errorf("%s with %v: %d, %v", s.pattern, header, a.status, a.header)
			}
		}
	}
}

func TestAnswersToOtherOrigins(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) { o.CORSOrigins = []string{pageOrigin} })
	b.newLink(b.user("ann"), "https://example.com", object{"short_code": "spring"})
	imported := b.want(202, RoleAdmin, "POST", "/imports?kind=users", csvOfUsers, "Content-Type", "text/csv")
	location := imported.header.Get("Location")
	for _, test := range []struct {
		method, path string
		role         Role
		body         any
		status       int
		header       []string
	}{
		{"GET", "/urls", RoleReader, nil, 200, nil},
		{"GET", "/urls?format=csv", RoleReader, nil, 200, nil},
		{"GET", "/events", RoleReader, nil, 200, []string{"Accept", "application/x-ndjson", "Accept-Encoding", "gzip"}},
		{"HEAD", "/urls", RoleReader, nil, 200, nil},
		{"POST", "/urls", RoleEditor, object{"user_id": 1, "original_url": "https://example.com"}, 201, nil},
		{"POST", "/imports?kind=users", RoleAdmin, csvOfUsers, 202, []string{"Content-Type", "text/csv"}},
		{"GET", location + "/result.csv", RoleReader, nil, 200, nil},
		{"GET", location + "/errors?format=csv", RoleReader, nil, 200, nil},
		{"GET", "/openapi.json", 0, nil, 200, nil},
		{"GET", "/users", 0, nil, 401, nil},
		{"POST", "/users", RoleReader, object{}, 403, nil},
		{"GET", "/users/99", RoleReader, nil, 404, nil},
		{"GET", "/users/1/2", RoleReader, nil, 404, nil},
		{"DELETE", "/urls", RoleAdmin, nil, 405, nil},
		{"POST", "/imports?kind=cats", RoleAdmin, csvOfUsers, 400, []string{"Content-Type", "text/csv"}},
		{"POST", "/imports?kind=users", RoleAdmin, "{}", 415, nil},
	} {
		name := test.method + " " + test.path
		a := b.want(test.status, test.role, test.method, test.path, test.body, append(test.header, "Origin", pageOrigin)...)
		if a.header.Get("Access-Control-Allow-Origin") != pageOrigin || !slices.Contains(a.list("Vary"), "origin") ||
			a.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %v", name, a.header)
		}
		for _, exposed := range []string{"location", "retry-after", "etag", "x-request-id", "content-disposition"} {
			if !slices.Contains(a.list("Access-Control-Expose-Headers"), exposed) {
				t.Errorf("%s: %s is hidden", name, exposed)
			}
		}
		for _, origin := range []string{"https://evil.example", ""} {
			a := b.do(test.role, test.method, test.path, test.body, append(test.header, "Origin", origin)...)
			if a.header.Get("Access-Control-Allow-Origin") != "" || !slices.Contains(a.list("Vary"), "origin") {
				t.Errorf("%s from %q: %v", name, origin, a.header)
			}
		}
	}
	if a := b.want(200, RoleReader, "GET", "/urls", nil, "Origin", pageOrigin); !slices.Contains(a.list("Vary"), "accept") {
		t.Errorf("a list varies by %v", a.list("Vary"))
	}
	for _, path := range []string{"/spring", "/r/spring", "/nothing", "/r/nothing", "/%73pring", "/usersguide"} {
		if a := b.do(0, "GET", path, nil, "Origin", pageOrigin); len(a.corsHeadersOf()) > 0 || slices.Contains(a.list("Vary"), "origin") {
			t.Errorf("%s: %v", path, a.header)
		}
	}
}

// The stream of an import's progress is read by scripts too.
func TestProgressForOtherOrigins(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) { o.CORSOrigins = []string{pageOrigin} })
	location := b.want(202, RoleAdmin, "POST", "/imports?kind=users", csvOfUsers, "Content-Type", "text/csv").header.Get("Location")
	b.exec("UPDATE imports SET state = 'failed'") // makes the stream end
	a := b.want(200, RoleReader, "GET", location+"/progress", nil, "Origin", pageOrigin)
	if a.header.Get("Access-Control-Allow-Origin") != pageOrigin || !slices.Contains(a.list("Vary"), "origin") {
		t.Errorf("%v", a.header)
	}
}

func TestAnyOrigin(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) { o.CORSOrigins = []string{"*"} })
	for _, origin := range []string{pageOrigin, "null", "https://evil.example"} {
		a := b.want(204, 0, "OPTIONS", "/imports", nil, "Origin", origin, "Access-Control-Request-Method", "POST")
		if a.header.Get("Access-Control-Allow-Origin") != "*" || a.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %v", origin, a.header)
		}
		if a := b.want(401, 0, "GET", "/urls", nil, "Origin", origin); a.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %v", origin, a.header)
		}
	}
	b.pool.Close() // the database is away
	if a := b.want(503, RoleReader, "GET", "/urls", nil, "Origin", pageOrigin); a.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%v", a.header)
	}
}

func TestNoOtherOrigin(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(405, 0, "OPTIONS", "/urls", nil, "Origin", pageOrigin, "Access-Control-Request-Method", "GET")
	if a := b.want(401, 0, "GET", "/urls", nil, "Origin", pageOrigin); len(a.corsHeadersOf()) > 0 || slices.Contains(a.list("Vary"), "origin") {
		t.Errorf("%v", a.header)
	}
}
