package api

import (
	"fmt"
	"html"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/internal/service"
)

var anyHidden = regexp.MustCompile(`<input type="hidden" name="([a-z_]+)" value="([^"]*)">`)

// hiddenOf returns the hidden fields of the form with an action.
func hiddenOf(page []byte, action string) url.Values {
	_, form, _ := strings.Cut(string(page), `action="`+action+`"`)
	form, _, _ = strings.Cut(form, "</form>")
	fields := url.Values{}
	for _, field := range anyHidden.FindAllStringSubmatch(form, -1) {
		fields.Add(field[1], html.UnescapeString(field[2]))
	}
	return fields
}

func TestManyLinksInTheList(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.many(30)
	b.exec("UPDATE urls SET tags = tags || 'spring'::text WHERE id = $1", first)
	w := b.signedIn(RoleEditor)
	assert.NotContains(t, string(b.signedIn(RoleReader).get("/app/links").raw), `class="pick`)
	assert.Equal(t, 25, strings.Count(string(w.get("/app/links").raw), `class="pick"`))

	// All that a filter finds get a tag, and lose it again.
	ask := w.get("/app/links/bulk?tag=all&sort=oldest&all=1&do=tags")
	require.Equal(t, 200, ask.status, "%s", ask.raw)
	assert.Contains(t, string(ask.raw), "Change the tags of 30 links")
	assert.Contains(t, string(ask.raw), "<option>spring")
	form := hiddenOf(ask.raw, "/app/links/bulk")
	form.Set("add_tags", "spring, new")
	a := w.post("/app/links/bulk", form)
	require.Equal(t, 303, a.status, "%s", a.raw)
	assert.Contains(t, a.header.Get("Location"), "/app/links?did=tags+form-")
	assert.Contains(t, a.header.Get("Location"), "sort=oldest&tag=all")
	b.wantCount(30, "SELECT count(*) FROM urls WHERE tags @> '{spring,new}'")
	list := w.get(a.header.Get("Location"))
	assert.Contains(t, string(list.raw), "The tags of 30 links are changed.")
	assert.Equal(t, a.header.Get("Location"), w.post("/app/links/bulk", form).header.Get("Location"), "it was sent twice")
	b.wantCount(30, "SELECT count(*) FROM events WHERE event_type = 'updated'")
	undo := hiddenOf(list.raw, "/app/links/bulk/undo")
	require.NotEmpty(t, undo.Get("key"))
	assert.Equal(t, "/app/links?done=undone&sort=oldest&tag=all", w.post("/app/links/bulk/undo", undo).header.Get("Location"))
	b.wantCount(1, "SELECT count(*) FROM urls WHERE tags @> '{spring}'")
	b.wantCount(0, "SELECT count(*) FROM urls WHERE tags @> '{new}'")
	assert.Equal(t, 404, b.signedIn(RoleAdmin).post("/app/links/bulk/undo", undo).status, "it is of another token")

	// Some are switched off, of which one is off already and one is gone.
	b.exec("UPDATE urls SET is_active = false WHERE id = $1", first)
	path := "/app/links/bulk?do=off"
	for _, id := range []int64{first, first + 1, first + 2, 1 << 40} {
		path += "&id=" + strconv.FormatInt(id, 10)
	}
	ask = w.get(path)
	assert.Contains(t, string(ask.raw), "Switch 3 links off?")
	assert.Contains(t, string(ask.raw), "1 of them is so already.")
	assert.Contains(t, string(ask.raw), "1 of those that you chose is no longer there.")
	a = w.post("/app/links/bulk", hiddenOf(ask.raw, "/app/links/bulk"))
	list = w.get(a.header.Get("Location"))
	assert.Contains(t, string(list.raw), "2 links are switched off. 1 was so already.")
	assert.Contains(t, string(list.raw), "1 link could not be changed: there is no such link.")
	b.want(410, 0, "GET", "/many2", nil)

	file := b.signedIn(RoleReader).get("/app/links/export?tag=all&state=off&format=csv")
	require.Equal(t, 200, file.status)
	assert.Equal(t, 4, strings.Count(string(file.raw), "\n"), "a head and three links: %s", file.raw)
	assert.NotContains(t, string(w.get("/app/links?tag=all&sort=clicks").raw), "In the order", "the numbers were never added up")
	require.NoError(t, rollup.AddUpTotals(t.Context(), b.pool))
	sorted := string(w.get("/app/links?tag=all&sort=clicks").raw)
	assert.Contains(t, sorted, `href="/app/links/export?format=csv&amp;tag=all"`)
	assert.Contains(t, sorted, `In the order that the links had <time`)
	assert.NotContains(t, string(w.get("/app/links?tag=all&sort=oldest").raw), "In the order")
	some := fmt.Sprintf("/app/links/export?tag=all&id=%d&id=%d&id=99999&picked=csv", first+2, first)
	file = w.get(some)
	assert.Equal(t, 3, strings.Count(string(file.raw), "\n"), "a head and those that are ticked")
	assert.Contains(t, string(file.raw), fmt.Sprintf("\n%d,", first), "the oldest first")
	assert.Equal(t, 400, w.get("/app/links/export?picked=csv").status, "none is ticked")
	assert.Equal(t, 31, strings.Count(string(w.get(some+"&all=1").raw), "\n"), "a head and all")
	assert.Equal(t, 400, w.get(some+strings.Repeat("&id=1", service.MaxPicked)).status)
	assert.Equal(t, 400, w.get("/app/links/export?format=csv&state=x").status)

	// The page says why it cannot be done, and nothing is done.
	for path, text := range map[string]string{
		"?do=off":                      "Tick some links",
		"?do=x&id=1":                   "no such action",
		"?id=1":                        "no such action",
		"?do=off&id=x":                 "The number of a link is malformed.",
		"?do=delete&all=1&tag=none":    "There are no such links",
		"?do=delete&all=1&q=ab":        "at least three letters",
		"?do=delete&all=1&state=maybe": "must be on or off",
	} {
		page := string(w.get("/app/links/bulk" + path).raw)
		assert.Contains(t, page, text, path)
		assert.NotContains(t, page, `name="key"`, path)
	}
	ask = w.get("/app/links/bulk?do=tags&all=1")
	form = hiddenOf(ask.raw, "/app/links/bulk")
	for tags, text := range map[string]string{"": "is required", strings.Repeat("x", 51): "must be"} {
		form.Set("add_tags", tags)
		a = w.post("/app/links/bulk", form)
		assert.Equal(t, 400, a.status)
		assert.Contains(t, string(a.raw), `id="add_tags-fault">`+text)
	}

	// There are more by now than one was asked about.
	form = hiddenOf(w.get("/app/links/bulk?do=delete&all=1&tag=all").raw, "/app/links/bulk")
	b.exec("INSERT INTO urls (user_id, short_code, original_url, tags) SELECT user_id, 'late', original_url, '{all}' FROM urls WHERE id = $1", first)
	a = w.post("/app/links/bulk", form)
	assert.Equal(t, 400, a.status)
	assert.Contains(t, string(a.raw), "There are 31 such links now, not 30: look again.")
	assert.Contains(t, string(a.raw), "Delete 31 links?")
	a = w.post("/app/links/bulk", hiddenOf(a.raw, "/app/links/bulk"))
	list = w.get(a.header.Get("Location"))
	assert.Contains(t, string(list.raw), "31 links are deleted.")
	assert.NotContains(t, string(list.raw), "Undo")
	b.wantCount(0, "SELECT count(*) FROM urls")
	assert.Equal(t, 200, w.get("/app/links?did=tags+nothing").status)
	assert.Equal(t, 200, w.post("/app/links/bulk", url.Values{"do": {"delete"}, "all": {"1"}}).status, "it has no key, so it is asked again")
}

