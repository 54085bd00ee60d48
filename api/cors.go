package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/utils"
)

// cors lets scripts of pages from other origins use the management API and read
// its specification (https://fetch.spec.whatwg.org/#http-cors-protocol). They
// authenticate with a token, as everyone does, so credentials are never allowed.
//
// Fiber's middleware is not used for two reasons. Handlers that set Vary would remove
// the middleware's part of that header. And it answers a preflight from an origin that
// is not allowed like one that is, except for one header.
type cors struct {
	any     bool
	origins []string
	// paths are the first segments of the routes that cors applies to.
	paths []string
}

const (
	corsMethods = "GET, HEAD, POST, PUT, PATCH, DELETE"
	// corsHeaders are the headers that a script may send: those that the API reads, and
	// with * all others, because libraries add some (X-Requested-With, Tracestate,
	// Pragma). The * does not cover Authorization, and old browsers do not know it.
	corsHeaders = "Authorization, Content-Type, Content-Encoding, Content-Disposition, Idempotency-Key, " +
		"If-None-Match, Last-Event-ID, Traceparent, X-Request-ID, Cache-Control, *"
	// corsExposed are the headers of answers that a script may read besides the usual ones.
	corsExposed = "Location, Retry-After, ETag, X-Request-ID, Content-Disposition, Content-Encoding, Allow, Accept-Encoding, WWW-Authenticate"
	// corsMaxAge is how many seconds a browser remembers the answer to a preflight.
	corsMaxAge = "600"
)

// newCORS returns a cors that allows pages of these origins, nil if there are none.
// Origins are spelled as browsers write them; a single * allows all.
func (a *API) newCORS(origins []string) *cors {
	if len(origins) == 0 {
		return nil
	}
	c := &cors{any: slices.Equal(origins, []string{"*"}), origins: origins, paths: []string{"openapi.json"}}
	for path, item := range a.huma.OpenAPI().Paths {
		for _, op := range operations(item) {
			if len(op.Security) > 0 {
				c.paths = append(c.paths, firstSegment(path))
			}
		}
	}
	return c
}

func firstSegment(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return first
}

// concerns reports whether a request is for one of the routes that cors applies to.
func (x *cors) concerns(c *fiber.Ctx) bool {
	return x != nil && slices.Contains(x.paths, firstSegment(utils.UnsafeString(c.Context().Path())))
}

// allowed returns the value of Access-Control-Allow-Origin for a request, "" for none.
func (x *cors) allowed(c *fiber.Ctx) string {
	origin := c.Get(fiber.HeaderOrigin)
	switch {
	case origin == "":
		return ""
	case x.any:
		return "*"
	case slices.Contains(x.origins, origin):
		return strings.Clone(origin)
	}
	return ""
}

// preflight answers a browser that asks whether a script may send a request. It returns
// false if the request is not such a question, or if the answer is left to the router.
func (x *cors) preflight(c *fiber.Ctx) bool {
	if c.Method() != fiber.MethodOptions || !x.concerns(c) ||
		c.Get(fiber.HeaderAccessControlRequestMethod) == "" || x.allowed(c) == "" {
		return false
	}
	c.Set(fiber.HeaderAccessControlAllowMethods, corsMethods)
	c.Set(fiber.HeaderAccessControlAllowHeaders, corsHeaders)
	c.Set(fiber.HeaderAccessControlMaxAge, corsMaxAge)
	c.Vary(fiber.HeaderAccessControlRequestMethod, fiber.HeaderAccessControlRequestHeaders)
	c.Status(http.StatusNoContent)
	return true
}

// mark adds the headers to an answer, also to an error, that let a script read it.
func (x *cors) mark(c *fiber.Ctx) {
	if !x.concerns(c) {
		return
	}
	c.Vary(fiber.HeaderOrigin)
	origin := x.allowed(c)
	if origin == "" {
		return
	}
	c.Set(fiber.HeaderAccessControlAllowOrigin, origin)
	if c.Method() != fiber.MethodOptions {
		c.Set(fiber.HeaderAccessControlExposeHeaders, corsExposed)
	}
}
