package links

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// MaxHost is the greatest length of a host in bytes.
const MaxHost = 253

// Hosts are the names and addresses on which this service answers. The zero value has
// none. Hosts do not change after they were made, and may be used concurrently.
type Hosts struct {
	sites    []site
	isDomain func(host string) bool // nil if there are no custom domains
}

// WithDomains returns the hosts together with the custom domains. isDomain reports
// whether a host is a custom domain. It is called with hosts as CleanHost returns them,
// and must be safe for concurrent use.
func (h Hosts) WithDomains(isDomain func(host string) bool) Hosts {
	h.isDomain = isDomain
	return h
}

// A site is a host in the form of canonicalHost, and a port, "" for the default one.
type site struct{ host, port string }

// And returns the hosts together with one more custom domain.
func (h Hosts) And(domain string) Hosts {
	before := h.isDomain
	h.isDomain = func(host string) bool { return host == domain || before != nil && before(host) }
	return h
}

// ParseHosts reads hosts in any spelling, each as "host" or "host:port". A port of 80
// or 443 is ignored. It returns the valid hosts, and an error that names the others.
func ParseHosts(entries ...string) (Hosts, error) {
	var hosts Hosts
	var errs []error
	for _, entry := range entries {
		authority := entry
		if addr, err := netip.ParseAddr(entry); err == nil && addr.Is6() {
			authority = "[" + entry + "]"
		}
		host, port, err := splitAuthority(authority)
		if err != nil {
			errs = append(errs, fmt.Errorf("%q is not a host or host:port", entry))
			continue
		}
		// Since there is no scheme, both default ports count as no port.
		if port == "80" || port == "443" {
			port = ""
		}
		hosts.sites = append(hosts.sites, site{canonicalHost(host), port})
	}
	return hosts, errors.Join(errs...)
}

// leadTo reports whether location leads to a short link of this service. scheme, host
// and port are those of location, as splitAuthority returns them. Every path of a
// custom domain is a short link, and the port does not matter there, since a redirect
// looks only at the name.
func (h Hosts) leadTo(location, scheme, host, port string) bool {
	if len(h.sites) == 0 && h.isDomain == nil {
		return false
	}
	if len(scheme) == len("http") && port == "80" || len(scheme) == len("https") && port == "443" {
		port = ""
	}
	host = canonicalHost(host)
	if slices.Contains(h.sites, site{host, port}) {
		return isShortLink(location)
	}
	return h.isDomain != nil && h.isDomain(host)
}

// CleanHost returns a host in the form that a custom domain has: a DNS name, in lower
// case and punycode, without a dot at the end. It refuses anything else, also addresses
// and names with _ (ErrHost). It also refuses the names of own, on any port
// (ErrHostOwn), because the main domain answers there.
func CleanHost(raw string, own Hosts) (string, error) {
	host, ok := asciiHost(strings.TrimSpace(raw))
	if !ok {
		return raw, ErrHost
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(host); err == nil || strings.Contains(host, "_") {
		return raw, ErrHost
	}
	if own.named(host) {
		return host, ErrHostOwn
	}
	return host, nil
}

// Has reports whether this service answers on a host, on any port. The host is one that
// CleanHost returned.
func (h Hosts) Has(host string) bool {
	return h.named(host) || h.isDomain != nil && h.isDomain(host)
}

// Includes reports whether an authority, in any spelling as ParseHosts reads it, is one of
// the hosts. It does not consider custom domains.
func (h Hosts) Includes(authority string) bool {
	one, err := ParseHosts(authority)
	return err == nil && slices.Contains(h.sites, one.sites[0])
}

func (h Hosts) named(host string) bool {
	host = canonicalHost(host)
	return slices.ContainsFunc(h.sites, func(s site) bool { return s.host == host })
}

// canonicalHost returns the one spelling of a valid ASCII host: lower case, no dot at
// the end, addresses in their short form, and localhost for all names that mean it.
func canonicalHost(host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if strings.Contains(host, ":") || isDigit(host[len(host)-1]) {
		addr, err := netip.ParseAddr(host)
		switch {
		case err != nil:
		case addr.Unmap().IsLoopback():
			return "localhost"
		default:
			return addr.Unmap().String()
		}
	}
	return host
}

// splitAuthority splits host[:port] and checks both. It returns the host in ASCII and
// without the brackets of an IPv6 address; port is "" if there is none.
func splitAuthority(authority string) (host, port string, err error) {
	if rest, ok := strings.CutPrefix(authority, "["); ok {
		host, rest, ok = strings.Cut(rest, "]")
		// A zone ("%eth0") has a meaning only on this machine.
		if addr, err := netip.ParseAddr(host); !ok || err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", "", ErrTargetHost
		}
		if rest == "" {
			return host, "", nil
		}
		if port, ok = strings.CutPrefix(rest, ":"); !ok {
			return "", "", ErrTargetHost
		}
		return host, port, checkPort(port)
	}
	host, port, found := strings.Cut(authority, ":")
	host, ok := asciiHost(host)
	if !ok {
		return "", "", ErrTargetHost
	}
	if !found {
		return host, "", nil
	}
	return host, port, checkPort(port)
}

