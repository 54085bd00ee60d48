// Package web is the dashboard: pages, forms and their assets. It knows no HTTP server:
// package api authenticates a request, calls the handler of its route and writes the
// answer. Everything that a page shows or does goes through package service, like every
// request to the API.
//
// A page has a handler and a struct in a file of its own, and a template of the same
// name in templates/. Routes and sections are the tables of contents.
package web

import (
	"context"
	"embed"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/signpost/signpost/internal/service"
)

//go:embed templates assets
var files embed.FS

// Options are the settings of a dashboard.
type Options struct {
	Service  *service.Service
	TimeZone string // of viewers whose zone is not known; "" is UTC
	Version  string
}

// Web makes the pages of the dashboard. It may be used concurrently. Make it with New.
type Web struct {
	Options
	assets assets
	pages  map[string]*template.Template
}

// New returns a dashboard.
func New(o Options) *Web {
	w := &Web{Options: o, assets: loadAssets()}
	w.pages = loadPages(w.assets)
	return w
}

// Route is one route of the dashboard.
type Route struct {
	Method, Path string
	Role         service.Role // the lowest role that is allowed
	Handle       Handler
}

// Many reports whether the route works on many links, and may take longer.
func (r Route) Many() bool { return r.Method == http.MethodPost && strings.HasPrefix(r.Path, bulkPath) }

// Handler answers a request. Errors of package service become error pages.
type Handler func(ctx context.Context, r *Request) (*Answer, error)

// Routes returns the routes for those who are signed in, except for live feeds. Routes
// with the method GET change nothing.
func (w *Web) Routes() []Route {
	return []Route{
		{"GET", "/app", service.ReadsStatistics, w.overview},
		{"GET", "/app/links", service.ReadsLinks, w.links},
		{"GET", "/app/links/new", service.WritesLinks, w.newLink},
		{"POST", "/app/links/new", service.WritesLinks, w.createLink},
		{"GET", "/app/links/export", service.ReadsLinks, w.exportLinks},
		{"GET", bulkPath, service.WritesLinks, w.askBulk},
		{"POST", bulkPath, service.WritesLinks, w.bulk},
		{"POST", bulkPath + "/undo", service.WritesLinks, w.undoBulk},
		{"GET", pastePath, service.WritesLinks, w.paste},
		{"POST", pastePath, service.WritesLinks, w.makePasted},
		{"GET", "/app/links/:id", service.ReadsLinks, w.link},
		{"GET", "/app/links/:id/edit", service.WritesLinks, w.editLink},
		{"POST", "/app/links/:id/edit", service.WritesLinks, w.changeLink},
		{"GET", "/app/links/:id/delete", service.WritesLinks, w.askDeleteLink},
		{"POST", "/app/links/:id/delete", service.WritesLinks, w.deleteLink},
		{"POST", "/app/links/:id/active", service.WritesLinks, w.switchLink},
		{"GET", "/app/links/:id/qr", service.ReadsLinks, w.linkQR},
		{"GET", "/app/links/:id/qr.svg", service.ReadsLinks, w.pictureQR(false)},
		{"GET", "/app/links/:id/qr.png", service.ReadsLinks, w.pictureQR(true)},
		{"GET", "/app/links/:id/history", service.ReadsEvents, w.linkHistory},
		{"POST", "/app/links/:id/put-back", service.WritesLinks, w.putBack},
		{"GET", "/app/tags", service.ReadsLinks, w.tags},
		{"GET", "/app/tags/edit", service.WritesLinks, w.editTag},
		{"POST", "/app/tags/edit", service.WritesLinks, w.changeTag},
		{"GET", "/app/tags/delete", service.WritesLinks, w.askDeleteTag},
		{"POST", "/app/tags/delete", service.WritesLinks, w.deleteTag},
		{"GET", "/app/events", service.ReadsEvents, w.events},
		{"GET", "/app/events/export", service.ReadsEvents, w.exportEvents},
		{"GET", "/app/marks", service.ManagesMarks, w.marks},
		{"GET", "/app/marks/new", service.ManagesMarks, w.newMark},
		{"POST", "/app/marks/new", service.ManagesMarks, w.createMark},
		{"GET", "/app/marks/:id/delete", service.ManagesMarks, w.askDeleteMark},
		{"POST", "/app/marks/:id/delete", service.ManagesMarks, w.deleteMark},
		{"GET", "/app/users", service.ReadsUsers, w.users},
		{"GET", "/app/users/export", service.ReadsUsers, w.exportUsers},
		{"GET", "/app/users/new", service.WritesUsers, w.newUser},
		{"POST", "/app/users/new", service.WritesUsers, w.createUser},
		{"GET", "/app/users/:id/edit", service.WritesUsers, w.editUser},
		{"POST", "/app/users/:id/edit", service.WritesUsers, w.changeUser},
		{"GET", "/app/users/:id/delete", service.WritesUsers, w.askDeleteUser},
		{"POST", "/app/users/:id/delete", service.WritesUsers, w.deleteUser},
		{"GET", "/app/domains", service.ManagesDomains, w.domains},
		{"GET", "/app/domains/new", service.ManagesDomains, w.newDomain},
		{"POST", "/app/domains/new", service.ManagesDomains, w.createDomain},
		{"GET", "/app/domains/:id/edit", service.ManagesDomains, w.editDomain},
		{"POST", "/app/domains/:id/edit", service.ManagesDomains, w.changeDomain},
		{"GET", "/app/domains/:id/delete", service.ManagesDomains, w.askDeleteDomain},
		{"POST", "/app/domains/:id/delete", service.ManagesDomains, w.deleteDomain},
		{"GET", "/app/tokens", service.ManagesTokens, w.tokens},
		{"GET", "/app/tokens/new", service.ManagesTokens, w.newToken},
		{"POST", "/app/tokens/new", service.ManagesTokens, w.createToken},
		{"GET", "/app/tokens/:id/revoke", service.ManagesTokens, w.askRevokeToken},
		{"POST", "/app/tokens/:id/revoke", service.ManagesTokens, w.revokeToken},
		{"GET", "/app/system", service.ReadsSystem, w.system},
		{"GET", "/app/system/retry", service.ManagesBatches, w.askRetryBatch},
		{"POST", "/app/system/retry", service.ManagesBatches, w.retryBatch},
		{"GET", "/app/system/drop", service.ManagesBatches, w.askDropBatch},
		{"POST", "/app/system/drop", service.ManagesBatches, w.dropBatch},
		{"GET", "/app/imports", service.ReadsImports, w.imports},
		{"GET", "/app/imports/:id", service.ReadsImports, w.importDetail},
		{"GET", "/app/imports/:id/rows", service.ReadsImports, w.importRows},
		{"GET", "/app/imports/:id/errors.csv", service.ReadsImports, exportOfImport(w.Service.ExportImportErrors)},
		{"GET", "/app/imports/:id/result.csv", service.ReadsImports, exportOfImport(w.Service.ExportImportResult)},
		{"POST", "/app/imports/:id/cancel", service.ImportsLinks, w.changeImport(w.Service.CancelImport)},
		{"POST", "/app/imports/:id/retry", service.ImportsLinks, w.changeImport(w.Service.RetryImport)},
		{"GET", "/app/imports/:id/undo", service.ImportsLinks, w.askUndo},
		{"POST", "/app/imports/:id/undo", service.ImportsLinks, w.changeImport(w.Service.UndoImport)},
		{"GET", "/app/sessions", service.RoleReader, w.sessions},
		{"POST", "/app/sessions/end", service.RoleReader, w.endSessions},
	}
}

