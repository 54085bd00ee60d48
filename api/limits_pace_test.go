package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/service"
)

func TestPace(t *testing.T) {
	t.Parallel()
	type step struct {
		bytes  int
		waited time.Duration
		slow   bool
	}
	for name, steps := range map[string][]step{
		"a byte each 24 s":               {{1, 24 * time.Second, false}, {1, 24 * time.Second, false}, {1, 24 * time.Second, true}},
		"6 KiB/s":                        {{360 << 10, time.Minute, false}, {360 << 10, time.Minute, false}},
		"just enough":                    {{60 << 10, time.Minute, false}},
		"a byte too few":                 {{60<<10 - 1, time.Minute, true}},
		"nothing was waited for":         {{1, 0, false}, {1, 0, false}, {1, 0, false}},
		"what came before does not help": {{100 << 20, time.Minute, false}, {1, time.Minute, true}},
		"a pause in a fast file":         {{1 << 20, time.Second, false}, {1, 29 * time.Second, false}, {1 << 20, 30 * time.Second, false}},
	} {
		p := pace{limits: defaultClientLimits()}
		for i, s := range steps {
			if got := p.slow(s.bytes, s.waited); got != s.slow {
				t.Errorf("%s: step %d is slow: %v", name, i, got)
			}
		}
	}
}

// hasty makes the API give up at once on clients that make it wait, and be patient with
// others.
func (b *bundle) hasty() {
	b.api.clientLimits.minRate, b.api.clientLimits.window = 1<<40, 100*time.Millisecond
}

// trickle sends a byte from time to time until the upload is answered, and returns the
// status line.
func trickle(t *testing.T, conn net.Conn) string {
	t.Helper()
	answered := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(conn).ReadString('\n')
		answered <- line
	}()
	deadline := time.After(time.Minute)
	for {
		select {
		case line := <-answered:
			return line
		case <-deadline:
			t.Fatal("the upload goes on")
		case <-time.After(10 * time.Millisecond):
			_, _ = io.WriteString(conn, "1\r\nx\r\n") // an error means that it has just been answered
		}
	}
}

func TestSlowUploadIsEnded(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) { o.ImportMaxUploads = 1 })
	b.hasty()
	conn := slowUpload(t, b)
	sendChunk(t, conn, rowsFrom(0))
	b.until("a chunk is stored", func() bool { return b.count("SELECT count(*) FROM import_chunks") == 1 })
	if line := trickle(t, conn); !strings.Contains(line, " 408 ") {
		t.Errorf("the upload was answered with %q", line)
	}
	b.until("the import failed", func() bool {
		return b.count("SELECT count(*) FROM imports WHERE state = 'failed' AND error LIKE '%too slowly%'") == 1
	})
	b.wantCount(0, "SELECT count(*) FROM import_chunks")
	b.until("its place is free", func() bool { return b.api.uploads.count() == 0 })
	b.want(202, RoleAdmin, "POST", "/imports?kind=users", csvOfUsers, "Content-Type", "text/csv")
}

// A client that sends only the beginning of a form is treated in the same way.
func TestSlowFormIsEnded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.hasty()
	conn := b.dial()
	b.write(conn, "POST /imports?kind=users HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n", testAdminToken)
	if line := trickle(t, conn); !strings.Contains(line, " 408 ") {
		t.Errorf("the upload was answered with %q", line)
	}
}

func TestSlowExportIsCut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.hasty()
	b.fill(3 * service.ExportPiece)
	body := b.slow("/urls?format=csv")
	for buf := make([]byte, 4096); ; <-time.After(time.Millisecond) {
		if _, err := body.Read(buf); err != nil {
			if err == io.EOF {
				t.Error("the export seems to be whole")
			}
			break
		}
	}
	eventually(t, "its place to be free", func() bool { return b.api.exports.count() == 0 })
	eventually(t, "the log", func() bool { return strings.Contains(b.log.String(), `"export cut off"`) })
	b.want(200, RoleAdmin, "GET", "/users?format=csv", nil)
}

