package links

import (
	"net/url"
	"strings"
	"testing"
)

func TestLocation(t *testing.T) {
	t.Parallel()
	tests := []struct {
		target, query string
		forward       bool
		want          string
	}{
		{"https://example.com/a", "x=1", false, "https://example.com/a"},
		{"https://example.com/a", "", true, "https://example.com/a"},
		{"https://example.com/a", "x=1", true, "https://example.com/a?x=1"},
		{"https://example.com", "x=1", true, "https://example.com?x=1"},
		{"https://example.com/a?b=2", "x=1", true, "https://example.com/a?b=2&x=1"},
		{"https://example.com/a?", "x=1", true, "https://example.com/a?x=1"},
		{"https://example.com/a?b&", "x=1", true, "https://example.com/a?b&x=1"},
		{"https://example.com/a#f", "x=1", true, "https://example.com/a?x=1#f"},
		{"https://example.com/a?b=2#f?g", "x=1", true, "https://example.com/a?b=2&x=1#f?g"},
		{"https://example.com/a", "x=a b#c\r\n\xff\\", true, "https://example.com/a?x=a%20b%23c%0D%0A%FF%5C"},
	}
	for _, test := range tests {
		if got := Location(test.target, test.query, test.forward); got != test.want {
			t.Errorf("Location(%q, %q, %v) = %q, want %q", test.target, test.query, test.forward, got, test.want)
		}
	}
}

// Not parallel: AllocsPerRun counts what any goroutine allocates.
func TestAllocations(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { Location("https://example.com/a", "x=1", false) }); n != 0 {
		t.Errorf("Location without forward allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { _ = CheckURL("https://example.com:8443/a?b=%20#c", ownHosts) }); n != 0 {
		t.Errorf("CheckURL allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { _ = CheckCode("brcPtw") }); n != 0 {
		t.Errorf("CheckCode allocates %v times", n)
	}
}

func FuzzLocation(f *testing.F) {
	f.Add("https://example.com/a?b=2#f", "x=1")
	f.Add("https://example.com", "#\r\n@evil.example/")
	f.Add("http://[::1]:80#f", "\x80%")
	f.Fuzz(func(t *testing.T, target, query string) {
		if CheckURL(target, nil) != nil {
			return // not a target that a link can have
		}
		before, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		location := Location(target, query, true)
		after, err := url.Parse(location)
		if err != nil {
			t.Fatalf("Location(%q, %q) = %q: %v", target, query, location, err)
		}
		if after.Scheme != before.Scheme || after.Host != before.Host || after.User != nil ||
			after.EscapedPath() != before.EscapedPath() || after.EscapedFragment() != before.EscapedFragment() {
			t.Fatalf("Location(%q, %q) = %q leads elsewhere", target, query, location)
		}
		if !strings.HasPrefix(after.RawQuery, before.RawQuery) {
			t.Fatalf("Location(%q, %q) = %q changes the target's parameters", target, query, location)
		}
	})
}

func BenchmarkLocation(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Location("https://example.com/a?b=2#f", "utm_source=x&utm_medium=y", true)
	}
}
