package api

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/service"
)

// crowd makes more users than one can choose from, and then ann.
func (b *bundle) crowd() (ann int64) {
	b.t.Helper()
	b.exec("INSERT INTO users (username, email) SELECT 'u' || n, 'u' || n || '@example.com' FROM generate_series(1, 101) n")
	return b.user("Ann")
}

// Where there are too many users to choose from, filters and forms take their names.
func TestNamesOfUsers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.crowd()
	link := b.newLink(ann, "https://example.com/ann", object{"short_code": "spring"}).id()
	b.newLink(1, "https://example.com/u1", nil)
	w := b.signedIn(RoleAdmin)
	rows := func(path string) int { return strings.Count(w.get(path).text(), `<th scope="row">`) }

	for _, name := range []string{"ann", "ANN", "+Ann+", fmt.Sprint(ann)} {
		assert.Equal(t, 1, rows("/app/links?user_id="+name), name)
		assert.Equal(t, 2, strings.Count(string(w.get("/app/links/export?format=csv&user_id="+name).raw), "\n"), name)
		assert.Equal(t, 2, strings.Count(w.get("/app/events?user_id="+name).text(), "<details><summary>Details"), "she was made, and her link: %s", name)
		assert.Equal(t, 3, strings.Count(string(w.get("/app/events/export?format=csv&user_id="+name).raw), "\n"), name)
		assert.Contains(t, w.get("/app/links/bulk?do=off&all=1&user_id="+name).text(), "Switch 1 link off?", name)
	}
	page := w.get("/app/links?user_id=ANN").text()
	assert.Contains(t, page, `value="ANN" placeholder="Owner's name"`)
	assert.Contains(t, page, `href="/app/links/export?format=csv&user_id=ANN"`)
	assert.Contains(t, w.get("/app/events").text(), `placeholder="User's name"`)
	for _, path := range []string{"/app/links?user_id=zed", "/app/links?user_id=-1", "/app/events?user_id=zed"} {
		a := w.get(path)
		assert.Equal(t, 400, a.status, path)
		assert.Contains(t, a.text(), "” is nobody's name.", path)
		assert.Contains(t, a.text(), `id="user_id-fault"`, path)
	}
	for _, path := range []string{"/app/links/export?format=csv&user_id=zed", "/app/events/export?format=csv&user_id=zed", "/app/links/bulk?do=delete&all=1&user_id=zed"} {
		a := w.get(path)
		assert.Equal(t, 400, a.status, path)
		assert.Contains(t, a.text(), "“zed” is nobody's name.", path)
	}
	assert.Contains(t, w.get("/app/links/export?picked=csv&format=csv"+strings.Repeat("&id=1", service.MaxPicked+1)).text(), "This choice has 101 links, and a file has at most 100.")
	assert.Contains(t, w.get("/app/links/export?picked=csv&format=csv&id=x").text(), "The number of a link is malformed.")
	// A filter counts whatever the query says that its field was shown with.
	for _, name := range []string{"ann", fmt.Sprint(ann)} {
		query := "user_id=" + name + "&shown_user_id=" + name
		assert.Equal(t, 1, rows("/app/links?"+query), name)
		assert.Equal(t, 2, strings.Count(w.get("/app/events?"+query).text(), "<details><summary>Details"), name)
		assert.Contains(t, w.get("/app/links/bulk?do=delete&all=1&"+query).text(), "Delete 1 link?", name)
	}
	assert.Equal(t, 0, rows("/app/links?user_id=1000000"), "an id that nobody has")
	// A number is an id, and never a name.
	b.exec("UPDATE users SET username = '102' WHERE id = 1")
	b.exec("UPDATE users SET username = '1000000' WHERE id = 2")
	b.exec("UPDATE users SET username = '007' WHERE id = 3")
	for id := range 3 {
		b.newLink(int64(id+1), fmt.Sprintf("https://example.com/of-%d", id+1), nil)
	}
	assert.Contains(t, w.get("/app/links?user_id=102").text(), "example.com/ann")
	assert.Equal(t, 0, rows("/app/links?user_id=1000000"), "nobody has this id")
	assert.Contains(t, w.get("/app/links/bulk?do=delete&all=1&user_id=1000000").text(), "There are no such links any more.")
	assert.Contains(t, w.get("/app/links?user_id=007").text(), "example.com/of-3")
	for _, name := range []string{"0001", "%2B1"} {
		assert.Equal(t, 400, w.get("/app/links?user_id="+name).status, name)
	}

	// Forms.
	form := url.Values{"original_url": {"https://example.com/new"}, "short_code": {"fresh"}, "user_id": {"zed"}}
	a := w.post("/app/links/new", form)
	assert.Equal(t, 400, a.status)
	assert.Contains(t, a.text(), `id="user_id-fault">is nobody's name`)
	assert.Contains(t, a.text(), `value="zed"`)
	a = w.get("/app/links/new?check=&short_code=a+b&user_id=zed")
	assert.Contains(t, a.text(), `id="user_id-fault">is nobody's name`)
	assert.Contains(t, a.text(), `id="short_code-fault"`)
	assert.NotContains(t, w.get("/app/links/new?check=&user_id=ann").text(), `id="user_id-fault"`)
	form.Set("user_id", "ann")
	require.Equal(t, 303, w.post("/app/links/new", form).status)
	b.wantCount(1, "SELECT count(*) FROM urls WHERE short_code = 'fresh' AND user_id = $1", ann)

	edit := appLink(link) + "/edit"
	assert.Contains(t, w.get(edit).text(), `<input id="user_id" name="user_id" value="Ann"`)
	assert.Contains(t, w.get(edit).text(), `name="shown_user_id" value="Ann"`)
	b.exec("UPDATE urls SET user_id = 7 WHERE id = $1", link)
	kept := url.Values{"title": {"Spring"}, "user_id": {"Ann"}, "shown_user_id": {"Ann"}}
	require.Equal(t, 303, w.post(edit, kept).status)
	b.wantCount(1, "SELECT count(*) FROM urls WHERE title = 'Spring' AND user_id = 7")
	kept.Set("user_id", "zed")
	assert.Contains(t, w.post(edit, kept).text(), `id="user_id-fault">is nobody's name`)
	assert.Contains(t, w.get(edit+"?check=&"+kept.Encode()).text(), `id="user_id-fault">is nobody's name`)
	kept.Set("user_id", "U8")
	require.Equal(t, 303, w.post(edit, kept).status)
	b.wantCount(1, "SELECT count(*) FROM urls WHERE title = 'Spring' AND user_id = 8")

	// Somebody's name may be the id of another.
	b.exec("UPDATE urls SET user_id = 1 WHERE id = $1", link)
	require.Equal(t, 303, w.post(edit, url.Values{"user_id": {"Ann"}, "shown_user_id": {"102"}}).status)
	b.wantCount(1, "SELECT count(*) FROM urls WHERE id = $1 AND user_id = $2", link, ann)

	paste := url.Values{"lines": {"https://example.com/pasted"}, "user_id": {"zed"}, "step": {"make"}}
	a = w.post("/app/links/paste", paste)
	assert.Equal(t, 400, a.status)
	assert.Contains(t, a.text(), `id="user_id-fault">is nobody's name`)
	assert.Contains(t, a.text(), "https://example.com/pasted</textarea>")
	paste.Set("user_id", "ann")
	assert.Contains(t, w.post("/app/links/paste", paste).text(), "1 link is made")
	b.wantCount(1, "SELECT count(*) FROM urls WHERE original_url LIKE '%pasted' AND user_id = $1", ann)

	const file = "original_url\nhttps://example.com/imported\n"
	fields := url.Values{"kind": {"urls"}, "user_id": {"zed"}}
	for _, path := range []string{"/app/imports", "/app/imports/preview"} {
		a = w.send(path, file, fields)
		assert.Equal(t, 400, a.status, path)
		assert.Contains(t, a.text(), `id="user_id-fault">is nobody's name`, path)
		assert.Contains(t, a.text(), `value="zed"`, path)
	}
	fields.Set("user_id", "ANN")
	a = w.send("/app/imports/preview", file, fields)
	assert.Contains(t, a.text(), "1 row looked at")
	assert.Contains(t, a.text(), `value="ANN"`)
	require.Equal(t, 303, w.send("/app/imports", file, fields).status)
	assert.EqualValues(t, ann, b.want(200, RoleReader, "GET", "/imports/1", nil).body["user_id"])
}

