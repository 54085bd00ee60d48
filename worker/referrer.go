package worker

import (
	"net/netip"
	"net/url"
	"strings"

	"github.com/signpost/signpost/internal/links"
)

const hostMax = 255 // bytes, as of a DNS name

// referrerHost returns the host of a Referer header in the one spelling that it
// is counted under: lower-case ASCII, a Unicode name in punycode, without user,
// port and final dot. It is "" when there is none, or none that can be one.
//
// Behind a scheme stands a host, also one of a single label (an intranet) or the
// package of an app (android-app://). Without a scheme only what
// looks like a name of the Internet is one: clients send words such as null and
// about:blank when they have nothing to say.
func referrerHost(referrer string) string {
	rest, schemed := cutScheme(referrer)
	if i := strings.IndexAny(rest, "/?#\\"); i >= 0 {
		rest = rest[:i]
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		if !schemed {
			return "" // an e-mail address
		}
		rest = rest[i+1:]
	}
	host, port := cutPort(rest)
	if !schemed && strings.Trim(port, "0123456789") != "" {
		return "" // another kind of address, such as about:blank
	}
	host = asciiHost(host)
	if !schemed && !isPublicName(host) {
		return ""
	}
	return host
}

// cutScheme returns what stands behind the scheme of an address, and whether it
// has one. A :// behind a path or a query is that of another address.
func cutScheme(address string) (rest string, found bool) {
	if rest, found = strings.CutPrefix(address, "//"); found {
		return rest, true
	}
	scheme, rest, found := strings.Cut(address, "://")
	if !found || scheme == "about" || strings.ContainsAny(scheme, "/?#\\@ ") {
		return address, false
	}
	return rest, true
}

func cutPort(authority string) (host, port string) {
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.HasSuffix(authority, "]") {
		return authority[:i], authority[i+1:]
	}
	return authority, ""
}

// asciiHost brings a host into the form that referrerHost promises, or returns
// "" if that is not possible.
func asciiHost(host string) string {
	if strings.IndexByte(host, '%') >= 0 && !strings.HasPrefix(host, "[") {
		decoded, err := url.PathUnescape(host)
		if err != nil {
			return ""
		}
		host = decoded
	}
	if !links.IsASCII(host) {
		mapped, ok := links.Punycode(host)
		if !ok {
			return ""
		}
		host = mapped
	}
	host = strings.ToLower(strings.TrimRight(host, "."))
	if len(host) > hostMax || !isHost(host) {
		return ""
	}
	return host
}

// isHost reports whether s consists of what hosts consist of: letters, digits,
// hyphens, dots and _, or an IPv6 address in brackets.
func isHost(s string) bool {
	if strings.HasPrefix(s, "[") {
		address, err := netip.ParseAddr(strings.TrimSuffix(s[1:], "]"))
		return err == nil && address.Is6() && address.Zone() == ""
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}

// isPublicName reports whether a host is an IPv4 address, or has a dot, no empty
// label and a last one that is no number.
func isPublicName(host string) bool {
	dot := strings.LastIndexByte(host, '.')
	if dot <= 0 || host[0] == '.' || strings.Contains(host, "..") {
		return false
	}
	if c := host[dot+1]; 'a' <= c && c <= 'z' {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}
