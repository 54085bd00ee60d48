package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/internal/visits"
	"github.com/signpost/signpost/web"
)

// This file serves the dashboard: package web makes its pages, and here are sessions,
// cookies and headers. A request goes through the same bounds as one to the API.

// appPolicy lets pages of the dashboard load from their own host only, and run nothing
// but the scripts of the dashboard.
const appPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// pageTimeout bounds the queries of a page, which is several lists at once, and with them
// how long it keeps a place of lists.
const pageTimeout = 3 * time.Second

// zoneCookie has the time zone of the browser.
const zoneCookie = "signpost_zone"

// appRoutes holds every route of the dashboard. Those of its pages are in package web.
func (a *API) appRoutes() {
	a.app.Get(web.AssetsPath+":hash/:file", a.onApp(a.asset))
	a.app.Get("/app/sign-in", a.onApp(a.signInPage))
	a.app.Post("/app/sign-in", a.onApp(a.signIn))
	a.app.Post("/app/sign-out", a.onApp(a.signOut))
	a.app.Get("/app/live", a.onApp(a.appLive))
	a.app.Get("/app/links/:id/live", a.onApp(a.appLive))
	a.app.Post("/app/imports", a.onApp(a.appUpload))
	a.app.Post("/app/imports/preview", a.onApp(a.appPreview))
	a.app.Get("/app/imports/samples/:file", a.onApp(a.appSample))
	for _, route := range a.web.Routes() {
		timeout := requestTimeout
		if route.Many() {
			timeout = bulkTimeout
		}
		a.app.Add(route.Method, route.Path, a.onAppWithin(timeout, a.page(route)))
		if route.Method == http.MethodGet {
			a.app.Add(http.MethodHead, route.Path, a.onApp(a.page(route)))
		}
	}
	a.app.Get("/app/*", a.onApp(a.noPage))
}

// onApp returns a handler that answers with the headers of the dashboard and with its
// pages for errors. It refuses forms of other sites, and the dashboard on another host
// than its own.
func (a *API) onApp(handle fiber.Handler) fiber.Handler { return a.onAppWithin(requestTimeout, handle) }

// onAppWithin is onApp with another time limit.
func (a *API) onAppWithin(timeout time.Duration, handle fiber.Handler) fiber.Handler {
	return func(c *fiber.Ctx) error {
		if !a.isAppHost(a.requestHost(c)) {
			// The dashboard's own page of errors needs a style that is not here either.
			writeErrorPage(&c.Context().Response, a.notHere())
			return nil
		}
		a.setAppHeaders(c)
		ctx, cancel := context.WithTimeout(c.UserContext(), timeout)
		defer cancel()
		c.SetUserContext(ctx)
		err := a.checkSite(c)
		if err == nil {
			err = handle(c)
		}
		if err == nil {
			err = a.holdAnswer(c)
		}
		if err != nil {
			return a.failPage(c, err)
		}
		return nil
	}
}

// noPage says that there is no such page, in the frame of the viewer if there is a
// session.
func (a *API) noPage(c *fiber.Ctx) error {
	if _, err := a.admitSession(c, 0); err != nil {
		return err
	}
	return plainError(http.StatusNotFound)
}

func (a *API) setAppHeaders(c *fiber.Ctx) {
	header := &c.Context().Response.Header
	header.Set(fiber.HeaderContentSecurityPolicy, appPolicy)
	header.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	header.Set(fiber.HeaderReferrerPolicy, "same-origin")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set(fiber.HeaderCacheControl, "no-store")
	if a.onTLS() {
		header.Set(fiber.HeaderStrictTransportSecurity, "max-age=31536000")
	}
}

// onTLS reports whether browsers reach the dashboard over TLS.
func (a *API) onTLS() bool { return strings.HasPrefix(cmp.Or(a.AppURL, a.PublicURL), "https://") }

// isAppHost reports whether the dashboard is on a host, however the host is spelled. With
// AppURL it is on that host alone. Otherwise it is on the service's own hosts if browsers
// reach them over TLS, and on every host that is no custom domain if they do not: then
// nobody may have said yet under which names the service is reached.
func (a *API) isAppHost(host string) bool {
	if a.AppURL == "" {
		return !a.onTLS() || a.OwnHosts.Includes(host)
	}
	u, err := url.Parse(a.AppURL)
	if err != nil {
		return false // was validated
	}
	own, _ := links.ParseHosts(u.Host)
	return strings.EqualFold(host, u.Host) || own.Includes(host)
}