// Where there are few users, one of them is chosen. A name may be the id of another.
func TestChosenUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user("2")
	ann := b.user("ann")
	b.user(fmt.Sprint(ann + 2))
	b.user("0" + fmt.Sprint(ann))
	require.EqualValues(t, 2, ann)
	link := b.newLink(ann, "https://example.com/ann", nil).id()
	w := b.signedIn(RoleAdmin)
	want := fmt.Sprintf(`<option value="%d" selected>ann</option>`, ann)
	for _, path := range []string{appLink(link) + "/edit", "/app/links?user_id=ANN", "/app/links?user_id=+ann+", "/app/events?user_id=Ann", "/app/events?user_id=+ann+", "/app/links/paste?user_id=ANN", fmt.Sprint("/app/links?user_id=", ann), "/app/links/new?check=&user_id=ANN"} {
		page := w.get(path).text()
		_, owners, _ := strings.Cut(page, `<select id="user_id"`)
		owners, _, _ = strings.Cut(owners, "</select>")
		assert.Contains(t, owners, want, path)
		assert.Equal(t, 1, strings.Count(owners, " selected"), path)
	}
	a := w.send("/app/imports/preview", "original_url\nhttps://example.com/imported\n", url.Values{"kind": {"urls"}, "user_id": {"ANN"}})
	assert.Contains(t, a.text(), want)
}

