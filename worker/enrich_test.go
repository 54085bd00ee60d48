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

	"github.com/stretchr/testify/require"

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

// So far only the User-Agent decides whether a visit counts as a person's. A prefetch
// is announced in headers that a click does not store.
func TestVisitsFromTheField(t *testing.T) {
	t.Parallel()
	judged := 0
	for _, row := range cases(t, "visits.tsv") {
		agent, others := "", false
		for line := range strings.SplitSeq(row[0], " ¦ ") {
			name, value, found := strings.Cut(line, ": ")
			switch {
			case name == "User-Agent":
				agent = value
			case found: // Sec-Purpose, X-Moz
				others = true
			}
		}
		if others {
			continue
		}
		judged++
		if got := !parseAgent(agent).bot; got != (row[1] == "yes") {
			t.Errorf("%s: a person: %v, want %s", row[0], got, row[1])
		}
	}
	if judged < 10 {
		t.Errorf("only %d visits were judged", judged)
	}
}

func TestPeopleAndPrograms(t *testing.T) {
	t.Parallel()
	const android = "Mozilla/5.0 (Linux; Android 9; %s) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80.0.3987.99 Mobile Safari/537.36"
	for _, header := range []string{
		chrome, iphone,
		fmt.Sprintf(android, "CUBOT_X19 Build/PPR1"),
		fmt.Sprintf(android, "CUBOT"),
		fmt.Sprintf(android, "M bot 60"),
		fmt.Sprintf(android, "Robot Build/1"),
		fmt.Sprintf(android, "Crawler Pro"),
		fmt.Sprintf(android, "SM-G960F") + " [FB_IAB/FB4A;FBAV/300.0;FBDV/M bot 60;FBMF/CUBOT;]",
		fmt.Sprintf(android, "CUBOT X19") + " Instagram 100.0.0.17.129 Android (28/9; 480dpi; 1080x2160; CUBOT; M bot; en_US)",
		fmt.Sprintf(android, "SM-G960F") + " Viber/20.1",
		fmt.Sprintf(android, "SM-G960F") + " Line/13.0.0",
		"Mozilla/5.0 (Linux; U; Android 4.4.2; de-de; CUBOT S9 Build/KOT49H) AppleWebKit/534.30 (KHTML, like Gecko) Version/4.0 Mobile Safari/534.30",
		"Mozilla/5.0 (X11; Cubot OS) Gecko/20100101 Firefox/127.0",
		"Mozilla/5.0 (Android 13; Mobile; rv:127.0) Gecko/127.0 Firefox/127.0",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 [FBAN/FBIOS;FBDV/iPhone14,5;]",
		"Opera/9.80 (J2ME/MIDP; Opera Mini/7.1.32052/29.3709; U; en) Presto/2.8.119 Version/11.10",
		"Nokia6100/1.0 Profile/MIDP-1.0 Configuration/CLDC-1.0",
		"Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 6.1; Trident/4.0)",
		"Mozilla/5.0 (compatible; Konqueror/4.5; Linux) KHTML/4.5 (like Gecko)",
	} {
		if a := parseAgent(header); a.bot {
			t.Errorf("%s: is no person but %q", header, a.browser)
		}
	}
	for _, header := range []string{
		"", "-", "Mozilla/5.0", "MyClient/1.0", "ruby", "VIBER/20 (x)", "whatsapp", "WhatsApp/2.2216.8 N", "okhttp/3.14.9", "okhttp/4.9 (Android 9; CUBOT)",
		"Dalvik/2.1.0 (Linux; U; Android 9; CUBOT_X19 Build/PPR1)", "News/1 CFNetwork/1410.0.3 Darwin/22.6.0",
		"kube-probe/1.27+", "Blackbox-Exporter/0.25.0 (x)", "Blackbox Exporter/0.25.0", "Uptime-Kuma/1.23.1 (x)",
		"Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.1682",
		"Mozilla/5.0 (compatible; redditbot/1.0)", "Mozilla/5.0 (compatible; SomeBot2/1.0)", "Mozilla/5.0 (compatible; my bot 1.0)",
		"Mozilla/5.0 (compatible; Yahoo! Slurp)", "ia_archiver (x)", "Mozilla/5.0 (compatible; Acme-Crawler)", "Mozilla/5.0 (compatible; crawler4j)",
		fmt.Sprintf(android, "SM-G960F") + " (compatible; NewBot/2.1)",
		"Mozilla/5.0 (Linux; Android 7.0; compatible; NewBot/2.1) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80 Mobile Safari/537.36",
		"Mozilla/5.0 (Linux; Android 7.0; NewBot/2.1; https://new.example/) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80 Mobile Safari/537.36",
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0.0.0 Safari/537.36",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko) Version/9.0.1 Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0",
		"Mozilla/5.0 (compatible;Cloudflare-Traffic-Manager/1.0)", "Mozilla/5.0 (compatible; Feedbin feed-id:1)",
		fmt.Sprintf(android, "Nexus 5X") + " (compatible; Google-InspectionTool/1.0;)",
		"Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; ms-office; MSOffice 16)", "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Word 16)",
		"check_http/v2.4 (nagios-plugins 2.4)", "Dart/3.0 (dart:io)",
		"Acme Link Preview (acme)", "Mozilla/5.0 (X11; Linux) AcmeMonitoring/1",
	} {
		if a := parseAgent(header); !a.bot || a.device != deviceBot {
			t.Errorf("%s: a person with %q", header, a.browser)
		}
	}
}

// A device changes its IPv6 address within its /64; IPv4 addresses are the same in both
// of their forms. Salts are read once a day, so the day needs no database.
func TestVisitorNetworks(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	day := dayOf(now.UnixMicro())
	e := &enricher{macs: map[int64]hash.Hash{day: hmac.New(sha256.New, []byte("salt"))}}
	visitor := func(address string) int64 {
		t.Helper()
		v, err := e.visitor(t.Context(), &clicks.Click{At: now, IP: netip.MustParseAddr(address), UserAgent: chrome})
		require.NoError(t, err)
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

// Whatever a client sends, the results are short texts.
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
		require.NoError(t, err)
		if got := dayOf(when.UnixMicro()); got != want {
			t.Errorf("%s: day %d, want %d", at, got, want)
		}
	}
}

// BenchmarkEnrich measures the cost of a click before it is copied. The goal is 2 µs.
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
	e.macs[dayOf(batch[0].At.UnixMicro())] = hmac.New(sha256.New, make([]byte, saltSize))
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
