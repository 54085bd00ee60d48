package web

import (
	"bytes"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/internal/zone"
)

// loadPages parses the templates: layout.html and parts.html are shared, and each other
// file is a page.
func loadPages(a assets) map[string]*template.Template {
	shared := template.Must(template.New("").Funcs(template.FuncMap{
		"asset": a.path, "bar": bar, "change": change, "chosen": chosen, "cure": cure, "encodingName": encodingName, "fault": faultOf, "field": field,
		"kindName": kindName, "kindNames": func() string { return kindNames }, "list": list, "number": number, "numbered": numbered,
		"plural": plural, "size": size, "subject": subject, "tone": tone,
	}).ParseFS(files, "templates/layout.html", "templates/parts.html"))
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		panic(err) // the pattern is bad
	}
	pages := map[string]*template.Template{}
	for _, name := range names {
		page := path.Base(name)
		if page == "layout.html" || page == "parts.html" {
			continue
		}
		pages[page] = template.Must(template.Must(shared.Clone()).ParseFS(files, name))
	}
	return pages
}

// frame is what the layout shows around a page.
type frame struct {
	Title    string
	Sections []choice
	Actor    service.Actor
	SignedIn bool
	CanWrite bool   // links
	Done     string // what the form before has done
	Version  string
	Page     any
}

// done are the sentences that tell what a form has done, by the value of done in the
// query of the page that it leads to.
var done = map[string]string{
	"created":        "The link is made.",
	"changed":        "The changes are saved.",
	"on":             "The link is switched on.",
	"off":            "The link is switched off.",
	"deleted":        "The link is deleted.",
	"put-back":       "The change is put back.",
	"was-put-back":   "Nothing was to be done: the change is put back already.",
	"tag-changed":    "The tag is changed.",
	"tag-deleted":    "The tag is deleted.",
	"tag-going":      "Its links are being changed. That takes a while, and goes on by itself.",
	"user-made":      "The user is added.",
	"user-deleted":   "The user is deleted.",
	"domain-made":    "The domain is added: links on it work as soon as its name leads here.",
	"domain-deleted": "The domain is deleted.",
	"token-revoked":  "The token is revoked.",
	"mark-made":      "The mark is made.",
	"mark-deleted":   "The mark is deleted.",
	"retried":        "The batch is tried again.",
	"dropped":        "The batch is dropped.",
	"undone":         "The change is taken back.",
	"undone-partly":  "The change is taken back, except for links that are gone or have other tags by now.",
}

// page makes a page from its struct and the template of that name.
func (w *Web) page(r *Request, status int, title, name string, data any) (*Answer, error) {
	f := frame{
		Title: title, Actor: r.Actor, SignedIn: r.Actor.Role != 0, CanWrite: r.may(service.WritesLinks),
		Done: done[r.Query.text("done")], Version: w.Version, Page: data,
	}
	for _, s := range sections {
		if r.may(s.Role) {
			current := r.Path == s.Path || s.Path != "/app" && strings.HasPrefix(r.Path, s.Path+"/")
			f.Sections = append(f.Sections, choice{s.Name, s.Path, current})
		}
	}
	var body bytes.Buffer
	if err := w.pages[name].ExecuteTemplate(&body, "layout", f); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return &Answer{Status: status, Body: body.Bytes()}, nil
}

// errorPage says why there is no other page.
type errorPage struct {
	Status  int
	Title   string
	Message string
	Retry   bool     // the same address may well work later
	Again   string   // the path to which a form can be sent again; "" if there is none
	Fields  []hidden // of the form
	Typed   []hidden // those of them that somebody filled in
}

