package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/drive"
	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/promise"
)

// binary is the real program, built once for all end-to-end tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "signpost-e2e-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "signpost")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w: %s", err, out)
	}
	return path, nil
})

// TestDev does the same as a newcomer: one command, the example files, a short link
// that is followed, and a look at the click. Then the process crashes, and everything
// is still there.
func TestDev(t *testing.T) {
	t.Parallel()
	data := filepath.Join(pgtest.Dir(t), "data")
	s := startDev(t, data)
	importExamples(t, s)

	link := s.getJSON("/urls/1", http.StatusOK)
	code := link["short_code"].(string)
	if link["short_url"] != s.url+"/"+code {
		t.Errorf("the short URL is %v, and the server is at %s", link["short_url"], s.url)
	}
	if got := s.redirect("/" + code); got != link["original_url"] {
		t.Errorf("the link leads to %q, want %q", got, link["original_url"])
	}
	if got := s.redirect("/r/" + code); got != link["original_url"] {
		t.Errorf("under /r/ the link leads to %q", got)
	}
	before := link["clicks"].(float64)
	s.within(2*time.Second, "a click is in the totals", func() bool {
		return s.clicks(1) == before+2
	})
	events := s.getJSON("/events?url_id=1&event_type=clicked&limit=2", http.StatusOK)["data"].([]any)
	details := events[0].(map[string]any)["details"].(map[string]any)
	if details["browser"] != "Firefox" || details["referrer"] != "news.example.org" {
		t.Errorf("details of the click: %v", details)
	}

	s.get("/users/1", "", http.StatusUnauthorized)
	s.kill()
	s = startDev(t, data)
	if got := s.clicks(1); got != before+2 {
		t.Errorf("after a crash the link has %v clicks, want %v", got, before+2)
	}
	s.stop()
	again := startDev(t, data)
	if again.token != s.token {
		t.Error("the admin token changed")
	}
	again.stop()
}

// importExamples imports the example files. It checks that the results are those in
// examples/README.md, and that importing them again changes nothing.
func importExamples(t *testing.T, s *server) {
	t.Helper()
	for _, tt := range []struct {
		kind               string
		imported, rejected float64
		line               float64
		field              string
	}{
		{"users", 38, 2, 24, "username"},
		{"urls", 195, 5, 33, "user_id"},
		{"events", 383, 17, 32, "url_id"},
	} {
		done := s.upload(tt.kind, "examples/"+tt.kind+".csv")
		if done["rows_imported"] != tt.imported || done["rows_rejected"] != tt.rejected || done["state"] != "completed" {
			t.Fatalf("import of %s: %v", tt.kind, done)
		}
		errs := s.getJSON(fmt.Sprintf("/imports/%v/errors", done["id"]), http.StatusOK)["data"].([]any)
		first := errs[0].(map[string]any)
		if float64(len(errs)) != tt.rejected || first["line"] != tt.line || first["field"] != tt.field || first["reason"] == "" {
			t.Errorf("errors of %s: %v", tt.kind, errs)
		}
		again := s.upload(tt.kind, "examples/"+tt.kind+".csv")
		if again["rows_imported"] != 0.0 || again["rows_rejected"] != tt.imported+tt.rejected {
			t.Errorf("second import of %s: %v", tt.kind, again)
		}
	}
}

// TestRoles runs the parts as separate processes, two of each, from an empty
// database, and stops them with SIGTERM.
func TestRoles(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	environ := environment(url, t.TempDir(), "PUBLIC_URL=https://sho.rt")

	var migrations sync.WaitGroup
	for range 3 {
		migrations.Go(func() {
			if out, err := program(t, environ, "migrate").CombinedOutput(); err != nil {
				t.Errorf("migrate: %v\n%s", err, out)
			}
		})
	}
	migrations.Wait()
	var servers []*server
	for _, role := range []string{"api", "api", "worker", "worker"} {
		s := start(t, role, environ)
		servers = append(servers, s)
	}
	one, two := servers[0], servers[1]
	user := one.post("/users", `{"username":"ada","email":"ada@example.org"}`, http.StatusCreated)
	link := one.post("/urls", fmt.Sprintf(`{"user_id":%v,"original_url":"https://example.org/a"}`, user["id"]), http.StatusCreated)
	path := "/" + link["short_code"].(string)
	if want := "https://sho.rt" + path; link["short_url"] != want {
		t.Errorf("short_url %v, want %s", link["short_url"], want)
	}
	two.eventually("the link on the other replica", func() bool { return two.status(path) == http.StatusFound })
	one.redirect(path)
	one.patch(fmt.Sprintf("/urls/%v", link["id"]), `{"is_active":false}`, http.StatusOK)
	two.within(time.Second, "a change is seen on another replica", func() bool { return two.status(path) == http.StatusGone })

	for _, s := range servers {
		if out, err := program(t, environ, "healthcheck", "--url", s.admin+"/health").CombinedOutput(); err != nil {
			t.Errorf("healthcheck: %v\n%s", err, out)
		}
		s.stop()
	}
	events := countEvents(t, url, "clicked")
	if events < 2 {
		t.Errorf("%d clicks after the stop, want the 2 or more that were answered", events)
	}
}

