package api

import (
	"bytes"
	"html"
	"net/http"
	"strconv"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

const (
	pageHead = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>`
	pageMiddle = `</title>
<style>
body { font: 1.1rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto; padding: 0 1.5rem; color: #222; background: #fff }
small { color: #666 }
a { color: #0b57d0 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #161616 } small { color: #999 } a { color: #8ab4f8 } }
</style>
</head>
<body>
<h1>`
	pageTail = `</body>
</html>
`
)

// writePage makes the answer an HTML page with the contents of e.
func writePage(r *fasthttp.Response, e *Error) {
	r.SetStatusCode(e.Status)
	r.Header.SetContentType(fiber.MIMETextHTMLCharsetUTF8)
	r.Header.Set(fiber.HeaderCacheControl, "no-store")
	r.Header.Set(fiber.HeaderContentSecurityPolicy, pagePolicy)
	r.Header.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	title, advice := pageText(e)
	title, advice = html.EscapeString(title), html.EscapeString(advice)
	if e.near != nil {
		advice = "Upper and lower case count. Did you mean <a href=\"" + e.near.path + "\">" +
			html.EscapeString(e.near.code) + "</a>?"
	}
	r.SetBodyString(pageHead + title + pageMiddle + title + "</h1>\n<p>" + advice +
		"</p>\n<p><small>" + strconv.Itoa(e.Status) + "</small></p>\n" + pageTail)
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

// prefersHTML reports whether an Accept header names HTML and prefers none of our other
// formats. Clients that accept anything, such as curl, get JSON.
func prefersHTML(accept []byte) bool {
	page, data := -1, -1 // thousandths
	pageFirst := true
	for len(accept) > 0 {
		var entry []byte
		entry, accept, _ = bytes.Cut(accept, []byte(","))
		media, params, _ := bytes.Cut(entry, []byte(";"))
		switch media = bytes.TrimSpace(media); {
		case bytes.EqualFold(media, []byte("text/html")):
			page, pageFirst = quality(params), data < 0
		case bytes.EqualFold(media, []byte("application/json")):
			data = quality(params)
		}
	}
	return page > 0 && (page > data || page == data && pageFirst)
}

// quality returns the weight among the parameters of a media range in
// thousandths, 1000 if there is none and 0 if it cannot be read (RFC 9110, 12.4.2).
func quality(params []byte) int {
	for len(params) > 0 {
		var param []byte
		param, params, _ = bytes.Cut(params, []byte(";"))
		name, value, _ := bytes.Cut(bytes.TrimSpace(param), []byte("="))
		if !bytes.EqualFold(name, []byte("q")) {
			continue
		}
		q, err := strconv.ParseFloat(string(value), 64)
		if err != nil || q < 0 || q > 1 {
			return 0
		}
		return int(q * 1000)
	}
	return 1000
}
