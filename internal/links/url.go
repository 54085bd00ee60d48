package links

import (
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxURL is the greatest length of a target URL in bytes.
const MaxURL = 2048

// CheckURL reports whether raw may be a link's target: an absolute http or
// https URL of at most MaxURL bytes, with a host that is a DNS name, an IPv4 or
// an IPv6 address, and nothing in it that a browser would read differently
// from a person: user names, backslashes, spaces, control characters.
//
// own lists the hosts this service answers on, "host" or "host:port"; their
// short links are refused, since they would redirect in circles.
//
// What is accepted is accepted by net/url too. It does not allocate for hosts
// that are not the service's own.
func CheckURL(raw string, own []string) error {
	if raw == "" {
		return ErrURLEmpty
	}
	if len(raw) > MaxURL {
		return ErrURLLength
	}
	if err := checkCharacters(raw); err != nil {
		return err
	}
	scheme, rest, found := strings.Cut(raw, "://")
	if !found || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return ErrURLScheme
	}
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	if strings.Contains(authority, "@") {
		return ErrURLUserinfo
	}
	host, port, err := splitAuthority(authority)
	if err != nil {
		return err
	}
	if err := checkEscapes(tail); err != nil {
		return err
	}
	if isOwn(scheme, host, port, own) && isShortLink(tail) {
		return ErrURLOwn
	}
	return nil
}

// checkCharacters refuses what no part of a URL may hold.
func checkCharacters(raw string) error {
	ascii := true
	for i := range len(raw) {
		switch c := raw[i]; {
		case c >= utf8.RuneSelf:
			ascii = false
		case c == ' ':
			return ErrURLSpace
		case c < ' ' || c == 0x7f:
			return ErrURLControl
		case c == '\\':
			return ErrURLBackslash
		}
	}
	if ascii {
		return nil
	}
	if !utf8.ValidString(raw) {
		return ErrURLEncoding
	}
	for _, r := range raw {
		switch {
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\ufeff':
			return ErrURLControl
		case unicode.IsSpace(r):
			return ErrURLSpace
		}
	}
	return nil
}

// splitAuthority takes host[:port] apart and checks both. The host comes back
// without the brackets of an IPv6 address; port is "" when there is none.
func splitAuthority(authority string) (host, port string, err error) {
	if rest, ok := strings.CutPrefix(authority, "["); ok {
		host, rest, ok = strings.Cut(rest, "]")
		// A zone ("%eth0") means something on this machine only.
		if addr, err := netip.ParseAddr(host); !ok || err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", "", ErrURLHost
		}
		if rest == "" {
			return host, "", nil
		}
		if port, ok = strings.CutPrefix(rest, ":"); !ok {
			return "", "", ErrURLHost
		}
		return host, port, checkPort(port)
	}
	host, port, found := strings.Cut(authority, ":")
	if !validHost(host) {
		return "", "", ErrURLHost
	}
	if !found {
		return host, "", nil
	}
	return host, port, checkPort(port)
}

func checkPort(port string) error {
	if len(port) < 1 || len(port) > 5 || port[0] == '0' {
		return ErrURLPort
	}
	if n, err := strconv.ParseUint(port, 10, 32); err != nil || n > 65535 {
		return ErrURLPort
	}
	return nil
}

// validHost reports whether host is a DNS name or an IPv4 address. One
// trailing dot is allowed, as in DNS.
func validHost(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 {
		return false
	}
	last := ""
	for rest, more := host, true; more; {
		last, rest, more = strings.Cut(rest, ".")
		if !validLabel(last) {
			return false
		}
	}
	if !numeric(last) {
		return true
	}
	// A browser reads a name that ends in a number as an IPv4 address, also
	// in short, octal and hexadecimal forms: only the plain one is clear.
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Is4()
}

func validLabel(label string) bool {
	if len(label) < 1 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		switch c := label[i]; {
		case c >= utf8.RuneSelf:
			return validUnicodeLabel(label)
		case !codeByte[c]: // letters, digits, - and, as some real names do, _
			return false
		}
	}
	return true
}

// validUnicodeLabel reports whether an internationalized label holds only
// letters, marks and digits that stay what they are when a browser maps the
// name to ASCII.
func validUnicodeLabel(label string) bool {
	for _, r := range label {
		if r < utf8.RuneSelf {
			if !codeByte[byte(r)] {
				return false
			}
			continue
		}
		if !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r) || unicode.Is(disguised, r) {
			return false
		}
	}
	return true
}

