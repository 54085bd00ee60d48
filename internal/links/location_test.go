package links

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLocation(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]string{
		"https://Bücher.example:8443/straße?q=köln#größe": "https://xn--bcher-kva.example:8443/stra%C3%9Fe?q=k%C3%B6ln#gr%C3%B6%C3%9Fe",
		"https://bücher.example.":                         "https://xn--bcher-kva.example.",
		"https://bücher.example?q":                        "https://xn--bcher-kva.example?q",
		"https://straße.example":                          "https://xn--strae-oqa.example",
		"https://a_b.日本語。ＪＰ/":                             "https://a_b.xn--wgv71a119e.jp/",
		"https://I♥.example":                              "https://xn--i-n3p.example",
		"https://e.example/a#b#c":                         "https://e.example/a#b%23c",
		"https://e.example/#":                             "https://e.example/#",
		"https://e.example/\\?\\#\\":                      "https://e.example/%5C?%5C#%5C",
		"https://e.example/?q=a b\u00a0c":                 "https://e.example/?q=a%20b%C2%A0c",
		"https://e.example/{}|^`<>\"":                     "https://e.example/%7B%7D%7C%5E%60%3C%3E%22",
		"https://e.example/100%":                          "https://e.example/100%25",
		"https://e.example/%4":                            "https://e.example/%254",
		"https://e.example/%zz%41%c3":                     "https://e.example/%25zz%41%c3",
		"https://e.example/%%41":                          "https://e.example/%25%41",
		"https://e.example/%#41":                          "https://e.example/%25#41",
		// Even targets that CleanTarget refuses are harmless in a header.
		"https://אa.example/":            "https://%D7%90a.example/",
		"https://a℀b.example/":           "https://a%E2%84%80b.example/",
		"https://e.example/\r\nX: y\x00": "https://e.example/%0D%0AX:%20y%00",
		"bücher":                         "b%C3%BCcher",
		"\xff":                           "%FF",
		"":                               "",
	} {
		if got := Location(target); got != want {
			t.Errorf("Location(%q) = %q, want %q", target, got, want)
		}
	}
	for _, target := range []string{
		"HTTPS://EXAMPLE.com.:443/a/../b//c;d=e,f/(g)*!$'~+?h=%2f%2F&i[]=1&[j]#k/?l=%6d", "http://[2001:DB8::1]:80/", "https://e.example",
		"https://e.example?", "https://xn--bcher-kva.example/@:",
	} {
		if got := Location(target); got != target {
			t.Errorf("Location(%q) = %q, and it was in order", target, got)
		}
	}
}

func TestAddQuery(t *testing.T) {
	t.Parallel()
	tests := []struct{ location, query, want string }{
		{"https://example.com/a", "", "https://example.com/a"},
		{"https://example.com/a", "x=1", "https://example.com/a?x=1"},
		{"https://example.com", "x=1", "https://example.com?x=1"},
		{"https://example.com/a?b=2", "x=1", "https://example.com/a?b=2&x=1"},
		{"https://example.com/a?", "x=1", "https://example.com/a?x=1"},
		{"https://example.com/a?b&", "x=1", "https://example.com/a?b&x=1"},
		{"https://example.com/a#f", "x=1", "https://example.com/a?x=1#f"},
		{"https://example.com/a?b=2#f?g", "x=1", "https://example.com/a?b=2&x=1#f?g"},
		{"https://example.com/a", "x=a b#c\r\n\xff\\", "https://example.com/a?x=a%20b%23c%0D%0A%FF%5C"},
		{"https://example.com/a", "ids[]=1&q={|}^`<>\"", "https://example.com/a?ids[]=1&q=%7B%7C%7D%5E%60%3C%3E%22"},
		{"https://example.com/a", "sale=100%&b=%2f%zz", "https://example.com/a?sale=100%25&b=%2f%25zz"},
		{"https://example.com/a?b=%25", "41", "https://example.com/a?b=%25&41"},
	}
	for _, test := range tests {
		if got := AddQuery(test.location, test.query); got != test.want {
			t.Errorf("AddQuery(%q, %q) = %q, want %q", test.location, test.query, got, test.want)
		}
	}
}