// sections are the entries of the navigation.
var sections = []section{
	{"Overview", "/app", service.ReadsStatistics},
	{"Links", "/app/links", service.ReadsLinks},
	{"Tags", "/app/tags", service.ReadsLinks},
	{"Imports", "/app/imports", service.ReadsImports},
	{"Events", "/app/events", service.ReadsEvents},
	{"Users", "/app/users", service.ReadsUsers},
	{"Domains", "/app/domains", service.ManagesDomains},
	{"Tokens", "/app/tokens", service.ManagesTokens},
	{"System", "/app/system", service.ReadsSystem},
}

// section is an entry of the navigation.
type section struct {
	Name, Path string
	Role       service.Role // the lowest role that sees it
}

// Request is a request to the dashboard.
type Request struct {
	Actor   service.Actor
	Session int64 // the id of the session; 0 without one
	ID      int64 // of the path; 0 if it has none
	Path    string
	Query   Values
	Form    Values
	// Origin is the scheme and host at which the browser reaches the service.
	Origin string
	// Zone is the time zone that the browser told, if it did. It may be nonsense.
	Zone string
}

// may reports whether the viewer has at least this role.
func (r *Request) may(role service.Role) bool { return r.Actor.Require(role) == nil }

// Answer is the answer to a request: a page, a file, or the path of another page.
type Answer struct {
	Status   int    // 303 if there is a Location
	Location string // "" for a page or file
	Body     []byte
	Type     string // of the body; "" is HTML
	// Export is a list that is sent as a file instead of a body, in the format csv or
	// ndjson.
	Export *service.Export
	Format string
}

// seeOther sends the browser to another page after a form was carried out.
func seeOther(path string) *Answer { return &Answer{Status: http.StatusSeeOther, Location: path} }

// now is the clock, without what makes times differ that are printed alike.
func now() time.Time { return time.Now().Truncate(time.Second) }
