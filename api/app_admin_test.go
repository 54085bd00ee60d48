package api

import (
	"fmt"
	"html"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/service"
)

// text returns a page with its references resolved.
func (a answer) text() string { return html.UnescapeString(string(a.raw)) }

func TestUsersInTheDashboard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.signedIn(RoleAdmin)
	assert.Contains(t, w.get("/app/users").text(), "No users yet")
	wrong := w.post("/app/users/new", url.Values{"username": {""}, "email": {"nowhere"}})
	assert.Equal(t, 400, wrong.status)
	assert.Contains(t, wrong.text(), `id="username-fault">is required`)
	assert.Contains(t, wrong.text(), `id="email-fault"`)
	assert.Contains(t, wrong.text(), `value="nowhere"`)
	made := w.post("/app/users/new", url.Values{"username": {"ann"}, "email": {"ann@example.com"}})
	require.Equal(t, "/app/users?done=user-made", made.header.Get("Location"))
	key := regexp.MustCompile(`name="key" value="([^"]+)"`).FindStringSubmatch(w.get("/app/users/new").text())[1]
	for range 2 { // as by a double click
		twice := w.post("/app/users/new", url.Values{"username": {"bob"}, "email": {"bob@example.com"}, "key": {key}})
		require.Equal(t, "/app/users?done=user-made", twice.header.Get("Location"), twice.text())
	}
	b.exec("DELETE FROM users WHERE username = 'bob'")
	assert.Equal(t, 409, w.post("/app/users/new", url.Values{"username": {"Ann"}, "email": {"other@example.com"}}).status)
	id := b.count("SELECT id FROM users")
	page := w.get("/app/users").text()
	assert.Contains(t, page, "ann@example.com")
	assert.Contains(t, page, fmt.Sprintf("/app/links?user_id=%d", id))

	// A field that nobody has touched is left alone, also if it is another one by now.
	path := userPathOf(id)
	assert.Contains(t, w.get(path+"/edit").text(), `name="shown_email" value="ann@example.com"`)
	b.exec("UPDATE users SET email = 'ann@example.org'")
	require.Equal(t, 303, w.post(path+"/edit", url.Values{"username": {"anna"}, "shown_username": {"ann"}, "email": {"ann@example.com"}, "shown_email": {"ann@example.com"}}).status)
	b.wantCount(1, "SELECT count(*) FROM users WHERE username = 'anna' AND email = 'ann@example.org'")
	assert.Equal(t, 400, w.post(path+"/edit", url.Values{"username": {""}, "shown_username": {"anna"}}).status)

	link := b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": id, "original_url": "https://example.com/"}).id()
	refused := w.post(path+"/delete", nil)
	assert.Equal(t, 409, refused.status)
	assert.Contains(t, refused.text(), "The user still owns links.")
	b.want(204, RoleAdmin, "DELETE", fmt.Sprintf("/urls/%d", link), nil)
	assert.Equal(t, 303, w.post(path+"/delete", nil).status)
	assert.Equal(t, 404, w.get(path+"/edit").status)

	for n := range 60 {
		b.user(fmt.Sprintf("user%02d", n))
	}
	next := regexp.MustCompile(`/app/users\?after=\d+`).FindString(w.get("/app/users").text())
	second := w.get(next).text()
	assert.Contains(t, second, "user59")
	assert.NotContains(t, second, "user49")
	assert.NotContains(t, second, "after=")
	assert.Equal(t, 61, strings.Count(string(w.get("/app/users/export?format=csv").raw), "\n"))
	assert.NotContains(t, b.signedIn(RoleReader).get("/app/users").text(), "/app/users/new")

	next = html.UnescapeString(regexp.MustCompile(`/app/users\?after=\d+[^"]*`).FindString(string(w.get("/app/users?q=USER&done=changed").raw)))
	assert.Regexp(t, `^/app/users\?after=\d+&q=USER$`, next)
	second = w.get(next).text()
	assert.Contains(t, second, "user59")
	assert.Contains(t, second, `href="/app/users?q=USER"`)
	found := w.get("/app/users?q=user1").text()
	assert.Equal(t, 10, strings.Count(found, `class="name"`))
	assert.Contains(t, found, `value="user1"`)
	assert.Contains(t, found, `href="/app/users/export?format=csv&q=user1"`)
	assert.Equal(t, 11, strings.Count(string(w.get("/app/users/export?format=csv&q=user1").raw), "\n"))
	assert.Contains(t, w.get("/app/users?q=nobody").text(), "No user fits")
	for _, path := range []string{"/app/users?q=ab", "/app/users/export?format=csv&q=ab"} {
		a := w.get(path)
		assert.Equal(t, 400, a.status)
		assert.Contains(t, a.text(), "at least three letters")
	}
	assert.Contains(t, w.get("/app/users?q=ab").text(), `id="q-fault"`)
	b.api.service.Reach = service.Reach{First: 1, Long: 20, Timeout: time.Minute}
	far := w.get("/app/users?q=user59")
	assert.Contains(t, far.text(), "searched so far")
	next = html.UnescapeString(regexp.MustCompile(`/app/users\?after=\d+[^"]*`).FindString(string(far.raw)))
	assert.Contains(t, w.get(next).text(), "Search on")
}

