package links

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxTitle is the greatest length of a title in characters.
	MaxTitle = 255
	// MaxTags is how many tags a link may have.
	MaxTags = 20
	// MaxTag is the greatest length of a tag in characters.
	MaxTag = 50
)

// CheckTitle returns nil if title may be a link's title, and otherwise ErrTitle. A
// title is at most MaxTitle characters of valid UTF-8, without control characters and
// characters that change the direction of text.
func CheckTitle(title string) error {
	if !plain(title) || longer(title, MaxTitle) {
		return ErrTitle
	}
	return nil
}

// CleanTitle makes one line of a title that was written over several: each run of
// blanks that holds a line break or tab becomes one space, and blanks around the title
// are removed. Other titles stay as they are. It returns the result, or ErrTitle.
func CleanTitle(title string) (string, error) {
	title = strings.TrimSpace(title)
	if strings.ContainsAny(title, "\t\n\v\f\r\u0085\u2028\u2029") {
		title = strings.Join(strings.Fields(title), " ")
	}
	return title, CheckTitle(title)
}

// CleanTags trims tags and drops duplicates, in the order of first appearance; it does
// not change tags itself. The error is ErrTagCount if more than MaxTags remain. It is
// ErrTag if one is empty, longer than MaxTag characters, or holds a comma, a pipe
// (which joins tags in files), a control character or one that changes the direction of
// text. Without an error, the result is never nil.
func CleanTags(tags []string) ([]string, error) {
	cleaned := make([]string, 0, min(len(tags), MaxTags))
	for _, tag := range tags {
		tag = strings.TrimSpace(tag)
		if tag == "" || longer(tag, MaxTag) || !plain(tag) || strings.ContainsAny(tag, ",|") {
			return nil, ErrTag
		}
		if slices.Contains(cleaned, tag) {
			continue
		}
		// The tags are counted here, so that a list of any length costs no more than
		// this.
		if len(cleaned) == MaxTags {
			return nil, ErrTagCount
		}
		cleaned = append(cleaned, tag)
	}
	return cleaned, nil
}

// CheckRedirectStatus returns nil if a redirect may have this status, which is 301,
// 302, 307 or 308, and otherwise ErrRedirectStatus.
func CheckRedirectStatus(status int) error {
	switch status {
	case 301, 302, 307, 308:
		return nil
	}
	return ErrRedirectStatus
}

// plain reports whether text is valid UTF-8 without control characters, line and
// paragraph separators included, and without characters that change the direction of
// text. With those, a list would show something else than it means.
func plain(text string) bool {
	for i := range len(text) {
		switch c := text[i]; {
		case c >= utf8.RuneSelf:
			return utf8.ValidString(text) && strings.IndexFunc(text, misleads) < 0
		case c < ' ' || c == 0x7f:
			return false
		}
	}
	return true
}

func misleads(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}

// longer reports whether text has more than limit characters.
func longer(text string, limit int) bool {
	return len(text) > limit && utf8.RuneCountInString(text) > limit
}
