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
// Fiber's middleware would do but for this: handlers that set Vary would take away
// its part of it, and a preflight from an origin that is not allowed would be
// answered as if it were, but for one header.
type cors struct {
	any     bool
	origins []string
	// paths are the first segments of the routes that it is for.
	paths []string
}

const (
	corsMethods = "GET, HEAD, POST, PUT, PATCH, DELETE"
	// corsHeaders are the headers that a script may send: those that the API reads,
	// and all others, as libraries add (X-Requested-With, Tracestate, Pragma). The *
	// does not cover Authorization, and old browsers do not know it.
	corsHeaders = "Authorization, Content-Type, Content-Encoding, Content-Disposition, Idempotency-Key, " +
		"If-None-Match, Last-Event-ID, Traceparent, X-Request-ID, Cache-Control, *"
	// corsExposed are the headers of answers that a script may read besides the usual ones.
	corsExposed = "Location, Retry-After, ETag, X-Request-ID, Content-Disposition, Content-Encoding, Allow, Accept-Encoding, WWW-Authenticate"
	// corsMaxAge is how many seconds a browser need not ask again.
	corsMaxAge = "600"
)

// newCORS returns what lets pages of these origins in, nil if there are none. An
// origin is as browsers write it; the only one * is any.
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

// concerns reports whether a request is for one of the routes that cors is for.
func (x *cors) concerns(c *fiber.Ctx) bool {
	return x != nil && slices.Contains(x.paths, firstSegment(utils.UnsafeString(c.Context().Path())))
}

// allowed is what Access-Control-Allow-Origin says to a request, "" if nothing.
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

// preflight answers the question of a browser whether a script may send a
// request, and reports whether it was one that has an answer. All others go on to
// the router.
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

// mark says in an answer, whichever it is, that a script may read it.
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