func userPathOf(id int64) string { return fmt.Sprintf("/app/users/%d", id) }

func TestDomainsInTheDashboard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.signedIn(RoleAdmin)
	assert.Contains(t, w.get("/app/domains").text(), "sign.example")
	wrong := w.post("/app/domains/new", url.Values{"host": {"sign.example"}, "root_url": {"nonsense"}})
	assert.Equal(t, 400, wrong.status)
	assert.Contains(t, wrong.text(), `id="host-fault"`)
	assert.Contains(t, wrong.text(), `id="root_url-fault"`)
	require.Equal(t, 303, w.post("/app/domains/new", url.Values{"host": {"go.example"}, "root_url": {"https://example.com/"}, "not_found_url": {""}, "expired_url": {""}}).status)
	assert.Contains(t, w.get("/app/domains").text(), "bare host → https://example.com/")
	form := w.get("/app/domains/2/edit").text()
	assert.Contains(t, form, `value="https://example.com/"`)
	assert.Contains(t, form, "CNAME")
	require.Equal(t, 303, w.post("/app/domains/2/edit", url.Values{
		"host": {"go.example"}, "shown_host": {"go.example"}, "root_url": {""}, "shown_root_url": {"https://example.com/"}, "expired_url": {"https://example.com/over"}, "shown_expired_url": {""},
	}).status)
	b.wantCount(1, "SELECT count(*) FROM domains WHERE host = 'go.example' AND root_url IS NULL AND not_found_url IS NULL AND expired_url = 'https://example.com/over'")

	// The host of the main domain is no field.
	assert.NotContains(t, w.get("/app/domains/1/edit").text(), `name="host"`)
	require.Equal(t, 303, w.post("/app/domains/1/edit", url.Values{"root_url": {"https://example.com/"}, "shown_root_url": {""}}).status)
	assert.Equal(t, 409, w.post("/app/domains/1/delete", nil).status)
	assert.Equal(t, 303, w.post("/app/domains/2/delete", nil).status)
	assert.Equal(t, 404, w.get("/app/domains/2/delete").status)
}

