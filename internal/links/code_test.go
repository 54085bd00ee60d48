package links

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"golang.org/x/text/unicode/norm"
)

func TestCheckCode(t *testing.T) {
	t.Parallel()
	for want, codes := range map[error][]string{ // for a code that a person gives
		nil: {
			"a", "Az09-_", strings.Repeat("a", MaxCode), "v1.2", ".well", "~a", "T+B", "@ann", "$5", "a!b", "team/walks", "a/b/c", "구글",
			"café", "Straße", "हिन्दी", "ไทย", "١٢٣", "🚀", "☕", "❤️", "👩🏽\u200d💻", "🏳️\u200d🌈", "🇰🇷", "1️⃣", "ℹ️",
			"می\u200cشود",         // Persian
			"ශ්\u200dරී",          // Sinhala
			"क्\u200dष/क्\u200cष", // Hindi
			"🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "👨\u200d👩\u200d👧/team", "Users", "usersx", "x/users", "jobs",
			"help", "status",
		},
		ErrCodeEnd: {
			"a/...", "spring.", "wow!", "a/b!.", "!", "wow‼",
		},
		ErrCodeReserved: {
			"users", "users/5", "r", "r/x", "api/v2",
		},
		ErrCode: {
			"", strings.Repeat("a", MaxCode+1), strings.Repeat("구", MaxCode/3+1), "a b", "a\u00a0b", "/a", "a/", "a//b", ".", "..", "a/../b",
			"a/./b", "a\\b", "a%b", "a?b", "a#b", "a&b", "a:b", "a,b", "a'b", "a(b)", "a^b", "a€b", "a—b",
			"cafe\u0301", // not in NFC
			"\u0301a", "a/\u0301", "a\x00", "a\n", "\xff", "a\ufffd", "a\ufffc", "a\u200bb", "a\u00adb", "a\u202eb", "a\u200db", "a\u200cb",
			"م\u200dش", "می\u200c", "ශ්\u200d", "می\u200c\u200cشود", "🚀\u200d", "\u200d🚀", "a\ufe0f", "1\ufe0f", "\ufe0f",
			"a\u3164", // the Hangul filler is a letter that cannot be seen
			"a\u034f", "a\u2800", "a\U000e0067", "a\U000e0100",
		},
	} {
		imported := want
		if want != ErrCode { //nolint:errorlint // one of the table
			imported = nil
		}
		for _, code := range codes {
			if err := CheckCode(code); !errors.Is(err, want) {
				t.Errorf("CheckCode(%q) = %v, want %v", code, err, want)
			}
			if err := CheckImportedCode(code); !errors.Is(err, imported) {
				t.Errorf("CheckImportedCode(%q) = %v, want %v", code, err, imported)
			}
		}
	}
}

func TestIsPlainCode(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]bool{
		"a": true, "Az09-_": true, strings.Repeat("a", MaxCode): true, "users": true,
		"": false, strings.Repeat("a", MaxCode+1): false, "a.b": false, "a/b": false, "é": false, "a\x00": false,
	} {
		if IsPlainCode(code) != want {
			t.Errorf("IsPlainCode(%q) = %v", code, !want)
		}
	}
}

func TestReserved(t *testing.T) {
	t.Parallel()
	routed, planned := ReservedWords()
	for _, word := range append(routed, planned...) {
		if !Reserved(word) || !Reserved(word+"/more") {
			t.Errorf("%q is not reserved", word)
		}
		if Reserved(word+"x") || Reserved("x/"+word) || Reserved(strings.ToUpper(word)) {
			t.Errorf("more than %q is reserved", word)
		}
	}
	for _, word := range []string{"", "/", "jobs", "help", "status", "metrics", "exports", "login", "qr"} {
		if Reserved(word) {
			t.Errorf("%q is reserved", word)
		}
	}
}

