package links

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

func TestCheckCode(t *testing.T) {
	t.Parallel()
	tests := []struct {
		code string
		want error // for a code that a person gives
	}{
		{"a", nil},
		{"Az09-_", nil},
		{strings.Repeat("a", MaxCode), nil},
		{"v1.2", nil},
		{".well", nil},
		{"~a", nil},
		{"T+B", nil},
		{"@ann", nil},
		{"$5", nil},
		{"a!b", nil},
		{"team/walks", nil},
		{"a/b/c", nil},
		{"a/...", ErrCodeEnd},
		{"구글", nil},
		{"café", nil},
		{"Straße", nil},
		{"हिन्दी", nil},
		{"ไทย", nil},
		{"١٢٣", nil},
		{"🚀", nil},
		{"☕", nil},
		{"❤️", nil},
		{"👩🏽\u200d💻", nil},
		{"🏳️\u200d🌈", nil},
		{"🇰🇷", nil},
		{"1️⃣", nil},
		{"ℹ️", nil},
		{"می\u200cشود", nil},         // Persian
		{"ශ්\u200dරී", nil},          // Sinhala
		{"क्\u200dष/क्\u200cष", nil}, // Hindi
		{"🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", nil},
		{"👨\u200d👩\u200d👧/team", nil},
		{"Users", nil},
		{"usersx", nil},
		{"x/users", nil},
		{"jobs", nil},
		{"help", nil},
		{"status", nil},

		{"users", ErrCodeReserved},
		{"users/5", ErrCodeReserved},
		{"r", ErrCodeReserved},
		{"r/x", ErrCodeReserved},
		{"api/v2", ErrCodeReserved},
		{"spring.", ErrCodeEnd},
		{"wow!", ErrCodeEnd},
		{"a/b!.", ErrCodeEnd},
		{"!", ErrCodeEnd},
		{"wow‼", ErrCodeEnd},

		{"", ErrCode},
		{strings.Repeat("a", MaxCode+1), ErrCode},
		{strings.Repeat("구", MaxCode/3+1), ErrCode},
		{"a b", ErrCode},
		{"a\u00a0b", ErrCode},
		{"/a", ErrCode},
		{"a/", ErrCode},
		{"a//b", ErrCode},
		{".", ErrCode},
		{"..", ErrCode},
		{"a/../b", ErrCode},
		{"a/./b", ErrCode},
		{"a\\b", ErrCode},
		{"a%b", ErrCode},
		{"a?b", ErrCode},
		{"a#b", ErrCode},
		{"a&b", ErrCode},
		{"a:b", ErrCode},
		{"a,b", ErrCode},
		{"a'b", ErrCode},
		{"a(b)", ErrCode},
		{"a^b", ErrCode},
		{"a€b", ErrCode},
		{"a—b", ErrCode},
		{"cafe\u0301", ErrCode}, // not in NFC
		{"\u0301a", ErrCode},
		{"a/\u0301", ErrCode},
		{"a\x00", ErrCode},
		{"a\n", ErrCode},
		{"\xff", ErrCode},
		{"a\ufffd", ErrCode},
		{"a\ufffc", ErrCode},
		{"a\u200bb", ErrCode},
		{"a\u00adb", ErrCode},
		{"a\u202eb", ErrCode},
		{"a\u200db", ErrCode},
		{"a\u200cb", ErrCode},
		{"م\u200dش", ErrCode},
		{"می\u200c", ErrCode},
		{"ශ්\u200d", ErrCode},
		{"می\u200c\u200cشود", ErrCode},
		{"🚀\u200d", ErrCode},
		{"\u200d🚀", ErrCode},
		{"a\ufe0f", ErrCode},
		{"1\ufe0f", ErrCode},
		{"\ufe0f", ErrCode},
		{"a\u3164", ErrCode}, // the Hangul filler is a letter that cannot be seen
		{"a\u034f", ErrCode},
		{"a\u2800", ErrCode},
		{"a\U000e0067", ErrCode},
		{"a\U000e0100", ErrCode},
	}
	for _, test := range tests {
		if err := CheckCode(test.code); !errors.Is(err, test.want) {
			t.Errorf("CheckCode(%q) = %v, want %v", test.code, err, test.want)
		}
		imported := test.want
		if imported != ErrCode { //nolint:errorlint // one of the table
			imported = nil
		}
		if err := CheckImportedCode(test.code); !errors.Is(err, imported) {
			t.Errorf("CheckImportedCode(%q) = %v, want %v", test.code, err, imported)
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
		"/spring":                   spring,
		"/s%70ring":                 spring,
		"//spring":                  spring,
		"/%20spring":                spring,
		"/%E2%80%8B%EF%BB%BFspring": spring,
		"/%C2%A0/%09spring":         spring,
		"/r/spring":                 long(spring),
		"//r//spring":               long(spring),
		"/r/%20spring":              long(spring),
		"/%72/spring":               long(spring),

		"/spring/":           glued,
		"/spring//":          glued,
		"/spring%2F":         glued,
		"/spring,":           glued,
		"/spring)":           glued,
		"/spring).":          glued,
		"/spring'":           glued,
		"/spring%22":         glued,
		"/spring%3E":         glued,
		"/spring;":           glued,
		"/spring:":           glued,
		"/spring**":          glued,
		"/spring%60":         glued,
		"/spring%5D":         glued,
		"/spring%7D":         glued,
		"/spring%3F":         glued,
		"/spring%20":         glued,
		"/spring%20%0D%0A":   glued,
		"/spring%C2%A0":      glued,
		"/spring%E3%80%80":   glued,
		"/spring%E2%80%8B":   glued,
		"/spring%E2%81%A9":   glued,
		"/spring%C2%AD":      glued,
		"/spring»":           glued,
		"/spring”":           glued,
		"/spring’":           glued,
		"/spring…":           glued,
		"/spring。":           glued,
		"/spring，":           glued,
		"/spring）」】》":        glued,
		"/spring！？：；":        glued,
		"/spring؟":           glued,
		"/spring।":           glued,
		"/spring%E2%80%9D).": glued,
		"/spring&":           glued,
		"/spring|":           glued,
		"/spring%7C":         glued,
		"/spring=":           glued,
		"/spring<":           glued,
		"/spring^":           glued,
		"/spring´":           glued,
		"/spring｜":           glued,
		"/spring＞":           glued,
		"/spring€":           glued,
		"/spring%CD%8F":      glued, // U+034F
		"/spring%E3%85%A4":   glued, // the Hangul filler
		"/spring%E2%A0%80":   glued, // blank braille
		"/spring%EF%BF%BC":   glued, // stands in place of a picture
		"/%E3%85%A4spring":   spring,
		"/r/spring/":         long(glued),

		"/spring.":               {Code: "spring.", Trimmed: "spring"},
		"/spring!!":              {Code: "spring!!", Trimmed: "spring"},
		"/spring.)":              glued,
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
		"/spring&&a=b":                 {Code: "spring", Query: "&a=b"},
		"/spring&flag&a=b":             {Code: "spring", Query: "flag&a=b"},
		"/spring/&utm=a/b.":            {Trimmed: "spring", Query: "utm=a/b."},
		"/spring.&a=b":                 {Code: "spring.", Trimmed: "spring", Query: "a=b"},
		"/r/spring&a[]=b":              {Code: "spring", Query: "a[]=b", Long: true},
		"/spring&fish-and-chips":       none,
		"/fish&chips":                  none,

		"/spring%00":                         none,
		"/spring%00.":                        none,
		"/%00spring":                         none,
		"/spring%":                           none,
		"/spring%zz":                         none,
		"/spring%25":                         none,
		"/spring%23top":                      none,
		"/spring%2520":                       none,
		"/spring%20more":                     none,
		"/%FF":                               none,
		"/spring%FF":                         none,
		"/a/../b":                            none,
		"/..":                                none,
		"/" + strings.Repeat("x", MaxCode+1): none,
		"/" + strings.Repeat("%CC%81", 5000): none,
		"/" + strings.Repeat("x", 10_000):    none,
		"/r/" + strings.Repeat("x", MaxCode) + ".": {Trimmed: strings.Repeat("x", MaxCode), Long: true},

		"":                                    root,
		"/":                                   root,
		"//":                                  root,
		"/%20":                                root,
		"/r":                                  own,
		"/r/":                                 own,
		"/r/%20":                              own,
		"/users":                              own,
		"/users/":                             own,
		"/users/%zz":                          own,
		"/users/" + strings.Repeat("9", 4000): own,
		"//users/5":                           own,
		"/%75sers/5":                          own,
		"/users%2F5":                          own,
		"/urls&a=b":                           own,
		"/docs/x.css":                         own,
		"/robots.txt":                         own,
		"/live":                               own,
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
