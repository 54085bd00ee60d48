package api

import (
	"net/netip"

	"github.com/gofiber/fiber/v2"
)

// clientIP is the address of the connection for now.
func (*API) clientIP(c *fiber.Ctx) netip.Addr {
	address, _ := netip.ParseAddr(c.Context().RemoteIP().String())
	return address.Unmap()
}
