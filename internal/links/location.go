package links

import "strings"

// Location returns the place to which a redirect to target leads, as a URI reference in
// ASCII (RFC 3986): the host is in punycode, and each byte that is not allowed in a URI
// is percent-encoded. Bytes that are allowed stay as they are, since one changed byte
// makes a signed URL useless. Brackets in path and query count as allowed, since
// browsers leave them too. Location never fails: the host of a target that CleanTarget
// would refuse is percent-encoded like the rest.
//
// Location applied to its own result returns the same again. If nothing changes,
// nothing is allocated.
func Location(target string) string {
	target = withASCIIHost(target)
	base, fragment, found := strings.Cut(target, "#")
	if inOrder(base) && inOrder(fragment) {
		return target
	}
	var b strings.Builder
	b.Grow(len(target) + len(target)/4)
	escape(&b, base)
	if found {
		b.WriteByte('#')
		escape(&b, fragment)
	}
	return b.String()
}

// AddQuery returns location, which is a [Location], with the query of a visit appended.
// rawQuery is this query as it stood in the request line, without the question mark.
// The location's own parameters come first, and its fragment stays last. Bytes that are
// not allowed in a query are percent-encoded, so that a request cannot change more than
// the query, and the result is a URI reference in ASCII too.
//
// Without a query, location is returned as it is and nothing is allocated.
func AddQuery(location, rawQuery string) string {
	if rawQuery == "" {
		return location
	}
	base, fragment := location, ""
	if i := strings.IndexByte(location, '#'); i >= 0 {
		base, fragment = location[:i], location[i:]
	}
	var b strings.Builder
	b.Grow(len(location) + 1 + len(rawQuery))
	b.WriteString(base)
	switch {
	case !strings.Contains(base, "?"):
		b.WriteByte('?')
	case !strings.HasSuffix(base, "?") && !strings.HasSuffix(base, "&"):
		b.WriteByte('&')
	}
	escape(&b, rawQuery)
	b.WriteString(fragment)
	return b.String()
}

// withASCIIHost returns target with its host in punycode, if that is possible.
func withASCIIHost(target string) string {
	scheme, rest, found := strings.Cut(target, "://")
	authority, tail := cutAuthority(rest)
	if !found || IsASCII(authority) {
		return target
	}
	host, _, _ := strings.Cut(authority, ":") // not an IPv6 address, which would be ASCII
	ascii, ok := asciiHost(host)
	if !ok {
		return target
	}
	return scheme + "://" + ascii + authority[len(host):] + tail
}

// uriByte is the set of bytes that need no escape in a URI: unreserved and reserved
// characters without #, which begins the fragment.
var uriByte = func() (set [256]bool) {
	for c := range set {
		set[c] = isLetter(byte(c)) || isDigit(byte(c)) || strings.IndexByte("-._~:/?[]@!$&'()*+,;=", byte(c)) >= 0
	}
	return set
}()

// inOrder reports whether escape would change nothing.
func inOrder(part string) bool {
	for i := range len(part) {
		if !uriByte[part[i]] && !isEscape(part[i:]) {
			return false
		}
	}
	return true
}

// escape writes part of a URI, and percent-encodes the bytes that are not allowed
// there. A % without two hexadecimal digits after it is not allowed.
func escape(b *strings.Builder, part string) {
	const digits = "0123456789ABCDEF"
	for i := range len(part) {
		c := part[i]
		if uriByte[c] || isEscape(part[i:]) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
}

// isEscape reports whether s begins with a percent-encoded byte.
func isEscape(s string) bool {
	return len(s) > 2 && s[0] == '%' && isHex(s[1]) && isHex(s[2])
}

func isHex(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }
