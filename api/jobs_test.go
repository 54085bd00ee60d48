package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/pgtest"
)

// operator is a person who uses the jobs page.
type operator struct {
	b   *bundle
	ui  *JobsUI
	url string
}

func (b *bundle) operator() *operator {
	b.t.Helper()
	ui := b.api.NewJobsUI()
	server := httptest.NewServer(NewOperators(b.api.Tokens, "127.0.0.1:9090", nil, b.api.Log).Only(ui))
	b.t.Cleanup(func() {
		server.Close()
		assert.NoError(b.t, ui.Stop(b.t.Context()))
	})
	return &operator{b, ui, server.URL}
}

// want sends a request with a password ("" means none). It fails the test unless the
// answer has this status, and the shape of errors if it is an error of the API.
func (o *operator) want(status int, password, method, path, body string, header ...string) answer {
	o.b.t.Helper()
	req, err := http.NewRequestWithContext(o.b.t.Context(), method, o.url+path, strings.NewReader(body))
	if err != nil {
		o.b.t.Fatal(err)
	}
	if password != "" {
		req.SetBasicAuth("anyone", password)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := noRedirects.Do(req)
	if err != nil {
		o.b.t.Fatal(err)
	}
	a, err := answerOf(resp)
	if err != nil {
		o.b.t.Fatal(err)
	}
	if a.status != status {
		o.b.t.Fatalf("%s %s: got %d %s, want %d", method, path, a.status, a.raw, status)
	}
	if status >= 400 {
		if a.body["message"] != a.body["error"] {
			o.b.t.Errorf("%s %s: the page would not show %s", method, path, a.raw)
		}
		delete(a.body, "message") // an extra for the page; the rest has the shape of every error
		checkShape(o.b.t, method+" "+path, a)
	}
	return a
}

func (o *operator) job(args river.JobArgs, opts *river.InsertOpts) *rivertype.JobRow {
	o.b.t.Helper()
	res, err := o.b.api.River.Insert(o.b.t.Context(), args, opts)
	if err != nil {
		o.b.t.Fatal(err)
	}
	return res.Job
}

func (o *operator) state(id int64) (state string) {
	o.b.t.Helper()
	if err := o.b.pool.QueryRow(o.b.t.Context(), "SELECT state FROM river_job WHERE id = $1", id).Scan(&state); err != nil {
		o.b.t.Fatal(err)
	}
	return state
}

func TestJobsNeedAnAdmin(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.operator()
	for _, path := range []string{"/jobs", "/jobs/", "/jobs/api/jobs", "/jobs/favicon.ico"} {
		b.api.Tokens.limiter = newLimiter()
		if a := o.want(401, "", "GET", path, ""); !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s does not make a browser ask: %v", path, a.header)
		}
		o.want(401, "wrong", "GET", path, "")
		o.want(401, newSecret(), "GET", path, "")
		o.want(403, b.tokens[RoleReader], "GET", path, "")
		o.want(403, b.tokens[RoleEditor], "GET", path, "")
		o.want(403, "", "GET", path, "", "Authorization", "Bearer "+b.tokens[RoleEditor])
	}
	for _, password := range []string{testAdminToken, b.tokens[RoleAdmin]} {
		if a := o.want(301, password, "GET", "/jobs", ""); a.header.Get("Location") != "/jobs/" {
			t.Errorf("/jobs leads to %s", a.header.Get("Location"))
		}
		o.want(200, "", "GET", "/jobs/", "", "Authorization", "Bearer "+password)
		page := string(o.want(200, password, "GET", "/jobs/", "").raw)
		_, script, found := strings.Cut(page, `<script type="module" src="`)
		script, _, _ = strings.Cut(script, `"`)
		if !found || !strings.HasPrefix(script, "/jobs/") {
			t.Fatalf("the page has no script: %s", page)
		}
		if a := o.want(200, password, "GET", script, ""); !strings.Contains(a.header.Get("Content-Type"), "javascript") {
			t.Errorf("%s is %s", script, a.header.Get("Content-Type"))
		}
		o.want(200, password, "GET", "/jobs/api/states", "")
		o.want(404, password, "GET", "/jobs/api/jobs/123456", "")
	}
}

func TestGuessesAtTheJobsAreSlowedDown(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.operator()
	o.want(200, b.tokens[RoleAdmin], "GET", "/jobs/", "")
	for range failuresAtOnce {
		o.want(401, "guess", "GET", "/jobs/", "")
	}
	o.want(429, "guess", "GET", "/jobs/", "")
	o.want(429, testAdminToken, "GET", "/jobs/", "") // even the right token is answered in the same way
	o.want(200, b.tokens[RoleAdmin], "GET", "/jobs/", "")
	// The allowance is shared with the API, whichever port is tried.
	b.want(429, 0, "GET", "/users", nil, "Authorization", "Bearer guess")
}

