package api

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/service"
)

// fill makes one user and n links of about a kilobyte.
func (b *bundle) fill(n int) {
	b.t.Helper()
	b.exec(`
		INSERT INTO users (username, email) VALUES ('ann', 'ann@example.com')`)
	b.exec(`
		INSERT INTO urls (user_id, short_code, original_url)
		SELECT 1, 'c' || n, 'https://example.com/' || repeat('x', 900) FROM generate_series(1, $1) n`, n)
}

// slow begins an export that is larger than the buffers of the kernel, so that the
// server stands still while the test does not read.
func (b *bundle) slow(path string) io.ReadCloser {
	b.t.Helper()
	return b.slowAs(testAdminToken, path)
}

// slowAs is like slow, with a given token.
func (b *bundle) slowAs(secret, path string) io.ReadCloser {
	b.t.Helper()
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(256 << 10)
		}
		return conn, err
	}
	transport := &http.Transport{DialContext: dial, DisableCompression: true}
	b.t.Cleanup(transport.CloseIdleConnections)
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, "http://"+b.addr+path, nil)
	require.NoError(b.t, err)
	req.Header.Set("Authorization", "Bearer "+secret)
	resp, err := transport.RoundTrip(req)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		b.t.Fatalf("%s: %d %s", path, resp.StatusCode, body)
	}
	return resp.Body
}