func TestTokensInTheDashboard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.signedIn(RoleAdmin)
	wrong := w.post("/app/tokens/new", url.Values{"name": {"  "}, "role": {"king"}, "expires_at": {"2001-01-01T00:00"}})
	assert.Equal(t, 400, wrong.status)
	for _, name := range []string{"name", "role", "expires_at"} {
		assert.Contains(t, wrong.text(), `id="`+name+`-fault"`)
	}
	key := regexp.MustCompile(`name="key" value="([^"]+)"`).FindStringSubmatch(w.get("/app/tokens/new").text())[1]
	form := url.Values{"name": {"<script>"}, "role": {"editor"}, "expires_at": {time.Now().AddDate(1, 0, 0).Format("2006-01-02T15:04")}, "key": {key}}
	made := w.post("/app/tokens/new", form)
	require.Equal(t, 201, made.status)
	secret := regexp.MustCompile(`sp_[0-9A-Za-z]{43}`).FindString(made.text())
	assert.Contains(t, made.text(), `curl -H "Authorization: Bearer `+secret+`" https://sign.example/urls`)
	assert.NotContains(t, string(made.raw), "<script>")
	assert.Equal(t, "no-store", made.header.Get("Cache-Control"))
	b.want(200, 0, "GET", "/urls", nil, "Authorization", "Bearer "+secret)
	again := w.post("/app/tokens/new", form)
	require.Equal(t, 201, again.status)
	assert.Contains(t, again.text(), "This form was sent before")
	assert.NotContains(t, again.text(), "sp_")
	assert.EqualValues(t, 1, b.count("SELECT count(*) FROM api_tokens WHERE name = '<script>'"))
	list := w.get("/app/tokens").text()
	assert.NotContains(t, list, secret)
	assert.Equal(t, 1, strings.Count(list, ">yours<"))

	id := b.count("SELECT max(id) FROM api_tokens")
	path := fmt.Sprintf("/app/tokens/%d/revoke", id)
	assert.NotContains(t, w.get(path).text(), "you will be signed out")
	require.Equal(t, 303, w.post(path, nil).status)
	b.want(401, 0, "GET", "/urls", nil, "Authorization", "Bearer "+secret)
	assert.Contains(t, w.get("/app/tokens").text(), ">revoked<")
	assert.Equal(t, 404, w.post("/app/tokens/1099511627776/revoke", nil).status)

	own := fmt.Sprintf("/app/tokens/%d/revoke", b.count("SELECT id FROM api_tokens WHERE role = 'admin'"))
	assert.Contains(t, w.get(own).text(), "you will be signed out")
	require.Equal(t, 303, w.post(own, nil).status)
	assert.Contains(t, w.get("/app/tokens").header.Get("Location"), "/app/sign-in")
}

func TestMarksInTheDashboard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.signedIn(RoleAdmin)
	wrong := w.post("/app/marks/new", url.Values{"network": {"here"}, "user_agent": {""}, "kind": {"monitor"}})
	assert.Equal(t, 400, wrong.status)
	assert.Contains(t, wrong.text(), `id="network-fault"`)
	require.Equal(t, 303, w.post("/app/marks/new", url.Values{"network": {"192.0.2.0/24"}, "user_agent": {""}, "kind": {"monitor"}}).status)
	assert.Equal(t, 409, w.post("/app/marks/new", url.Values{"network": {"192.0.2.0/24"}, "kind": {"bot"}}).status)
	assert.Contains(t, w.get("/app/marks").text(), "192.0.2.0/24")
	require.Equal(t, 303, w.post(fmt.Sprintf("/app/marks/%d/delete", b.count("SELECT id FROM marks")), nil).status)
	b.wantCount(0, "SELECT count(*) FROM marks")
}

