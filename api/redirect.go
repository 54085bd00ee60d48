package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/utils"
	"github.com/valyala/fasthttp"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/internal/visits"
)

// Names of the routes of short links, in metrics and traces.
const (
	routeLong  = "/r/:code"
	routeShort = "/:code"
)

var (
	errNoLink      = fromService(service.NotFound("link"))
	errDeactivated = gone("this link was deactivated")
	errExpired     = gone("this link has expired")
	errLookup      = unavailable("the link cannot be looked up at the moment, try again shortly")
)

var (
	headerLocation     = []byte(fiber.HeaderLocation)
	headerCacheControl = []byte(fiber.HeaderCacheControl)
	// If browsers stored a redirect, clicks and changes of the link would be missed.
	// Permanent redirects are chosen by the link's owner; browsers may store them for a
	// short while.
	cacheTemporary = []byte("private, no-store, max-age=0")
	cachePermanent = []byte("private, max-age=90")
)

// redirect answers a request for a short link and reports whether it was one. On a
// custom domain every path is a short link. On the main domain those are whose first
// segment is r or is not reserved. It runs before the router, because nearly every
// request is a redirect, and the router and its middleware would cost some 0.3 µs,
// which is more than it takes to find the link.
func (a *API) redirect(ctx *fasthttp.RequestCtx) bool {
	uri := ctx.URI()
	path := utils.UnsafeString(uri.PathOriginal())
	domain := a.Cache.Domain(utils.UnsafeString(uri.Host()))
	main := domain.ID == linkcache.MainDomain
	var read links.Path
	switch {
	case !main:
		read = links.ReadDomainPath(path)
	case path == "" || path[0] != '/':
		return false
	default:
		code := path[1:]
		long, found := strings.CutPrefix(code, "r/")
		switch {
		case found && links.IsPlainCode(long):
			read = links.Path{Code: long, Long: true}
		case links.IsPlainCode(code) && !links.Reserved(code):
			read = links.Path{Code: code}
		default:
			read = links.ReadPath(path)
		}
		if read.Reserved && (!read.Root || domain.RootURL == "") {
			return false
		}
	}
	method := 0
	switch {
	case ctx.IsGet():
	case ctx.IsHead():
		method = 1
	case read.Reserved:
		return false // the router knows the methods of the home page
	default:
		a.refuseMethod(ctx)
		return true
	}
	if main && !a.Cache.KnowsDomains() && a.mayBeCustom(utils.UnsafeString(uri.Host())) {
		a.refuse(ctx, errLookup)
		return true
	}
	a.answerRedirect(ctx, domain, read, method)
	return true
}

// mayBeCustom reports whether a host could be a custom domain. It matters only in the
// first moments of a process, before the domains are read: the main domain may have
// another link with the same code.
func (a *API) mayBeCustom(host string) bool {
	name, _, _ := strings.Cut(host, ":")
	_, err := links.CleanHost(name, a.OwnHosts)
	return err == nil
}

// refuseMethod answers a request with a method that short links do not have.
func (a *API) refuseMethod(ctx *fasthttp.RequestCtx) {
	start := time.Now()
	a.ids.set(&ctx.Request.Header, &ctx.Response.Header)
	ctx.Response.Header.Set(fiber.HeaderAllow, "GET, HEAD")
	writeError(&ctx.Response, plainError(http.StatusMethodNotAllowed))
	elapsed := time.Since(start)
	a.metrics.series(noRoute, anyMethod, classOf(http.StatusMethodNotAllowed)).observe(elapsed)
	a.logRequest(ctx, slog.LevelDebug, http.StatusMethodNotAllowed, elapsed)
}

// answerRedirect answers a request for a short link, measures it and logs it. method is
// 0 for GET and 1 for HEAD.
func (a *API) answerRedirect(ctx *fasthttp.RequestCtx, domain *linkcache.Domain, path links.Path, method int) {
	route := a.metrics.short[method]
	if path.Long {
		route = a.metrics.long[method]
	}
	start := ctx.Time() // the server read it just before; reading a clock is not cheap
	if start.IsZero() {
		start = time.Now() // there is no server
	}
	a.ids.set(&ctx.Request.Header, &ctx.Response.Header)
	a.followSafely(ctx, domain, path, start)
	elapsed := time.Since(start)
	status := ctx.Response.StatusCode()
	a.metrics.seriesOf(route, classOf(status)).observe(elapsed)
	if a.Traces != nil {
		a.Traces.redirect(route, start, elapsed, status)
	}
	a.logRequest(ctx, slog.LevelDebug, status, elapsed)
}

func (a *API) followSafely(ctx *fasthttp.RequestCtx, domain *linkcache.Domain, path links.Path, at time.Time) {
	defer func() {
		if r := recover(); r != nil {
			a.logPanic(ctx, r)
			a.refuse(ctx, errInternal)
		}
	}()
	a.follow(ctx, domain, path, at)
}

