package visits

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/idna"

	"github.com/signpost/signpost/internal/links"
)

// cases returns the rows of a file of cases from the field, without its header.
func cases(t *testing.T, name string) [][]string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	var rows [][]string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
		}
	}
	if len(rows) < 5 {
		t.Fatalf("%s has only %d cases", name, len(rows))
	}
	return rows
}

func TestReferrersFromTheField(t *testing.T) {
	t.Parallel()
	for _, row := range cases(t, "referrers.tsv") {
		// After the value there may be a remark: a blank or a comma, and words.
		referrer := strings.TrimSuffix(row[0], " (UTF-8)")
		want := strings.TrimRight(strings.Fields(row[1])[0], ",")
		if want == "null" {
			want = ""
		}
		if got := ReferrerHost(referrer); got != want {
			t.Errorf("%q: got %q, want %q", referrer, got, want)
		}
	}
}

func TestReferrerHost(t *testing.T) {
	t.Parallel()
	for referrer, want := range map[string]string{
		"":                                     "",
		"no url":                               "",
		"https://":                             "",
		"https://example.org":                  "example.org",
		"https://News.Example.ORG./a?b#c":      "news.example.org",
		"http://user:pass@example.org:8080/":   "example.org",
		"https://example.org?x=https://b.com/": "example.org",
		"https://example.org\\@evil.test/":     "example.org",
		"http://[2001:db8::1]:80/":             "[2001:db8::1]",
		"http://[2001:db8::1]/":                "[2001:db8::1]",
		"http://[2001:DB8::1]/":                "[2001:db8::1]",
		"http://[nonsense]/":                   "",
		"https://exa mple.org/":                "",
		"https://<script>/":                    "",
		"https://a\x00b/":                      "",
		"https://a\xffb/":                      "",
		"https://" + strings.Repeat("a", 256):  "",
		"https://intranet/wiki":                "intranet",
		"https://e_x.example/":                 "e_x.example",

		// These are of apps, and addresses without a host.
		"android-app://com.slack/": "com.slack",
		"android-app://com.google.android.googlequicksearchbox/https/e.example": "com.google.android.googlequicksearchbox",
		"ios-app://544007664/vnd.youtube/x":                                     "544007664",
		"file:///C:/mail.html":                                                  "",
		"about:srcdoc":                                                          "",
		"about://blank":                                                         "",
		"data:text/html,a.b":                                                    "",
		"javascript:a.b":                                                        "",
		"mailto:ann@e.example":                                                  "",
		"blob:https://e.example/1":                                              "e.example",

		// These have no scheme.
		"//e.example/a":                   "e.example",
		"e.example/a?u=https://b.example": "e.example",
		"WWW.E.Example:8443/a":            "www.e.example",
		"e.example.":                      "e.example",
		"e.example:http":                  "",
		"ann@e.example":                   "",
		"192.0.2.7/a":                     "192.0.2.7",
		"1.5":                             "",
		"localhost":                       "",
		"undefined":                       "",
		"-":                               "",
		"(direct)":                        "",
		"...":                             "",
		"a..":                             "",
		".example":                        "",
		"a..example":                      "",
		"see e.example":                   "",

		// Each host has one spelling.
		"https://xn--mnchen-3ya.example/": "xn--mnchen-3ya.example",
		"https://XN--MNCHEN-3YA.example/": "xn--mnchen-3ya.example",
		"https://MÜNCHEN.example:443/":    "xn--mnchen-3ya.example",
		"https://mu\u0308nchen.example/":  "xn--mnchen-3ya.example",
		"https://m%C3%BCnchen.example/":   "xn--mnchen-3ya.example",
		"münchen.example/x":               "xn--mnchen-3ya.example",
		"https://straße.example/":         "xn--strae-oqa.example",
		"https://例え。テスト/":                 "xn--r8jz45g.xn--zckzah",
		"https://😃.example/":              "xn--h28h.example",
		"https://ｅ.example/":              "e.example",
		"https://e.example\uFF0Fa/":       "",
		"https://m%FCnchen.example/":      "",
		"https://e.example%2Fa/":          "",
		"https://e.example%zz/":           "",
		"http://[:::":                     "",
	} {
		if got := ReferrerHost(referrer); got != want {
			t.Errorf("%q: got %q, want %q", referrer, got, want)
		}
	}
}

// Whatever a client sends, the host is one that a database accepts, and it stays the
// same when it is read again.
func FuzzReferrerHost(f *testing.F) {
	for _, seed := range []string{"https://User@E.example:1/x", "www.e.example", "https://münchen.example", "http://[::1]/", "http://[:::", "%", "//\xff", "a..", "https://xn--a.example"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, referrer string) {
		host := ReferrerHost(referrer)
		if host == "" {
			return
		}
		if len(host) > hostMax || !isHost(host) {
			t.Fatalf("%q gives %q", referrer, host)
		}
		if again := ReferrerHost("https://" + host + "/"); again != host {
			t.Fatalf("%q gives %q, which gives %q", referrer, host, again)
		}
		unicode, err := idna.Lookup.ToUnicode(host)
		if err == nil && !links.IsASCII(unicode) && ReferrerHost("https://"+unicode) != host {
			t.Fatalf("%q gives %q, whose other spelling %q gives %q", referrer, host, unicode, ReferrerHost("https://"+unicode))
		}
	})
}

func BenchmarkReferrerHost(b *testing.B) {
	for name, referrer := range map[string]string{"plain": "https://news.example.org/story?id=7", "unicode": "https://münchen.example/story"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ReferrerHost(referrer)
			}
		})
	}
}
