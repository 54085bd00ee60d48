package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/service"
)

const testAdminToken = "bootstrap-token-of-the-tests"

// bundle is a running API on a database of its own, and a client of it.
type bundle struct {
	t    testing.TB
	api  *API
	pool *pgxpool.Pool
	addr string
	log  *syncBuffer
	// tokens by role; empty is no token.
	tokens map[Role]string
	conns  []net.Conn // connections that stall
}

// createToken makes a token and returns its secret.
func createToken(tb testing.TB, pool *pgxpool.Pool, name string, role Role) (Token, string) {
	tb.Helper()
	var in service.TokenFields
	in.Name.Value, in.Role.Value = name, role.String()
	s := service.Service{Pool: pool}
	token, secret, err := s.CreateToken(tb.Context(), Actor{Role: RoleAdmin}, in, nil)
	require.NoError(tb, err)
	return token, secret
}

// newSecret draws a text of the form of a token's secret.
func newSecret() string { return "sp_" + (rand.Text() + rand.Text())[:43] }

func setup(tb testing.TB, adjust ...func(*Options)) *bundle {
	tb.Helper()
	b := setupOn(tb, pgtest.Pool(tb), adjust...)
	for role := RoleReader; role <= RoleAdmin; role++ {
		_, b.tokens[role] = createToken(tb, b.pool, role.String()+" of the test", role)
	}
	return b
}

// setupOn starts an API on a pool whose server need not be reachable. Only the
// bootstrap token is known.
func setupOn(tb testing.TB, pool *pgxpool.Pool, adjust ...func(*Options)) *bundle {
	tb.Helper()
	b := &bundle{t: tb, pool: pool, log: &syncBuffer{}, tokens: map[Role]string{}}
	log := slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	jobs, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: log})
	require.NoError(tb, err)
	registry := prometheus.NewRegistry()
	spool, err := clicks.Open(clicks.Options{Dir: tb.TempDir(), Log: log, Metrics: clicks.NewMetrics(registry)})
	require.NoError(tb, err)
	cache, err := linkcache.Open(linkcache.Options{Pool: pool, Log: log})
	require.NoError(tb, err)
	own, err := links.ParseHosts("sign.example", "go.sign.example:8443", "müller.example")
	require.NoError(tb, err)
	options := Options{
		Pool: pool, River: jobs, Spool: spool, Cache: cache, PublicURL: "https://sign.example", OwnHosts: own,
		Tokens: NewTokens(pool, testAdminToken), ImportMaxBytes: 10 << 20, Registry: registry, Log: log, Version: "test",
	}
	for _, fn := range adjust {
		fn(&options)
	}
	if b.api, err = New(options); err != nil {
		tb.Fatal(err)
	}
	b.api.listeners.life = 0 // tests of all routes read whole answers
	b.serve()
	tb.Cleanup(func() {
		assert.NoError(tb, spool.Close())
	})
	return b
}

func (b *bundle) serve() {
	b.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b.t, err)
	b.addr = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- b.api.Serve(ln) }()
	b.t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		b.shutDown()
		assert.NoError(b.t, <-served, "serve")
	})
}

// answer is the answer to a request.
type answer struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any // nil if raw is no JSON object
}

// do sends a request with the token of a role, or without a token if role is 0. A body
// that is a string is sent as it is, any other as JSON; nil means no body.
func (b *bundle) do(role Role, method, path string, body any, header ...string) answer {
	b.t.Helper()
	a, err := b.try(role, method, path, body, header...)
	require.NoErrorf(b.t, err, "%s %s", method, path)
	return a
}

func (b *bundle) try(role Role, method, path string, body any, header ...string) (answer, error) {
	var reader io.Reader
	switch v := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(v)
	default:
		text, err := json.Marshal(v)
		if err != nil {
			return answer{}, err
		}
		reader = bytes.NewReader(text)
	}
	return b.send(role, method, path, reader, header...)
}

// stream sends a body as an admin, without announcing its length.
func (b *bundle) stream(method, path string, body io.Reader) answer {
	b.t.Helper()
	a, err := b.send(RoleAdmin, method, path, io.MultiReader(body), "Content-Type", "application/json")
	require.NoErrorf(b.t, err, "%s %s", method, path)
	return a
}

