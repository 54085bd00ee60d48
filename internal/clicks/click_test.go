package clicks

import (
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"

	"pgregory.net/rapid"
)

// aliased returns a string that shares its memory with b, as fasthttp's do.
func aliased(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func TestClean(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in    string
		limit int
		want  string
	}{
		{"", 10, ""},
		{"Mozilla/5.0 (X11; Linux x86_64)", 100, "Mozilla/5.0 (X11; Linux x86_64)"},
		{"Mozilla/5.0", 7, "Mozilla"},
		{"a\x00b\tc\x7fd\u0085e", 100, "abcde"},
		{"grüße", 100, "grüße"},
		{"grüße", 3, "gr"},
		{"grüße", 4, "grü"},
		{"\xff\xfe", 100, "\uFFFD\uFFFD"},
		{"\xff\xfe", 5, "\uFFFD"},
		{"0123456\x7f", 100, "0123456"},
		{"0123456\x1f", 100, "0123456"},
		{"~~~~~~~~ ~", 100, "~~~~~~~~ ~"},
	} {
		if got := Clean(tt.in, tt.limit); got != tt.want {
			t.Errorf("Clean(%q, %d) = %q, want %q", tt.in, tt.limit, got, tt.want)
		}
	}
}

func TestCleanProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := string(rapid.SliceOf(rapid.Byte()).Draw(t, "in"))
		if rapid.Bool().Draw(t, "text") {
			in = rapid.String().Draw(t, "string")
		}
		limit := rapid.IntRange(0, 40).Draw(t, "limit")
		got := Clean(in, limit)
		if len(got) > limit || !utf8.ValidString(got) || strings.ContainsAny(got, "\x00\n\r\x7f") {
			t.Fatalf("Clean(%q, %d) = %q", in, limit, got)
		}
		if again := Clean(got, limit); again != got {
			t.Fatalf("%q cleaned again is %q", got, again)
		}
		if slow := cleanSlow(in, limit); slow != got {
			t.Fatalf("fast %q, slow %q", got, slow)
		}
	})
}
