package links

import (
	"errors"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTitle(t *testing.T) {
	t.Parallel()
	tests := []struct {
		title, clean string
		check, want  error
	}{
		{"", "", nil, nil},
		{"Spring sale, all of it", "Spring sale, all of it", nil, nil},
		{strings.Repeat("é", MaxTitle), strings.Repeat("é", MaxTitle), nil, nil},
		{"two  spaces stay", "two  spaces stay", nil, nil},
		{" Spring \r\n\tsale ", "Spring sale", ErrTitle, nil},
		{"a\u2028b", "a b", ErrTitle, nil},
		{strings.Repeat("é", MaxTitle+1), strings.Repeat("é", MaxTitle+1), ErrTitle, ErrTitle},
		{"nul\x00", "nul\x00", ErrTitle, ErrTitle},
		{"bell\u0090", "bell\u0090", ErrTitle, ErrTitle},
		{"bad\xff", "bad\xff", ErrTitle, ErrTitle},
	}
	for _, test := range tests {
		if err := CheckTitle(test.title); !errors.Is(err, test.check) {
			t.Errorf("CheckTitle(%q) = %v, want %v", test.title, err, test.check)
		}
		if clean, err := CleanTitle(test.title); clean != test.clean || !errors.Is(err, test.want) {
			t.Errorf("CleanTitle(%q) = %q, %v, want %q, %v", test.title, clean, err, test.clean, test.want)
		}
	}
}

func TestCleanTags(t *testing.T) {
	t.Parallel()
	many := make([]string, MaxTags+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	tests := []struct {
		tags, want []string
		err        error
	}{
		{nil, []string{}, nil},
		{[]string{" b ", "a", "b", "B"}, []string{"b", "a", "B"}, nil},
		{many[:MaxTags], many[:MaxTags], nil},
		{append(slices.Clone(many[:MaxTags]), "0"), many[:MaxTags], nil},
		{many, nil, ErrTagCount},
		{[]string{strings.Repeat("é", MaxTag)}, []string{strings.Repeat("é", MaxTag)}, nil},
		{[]string{strings.Repeat("é", MaxTag+1)}, nil, ErrTag},
		{[]string{" "}, nil, ErrTag},
		{[]string{"a,b"}, nil, ErrTag},
		{[]string{"a|b"}, nil, ErrTag},
		{[]string{"a\nb"}, nil, ErrTag},
		{[]string{"\xff"}, nil, ErrTag},
	}
	for _, test := range tests {
		got, err := CleanTags(test.tags)
		if !errors.Is(err, test.err) || !slices.Equal(got, test.want) || err == nil && got == nil {
			t.Errorf("CleanTags(%q) = %q, %v, want %q, %v", test.tags, got, err, test.want, test.err)
		}
	}
}

func TestCheckRedirectStatus(t *testing.T) {
	t.Parallel()
	for status := range 1000 {
		want := status == 301 || status == 302 || status == 307 || status == 308
		if err := CheckRedirectStatus(status); (err == nil) != want {
			t.Errorf("CheckRedirectStatus(%d) = %v", status, err)
		}
	}
}

func TestCheckUsername(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "Ann Lee", "müller", strings.Repeat("é", MaxUsername), "名前"} {
		assert.NoErrorf(t, CheckUsername(name), "CheckUsername(%q)", name)
	}
	for _, name := range []string{
		"", " ann", "ann ", "a\tb", "a\x00", "\xff", "a\u00a0b", "a\u202eb", strings.Repeat("é", MaxUsername+1),
	} {
		if err := CheckUsername(name); !errors.Is(err, ErrUsername) {
			t.Errorf("CheckUsername(%q) = %v, want %v", name, err, ErrUsername)
		}
	}
}

func TestCheckEmail(t *testing.T) {
	t.Parallel()
	for _, email := range []string{
		"ann@example.com", "a.b+c_d-e@sub.example.org", "o'neil@example.com", "müller@bücher.example", "root@localhost",
	} {
		assert.NoErrorf(t, CheckEmail(email), "CheckEmail(%q)", email)
	}
	for _, email := range []string{
		"", "ann", "ann@", "@example.com", "ann@@example.com", "a@b@c.example", "Ann <ann@example.com>",
		"<ann@example.com>", "ann@example.com (Ann)", " ann@example.com", "ann@example.com ", "ann@exa mple.com",
		"ann@example.com\n", "ann\x00@example.com", ".ann@example.com", "ann.@example.com", "a..b@example.com",
		"ann@example..com", "ann@.example.com", "ann@example.com.", "ann@example.com,bob@example.com", "\xff@example.com",
		strings.Repeat("a", MaxEmail-len("@example.com")+1) + "@example.com",
	} {
		if err := CheckEmail(email); !errors.Is(err, ErrEmail) {
			t.Errorf("CheckEmail(%q) = %v, want %v", email, err, ErrEmail)
		}
	}
}

func FuzzCheckEmail(f *testing.F) {
	f.Add("ann@example.com")
	f.Add(`"ann lee"@example.com`)
	f.Add("a-@-b")
	f.Fuzz(func(t *testing.T, email string) {
		if CheckEmail(email) != nil {
			return
		}
		address, err := mail.ParseAddress(email)
		if err != nil || address.Address != email {
			t.Fatalf("accepted %q, net/mail reads %v, %v", email, address, err)
		}
	})
}

// Characters that change the direction of text can make one name look like another.
// Those that only join or shape letters are a part of writing.
func TestTextDirection(t *testing.T) {
	t.Parallel()
	names := map[string]func(string) error{
		"title":    CheckTitle,
		"tag":      func(tag string) error { _, err := CleanTags([]string{"a", tag}); return err },
		"username": CheckUsername,
		"email":    func(name string) error { return CheckEmail(name + "@example.com") },
		"target": func(name string) error {
			_, err := CleanTarget("https://example.com/"+name+"/", Hosts{})
			return err
		},
	}
	for _, r := range []rune{
		0x061c, 0x200e, 0x200f, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069,
	} {
		for what, check := range names {
			if check("gpj"+string(r)+"exe") == nil {
				t.Errorf("a %s may hold %U", what, r)
			}
		}
	}
	for _, text := range []string{"שלום", "مرحبا", "👩\u200d💻", "می\u200cخواهم"} {
		assert.NoErrorf(t, CheckTitle(text), "CheckTitle(%q)", text)
		if _, err := CleanTags([]string{text}); err != nil {
			t.Errorf("CleanTags(%q): %v", text, err)
		}
	}
}