// notHere says where the dashboard is.
func (a *API) notHere() *Error {
	if a.AppURL != "" {
		return &Error{Status: http.StatusNotFound, Message: "The dashboard is at " + a.AppURL + "/app."}
	}
	return &Error{
		Status: http.StatusNotFound,
		Message: "The dashboard is at " + a.PublicURL + "/app. If that is where you are, the proxy in front has to pass the host on; " +
			"if this is a further host of the service, it belongs in PUBLIC_HOSTS.",
	}
}

var (
	errSignInForm = tooLarge("a form to sign in must tell its length, of at most 8 KiB")
	errCrossSite  = &Error{Status: http.StatusForbidden, Message: "this form was sent by a page of another site"}
)

// checkSite refuses a form that a page of another site has sent with the browser's session.
func (a *API) checkSite(c *fiber.Ctx) error {
	host := a.requestHost(c)
	if c.Method() == http.MethodGet || c.Method() == http.MethodHead {
		return nil
	}
	switch c.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return nil
	case "":
	default:
		return errCrossSite
	}
	// Browsers that are old, or reach us without TLS, tell only the origin.
	switch origin := c.Get(fiber.HeaderOrigin); {
	case origin == "" && c.Cookies(a.sessionCookie()) == "":
		return nil
	case origin == "":
		return errCrossSite
	default:
		u, err := url.Parse(origin)
		if err != nil || !strings.EqualFold(u.Host, host) || a.onTLS() && u.Scheme != "https" {
			return errCrossSite
		}
	}
	return nil
}

// requestHost returns the host that the browser asked for. A trusted proxy says which
// that was.
func (a *API) requestHost(c *fiber.Ctx) string {
	if lines := c.Context().Request.Header.PeekAll(fiber.HeaderXForwardedHost); len(lines) > 0 && a.isProxy(c.Context().RemoteAddr()) {
		_, last, _ := cutLast(lines[len(lines)-1])
		return string(bytes.TrimSpace(last))
	}
	return string(c.Context().Request.Host())
}

// origin returns the scheme and host at which the browser reaches the dashboard.
func (a *API) origin(c *fiber.Ctx) string {
	scheme := "http://"
	if a.onTLS() {
		scheme = "https://"
	}
	return scheme + a.requestHost(c)
}

// sessionCookie returns the name of the cookie with the reference of a session. Over TLS
// browsers make sure that no other host has set it.
func (a *API) sessionCookie() string {
	if a.onTLS() {
		return "__Host-signpost"
	}
	return "signpost"
}

func (a *API) setSession(c *fiber.Ctx, reference string) {
	age := int(service.SessionLife.Seconds())
	if reference == "" {
		age = -1
	}
	c.Cookie(&fiber.Cookie{
		Name: a.sessionCookie(), Value: reference, Path: "/", MaxAge: age, HTTPOnly: true, Secure: a.onTLS(), SameSite: fiber.CookieSameSiteLaxMode,
	})
}

// admitSession finds the session of a request, and puts its actor and the request's id
// into its UserContext.
func (a *API) admitSession(c *fiber.Ctx, role Role) (session, error) {
	leave, err := a.bulkheads.requests.enter(c.UserContext())
	if err != nil {
		return session{}, err
	}
	defer leave()
	reference := strings.Clone(c.Cookies(a.sessionCookie()))
	if reference == "" {
		return session{}, unauthorized("this needs somebody who is signed in")
	}
	found, err := a.Tokens.verifySession(c.UserContext(), reference, a.clientIP(c))
	if err != nil {
		return session{}, err
	}
	a.beAdmitted(c, found.actor) // also if it may not do this: the page that says so has its frame
	return found, found.actor.Require(role)
}

// page returns the handler of a route of package web.
func (a *API) page(route web.Route) fiber.Handler {
	return func(c *fiber.Ctx) error {
		err := a.answerPage(c, route)
		if err != nil && route.Method == http.MethodPost && fromError(err).Status == http.StatusServiceUnavailable {
			if form, ok := a.sentForm(c); ok {
				return &formError{err, form}
			}
		}
		return err
	}
}

