package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/utils"
	"github.com/valyala/fasthttp"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/links"
)

// The routes of short links, as routes() has them.
const (
	routeLong  = "/r/:code"
	routeShort = "/:code"
)

var (
	errNoLink      = notFound("link")
	errDeactivated = gone("this link was deactivated")
	errExpired     = gone("this link has expired")
	errLookup      = unavailable("the link cannot be looked up at the moment, try again shortly")
)

var (
	headerLocation     = []byte(fiber.HeaderLocation)
	headerCacheControl = []byte(fiber.HeaderCacheControl)
	// A stored redirect would hide clicks, and changes of the link. A permanent
	// one is what its owner asked for; browsers keep it for a short while.
	cacheTemporary = []byte("private, no-store, max-age=0")
	cachePermanent = []byte("private, max-age=90")
)

// redirect follows a short link. It sees only what quickRedirect left to the
// router, such as codes written with percent signs.
func (a *API) redirect(c *fiber.Ctx) error {
	code := c.Params("code")
	if strings.Contains(code, "%") {
		code, _ = url.PathUnescape(code) // "" is no code either
	}
	if !links.IsCode(code) {
		a.refuse(c.Context(), errNoLink)
		return nil
	}
	a.follow(c.Context(), code, time.Now())
	return nil
}

// quickRedirect answers a request for a short link and reports whether it was
// one. It stands before the router, which with what surrounds it would cost
// some 0.3 µs: more than to find the link, and nearly every request is a
// redirect. What it does not know for sure goes to the router, whose other
// routes come before short links.
func (a *API) quickRedirect(ctx *fasthttp.RequestCtx) bool {
	var series *routeSeries
	method := 0
	switch {
	case ctx.IsGet():
	case ctx.IsHead():
		method = 1
	default:
		return false
	}
	path := utils.UnsafeString(ctx.URI().PathOriginal())
	if len(path) < 2 || path[0] != '/' {
		return false
	}
	code := path[1:]
	if long, ok := strings.CutPrefix(code, "r/"); ok {
		if !links.IsCode(long) {
			return false
		}
		code, series = long, a.metrics.long[method]
	} else {
		// A reserved word is or may become the path of another route.
		if !links.IsCode(code) || links.Reserved(code) {
			return false
		}
		series = a.metrics.short[method]
	}
	a.answerRedirect(ctx, code, series)
	return true
}

// answerRedirect does for a redirect what observe does for the other routes.
func (a *API) answerRedirect(ctx *fasthttp.RequestCtx, code string, series *routeSeries) {
	start := ctx.Time() // read by the server right before; reading a clock is not cheap
	if start.IsZero() {
		start = time.Now() // there is no server
	}
	a.ids.set(&ctx.Request.Header, &ctx.Response.Header)
	a.followSafely(ctx, code, start)
	elapsed := time.Since(start)
	status := ctx.Response.StatusCode()
	a.metrics.observe(series, ctx.ConnID(), status, elapsed)
	if a.Traces != nil {
		a.Traces.redirect(ctx, series, start, elapsed, status)
	}
	a.logRequest(ctx, slog.LevelDebug, status, elapsed)
}

func (a *API) followSafely(ctx *fasthttp.RequestCtx, code string, at time.Time) {
	defer func() {
		if r := recover(); r != nil {
			a.logPanic(ctx, r)
			a.refuse(ctx, errInternal)
		}
	}()
	a.follow(ctx, code, at)
}

// follow answers a request for the link of a code, at the time it came in. code
// may share the request's buffer.
func (a *API) follow(ctx *fasthttp.RequestCtx, code string, at time.Time) {
	link, err := a.activeLink(code, at)
	if err != nil {
		a.refuse(ctx, err)
		return
	}
	if !ctx.IsHead() {
		a.record(ctx, link, at)
	}
	r := &ctx.Response
	r.SetStatusCode(link.Status)
	target := link.Target
	if link.ForwardQuery {
		target = links.AddQuery(target, utils.UnsafeString(ctx.URI().QueryString()))
	}
	r.Header.SetCanonical(headerLocation, utils.UnsafeBytes(target))
	cache := cacheTemporary
	if link.Status == http.StatusMovedPermanently || link.Status == http.StatusPermanentRedirect {
		cache = cachePermanent
	}
	r.Header.SetCanonical(headerCacheControl, cache)
}

// activeLink returns the link of a code if it leads somewhere at that time.
func (a *API) activeLink(code string, at time.Time) (*linkcache.Link, *Error) {
	// The lookup has a deadline of its own, and other requests share it.
	link, err := a.Cache.Lookup(context.Background(), code, at)
	switch {
	case errors.Is(err, linkcache.ErrNotFound):
		return nil, errNoLink
	case err != nil:
		return nil, errLookup
	case !link.Active:
		return nil, errDeactivated
	case !link.ExpiresAt.IsZero() && !at.Before(link.ExpiresAt):
		return nil, errExpired
	}
	return link, nil
}

// record keeps the click before the redirect is answered (I1). A click that
// cannot be kept is counted and logged by the spool, and the redirect is
// answered all the same (I3).
func (a *API) record(ctx *fasthttp.RequestCtx, link *linkcache.Link, at time.Time) {
	h := &ctx.Request.Header
	_ = a.Spool.Append(&clicks.Click{
		At:        at,
		URLID:     link.ID,
		UserID:    link.UserID,
		IP:        a.addressOf(ctx),
		UserAgent: utils.UnsafeString(h.UserAgent()),
		Referrer:  utils.UnsafeString(h.Referer()),
	})
}

// refuse answers a request for a short link with e: a page for a person with a
// browser, JSON for everyone else.
func (a *API) refuse(ctx *fasthttp.RequestCtx, e *Error) {
	r := &ctx.Response
	for name, values := range e.GetHeaders() {
		r.Header.Set(name, values[0])
	}
	r.Header.Set(fiber.HeaderVary, fiber.HeaderAccept)
	if prefersHTML(ctx.Request.Header.Peek(fiber.HeaderAccept)) {
		writePage(r, e)
		return
	}
	writeError(r, e)
}