// A change that could not be finished says so, and can be undone as far as it went.
func TestPartOfManyLinksIsUndone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.many(700)
	b.exec("UPDATE urls SET is_active = false WHERE id = $1", first)
	release := b.holding(fmt.Sprint("SELECT FROM urls WHERE id = ", first+699, " FOR UPDATE"))
	w := b.signedIn(RoleEditor)
	form := hiddenOf(w.get("/app/links/bulk?tag=all&all=1&do=off").raw, "/app/links/bulk")
	a := w.post("/app/links/bulk", form)
	require.Equal(t, 303, a.status, "%s", a.raw)
	list := w.get(a.header.Get("Location"))
	assert.Contains(t, string(list.raw), "499 links are switched off. 1 was so already.")
	assert.Contains(t, string(list.raw), "200 links could not be changed: another change holds some of these links, try again shortly.")
	b.wantCount(200, "SELECT count(*) FROM urls WHERE is_active")
	undo := hiddenOf(list.raw, "/app/links/bulk/undo")
	assert.Equal(t, "all", undo.Get("tag"))
	require.Equal(t, "/app/links?done=undone&tag=all", w.post("/app/links/bulk/undo", undo).header.Get("Location"))
	b.wantCount(699, "SELECT count(*) FROM urls WHERE is_active")

	// The form goes on with the rest when it is sent once more, and that can be undone too.
	require.Equal(t, 303, w.post("/app/links/bulk", form).status)
	release()
	list = w.get(w.post("/app/links/bulk", form).header.Get("Location"))
	assert.Contains(t, string(list.raw), "200 links are switched off. 500 were so already.")
	w.post("/app/links/bulk/undo", hiddenOf(list.raw, "/app/links/bulk/undo"))
	b.wantCount(200, "SELECT count(*) FROM urls WHERE is_active")
}

func TestTooManyLinksInTheList(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.many(10_001)
	page := string(b.signedIn(RoleEditor).get("/app/links/bulk?do=delete&all=1").raw)
	assert.Contains(t, page, "finds 10001 links, and a request changes at most 10000: narrow it")
}

