// Package api is Signpost's HTTP side: redirects, the management API and its
// documentation, health and readiness.
//
// This file holds every route of the public listener but short links, which
// redirect.go has; those of the admin listener are in internal/cli/admin.go. Each
// resource has a file of its own. errors.go is the only place that turns an error into
// a status. I1 to I14 are the invariants in docs/design.md.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gofiber/fiber/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/valyala/fasthttp"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/live"
	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/web"
)

const (
	// maxBody bounds every request body except for uploads, in bytes.
	maxBody = 1 << 20
	// maxHeader bounds a request line with its headers, in bytes.
	maxHeader = 16 << 10
	// requestTimeout bounds how long a management request may take, including the wait
	// for a connection. A request that takes longer is answered with 503.
	requestTimeout = 5 * time.Second
	// bulkTimeout is the same for requests that work on many links.
	bulkTimeout = 30 * time.Second

	readTimeout  = 30 * time.Second
	writeTimeout = 30 * time.Second
	idleTimeout  = 2 * time.Minute
)

// Options are the settings and surroundings of an API. All but Redirects,
// TrustedProxies, ImportMaxUploads, ExportMaxActive and Registry are required. The API
// closes none of them.
type Options struct {
	// Pool is for the management API; its size decides how many lists, exports and
	// uploads use the database at once (see bulkheads).
	Pool *pgxpool.Pool
	// Redirects is the pool that redirects use, and by which /ready and /health decide;
	// nil means Pool.
	Redirects *pgxpool.Pool
	River     *river.Client[pgx.Tx] // only inserts
	Spool     *clicks.Spool
	Cache     *linkcache.Cache

	// PublicURL is the beginning of short URLs: absolute, without a path.
	PublicURL string
	// AppURL is where the dashboard is, if that is another host than that of PublicURL, or
	// if it is to be on that one alone: absolute, without a path.
	AppURL string
	// TimeZone is the zone of statistics for requests that name none; "" is UTC.
	TimeZone string
	// OwnHosts are the hosts of this service's short links, to which no link may
	// lead: the host of PublicURL and all others on which the service is reached.
	OwnHosts links.Hosts
	// Tokens finds the bearer of a token. Operators of the same process use it too, so
	// that wrong guesses on both listeners count together.
	Tokens *Tokens
	// TrustedProxies are the addresses from which X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix
	// ImportMaxBytes bounds an upload.
	ImportMaxBytes int64
	// ImportMaxUploads bounds how many uploads are received at once; 0 means 8.
	ImportMaxUploads int
	// ExportMaxActive bounds how many exports run at once; 0 means 4.
	ExportMaxActive int

	// SecurityContact is the URI at which weaknesses can be reported; "" means that
	// there is none.
	SecurityContact string
	// CORSOrigins are the origins of pages whose scripts may use the management API,
	// as browsers write them, or * alone for all.
	CORSOrigins []string

	Registry prometheus.Registerer // nil means metrics go nowhere
	Traces   *Traces               // nil means there are none
	Log      *slog.Logger
	Version  string
	About    service.About // told to operators
}

// API answers HTTP requests. Make one with New.
type API struct {
	Options

	service   *service.Service
	app       *fiber.App
	serve     fasthttp.RequestHandler
	huma      huma.API
	web       *web.Web
	spec      []byte
	metrics   *metrics
	ids       *requestIDs
	database  *probe
	bulkheads bulkheads
	held      *quota // bytes of bodies
	exports   *quota // places of exports
	// uploads are the places of files that will be stored, repeats those of files that
	// are only read to check that they came before. Each stands for the memory of a
	// piece of its file and of unpacking (I7).
	uploads, repeats *quota
	clientLimits     clientLimits
	hints            hints
	draining         atomic.Bool
	watched          atomic.Int64 // when /ready was asked last, in Unix nanoseconds
	// stopped is closed when a shutdown begins to close connections. Answers that have
	// no end of their own, or take long, then stop.
	stopped             chan struct{}
	stop                func()
	watchers, listeners *watchers
	// lingering has the connections that are closed late.
	lingering *lingering

	mu       sync.Mutex   // guards the fields below
	listener net.Listener // of Serve
	closed   bool         // Serve accepts no connection any more
}

