package api

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
)

// sse reads server-sent events.
type sse struct {
	t    *testing.T
	body *bufio.Reader
	resp *http.Response
}

type sseEvent struct{ id, name, data string }

func (b *bundle) watch(t *testing.T, path string, header ...string) *sse {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+b.addr+path, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+testAdminToken)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	return &sse{t: t, body: bufio.NewReader(resp.Body), resp: resp}
}

// next returns the next event, or false at the end of the stream. A comment is returned
// as an empty event.
func (s *sse) next() (e sseEvent, ok bool) {
	s.t.Helper()
	for {
		line, err := s.body.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return e, false
		}
		require.NoError(s.t, err)
		line = strings.TrimSuffix(line, "\n")
		switch name, value, _ := strings.Cut(line, ": "); {
		case line == "":
			return e, true
		case name == "id":
			e.id = value
		case name == "event":
			e.name = value
		case name == "data":
			e.data = value
		}
	}
}

// imported makes an import that is half done.
func (b *bundle) imported(state string, total, done int) int64 {
	b.t.Helper()
	return b.count(`INSERT INTO imports (kind, layout, keep_ids, actor_name, state, rows_total, rows_imported, chunks_total,
			started_at, finished_at)
		VALUES ('users', '{}', true, 'test', $1, $2, $3, 10, now() - interval '10 seconds',
			CASE WHEN $1 IN ('completed', 'cancelled', 'failed') THEN now() END)
		RETURNING id`, state, total, done)
}

func (b *bundle) exec(sql string, args ...any) {
	b.t.Helper()
	pgtest.Exec(b.t, b.pool, sql, args...)
}

func TestImportProgress(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.api.watchers.look, b.api.watchers.beat = 5*time.Millisecond, 50*time.Millisecond
	id := b.imported("running", 100, 10)
	path := fmt.Sprintf("/imports/%d/progress", id)
	s := b.watch(t, path)
	for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"} {
		if got := s.resp.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	first, _ := s.next()
	if first.name != "progress" || !strings.Contains(first.data, `"rows_imported":10,`) || !strings.Contains(first.data, `"first_errors":[]`) {
		t.Errorf("the first event is %+v", first)
	}
	if e, ok := s.next(); !ok || e != (sseEvent{}) {
		t.Errorf("while nothing moves there comes %+v", e)
	}
	b.exec("UPDATE imports SET rows_imported = 5") // as a replica that lags would say
	if e, ok := s.next(); !ok || e != (sseEvent{}) {
		t.Errorf("progress goes back: %+v", e)
	}
	b.exec("UPDATE imports SET rows_imported = 60")
	e := s.event()
	if e.name != "progress" || e.id == first.id || !strings.Contains(e.data, `"rows_imported":60,`) {
		t.Errorf("the second event is %+v", e)
	}
	b.exec("UPDATE imports SET rows_imported = 100, state = 'completed', finished_at = now()")
	end := s.event()
	if end.name != "end" || !strings.Contains(end.data, `"state":"completed"`) {
		t.Errorf("the last event is %+v", end)
	}
	if e, ok := s.next(); ok {
		t.Errorf("after the end comes %+v", e)
	}
	if again := b.watch(t, path, "Last-Event-ID", end.id); again.resp.StatusCode != http.StatusNoContent {
		t.Errorf("who has seen the end is answered %d", again.resp.StatusCode)
	}
	if e := b.watch(t, path, "Last-Event-ID", first.id).event(); e != end {
		t.Errorf("who has not seen the end is told %+v", e)
	}
	b.until("nobody watches", func() bool { return b.api.watchers.places.count() == 0 })
}

// event returns the next event, and skips comments.
func (s *sse) event() sseEvent {
	s.t.Helper()
	for {
		if e, ok := s.next(); !ok || e != (sseEvent{}) {
			return e
		}
	}
}

// A client that is gone frees its place; the number of places is limited.
func TestImportProgressIsBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.api.watchers.look, b.api.watchers.beat = time.Hour, 5*time.Millisecond
	b.api.watchers.places.total = 2
	id := b.imported("running", 100, 10)
	path := fmt.Sprintf("/imports/%d/progress", id)
	first := b.watch(t, path)
	b.watch(t, path)
	a := b.want(503, RoleAdmin, "GET", path, nil)
	if !strings.Contains(string(a.raw), "too many") {
		t.Errorf("%s", a.raw)
	}
	_ = first.resp.Body.Close()
	b.until("the place is free", func() bool { return b.api.watchers.places.count() == 1 })
	b.watch(t, path)
}