func (a *API) answerPage(c *fiber.Ctx, route web.Route) error {
	found, err := a.admitSession(c, route.Role)
	if err != nil {
		return err
	}
	r, give, err := a.webRequest(c, found)
	if err != nil {
		return err
	}
	defer give()
	// A page reads statistics and lists, a form writes.
	places, limit := a.bulkheads.lists, pageTimeout
	if route.Method != http.MethodGet {
		places, limit = a.bulkheads.requests, bulkTimeout // most have requestTimeout, from onApp
	}
	leave, err := places.enter(c.UserContext())
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(c.UserContext(), limit)
	defer cancel()
	answer, err := route.Handle(ctx, r)
	if err != nil {
		return err
	}
	if answer.Export != nil {
		return a.sendExport(c, answer)
	}
	writeAnswer(c, answer)
	return nil
}

// formError is the error of a form that cannot be carried out now. Its page has the fields,
// so that the form can be sent again.
type formError struct {
	error
	form web.Values
}

// Unwrap returns the error without the form.
func (e *formError) Unwrap() error { return e.error }

// These bound a form that is given back, in bytes and fields: a field of a letter becomes
// forty.
const (
	maxAgain       = 64 << 10
	maxAgainFields = 200
)

// sentForm returns the fields of a form that was not carried out. If the database is away,
// nobody knows who has sent it: its session must have been valid lately.
func (a *API) sentForm(c *fiber.Ctx) (form web.Values, ok bool) {
	request := &c.Context().Request
	length := request.Header.ContentLength()
	if length < 0 || length > maxAgain || !a.Tokens.wasSession(c.Cookies(a.sessionCookie())) {
		return form, false
	}
	if request.IsBodyStream() { // it is not read yet
		give, err := a.bufferBody(c, checkForm)
		if err != nil {
			return form, false
		}
		defer give()
	}
	if bytes.Count(request.Body(), []byte("&")) >= maxAgainFields {
		return form, false
	}
	return web.ParseValues(string(request.Body()))
}

// sendExport answers with a list as a file, as the API does.
func (a *API) sendExport(c *fiber.Ctx, answer *web.Answer) error {
	format := exportFormat(answer.Format)
	if format != formatCSV && format != formatNDJSON {
		return badRequest("the format must be csv or ndjson")
	}
	a.export(c, *answer.Export, format, everyRow)
	return nil
}

// webRequest reads what a page is told of a request. It shares no memory with the
// request. give gives the memory of a form back.
func (a *API) webRequest(c *fiber.Ctx, found session) (r *web.Request, give func(), err error) {
	give = func() {}
	r = &web.Request{Actor: found.actor, Session: found.id, Path: strings.Clone(c.Path()), Origin: a.origin(c), Zone: zoneOf(c)}
	if c.Params("id") != "" {
		if r.ID, err = idParam(c); err != nil {
			return nil, nil, err
		}
	}
	var ok bool
	if r.Query, ok = web.ParseValues(string(c.Context().QueryArgs().QueryString())); !ok {
		return nil, nil, badRequest("the query of the address cannot be understood")
	}
	if c.Method() == http.MethodPost {
		if give, err = a.bufferBody(c, checkForm); err != nil {
			return nil, nil, err
		}
		if r.Form, ok = web.ParseValues(string(c.Context().Request.Body())); !ok {
			give()
			return nil, nil, badRequest("the form cannot be understood")
		}
	}
	return r, give, nil
}

// zoneOf returns the time zone that the browser told, if it did.
func zoneOf(c *fiber.Ctx) string {
	text := strings.Clone(c.Cookies(zoneCookie))
	if zone, err := url.QueryUnescape(text); err == nil {
		return zone
	}
	return text
}

// anyBody refuses no body.
func anyBody(*fasthttp.RequestHeader, []byte) error { return nil }

// checkForm refuses bodies that are no forms.
func checkForm(header *fasthttp.RequestHeader, body []byte) error {
	kind, _, _ := strings.Cut(strings.ToLower(string(header.ContentType())), ";")
	if len(body) > 0 && strings.TrimSpace(kind) != fiber.MIMEApplicationForm {
		return unsupported("the body must be a form: application/x-www-form-urlencoded")
	}
	return nil
}