// New returns an API that is ready to serve. It dials nothing, so Postgres need
// not be up.
func New(o Options) (*API, error) {
	public, err := url.Parse(o.PublicURL)
	if err != nil || public.Host == "" {
		return nil, errors.New("PublicURL must be an absolute URL")
	}
	a := &API{
		Options:      o,
		ids:          newRequestIDs(),
		stopped:      make(chan struct{}),
		lingering:    newLingering(),
		clientLimits: defaultClientLimits(),
		hints:        newHints(),
	}
	a.stop = sync.OnceFunc(func() { close(a.stopped) })
	if o.ExportMaxActive == 0 {
		a.ExportMaxActive = defaultExports
	}
	if o.ImportMaxUploads == 0 {
		a.ImportMaxUploads = defaultUploads
	}
	if o.Redirects == nil {
		a.Redirects = o.Pool
	}
	a.OwnHosts = o.OwnHosts.WithDomains(func(host string) bool { return o.Cache.Domain(host).ID != linkcache.MainDomain })
	a.service = &service.Service{
		Log: o.Log, Pool: o.Pool, River: o.River, Cache: o.Cache, Clicks: live.NewSource(o.Pool, o.Log), PublicURL: o.PublicURL, OwnHosts: a.OwnHosts,
		Reach: service.UsualReach(), TimeZone: o.TimeZone, AdminKey: o.Tokens.adminKey, About: o.About,
	}
	a.web = web.New(web.Options{Service: a.service, TimeZone: o.TimeZone, Version: o.Version})
	a.bulkheads = newBulkheads(o.Registry, int(o.Pool.Config().MaxConns))
	// A piece waits as long as a list: it may hold a place or two already, and exports go on.
	a.service.EnterBulk = func(ctx context.Context) (func(), error) {
		ctx, cancel := context.WithTimeoutCause(ctx, listWait, errBusy)
		defer cancel()
		leave, err := a.bulkheads.exports.enter(ctx)
		if errors.Is(err, errBusy) {
			err = errors.Join(errBusy, service.Unavailable(errBusy.Message)) // the service can tell it from a fault
		}
		return leave, err
	}
	a.database = newProbe(a.checkDatabase)
	a.metrics = newMetrics(o.Registry)
	a.held = newQuota(heldBytes, a.metrics.held, errHeld, errHeldHalf)
	a.exports = newQuota(int64(a.ExportMaxActive), a.metrics.exporting, errExports, errExportsHalf)
	a.uploads = newQuota(int64(a.ImportMaxUploads), a.metrics.uploading, errUploads, errUploadsHalf)
	a.repeats = newQuota(int64(a.ImportMaxUploads), a.metrics.repeating, errUploads, errUploadsHalf)
	a.watchers = newWatchers(a.metrics.watching)
	a.listeners = newListeners(a.metrics.listening)
	a.app = a.newApp()
	a.huma = a.newHuma()
	a.routes()
	if err := a.describe(); err != nil {
		return nil, err
	}
	a.serve = a.app.Handler()
	a.app.Server().Handler = a.Handler()
	a.app.Server().ErrorHandler = a.protocolError
	return a, nil
}

