package links

import (
	"strings"
	"testing"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// TestDisguised looks at every letter, mark and digit: those that a browser's
// mapping turns into ASCII, or into nothing, are in no host.
func TestDisguised(t *testing.T) {
	t.Parallel()
	for r := rune(0x80); r <= unicode.MaxRune; r++ {
		if !validUnicodeLabel("a" + string(r)) {
			continue
		}
		if unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) || unicode.Is(unicode.Variation_Selector, r) {
			t.Errorf("%U is invisible and accepted in a host", r)
		}
		if r == 'İ' {
			continue // IDNA keeps its dot, which strings.ToLower drops
		}
		mapped := norm.NFKC.String(strings.ToLower(norm.NFKC.String(string(r))))
		if strings.ContainsFunc(mapped, func(r rune) bool { return r < 0x80 || r == 0x3002 }) {
			t.Errorf("%U becomes %q and is accepted in a host", r, mapped)
		}
	}
}