func TestReadPath(t *testing.T) {
	t.Parallel()
	long := func(p Path) Path { p.Long = true; return p }
	spring, glued := Path{Code: "spring"}, Path{Trimmed: "spring"}
	none, own, root := Path{}, Path{Reserved: true}, Path{Reserved: true, Root: true}
	tests := map[string]Path{
		"/spring.":               {Code: "spring.", Trimmed: "spring"},
		"/spring!!":              {Code: "spring!!", Trimmed: "spring"},
		"/v1.2":                  {Code: "v1.2"},
		"/v1.2.":                 {Code: "v1.2.", Trimmed: "v1.2"},
		"/team/walks":            {Code: "team/walks"},
		"/team/walks/":           {Trimmed: "team/walks"},
		"/spring/more":           {Code: "spring/more"},
		"/구글":                    {Code: "구글"},
		"/%EA%B5%AC%EA%B8%80%20": {Trimmed: "구글"},
		"/caf%65%CC%81":          {Code: "café"},
		"/%F0%9F%9A%80":          {Code: "🚀"},
		"/❤️。":                   {Trimmed: "❤️"},
		"/ℹ️.":                   {Code: "ℹ️.", Trimmed: "ℹ️"},
		"/❤️|":                   {Trimmed: "❤️"},
		"/می%E2%80%8Cشود":        {Code: "می\u200cشود"},
		"/T+B":                   {Code: "T+B"},
		"/T+":                    {Code: "T+"},
		"/T~.":                   {Code: "T~.", Trimmed: "T~"},
		"/a-":                    {Code: "a-"},
		"/Users":                 {Code: "Users"},
		"/users.":                {Code: "users."},
		"/r/users":               {Code: "users", Long: true},
		"/r/users/":              {Trimmed: "users", Long: true},
		"/r/r/x":                 {Code: "r/x", Long: true},
		"/spring%2Fmore":         {Code: "spring/more"},

		"/spring&utm_source=x":         {Code: "spring", Query: "utm_source=x"},
		"/spring&utm_source=a%26b&x=1": {Code: "spring", Query: "utm_source=a%26b&x=1"},
		"/spring&amp;utm_source=x":     {Code: "spring", Query: "utm_source=x"},
		"/spring%26utm_source%3Dx":     {Code: "spring", Query: "utm_source=x"},
		"/spring%3Futm_source=a%20b":   {Code: "spring", Query: "utm_source=a b"},
		"/spring%3Fqr":                 {Code: "spring", Query: "qr"},
		"/spring&qr&a":                 {Code: "spring", Query: "qr&a"},
		"/spring&qrx":                  {},
		"/spring&&a=b":                 {Code: "spring", Query: "&a=b"},
		"/spring&flag&a=b":             {Code: "spring", Query: "flag&a=b"},
		"/spring/&utm=a/b.":            {Trimmed: "spring", Query: "utm=a/b."},
		"/spring.&a=b":                 {Code: "spring.", Trimmed: "spring", Query: "a=b"},
		"/r/spring&a[]=b":              {Code: "spring", Query: "a[]=b", Long: true},

		"/r/" + strings.Repeat("x", MaxCode) + ".": {Trimmed: strings.Repeat("x", MaxCode), Long: true},
	}
	for want, paths := range map[Path][]string{
		spring: {
			"/spring", "/s%70ring", "//spring", "/%20spring", "/%E2%80%8B%EF%BB%BFspring", "/%C2%A0/%09spring", "/%E3%85%A4spring",
		},
		long(spring): {
			"/r/spring", "//r//spring", "/r/%20spring", "/%72/spring",
		},
		glued: {
			"/spring/", "/spring//", "/spring%2F", "/spring,", "/spring)", "/spring).", "/spring'", "/spring%22", "/spring%3E", "/spring;",
			"/spring:", "/spring**", "/spring%60", "/spring%5D", "/spring%7D", "/spring%3F", "/spring%20", "/spring%20%0D%0A",
			"/spring%C2%A0", "/spring%E3%80%80", "/spring%E2%80%8B", "/spring%E2%81%A9", "/spring%C2%AD", "/spring»", "/spring”", "/spring’",
			"/spring…", "/spring。", "/spring，", "/spring）」】》", "/spring！？：；", "/spring؟", "/spring।", "/spring%E2%80%9D).", "/spring&",
			"/spring|", "/spring%7C", "/spring=", "/spring<", "/spring^", "/spring´", "/spring｜", "/spring＞", "/spring€",
			"/spring%CD%8F",    // U+034F
			"/spring%E3%85%A4", // the Hangul filler
			"/spring%E2%A0%80", // blank braille
			"/spring%EF%BF%BC", // stands in place of a picture
			"/spring.)",
		},
		long(glued): {
			"/r/spring/",
		},
		none: {
			"/spring&fish-and-chips", "/fish&chips", "/spring%00", "/spring%00.", "/%00spring", "/spring%", "/spring%zz", "/spring%25",
			"/spring%23top", "/spring%2520", "/spring%20more", "/%FF", "/spring%FF", "/a/../b", "/..", "/" + strings.Repeat("x", MaxCode+1),
			"/" + strings.Repeat("%CC%81", 5000), "/" + strings.Repeat("x", 10_000),
		},
		root: {
			"", "/", "//", "/%20",
		},
		own: {
			"/r", "/r/", "/r/%20", "/users", "/users/", "/users/%zz", "/users/" + strings.Repeat("9", 4000), "//users/5", "/%75sers/5",
			"/users%2F5", "/urls&a=b", "/docs/x.css", "/robots.txt", "/live",
		},
	} {
		for _, path := range paths {
			tests[path] = want
		}
	}
	for path, want := range tests {
		if got := ReadPath(path); got != want {
			t.Errorf("ReadPath(%q) = %+v, want %+v", path, got, want)
		}
	}
}