// TestShipFromAVolume kills an API that cannot reach Postgres, and ships the clicks
// that it left, twice.
func TestShipFromAVolume(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	url, volume := pgtest.Migrated(t, cluster), t.TempDir()
	environ := environment(url, volume)
	s := start(t, "api", environ)
	s.untilReady()
	s.makeLink()
	s.redirect("/a")
	cluster.Kill()
	for range 9 {
		s.redirect("/a")
	}
	s.kill()
	require.NoError(t, cluster.Start(t.Context()))
	for _, args := range [][]string{{"spool", "ship", volume}, {"spool", "ship", volume, "--again"}, {"spool", "ship", volume, "--remove"}} {
		if out, err := program(t, environ, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		if n := countEvents(t, url, "clicked"); n != 10 {
			t.Errorf("%d clicks after %v, want 10", n, args)
		}
	}
	var batches, removed int
	err := pgtest.Open(t, url).QueryRow(t.Context(), `
		SELECT count(*), count(f.folder) FROM click_batches b
		LEFT JOIN spool_folders f ON f.folder = left(b.id, 32) AND b.id < f.gone_below`).Scan(&batches, &removed)
	if err != nil || batches == 0 || removed != batches {
		t.Errorf("after the removal %d of %d batches are confirmed to be gone (%v)", removed, batches, err)
	}
}

// TestStartBeforePostgres starts the roles first and the database later.
func TestStartBeforePostgres(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	url := pgtest.Migrated(t, cluster)
	cluster.Kill()
	environ := environment(url, t.TempDir())
	a, w := start(t, "api", environ), begin(t, "worker", program(t, environ, "worker"))
	if got := a.status("/health"); got != http.StatusOK {
		t.Errorf("/health without Postgres: %d", got)
	}
	if got := a.status("/ready"); got != http.StatusServiceUnavailable {
		t.Errorf("/ready without Postgres: %d", got)
	}
	w.eventually("the worker to say that it waits", func() bool { return strings.Contains(w.logs.String(), "postgres is not available") })
	require.NoError(t, cluster.Start(t.Context()))
	a.untilReady()
	w.eventually("the worker to start", w.started)
	w.stop()
	a.stop()
}

// TestApiOutlivesAServerThatRefusesIt starts an api during an outage. Then a server
// comes back that has no such database yet, as if it were being restored. The api goes
// on, and is ready once the database is there.
func TestApiOutlivesAServerThatRefusesIt(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	url := pgtest.Migrated(t, cluster)
	name := url[strings.LastIndex(url, "/")+1:]
	name, _, _ = strings.Cut(name, "?")
	rename := func(from, to string) {
		pool := pgtest.Open(t, cluster.URL("postgres"))
		defer pool.Close()
		pgtest.Exec(t, pool, fmt.Sprintf("ALTER DATABASE %q RENAME TO %q", from, to))
	}
	rename(name, "elsewhere")
	cluster.Kill()
	s := start(t, "api", environment(url, t.TempDir()))
	require.NoError(t, cluster.Start(t.Context()))
	s.eventually("the api to be refused", func() bool { return strings.Contains(s.logs.String(), "the schema cannot be looked at") })
	if got := s.status("/health"); got != http.StatusOK {
		t.Errorf("/health of an api that is refused: %d", got)
	}
	rename("elsewhere", name)
	s.untilReady()
	s.stop()
}

// countEvents counts events in the database itself.
func countEvents(t *testing.T, url, eventType string) int {
	t.Helper()
	return ask[int](t, url, `
		SELECT (SELECT count(*) FROM events WHERE event_type = $1)
			+ (SELECT COALESCE(sum(clicks), 0) FROM click_batches WHERE ingested_at IS NULL)`, eventType)
}

// ask runs a query that returns one value.
func ask[T any](t *testing.T, url, query string, args ...any) (answer T) {
	t.Helper()
	require.NoError(t, pgtest.Open(t, url).QueryRow(t.Context(), query, args...).Scan(&answer))
	return answer
}

const testToken = "the-token-of-the-tests"

// environment is that of a process which listens anywhere. More of it comes last, and
// counts.
func environment(url, spool string, more ...string) []string {
	return append(append(os.Environ(), "DATABASE_URL="+url, "SPOOL_DIR="+spool, "LISTEN_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0",
		"ADMIN_TOKEN="+testToken, "LOG_FORMAT=json"), more...)
}

// program is the real binary, with arguments.
func program(t *testing.T, environ []string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	cmd := exec.Command(path, args...)
	cmd.Env = environ
	return cmd
}

// server is a running process of the real binary.
type server struct {
	t     *testing.T
	cmd   *exec.Cmd
	logs  *logBuffer
	url   string
	admin string
	token string
	ended bool
	// database is its DATABASE_URL, if the test knows it.
	database string
}

// startDev runs everything in one process with a database of its own in data.
func startDev(t *testing.T, data string, more ...string) *server {
	t.Helper()
	environ := append(environment("", "", "ADMIN_TOKEN="), more...)
	s := launch(t, "dev", program(t, environ, "dev", "--data", data))
	token, err := os.ReadFile(filepath.Join(data, "admin-token"))
	require.NoError(t, err)
	s.token = strings.TrimSpace(string(token))
	return s
}

// start starts a role.
func start(t *testing.T, role string, environ []string) *server {
	t.Helper()
	return launch(t, role, program(t, environ, role))
}

// launch starts a process and waits until its log says that it has started.
func launch(t *testing.T, name string, cmd *exec.Cmd) *server {
	t.Helper()
	s := begin(t, name, cmd)
	s.eventually(name+" to start", s.started)
	s.url, s.admin = s.logged("listening"), s.logged("admin listener")
	return s
}

// begin starts a process.
func begin(t *testing.T, name string, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{t: t, cmd: cmd, logs: new(logBuffer), token: testToken}
	cmd.Stdout, cmd.Stderr = s.logs, s.logs
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		if !s.ended {
			s.kill()
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, s.logs.String())
		}
	})
	return s
}

