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

// Hosts are the names and addresses on which this service answers. The zero
// value has none. They are not changed once made, and may be used concurrently.
type Hosts struct {
	sites    []site
	isDomain func(host string) bool // nil if there are no custom domains
}

// WithDomains returns the hosts together with the custom domains, of which
// isDomain tells. It is asked about hosts as CleanHost returns them, and must be
// safe for concurrent use.
func (h Hosts) WithDomains(isDomain func(host string) bool) Hosts {
	h.isDomain = isDomain
	return h
}

// A site is a host, as canonicalHost has it, and a port, "" for the default one.
type site struct{ host, port string }

// And returns the hosts together with one more custom domain.
func (h Hosts) And(domain string) Hosts {
	before := h.isDomain
	h.isDomain = func(host string) bool { return host == domain || before != nil && before(host) }
	return h
}

// ParseHosts reads hosts, each as "host" or "host:port", in any spelling: a
// port of 80 or 443 is none. It returns those that are valid, and an error that
// names the others.
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
		// Without a scheme, either default may be meant.
		if port == "80" || port == "443" {
			port = ""
		}
		hosts.sites = append(hosts.sites, site{canonicalHost(host), port})
	}
	return hosts, errors.Join(errs...)
}

// leadTo reports whether location, a URL with that scheme, host and port, as
// splitAuthority returns them, leads to a short link of this service. A custom
// domain has nothing but short links, and a link on it is followed whatever the
// port, since a redirect looks at the name alone.
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

// CleanHost returns a host as a custom domain has it: a name as DNS knows it, in
// lower case and punycode, without a dot at the end. It refuses everything else,
// addresses and names with _ included (ErrHost), and the names of own, on whatever
// port they are (ErrHostOwn): the main domain answers there.
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

// Has reports whether this service answers on a host, as CleanHost returns it, on
// whatever port.
func (h Hosts) Has(host string) bool {
	return h.named(host) || h.isDomain != nil && h.isDomain(host)
}

func (h Hosts) named(host string) bool {
	host = canonicalHost(host)
	return slices.ContainsFunc(h.sites, func(s site) bool { return s.host == host })
}

// canonicalHost returns the one spelling of a valid ASCII host: lower case, no
// dot at the end, addresses in short, and localhost for all that mean it.
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

// splitAuthority takes host[:port] apart and checks both. The host comes back
// in ASCII and without the brackets of an IPv6 address; port is "" when there is
// none.
func splitAuthority(authority string) (host, port string, err error) {
	if rest, ok := strings.CutPrefix(authority, "["); ok {
		host, rest, ok = strings.Cut(rest, "]")
		// A zone ("%eth0") means something on this machine only.
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

// profile maps names as browsers do (UTS 46, not transitional). Hyphens and _
// are left to validLabel.
var profile = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(),
	idna.StrictDomainName(false), idna.CheckHyphens(false))

// Bounds of a name before it is mapped, in bytes, and in characters of a label in
// NFC: one that DNS takes has no more. Punycode takes time with the square of a
// label's length.
const (
	maxUnicodeHost  = 512
	maxUnicodeLabel = 63
)

// Punycode returns a name as DNS knows it, mapped as browsers do, and whether it
// could be. It takes a microsecond for a usual name, and about a hundred at worst.
func Punycode(host string) (string, bool) {
	// Without a look at its encoding, idna takes other bytes for U+FFFD.
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

// asciiHost returns a name as DNS knows it, in punycode, and whether it is a DNS
// name or an IPv4 address. One in ASCII comes back as it is.
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

// IsASCII reports whether s has bytes of ASCII only.
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
	// A browser reads a name that ends in a number as an IPv4 address, also
	// in short, octal and hexadecimal forms: only the plain one is clear.
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Is4()
}

// validLabel reports whether label holds only letters, digits, hyphens in
// between and, as some real names do, _.
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

// numeric reports whether a browser would take label for a number.
func numeric(label string) bool {
	if len(label) > 1 && label[0] == '0' && (label[1] == 'x' || label[1] == 'X') {
		return strings.Trim(label[2:], "0123456789abcdefABCDEF") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// isShortLink reports whether the path of location, a URL of this service, asks
// it for a redirect. Whether an escaped slash parts segments is for whoever is
// on the way to decide, so both readings count.
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

// unescape resolves the escapes of a location, which are whole.
func unescape(path string) string {
	decoded, _ := url.PathUnescape(path)
	return decoded
}

// isRedirect reports whether path is that of a short link and not of another
// route. Almost anything may be a code, and much around it is forgiven.
func isRedirect(path string) bool {
	first, rest, _ := strings.Cut(strings.TrimLeft(path, "/"), "/")
	if first == "r" {
		return rest != ""
	}
	return first != "" && !Reserved(first)
}
