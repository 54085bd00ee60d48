package visits

import (
	"net/netip"
	"net/url"
	"strings"

	"github.com/signpost/signpost/internal/links"
)

const hostMax = 255 // bytes, as of a DNS name

// ReferrerHost returns the host of a Referer header in the one spelling under which it
// is counted: lower-case ASCII, a Unicode name in punycode, without user, port and
// final dot. It returns "" if there is no host, or none that is valid.
//
// After a scheme, the host may also be a single label (as in an intranet) or the
// package of an app (android-app://). Without a scheme it is accepted only if it looks
// like a name of the Internet, because clients without a referrer send words such as
// null and about:blank.
func ReferrerHost(referrer string) string {
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
	host = Host(host)
	if !schemed && !isPublicName(host) {
		return ""
	}
	return host
}

// cutScheme returns the text after the scheme of an address, and whether it has a
// scheme. A :// in a path or a query belongs to another address.
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

// Host converts a host to the form that ReferrerHost returns, or to "" if that is
// not possible.
func Host(host string) string {
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

// isHost reports whether s has only characters of hosts: letters, digits, hyphens, dots
// and _, or is an IPv6 address in brackets.
func isHost(s string) bool {
	if inner, found := strings.CutPrefix(s, "["); found {
		inner, closed := strings.CutSuffix(inner, "]")
		address, err := netip.ParseAddr(inner)
		return err == nil && closed && address.Is6() && address.Zone() == ""
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

// isPublicName reports whether a host is an IPv4 address, or a name with a dot, no
// empty label, and a last label that is not a number.
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
