package api

import (
	"html"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var pngOfPage = regexp.MustCompile(`href="([^"]+/qr\.png[^"]*)" download="([^"]+)"`)

func TestQRPage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id, _ := b.insertLink(testLink{code: "spring/sale", target: "https://example.com/"})
	w := b.signedIn(RoleReader)
	for query, want := range map[string]string{
		"":            "https://sign.example/spring/sale?qr",
		"?mark=false": "https://sign.example/spring/sale",
		"?mark=false&mark=true&size=300&margin=2&level=H&foreground=%23003366&background=%23ffffdd": "https://sign.example/spring/sale?qr",
	} {
		page := w.get(appLink(id) + "/qr" + query)
		require.Equal(t, 200, page.status, query)
		found := pngOfPage.FindStringSubmatch(string(page.raw))
		require.NotNil(t, found, query)
		assert.Equal(t, "spring-sale.png", found[2])
		picture := w.get(html.UnescapeString(found[1]))
		assert.Equal(t, "image/png", picture.header.Get("Content-Type"))
		assert.Equal(t, want, scan(t, picture.raw), query)
		assert.Contains(t, string(page.raw), want+"</p>")
	}
	svg := w.get(appLink(id) + "/qr.svg?foreground=%23003366")
	assert.Equal(t, "image/svg+xml", svg.header.Get("Content-Type"))
	assert.Contains(t, string(svg.raw), `fill="#003366"`)

	for query, field := range map[string]string{
		"size=15": "size", "size=x": "size", "margin=33": "margin", "level=X": "level", "foreground=%23cccccc": "foreground", "background=red": "background", "size=30": "size",
	} {
		a := w.get(appLink(id) + "/qr?" + query)
		assert.Equal(t, 400, a.status, query)
		assert.Contains(t, string(a.raw), `id="`+field+`-fault"`, query)
		assert.NotContains(t, string(a.raw), "<img", query)
		assert.Equal(t, 400, w.get(appLink(id)+"/qr.png?"+query).status, query)
		assert.Equal(t, 200, w.get(appLink(id)+"/qr?check=&"+query).status, query)
	}
	assert.Equal(t, 404, w.get(appLink(id+1)+"/qr").status)
	assert.Equal(t, 404, w.get(appLink(id+1)+"/qr.png").status)
}
