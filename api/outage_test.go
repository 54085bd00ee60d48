package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

// worksAlone are routes that work without the database, since they do not need it.
var worksAlone = []string{"/", "/robots.txt", "/favicon.ico", "/apple-touch-icon.png", "/apple-touch-icon:size.png", "/health", "/openapi.json", "/docs", "/docs/:file"}

// body returns a body that the route accepts, so that only the database can refuse it.
func (s served) body() any {
	switch s.pattern {
	case "/users":
		return object{"username": "new", "email": "new@example.com"}
	case "/users/:id":
		return object{"username": "newer"}
	case "/urls":
		return object{"user_id": 1, "original_url": "https://example.com"}
	case "/urls/:id":
		return object{"title": "x"}
	case "/urls/bulk":
		switch s.method {
		case http.MethodPost:
			return []object{{"user_id": 1, "original_url": "https://example.com"}}
		case http.MethodDelete:
			return object{"ids": []int{1}}
		}
		return object{"ids": []int{1}, "is_active": false}
	case "/tags/:name":
		return object{"color": "red"}
	case "/domains":
		return object{"host": "go.example"}
	case "/domains/:id":
		return object{"root_url": "https://example.com/"}
	case "/marks":
		return object{"network": "192.0.2.0/24", "kind": "monitor"}
	case "/tokens":
		return object{"name": "new", "role": "reader"}
	case "/imports/preview":
		return "original_url\nhttps://example.com/\n"
	case "/imports", "/users/bulk":
		return "username,email\nx,x@example.com\n"
	}
	return nil
}

func (b *bundle) ask(s served, role Role) (answer, error) {
	path := s.path(2) // the main domain, 1, is refused without asking the database
	header := []string{}
	switch s.pattern {
	case "/imports/preview":
		path += "?user_id=1"
		header = append(header, "Content-Type", "text/csv")
	case "/imports":
		path += "?kind=users"
		fallthrough
	case "/users/bulk":
		header = append(header, "Content-Type", "text/csv")
	}
	if s.method == http.MethodGet || s.method == http.MethodHead {
		return b.try(role, s.method, path, nil)
	}
	return b.try(role, s.method, path, s.body(), header...)
}

// checkOutage sends a request to every route, all at once, while the database is away.
// Each must get the answer that is right for it, within the deadline.
func (b *bundle) checkOutage(what string) {
	b.t.Helper()
	b.eventually(503, "/ready") // the outcome of a check is kept for a moment
	var wg sync.WaitGroup
	for _, s := range b.served() {
		for _, role := range []Role{RoleAdmin, RoleReader} { // the admin's token needs no database
			wg.Go(func() {
				a, err := b.ask(s, role)
				if err != nil {
					b.t.Errorf("%s: %s %s: %v", what, s.method, s.pattern, err)
					return
				}
				want := 503
				for _, pattern := range worksAlone {
					if s.pattern == pattern {
						want = 200
					}
				}
				if s.pattern == "/admin/system" && role == RoleAdmin && a.status == 200 {
					want = 200 // it says what it cannot know, if there is a place for it
				}
				if s.pattern == "/.well-known/security.txt" {
					want = 404 // it does not need the database, and no contact is set
				}
				if a.status != want {
					b.t.Errorf("%s: %s %s as %s: %d %s, want %d", what, s.method, s.pattern, role, a.status, a.raw, want)
				}
				if want == 503 && s.method != http.MethodHead {
					checkShape(b.t, what+": "+s.method+" "+s.pattern, a)
				}
				if s.pattern == "/health" && s.method == http.MethodGet && string(a.raw) != `{"status":"ok","db":"disconnected"}` {
					b.t.Errorf("%s: health says %s", what, a.raw)
				}
			})
		}
	}
	wg.Wait()
}

