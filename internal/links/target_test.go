package links

import (
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// testHosts are the hosts of a service in several spellings.
func testHosts(tb testing.TB) Hosts {
	tb.Helper()
	hosts, err := ParseHosts("Sho.rt.", "localhost:8080", "[2001:db8::1]:8443", "münchen.example", "xn--h28h.example:443", "192.0.2.1")
	require.NoError(tb, err)
	return hosts
}

// fieldCase is a line of testdata/targets.tsv, which holds targets that users of such
// services pasted.
type fieldCase struct {
	original, location string
	refusal            string // a part of the message of the refusal
	refused            bool
}

// fieldCases reads the file. Targets that the file only describes in words are made
// here.
func fieldCases(t *testing.T) []fieldCase {
	t.Helper()
	file, err := os.ReadFile("testdata/targets.tsv")
	require.NoError(t, err)
	refusals := map[string]string{
		"names the field and suggests https://example.com/menu": "https://example.com/menu",
		"says that links lead to http and https only":           "links lead to http and https only",
		"one of this service's own links":                       string(ErrTargetOwn),
		"":                                                      string(ErrTargetBackslash),
	}
	own := []string{"XN--MNCHEN-3YA.example", "münchen.example", "MÜNCHEN.EXAMPLE", "münchen.example.", "sHo.rT."}
	var cases []fieldCase
	before := ""
	for line := range strings.Lines(string(file)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		sent, result, want := cells[0], cells[1], strings.TrimSuffix(cells[2], " (or with the host in lower case)")
		if want == "likewise" {
			want = before
		}
		before = want
		switch {
		case strings.HasPrefix(sent, `"https://<PUBLIC_URL`):
			for _, host := range own {
				cases = append(cases, fieldCase{original: "https://" + host + "/x", refused: true, refusal: refusals[want]})
			}
			continue
		case sent == "a URL of 8,000 bytes":
			original := "https://e.example/" + strings.Repeat("a", 8000-len("https://e.example/"))
			cases = append(cases, fieldCase{original: original, location: original})
			continue
		}
		c := fieldCase{location: want, refused: result == "400"}
		require.NoErrorf(t, json.Unmarshal([]byte(sent), &c.original), "%s", sent)
		if strings.HasPrefix(want, "byte for byte") {
			c.location = c.original
		}
		if c.refused {
			var ok bool
			if c.refusal, ok = refusals[want]; !ok {
				t.Fatalf("nobody knows how to check %q", want)
			}
		}
		cases = append(cases, c)
	}
	if len(cases) < 16 {
		t.Fatalf("the file has %d cases", len(cases))
	}
	return cases
}

func TestTargetsFromTheField(t *testing.T) {
	t.Parallel()
	own := testHosts(t)
	for _, test := range fieldCases(t) {
		target, err := CleanTarget(test.original, own)
		if test.refused {
			if err == nil || !strings.Contains(err.Error(), test.refusal) {
				t.Errorf("CleanTarget(%q) = %v, want one that says %q", test.original, err, test.refusal)
			}
			continue
		}
		if err != nil {
			t.Errorf("CleanTarget(%q) = %v", test.original, err)
			continue
		}
		if got := Location(target); got != test.location {
			t.Errorf("%q leads to %q, want %q", test.original, got, test.location)
		}
	}
}

func TestCleanTarget(t *testing.T) {
	t.Parallel()
	own := testHosts(t)
	label63 := strings.Repeat("a", 63)
	full := "https://example.com/" + strings.Repeat("a", MaxTarget-len("https://example.com/"))
	for want, targets := range map[error][]string{
		nil: {
			"https://example.com", "HTTP://EXAMPLE.COM/", "https://example.com.:8443/a/b?c=d&e#f", "https://example.com?q=1",
			"https://example.com#top", "https://example.com/a@b:c", "https://example.com/%41%c3%a9", full,
			"https://bücher.example/straße?q=köln", "https://中文.example", "https://xn--bcher-kva.example", "https://r3---sn.bücher.example",
			"https://❤️.example", "https://نامه\u200cای.example", "https://ｅxample.com", "https://example。com", "http://under_score.example",
			"http://localhost", "http://127.0.0.1:65535/", "http://[2001:db8::2]/", "http://[2001:db8::2]:80",
			"http://" + label63 + ".example", "http://3com.example", "https://example.com/a b", "https://example.com/a\u00a0b\u2028c",
			"https://example.com/100%", "https://example.com/?q=%zz", `https://example.com/?file=C:\temp`, `https://example.com/#C:\temp`,
			"https://example.com/👩\u200d💻", "https://example.com/" + strings.Repeat("ä", 1362),
		},
		ErrTargetEmpty: {
			"", " \u200b\n",
		},
		ErrTargetLength: {
			full + "a",
			"https://example.com/" + strings.Repeat("ä", 1363), // 20 + 6*1363 bytes are sent
		},
		ErrTargetHost: {
			"https://", "https:///path", "https://?q", "https://.", "https://a..b", "https://.example.com", "https://example.com..",
			"https://-a.example", "https://a-.example", "https://" + label63 + "a.example",
			"https://" + strings.Repeat("aaaaaaa.", 32) + "example",
			"https://" + strings.Repeat("ä", 60) + ".example", // too long in punycode
			"https://" + strings.Repeat("ä.", 600) + "example", "https://exa%6dple.com", "https://exa mple.com", "https://a!b.example",
			"https://256.1.1.1", "https://127.1", "https://１２７.１", "https://2130706433", "https://0x7f000001", "https://0177.0.0.1",
			"https://[::1", "https://[::1]x", "https://[1.2.3.4]", "https://[fe80::1%25eth0]", "https://::1/", "https://exam\u200dple.com",
			"https://a℀b.example", // becomes aa/cb.example
			"https://good.example／.evil.example/", "https://good.example？.evil.example/", "https://example.com：8080",
			"https://good＠evil.example/", "https://xn--a-.example", "https://xn--zz.example", "https://xn--.example",
			"https://אa.example", // mixes directions
			"https://\u00ad.example",
		},
		ErrTargetPort: {
			"https://example.com:", "https://example.com:0", "https://example.com:65536", "https://example.com:+80",
			"https://example.com:80:80", "https://example.com:http", "https://example.com:８０",
		},
		ErrTargetUserinfo: {
			"https://good.example@evil.example/", "https://ann:secret@example.com/", "https://@example.com/",
		},
		ErrTargetControl: {
			"https://example.com/\na", "https://example.com/\x00", "https://example.com/\x7f", "https://example.com/\u0085a",
			"https://example.com/\ufeffa", "https://example.com/\u202egpj.exe",
		},
		ErrTargetBackslash: {
			`https://example.com\@evil.example`, `https:\\example.com`,
		},
		ErrTargetEncoding: {
			"https://example.com/\xff", "\xffhttps://example.com/",
		},
		ErrTargetOther: {
			"ftp://example.com", "javascript:alert(1)//http://x", "JavaScript:alert(1)", "mailto:ann@example.com", "tel:112",
			"data:text/html,<script>", "blob:https://example.com/x", "hhttps://example.com/x", "intranet:secret",
		},
		ErrTargetScheme: {
			"httpſ://example.com/", "menu", "see you at 5.", "/menu.html", "ann@example.com", "https:", "http:/", "://", "//", "+1:80",
			"sho.rt/abc", // a suggestion that would be refused is not made
			"example.com/" + strings.Repeat("a", 300),
		},
		SchemeError{"https://example.com"}: {
			"example.com",
		},
	} {
		for _, target := range targets {
			if _, err := CleanTarget(target, own); !errors.Is(err, want) {
				t.Errorf("CleanTarget(%q) = %v, want %v", target, err, want)
			}
		}
	}
}

func TestTrimmedTargets(t *testing.T) {
	t.Parallel()
	const want = "https://example.com/a b"
	for _, sent := range []string{
		want, " " + want, want + "\r\n", "\t" + want + "\u00a0", "\ufeff" + want, "\u200b" + want + "\u2060\u200d",
		"\u202a" + want + "\u202c", "\u200e" + want, want + "\u2029", "\u3000" + want + "\u0085",
	} {
		if got, err := CleanTarget(sent, Hosts{}); got != want || err != nil {
			t.Errorf("CleanTarget(%q) = %q, %v", sent, got, err)
		}
	}
}

func TestSchemeError(t *testing.T) {
	t.Parallel()
	for sent, want := range map[string]string{
		"example.com":                         "https://example.com",
		"www.example.com/a?u=https://x.test/": "https://www.example.com/a?u=https://x.test/",
		"//example.com/menu\n":                "https://example.com/menu",
		"://example.com/menu":                 "https://example.com/menu",
		"https:example.com":                   "https://example.com",
		"HTTP:/example.com":                   "http://example.com",
		"https:////example.com":               "",
		"example.com:8080/menu":               "https://example.com:8080/menu",
		"localhost:3000":                      "https://localhost:3000",
		"bücher.example/straße":               "https://bücher.example/straße",
		"bücher。example":                      "https://bücher。example",
		"127.0.0.1/x":                         "https://127.0.0.1/x",
		"[2001:db8::2]/x":                     "https://[2001:db8::2]/x",
		"sho.rt/docs":                         "https://sho.rt/docs",
	} {
		_, err := CleanTarget(sent, testHosts(t))
		if want == "" {
			if errors.Is(err, ErrTargetScheme) {
				t.Errorf("CleanTarget(%q) = %v", sent, err)
			}
			continue
		}
		message := "must start with http:// or https://, such as " + want
		if !errors.Is(err, ErrTargetScheme) || err.Error() != message {
			t.Errorf("CleanTarget(%q) = %v, want %s", sent, err, message)
		}
	}
}

func TestOwnTargets(t *testing.T) {
	t.Parallel()
	own := testHosts(t)
	for _, target := range []string{
		"https://sho.rt/abc", "http://sho.rt/abc", "http://SHO.RT:80/abc?x#y", "https://sho.rt.:443/r/abc", "https://ｓｈｏ．ｒｔ/abc",
		"https://ſho.rt/abc", "https://sho\u00ad.rt/abc", "https://sho.rt/abc/", "https://sho.rt//abc", "https://sho.rt/x/../abc",
		"https://sho.rt/x/%2e%2E/%61bc", "https://sho.rt/abc%2F..", "https://sho.rt/docs%2F..%2Fabc", "https://sho.rt/%2Fabc",
		"https://sho.rt/r/users", "https://sho.rt/r/abc/def", "https://sho.rt/abc.", "https://sho.rt/abc def", "https://sho.rt/abc%",
		"https://sho.rt/a/b", "https://sho.rt/grüße", "https://sho.rt/😃", "http://localhost:8080/abc", "http://[2001:0DB8:0::1]:8443/abc",
		"https://xn--mnchen-3ya.example/abc", "https://XN--MNCHEN-3YA.EXAMPLE./abc", "https://MÜNCHEN.example/abc",
		"https://mu\u0308nchen.example:443/abc", "https://😃.example/abc", "http://192.0.2.1/abc", "http://[::ffff:192.0.2.1]/abc",
		"http://１９２.0.2.1/abc",
	} {
		if _, err := CleanTarget(target, own); !errors.Is(err, ErrTargetOwn) {
			t.Errorf("CleanTarget(%q) = %v, want %v", target, err, ErrTargetOwn)
		}
	}
	for _, target := range []string{
		"https://sho.rt/", "https://sho.rt", "https://sho.rt?x=/abc", "https://sho.rt/#/abc", "https://sho.rt/r", "https://sho.rt/r/",
		"https://sho.rt/users", "https://sho.rt/users/abc", "https://sho.rt/abc/..",
		"https://sho.rt:8443/abc", "http://localhost:8081/abc", "http://localhost/abc", "https://www.sho.rt/abc",
		"https://munchen.example/abc", "http://sho.rt:443/abc",
	} {
		if _, err := CleanTarget(target, own); err != nil {
			t.Errorf("CleanTarget(%q) = %v", target, err)
		}
		if _, err := CleanTarget(target, Hosts{}); err != nil {
			t.Errorf("CleanTarget(%q) without hosts = %v", target, err)
		}
	}
}

func TestParseHosts(t *testing.T) {
	t.Parallel()
	hosts, err := ParseHosts("go.example", "https://no.example", "b_ü.example:8080", "*.example", "", "2001:db8::1", "a b", "e.example:0")
	if len(hosts.sites) != 3 {
		t.Errorf("%d hosts are valid, want 3: %v", len(hosts.sites), hosts.sites)
	}
	for _, wrong := range []string{`"https://no.example"`, `"*.example"`, `""`, `"a b"`, `"e.example:0"`} {
		if err == nil || !strings.Contains(err.Error(), wrong+" is not a host or host:port") {
			t.Errorf("the error does not name %s: %v", wrong, err)
		}
	}
	for _, target := range []string{"https://go.example/a", "http://b_ü.example:8080/a", "https://[2001:db8::1]/a"} {
		if _, err := CleanTarget(target, hosts); !errors.Is(err, ErrTargetOwn) {
			t.Errorf("CleanTarget(%q) = %v", target, err)
		}
	}
}

func TestCleanHost(t *testing.T) {
	t.Parallel()
	own := testHosts(t)
	long := strings.Repeat("a234567890.", 22) + "example" // 249 bytes
	const padded = " Go.Example. "
	for raw, want := range map[string]string{
		"go.example": "go.example", padded: "go.example", "go": "go", "a-b.example": "a-b.example",
		"bücher.example": "xn--bcher-kva.example", "XN--bcher-kva.example": "xn--bcher-kva.example", long: long,
	} {
		if got, err := CleanHost(raw, own); got != want || err != nil {
			t.Errorf("CleanHost(%q) = %q, %v; want %q", raw, got, err, want)
		}
	}
	for raw, want := range map[string]error{
		"": ErrHost, "https://go.example": ErrHost, "go.example:8080": ErrHost, "go.example/x": ErrHost, "a b.example": ErrHost,
		"192.0.2.7": ErrHost, "[2001:db8::7]": ErrHost, "2001:db8::7": ErrHost, "127.1": ErrHost, "-a.example": ErrHost, "a..b": ErrHost,
		"*.example": ErrHost, "a_b.example": ErrHost, long + ".abcde": ErrHost, "a@b.example": ErrHost,
		"sho.rt": ErrHostOwn, "SHO.RT.": ErrHostOwn, "localhost": ErrHostOwn, "münchen.example": ErrHostOwn,
	} {
		if _, err := CleanHost(raw, own); !errors.Is(err, want) {
			t.Errorf("CleanHost(%q): %v, want %v", raw, err, want)
		}
	}
}

// Every path on a custom domain is a short link, even if it is reserved elsewhere.
func TestTargetOnCustomDomain(t *testing.T) {
	t.Parallel()
	own := testHosts(t).WithDomains(func(host string) bool { return host == "go.example" }).And("xn--bcher-kva.example")
	for target, want := range map[string]error{
		"https://go.example/a": ErrTargetOwn, "http://GO.example.:8080/docs": ErrTargetOwn, "https://go.example": ErrTargetOwn,
		"https://bücher.example/?a": ErrTargetOwn, "https://sho.rt/a": ErrTargetOwn,
		"https://sho.rt/docs": nil, "https://www.go.example/a": nil, "https://example.com/go.example/a": nil,
	} {
		if _, err := CleanTarget(target, own); !errors.Is(err, want) {
			t.Errorf("CleanTarget(%q) = %v, want %v", target, err, want)
		}
	}
}

// The time for punycode grows with the square of a label's length, and anybody may send
// a label.
func TestPunycodeIsBounded(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		strings.Repeat("ü", maxUnicodeLabel):                       true,
		strings.Repeat("ü", maxUnicodeLabel+1):                     false,
		"a." + strings.Repeat("ü", maxUnicodeLabel+1) + ".example": false,
		"a。" + strings.Repeat("ü", maxUnicodeLabel) + "。example":   true,
		strings.Repeat("münchen.", 60) + "example":                 false,
		strings.Repeat("u\u0308", maxUnicodeLabel):                 true,
		"m\xfcnchen.example":                                       false,
	} {
		if got, ok := Punycode(host); ok != want {
			t.Errorf("Punycode(%q) = %q, %t", host, got, ok)
		}
	}
}