// routes holds every route except for those of short links: redirect answers every path
// under /r/ and every other path whose first segment is not reserved. So the first
// segment of each route here has to be in the list of package links.
func (a *API) routes() {
	app := a.app
	app.Use(a.observe)
	if len(a.CORSOrigins) > 0 {
		app.Use(allowOrigins(a.CORSOrigins))
	}
	app.Name(noRoute)

	app.Get("/", a.home)
	app.Get("/robots.txt", a.robots)
	app.Get("/favicon.ico", a.favicon)
	app.Get("/apple-touch-icon.png", a.touchIcon)
	app.Get("/apple-touch-icon:size.png", a.touchIcon)
	app.Get("/.well-known/security.txt", a.security)
	app.Get("/health", a.health)
	app.Get("/ready", a.ready)
	app.Get("/openapi.json", a.openAPI)
	app.Get("/docs", a.docs)
	app.Get("/docs/:file", a.docsFile)
	a.appRoutes()

	manageList(a, route{"GET", "/users", service.ReadsUsers, 200, "List users"}, a.listUsers, a.exportUsers)
	manage(a, route{"POST", "/users", service.WritesUsers, 201, "Create a user"}, a.createUser)
	manage(a, route{"GET", "/users/{id}", service.ReadsUsers, 200, "Get a user"}, a.getUser)
	manage(a, route{"PUT", "/users/{id}", service.WritesUsers, 200, "Update a user"}, a.updateUser)
	manage(a, route{"PATCH", "/users/{id}", service.WritesUsers, 200, "Change a user"}, a.updateUser)
	manage(a, route{"DELETE", "/users/{id}", service.WritesUsers, 204, "Delete a user"}, a.deleteUser)

	manageList(a, route{"GET", "/urls", service.ReadsLinks, 200, "List links"}, a.listURLs, a.exportURLs)
	manage(a, route{"POST", "/urls", service.WritesLinks, 201, "Create a link"}, a.createURL)
	manage(a, route{"PATCH", "/urls/bulk", service.WritesLinks, 200, "Change many links"}, a.changeURLs)
	manage(a, route{"DELETE", "/urls/bulk", service.WritesLinks, 200, "Delete many links"}, a.deleteURLs)
	manage(a, route{"POST", "/urls/bulk", service.WritesLinks, 200, "Create many links"}, a.createURLs)
	manage(a, route{"GET", "/urls/{id}", service.ReadsLinks, 200, "Get a link"}, a.getURL)
	manage(a, route{"PUT", "/urls/{id}", service.WritesLinks, 200, "Update a link"}, a.updateURL)
	manage(a, route{"PATCH", "/urls/{id}", service.WritesLinks, 200, "Change a link"}, a.updateURL)
	manage(a, route{"DELETE", "/urls/{id}", service.WritesLinks, 204, "Delete a link"}, a.deleteURL)
	manageQR(a, route{"GET", "/urls/{id}/qr.svg", service.ReadsLinks, 200, "Draw the QR code of a link as SVG"}, "image/svg+xml", false)
	manageQR(a, route{"GET", "/urls/{id}/qr.png", service.ReadsLinks, 200, "Draw the QR code of a link as PNG"}, "image/png", true)

	manage(a, route{"GET", "/tags", service.ReadsLinks, 200, "List tags"}, listing(a, a.listTags))
	manage(a, route{"GET", "/tags/{name}", service.ReadsLinks, 200, "Get a tag"}, a.getTag)
	manage(a, route{"PATCH", "/tags/{name}", service.WritesLinks, 200, "Change a tag"}, a.updateTag)
	manage(a, route{"DELETE", "/tags/{name}", service.WritesLinks, 204, "Delete a tag"}, a.deleteTag)

	manage(a, route{"GET", "/domains", service.ManagesDomains, 200, "List domains"}, listing(a, a.listDomains))
	manage(a, route{"POST", "/domains", service.ManagesDomains, 201, "Create a domain"}, a.createDomain)
	manage(a, route{"GET", "/domains/{id}", service.ManagesDomains, 200, "Get a domain"}, a.getDomain)
	manage(a, route{"PATCH", "/domains/{id}", service.ManagesDomains, 200, "Change a domain"}, a.updateDomain)
	manage(a, route{"DELETE", "/domains/{id}", service.ManagesDomains, 204, "Delete a domain"}, a.deleteDomain)

	manageList(a, route{"GET", "/events", service.ReadsEvents, 200, "List events"}, a.listEvents, a.exportEvents)

	bucket, row := reflect.TypeFor[service.Bucket](), reflect.TypeFor[service.BreakdownRow]()
	manageStats(a, route{"GET", "/stats", service.ReadsStatistics, 200, "Count clicks"}, bucket, a.allStats, a.exportAllStats)
	manageStats(a, route{"GET", "/stats/{dimension}", service.ReadsStatistics, 200, "Break clicks down"}, row, a.allRows, a.exportAllRows)
	manageStats(a, route{"GET", "/urls/{id}/stats", service.ReadsStatistics, 200, "Count clicks on a link"}, bucket, a.linkStats, a.exportLinkStats)
	manageStats(a, route{"GET", "/urls/{id}/stats/{dimension}", service.ReadsStatistics, 200, "Break clicks on a link down"}, row, a.linkRows, a.exportLinkRows)
	app.Get("/live", a.require(service.ReadsEvents), a.live)
	app.Get("/urls/:id/live", a.require(service.ReadsEvents), a.linkLive)

	manage(a, route{"GET", "/tokens", service.ManagesTokens, 200, "List tokens"}, listing(a, a.listTokens))
	manage(a, route{"POST", "/tokens", service.ManagesTokens, 201, "Create a token"}, a.createToken)
	manage(a, route{"DELETE", "/tokens/{id}", service.ManagesTokens, 204, "Revoke a token"}, a.revokeToken)

	manage(a, route{"GET", "/marks", service.ManagesMarks, 200, "List marks"}, listing(a, a.listMarks))
	manage(a, route{"POST", "/marks", service.ManagesMarks, 201, "Mark a network or a User-Agent"}, a.createMark)
	manage(a, route{"DELETE", "/marks/{id}", service.ManagesMarks, 204, "Delete a mark"}, a.deleteMark)

	manage(a, route{"GET", "/admin/system", service.ReadsSystem, 200, "Tell how the whole service is"}, a.getSystem)
	manage(a, route{"POST", "/admin/batches/{batch}/retry", service.ManagesBatches, 204, "Retry a batch of clicks that failed"}, changeBatch(a.service.RetryBatch))
	manage(a, route{"DELETE", "/admin/batches/{batch}", service.ManagesBatches, 204, "Drop a batch of clicks that failed"}, changeBatch(a.service.DropBatch))

	// The service decides which kinds an editor may import.
	app.Post("/imports", a.require(service.ImportsLinks), a.createImport)
	app.Post("/imports/preview", a.require(service.ImportsLinks), a.previewImport)
	app.Post("/users/bulk", a.require(service.ImportsAll), a.createUsersImport)
	app.Get("/imports/:id/progress", a.require(service.ReadsImports), a.importProgress)
	app.Get("/imports/:id/result.csv", a.require(service.ReadsImports), a.importResult)
	app.Get("/imports/:id/errors", a.importErrorsAsCSV) // for JSON it calls the next route
	manage(a, route{"GET", "/imports", service.ReadsImports, 200, "List imports"}, listing(a, a.listImports))
	manage(a, route{"GET", "/imports/{id}", service.ReadsImports, 200, "Get an import"}, a.getImport)
	manage(a, route{"GET", "/imports/{id}/errors", service.ReadsImports, 200, "List rejected rows"}, listing(a,
		listImportRows("import_errors", a.service.ListImportErrors, func(e service.ImportError) int64 { return e.Line })))
	manage(a, route{"GET", "/imports/{id}/notices", service.ReadsImports, 200, "List what is to be known of imported rows"}, listing(a,
		listImportRows("import_notices", a.service.ListImportNotices, func(n service.ImportNotice) int64 { return n.Line })))
	manage(a, route{"GET", "/imports/{id}/kept", service.ReadsImports, 200, "List rows that are left of an import"}, listing(a,
		listImportRows("import_kept", a.service.ListKept, func(k service.KeptRow) int64 { return k.Line })))
	manage(a, route{"POST", "/imports/{id}/cancel", service.ImportsLinks, 202, "Cancel an import"}, changeImport(a.service.CancelImport))
	manage(a, route{"POST", "/imports/{id}/retry", service.ImportsLinks, 202, "Retry an import"}, changeImport(a.service.RetryImport))
	manage(a, route{"GET", "/imports/{id}/undo", service.ReadsImports, 200, "Preview the undo of an import"}, listing(a, a.previewUndo))
	manage(a, route{"POST", "/imports/{id}/undo", service.ImportsLinks, 202, "Undo an import"}, changeImport(a.service.UndoImport))
}

