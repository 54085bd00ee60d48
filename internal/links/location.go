package links

import "strings"

// Location returns where a redirect to target leads. With forward, the query
// of the incoming request (rawQuery, as it stood in the request line, without
// the question mark) is appended to the target's: its own parameters come
// first, its fragment stays last. Bytes that have no place in a query are
// percent-encoded, so that no request can reach beyond the query.
//
// target must have passed CheckURL. Without forward, or without a query,
// target is returned as it is and nothing is allocated.
func Location(target, rawQuery string, forward bool) string {
	if !forward || rawQuery == "" {
		return target
	}
	base, fragment := target, ""
	if i := strings.IndexByte(target, '#'); i >= 0 {
		base, fragment = target[:i], target[i:]
	}
	var b strings.Builder
	b.Grow(len(target) + 1 + len(rawQuery))
	b.WriteString(base)
	switch {
	case !strings.Contains(base, "?"):
		b.WriteByte('?')
	case !strings.HasSuffix(base, "?") && !strings.HasSuffix(base, "&"):
		b.WriteByte('&')
	}
	writeQuery(&b, rawQuery)
	b.WriteString(fragment)
	return b.String()
}

func writeQuery(b *strings.Builder, rawQuery string) {
	const digits = "0123456789ABCDEF"
	for i := range len(rawQuery) {
		c := rawQuery[i]
		if c > ' ' && c < 0x7f && !strings.ContainsRune(`"#<>\`, rune(c)) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
}
