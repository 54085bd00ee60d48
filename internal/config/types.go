package config

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/idna"

	"github.com/signpost/signpost/internal/links"
)

// Bytes is an amount of bytes. As text it is a number with an optional unit:
// KiB, MiB, GiB, TiB (powers of 1024, also written Ki, Mi, Gi, Ti) or KB, MB,
// GB, TB (powers of 1000).
type Bytes int64

var units = []struct {
	name string
	size Bytes
}{
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"Ti", 1 << 40},
	{"Gi", 1 << 30},
	{"Mi", 1 << 20},
	{"Ki", 1 << 10},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"KB", 1e3},
	{"B", 1},
}

// UnmarshalText reads the text form. Only whole numbers are allowed.
func (b *Bytes) UnmarshalText(text []byte) error {
	number, unit := string(text), Bytes(1)
	for _, u := range units {
		if len(number) > len(u.name) && strings.EqualFold(number[len(number)-len(u.name):], u.name) {
			number, unit = strings.TrimSpace(number[:len(number)-len(u.name)]), u.size
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/int64(unit) {
		return fmt.Errorf("%q is not a size", text)
	}
	*b = Bytes(n) * unit
	return nil
}

// String returns the shortest exact text form.
func (b Bytes) String() string {
	for _, u := range units[:4] {
		if b >= u.size && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Networks is a list of IP networks. Its text form is addresses and networks separated
// by commas.
type Networks []netip.Prefix

// UnmarshalText reads the text form. An address becomes a network of one host.
func (n *Networks) UnmarshalText(text []byte) error {
	var list Networks
	for _, part := range parts(text) {
		prefix, err := parseNetwork(part)
		if err != nil {
			return fmt.Errorf("%q is neither an address nor a network", part)
		}
		list = append(list, prefix)
	}
	*n = list
	return nil
}

// parts returns the values of a list, which are separated by commas.
func parts(text []byte) (list []string) {
	for part := range strings.SplitSeq(string(text), ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

func parseNetwork(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		prefix, err := netip.ParsePrefix(s)
		return prefix.Masked(), err
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	addr = addr.Unmap().WithZone("")
	return netip.PrefixFrom(addr, addr.BitLen()), nil
}

// String returns the text form.
func (n Networks) String() string {
	var parts []string
	for _, p := range n {
		parts = append(parts, p.String())
	}
	return strings.Join(parts, ",")
}

// Hosts is a list of host names and addresses, each alone or as host:port. Its text
// form has them separated by commas.
type Hosts []string

// UnmarshalText reads the text form.
func (h *Hosts) UnmarshalText(text []byte) error {
	list := parts(text)
	if _, err := links.ParseHosts(list...); err != nil {
		return err
	}
	*h = list
	return nil
}

// String returns the text form.
func (h Hosts) String() string { return strings.Join(h, ",") }

// Origins is a list of origins of web pages, as browsers name them in the header
// Origin, or a single * for all. Its text form has them separated by commas.
type Origins []string

// UnmarshalText reads the text form.
func (o *Origins) UnmarshalText(text []byte) error {
	if string(text) == "*" {
		*o = Origins{"*"}
		return nil
	}
	var list Origins
	for _, part := range parts(text) {
		origin, err := parseOrigin(part)
		if err != nil {
			return err
		}
		list = append(list, origin)
	}
	*o = list
	return nil
}

// parseOrigin returns an origin as browsers write it: in lower case, a Unicode name in
// punycode, and without the default port of its scheme.
func parseOrigin(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Hostname() == "" || u.User != nil ||
		u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", fmt.Errorf("%q is no origin", s)
	}
	host := strings.ToLower(u.Hostname())
	if strings.Contains(host, ":") {
		host = "[" + host + "]" // an IPv6 address
	} else if host, err = idna.Lookup.ToASCII(host); err != nil {
		return "", fmt.Errorf("%q is no origin: %w", s, err)
	}
	if port := u.Port(); port != "" && port != usualPort[u.Scheme] {
		host += ":" + port
	}
	return u.Scheme + "://" + host, nil
}

var usualPort = map[string]string{"http": "80", "https": "443"}

// String returns the text form.
func (o Origins) String() string { return strings.Join(o, ",") }