func TestEventsInTheDashboard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.signedIn(RoleReader)
	assert.Contains(t, w.get("/app/events").text(), "Nothing has happened yet")
	user := b.user("ann")
	link := b.want(201, RoleEditor, "POST", "/urls", object{"user_id": user, "original_url": "https://example.com/", "short_code": "spring"}).id()
	for n := range 60 {
		b.want(200, RoleEditor, "PATCH", fmt.Sprintf("/urls/%d", link), object{"title": fmt.Sprintf("title %d", n)})
	}
	b.exec(`INSERT INTO events (url_id, user_id, event_type, occurred_at, details) VALUES ($1, $2, 'updated', now(), '["anything", {"<b>": 1}]')`, link, user)
	page := w.get("/app/events").text()
	assert.Contains(t, page, "<del>title 58</del> <span aria-hidden=\"true\">→</span> <ins>title 59</ins>")
	assert.Contains(t, page, "by editor of the test")
	assert.NotContains(t, string(w.get("/app/events").raw), "<b>\"")
	next := html.UnescapeString(regexp.MustCompile(`href="(/app/events\?at=[^"]+)" rel="next"`).FindStringSubmatch(string(w.get("/app/events").raw))[1])
	older := w.get(next).text()
	assert.Equal(t, 50, strings.Count(page, "<details><summary>Details"))
	assert.Equal(t, 13, strings.Count(older, "<details><summary>Details"), "63 in all")

	created := w.get("/app/events?event_type=created&url_id=" + fmt.Sprint(link)).text()
	assert.Equal(t, 1, strings.Count(created, "<details><summary>Details"))
	assert.Equal(t, 0, strings.Count(w.get("/app/events?to=2001-01-01T00:00").text(), "<details><summary>Details"))
	assert.Contains(t, w.get("/app/events?order=oldest").text(), ">created<")
	wrong := w.get("/app/events?event_type=eaten&url_id=x&user_id=-1&from=soon")
	assert.Equal(t, 400, wrong.status)
	for _, name := range []string{"event_type", "url_id", "user_id", "from"} {
		assert.Contains(t, wrong.text(), `id="`+name+`-fault"`)
	}

	file := w.get("/app/events/export?format=csv&event_type=created")
	assert.Equal(t, 200, file.status)
	assert.Equal(t, 3, strings.Count(string(file.raw), "\n"), "a head and two rows: %s", file.raw)
	assert.Contains(t, file.header.Get("Content-Disposition"), ".csv")
	assert.Equal(t, 400, w.get("/app/events/export?format=exe").status)
	assert.Equal(t, 400, w.get("/app/events/export?format=csv&url_id=x").status)
	assert.Equal(t, 303, b.browser().get("/app/events/export?format=csv").status)
}

func TestSystemInTheDashboard(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) { o.About.JobsURL, o.About.GrafanaURL = "http://jobs.example/", "" })
	w := b.signedIn(RoleAdmin)
	page := w.get("/app/system").text()
	assert.Contains(t, page, "No worker runs")
	assert.Contains(t, page, "http://jobs.example/")
	assert.NotContains(t, page, "Grafana")
	b.exec("INSERT INTO workers (id, host, version, queues) VALUES ('a', 'worker-1', '1', '{clicks=2}')")
	b.exec("INSERT INTO click_batches (id, payload, clicks, oldest_at, failed_at, failure) VALUES ('bad', 'x', 5, now(), now(), 'it is broken')")
	page = w.get("/app/system").text()
	assert.NotContains(t, page, "No worker runs")
	assert.Contains(t, page, "it is broken")
	assert.Contains(t, w.get("/app/system/drop?batch=bad").text(), `name="batch" value="bad"`)
	require.Equal(t, 303, w.post("/app/system/retry", url.Values{"batch": {"bad"}}).status)
	assert.Equal(t, 404, w.post("/app/system/retry", url.Values{"batch": {"bad"}}).status)
	b.exec("UPDATE click_batches SET failed_at = now(), failure = 'again'")
	require.Equal(t, 303, w.post("/app/system/drop", url.Values{"batch": {"bad"}}).status)
	b.wantCount(1, "SELECT count(*) FROM click_batches WHERE payload IS NULL")

	b.exec("DROP TABLE workers")
	page = w.get("/app/system").text()
	assert.Contains(t, page, "Not known: It could not be read.")
	assert.NotContains(t, page, "No worker runs")
	assert.Contains(t, page, "connections")
}
