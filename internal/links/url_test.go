package links

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

var ownHosts = []string{"sho.rt", "localhost:8080", "[2001:db8::1]:8443", "sho.rt:443"}

func TestCheckURL(t *testing.T) {
	t.Parallel()
	label63 := strings.Repeat("a", 63)
	tests := []struct {
		url  string
		want error
	}{
		{"https://example.com", nil},
		{"HTTP://EXAMPLE.COM/", nil},
		{"https://example.com.:8443/a/b?c=d&e#f", nil},
		{"https://example.com?q=1", nil},
		{"https://example.com#top", nil},
		{"https://example.com/a@b:c", nil},
		{"https://example.com/%41%c3%a9", nil},
		{"https://example.com/" + strings.Repeat("a", MaxURL-20), nil},
		{"https://bücher.example/straße?q=köln", nil},
		{"https://中文.example", nil},
		{"https://xn--bcher-kva.example", nil},
		{"http://under_score.example", nil},
		{"http://localhost", nil},
		{"http://127.0.0.1:65535/", nil},
		{"http://[2001:db8::2]/", nil},
		{"http://[2001:db8::2]:80", nil},
		{"http://" + label63 + ".example", nil},
		{"http://3com.example", nil},

		{"", ErrURLEmpty},
		{"https://example.com/" + strings.Repeat("a", MaxURL-19), ErrURLLength},
		{"example.com", ErrURLScheme},
		{"//example.com", ErrURLScheme},
		{"https:example.com", ErrURLScheme},
		{"https:/example.com", ErrURLScheme},
		{"ftp://example.com", ErrURLScheme},
		{"javascript:alert(1)//http://x", ErrURLScheme},
		{"mailto:ann@example.com", ErrURLScheme},
		{"://example.com", ErrURLScheme},
		{"https://", ErrURLHost},
		{"https:///path", ErrURLHost},
		{"https://?q", ErrURLHost},
		{"https://.", ErrURLHost},
		{"https://a..b", ErrURLHost},
		{"https://.example.com", ErrURLHost},
		{"https://example.com..", ErrURLHost},
		{"https://-a.example", ErrURLHost},
		{"https://a-.example", ErrURLHost},
		{"https://" + label63 + "a.example", ErrURLHost},
		{"https://" + strings.Repeat("aaaaaaa.", 32) + "example", ErrURLHost},
		{"https://exa%6dple.com", ErrURLHost},
		{"https://a!b.example", ErrURLHost},
		{"https://256.1.1.1", ErrURLHost},
		{"https://127.1", ErrURLHost},
		{"https://2130706433", ErrURLHost},
		{"https://0x7f000001", ErrURLHost},
		{"https://0177.0.0.1", ErrURLHost},
		{"https://[::1", ErrURLHost},
		{"https://[::1]x", ErrURLHost},
		{"https://[1.2.3.4]", ErrURLHost},
		{"https://[fe80::1%25eth0]", ErrURLHost},
		{"https://::1/", ErrURLHost},
		{"https://ｅxample.com", ErrURLHost},
		{"https://example。com", ErrURLHost},
		{"https://ſho.rt/abc", ErrURLHost},
		{"https://exam\u200dple.com", ErrURLHost},
		{"https://example.com:", ErrURLPort},
		{"https://example.com:0", ErrURLPort},
		{"https://example.com:65536", ErrURLPort},
		{"https://example.com:+80", ErrURLPort},
		{"https://example.com:80:80", ErrURLPort},
		{"https://example.com:http", ErrURLPort},
		{"https://good.example@evil.example/", ErrURLUserinfo},
		{"https://ann:secret@example.com/", ErrURLUserinfo},
		{"https://@example.com/", ErrURLUserinfo},
		{" https://example.com", ErrURLSpace},
		{"https://example.com/a b", ErrURLSpace},
		{"https://example.com/a\u00a0b", ErrURLSpace},
		{"https://example.com/\n", ErrURLControl},
		{"https://example.com/\x00", ErrURLControl},
		{"https://example.com/\x7f", ErrURLControl},
		{"https://example.com/\u0085", ErrURLControl},
		{"https://example.com/\u202egpj.exe", ErrURLControl},
		{`https://example.com\@evil.example`, ErrURLBackslash},
		{"https://example.com/\xff", ErrURLEncoding},
		{"https://example.com/100%", ErrURLEscape},
		{"https://example.com/?q=%zz", ErrURLEscape},

		{"https://sho.rt/abc", ErrURLOwn},
		{"http://SHO.RT:80/abc?x#y", ErrURLOwn},
		{"https://sho.rt.:443/r/abc", ErrURLOwn},
		{"https://sho.rt/abc/", ErrURLOwn},
		{"https://sho.rt//abc", ErrURLOwn},
		{"https://sho.rt/x/../abc", ErrURLOwn},
		{"https://sho.rt/x/%2e%2e/%61bc", ErrURLOwn},
		{"https://sho.rt/r/docs", ErrURLOwn},
		{"http://localhost:8080/abc", ErrURLOwn},
		{"http://[2001:0DB8:0::1]:8443/abc", ErrURLOwn},
		{"https://sho.rt/", nil},
		{"https://sho.rt", nil},
		{"https://sho.rt/docs", nil},
		{"https://sho.rt/DOCS/", nil},
		{"https://sho.rt/a/b", nil},
		{"https://sho.rt:8443/abc", nil},
		{"http://localhost:8081/abc", nil},
		{"https://www.sho.rt/abc", nil},
	}
	for _, test := range tests {
		if err := CheckURL(test.url, ownHosts); !errors.Is(err, test.want) {
			t.Errorf("CheckURL(%q) = %v, want %v", test.url, err, test.want)
		}
	}
}

func FuzzCheckURL(f *testing.F) {
	for _, seed := range []string{
		"https://example.com/a?b=c#d", "http://[::1]:80/", "https://bücher.example:1/%20",
		"http://a@b", "http://127.0.0.1.", `http://a\b`, "HTTPS://sho.rt/%61bc", "http://0x", "http://a?%",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if CheckURL(raw, ownHosts) != nil {
			return
		}
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatalf("accepted %q, net/url says %v", raw, err)
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Opaque != "" {
			t.Fatalf("accepted %q, net/url reads %#v", raw, u)
		}
		if len(raw) > MaxURL || !utf8.ValidString(raw) {
			t.Fatalf("accepted %q", raw)
		}
	})
}

func BenchmarkCheckURL(b *testing.B) {
	const target = "https://relay.example/mellow/anchor/1?utm_source=newsletter"
	b.ReportAllocs()
	for b.Loop() {
		if err := CheckURL(target, ownHosts); err != nil {
			b.Fatal(err)
		}
	}
}