func (b *bundle) send(role Role, method, path string, body io.Reader, header ...string) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+b.addr+path, body)
	if err != nil {
		return answer{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	switch {
	case b.tokens[role] != "":
		req.Header.Set("Authorization", "Bearer "+b.tokens[role])
	case role == RoleAdmin:
		req.Header.Set("Authorization", "Bearer "+testAdminToken)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := noRedirects.Do(req)
	if err != nil {
		return answer{}, err
	}
	return answerOf(resp)
}

// answerOf reads an answer to its end.
func answerOf(resp *http.Response) (answer, error) {
	defer resp.Body.Close() //nolint:errcheck // read-only
	a := answer{status: resp.StatusCode, header: resp.Header}
	var err error
	a.raw, err = io.ReadAll(resp.Body)
	_ = json.Unmarshal(a.raw, &a.body)
	return a, err
}

// dial opens a connection that the test closes at its end, if not before.
func (b *bundle) dial() net.Conn {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.addr)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = conn.Close() })
	require.NoError(b.t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return conn
}

// write sends a part of a request.
func (b *bundle) write(conn net.Conn, format string, args ...any) {
	b.t.Helper()
	if _, err := fmt.Fprintf(conn, format, args...); err != nil {
		b.t.Fatal(err)
	}
}

// shutDown fails the test if the API does not end soon.
func (b *bundle) shutDown() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	assert.NoError(b.t, b.api.Shutdown(ctx), "shut down")
}

var noRedirects = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// want sends a request. It fails the test unless the answer has this status, and the
// one shape of errors if it is an error.
func (b *bundle) want(status int, role Role, method, path string, body any, header ...string) answer {
	b.t.Helper()
	a := b.do(role, method, path, body, header...)
	if a.status != status {
		b.t.Fatalf("%s %s: got %d %s, want %d", method, path, a.status, a.raw, status)
	}
	if status >= 400 && method != http.MethodHead {
		checkShape(b.t, method+" "+path, a)
	}
	return a
}

// checkShape fails the test unless an answer is an error in the shape that I5 demands.
func checkShape(tb testing.TB, what string, a answer) {
	tb.Helper()
	if got := a.header.Get("Content-Type"); got != "application/json" {
		tb.Errorf("%s: content type %q of %s", what, got, a.raw)
	}
	message, _ := a.body["error"].(string)
	if code, _ := a.body["code"].(float64); message == "" || int(code) != a.status {
		tb.Errorf("%s: %d with the body %s", what, a.status, a.raw)
	}
	for key := range a.body {
		if key != "error" && key != "code" && key != "fields" && key != "hint" {
			tb.Errorf("%s: the error has %q: %s", what, key, a.raw)
		}
	}
	for _, internal := range []string{"goroutine", ".go:", "SQLSTATE", "SELECT", "pgx", "json:", "huma", "fiber", "github.com/"} {
		if strings.Contains(string(a.raw), internal) {
			tb.Errorf("%s: the error shows internals: %s", what, a.raw)
		}
	}
	if (a.status == 503 || a.status == 429) && a.header.Get("Retry-After") == "" {
		tb.Errorf("%s: %d without Retry-After", what, a.status)
	}
	if a.status == 405 && a.header.Get("Allow") == "" {
		tb.Errorf("%s: 405 without Allow", what)
	}
	if a.status == 401 && a.header.Get("WWW-Authenticate") == "" {
		tb.Errorf("%s: 401 without WWW-Authenticate", what)
	}
}

// fields returns the messages of an error by field.
func (a answer) fields() map[string]string {
	out := map[string]string{}
	list, _ := a.body["fields"].([]any)
	for _, f := range list {
		entry := f.(map[string]any)
		out[entry["field"].(string)] = entry["message"].(string)
	}
	return out
}

func (a answer) rows() []map[string]any {
	data, _ := a.body["data"].([]any)
	rows := make([]map[string]any, len(data))
	for i := range data {
		rows[i] = data[i].(map[string]any)
	}
	return rows
}

func (a answer) id() int64 {
	id, _ := a.body["id"].(float64)
	return int64(id)
}

type object map[string]any

// user makes a user and returns its id.
func (b *bundle) user(name string) int64 {
	b.t.Helper()
	return b.want(201, RoleAdmin, "POST", "/users", object{"username": name, "email": name + "@example.com"}).id()
}

// syncBuffer is a log to which several goroutines write.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}