func checkPort(port string) error {
	if len(port) < 1 || len(port) > 5 || port[0] == '0' {
		return ErrTargetPort
	}
	if n, err := strconv.ParseUint(port, 10, 32); err != nil || n > 65535 {
		return ErrTargetPort
	}
	return nil
}

// profile maps names as browsers do (UTS 46, not transitional). It does not check
// hyphens and _, which validLabel does.
var profile = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(),
	idna.StrictDomainName(false), idna.CheckHyphens(false))

// These bound a name before it is mapped, in bytes, and a label of it in characters of
// NFC. No label that DNS accepts has more. The bounds are needed because the time for
// punycode grows with the square of a label's length.
const (
	maxUnicodeHost  = 512
	maxUnicodeLabel = 63
)

// Punycode returns a host as a DNS name, mapped as browsers do, and whether that was
// possible. It takes a microsecond for a usual name, and about a hundred at worst.
func Punycode(host string) (string, bool) {
	// idna does not check the encoding: it takes invalid bytes for U+FFFD.
	if len(host) > maxUnicodeHost || !utf8.ValidString(host) {
		return "", false
	}
	host = norm.NFC.String(host)
	for label := range strings.FieldsFuncSeq(host, isLabelEnd) {
		if utf8.RuneCountInString(label) > maxUnicodeLabel {
			return "", false
		}
	}
	mapped, err := profile.ToASCII(host)
	return mapped, err == nil
}

// isLabelEnd reports whether r is a dot, or becomes one (UTS 46).
func isLabelEnd(r rune) bool { return r == '.' || r == '。' || r == '．' || r == '｡' }

// asciiHost returns a host as a DNS name, in punycode, and whether the result is a DNS
// name or an IPv4 address. A host in ASCII is returned as it is.
func asciiHost(host string) (string, bool) {
	if !IsASCII(host) || hasPunycode(host) {
		mapped, ok := Punycode(host)
		if !ok {
			return "", false
		}
		host = mapped
	}
	return host, validHost(host)
}

// IsASCII reports whether all bytes of s are ASCII.
func IsASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// hasPunycode reports whether a label of host begins with xn--.
func hasPunycode(host string) bool {
	for label := range strings.SplitSeq(host, ".") {
		if len(label) >= 4 && strings.EqualFold(label[:4], "xn--") {
			return true
		}
	}
	return false
}

// validHost reports whether host is a DNS name or an IPv4 address in ASCII. One
// dot at the end is allowed, as in DNS.
func validHost(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > MaxHost {
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
	// A browser reads a name that ends in a number as an IPv4 address, also in short,
	// octal and hexadecimal forms. Only the plain form is clear to all.
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Is4()
}

// validLabel reports whether label holds only letters, digits, hyphens that are not at
// an end, and _, which some real names have.
func validLabel(label string) bool {
	if len(label) < 1 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		if c := label[i]; !isLetter(c) && !isDigit(c) && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// numeric reports whether a browser would read label as a number.
func numeric(label string) bool {
	if len(label) > 1 && label[0] == '0' && (label[1] == 'x' || label[1] == 'X') {
		return strings.Trim(label[2:], "0123456789abcdefABCDEF") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// isShortLink reports whether the path of location, a URL of this service, is one that
// is redirected. Servers on the way decide whether an escaped slash separates segments,
// so it considers both readings.
func isShortLink(location string) bool {
	_, rest, _ := strings.Cut(location, "://")
	_, tail := cutAuthority(rest)
	if i := strings.IndexAny(tail, "?#"); i >= 0 {
		tail = tail[:i]
	}
	// A browser resolves dot segments, also escaped ones, and nothing else.
	resolved := path.Clean("/" + dots.Replace(tail))
	return isRedirect(unescape(resolved)) || isRedirect(path.Clean("/"+unescape(tail)))
}

var dots = strings.NewReplacer("%2e", ".", "%2E", ".")

// unescape decodes the percent-escapes of a location, which are known to be valid.
func unescape(path string) string {
	decoded, _ := url.PathUnescape(path)
	return decoded
}

// isRedirect reports whether path is the path of a short link and not of another route.
// Almost anything may be a code, and much around a code is ignored.
func isRedirect(path string) bool {
	first, rest, _ := strings.Cut(strings.TrimLeft(path, "/"), "/")
	if first == "r" {
		return rest != ""
	}
	return first != "" && !Reserved(first)
}
