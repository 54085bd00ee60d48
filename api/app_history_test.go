package api

import (
	"html"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/service"
)

var putBackForm = regexp.MustCompile(`name="at" value="([^"]+)"><input type="hidden" name="event" value="([^"]+)"(?:><input type="hidden" name="seen" value="([^"]+)")?`)

// putBacks returns the forms of a page that put changes back.
func putBacks(page []byte) (forms []url.Values) {
	for _, found := range putBackForm.FindAllStringSubmatch(string(page), -1) {
		forms = append(forms, url.Values{"at": {html.UnescapeString(found[1])}, "event": {found[2]}, "seen": {html.UnescapeString(found[3])}})
	}
	return forms
}

func TestPutAChangeBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann, ben := b.user("ann"), b.user("ben")
	id := b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": ann, "original_url": "https://example.com/a", "title": "first", "tags": []string{"sale"}}).id()
	path, link := service.Link{ID: id}.Path(), appLink(id)
	change := func(fields object) { b.want(200, RoleEditor, "PATCH", path, fields) }
	change(object{"title": nil, "tags": []string{}, "user_id": ben, "expires_at": "2099-01-31T12:30:45.5Z", "is_active": false, "redirect_status": 308})
	change(object{"title": "other"})

	w := b.signedIn(RoleEditor)
	page := w.get(link)
	for _, text := range []string{"<b>editor of the test</b> changed", "<b>admin of the test</b> made", "<del>ann</del>", "<ins>ben</ins>", "<del>on</del>", "<del>never</del>", "<ins>Sat 31 Jan 2099, 12:30:45 UTC</ins>", "<del>302</del>", "<ins>none</ins>"} {
		assert.Contains(t, string(page.raw), text)
	}
	assert.NotContains(t, string(b.signedIn(RoleReader).get(link).raw), "put-back")
	forms := putBacks(page.raw)
	require.Len(t, forms, 2, "making a link cannot be put back")

	// The title was changed again: the page says so, and nothing is written yet.
	asked := w.post(link+"/put-back", forms[1])
	assert.Equal(t, 409, asked.status)
	assert.Contains(t, string(asked.raw), "<del>other</del>")
	assert.NotContains(t, string(asked.raw), "<dt>owner</dt>", "which nobody has changed again")
	assert.Equal(t, "other", b.want(200, RoleReader, "GET", path, nil).body["title"])
	sure := putBacks(asked.raw)
	require.Len(t, sure, 1)

	// A yes counts for the link as it was shown.
	change(object{"title": "third"})
	asked = w.post(link+"/put-back", sure[0])
	assert.Equal(t, 409, asked.status)
	assert.Contains(t, string(asked.raw), "<del>third</del>")
	done := w.post(link+"/put-back", putBacks(asked.raw)[0])
	require.Equal(t, 303, done.status)
	assert.Contains(t, string(w.get(done.header.Get("Location")).raw), "The change is put back.")
	got := b.want(200, RoleReader, "GET", path, nil).body
	assert.Equal(t, "first", got["title"])
	assert.Equal(t, []any{"sale"}, got["tags"])
	assert.Equal(t, float64(ann), got["user_id"])
	assert.Nil(t, got["expires_at"])
	assert.Equal(t, true, got["is_active"])
	assert.Equal(t, 302.0, got["redirect_status"])

	// There is nothing left to put back, and fields that are as they were are not asked about.
	done = w.post(link+"/put-back", forms[1])
	require.Equal(t, 303, done.status)
	assert.Contains(t, string(w.get(done.header.Get("Location")).raw), "is put back already")
	change(object{"tags": []string{"other"}})
	asked = w.post(link+"/put-back", forms[1])
	assert.Equal(t, 409, asked.status)
	assert.Contains(t, string(asked.raw), "<dt>tags</dt>")
	assert.NotContains(t, string(asked.raw), "<dt>title</dt>")
	change(object{"tags": []string{"sale"}, "title": "third"})
	change(object{"title": "first"})

	// That is a change too: put back at once, without a question.
	require.Equal(t, 303, w.post(link+"/put-back", putBacks(w.get(link).raw)[0]).status)
	assert.Equal(t, "third", b.want(200, RoleReader, "GET", path, nil).body["title"])
}

func TestPutBackThatCannotBe(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": b.user("ann"), "original_url": "https://example.com/a", "short_code": "spring"}).id()
	path, link := service.Link{ID: id}.Path(), appLink(id)
	b.want(200, RoleEditor, "PATCH", path, object{"short_code": "summer"})
	b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": b.user("ben"), "original_url": "https://example.com/b", "short_code": "spring"})
	w := b.signedIn(RoleEditor)
	form := putBacks(w.get(link).raw)[0]
	a := w.post(link+"/put-back", form)
	assert.Equal(t, 409, a.status)
	assert.Contains(t, string(a.raw), "short_code is taken")

	// A change of another link, none, and one of a file with anything in it.
	other := appLink(id + 1)
	assert.Equal(t, 404, w.post(other+"/put-back", form).status)
	assert.Equal(t, 404, w.post(link+"/put-back", nil).status)
	assert.Equal(t, 404, w.post(link+"/put-back", url.Values{"at": form["at"], "event": {"1"}}).status)
	b.exec(`INSERT INTO events (id, occurred_at, url_id, event_type, details) VALUES
		(900001, now(), $1, 'updated', '{"changes": {"title": {"old": [{"a": 1}], "new": true}, "tags": {"old": ["a,b"], "new": 7}, "expires_at": {"old": "soon"}}, "by": {"name": "<b>x"}}'),
		(900002, now(), $1, 'updated', '{"changes": "all", "by": 7}'), (900003, now(), $1, 'created', '[]'), (900004, now(), $1, 'updated', NULL)`, id)
	page := w.get(link)
	assert.Equal(t, 200, page.status)
	assert.Contains(t, string(page.raw), "&lt;b&gt;x")
	forms := putBacks(page.raw)
	require.NotEmpty(t, forms)
	asked := w.post(link+"/put-back", forms[0])
	require.Equal(t, 409, asked.status)
	a = w.post(link+"/put-back", putBacks(asked.raw)[0])
	assert.Equal(t, 400, a.status)
	assert.Contains(t, string(a.raw), "title must be a string")
	assert.Equal(t, 409, w.post(link+"/put-back", url.Values{"at": forms[0]["at"], "event": {"900002"}}).status)
}

func TestHistoryByPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": b.user("ann"), "original_url": "https://example.com/a"}).id()
	for i := range 30 {
		b.want(200, RoleEditor, "PATCH", service.Link{ID: id}.Path(), object{"title": strings.Repeat("x", i+1)})
	}
	w := b.signedIn(RoleReader)
	assert.Equal(t, 5, strings.Count(string(w.get(appLink(id)).raw), "changed it"))
	first := string(w.get(appLink(id) + "/history").raw)
	assert.Equal(t, 25, strings.Count(first, "changed it"))
	assert.NotContains(t, first, "Nothing older is here")
	_, older, found := strings.Cut(first, `<a class="button quiet" href="`)
	require.True(t, found)
	older, _, _ = strings.Cut(older, `"`)
	second := string(w.get(html.UnescapeString(older)).raw)
	assert.Equal(t, 5, strings.Count(second, "changed it"))
	assert.Equal(t, 1, strings.Count(second, "made it"))
	assert.Contains(t, second, "Nothing older is here")
	assert.Equal(t, 404, w.get(appLink(id+1)+"/history").status)
}
