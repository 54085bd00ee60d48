package api

import (
	"bytes"
	"net"
	"net/netip"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/utils"
	"github.com/valyala/fasthttp"
)

// clientIP returns the address a request came from, see addressOf.
func (a *API) clientIP(c *fiber.Ctx) netip.Addr { return a.addressOf(c.Context()) }

// addressOf returns the address a request came from, see origin. The zero Addr
// means unknown: the connection is not one of TCP.
func (a *API) addressOf(ctx *fasthttp.RequestCtx) netip.Addr {
	tcp, ok := ctx.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	hop := plain(tcp.AddrPort().Addr())
	proxies := proxies(a.TrustedProxies)
	if !proxies.trusted(hop) {
		return hop
	}
	return proxies.origin(hop, ctx.Request.Header.PeekAll(fiber.HeaderXForwardedFor))
}

// proxies are those whose X-Forwarded-For is believed.
type proxies []netip.Prefix

// origin returns the address a request came from: the address of the connection, hop,
// unless it is a trusted proxy's. Each proxy appends whom it saw to
// X-Forwarded-For, whose lines these are, so from right to left the first
// address that is no trusted proxy's is the client; the addresses left of it, the
// client may have made up. Where the header says nothing sensible, the answer is
// the last proxy that could be trusted.
//
// IPv4 addresses are never mapped into IPv6 and no address has a zone.
func (p proxies) origin(hop netip.Addr, lines [][]byte) netip.Addr {
	if !p.trusted(hop) {
		return hop
	}
	for i := len(lines) - 1; i >= 0; i-- {
		for line, more := lines[i], true; more; {
			var entry []byte
			line, entry, more = cutLast(line)
			address, ok := parseHop(entry)
			if !ok {
				return hop
			}
			if hop = address; !p.trusted(hop) {
				return hop
			}
		}
	}
	return hop
}

func (p proxies) trusted(address netip.Addr) bool {
	for _, network := range p {
		if network.Contains(address) {
			return true
		}
	}
	return false
}

// cutLast splits a list at its last comma; more tells whether there was one.
func cutLast(list []byte) (rest, last []byte, more bool) {
	i := bytes.LastIndexByte(list, ',')
	if i < 0 {
		return nil, list, false
	}
	return list[:i], list[i+1:], true
}

// parseHop reads an address, which some proxies write with a port.
func parseHop(entry []byte) (netip.Addr, bool) {
	s := utils.UnsafeString(bytes.Trim(entry, " \t"))
	if address, err := netip.ParseAddr(s); err == nil {
		return plain(address), true
	}
	if address, err := netip.ParseAddrPort(s); err == nil {
		return plain(address.Addr()), true
	}
	if len(s) > 2 && s[0] == '[' && s[len(s)-1] == ']' {
		address, err := netip.ParseAddr(s[1 : len(s)-1])
		return plain(address), err == nil && address.Is6()
	}
	return netip.Addr{}, false
}

func plain(address netip.Addr) netip.Addr { return address.Unmap().WithZone("") }
