package links

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckCode(t *testing.T) {
	t.Parallel()
	tests := []struct {
		code string
		want error
	}{
		{"a", nil},
		{"Az09-_", nil},
		{strings.Repeat("a", MaxCode), nil},
		{"", ErrCode},
		{strings.Repeat("a", MaxCode+1), ErrCode},
		{"a b", ErrCode},
		{"a/b", ErrCode},
		{"é", ErrCode},
		{"a\x00", ErrCode},
		{"a.b", ErrCode},
		{"users", ErrCodeReserved},
		{"USERS", ErrCodeReserved},
		{"r", ErrCodeReserved},
		{"Well-Known", ErrCodeReserved},
	}
	for _, test := range tests {
		if err := CheckCode(test.code); !errors.Is(err, test.want) {
			t.Errorf("CheckCode(%q) = %v, want %v", test.code, err, test.want)
		}
	}
}

func TestReserved(t *testing.T) {
	t.Parallel()
	for _, word := range []string{
		"r", "users", "urls", "events", "tokens", "imports", "exports", "health", "ready", "docs",
		"openapi.json", "openapi", "robots.txt", "favicon.ico", "app", "admin", "api", "stats", "live",
		"metrics", "jobs", "debug", "login", "logout", "auth", "oauth", "account", "settings", "static",
		"assets", "qr", "preview", "healthz", "readyz", "well-known", ".well-known",
	} {
		if !Reserved(word) || !Reserved(strings.ToUpper(word)) {
			t.Errorf("%q is not reserved", word)
		}
	}
	for _, word := range []string{"", "rr", "brcPtw", strings.Repeat("users", 20)} {
		if Reserved(word) {
			t.Errorf("%q is reserved", word)
		}
	}
}

func TestNewCode(t *testing.T) {
	t.Parallel()
	counts := map[byte]int{}
	const codes = 20_000
	for range codes {
		code := NewCode(CodeLength)
		if len(code) != CodeLength || CheckCode(code) != nil {
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
		for range 500 { // often enough that the reserved "r" would be drawn
			if code := NewCode(n); len(code) != want || CheckCode(code) != nil {
				t.Fatalf("NewCode(%d) = %q", n, code)
			}
		}
	}
}
