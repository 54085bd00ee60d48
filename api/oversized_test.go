package api

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
)

func TestOversizedRequests(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	b := setup(t, func(o *Options) { o.Registry = registry })
	long := strings.Repeat("abcdefg=hijklmnop; ", 2*maxHeader/19)
	cookie := "Cookie: " + long + "\r\n"
	address := "GET /abc?" + strings.Repeat("a=b&", maxHeader/4) + " HTTP/1.1\r\n"
	query := strings.Repeat("a=b&", 50)
	const mozilla = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
	for _, test := range []struct {
		name, request string
		page          bool
		says          string // "" for JSON
	}{
		{"Firefox", "GET /abc HTTP/1.1\r\nHost: go.shop.example.co.uk\r\n" + mozilla + "Accept: text/html\r\n" + cookie + "\r\n", true, "cookies"},
		{"Chrome", "GET /abc HTTP/1.1\r\nHost: s.example.com:8443\r\nConnection: keep-alive\r\nsec-ch-ua: \"Chromium\"\r\n" + cookie + mozilla + "\r\n", true, "cookies"},
		{"behind a proxy", "GET /abc HTTP/1.1\r\nhost: example.com\r\nX-Forwarded-For: 192.0.2.1\r\nUpgrade-Insecure-Requests: 1\r\n" + cookie + "\r\n", true, "cookies"},
		{"a short link and no header that is seen", "GET /abc?" + query + " HTTP/1.1\r\nHost: other.example\r\n" + mozilla + cookie + "\r\n", true, "cookies"},
		{"a list and no header that is seen", "GET /urls?" + query + " HTTP/1.1\r\nHost: other.example\r\n" + mozilla + cookie + "\r\n", false, ""},
		{"a header that comes late", "GET /abc HTTP/1.1\r\nHost: s.example.com\r\nCookie: " + long[:maxHeader] + "\r\n" + mozilla + "\r\n", true, "cookies"},
		{"an address in a browser", address + "Host: s.example.com\r\n" + mozilla + "\r\n", true, "question mark"},
		{"an address and cookies", address + "Host: s.example.com\r\n" + mozilla + cookie + "\r\n", true, "question mark"},
		{"an address", address + "Host: s.example.com\r\nUser-Agent: curl/8.5.0\r\n\r\n", false, ""},
		{"curl", "GET /abc HTTP/1.1\r\nHost: s.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n" + cookie + "\r\n", false, ""},
		{"a token", "GET /urls HTTP/1.1\r\nHost: s.example.com\r\nAuthorization: Bearer " + strings.Repeat("a", 2*maxHeader) + "\r\n\r\n", false, ""},
	} {
		answers := b.rawAll(test.request, 1)
		if len(answers) != 1 || answers[0].status != 431 {
			t.Fatalf("%s: %d answers: %v", test.name, len(answers), answers)
		}
		a := answers[0]
		kind := a.header.Get("Content-Type")
		if test.page != strings.HasPrefix(kind, "text/html") || !strings.Contains(string(a.raw), test.says) || strings.Contains(string(a.raw), "<script") {
			t.Errorf("%s: %s %s", test.name, kind, a.raw)
		}
		if !test.page {
			checkShape(t, test.name, a)
		}
		if a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be stored: %v", test.name, a.header)
		}
	}
	want := `
# HELP signpost_oversized_requests_total Requests whose address and headers are longer than 16 KiB, by the part that is long (address or headers) and who sent it (browser or other).
# TYPE signpost_oversized_requests_total counter
signpost_oversized_requests_total{client="browser",part="address"} 2
signpost_oversized_requests_total{client="browser",part="headers"} 5
signpost_oversized_requests_total{client="other",part="address"} 1
signpost_oversized_requests_total{client="other",part="headers"} 3
`
	assert.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(want), "signpost_oversized_requests_total"))
}