// The events of a link are found by its short code, its short URL and its id.
func TestNamesOfLinks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	b.domain("go.example")
	spring := b.newLink(ann, "https://example.com/", object{"short_code": "spring"}).id()
	for _, link := range []object{{"short_code": "both"}, {"short_code": "both", "domain": "go.example"}, {"short_code": "there", "domain": "go.example"}, {"short_code": "1"}, {"short_code": "2000"}, {"short_code": "02"}} {
		b.newLink(ann, "https://example.com/", link)
	}
	gone := b.newLink(ann, "https://example.com/", nil).id()
	b.want(204, RoleAdmin, "DELETE", service.Link{ID: gone}.Path(), nil)
	w := b.signedIn(RoleAdmin)
	for text, want := range map[string]string{
		"spring": "sign.example/spring", "https://sign.example/spring": "sign.example/spring", "sign.example:8080/r/spring?qr": "sign.example/spring",
		"there": "go.example/there", "go.example/both": "go.example/both", fmt.Sprint(spring): "sign.example/spring",
		"https://sign.example/1": "sign.example/1", "sign.example/2000": "sign.example/2000", "02": "sign.example/02",
	} {
		a := w.get("/app/events?url_id=" + url.QueryEscape(text))
		assert.Equal(t, 200, a.status, text)
		assert.Equal(t, 1, strings.Count(a.text(), "<details><summary>Details"), text)
		assert.Contains(t, a.text(), strings.TrimPrefix(want, "sign.example")+"</a>", text)
		assert.Equal(t, 2, strings.Count(string(w.get("/app/events/export?format=csv&url_id="+url.QueryEscape(text)).raw), "\n"), text)
	}
	b.newLink(ann, "https://example.com/", object{"short_code": fmt.Sprint(gone)})
	page := w.get("/app/events?url_id=" + fmt.Sprint(gone)).text()
	assert.Equal(t, 2, strings.Count(page, "<details><summary>Details"), "of a link that is gone")
	assert.Equal(t, 2, strings.Count(page, "deleted link"), "and of no other whose code is its number")
	assert.Equal(t, 0, strings.Count(w.get("/app/events?url_id=2000").text(), "<details><summary>Details"), "no link has this id")
	for text, says := range map[string]string{"nothing": "“nothing” is no link's short code.", "https://elsewhere.example/spring": "is no link's short code.", "both": "“both” is the code of links on several domains"} {
		a := w.get("/app/events?url_id=" + url.QueryEscape(text))
		assert.Equal(t, 400, a.status, text)
		assert.Contains(t, a.text(), says)
	}
	assert.Contains(t, w.get("/app/links?q="+url.QueryEscape("https://sign.example/spring?qr")).text(), "With this short code")
}