// writeAnswer answers with a page or a file, or sends the browser to another page.
func writeAnswer(c *fiber.Ctx, answer *web.Answer) {
	if answer.Location != "" {
		c.Set(fiber.HeaderLocation, answer.Location)
		c.Status(http.StatusSeeOther)
		return
	}
	c.Status(answer.Status)
	c.Set(fiber.HeaderContentType, cmp.Or(answer.Type, fiber.MIMETextHTMLCharsetUTF8))
	c.Vary(fiber.HeaderAcceptEncoding)
	body := answer.Body
	if acceptsGzip(c.Context().Request.Header.Peek(fiber.HeaderAcceptEncoding)) {
		c.Set(fiber.HeaderContentEncoding, codingGzip)
		body = web.Pack(body, pageLevel)
	}
	c.Context().Response.SetBodyRaw(body)
}

// pageLevel is the effort of packing a page: a higher one costs more than it saves.
const pageLevel = 5

// failPage answers with the page of an error. Who is not signed in is sent to where one
// signs in.
func (a *API) failPage(c *fiber.Ctx, err error) error {
	e := answerable(a.Log, responseID(c), err)
	if e.Status == http.StatusUnauthorized {
		a.setSession(c, "")
		next := ""
		if c.Method() == http.MethodGet {
			next = "?" + url.Values{"next": {string(c.Context().Request.RequestURI())}}.Encode()
		}
		writeAnswer(c, &web.Answer{Location: "/app/sign-in" + next})
		return nil
	}
	r := &web.Request{Actor: actorOf(c), Path: strings.Clone(c.Path())}
	var lost *formError
	if errors.As(err, &lost) {
		r.Form = lost.form
		r.Query, _ = web.ParseValues(string(c.Context().QueryArgs().QueryString())) // its address may say what it is about
	}
	page, failed := a.web.Error(r, c.Method() == http.MethodPost, e.Status, e.Message)
	if failed != nil {
		return a.fail(c, failed)
	}
	c.Set(fiber.HeaderCacheControl, "no-store") // what failed may be a file that is kept for a year
	for name, values := range e.GetHeaders() {
		c.Set(name, values[0])
	}
	writeAnswer(c, page)
	if lost != nil && a.hold(c) != nil {
		return a.failPage(c, lost.error) // without the form
	}
	return nil
}

// asset serves a file of the dashboard, which never changes under its path.
func (a *API) asset(c *fiber.Ctx) error {
	asset, ok := a.web.Asset(c.Params("hash"), c.Params("file"))
	if !ok {
		return plainError(http.StatusNotFound)
	}
	body := asset.Plain
	c.Vary(fiber.HeaderAcceptEncoding)
	if acceptsGzip(c.Context().Request.Header.Peek(fiber.HeaderAcceptEncoding)) {
		c.Set(fiber.HeaderContentEncoding, codingGzip)
		body = asset.Packed
	}
	c.Set(fiber.HeaderCacheControl, "public, max-age=31536000, immutable")
	c.Set(fiber.HeaderContentType, asset.Type)
	c.Context().Response.SetBodyRaw(body)
	return nil
}

// appLive is live and linkLive for a page. The feed ends within a second when the session
// does.
func (a *API) appLive(c *fiber.Ctx) error {
	found, err := a.admitSession(c, service.ReadsEvents)
	if err != nil {
		if fromError(err).Status == http.StatusUnauthorized {
			a.setSession(c, "") // each try with it would count as a guess
		}
		return a.fail(c, err) // a script reads it
	}
	var id int64
	if c.Params("id") != "" {
		if id, err = idParam(c); err != nil {
			return a.fail(c, err)
		}
	}
	if err := a.listen(c, id, a.holderOfSession(found)); err != nil {
		return a.fail(c, err)
	}
	return nil
}

// holderOfSession looks at a session as often as a feed asks for, in the places of short
// looks.
func (a *API) holderOfSession(s session) holder {
	return holder{every: sessionCheck, look: func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		leave, err := a.bulkheads.imports.enter(ctx)
		if err != nil {
			return nil // as while the database cannot be reached
		}
		defer leave()
		return a.Tokens.sessionHolds(ctx, s.id)
	}}
}

