package api

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"

	"github.com/signpost/signpost/internal/pgtest"
)

// rawAll sends bytes over a connection of their own. It returns the answers until the
// server closes the connection, or sends nothing more for a moment after the last one.
func (b *bundle) rawAll(request string, requests int) []answer {
	b.t.Helper()
	conn := b.dial()
	defer func() { _ = conn.Close() }()
	go func() { _, _ = io.WriteString(conn, request) }() // ends with conn
	var answers []answer
	reader := bufio.NewReader(conn)
	for {
		if len(answers) == requests {
			require.NoError(b.t, conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		}
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			return answers
		}
		a, err := answerOf(resp)
		if err != nil {
			return answers
		}
		answers = append(answers, a)
	}
}

// A request inside the body of another one is never answered, however early and for
// whatever reason the outer one was refused.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	b := setupOn(t, pgtest.Pool(t), func(o *Options) { o.ImportMaxBytes = 1 << 20 })
	inner := "GET /robots.txt HTTP/1.1\r\nHost: x\r\nX-Request-ID: smuggled\r\n\r\n"
	padding := func(n int) string { return strings.Repeat("p", n) }
	fixed := func(body string) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body) }
	chunked := func(body string) string {
		return fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	}
	bodies := map[string]string{
		"fixed":             fixed(inner),
		"in chunks":         chunked(inner),
		"fixed, 5 KB":       fixed(padding(5<<10) + inner),
		"in chunks, 5 KB":   chunked(padding(5<<10) + inner),
		"fixed, 300 KB":     fixed(padding(300<<10) + inner),
		"in chunks, 300 KB": chunked(padding(300<<10) + inner),
		"fixed, 2 MB":       fixed(padding(2<<20) + inner),
		"in chunks, 2 MB":   chunked(padding(2<<20) + inner),
		"fixed, 10 MB":      fixed(padding(10<<20) + inner),
		"in chunks, 10 MB":  chunked(padding(10<<20) + inner),
		"cut off, 10 GB":    "Content-Length: 10000000000\r\n\r\n" + padding(20<<10) + inner,
	}
	token := "Authorization: Bearer " + b.tokens[RoleReader] + "\r\n"
	admin := "Authorization: Bearer " + testAdminToken + "\r\n"
	heads := map[string]string{
		"no token":       "POST /urls HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n",
		"role too low":   "POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + token,
		"no such path":   "POST /a/b/c HTTP/1.1\r\nHost: x\r\n",
		"no such method": "DELETE /urls HTTP/1.1\r\nHost: x\r\n" + token,
		"unknown method": "FOO /urls HTTP/1.1\r\nHost: x\r\n" + token,
		"upload, none":   "POST /imports?kind=urls HTTP/1.1\r\nHost: x\r\n",
		"upload, low":    "POST /users/bulk HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n" + token,
		"upload, kind":   "POST /imports?kind=x HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n" + admin,
		"upload, type":   "POST /imports?kind=users HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data\r\n" + admin,
		"upload, option": "POST /imports?kind=users&on_conflict=x HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n" + admin,
		"upload, coding": "POST /imports?kind=users HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Encoding: br\r\n" + admin,
		"upload, gzip":   "POST /imports?kind=users HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Encoding: gzip\r\n" + admin,
		"upload, zstd":   "POST /imports?kind=users HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Encoding: zstd\r\n" + admin,
		"upload, file":   "POST /imports?kind=users HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n" + admin,
		"not JSON":       "POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n" + admin,
		"wrong JSON":     "POST /users HTTP/1.1\r\nHost: x\r\n" + admin,
		"a GET":          "GET /users HTTP/1.1\r\nHost: x\r\n" + token,
		"a redirect":     "GET /r/nothing HTTP/1.1\r\nHost: x\r\n",
		"a page":         "GET / HTTP/1.1\r\nHost: x\r\n",
	}
	next := "GET /health HTTP/1.1\r\nHost: x\r\nX-Request-ID: next\r\n\r\n"
	for how, head := range heads {
		for size, body := range bodies {
			t.Run(how+" "+size, func(t *testing.T) {
				t.Parallel()
				answers := b.rawAll(head+body+next, 2)
				if len(answers) == 0 {
					t.Error("no answer at all")
				}
				for i, a := range answers {
					id := a.header.Get("X-Request-Id")
					if i > 0 && strings.HasPrefix(size, "cut off") || i > 1 || id == "smuggled" || i == 1 && (id != "next" || a.status != http.StatusOK) {
						t.Errorf("answer %d is %d %s to %q", i+1, a.status, a.raw, id)
					}
				}
			})
		}
	}
}