// The test is not parallel, since AllocsPerRun counts the allocations of all
// goroutines.
func TestAllocations(t *testing.T) {
	own := testHosts(t)
	for what, f := range map[string]func(){
		"Location":    func() { Location("https://example.com:8443/a?b=%20&c[]=d#e") },
		"AddQuery":    func() { AddQuery("https://example.com/a", "") },
		"CleanTarget": func() { _, _ = CleanTarget("https://example.com:8443/a?b=%20#c", own) },
		"CheckCode":   func() { _ = CheckCode("brcPtw") },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", what, n)
		}
	}
}

// uri is an absolute URI according to RFC 3986, section 3 and appendix A, restricted to
// http and https. Brackets are allowed in path, query and fragment, since browsers
// leave them.
var uri = regexp.MustCompile(`^[Hh][Tt]{2}[Pp][Ss]?://` +
	`(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]+)?` +
	`(/` + pchar + `*)?(\?` + pchar + `*)?(#` + pchar + `*)?$`)

const pchar = `([A-Za-z0-9._~!$&'()*+,;=:@/?\[\]-]|%[0-9A-Fa-f]{2})`

// anyURI is used for targets that CleanTarget refuses: it allows only characters of a
// URI, and whole escapes.
var anyURI = regexp.MustCompile(`^` + pchar + `*(#` + pchar + `*)?$`)

func FuzzLocation(f *testing.F) {
	for _, seed := range targetSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		location := Location(raw)
		if Location(location) != location {
			t.Fatalf("Location(%q) = %q, and of that %q", raw, location, Location(location))
		}
		if uri.MatchString(raw) && location != raw {
			t.Fatalf("Location(%q) = %q, and it was in order", raw, location)
		}
		target, err := CleanTarget(raw, Hosts{})
		if err != nil {
			if !anyURI.MatchString(location) {
				t.Fatalf("Location(%q) = %q is no URI reference", raw, location)
			}
			return
		}
		location = Location(target)
		if !uri.MatchString(location) {
			t.Fatalf("Location(%q) = %q is no URI", target, location)
		}
		after, err := url.Parse(location)
		require.NoErrorf(t, err, "Location(%q) = %q", target, location)
		// net/url does not map names, so only targets that were ASCII can be compared.
		if before, err := url.Parse(target); err == nil && IsASCII(before.Host) &&
			(after.Scheme != before.Scheme || after.Host != before.Host || after.Path != before.Path || after.Fragment != before.Fragment) {
			t.Fatalf("Location(%q) = %q leads elsewhere", target, location)
		}
	})
}

func FuzzAddQuery(f *testing.F) {
	f.Add("https://example.com/a?b=2#f", "x=1")
	f.Add("https://example.com", "#\r\n@evil.example/")
	f.Add("http://[::1]:80#f", "\x80%")
	f.Add("https://bücher.example/?a={}%", "[]|%zz")
	f.Fuzz(func(t *testing.T, raw, query string) {
		target, err := CleanTarget(raw, Hosts{})
		if err != nil {
			return // not a target that a link can have
		}
		before, err := url.Parse(Location(target))
		require.NoError(t, err)
		location := AddQuery(Location(target), query)
		if !uri.MatchString(location) {
			t.Fatalf("AddQuery(%q, %q) = %q is no URI", target, query, location)
		}
		after, err := url.Parse(location)
		require.NoErrorf(t, err, "AddQuery(%q, %q) = %q", target, query, location)
		if after.Scheme != before.Scheme || after.Host != before.Host || after.User != nil ||
			after.EscapedPath() != before.EscapedPath() || after.EscapedFragment() != before.EscapedFragment() {
			t.Fatalf("AddQuery(%q, %q) = %q leads elsewhere", target, query, location)
		}
		if !strings.HasPrefix(after.RawQuery, before.RawQuery) {
			t.Fatalf("AddQuery(%q, %q) = %q changes the target's parameters", target, query, location)
		}
		if !strings.Contains(query, "#") && uri.MatchString("https://e.example/?"+query) && !strings.HasSuffix(after.RawQuery, query) {
			t.Fatalf("AddQuery(%q, %q) = %q changes a query that was in order", target, query, location)
		}
	})
}

func BenchmarkLocation(b *testing.B) {
	for name, target := range map[string]string{
		"ascii":   "https://relay.example/mellow/anchor/1?utm_source=newsletter",
		"unicode": "https://bücher.example/straße?q=köln",
		"8k":      "https://relay.example/" + strings.Repeat("a", 8100),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Location(target)
			}
		})
	}
}

func BenchmarkAddQuery(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		AddQuery("https://example.com/a?b=2#f", "utm_source=x&utm_medium=y")
	}
}