// On a custom domain no word is reserved, and no other prefix has the meaning of a
// code's path.
func TestReadDomainPath(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]Path{
		"":                                   {Root: true},
		"//":                                 {Root: true},
		"/%20":                               {Root: true},
		"/spring":                            {Code: "spring"},
		"/spring/":                           {Trimmed: "spring"},
		"/users":                             {Code: "users"},
		"/users/5":                           {Code: "users/5"},
		"/health.":                           {Code: "health.", Trimmed: "health"},
		"/r/spring":                          {Code: "r/spring"},
		"/r":                                 {Code: "r"},
		"/docs&a=b":                          {Code: "docs", Query: "a=b"},
		"/favicon.ico":                       {Code: "favicon.ico"},
		"/%F0%9F%9A%80":                      {Code: "🚀"},
		"/" + strings.Repeat("x", MaxCode+1): {},
	} {
		if got := ReadDomainPath(path); got != want {
			t.Errorf("ReadDomainPath(%q) = %+v, want %+v", path, got, want)
		}
	}
	for _, code := range []string{"users", "r/x", "구글/🚀", "a.b~c"} {
		if got := ReadDomainPath(DomainCodePath(code)); got.Code != code {
			t.Errorf("the path of %q is read as %+v", code, got)
		}
	}
}

func TestCodePath(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{
		"spring": "/spring", "v1.2": "/v1.2", "team/walks": "/team/walks", "T+B": "/T+B", "wow!": "/wow!",
		"구글": "/%EA%B5%AC%EA%B8%80", "🚀/x": "/%F0%9F%9A%80/x", "users": "/r/users", "users/5": "/r/users/5",
		"r": "/r/r", "Users": "/Users", "a?b%": "/a%3Fb%25",
	} {
		if got := CodePath(code); got != want {
			t.Errorf("CodePath(%q) = %q, want %q", code, got, want)
		}
	}
}

func FuzzCode(f *testing.F) {
	for _, code := range []string{"spring", "team/walks", "구글", "cafe\u0301", "👩🏽\u200d💻", "1️⃣", "spring.", "a/../b", "users/5"} {
		f.Add(code)
	}
	f.Fuzz(func(t *testing.T, text string) {
		code := NormalCode(text)
		if NormalCode(code) != code {
			t.Fatalf("NormalCode(%q) = %q, which is %q in turn", text, code, NormalCode(code))
		}
		if CheckCode(code) == nil && (CheckImportedCode(code) != nil || Reserved(code)) {
			t.Fatalf("%q may be given by hand, and not imported", code)
		}
		if IsPlainCode(code) && !IsCode(code) {
			t.Fatalf("%q is plain and no code", code)
		}
		if !IsCode(code) {
			return
		}
		if len(code) > MaxCode || !utf8.ValidString(code) || !norm.NFC.IsNormalString(code) || strings.ContainsAny(code, " \\%?#&<>\"'") {
			t.Fatalf("%q is a code", code)
		}
		// The address of a code is a path that browsers do not change, and it leads to
		// the code.
		path := CodePath(code)
		parsed, err := url.Parse("https://sign.example" + path)
		if err != nil || parsed.EscapedPath() != path || parsed.JoinPath().EscapedPath() != path {
			t.Fatalf("CodePath(%q) = %q: %v, %v", code, path, parsed, err)
		}
		if read := ReadPath(path); read.Code != code || read.Reserved || read.Long != Reserved(code) || read.Query != "" {
			t.Fatalf("%q is read from %q as %+v", code, path, read)
		}
	})
}