// A request that is not HTTP is refused in the same shape, and the connection is
// closed.
func TestProtocolErrors(t *testing.T) {
	t.Parallel()
	b := setup(t)
	head := "GET /health HTTP/1.1\r\nHost: x\r\n"
	tests := []struct {
		name, request string
		status        int
	}{
		{"no request line", "nonsense\r\n\r\n", 400},
		{"binary", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
		{"header without a colon", head + "nonsense\r\n\r\n", 400},
		{"space before the colon", head + "Content-Length : 5\r\n\r\nhello", 400},
		{"two lengths", head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400},
		{"negative length", head + "Content-Length: -5\r\n\r\nhello", 400},
		{"length of letters", head + "Content-Length: five\r\n\r\nhello", 400},
		{"length and chunks", head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
		{"unknown encoding", head + "Transfer-Encoding: rot13\r\n\r\n0\r\n\r\n", 0},
		{"long header", head + "X: " + strings.Repeat("a", 2*maxHeader) + "\r\n\r\n", 431},
		{"many headers", head + strings.Repeat("X: a\r\n", maxHeader) + "\r\n", 431},
		{"long path", "GET /" + strings.Repeat("a", 2*maxHeader) + " HTTP/1.1\r\nHost: x\r\n\r\n", 431},
		{"broken chunk", "POST /users HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + testAdminToken +
			"\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n", 400},
		{"unescaped path", "GET /a\x01\xff HTTP/1.1\r\nHost: x\r\n\r\n", 0},
		{"no host", "GET /health HTTP/1.1\r\n\r\n", 0},
		{"HTTP/1.0", "GET /health HTTP/1.0\r\n\r\n", 200},
		{"absolute path", "GET http://other.example/health HTTP/1.1\r\nHost: x\r\n\r\n", 0},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 0},
		{"tunnel", "CONNECT other.example:443 HTTP/1.1\r\nHost: other.example\r\n\r\n", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			answers := b.rawAll(test.request, 1)
			if len(answers) != 1 {
				t.Fatalf("%d answers", len(answers))
			}
			a := answers[0]
			if test.status != 0 && a.status != test.status {
				t.Errorf("%d %s, want %d", a.status, a.raw, test.status)
			}
			checkAnswer(t, test.name, a)
			if id := a.header.Get("X-Request-Id"); id == "" || !strings.Contains(b.log.String(), `"request_id":"`+id+`"`) {
				t.Errorf("the id %q is not in the log", id)
			}
		})
	}
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made := regexp.MustCompile(`^[0-9a-f]{32}$`)
	seen := map[string]bool{}
	for _, sent := range []string{"", "", "a b", "<script>", strings.Repeat("a", 129), "ä", "a;b", `"`} {
		a := b.do(0, "GET", "/users", nil, "X-Request-ID", sent)
		id := a.header.Get("X-Request-Id")
		if !made.MatchString(id) || seen[id] {
			t.Errorf("%q was answered with the id %q", sent, id)
		}
		seen[id] = true
	}
	for _, sent := range []string{"a", "0.a-B_9", strings.Repeat("a", 128)} {
		if id := b.do(RoleReader, "GET", "/users", nil, "X-Request-ID", sent).header.Get("X-Request-Id"); id != sent {
			t.Errorf("%q was answered with the id %q", sent, id)
		}
		if !strings.Contains(b.log.String(), `"request_id":"`+sent+`"`) {
			t.Errorf("%q is not in the log", sent)
		}
	}
}

// buggy panics when a connection is asked for.
type buggy struct{ pgx.QueryTracer }

func (buggy) TraceAcquireStart(context.Context, *pgxpool.Pool, pgxpool.TraceAcquireStartData) context.Context {
	panic("a bug")
}

func (buggy) TraceAcquireEnd(context.Context, *pgxpool.Pool, pgxpool.TraceAcquireEndData) {}

// After a bug, the client gets a sentence and the log a stack.
func TestPanic(t *testing.T) {
	t.Parallel()
	pool := setup(t).pool
	config := pool.Config()
	config.ConnConfig.Tracer = buggy{}
	panics, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(panics.Close)
	b := setupOn(t, pool, func(o *Options) { o.Pool = panics })
	for range 2 {
		a := b.want(500, RoleAdmin, "GET", "/users", nil, "X-Request-ID", "of-the-panic")
		if len(a.body) != 2 || a.body["error"] != errInternal.Message {
			t.Errorf("the client was told %s", a.raw)
		}
	}
	log := b.log.String()
	if !strings.Contains(log, "request panicked") || !strings.Contains(log, "listUsers") || !strings.Contains(log, "of-the-panic") {
		t.Errorf("the log says %s", log)
	}
	b.want(200, 0, "GET", "/robots.txt", nil)
}