// A machine has several names for itself.
func TestOwnLoopback(t *testing.T) {
	t.Parallel()
	for _, own := range []string{"localhost:8080", "127.0.0.1:8080", "[::1]:8080"} {
		hosts, err := ParseHosts(own)
		require.NoError(t, err)
		for target, want := range map[string]error{
			"http://localhost:8080/x": ErrTargetOwn, "http://LOCALHOST.:8080/x": ErrTargetOwn,
			"http://127.0.0.1:8080/x": ErrTargetOwn, "http://127.1.2.3:8080/x": ErrTargetOwn,
			"http://[::1]:8080/x": ErrTargetOwn, "http://[::ffff:127.0.0.1]:8080/x": ErrTargetOwn,
			"http://localhost:8081/x": nil, "http://localhost.example:8080/x": nil, "http://128.0.0.1:8080/x": nil,
		} {
			if _, err := CleanTarget(target, hosts); !errors.Is(err, want) {
				t.Errorf("own %s: CleanTarget(%q) = %v, want %v", own, target, err, want)
			}
		}
	}
}

// targetSeeds are for the fuzz targets.
var targetSeeds = []string{
	"https://example.com/a?b=c#d", "http://[::1]:80/", "https://bücher.example:1/%20", "http://a@b", "http://127.0.0.1.",
	`http://a\b`, "HTTPS://sho.rt/%61bc", "http://0x", "http://a?%", "https://e.example/a|b?x={1}&y=\"z\"#^`<>#", "https://😃.example./%zz",
	" https://e.example/\u00a0[]\\ ", "httpſ://e.example/", "https://ſho.rt/\u2028", "//example.com/menu", "https:example.com", "https://xn--a-.example/", "http://a℀b/",
}