func FuzzTrimCode(f *testing.F) {
	for _, text := range []string{"spring).", " /spring", "spring\u200b»", "❤️。", "‼", "a-_@", "🏴\U000e0067\U000e007f"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		trimmed := TrimCode(text)
		if !strings.Contains(text, trimmed) || len(trimmed) > len(text) {
			t.Fatalf("TrimCode(%q) = %q is no part of it", text, trimmed)
		}
		if TrimCode(trimmed) != trimmed {
			t.Fatalf("TrimCode(%q) = %q, which is %q in turn", text, trimmed, TrimCode(trimmed))
		}
		if (IsPlainCode(text) || CheckCode(text) == nil) && trimmed != text {
			t.Fatalf("the code %q is trimmed to %q", text, trimmed)
		}
	})
}

func FuzzReadPath(f *testing.F) {
	for _, path := range []string{"/spring", "/r/team/walks.", "//%20spring&a=b", "/spring%3Fa=b", "/users/5", "/%ff", "/%zz", "/caf%65%CC%81)"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		p := ReadPath(path)
		for _, code := range []string{p.Code, p.Trimmed} {
			if code != "" && (!IsCode(code) || p.Reserved || Reserved(code) && !p.Long) {
				t.Fatalf("ReadPath(%q) = %+v", path, p)
			}
		}
		if p.Code != "" && p.Trimmed != "" && p.Trimmed != TrimCode(p.Code) {
			t.Fatalf("ReadPath(%q) = %+v", path, p)
		}
	})
}

func TestNewCode(t *testing.T) {
	t.Parallel()
	counts := map[byte]int{}
	const codes = 20_000
	for range codes {
		code := NewCode(CodeLength)
		if len(code) != CodeLength || CheckCode(code) != nil || !IsPlainCode(code) {
			t.Fatalf("NewCode(%d) = %q", CodeLength, code)
		}
		for i := range len(code) {
			counts[code[i]]++
		}
	}
	// Each of 62 digits is expected 2,258 times with a deviation of 47. A
	// plain remainder of a byte would give the first eight 2,734 times.
	const mean = codes * CodeLength / 62
	for _, c := range []byte(base62) {
		if counts[c] < mean-330 || counts[c] > mean+330 {
			t.Errorf("digit %q drawn %d times of about %d", c, counts[c], mean)
		}
	}
}

func TestNewCodeBounds(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{-1: 1, 0: 1, 1: 1, MaxCode: MaxCode, MaxCode + 1: MaxCode} {
		for range 500 { // often enough to draw the reserved "r"
			if code := NewCode(n); len(code) != want || CheckCode(code) != nil {
				t.Fatalf("NewCode(%d) = %q", n, code)
			}
		}
	}
}

func TestCodeOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ title, target, want string }{
		{"", "", ""},
		{"Spring sale!", "https://example.com/x", "spring-sale"},
		{"  Über  uns — und mehr ", "", "über-uns-und-mehr"},
		{"2026", "https://example.com/news/Big_News.html?x=1#y", "big-news"},
		{"", "https://example.com/shop/spring-sale/", "spring-sale"},
		{"", "https://example.com/", ""},
		{"", "https://example.com/12345", ""},
		{"", "https://example.com/%ff", ""},
		{"", "://", ""},
		{"x", "https://example.com/y", ""},
		{strings.Repeat("word ", 20), "", "word-word-word-word-word-word-word-word"},
		{strings.Repeat("long", 20), "https://example.com/short", "short"},
		{"日本語の本", "", "日本語の本"},
	} {
		assert.Equal(t, c.want, CodeOf(c.title, c.target), "%q %q", c.title, c.target)
	}
}