// recover polls until reading and writing work again.
func (b *bundle) recover(what, name string) {
	b.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		a, err := b.try(RoleAdmin, "POST", "/users", object{"username": name, "email": name + "@example.com"})
		// 409 means that an earlier try was committed, and its answer was lost.
		if err == nil && (a.status == 201 || a.status == 409) {
			break
		}
		if err != nil || a.status != 503 {
			b.t.Fatalf("%s: %d %s, %v", what, a.status, a.raw, err)
		}
	}
	for path, status := range map[string]int{"/users": 200, "/urls/1": 200, "/events": 200, "/ready": 200, "/health": 200} {
		b.eventually(status, path)
	}
	if a := b.want(200, 0, "GET", "/health", nil); a.body["db"] != "connected" {
		b.t.Errorf("%s: health says %s", what, a.raw)
	}
	// Tokens of the database are found again.
	b.want(200, RoleReader, "GET", "/users", nil)
}

// eventually polls a path until it is answered with status.
func (b *bundle) eventually(status int, path string) {
	b.t.Helper()
	var a answer
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if a = b.do(RoleAdmin, "GET", path, nil); a.status == status {
			return
		}
	}
	b.t.Fatalf("GET %s: still %d %s", path, a.status, a.raw)
}

func TestPostgresStops(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	b := setupOn(t, pgtest.Open(t, pgtest.Migrated(t, cluster)))
	_, b.tokens[RoleReader] = createToken(t, b.pool, "reader", RoleReader)
	b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": b.user("ann"), "original_url": "https://example.com"})

	require.NoError(t, cluster.Stop(t.Context()))
	b.checkOutage("stopped")
	require.NoError(t, cluster.Start(t.Context()))
	b.recover("after a stop", "bob")

	// A server that hangs holds up nobody for longer than the deadline.
	require.NoError(t, cluster.Pause())
	start := time.Now()
	b.checkOutage("paused")
	if took := time.Since(start); took > 4*requestTimeout {
		t.Errorf("all routes took %v while the database hung", took)
	}
	require.NoError(t, cluster.Resume())
	b.recover("after a pause", "cyd")

	cluster.Kill()
	b.checkOutage("killed")
	require.NoError(t, cluster.Start(t.Context()))
	b.recover("after a kill", "dan")
}

// A form that cannot be carried out while the database is away comes back with all that was
// sent, and is carried out once when it is sent again, however often that is done.
func TestFormsOutliveAnOutage(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	b := setupOn(t, pgtest.Open(t, pgtest.Migrated(t, cluster)))
	_, b.tokens[RoleEditor] = createToken(t, b.pool, "editor", RoleEditor)
	ann := b.user("ann")
	w := b.signedIn(RoleEditor)
	const path = "/app/links/paste"
	form := hiddenOf(w.get(path).raw, path)
	form.Set("lines", strings.Repeat("https://example.com/?q=\"><script>alert('1')</script>+&amp;\r\n", 99))
	form["user_id"], form["tags"], form["step"] = []string{strconv.FormatInt(ann, 10)}, []string{""}, []string{"make"}
	require.Greater(t, len(form.Encode()), heldLeast)

	require.NoError(t, cluster.Stop(t.Context()))
	a := w.post(path, form)
	require.Equal(t, 503, a.status, "%s", a.raw)
	assert.Equal(t, form, hiddenOf(a.raw, path), "also its key")
	assert.Contains(t, string(a.raw), "The database cannot be reached")
	assert.NotContains(t, string(a.raw), "<script>alert")
	assert.Equal(t, appPolicy, a.header.Get("Content-Security-Policy"))
	const again = "Try again</button>"
	assert.Contains(t, string(w.post("/app/links/1/delete", nil).raw), again, "it has no fields")
	const ofTag = "/app/tags/edit?tag=a%26b"
	assert.Equal(t, "sale", hiddenOf(w.post(ofTag, url.Values{"name": {"sale"}}).raw, ofTag).Get("name"), "its address says what it is about")
	stranger := &browser{b: b, cookie: "__Host-signpost=AAAAAAAAAAAAAAAAAAAAAAAAAA", header: w.header}
	assert.NotContains(t, string(stranger.post(path, form).raw), again, "nothing is given back to somebody who may have no session")
	assert.NotContains(t, string(stranger.post("/app/links/1/delete", nil).raw), again, "nor is anything else")
	assert.NotContains(t, string(w.post(path, url.Values{"a": make([]string, maxAgainFields+1)}).raw), again, "it has too many fields")
	secret := b.tokens[RoleEditor]
	a = b.browser().post("/app/sign-in", url.Values{"token": {secret}})
	assert.Equal(t, 503, a.status)
	assert.NotContains(t, string(a.raw), secret)
	large := url.Values{"lines": {strings.Repeat("x", maxAgain)}}
	assert.NotContains(t, string(w.post(path, large).raw), again)

	require.NoError(t, cluster.Start(t.Context()))
	b.eventually(200, "/ready")
	b.until("it is carried out", func() bool { return w.post(path, form).status == 200 })
	b.wantCount(99, "SELECT count(*) FROM urls")
	assert.Contains(t, string(w.post(path, form).raw), "99 links are made")
	b.wantCount(99, "SELECT count(*) FROM urls")
}