// Half of the places are always kept for other tokens.
func TestPlacesOfOneToken(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) { o.ImportMaxUploads, o.ExportMaxActive = 2, 2 })
	b.api.watchers.places.perToken, b.api.listeners.places.perToken = 1, 1
	b.api.listeners.life = time.Minute
	b.fill(3 * service.ExportPiece)
	path := fmt.Sprintf("/imports/%d/progress", b.imported("running", 100, 10))

	slowUploadAs(t, b, b.tokens[RoleAdmin])
	b.until("an upload has its place", func() bool { return b.api.uploads.count() == 1 })
	b.slowAs(b.tokens[RoleAdmin], "/urls?format=csv")
	b.watch(t, path, "Authorization", "Bearer "+b.tokens[RoleAdmin]).event()
	b.watch(t, "/live", "Authorization", "Bearer "+b.tokens[RoleAdmin]).event()

	a := b.want(429, RoleAdmin, "POST", "/imports?kind=users", csvOfUsers, "Content-Type", "text/csv")
	if a.header.Get("Retry-After") != "10" {
		t.Errorf("refused with %v", a.header)
	}
	b.want(429, RoleAdmin, "GET", "/urls?format=csv", nil)
	b.want(429, RoleAdmin, "GET", path, nil)
	b.want(429, RoleAdmin, "GET", "/live", nil)

	bootstrap := []string{"Authorization", "Bearer " + testAdminToken}
	b.want(202, 0, "POST", "/imports?kind=users", csvOfUsers, append(bootstrap, "Content-Type", "text/csv")...)
	b.want(200, RoleReader, "GET", "/users?format=csv", nil)
	b.watch(t, path).event()
	b.watch(t, "/live").event()
}

// Repeated uploads are bounded as well, since each may need megabytes to unpack.
func TestRepeatsOfUploadsAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) { o.ImportMaxUploads = 1 })
	bootstrap := []string{"Authorization", "Bearer " + testAdminToken, "Idempotency-Key", "k", "Content-Type", "text/csv"}
	b.want(202, 0, "POST", "/imports?kind=users", csvOfUsers, bootstrap...)
	b.until("the place is free", func() bool { return b.api.uploads.count() == 0 })
	conn := slowUpload(t, b, "Idempotency-Key: k\r\n")
	b.until("the repeat has its place", func() bool { return b.api.repeats.count() == 1 })
	b.want(503, 0, "POST", "/imports?kind=users", csvOfUsers, bootstrap...)
	b.want(202, RoleAdmin, "POST", "/imports?kind=users", csvOfUsers, "Content-Type", "text/csv") // the first upload with this key
	_ = conn.Close()
	b.until("the place is free again", func() bool { return b.api.repeats.count() == 0 })
	b.want(202, 0, "POST", "/imports?kind=users", csvOfUsers, bootstrap...)
}

// If a watcher hangs up, this is noticed before anything is sent to it.
func TestWatcherThatIsLeft(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.api.watchers.look, b.api.watchers.beat = 5*time.Millisecond, time.Hour
	s := b.watch(t, fmt.Sprintf("/imports/%d/progress", b.imported("running", 100, 10)))
	s.event()
	_ = s.resp.Body.Close()
	b.until("its place is free", func() bool { return b.api.watchers.places.count() == 0 })
}

// ends are the ways in which a token ends.
var ends = map[string]string{
	"revoked": "UPDATE api_tokens SET revoked_at = now() WHERE id = $1",
	"expired": "UPDATE api_tokens SET expires_at = now() WHERE id = $1",
}

// newToken makes a token and returns a function that ends it.
func (b *bundle) newToken(role Role, end string) (secret string, finish func()) {
	b.t.Helper()
	token, secret := createToken(b.t, b.pool, "short", role)
	return secret, func() { b.exec(ends[end], token.ID) }
}