// An error that nobody foresaw is logged and not shown.
func TestUnforeseenError(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec("ALTER TABLE users RENAME COLUMN email TO gone")
	a := b.want(500, RoleAdmin, "GET", "/users", nil, "X-Request-ID", "of-the-error")
	if len(a.body) != 2 || a.body["error"] != errInternal.Message {
		t.Errorf("the client was told %s", a.raw)
	}
	if log := b.log.String(); !strings.Contains(log, "42703") || !strings.Contains(log, "of-the-error") {
		t.Errorf("the log says %s", log)
	}
}

// Secrets never reach the log (I9).
func TestLogHasNoSecrets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made := b.want(201, RoleAdmin, "POST", "/tokens", object{"name": "x", "role": "reader"})
	wrong := newSecret()
	b.want(401, 0, "GET", "/users", nil, "Authorization", "Bearer "+wrong)
	b.do(RoleReader, "GET", "/users", nil)
	secrets := []string{wrong, testAdminToken, made.body["token"].(string)}
	for _, secret := range b.tokens {
		secrets = append(secrets, secret)
	}
	log := b.log.String()
	if !strings.Contains(log, `"path":"/users"`) {
		t.Fatalf("requests are not logged: %s", log)
	}
	for _, secret := range secrets {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds the secret %q", secret)
		}
	}
}

func TestRequestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	b := setupOn(t, setup(t).pool, func(o *Options) { o.Registry = registry })
	b.want(200, RoleAdmin, "GET", "/users", nil)
	b.want(404, RoleAdmin, "GET", "/users/12345", nil)
	b.want(404, RoleAdmin, "GET", "/users/12346", nil)
	b.want(401, 0, "POST", "/urls", nil)
	b.want(404, 0, "GET", "/users/two/three", nil)
	b.want(405, 0, "FOO", "/users", nil)
	want := `
# HELP signpost_http_requests_total Requests answered, by route pattern, method and class of status.
# TYPE signpost_http_requests_total counter
signpost_http_requests_total{method="GET",route="/:code",status="3xx"} 0
signpost_http_requests_total{method="GET",route="/:code",status="4xx"} 0
signpost_http_requests_total{method="GET",route="/:code",status="5xx"} 0
signpost_http_requests_total{method="GET",route="/r/:code",status="3xx"} 0
signpost_http_requests_total{method="GET",route="/r/:code",status="4xx"} 0
signpost_http_requests_total{method="GET",route="/r/:code",status="5xx"} 0
signpost_http_requests_total{method="GET",route="/users",status="2xx"} 1
signpost_http_requests_total{method="GET",route="/users/:id",status="4xx"} 2
signpost_http_requests_total{method="POST",route="/urls",status="4xx"} 1
signpost_http_requests_total{method="any",route="none",status="4xx"} 2
`
	assert.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(want), "signpost_http_requests_total"))
	if n, err := testutil.GatherAndCount(registry, "signpost_http_request_duration_seconds"); n != 10 || err != nil {
		t.Errorf("%d histograms, %v", n, err)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	outside := regexp.MustCompile(`(?i)(src|href|action|url\()\s*=?\s*["']?(https?:)?//`)
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/docs": "text/html; charset=utf-8", "/docs/start.js": "text/javascript; charset=utf-8",
		"/docs/swagger-ui.css": "text/css; charset=utf-8", "/docs/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
		"/docs/favicon-32x32.png": "image/png", "/robots.txt": "text/plain; charset=utf-8",
	} {
		a := b.want(200, 0, "GET", path, nil)
		if got := a.header.Get("Content-Type"); !strings.EqualFold(got, kind) || len(a.raw) == 0 {
			t.Errorf("%s: content type %q, want %q, %d bytes", path, got, kind, len(a.raw))
		}
		if found := outside.Find(a.raw); found != nil && !strings.HasSuffix(path, "bundle.js") {
			t.Errorf("%s reaches an outside host: %s", path, found)
		}
		policy := a.header.Get("Content-Security-Policy")
		if strings.HasPrefix(kind, "text/html") && (!strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "http")) {
			t.Errorf("%s: the policy is %q", path, policy)
		}
	}
}

// The bundled files of the docs page are compressed. Clients that cannot read that get
// the same text.
func TestDocsFilesCompressed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	plain := b.want(200, 0, "GET", "/docs/swagger-ui.css", nil, "Accept-Encoding", "identity")
	if e := plain.header.Get("Content-Encoding"); e != "" || !bytes.Contains(plain.raw, []byte(".swagger-ui")) {
		t.Fatalf("encoding %q, text %.80q", e, plain.raw)
	}
	packed := b.want(200, 0, "GET", "/docs/swagger-ui.css", nil, "Accept-Encoding", "gzip")
	if e := packed.header.Get("Content-Encoding"); e != "gzip" || packed.header.Get("Vary") != "Accept-Encoding" {
		t.Fatalf("encoding %q, vary %q", e, packed.header.Get("Vary"))
	}
	r, err := gzip.NewReader(bytes.NewReader(packed.raw))
	require.NoError(t, err)
	if text, err := io.ReadAll(r); err != nil || !bytes.Equal(text, plain.raw) {
		t.Errorf("%d bytes, %v; want %d", len(text), err, len(plain.raw))
	}
}