// eventually polls until check is true, for at most a minute.
func eventually(tb testing.TB, what string, check func() bool) {
	tb.Helper()
	for start := time.Now(); !check(); {
		if time.Since(start) > time.Minute {
			tb.Fatalf("waited in vain for %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func lines(body []byte) int { return bytes.Count(body, []byte("\n")) }

func TestExportAsks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range 3 {
		b.user("u" + strconv.Itoa(int(time.Now().UnixNano())))
	}
	const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	tests := []struct {
		name, query, accept string
		wantType            string
		wantLines           int
	}{
		{"nothing", "", "", "application/json", 1},
		{"anything", "", "*/*", "application/json", 1},
		{"a browser", "", browser, "application/json", 1},
		{"accept csv", "", "text/csv", "text/csv; charset=utf-8; header=present", 4},
		{"accept ndjson", "", "Application/X-NDJSON", "application/x-ndjson", 3},
		{"first of two", "", "application/json, text/csv", "application/json", 1},
		{"more of two", "", "application/json;q=0.5, text/csv;q=0.6, */*;q=0.1", "text/csv; charset=utf-8; header=present", 4},
		{"refused", "", "text/csv;q=0", "application/json", 1},
		{"format goes first", "?format=ndjson", "text/csv", "application/x-ndjson", 3},
		{"format json", "?format=json", "text/csv", "application/json", 1},
		{"a page", "?format=csv&limit=2", "", "text/csv; charset=utf-8; header=present", 3},
		{"a numbered page", "?format=csv&page=2&per_page=2", "", "text/csv; charset=utf-8; header=present", 2},
		{"behind a cursor", "?format=ndjson&cursor=" + makeCursor("users", 1), "", "application/x-ndjson", 2},
		{"behind the end", "?format=csv&cursor=" + makeCursor("users", 99), "", "text/csv; charset=utf-8; header=present", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := b.want(200, RoleReader, "GET", "/users"+tt.query, nil, "Accept", tt.accept)
			if got := a.header.Get("Content-Type"); got != tt.wantType || lines(a.raw) != tt.wantLines {
				t.Errorf("got %d lines of %q, want %d of %q: %s", lines(a.raw), got, tt.wantLines, tt.wantType, a.raw)
			}
			if vary := a.header.Get("Vary"); !strings.Contains(vary, "Accept") {
				t.Errorf("Vary is %q", vary)
			}
			head := b.want(200, RoleReader, "HEAD", "/users"+tt.query, nil, "Accept", tt.accept)
			if got := head.header.Get("Content-Type"); got != tt.wantType || len(head.raw) > 0 {
				t.Errorf("HEAD: %q with %d bytes", got, len(head.raw))
			}
			if tt.wantType != "application/json" {
				name := regexp.MustCompile(`^attachment; filename="signpost-users-\d{8}T\d{6}Z\.(csv|ndjson)"$`)
				if got := a.header.Get("Content-Disposition"); !name.MatchString(got) {
					t.Errorf("Content-Disposition: %q", got)
				}
			}
		})
	}
	for path, field := range map[string]string{
		"/users?format=xml": "format", "/urls?format=csv&user_id=x": "user_id", "/urls?format=csv&tag=%00": "tag",
		"/events?format=csv&from=yesterday": "from", "/users?format=csv&cursor=x": "cursor",
		"/events?format=ndjson&cursor=x": "cursor", "/users?format=csv&limit=101": "limit", "/users?format=csv&search=ab": "search",
	} {
		if a := b.want(400, RoleReader, "GET", path, nil); a.fields()[field] == "" {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
	b.want(401, 0, "GET", "/users?format=csv", nil)
	b.want(401, 0, "GET", "/urls", nil, "Accept", "text/csv")
}

// Links can be asked for by their ids, as a list and as a file.
func TestLinksOfIDs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	owner := b.user("ann")
	ids := make([]string, 3)
	for i := range ids {
		a := b.want(201, RoleAdmin, "POST", "/urls", object{"user_id": owner, "original_url": "https://example.com", "short_code": fmt.Sprint("code", i)})
		ids[i] = strconv.FormatInt(a.id(), 10)
	}
	picked := "/urls?ids=" + ids[2] + ",999999," + ids[0]
	a := b.want(200, RoleReader, "GET", picked, nil)
	rows := a.rows()
	require.Len(t, rows, 2)
	assert.Equal(t, []any{"code2", "code0"}, []any{rows[0]["short_code"], rows[1]["short_code"]})
	file := b.want(200, RoleReader, "GET", picked+"&format=ndjson", nil)
	assert.Equal(t, 2, lines(file.raw), "%s", file.raw)
	for _, more := range []string{"&tag=a", "&domain=x.example", "&short_code=code1", "&sort=clicks", "&user_id=1", "&search=code", "&is_active=true", "&page=2", "&limit=5", "&order=oldest", strings.Repeat(",1", 100)} {
		for _, format := range []string{"", "&format=csv"} {
			a := b.want(400, RoleReader, "GET", picked+more+format, nil)
			assert.NotEmpty(t, a.fields()["ids"], "%s%s: %s", more, format, a.raw)
		}
	}
	for _, wrong := range []string{"1,x", "", "1,1", "1&ids=2"} {
		assert.NotEmpty(t, b.want(400, RoleReader, "GET", "/urls?ids="+wrong, nil).fields()["ids"])
		assert.NotEmpty(t, b.want(400, RoleReader, "GET", "/urls?format=csv&ids="+wrong, nil).fields()["ids"])
	}
	b.exec("ALTER TABLE urls DROP CONSTRAINT urls_title_length; UPDATE urls SET title = repeat('x', 1000000)")
	assert.Contains(t, b.want(400, RoleReader, "GET", picked, nil).fields()["ids"], "ask for fewer")
	b.want(401, 0, "GET", picked, nil)
}

// An export has the same rows as the list, under each filter: NDJSON in its lines, and
// CSV in its cells.
func TestExportsShowWhatListsShow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann, bob := b.user("ann"), b.user("=bob")
	for i, link := range []object{
		{"title": "plain", "tags": []string{"a", "b"}},
		{"title": `=HYPERLINK("http://evil.example";"x"), "quoted"`, "tags": []string{"@a", "[b"}, "short_code": "-1"},
		{"title": "'=not a formula, 日本語 🎉", "tags": []string{"[b]", "'+c"}, "is_active": false},
		{"expires_at": "2035-01-01T00:00:00.123456Z", "redirect_status": 308, "forward_query": true},
	} {
		link["user_id"], link["original_url"] = []int64{ann, bob}[i%2], "https://example.com/?a=1,2&b=%22"
		b.want(201, RoleAdmin, "POST", "/urls", link)
	}
	b.want(200, RoleAdmin, "PATCH", "/urls/1", object{"title": "+1 changed"})
	b.exec(`
		INSERT INTO events (occurred_at, url_id, user_id, event_type, browser, bot)
		SELECT date_trunc('day', now()) + n * interval '1 second', 1 + n % 2, 1 + n % 2, 'clicked', 'Firefox', n % 3 = 0
		FROM generate_series(1, 30) n`)
	for _, path := range []string{
		"/users?", "/users?search=BOB&", "/users?search=nobody&", "/urls?order=oldest&", "/urls?order=newest&", "/urls?order=oldest&user_id=2&", "/urls?tag=@a&", "/urls?search=FORMULA&",
		"/urls?is_active=false&", "/urls?tag=none&", "/events?order=oldest&", "/events?", "/events?url_id=2&", "/events?event_type=updated&", "/events?user_id=1&from=2020-01-01T00:00:00Z&to=2021-01-01T00:00:00Z&",
	} {
		want := b.want(200, RoleReader, "GET", path+"limit=100", nil).rows()
		asLines := b.want(200, RoleReader, "GET", path+"format=ndjson", nil)
		var got []map[string]any
		for line := range bytes.Lines(asLines.raw) {
			var row map[string]any
			if err := json.Unmarshal(line, &row); err != nil {
				t.Fatalf("%s: %v: %s", path, err, line)
			}
			got = append(got, row)
		}
		if !slices.EqualFunc(got, want, sameJSON) {
			t.Errorf("%s as NDJSON: %s\nwant %v", path, asLines.raw, want)
		}
		asCells := b.want(200, RoleReader, "GET", path+"format=csv", nil)
		compareCells(t, path, asCells.raw, want)
	}
}

func sameJSON(a, b map[string]any) bool {
	one, _ := json.Marshal(a)
	two, _ := json.Marshal(b)
	return bytes.Equal(one, two)
}

// compareCells fails the test unless the cells of a CSV file, as an import restores
// them, are the values of rows. No cell may run as a formula.
func compareCells(t *testing.T, what string, file []byte, rows []map[string]any) {
	t.Helper()
	records, err := csv.NewReader(bytes.NewReader(file)).ReadAll()
	if err != nil || len(records) != len(rows)+1 {
		t.Fatalf("%s as CSV: %v, %d records, want %d", what, err, len(records), len(rows)+1)
	}
	for i, row := range rows {
		if fields := slices.Sorted(slices.Values(records[0])); !slices.Equal(fields, slices.Sorted(maps.Keys(row))) {
			t.Fatalf("%s: columns %v of %v", what, fields, row)
		}
		for j, cell := range records[i+1] {
			name := records[0][j]
			if strings.ContainsAny(cell[:min(1, len(cell))], "=+-@\t\r") {
				t.Errorf("%s: %s runs as a formula: %s", what, name, cell)
			}
			var want string
			switch v := row[name].(type) {
			case nil:
			case string:
				if want = v; name == "domain" && v == "sign.example" {
					want = "" // may have another host where the file is imported
				}
			case []any:
				for _, tag := range v {
					want += "|" + tag.(string)
				}
				if want = strings.TrimPrefix(want, "|"); strings.HasPrefix(want, "[") {
					want = "|" + want
				}
			case map[string]any:
				var got map[string]any
				if err := json.Unmarshal([]byte(cell), &got); err != nil || !sameJSON(got, v) {
					t.Errorf("%s: %s is %s, want %v", what, name, cell, v)
				}
				continue
			default:
				text, _ := json.Marshal(v)
				want = string(text)
			}
			if got := csvimport.Restore(cell); got != want {
				t.Errorf("%s: %s is %q, want %q", what, name, got, want)
			}
		}
	}
}

// An export in many pieces, packed or not, holds every row once.
func TestExportIsWhole(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const rows = 2*service.ExportPiece + 1
	b.fill(rows)
	for _, path := range []string{"/urls?format=csv", "/urls?format=ndjson"} {
		header := map[string]int{"/urls?format=csv": 1}[path]
		plain := b.want(200, RoleReader, "GET", path, nil, "Accept-Encoding", "identity")
		if n := lines(plain.raw); n != rows+header {
			t.Errorf("%s: %d lines, want %d", path, n, rows+header)
		}
		packed := b.want(200, RoleReader, "GET", path, nil, "Accept-Encoding", "br, gzip;q=0.5")
		if packed.header.Get("Content-Encoding") != "gzip" || len(packed.raw) > len(plain.raw)/4 {
			t.Errorf("%s: %d bytes of %v", path, len(packed.raw), packed.header)
		}
		r, err := gzip.NewReader(bytes.NewReader(packed.raw))
		require.NoError(t, err)
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain.raw) {
			t.Errorf("%s: unpacked %d bytes, %v; want the %d of the other", path, len(got), err, len(plain.raw))
		}
		if a := b.want(200, RoleReader, "GET", path, nil, "Accept-Encoding", "gzip;q=0"); a.header.Get("Content-Encoding") != "" {
			t.Errorf("%s: packed for who does not want it", path)
		}
	}
}

// The test is not parallel, so that nothing else uses the heap.
func TestExportNeedsNoMemory(t *testing.T) {
	b := setup(t)
	const rows = 200_000
	b.exec(`
		INSERT INTO users (username, email) SELECT 'u' || n, 'u' || n || '@example.com' FROM generate_series(1, $1) n`, rows)
	live := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // pools release their memory at the second collection
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := live()
	body := b.slow("/users?format=csv")
	in, n, most := bufio.NewScanner(body), 0, int64(0)
	for ; in.Scan(); n++ {
		if n%(rows/8) == 1 {
			most = max(most, live()-before)
		}
	}
	if n != rows+1 || in.Err() != nil {
		t.Fatalf("%d lines, %v", n, in.Err())
	}
	t.Logf("at most %d KiB more on the heap", most>>10)
	if most > 8<<20 {
		t.Errorf("%d KiB more on the heap while %d rows were exported", most>>10, rows)
	}
}

// A slow client holds neither a connection nor a transaction. It gets everything in the
// end, although all connections to the database were cut meanwhile.
func TestExportForASlowClient(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const rows = 3 * service.ExportPiece
	b.fill(rows)
	body := b.slow("/urls?format=ndjson")
	first := make([]byte, 1)
	if _, err := io.ReadFull(body, first); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the export to hold no connection", func() bool { return b.pool.Stat().AcquiredConns() == 0 })
	var open int
	err := b.pool.QueryRow(t.Context(), `
		SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)
			AND backend_type = 'client backend'`).Scan(&open)
	if err != nil || open != 0 {
		t.Errorf("%d transactions are open, %v", open, err)
	}
	b.exec(`
		SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	rest, err := io.ReadAll(body)
	if err != nil || lines(rest) != rows {
		t.Errorf("%d lines, %v; want %d", lines(rest), err, rows)
	}
}

// If an export fails in the middle, the client notices it.
func TestExportThatFails(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(3 * service.ExportPiece)
	body := b.slow("/urls?format=csv")
	b.exec(`ALTER TABLE urls RENAME TO gone`)
	got, err := io.ReadAll(body)
	if !errors.Is(err, io.ErrUnexpectedEOF) || lines(got) < 2 {
		t.Errorf("%d lines and the error %v; want some and an unexpected end", lines(got), err)
	}
	eventually(t, "the log", func() bool { return strings.Contains(b.log.String(), `"export failed"`) })
	b.want(500, RoleAdmin, "GET", "/urls?format=csv", nil)
	if n := b.api.exports.count(); n != 0 {
		t.Errorf("%d places are taken", n)
	}
}

// If a client hangs up, the query that runs for it is ended.
func TestExportThatIsLeft(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(3 * service.ExportPiece)
	body := b.slow("/urls?format=csv")
	lock, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = lock.Rollback(context.Background()) }()
	pgtest.Exec(t, lock, "LOCK TABLE urls")
	waiting := func() (n int) {
		err := b.pool.QueryRow(t.Context(), `
			SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%FROM urls%'`).Scan(&n)
		require.NoError(t, err)
		return n
	}
	go func() { _, _ = io.Copy(io.Discard, body) }()
	eventually(t, "the export to wait for the lock", func() bool { return waiting() == 1 })
	_ = body.Close()
	eventually(t, "its place to be free", func() bool { return b.api.exports.count() == 0 })
	eventually(t, "its query to end", func() bool { return waiting() == 0 })
	if !strings.Contains(b.log.String(), `"export left by its client"`) {
		t.Error("nothing is said in the log")
	}
}

func TestExportsAreBounded(t *testing.T) {
	t.Parallel()
	b := setupOn(t, pgtest.Pool(t), func(o *Options) { o.ExportMaxActive = 1 })
	b.fill(2 * service.ExportPiece)
	body := b.slow("/urls?format=csv")
	if a := b.want(503, RoleAdmin, "GET", "/users?format=csv", nil); a.header.Get("Retry-After") != "10" || a.header.Get("Content-Disposition") != "" {
		t.Errorf("refused with %v", a.header)
	}
	b.want(200, RoleAdmin, "GET", "/users", nil)
	b.want(200, RoleAdmin, "HEAD", "/users?format=csv", nil)
	if _, err := io.ReadAll(body); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the place to be free", func() bool { return b.api.exports.count() == 0 })
	b.want(200, RoleAdmin, "GET", "/users?format=csv", nil)
}

// A shutdown does not wait for slow clients, and they notice that the export was cut
// off.
func TestExportThatIsStopped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(3 * service.ExportPiece)
	body := b.slow("/urls?format=csv")
	b.shutDown()
	if _, err := io.ReadAll(body); err == nil {
		t.Error("the export seems to be whole")
	}
}