func (s *server) started() bool { return strings.Contains(s.logs.String(), `"msg":"started"`) }

func (s *server) untilReady() {
	s.t.Helper()
	s.eventually("the API to become ready", func() bool { return s.status("/ready") == http.StatusOK })
}

// makeLink makes the user 1 and the link /a.
func (s *server) makeLink() {
	s.t.Helper()
	s.post("/users", `{"username":"ada","email":"ada@example.org"}`, http.StatusCreated)
	s.post("/urls", `{"user_id":1,"short_code":"a","original_url":"https://example.org/a"}`, http.StatusCreated)
}

// clicks are those that are counted for a link.
func (s *server) clicks(link any) float64 {
	s.t.Helper()
	return s.getJSON(fmt.Sprintf("/urls/%v", link), http.StatusOK)["clicks"].(float64)
}

// metric is the sum of a metric's samples, 0 if there are none yet.
func (s *server) metric(name string) float64 {
	s.t.Helper()
	metrics, err := drive.Scrape(s.t.Context(), strings.TrimPrefix(s.admin, "http://"))
	require.NoError(s.t, err)
	sum, _ := metrics.Sum(name)
	return sum
}

// logged returns the address in the log line whose message begins with this text.
func (s *server) logged(message string) string {
	lines := bufio.NewScanner(strings.NewReader(s.logs.String()))
	for lines.Scan() {
		var line struct{ Msg, Addr string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && strings.HasPrefix(line.Msg, message) && line.Addr != "" {
			return "http://" + line.Addr
		}
	}
	return ""
}

func (s *server) stop() {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(syscall.SIGTERM))
	if code := s.wait(); code != 0 {
		s.t.Errorf("stop: exit code %d\n%s", code, s.logs.String())
	}
}