// numeric reports whether a browser would take label for a number.
func numeric(label string) bool {
	if len(label) > 1 && label[0] == '0' && (label[1] == 'x' || label[1] == 'X') {
		return strings.Trim(label[2:], "0123456789abcdefABCDEF") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// disguised covers the letters, marks and digits that IDNA mapping (Unicode
// NFKC and case folding) turns into ASCII or into nothing: full-width and
// mathematical letters, ligatures, the long s. With them a host would be
// another one than it looks like, this service's own included.
var disguised = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x00aa, Hi: 0x00aa, Stride: 1},
		{Lo: 0x00ba, Hi: 0x00ba, Stride: 1},
		{Lo: 0x0132, Hi: 0x0133, Stride: 1},
		{Lo: 0x013f, Hi: 0x0140, Stride: 1},
		{Lo: 0x0149, Hi: 0x0149, Stride: 1},
		{Lo: 0x017f, Hi: 0x017f, Stride: 1},
		{Lo: 0x01c4, Hi: 0x01cc, Stride: 1},
		{Lo: 0x01f1, Hi: 0x01f3, Stride: 1},
		{Lo: 0x02b0, Hi: 0x02b8, Stride: 1},
		{Lo: 0x02e1, Hi: 0x02e3, Stride: 1},
		{Lo: 0x034f, Hi: 0x034f, Stride: 1},
		{Lo: 0x037a, Hi: 0x037a, Stride: 1},
		{Lo: 0x115f, Hi: 0x1160, Stride: 1},
		{Lo: 0x17b4, Hi: 0x17b5, Stride: 1},
		{Lo: 0x180b, Hi: 0x180f, Stride: 1},
		{Lo: 0x1d2c, Hi: 0x1d6a, Stride: 1},
		{Lo: 0x1d9c, Hi: 0x1dbf, Stride: 1},
		{Lo: 0x1e9a, Hi: 0x1e9a, Stride: 1},
		{Lo: 0x2071, Hi: 0x209c, Stride: 1},
		{Lo: 0x2100, Hi: 0x214f, Stride: 1},
		{Lo: 0x2c7c, Hi: 0x2c7d, Stride: 1},
		{Lo: 0x3164, Hi: 0x3164, Stride: 1},
		{Lo: 0xa7f2, Hi: 0xa7f4, Stride: 1},
		{Lo: 0xfb00, Hi: 0xfb06, Stride: 1},
		{Lo: 0xfc5e, Hi: 0xfc63, Stride: 1},
		{Lo: 0xfdfa, Hi: 0xfdfb, Stride: 1},
		{Lo: 0xfe00, Hi: 0xfe0f, Stride: 1},
		{Lo: 0xfe70, Hi: 0xfe7f, Stride: 1},
		{Lo: 0xff00, Hi: 0xff5e, Stride: 1},
		{Lo: 0xffa0, Hi: 0xffa0, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x107a5, Hi: 0x107a5, Stride: 1},
		{Lo: 0x1d400, Hi: 0x1d7ff, Stride: 1},
		{Lo: 0x1fbf0, Hi: 0x1fbf9, Stride: 1},
		{Lo: 0xe0100, Hi: 0xe01ef, Stride: 1},
	},
	LatinOffset: 2,
}

// checkEscapes refuses a % that does not begin an escape.
func checkEscapes(tail string) error {
	for {
		i := strings.IndexByte(tail, '%')
		if i < 0 {
			return nil
		}
		if i+2 >= len(tail) || !hex(tail[i+1]) || !hex(tail[i+2]) {
			return ErrURLEscape
		}
		tail = tail[i+3:]
	}
}

func hex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// isOwn reports whether host and port are those of one of own. Case, trailing
// dots and the ports 80 and 443 where they are the default make no difference.
func isOwn(scheme, host, port string, own []string) bool {
	host = strings.TrimSuffix(host, ".")
	if len(scheme) == len("http") && port == "80" || len(scheme) == len("https") && port == "443" {
		port = ""
	}
	for _, entry := range own {
		ownHost, ownPort := splitOwn(entry)
		if port == ownPort && sameHost(host, ownHost) {
			return true
		}
	}
	return false
}

func splitOwn(entry string) (host, port string) {
	if rest, ok := strings.CutPrefix(entry, "["); ok {
		host, port, _ = strings.Cut(rest, "]")
		port = strings.TrimPrefix(port, ":")
	} else if strings.Count(entry, ":") > 1 {
		host = entry // an IPv6 address without brackets
	} else {
		host, port, _ = strings.Cut(entry, ":")
	}
	// An entry carries no scheme, so either default counts as no port.
	if port == "80" || port == "443" {
		port = ""
	}
	return strings.TrimSuffix(host, "."), port
}

func sameHost(a, b string) bool {
	if strings.EqualFold(a, b) {
		return true
	}
	if !strings.Contains(a, ":") || !strings.Contains(b, ":") {
		return false
	}
	// One IPv6 address has many spellings.
	left, errLeft := netip.ParseAddr(a)
	right, errRight := netip.ParseAddr(b)
	return errLeft == nil && errRight == nil && left == right
}

// isShortLink reports whether tail, what follows the host, asks this service
// for a redirect once a browser has resolved escapes and dot segments.
func isShortLink(tail string) bool {
	if i := strings.IndexAny(tail, "?#"); i >= 0 {
		tail = tail[:i]
	}
	decoded, err := url.PathUnescape(tail)
	if err != nil {
		return false // checkEscapes refused it before
	}
	code := strings.TrimPrefix(path.Clean("/"+decoded), "/")
	if rest, ok := strings.CutPrefix(code, "r/"); ok {
		return IsCode(rest)
	}
	return CheckCode(code) == nil
}