func TestPasteLinks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.signedIn(RoleEditor)
	assert.Contains(t, string(w.get("/app/links/paste").raw), "Nobody owns links yet")
	ann := b.user("ann")
	form := hiddenOf(w.get("/app/links/paste").raw, "/app/links/paste")
	form.Set("user_id", strconv.FormatInt(ann, 10))
	form.Set("tags", "a, b")
	form.Set("step", "check")
	form.Set("lines", "https://example.com/1\r\n\r\n  spring   https://example.com/2 \r\nexample.com/3\r\nspring https://example.com/4\r\n<b> https://example.com/5")
	a := w.post("/app/links/paste", form)
	require.Equal(t, 200, a.status, "%s", a.raw)
	page := string(a.raw)
	assert.Contains(t, page, "2 lines of 5 can be made. Nothing is made so far.")
	assert.Contains(t, page, "the address must start with http:// or https://, such as https://example.com/3")
	assert.Contains(t, page, "the code is taken")
	assert.Contains(t, page, "&lt;b&gt;")
	assert.Contains(t, page, ">Make 2 links<")
	b.wantCount(0, "SELECT count(*) FROM urls")

	form.Set("step", "make")
	made := w.post("/app/links/paste", form)
	page = string(made.raw)
	assert.Contains(t, page, "2 links are made")
	assert.Regexp(t, `data-copy="https://sign.example/[0-9A-Za-z]{7}\nhttps://sign.example/spring"`, page)
	assert.Contains(t, page, "3 lines are left below, to be mended.")
	assert.Contains(t, page, ">\nexample.com/3\nspring https://example.com/4\n&lt;b&gt; https://example.com/5</textarea>")
	b.wantCount(2, "SELECT count(*) FROM urls WHERE tags = '{a,b}'")
	assert.Contains(t, string(w.post("/app/links/paste", form).raw), "2 links are made", "it was sent twice")
	b.wantCount(2, "SELECT count(*) FROM urls")

	for lines, text := range map[string]string{"": "has no address yet", strings.Repeat("https://example.com/\n", 101): "has 101 lines"} {
		form.Set("lines", lines)
		a := w.post("/app/links/paste", form)
		assert.Equal(t, 400, a.status)
		assert.Contains(t, string(a.raw), text)
	}
	form.Set("lines", "https://example.com/")
	form.Set("tags", strings.Repeat("x", 51))
	form.Set("user_id", "1000000")
	page = string(w.post("/app/links/paste", form).raw)
	assert.Contains(t, page, `id="tags-fault"`)
	assert.NotContains(t, page, "are made")
	form.Set("tags", "")
	assert.Contains(t, string(w.post("/app/links/paste", form).raw), `id="user_id-fault"`)
	b.wantCount(2, "SELECT count(*) FROM urls")
}

func TestLinkFormIsCarriedOutOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	w := b.signedIn(RoleEditor)
	form := hiddenOf(w.get("/app/links/new").raw, "/app/links/new")
	require.NotEmpty(t, form.Get("key"))
	form.Set("user_id", strconv.FormatInt(ann, 10))
	form.Set("original_url", "https://example.com/")
	answers := make(chan answer, 4)
	for range 4 {
		go func() { answers <- (&browser{b: b, cookie: w.cookie, header: w.header}).post("/app/links/new", form) }()
	}
	first := <-answers
	require.Equal(t, 303, first.status, "%s", first.raw)
	for range 3 {
		assert.Equal(t, first.header.Get("Location"), (<-answers).header.Get("Location"))
	}
	b.wantCount(1, "SELECT count(*) FROM urls")
	form.Set("original_url", "https://example.com/other")
	require.Equal(t, 303, w.post("/app/links/new", form).status)
	b.wantCount(2, "SELECT count(*) FROM urls")

	// The first link and its owner, made twice.
	fresh := setup(t)
	w = fresh.signedIn(RoleAdmin)
	form = hiddenOf(w.get("/app/links/new").raw, "/app/links/new")
	form["original_url"], form["username"], form["email"] = []string{"https://example.com/"}, []string{"ann"}, []string{"ann@example.com"}
	location := w.post("/app/links/new", form).header.Get("Location")
	assert.Equal(t, location, w.post("/app/links/new", form).header.Get("Location"))
	fresh.wantCount(1, "SELECT count(*) FROM urls")
}

func TestSuggestedCodes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	for _, code := range []string{"spring-sale", "spring-sale-2"} {
		b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": ann, "original_url": "https://example.com/", "short_code": code})
	}
	w := b.signedIn(RoleEditor)
	for query, want := range map[string]string{
		"title=Spring+Sale": "spring-sale-3",
		"original_url=https://example.com/shop/Garden.html": "garden",
		"title=app":                                  "[0-9A-Za-z]{7}",
		"original_url=https://example.com/":          "[0-9A-Za-z]{7}",
		"title=Spring+Sale&short_code=x":             "spring-sale-3",
		"title=Spring+Sale&domain=elsewhere.example": "",
	} {
		page := string(w.get("/app/links/new?suggest=1&" + query).raw)
		assert.Regexp(t, `id="short_code" name="short_code" value="`+want+`" autofocus`, page, query)
		assert.Equal(t, 1, strings.Count(page, "autofocus"), query)
	}
}