func TestJobsAreManaged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.operator()
	admin := b.tokens[RoleAdmin]
	later := o.job(jobs.RecordClicks{BatchID: "a"}, &river.InsertOpts{ScheduledAt: time.Now().Add(time.Hour)})
	ids := fmt.Sprintf(`{"ids":["%d"]}`, later.ID)

	o.want(200, admin, "POST", "/jobs/api/jobs/retry", ids)
	if got := o.state(later.ID); got != "available" {
		t.Errorf("a job that was retried is %s", got)
	}
	o.want(200, admin, "POST", "/jobs/api/jobs/cancel", ids)
	if got := o.state(later.ID); got != "cancelled" {
		t.Errorf("a job that was cancelled is %s", got)
	}
	var list struct {
		Data []struct{ Kind, State string }
	}
	require.NoError(t, json.Unmarshal(o.want(200, admin, "GET", "/jobs/api/jobs?state=cancelled", "").raw, &list))
	if len(list.Data) != 1 || list.Data[0].Kind != "record_clicks" || list.Data[0].State != "cancelled" {
		t.Errorf("the list of cancelled jobs: %+v", list)
	}

	// A worker makes the row of a queue.
	b.exec("INSERT INTO river_queue (name, metadata, updated_at) VALUES ('clicks', '{}', now())")
	for path, want := range map[string]bool{"pause": true, "resume": false} {
		o.want(200, admin, "PUT", "/jobs/api/queues/clicks/"+path, "{}")
		var paused bool
		if err := b.pool.QueryRow(t.Context(), "SELECT paused_at IS NOT NULL FROM river_queue WHERE name = 'clicks'").Scan(&paused); err != nil || paused != want {
			t.Errorf("after %s: paused = %v, %v", path, paused, err)
		}
	}
	o.want(400, admin, "POST", "/jobs/api/jobs/retry", `{"ids":"x"}`)
	o.want(413, admin, "POST", "/jobs/api/jobs/retry", `{"ids":["`+strings.Repeat("1", maxBody)+`"]}`)
	if log := b.log.String(); !strings.Contains(log, `"jobs were managed"`) || !strings.Contains(log, `"by":"admin of the test"`) {
		t.Error("who managed jobs is not logged")
	}
}

// A browser also sends the password with requests that another page makes.
func TestJobsTakeNoWritesFromOtherSites(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.operator()
	job := o.job(jobs.Reenqueue{}, nil)
	ids := fmt.Sprintf(`{"ids":["%d"]}`, job.ID)
	for _, header := range [][]string{
		{"Origin", "https://evil.example"},
		{"Origin", "null"},
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Sec-Fetch-Site", "cross-site", "Origin", o.url},
	} {
		o.want(403, testAdminToken, "POST", "/jobs/api/jobs/cancel", ids, header...)
		o.want(403, testAdminToken, "PUT", "/jobs/api/queues/clicks/pause", "{}", header...)
	}
	if got := o.state(job.ID); got != "available" {
		t.Errorf("the job is %s", got)
	}
	o.want(200, testAdminToken, "POST", "/jobs/api/jobs/cancel", ids, "Sec-Fetch-Site", "same-origin", "Origin", o.url)
	if got := o.state(job.ID); got != "cancelled" {
		t.Errorf("the job is %s", got)
	}
}

func TestJobsWithoutPostgres(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	b := setupOn(t, pgtest.Open(t, pgtest.Migrated(t, cluster)))
	o := b.operator()
	o.want(200, testAdminToken, "GET", "/jobs/api/jobs", "")
	cluster.Kill()
	// At first a token that was known a moment ago lets a request through to River UI.
	o.want(503, testAdminToken, "GET", "/jobs/api/jobs", "")
	b.eventually(503, "/ready")
	o.want(503, testAdminToken, "GET", "/jobs/api/jobs", "")
	o.want(503, testAdminToken, "POST", "/jobs/api/jobs/cancel", `{"ids":["1"]}`)
	o.want(503, newSecret(), "GET", "/jobs/", "") // has the form of a token
	o.want(200, testAdminToken, "GET", "/jobs/", "")
	require.NoError(t, cluster.Start(t.Context()))
	b.eventually(200, "/ready")
	o.want(200, testAdminToken, "GET", "/jobs/api/jobs", "")
}

func TestJobsRest(t *testing.T) {
	t.Parallel()
	o := setup(t).operator()
	resting := func() bool {
		o.ui.mu.Lock()
		defer o.ui.mu.Unlock()
		return o.ui.current == nil
	}
	if !resting() {
		t.Error("jobs are counted before anyone looks")
	}
	o.want(200, testAdminToken, "GET", "/jobs/", "")
	if resting() {
		t.Error("nothing runs while somebody looks")
	}
	o.want(200, testAdminToken, "GET", "/jobs/api/states", "")
	if err := o.ui.Stop(t.Context()); err != nil || !resting() {
		t.Errorf("stop: %v", err)
	}
	o.want(503, testAdminToken, "GET", "/jobs/", "")
}
