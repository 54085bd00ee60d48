// Package visits tells what kind of visit a click is, and what a visit's headers and
// address say of it: browser, system, device, referrer and country. It uses no database.
package visits

import (
	"net/netip"
	"slices"

	"github.com/phuslu/iploc"
)

// Kind is the kind of a visit: a person's, or the reason why it is none.
type Kind string

// The kinds of visits.
const (
	Person   Kind = "person"
	Bot      Kind = "bot"      // a program that says so: crawlers, robots
	Preview  Kind = "preview"  // a messenger or network that fetches a card of the link
	Prefetch Kind = "prefetch" // a browser that loads ahead of a click that may never come
	Monitor  Kind = "monitor"  // a program that checks whether the link works
	Tool     Kind = "tool"     // a library or a command
	Empty    Kind = "empty"    // a client that sends no User-Agent, as every browser does
)

// Kinds returns all kinds, a person's first.
func Kinds() []Kind { return []Kind{Person, Bot, Preview, Prefetch, Monitor, Tool, Empty} }

// IsKind reports whether s is a kind.
func IsKind(s string) bool { return slices.Contains(Kinds(), Kind(s)) }

// Stored returns the kind of a stored event. Events of earlier releases have no kind:
// bot decides.
func Stored(kind *string, bot *bool) Kind {
	switch {
	case kind != nil:
		return Kind(*kind)
	case bot != nil && *bot:
		return Bot
	}
	return Person
}

// Network returns the part of an address that stays the same for one visitor: an IPv4
// address, also if it is written as IPv6, or the /64 of an IPv6 address. A device often
// changes its address within the /64 (RFC 8981).
func Network(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if ip.Is4() || !ip.IsValid() {
		return ip
	}
	prefix, _ := ip.Prefix(64) // cannot fail: 64 is less than 128
	return prefix.Addr()
}

// Country returns the two letters of the country that ip is registered in, or zeros if
// there is none. (IP2Location LITE data.)
func Country(ip netip.Addr) (letters [2]byte) {
	if !ip.IsValid() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || !ip.IsGlobalUnicast() {
		return letters
	}
	if code := iploc.IPCountry(ip); len(code) == 2 && code != "ZZ" {
		copy(letters[:], code)
	}
	return letters
}
