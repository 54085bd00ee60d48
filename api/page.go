package api

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

//go:embed pages
var pageFiles embed.FS

// pageStyle is within each page, so that visitors load nothing else.
//
//go:embed pages/style.css
var pageStyle string

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"style": func() template.CSS { return template.CSS(pageStyle) }, //nolint:gosec // it is a part of the program
}).ParseFS(pageFiles, "pages/*.html"))

// pagePolicy lets a page use its own style, and the icon of this host, which browsers
// fetch by themselves.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; img-src 'self'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// writePage makes the answer the page of that name.
func writePage(r *fasthttp.Response, name, policy string, data any) error {
	r.Header.SetContentType(fiber.MIMETextHTMLCharsetUTF8)
	r.Header.Set(fiber.HeaderContentSecurityPolicy, policy)
	r.Header.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	return pages.ExecuteTemplate(r.BodyWriter(), name, data)
}

// home shows visitors of the bare host what this service is.
func (a *API) home(c *fiber.Ctx) error {
	return writePage(&c.Context().Response, "home.html", pagePolicy, a.AppURL)
}

// writeErrorPage makes the answer a page with the contents of e.
func writeErrorPage(r *fasthttp.Response, e *Error) {
	r.SetStatusCode(e.Status)
	r.Header.Set(fiber.HeaderCacheControl, "no-store")
	title, advice := pageText(e)
	r.ResetBody()
	_ = writePage(r, "error.html", pagePolicy, map[string]any{ // cannot fail: it is written to memory
		"Title": title, "Advice": advice, "Status": e.Status, "Near": e.near,
	})
}

// pageText returns the text about e for a person who clicked on a link.
func pageText(e *Error) (title, advice string) {
	if e.near != nil {
		e = errNoLink
	}
	switch e {
	case errNoLink:
		return "There is no such link", "Check that the address is complete; upper and lower case matter."
	case errDeactivated:
		return "This link was deactivated", "Whoever made it does not want it to lead anywhere anymore."
	case errExpired:
		return "This link has expired", "It led somewhere until a date that has passed."
	case errLookup:
		return "Please try again shortly", "The link cannot be looked up at the moment."
	}
	if e.Status == http.StatusRequestHeaderFieldsTooLarge {
		return "Your browser sent too much", e.Message
	}
	return http.StatusText(e.Status), e.Message
}