func FuzzCleanTarget(f *testing.F) {
	for _, seed := range targetSeeds {
		f.Add(seed)
	}
	own := testHosts(f)
	f.Fuzz(func(t *testing.T, raw string) {
		target, err := CleanTarget(raw, own)
		var lacks SchemeError
		if errors.As(err, &lacks) {
			if clean, err := CleanTarget(lacks.Suggestion, own); err != nil || clean != lacks.Suggestion {
				t.Fatalf("CleanTarget(%q) suggests %q: %v", raw, lacks.Suggestion, err)
			}
		}
		if err != nil {
			return
		}
		if again, err := CleanTarget(target, own); err != nil || again != target {
			t.Fatalf("CleanTarget(%q) = %q, and of that %q, %v", raw, target, again, err)
		}
		if !strings.Contains(raw, target) {
			t.Fatalf("CleanTarget(%q) = %q", raw, target)
		}
		u, err := url.Parse(Location(target))
		require.NoErrorf(t, err, "accepted %q, net/url says", raw)
		if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Opaque != "" {
			t.Fatalf("accepted %q, net/url reads %#v", raw, u)
		}
		if len(target) > MaxTarget || len(Location(target)) > MaxTarget {
			t.Fatalf("accepted %q", raw)
		}
	})
}

func BenchmarkCleanTarget(b *testing.B) {
	const target = "https://relay.example/mellow/anchor/1?utm_source=newsletter"
	own := testHosts(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := CleanTarget(target, own); err != nil {
			b.Fatal(err)
		}
	}
}