func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	s.wait()
}

// wait waits for the process to end and returns its exit code.
func (s *server) wait() int {
	_ = s.cmd.Wait()
	s.ended = true
	return s.cmd.ProcessState.ExitCode()
}

// eventually polls until check is true, for at most a minute, and returns how long that
// took.
func (s *server) eventually(what string, check func() bool) time.Duration {
	s.t.Helper()
	start := time.Now()
	for !check() {
		if time.Since(start) > time.Minute {
			s.t.Fatalf("waited in vain for %s; log:\n%s", what, s.logs.String())
		}
		<-time.After(20 * time.Millisecond)
	}
	return time.Since(start)
}

// within is like eventually, for a time that users are promised. The test allows
// several times as much.
func (s *server) within(promised time.Duration, what string, check func() bool) {
	s.t.Helper()
	promise.Kept(s.t, what, promised, 5*promised, s.eventually(what, check))
}

// do sends a request as a browser does. The path may be a whole URL.
func (s *server) do(method, path, contentType string, body io.Reader, token string, edit ...func(*http.Request)) (*http.Response, []byte) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	if strings.HasPrefix(path, "/") {
		path = s.url + path
	}
	req, err := http.NewRequestWithContext(ctx, method, path, body)
	require.NoError(s.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
	req.Header.Set("Referer", "https://news.example.org/story?id=1")
	for _, change := range edit {
		change(req)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoErrorf(s.t, err, "%s %s", method, path)
	defer resp.Body.Close() //nolint:errcheck // read-only
	answer, err := io.ReadAll(resp.Body)
	require.NoErrorf(s.t, err, "%s %s", method, path)
	return resp, answer
}

func (s *server) status(path string) int {
	s.t.Helper()
	resp, _ := s.do(http.MethodGet, path, "", nil, "")
	return resp.StatusCode
}

func (s *server) redirect(path string) string {
	s.t.Helper()
	resp, body := s.do(http.MethodGet, path, "", nil, "")
	if resp.StatusCode != http.StatusFound {
		s.t.Fatalf("GET %s: %d %s", path, resp.StatusCode, body)
	}
	return resp.Header.Get("Location")
}

func (s *server) get(path, token string, want int) map[string]any {
	s.t.Helper()
	return s.call(http.MethodGet, path, "", nil, token, want)
}

func (s *server) getJSON(path string, want int) map[string]any {
	s.t.Helper()
	return s.get(path, s.token, want)
}

// download returns a file, byte for byte.
func (s *server) download(path string) []byte {
	s.t.Helper()
	resp, body := s.do(http.MethodGet, path, "", nil, s.token)
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("GET %s: %d %s", path, resp.StatusCode, body)
	}
	return body
}

func (s *server) post(path, body string, want int) map[string]any {
	s.t.Helper()
	return s.call(http.MethodPost, path, "application/json", strings.NewReader(body), s.token, want)
}

func (s *server) patch(path, body string, want int) map[string]any {
	s.t.Helper()
	return s.call(http.MethodPatch, path, "application/json", strings.NewReader(body), s.token, want)
}

func (s *server) call(method, path, contentType string, body io.Reader, token string, want int, edit ...func(*http.Request)) map[string]any {
	s.t.Helper()
	resp, answer := s.do(method, path, contentType, body, token, edit...)
	if resp.StatusCode != want {
		s.t.Fatalf("%s %s: %d, want %d: %s", method, path, resp.StatusCode, want, answer)
	}
	var v map[string]any
	if err := json.Unmarshal(answer, &v); err != nil {
		s.t.Fatalf("%s %s: %v: %s", method, path, err, answer)
	}
	return v
}

// upload imports a file and waits for the import to end.
func (s *server) upload(kind, file string) map[string]any {
	s.t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(s.t, err)
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("file", filepath.Base(file))
	require.NoError(s.t, err)
	_, _ = part.Write(content)
	_ = w.Close()
	job := s.call(http.MethodPost, "/imports?kind="+kind, w.FormDataContentType(), &form, s.token, http.StatusAccepted)
	path := fmt.Sprintf("/imports/%v", job["id"])
	s.eventually("the import of "+kind, func() bool {
		job = s.getJSON(path, http.StatusOK)
		return job["finished_at"] != nil
	})
	return job
}

// logBuffer collects the output of a process.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
