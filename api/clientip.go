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

// addressOf returns the address that a request came from, see origin. It is the zero
// Addr if that is unknown because the connection is not one of TCP.
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

// isProxy reports whether a connection comes from a trusted proxy.
func (a *API) isProxy(remote net.Addr) bool {
	tcp, ok := remote.(*net.TCPAddr)
	return ok && proxies(a.TrustedProxies).trusted(plain(tcp.AddrPort().Addr()))
}

// proxies are the networks from which X-Forwarded-For is believed.
type proxies []netip.Prefix

// origin returns the address that a request came from. That is hop, the address of the
// connection, unless hop is a trusted proxy. lines are the lines of X-Forwarded-For.
// Each proxy appends the address that it saw, so from right to left the first address
// that is not a trusted proxy's is the client. The client may have made up the
// addresses left of that. Where the header is malformed, origin returns the last proxy
// that could be trusted.
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

// cutLast splits a list at its last comma; more says whether there was one.
func cutLast(list []byte) (rest, last []byte, more bool) {
	i := bytes.LastIndexByte(list, ',')
	if i < 0 {
		return nil, list, false
	}
	return list[:i], list[i+1:], true
}

// parseHop reads an address. Some proxies write it with a port.
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