// All requests for a file of the docs page share the same bytes.
func TestDocsFilesAreShared(t *testing.T) {
	t.Parallel()
	handler := setup(t).api.Handler()
	for _, path := range []string{"/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/favicon-32x32.png", "/docs/start.js"} {
		for _, coding := range []string{"", "gzip"} {
			bodies := [2]*byte{}
			for i := range bodies {
				var ctx fasthttp.RequestCtx
				ctx.Request.SetRequestURI(path)
				ctx.Request.Header.Set("Accept-Encoding", coding)
				handler(&ctx)
				if ctx.Response.IsBodyStream() {
					t.Fatalf("%s %s is made anew for each request", path, coding)
				}
				bodies[i] = unsafe.SliceData(ctx.Response.Body())
			}
			if bodies[0] != bodies[1] {
				t.Errorf("%s %s is copied for each request", path, coding)
			}
		}
	}
}

func TestDocsFilesThatAreKnown(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const path = "/docs/swagger-ui.css"
	plain := b.want(200, 0, "GET", path, nil, "Accept-Encoding", "identity")
	packed := b.want(200, 0, "GET", path, nil, "Accept-Encoding", "gzip")
	one, other := plain.header.Get("ETag"), packed.header.Get("ETag")
	if one == other || one == "" || other == "" {
		t.Fatalf("the tags are %s and %s", one, other)
	}
	for known, status := range map[string]int{
		one: 304, `"x", W/` + one: 304, "*": 304, other: 200, `"x"`: 200, one[1 : len(one)-1]: 200, ",,": 200,
	} {
		a := b.want(status, 0, "GET", path, nil, "Accept-Encoding", "identity", "If-None-Match", known)
		if a.header.Get("ETag") != one || a.header.Get("Vary") != "Accept-Encoding" || (status == 304) != (len(a.raw) == 0) {
			t.Errorf("%s: %d with %d bytes and %v", known, status, len(a.raw), a.header)
		}
	}
	if a := b.want(304, 0, "GET", path, nil, "Accept-Encoding", "gzip", "If-None-Match", other); a.header.Get("Content-Encoding") != "" {
		t.Errorf("nothing is packed: %v", a.header)
	}
}

// The test is not parallel, so that nothing else uses the heap.
func TestStalledReadersOfTheDocs(t *testing.T) {
	b := setup(t)
	b.want(200, 0, "GET", "/docs/swagger-ui-bundle.js", nil)
	before := inUse()
	for range 200 {
		if status := b.stall("/docs/swagger-ui-bundle.js", ""); status != 200 {
			t.Fatalf("the file was answered %d", status)
		}
	}
	grown := inUse() - before
	t.Logf("%d KiB more are in use", grown>>10)
	if grown > 50<<20 { // they were sent 290 MiB
		t.Errorf("200 readers that stall take %d KiB", grown>>10)
	}
}

// stall sends a request, reads the status of the answer, which it returns, and nothing
// more.
func (b *bundle) stall(path, secret string) (status int) {
	b.t.Helper()
	conn := b.dial()
	b.conns = append(b.conns, conn)
	require.NoError(b.t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
	b.write(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", path, secret)
	if _, err := fmt.Fscanf(conn, "HTTP/1.1 %d", &status); err != nil {
		b.t.Fatal(err)
	}
	return status
}

// inUse returns how many bytes the process uses.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // pools release their memory at the second collection
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

func TestNewRefusesARelativeURL(t *testing.T) {
	t.Parallel()
	for _, public := range []string{"", "sign.example", "/x", "http://"} {
		if _, err := New(Options{PublicURL: public}); err == nil {
			t.Errorf("an API was made for %q", public)
		}
	}
}

// A signal may come so early that the server does not run yet.
func TestShutdownBeforeServe(t *testing.T) {
	t.Parallel()
	options := setupOn(t, pgtest.Pool(t)).api.Options
	options.Registry = prometheus.NewRegistry()
	a, err := New(options)
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, a.Shutdown(t.Context()))
	served := make(chan error, 1)
	go func() { served <- a.Serve(ln) }()
	select {
	case err := <-served:
		require.NoError(t, err)
	case <-time.After(30 * time.Second):
		t.Fatal("Serve does not return")
	}
	_, err = net.Dial("tcp", ln.Addr().String())
	assert.Error(t, err, "nothing listens")
}