// Error makes the page of an error. isForm says that it answers a form, which cannot be
// sent again by following a link; if the request has its fields, the page sends them again.
func (w *Web) Error(r *Request, isForm bool, status int, message string) (*Answer, error) {
	retry := !isForm && (status >= 500 || status == http.StatusTooManyRequests)
	p := errorPage{Status: status, Title: http.StatusText(status), Message: sentence(message), Retry: retry}
	if r.Form.Values != nil {
		p.Again = r.Query.href(r.Path)
		p.Fields, p.Typed = fieldsOf(r.Form)
	}
	switch status {
	case http.StatusNotFound:
		p.Title = "There is nothing here"
	case http.StatusForbidden:
		p.Title = "This is not for you"
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		p.Title = "Please try again shortly"
	case http.StatusInternalServerError:
		p.Title = "Something went wrong"
	}
	return w.page(r, status, p.Title, "error.html", p)
}

// ownFields are fields of forms that nobody fills in.
var ownFields = []string{"key", "step", "expected", "at", "event", "do", "all", "id", "q", "state", "sort", "is_active"}

// fieldsOf returns all fields of a form as it was sent, and those that somebody filled in, each
// with all of its values.
func fieldsOf(v Values) (all, typed []hidden) {
	for _, name := range slices.Sorted(maps.Keys(v.Values)) {
		for _, value := range v.Values[name] {
			all = append(all, hidden{name, value})
		}
		text := strings.TrimSpace(strings.Join(v.Values[name], "\n"))
		if text != "" && !slices.Contains(ownFields, name) && !strings.HasPrefix(name, shown) && !untouched(v, name) {
			typed = append(typed, hidden{strings.ReplaceAll(name, "_", " "), text})
		}
	}
	return all, typed
}

// signInPage is the page at which people sign in.
type signInPage struct {
	Next   string
	Errors fieldErrors
}

// SignIn makes the page at which people sign in. next is the path to which they go then,
// and message says why they could not.
func (w *Web) SignIn(status int, next, message string) (*Answer, error) {
	p := signInPage{Next: next}
	if message != "" {
		p.Errors = fieldErrors{"token": message}
	}
	return w.page(&Request{Path: "/app/sign-in"}, status, "Sign in", "signin.html", p)
}

// place returns the zone of the viewer: the one that the query names, the one that the
// browser told, or that of the server.
func (w *Web) place(r *Request) *time.Location {
	for _, name := range []string{r.Query.text("tz"), r.Zone, w.TimeZone} {
		if loc, err := zone.Load(name); err == nil && name != "" {
			return loc
		}
	}
	return time.UTC
}

// moment is a time as a page shows it: in words, and exactly when one points at it.
type moment struct {
	At  time.Time
	Now time.Time
}

func momentOf(t time.Time, loc *time.Location) moment { return moment{t.In(loc), now().In(loc)} }

// momentAt is momentOf for a time that may be absent.
func momentAt(t *time.Time, loc *time.Location) *moment {
	if t == nil {
		return nil
	}
	m := momentOf(*t, loc)
	return &m
}

// ISO is the time for programs.
func (m moment) ISO() string { return m.At.UTC().Format(time.RFC3339) }

// Exact is the whole time in the zone of the viewer.
func (m moment) Exact() string { return m.At.Format("Mon 2 Jan 2006, 15:04:05 MST") }

// Text is the time in words; script.js words it in the same way.
func (m moment) Text() string {
	ago := m.Now.Sub(m.At)
	switch {
	case ago < -time.Minute, ago >= 7*24*time.Hour && m.At.Year() != m.Now.Year():
		return m.At.Format("2 Jan 2006")
	case ago < 5*time.Second:
		return "now"
	case ago < time.Minute:
		return fmt.Sprintf("%d s ago", int(ago.Seconds()))
	case ago < time.Hour:
		return fmt.Sprintf("%d min ago", int(ago.Minutes()))
	case ago < 24*time.Hour:
		return fmt.Sprintf("%d h ago", int(ago.Hours()))
	case ago < 7*24*time.Hour:
		return fmt.Sprintf("%d d ago", int(ago.Hours()/24))
	}
	return m.At.Format("2 Jan")
}

// sentence returns a message of the API as a sentence.
func sentence(message string) string {
	if message == "" {
		return ""
	}
	_, first := utf8.DecodeRuneInString(message)
	return strings.ToUpper(message[:first]) + message[first:] + "."
}