func TestUploadEndsWithItsToken(t *testing.T) {
	t.Parallel()
	for end := range ends {
		b := setup(t)
		secret, finish := b.newToken(RoleAdmin, end)
		conn := slowUploadAs(t, b, secret)
		sendChunk(t, conn, rowsFrom(0))
		b.until("a chunk is stored", func() bool { return b.count("SELECT count(*) FROM import_chunks") == 1 })
		finish()
		sendChunk(t, conn, rowsFrom(3000))
		wantNothingImported(t, b, conn)
	}
}

// Not even an upload that is never long enough for a chunk outlives its token.
func TestTrickleEndsWithItsToken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.api.clientLimits.recheckToken = time.Millisecond
	secret, finish := b.newToken(RoleAdmin, "revoked")
	conn := slowUploadAs(t, b, secret)
	b.until("the upload has its place", func() bool { return b.api.uploads.count() == 1 })
	finish()
	if line := trickle(t, conn); !strings.Contains(line, " 401 ") {
		t.Errorf("the upload was answered with %q", line)
	}
}

// A token that is being revoked while its upload is queued has been revoked first.
func TestUploadIsNotQueuedForARevokedToken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	secret, _ := b.newToken(RoleAdmin, "revoked")
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	pgtest.Exec(t, tx, "UPDATE api_tokens SET revoked_at = now() WHERE name = 'short'")
	conn := slowUploadAs(t, b, secret)
	sendChunk(t, conn, rowsFrom(0))
	if _, err := io.WriteString(conn, "0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	b.until("the upload waits for the token", func() bool {
		return b.count(`SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%FROM api_tokens%'`) == 1
	})
	require.NoError(t, tx.Commit(t.Context()))
	wantNothingImported(t, b, conn)
}

// wantNothingImported fails the test unless an upload is answered 401 and only an
// import that failed is left of it.
func wantNothingImported(t *testing.T, b *bundle, conn net.Conn) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	a, err := answerOf(resp)
	if err != nil || a.status != 401 || !strings.Contains(string(a.raw), "revoked") {
		t.Errorf("the upload was answered %d %s, %v", a.status, a.raw, err)
	}
	checkShape(t, "upload", a)
	b.until("the import failed", func() bool { return b.count("SELECT count(*) FROM imports WHERE state = 'failed'") == 1 })
	b.wantCount(0, "SELECT (SELECT count(*) FROM import_chunks) + (SELECT count(*) FROM river_job)")
}

func TestStreamsEndWithTheirToken(t *testing.T) {
	t.Parallel()
	for end := range ends {
		b := setup(t)
		b.api.clientLimits.recheckToken = 5 * time.Millisecond
		b.api.watchers.look, b.api.watchers.beat = 5*time.Millisecond, 10*time.Millisecond
		b.api.listeners.look, b.api.listeners.life = 5*time.Millisecond, time.Minute
		b.fill(3 * service.ExportPiece)
		secret, finish := b.newToken(RoleReader, end)
		s := b.watch(t, fmt.Sprintf("/imports/%d/progress", b.imported("running", 100, 10)), "Authorization", "Bearer "+secret)
		s.event()
		live := b.watch(t, "/live", "Authorization", "Bearer "+secret)
		live.event()
		export := b.slowAs(secret, "/urls?format=csv")
		for range 3 { // both go on
			if _, ok := s.next(); !ok {
				t.Fatal("the stream has ended before its token")
			}
		}
		finish()
		if e := s.event(); e != (sseEvent{}) {
			t.Errorf("%s: the stream says %+v", end, e)
		}
		if e := live.event(); e != (sseEvent{}) {
			t.Errorf("%s: clicks are told on: %+v", end, e)
		}
		if _, err := io.ReadAll(export); err == nil {
			t.Errorf("%s: the export seems to be whole", end)
		}
		eventually(t, "the places to be free", func() bool {
			return b.api.exports.count() == 0 && b.api.watchers.places.count() == 0 && b.api.listeners.places.count() == 0
		})
		if !strings.Contains(b.log.String(), `"export cut off"`) {
			t.Errorf("%s: nothing is said in the log", end)
		}
	}
}
