package worker

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/signpost/signpost/internal/clicks"
)

func TestParseAgent(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]agent{
		chrome: {browser: "Chrome", os: "Windows", device: deviceDesktop},
		iphone: {browser: "Safari", os: "iOS", device: deviceMobile},
		"Mozilla/5.0 (iPad; CPU OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1": {
			browser: "Safari", os: "iOS", device: deviceTablet,
		},
		"Mozilla/5.0 (Linux; Android 13; CUBOT KINGKONG 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari/537.36": {
			browser: "Chrome", os: "Android", device: deviceMobile,
		},
		"": {bot: true, device: deviceBot},
		"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)": {bot: true, browser: "Googlebot", device: deviceBot},
		"WhatsApp/2.23.20.0":         {bot: true, browser: "WhatsApp", device: deviceBot},
		"curl/8.5.0":                 {bot: true, browser: "curl", device: deviceBot},
		"python-requests/2.31.0":     {bot: true, browser: "python-requests", device: deviceBot},
		"Go-http-client/2.0":         {bot: true, browser: "Go-http-client", device: deviceBot},
		"facebookexternalhit/1.1":    {bot: true, browser: "facebookexternalhit", device: deviceBot},
		"Slackbot-LinkExpanding 1.0": {bot: true, browser: "Slackbot", device: deviceBot},
		"SomeUnheardOfCrawler":       {bot: true, browser: "SomeUnheardOfCrawler", device: deviceBot},
	} {
		got := parseAgent(header)
		if got.bot != want.bot || got.browser != want.browser || got.os != want.os || got.device != want.device {
			t.Errorf("%s\n got %+v\nwant %+v", header, *got, want)
		}
	}
}

// A device changes its IPv6 address within its /64; IPv4 is the same in both
// of its forms. Salts are read once a day, so that the day needs no database.
func TestVisitorNetworks(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	day := floor(now.UnixMicro(), utcDay)
	e := &enricher{macs: map[int64]hash.Hash{day: hmac.New(sha256.New, []byte("salt"))}}
	visitor := func(address string) int64 {
		t.Helper()
		v, err := e.visitor(t.Context(), &clicks.Click{At: now, IP: netip.MustParseAddr(address), UserAgent: chrome})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true},
		{"2001:db8:1:2::1", "2001:db8:1:3::1", false},
		{"fe80::1%eth0", "fe80::2%eth1", true},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"::ffff:192.0.2.1", "::ffff:192.0.2.2", false},
		{"192.0.2.1", "::1", false},
	} {
		if got := visitor(test.a) == visitor(test.b); got != test.same {
			t.Errorf("%s and %s are one visitor: %v, want %v", test.a, test.b, got, test.same)
		}
	}
}

// Whatever a client sends, what is made of it is short text.
func FuzzParseAgent(f *testing.F) {
	for _, seed := range []string{chrome, iphone, "", "\x00\xff", strings.Repeat("a", 5000), "(((;;;)))/ / /", "Version/ Mobile/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		a := parseAgent(header)
		for _, name := range []string{a.browser, a.os, a.device} {
			if len(name) > agentNameMax || clicks.Clean(name, agentNameMax) != name {
				t.Errorf("%q gives %q", header, name)
			}
		}
	})
}

func TestReferrerHost(t *testing.T) {
	t.Parallel()
	for referrer, want := range map[string]string{
		"":                                     "",
		"no url":                               "",
		"about:blank":                          "",
		"https://":                             "",
		"https://example.org":                  "example.org",
		"https://News.Example.ORG./a?b#c":      "news.example.org",
		"http://user:pass@example.org:8080/":   "example.org",
		"https://example.org?x=https://b.com/": "example.org",
		"https://example.org\\@evil.test/":     "example.org",
		"http://[2001:db8::1]:80/":             "[2001:db8::1]",
		"http://[2001:db8::1]/":                "[2001:db8::1]",
		"https://bücher.example/":              "bücher.example",
		"android-app://com.slack/":             "com.slack",
		"https://exa mple.org/":                "",
		"https://<script>/":                    "",
		"https://a\x00b/":                      "",
		"https://a\xffb/":                      "",
		"https://" + strings.Repeat("a", 256):  "",
	} {
		if got := referrerHost(referrer); got != want {
			t.Errorf("%q: got %q, want %q", referrer, got, want)
		}
	}
}

func TestCountry(t *testing.T) {
	t.Parallel()
	for ip, want := range map[string]string{
		"8.8.8.8": "US", "193.0.6.139": "NL", "2001:4860:4860::8888": "US",
		"10.0.0.1": "", "192.168.1.1": "", "127.0.0.1": "", "169.254.1.1": "", "::1": "", "fd00::1": "", "fe80::1": "", "224.0.0.1": "", "0.0.0.0": "",
	} {
		if got := country(netip.MustParseAddr(ip)); strings.TrimRight(string(got[:]), "\x00") != want {
			t.Errorf("%s: got %q, want %q", ip, got, want)
		}
	}
	if got := country(netip.Addr{}); got != [2]byte{} {
		t.Errorf("no address: got %q", got)
	}
}

func TestFloor(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]int64{
		"1969-12-31T23:59:59.999999Z": -1, "1970-01-01T00:00:00Z": 0, "1970-01-01T23:59:59.999999Z": 0,
		"1970-01-02T00:00:00Z": 1, "1969-12-31T00:00:00Z": -1, "1969-12-30T23:59:59Z": -2,
	} {
		when, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := floor(when.UnixMicro(), utcDay); got != want {
			t.Errorf("%s: day %d, want %d", at, got, want)
		}
	}
}

// BenchmarkEnrich says what a click costs before it is copied: goal 2 µs.
func BenchmarkEnrich(b *testing.B) {
	const n = 10_000
	batch, positions, now := make([]clicks.Click, n), make([]int32, n), time.Now()
	for i := range batch {
		batch[i] = click(int64(i%500), now)
		batch[i].UserAgent = fmt.Sprintf("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.0.0 Safari/537.36", i%200)
		batch[i].IP = netip.AddrFrom4([4]byte{byte(11 + i%180), byte(i >> 8), byte(i), 1})
		positions[i] = int32(i)
	}
	agents, err := newAgents()
	if err != nil {
		b.Fatal(err)
	}
	e := (&deps{agents: agents}).newEnricher()
	e.macs[floor(batch[0].At.UnixMicro(), utcDay)] = hmac.New(sha256.New, make([]byte, saltSize))
	b.ReportAllocs()
	for b.Loop() {
		events, err := e.events(b.Context(), batch, positions)
		if err != nil {
			b.Fatal(err)
		}
		var buf []byte
		for i := range events {
			buf = appendEvent(buf[:0], &events[i])
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/click")
}