// A stream ends by itself after a while, so that its token has to be checked again.
func TestImportProgressHasAnEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.api.watchers.life, b.api.watchers.beat = 0, time.Millisecond
	s := b.watch(t, fmt.Sprintf("/imports/%d/progress", b.imported("running", 100, 10)))
	if e, ok := s.next(); ok {
		t.Errorf("a stream without life has %+v", e)
	}
}

// Streams do not hold up a shutdown.
func TestShutdownEndsProgress(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.watch(t, fmt.Sprintf("/imports/%d/progress", b.imported("running", 100, 10)))
	s.event()
	b.shutDown()
	if e, ok := s.next(); ok {
		t.Errorf("after the shutdown comes %+v", e)
	}
}

// While the database is away, a watcher has to wait.
func TestImportProgressDuringAnOutage(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	b := setupOn(t, pgtest.Open(t, pgtest.Migrated(t, cluster)))
	b.api.watchers.look, b.api.watchers.beat = 5*time.Millisecond, 20*time.Millisecond
	s := b.watch(t, fmt.Sprintf("/imports/%d/progress", b.imported("running", 100, 10)))
	s.event()
	b.exec("CHECKPOINT")
	stopped(t, cluster)
	for range 3 {
		if e, ok := s.next(); !ok || e != (sseEvent{}) {
			t.Fatalf("during the outage comes %+v, %v", e, ok)
		}
	}
	require.NoError(t, cluster.Start(t.Context()))
	b.until("the database answers", func() bool {
		_, err := b.pool.Exec(t.Context(), "UPDATE imports SET rows_imported = 11")
		return err == nil
	})
	if e := s.event(); !strings.Contains(e.data, `"rows_imported":11,`) {
		t.Errorf("after the outage comes %+v", e)
	}
}

// If a body panics or fails while it is sent, its connection is broken and the process
// goes on.
func TestBrokenStreams(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, fail := range map[string]func() ([]byte, error){
		"panic": func() ([]byte, error) { panic("on purpose") },
		"error": func() ([]byte, error) { return nil, errors.New("on purpose") },
	} {
		server, client := net.Pipe()
		pieces, closed := 0, false
		s := &streamed{api: b.api, conn: server, path: "/" + name, done: func() { closed = true }}
		s.next = func() ([]byte, error) {
			if pieces++; pieces > 2 {
				return fail()
			}
			return []byte("piece"), nil
		}
		got, err := io.ReadAll(s)
		if err == nil || string(got) != "piecepiece" {
			t.Errorf("%s: read %q, %v", name, got, err)
		}
		_, _ = s.Close(), s.Close()
		if !closed || !strings.Contains(b.log.String(), `"path":"/`+name+`"`) {
			t.Errorf("%s: closed %v, log %s", name, closed, b.log.String())
		}
		_, _ = server.Close(), client.Close()
	}
}

// The state of an import can be read in one request: its progress, the time at which it
// will end, and its problems.
func TestImportDetail(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.imported("running", 100, 20)
	b.exec(`INSERT INTO import_errors (import_id, line, field, reason, record)
		SELECT $1, n, 'email', 'is wrong', convert_to(repeat('é', 2000), 'UTF8') FROM generate_series(2, 16) n`, id)
	path := fmt.Sprintf("/imports/%d", id)
	got := b.want(200, RoleReader, "GET", path, nil).body
	errs, _ := got["first_errors"].([]any)
	if len(errs) != 10 {
		t.Fatalf("%d first errors", len(errs))
	}
	for i := range errs {
		e, _ := errs[i].(map[string]any)
		record, _ := e["record"].(string)
		if e["line"] != float64(i+2) || e["field"] != "email" || record != strings.Repeat("é", 250) {
			t.Errorf("error %d is %v", i, e)
		}
	}
	// 20 rows took a little more than ten seconds, so the 80 that are left take a
	// little more than forty.
	end, err := time.Parse(time.RFC3339, fmt.Sprint(got["expected_finished_at"]))
	if left := time.Until(end); err != nil || left < 35*time.Second || left > 2*time.Minute {
		t.Errorf("the expected end is %v (%v)", got["expected_finished_at"], err)
	}
	for _, change := range []string{
		"rows_imported = 0", "started_at = NULL", "state = 'cancelling'", "started_at = now() - interval '9 years'",
		"rows_imported = 100, state = 'completed', finished_at = now()",
	} {
		b.exec("UPDATE imports SET state = 'running', rows_imported = 20, started_at = now() - interval '10 seconds'")
		b.exec("UPDATE imports SET " + change)
		if got := b.want(200, RoleReader, "GET", path, nil).body; got["expected_finished_at"] != nil {
			t.Errorf("%s: the end is expected at %v", change, got["expected_finished_at"])
		}
	}
}
