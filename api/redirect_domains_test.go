package api

import (
	"bufio"
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rawOn sends a request with the given Host, unchanged.
func (b *bundle) rawOn(host, method, path string, header ...string) answer {
	b.t.Helper()
	conn := b.dial()
	b.write(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nAccept: %s\r\n\r\n", method, path, host, append(header, "*/*")[0])
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	require.NoErrorf(b.t, err, "%s %s on %s", method, path, host)
	a, err := answerOf(resp)
	require.NoErrorf(b.t, err, "%s %s on %s", method, path, host)
	return a
}

// On a custom domain each path is the path of a short link, and the domain has the
// addresses for visitors whose path leads nowhere. Every other host counts as the main
// one.
func TestRedirectsOfDomains(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO domains (host) VALUES ('bare.example')`)
	b.exec(`INSERT INTO domains (host, root_url, not_found_url, expired_url)
			VALUES ('full.example', 'https://bücher.example/a b', 'https://example.com/lost', 'https://example.com/over')`)
	for _, l := range []testLink{
		{code: "main", target: "https://example.com/main"},
		{code: "spring", target: "https://example.com/spring"},
		{code: "users", target: "https://example.com/users"},
		{code: "health", target: "https://example.com/health"},
		{code: "r/x", target: "https://example.com/r-x"},
		{code: "off", target: "https://example.com/off", inactive: true},
		{code: "over", target: "https://example.com/x", expires: time.Now().Add(-time.Hour)},
	} {
		id, _ := b.insertLink(l)
		if l.code == "main" {
			continue
		}
		b.exec("UPDATE urls SET domain_id = 2 WHERE id = $1", id)
	}
	b.exec(`INSERT INTO urls (user_id, domain_id, short_code, original_url, is_active)
		SELECT user_id, 3, short_code, original_url || '/3', is_active FROM urls WHERE domain_id = 2 AND short_code IN ('spring', 'off')`)
	// Until the domains are read, a host that may be a custom domain is not taken for the
	// main one.
	for host, want := range map[string]int{"bare.example": 503, "bare.example:80": 503, "sign.example": 302, "127.0.0.1": 302} {
		if a := b.rawOn(host, http.MethodGet, "/main"); a.status != want {
			t.Errorf("before the domains are known, %s answers %d, want %d", host, a.status, want)
		}
	}
	b.runCache()
	eventually(t, "the domains are known", func() bool { return b.api.Cache.Domain("full.example").ID == 3 })
	for _, test := range []struct {
		host, path string
		status     int
		location   string
	}{
		{"sign.example", "/main", 302, "https://example.com/main"},
		{"sign.example", "/spring", 404, ""},
		{"unknown.example", "/main", 302, "https://example.com/main"},
		{"unknown.example", "/health", 200, ""},
		{"bare.example", "/main", 404, ""},
		{"bare.example", "/spring", 302, "https://example.com/spring"},
		{"BARE.example:8080", "/spring", 302, "https://example.com/spring"},
		{"bare.example", "/spring.", 302, "https://example.com/spring"},
		{"bare.example", "/users", 302, "https://example.com/users"},
		{"bare.example", "/health", 302, "https://example.com/health"},
		{"bare.example", "/r/x", 302, "https://example.com/r-x"},
		{"bare.example", "/r/spring", 404, ""},
		{"bare.example", "/docs", 404, ""},
		{"bare.example", "/favicon.ico", 404, ""},
		{"bare.example", "/", 404, ""},
		{"bare.example", "/off", 410, ""},
		{"bare.example", "/over", 410, ""},
		{"full.example", "/spring", 302, "https://example.com/spring/3"},
		{"full.example", "/users", 302, "https://example.com/lost"},
		{"full.example", "/", 302, "https://xn--bcher-kva.example/a%20b"},
		{"full.example", "//", 302, "https://xn--bcher-kva.example/a%20b"},
		{"full.example", "/off", 302, "https://example.com/over"},
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			a := b.rawOn(test.host, method, test.path)
			if a.status != test.status || a.header.Get("Location") != test.location {
				t.Errorf("%s %s on %s: %d to %q, want %d to %q",
					method, test.path, test.host, a.status, a.header.Get("Location"), test.status, test.location)
			}
			if test.location != "" && a.header.Get("Cache-Control") != string(cacheTemporary) {
				t.Errorf("%s %s on %s may be stored: %s", method, test.path, test.host, a.header.Get("Cache-Control"))
			}
		}
	}
	if a := b.rawOn("bare.example", "POST", "/urls"); a.status != 405 || a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST on a custom domain: %d, allowed is %q", a.status, a.header.Get("Allow"))
	}
	if a := b.rawOn("bare.example", "GET", "/SPRING", htmlAccept); a.status != 404 || !bytes.Contains(a.raw, []byte(`href="/spring"`)) {
		t.Errorf("a page for browsers on a custom domain: %d %s", a.status, a.raw)
	}

	// The main domain may have such addresses of its own.
	b.exec("UPDATE domains SET root_url = 'https://example.com/home', not_found_url = 'https://example.com/none' WHERE id = 1")
	eventually(t, "the main domain leads elsewhere", func() bool { return b.rawOn("sign.example", "GET", "/").status == 302 })
	if a := b.rawOn("sign.example", "GET", "/nothing"); a.header.Get("Location") != "https://example.com/none" {
		t.Errorf("an unknown code of the main domain: %d to %q", a.status, a.header.Get("Location"))
	}
	if a := b.rawOn("sign.example", "GET", "/health"); a.status != 200 {
		t.Errorf("a route of the main domain: %d", a.status)
	}
}