// Serve answers connections of ln until Shutdown, or until ln fails. Bounds and time
// limits of connections are up to ln, such as a [listen.Listener]. Serve closes ln. It
// is called once. After Shutdown it returns without having accepted a connection.
func (a *API) Serve(ln net.Listener) error {
	open := lingeringListener{ln, a.lingering, sync.OnceValue(ln.Close)}
	a.mu.Lock()
	if a.listener = open; a.closed {
		_ = open.Close() // it need not accept anything
	}
	a.mu.Unlock()
	return a.app.Listener(open)
}

// closeListener makes Serve accept no more connections, even if it is called later:
// Fiber's own shutdown does nothing while the server is not running yet.
func (a *API) closeListener() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed = true; a.listener != nil {
		_ = a.listener.Close() // Fiber's shutdown returns the error
	}
}

// Shutdown makes /ready fail, stops accepting connections and waits for requests under
// way until ctx ends. Before that, a load balancer that asks for /ready gets time to
// send its requests elsewhere, because a request fails if it arrives on a connection
// that is just being closed.
func (a *API) Shutdown(ctx context.Context) error {
	a.draining.Store(true)
	a.letNotice(ctx)
	a.stop()
	a.closeListener()
	defer a.lingering.stop() // nobody waits for them
	return a.app.ShutdownWithContext(ctx)
}

// noticeWithin is how long a load balancer has to ask for /ready once more and to act
// on the answer. If nobody has asked for that long, there is no load balancer.
const noticeWithin = 2 * time.Second

// letNotice waits as long as a load balancer may not know yet that a shutdown began. It
// leaves half of the time for the requests that are under way after that.
func (a *API) letNotice(ctx context.Context) {
	if time.Since(time.Unix(0, a.watched.Load())) > noticeWithin {
		return
	}
	wait := noticeWithin
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(end)/2)
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
}

// Handler returns the handler of all requests, for tests and for servers that are not
// made by Serve. They must stream request bodies.
func (a *API) Handler() fasthttp.RequestHandler { return drained(a.handle) }

// newApp configures Fiber. Bodies are streamed, so Fiber's own limit on them is off;
// readBody and uploads have limits of their own.
func (a *API) newApp() *fiber.App {
	return fiber.New(fiber.Config{
		AppName:                      "signpost",
		CaseSensitive:                true,
		StrictRouting:                true,
		DisableStartupMessage:        true,
		StreamRequestBody:            true,
		DisablePreParseMultipartForm: true,
		BodyLimit:                    maxBody,
		ReadBufferSize:               maxHeader,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		ErrorHandler:                 a.fail,
	})
}
