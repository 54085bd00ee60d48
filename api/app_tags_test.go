package api

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/service"
)

func TestTagsPage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.signedIn(RoleEditor)
	assert.Contains(t, string(w.get("/app/tags").raw), "No tags yet")
	hostile := `<b>&"x"/y`
	link := b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": b.user("ann"), "original_url": "https://example.com/", "tags": []string{"sale", "offer", hostile}}).id()
	page := string(w.get("/app/tags").raw)
	assert.Equal(t, 3, strings.Count(page, `<th scope="row">`))
	assert.NotContains(t, page, "<b>&")
	assert.Contains(t, string(w.get("/app/tags?q=of").raw), "1 link<")
	assert.Contains(t, string(w.get("/app/tags?q=Of").raw), "No tag begins like this")
	assert.Equal(t, 400, w.get("/app/tags?q="+strings.Repeat("x", 51)).status)
	assert.NotContains(t, string(b.signedIn(RoleReader).get("/app/tags").raw), "/app/tags/edit")

	edit := func(tag string) string { return "/app/tags/edit?tag=" + url.QueryEscape(tag) }
	form := func(tag, name, color string) url.Values {
		return url.Values{"shown_name": {tag}, "name": {name}, "shown_color": {""}, "color": {color}}
	}
	assert.Contains(t, string(w.get(edit(hostile)).raw), "&lt;b&gt;")
	assert.Equal(t, 404, w.get(edit("none")).status)
	for _, wrong := range []url.Values{form("sale", "a,b", ""), form("sale", "", "")} {
		a := w.post(edit("sale"), wrong)
		assert.Equal(t, 400, a.status)
		assert.Contains(t, string(a.raw), `id="name-fault"`)
	}
	a := w.post(edit("sale"), form("sale", "sale", "mauve"))
	assert.Equal(t, 400, a.status)
	assert.Contains(t, string(a.raw), `id="color-fault"`)
	a = w.post(edit("sale"), form("sale", "offer", "green"))
	assert.Equal(t, 409, a.status)
	assert.Contains(t, string(a.raw), `name="merge"`)
	assert.Contains(t, string(a.raw), "is a tag already, with 1 link")
	merge := form("sale", "offer", "green")
	merge.Set("merge", "true")
	a = w.post(edit("sale"), merge)
	require.Equal(t, 303, a.status)
	assert.Contains(t, string(w.get(a.header.Get("Location")).raw), "The tag is changed.")
	assert.Contains(t, string(w.get(appLink(link)).raw), `<a class="tag green" href="/app/links?tag=offer">`)
	assert.Contains(t, string(w.get("/app/links").raw), `<a class="tag green" href="/app/links?tag=offer">`)

	remove := "/app/tags/delete?tag="
	assert.Contains(t, string(w.get(remove+"offer").raw), "taken off 1 link.")
	require.Equal(t, 303, w.post(remove+"offer", nil).status)
	assert.Equal(t, 404, w.post(remove+"offer", nil).status)
	assert.Equal(t, []any{hostile}, b.want(200, RoleReader, "GET", service.Link{ID: link}.Path(), nil).body["tags"])

	// While workers go on, the page says so, and a second change is refused with a reason.
	b.exec(`INSERT INTO tag_moves (name, target, actor) VALUES ($1, 'new', '{}')`, hostile)
	assert.Contains(t, string(w.get("/app/tags").raw), "is becoming new")
	a = w.post(edit(hostile), form(hostile, "third", ""))
	assert.Equal(t, 409, a.status)
	assert.Contains(t, string(a.raw), "just becoming new")
	assert.NotContains(t, string(a.raw), `name="merge"`)
	a = w.post(remove+url.QueryEscape(hostile), nil)
	assert.Equal(t, 409, a.status)
	assert.Contains(t, string(a.raw), "just becoming new")
}