// signInPage is for those who are signed in too: they may follow a link to sign in, which
// only the page itself can take.
func (a *API) signInPage(c *fiber.Ctx) error {
	return a.showSignIn(c, http.StatusOK, string(c.Context().QueryArgs().Peek("next")), "")
}

func (a *API) showSignIn(c *fiber.Ctx, status int, next, message string) error {
	answer, err := a.web.SignIn(status, ownPath(next), message)
	if err == nil {
		writeAnswer(c, answer)
	}
	return err
}

// ownPath returns a path of the dashboard to which somebody is sent who signed in, "/app"
// for any other text. Browsers resolve dots in a path, however they are written, leave tabs
// out, and take backslashes for slashes.
func ownPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(next, "/app") || strings.ContainsFunc(next, unicode.IsControl) {
		return "/app"
	}
	if u.Path != "/app" && !strings.HasPrefix(u.Path, "/app/") || u.Path != path.Clean(u.Path) || strings.Contains(u.Path, "\\") {
		return "/app"
	}
	return next
}

// signIn begins a session for the token, or the link to sign in, of a form. A session
// that the browser had before ends.
func (a *API) signIn(c *fiber.Ctx) error {
	// Nobody is known yet, so no memory may be held for the form: strangers would take
	// that of tokens.
	if length := c.Context().Request.Header.ContentLength(); length < 0 || length > heldLeast {
		return errSignInForm
	}
	r, give, err := a.webRequest(c, session{})
	if err != nil {
		return err
	}
	defer give()
	leave, err := a.bulkheads.requests.enter(c.UserContext())
	if err != nil {
		return err
	}
	defer leave()
	next := r.Form.Get("next")
	actor, err := a.bearerOf(c, r.Form)
	if e := fromError(err); err != nil && (isWrong(err) || e.Status == http.StatusTooManyRequests) {
		if e.RetryAfter > 0 {
			c.Set(fiber.HeaderRetryAfter, e.GetHeaders().Get(fiber.HeaderRetryAfter))
		}
		return a.showSignIn(c, e.Status, next, e.Message)
	}
	if err != nil {
		return err
	}
	if before := strings.Clone(c.Cookies(a.sessionCookie())); before != "" {
		if found, err := a.Tokens.findSession(c.UserContext(), before); err == nil {
			if err := a.Tokens.endSession(c.UserContext(), found.id); err != nil {
				return err
			}
		}
	}
	reference, err := a.Tokens.beginSession(c.UserContext(), actor, agentOf(c))
	if err != nil {
		return err
	}
	a.setSession(c, reference)
	writeAnswer(c, &web.Answer{Location: ownPath(next)})
	return nil
}

// bearerOf returns the bearer of the token in a form, or of its link to sign in.
func (a *API) bearerOf(c *fiber.Ctx, form web.Values) (Actor, error) {
	if link := strings.TrimSpace(form.Get("link")); link != "" {
		_, secret, found := strings.Cut(link, "#")
		if !found {
			secret = link
		}
		return a.Tokens.redeem(c.UserContext(), secret, a.clientIP(c))
	}
	return a.Tokens.verify(c.UserContext(), strings.TrimSpace(form.Get("token")), a.clientIP(c))
}

// agentOf names the browser of a request, as far as it is known.
func agentOf(c *fiber.Ctx) string {
	agent := visits.ReadAgent(strings.Clone(c.Get(fiber.HeaderUserAgent)))
	name := cmp.Or(agent.Browser, "unknown browser")
	if agent.OS != "" {
		name += " on " + agent.OS
	}
	return clicks.Clean(name, 100)
}

func (a *API) signOut(c *fiber.Ctx) error {
	found, err := a.admitSession(c, 0)
	if err == nil {
		err = a.Tokens.endSession(c.UserContext(), found.id)
	}
	if err != nil && !isWrong(err) && fromError(err).Status != http.StatusUnauthorized {
		return err
	}
	a.setSession(c, "")
	writeAnswer(c, &web.Answer{Location: "/app/sign-in"})
	return nil
}
