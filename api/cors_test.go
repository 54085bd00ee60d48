package api

import (
	"fmt"
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
	ask := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type,idempotency-key"}
	for _, s := range b.served() {
		a := b.do(0, http.MethodOptions, s.path(1), nil, append(ask, "Origin", pageOrigin)...)
		if s.pattern == routeShort || s.pattern == routeLong {
			if names := a.corsHeadersOf(); a.status != 405 || len(names) > 0 {
				t.Errorf("%s is a short link, and a preflight is answered %d with %v", s.pattern, a.status, names)
			}
			continue
		}
		if a.status != 204 || a.header.Get("Access-Control-Allow-Origin") != pageOrigin ||
			!slices.Contains(a.list("Access-Control-Allow-Methods"), strings.ToLower(s.method)) {
			t.Errorf("%s %s: %d with %v", s.method, s.pattern, a.status, a.header)
		}
		// Libraries add headers of their own, which are allowed by the *.
		for _, name := range append(strings.Split(ask[3], ","), "*") {
			if !slices.Contains(a.list("Access-Control-Allow-Headers"), name) {
				t.Errorf("%s %s: the header %s is not allowed", s.method, s.pattern, name)
			}
		}
	}
	for _, origin := range []string{"https://evil.example", "null", "https://app.example.evil.example", pageOrigin + ":8443", ""} {
		a := b.do(0, http.MethodOptions, "/urls", nil, append(ask, "Origin", origin)...)
		if a.header.Get("Access-Control-Allow-Origin") != "" || !slices.Contains(a.list("Vary"), "origin") {
			t.Errorf("a preflight from %q: %d, %v", origin, a.status, a.header)
		}
	}
}

func TestAnswersToOtherOrigins(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) { o.CORSOrigins = []string{pageOrigin} })
	b.newLink(b.user("ann"), "https://example.com", object{"short_code": "spring"})
	progress := fmt.Sprintf("/imports/%d/progress", b.imported("failed", 1, 0))
	for path, status := range map[string]int{
		"/urls": 200, "/urls?format=csv": 200, "/openapi.json": 200, "/users/99": 404, "/users/1/2": 404, "/urls?limit=0": 400, progress: 200,
	} {
		a := b.want(status, RoleReader, "GET", path, nil, "Origin", pageOrigin)
		if a.header.Get("Access-Control-Allow-Origin") != pageOrigin || a.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %v", path, a.header)
		}
		for _, exposed := range []string{"location", "retry-after", "etag", "x-request-id", "content-disposition"} {
			if !slices.Contains(a.list("Access-Control-Expose-Headers"), exposed) {
				t.Errorf("%s: %s is hidden", path, exposed)
			}
		}
		for _, origin := range []string{pageOrigin, "https://evil.example", ""} {
			a := b.want(status, RoleReader, "GET", path, nil, "Origin", origin)
			if allowed := a.header.Get("Access-Control-Allow-Origin") != ""; allowed != (origin == pageOrigin) || !slices.Contains(a.list("Vary"), "origin") {
				t.Errorf("%s from %q: %v", path, origin, a.header)
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
