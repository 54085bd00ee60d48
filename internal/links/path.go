package links

import (
	"net/url"
	"strings"
	"unicode"
)

// A Path is the path of a request, read for the short code in it.
type Path struct {
	// Code is what the path says, "" if that cannot be a code.
	Code string
	// Trimmed is the code without what has been glued to its end, "" if nothing is,
	// or if the rest cannot be a code either.
	Trimmed string
	// Query is what was appended with & where ? was due. It is part of the visitor's
	// query.
	Query string
	// Long says that the path began with /r/.
	Long bool
	// Reserved says that the path is one of this service's own, and no link's.
	Reserved bool
	// Root says that the path names nothing: it is that of the bare domain.
	Root bool
}

// ReadPath reads the path of a request as it was sent. Short links are copied
// out of sentences, posters and chats, so that blanks and slashes may stand before
// the code, and behind it what TrimCode takes off, or a query that somebody took for
// the first parameter.
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

// ReadDomainPath is ReadPath for a custom domain, on which every path is a short
// link's: nothing is reserved, and r/ is the beginning of a code like any other.
func ReadDomainPath(path string) Path {
	text, query := decodePath(path)
	if text == "" {
		return Path{Root: true}
	}
	return readCode(text, query)
}

// decodePath returns the text of a path, from where a code may begin, and the query
// that was glued to it.
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
	if len(text) > 4*MaxCode { // far more than any code in another form
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

// TrimCode takes off what sentences, chats and mailers glue to a short link:
// slashes, blanks and characters of no width at both ends, and punctuation of
// any script at the end, closing quotes included, and symbols such as | and =,
// except for those in which a code may end. A percent or number sign is none.
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

// cutQuery cuts a query off a path where it was appended with an ampersand: no
// code has one, so the first of the path begins it. A query whose separator was
// percent-encoded, which may be a question mark as well, was encoded as a whole.
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
		if hasParameter(query) {
			return path[:i], query
		}
		return path, ""
	}
	return path, ""
}

// separator returns the length of what parts a query from a code at the
// beginning of text, 0 if there is none, and whether it is percent-encoded.
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

// CodePath returns the path of the main domain's link of code, percent-encoded:
// under /r/ if code is reserved.
func CodePath(code string) string {
	if Reserved(code) {
		return "/r" + DomainCodePath(code)
	}
	return DomainCodePath(code)
}

// DomainCodePath returns the path of the link of code on a custom domain,
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
