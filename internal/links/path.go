package links

import (
	"net/url"
	"strings"
	"unicode"
)

// A Path is the path of a request, in which ReadPath has looked for a short code.
type Path struct {
	// Code is the code that the path asks for, "" if the path cannot be a code.
	Code string
	// Trimmed is the code without characters that were glued to its end. It is "" if
	// there are none, or if the rest cannot be a code.
	Trimmed string
	// Query is a query that was appended with & instead of ?. It is part of the
	// visitor's query.
	Query string
	// Long says that the path began with /r/.
	Long bool
	// Reserved says that the path belongs to a route of this service and not to a link.
	Reserved bool
	// Root says that the path is empty: the request is for the bare domain.
	Root bool
}

// ReadPath reads the path of a request as it was sent. Short links are copied out of
// sentences, posters and chats. So blanks and slashes may stand before the code. After
// it there may be characters that TrimCode takes off, or a query that was appended with
// &, as if it were not the first parameter.
func ReadPath(path string) Path {
	text, query := decodePath(path)
	text, long := strings.CutPrefix(text, "r/")
	text = trimFront(text)
	if text == "" || !long && Reserved(text) {
		return Path{Reserved: true, Root: text == "" && !long}
	}
	p := readCode(text, query)
	p.Long = long
	if !long && Reserved(p.Trimmed) {
		p.Trimmed = ""
	}
	return p
}

// ReadDomainPath is like ReadPath, for a custom domain. There every path is the path of
// a short link: no words are reserved, and r/ is the beginning of a code like any
// other.
func ReadDomainPath(path string) Path {
	text, query := decodePath(path)
	if text == "" {
		return Path{Root: true}
	}
	return readCode(text, query)
}

// decodePath returns the text of a path, from the first character that a code may have,
// and the query that was glued to it.
func decodePath(path string) (text, query string) {
	path, query = cutQuery(path)
	text, err := url.PathUnescape(path)
	if err != nil {
		text = path // no code has a percent sign
	}
	return trimFront(text), query
}

func readCode(text, query string) Path {
	p := Path{Query: query}
	if len(text) > 4*MaxCode { // a code is never that long, in any form of Unicode
		return p
	}
	text = NormalCode(text)
	if IsCode(text) {
		p.Code = text
	}
	if trimmed := TrimCode(text); trimmed != text && IsCode(trimmed) {
		p.Trimmed = trimmed
	}
	return p
}

// TrimCode takes off the characters that sentences, chats and mailers glue to a short
// link. At both ends these are slashes, blanks and characters of no width. At the end
// they are also punctuation of any script, closing quotes included, and symbols such as
// | and =. Characters in which a code may end are not taken off, nor are % and #.
func TrimCode(text string) string { return strings.TrimRightFunc(trimFront(text), isLoose) }

func trimFront(text string) string {
	return strings.TrimLeftFunc(text, func(r rune) bool { return r == '/' || isBlank(r) })
}

// isBlank reports whether r cannot be seen. An emoji may end in asEmoji or in tags.
func isBlank(r rune) bool {
	return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) && !isTag(r) || invisible(r) && r != asEmoji ||
		r == blankBraille || r == object
}

func isLoose(r rune) bool {
	switch r {
	case '-', '_', '@', '%', '#', '~', '+', '$':
		return false
	}
	return unicode.IsPunct(r) || isBlank(r) || unicode.In(r, unicode.Sm, unicode.Sc, unicode.Sk) && !isEmoji(r)
}

// cutQuery cuts off a query that was appended to a path with an ampersand. No code has
// an ampersand, so the query begins at the first one. The separator may also be
// percent-encoded, and may then be a question mark too; in this case the whole query
// was encoded.
func cutQuery(path string) (before, query string) {
	for i := range len(path) {
		n, encoded := separator(path[i:])
		if n == 0 {
			continue
		}
		query = path[i+n:]
		if plain, err := url.PathUnescape(query); encoded && err == nil {
			query = plain
		}
		query = strings.TrimPrefix(query, "amp;") // copied out of HTML
		if _, scanned := CutScan(query); scanned || hasParameter(query) {
			return path[:i], query
		}
		return path, ""
	}
	return path, ""
}

// separator looks at the beginning of text for a separator of code and query. It
// returns the length of the separator, 0 if there is none, and whether it is
// percent-encoded.
func separator(text string) (n int, encoded bool) {
	switch {
	case text[0] == '&':
		return 1, false
	case len(text) < 3:
		return 0, false
	}
	switch text[:3] {
	case "%26", "%3F", "%3f":
		return 3, true
	}
	return 0, false
}

// hasParameter reports whether a query begins with name=value, or with words
// and then that.
func hasParameter(query string) bool {
	name, _, found := strings.Cut(query, "=")
	if !found || name == "" {
		return false
	}
	for i := range len(name) {
		if c := name[i]; !segmentByte[c] && !strings.ContainsRune("&;[]%", rune(c)) {
			return false
		}
	}
	return true
}

// CodePath returns the path of the link with this code on the main domain,
// percent-encoded. It is under /r/ if code is reserved.
func CodePath(code string) string {
	if Reserved(code) {
		return "/r" + DomainCodePath(code)
	}
	return DomainCodePath(code)
}

// DomainCodePath returns the path of the link with this code on a custom domain,
// percent-encoded.
func DomainCodePath(code string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len("/") + len(code))
	b.WriteByte('/')
	for i := range len(code) {
		c := code[i]
		if c == '/' || segmentByte[c] {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}