// An API that is started while the database is away answers, and works as soon as the
// database is there.
func TestStartWithoutPostgres(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	url := pgtest.Migrated(t, cluster)
	require.NoError(t, cluster.Stop(t.Context()))
	b := setupOn(t, pgtest.Open(t, url))
	a := b.want(503, 0, "GET", "/ready", nil)
	if a.body["error"] != "not ready: the database cannot be reached" {
		t.Errorf("ready says %s", a.raw)
	}
	b.want(503, RoleAdmin, "GET", "/users", nil)
	require.NoError(t, cluster.Start(t.Context()))
	b.eventually(200, "/users")
	b.eventually(200, "/ready")
}

func TestReadyNamesAnOlderSchema(t *testing.T) {
	t.Parallel()
	b := setupOn(t, pgtest.Open(t, pgtest.Empty(t)))
	var schema *postgres.SchemaError
	if err := postgres.CheckSchema(t.Context(), b.pool); !errors.As(err, &schema) {
		t.Fatalf("an empty database has %v", err)
	}
	if a := b.want(503, 0, "GET", "/ready", nil); a.body["error"] != "not ready: "+schema.Error() {
		t.Errorf("ready says %s", a.raw)
	}
	if a := b.want(200, 0, "GET", "/health", nil); a.body["db"] != "connected" {
		t.Errorf("health says %s", a.raw)
	}
}

func TestNotReadyWhileShuttingDown(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(200, 0, "GET", "/ready", nil)
	b.api.draining.Store(true)
	if a := b.want(503, 0, "GET", "/ready", nil); a.body["error"] != "not ready: shutting down" {
		t.Errorf("ready says %s", a.raw)
	}
}

// A load balancer that watches /ready is served until it can know of the shutdown.
func TestShutdownWaitsForWhoWatches(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(200, 0, "GET", "/ready", nil)
	began := time.Now()
	if asked := time.Unix(0, b.api.watched.Load()); began.Sub(asked) > time.Minute {
		t.Errorf("/ready was asked at %v", asked)
	}
	b.api.watched.Store(began.UnixNano()) // however long that took
	assert.NoError(t, b.api.Shutdown(t.Context()), "shutdown")
	if took := time.Since(began); took < noticeWithin {
		t.Errorf("closed after %v", took)
	}
}

func TestLetNotice(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		asked, left, want time.Duration // asked: how long before the shutdown; left: how long until its end
	}{
		"never asked":     {left: time.Minute},
		"asked long ago":  {asked: noticeWithin + 1, left: time.Minute},
		"asked lately":    {asked: noticeWithin, left: time.Minute, want: noticeWithin},
		"little time":     {asked: 1, left: time.Second, want: time.Second / 2},
		"no time is left": {asked: 1, left: -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), test.left)
				defer cancel()
				var a API
				began := time.Now()
				if test.asked > 0 {
					a.watched.Store(began.Add(-test.asked).UnixNano())
				}
				a.letNotice(ctx)
				if took := time.Since(began); took != test.want {
					t.Errorf("waited %v, want %v", took, test.want)
				}
			})
		})
	}
}

// Probes that come at once share one check.
func TestProbeIsShared(t *testing.T) {
	t.Parallel()
	checks := 0
	p := newProbe(func(ctx context.Context) error {
		checks++ // under the probe's lock
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("a check has no deadline")
		}
		return errDatabase
	})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if err := p.run(); !errors.Is(err, errDatabase) {
				t.Errorf("the outcome is %v", err)
			}
		})
	}
	wg.Wait()
	if checks < 1 || checks > 10 {
		t.Errorf("%d checks for 50 probes", checks)
	}
}