// follow answers a request for the link of a path; at is when the request came in. The
// path may share the request's buffer.
func (a *API) follow(ctx *fasthttp.RequestCtx, domain *linkcache.Domain, path links.Path, at time.Time) {
	link, err := a.activeLink(domain, path, at)
	if err != nil {
		a.answerWithoutLink(ctx, domain, path, err)
		return
	}
	query, scanned := links.CutScan(queryOf(ctx, path))
	if !ctx.IsHead() {
		a.record(ctx, link, at, scanned)
	}
	target := link.Target
	if link.ForwardQuery {
		target = links.AddQuery(target, query)
	}
	cache := cacheTemporary
	if link.Status == http.StatusMovedPermanently || link.Status == http.StatusPermanentRedirect {
		cache = cachePermanent
	}
	writeRedirect(ctx, link.Status, target, cache)
}

func writeRedirect(ctx *fasthttp.RequestCtx, status int, target string, cache []byte) {
	r := &ctx.Response
	r.SetStatusCode(status)
	r.Header.SetCanonical(headerLocation, utils.UnsafeBytes(target))
	r.Header.SetCanonical(headerCacheControl, cache)
}

// answerWithoutLink answers a request for which there is no active link: with a redirect to the
// address that the domain has for that case, or else with the error.
func (a *API) answerWithoutLink(ctx *fasthttp.RequestCtx, domain *linkcache.Domain, path links.Path, err *Error) {
	target := ""
	switch {
	case path.Root:
		target = domain.RootURL
	case err == errNoLink:
		target = domain.NotFoundURL
	case err == errExpired || err == errDeactivated:
		target = domain.ExpiredURL
	}
	if target != "" {
		writeRedirect(ctx, http.StatusFound, target, cacheTemporary)
		return
	}
	if err == errNoLink {
		err = a.withHint(domain, path)
	}
	a.refuse(ctx, err)
}

// queryOf returns the query of a request. A query that was glued to the code comes
// first.
func queryOf(ctx *fasthttp.RequestCtx, path links.Path) string {
	query := utils.UnsafeString(ctx.URI().QueryString())
	switch {
	case path.Query == "":
		return query
	case query == "":
		return path.Query
	}
	return path.Query + "&" + query
}

// activeLink returns the link of a path, or an error if it leads nowhere at that time.
func (a *API) activeLink(domain *linkcache.Domain, path links.Path, at time.Time) (*linkcache.Link, *Error) {
	link, err := a.lookup(domain, path, at)
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

// lookup returns the link of the whole code in the path, or else the link of the code
// that is left when trailing rubbish is cut off ([links.Path]). A path that cannot contain a code is not
// looked up.
func (a *API) lookup(domain *linkcache.Domain, path links.Path, at time.Time) (*linkcache.Link, error) {
	// The lookup has a deadline of its own, and other requests share it.
	ctx := context.Background()
	code, trimmed := linkcache.NewKey(domain.ID, path.Code), linkcache.NewKey(domain.ID, path.Trimmed)
	switch {
	case path.Trimmed == "" && path.Code == "":
		return nil, linkcache.ErrNotFound
	case path.Trimmed == "":
		return a.Cache.Lookup(ctx, code, at)
	case path.Code == "":
		return a.Cache.Lookup(ctx, trimmed, at)
	}
	return a.Cache.LookupEither(ctx, code, trimmed, at)
}

// record keeps the click before the redirect is answered (I1). A click that
// cannot be kept is counted and logged by the spool, and the redirect is
// answered all the same (I3).
func (a *API) record(ctx *fasthttp.RequestCtx, link *linkcache.Link, at time.Time, scanned bool) {
	h := &ctx.Request.Header
	c := clicks.Click{
		At:        at,
		URLID:     link.ID,
		UserID:    link.UserID,
		IP:        a.addressOf(ctx),
		UserAgent: utils.UnsafeString(h.UserAgent()),
		Referrer:  utils.UnsafeString(h.Referer()),
	}
	c.Prefetch, c.Private = readFlags(h)
	if scanned {
		c.Trigger = clicks.TriggerQR
	}
	_ = a.Spool.Append(&c)
}

// readFlags reports whether the browser loads the page ahead of a click, and whether its
// visitor asks not to be tracked. Looking at each header once takes half the time of
// asking for these six by their names.
func readFlags(h *fasthttp.RequestHeader) (prefetch, private bool) {
	for name, value := range h.All() {
		switch string(name) { // as the server spells names
		case "Sec-Purpose", "Purpose", "X-Purpose", "X-Moz":
			prefetch = prefetch || visits.LoadsAhead(value)
		case "Dnt", "Sec-Gpc":
			private = private || visits.RefusesTracking(value)
		}
	}
	return prefetch, private
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
		writeErrorPage(r, e)
		return
	}
	writeError(r, e)
}
