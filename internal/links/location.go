package links

import "strings"

// Location returns where a redirect to target leads, as a URI reference in ASCII
// (RFC 3986): the host in punycode, and each byte that has no place in a URI
// percent-encoded. What is in order already stays byte for byte, since one
// changed byte kills a signed URL; brackets in path and query count as in order,
// as browsers leave them. It never fails: the host of a target that CleanTarget
// would refuse is percent-encoded like the rest.
//
// The Location of a Location is itself. When nothing changes, nothing is
// allocated.
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

// AddQuery returns location, a [Location], with the query of a visit appended
// (rawQuery, as it stood in the request line, without the question mark): the
// location's own parameters come first, its fragment stays last. Bytes that have
// no place in a query are percent-encoded, so that no request can reach beyond
// it, and the result is a URI reference in ASCII too.
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

// withASCIIHost returns target with its host in punycode, if it can be.
func withASCIIHost(target string) string {
	scheme, rest, found := strings.Cut(target, "://")
	authority, tail := cutAuthority(rest)
	if !found || IsASCII(authority) {
		return target
	}
	host, _, _ := strings.Cut(authority, ":") // no address, which would be ASCII
	ascii, ok := asciiHost(host)
	if !ok {
		return target
	}
	return scheme + "://" + ascii + authority[len(host):] + tail
}

// uriByte are the bytes that stand for themselves in a URI: unreserved and
// reserved characters without #, which begins the fragment.
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

// escape writes part of a URI, with percent-encoded what has no place there. A %
// without two hexadecimal digits after it is one of those.
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
