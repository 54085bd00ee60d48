package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fillLargely makes 100 rows of every list, each as large as it may be.
func (b *bundle) fillLargely() {
	b.t.Helper()
	b.exec(`INSERT INTO users (username, email) SELECT rpad('u' || n, 64, 'x'), rpad('u' || n, 240, 'x') || '@example.com' FROM generate_series(1, 100) n`)
	b.exec(`INSERT INTO urls (user_id, short_code, original_url, title, tags)
		SELECT 1, 'c' || n, 'https://example.com/' || repeat('"', 2000), repeat('\', 255), array_fill(repeat('"', 50), ARRAY[20])
		FROM generate_series(1, 100) n`)
	b.exec(`INSERT INTO events (occurred_at, url_id, user_id, event_type, details)
		SELECT date_trunc('day', now()) + n * interval '1 second', 1, 1, 'updated', jsonb_build_object('x', repeat('x', 32000))
		FROM generate_series(1, 100) n`)
	b.exec(`INSERT INTO api_tokens (name, role, hash) SELECT repeat('"', 100), 'reader', sha256(n::text::bytea) FROM generate_series(1, 100) n`)
	// These are rows as an earlier release recorded them.
	b.exec(`INSERT INTO imports (kind, layout, keep_ids, actor_name, state, filename)
		SELECT 'urls', jsonb_build_object('ignored', jsonb_agg('column' || c), 'header', jsonb_agg('column' || c), 'columns', jsonb_agg(''::text)),
			true, 'test', 'failed', repeat('"', 255)
		FROM generate_series(1, 100) n, generate_series(1, 9000) c
		GROUP BY n`)
	b.exec(`INSERT INTO import_errors (import_id, line, field, reason, record)
		SELECT 1, n, 'email', 'is wrong', decode(repeat('01', 65400), 'hex') FROM generate_series(1, 100) n`)
	b.exec(`INSERT INTO import_outcomes (import_id, line, outcome, row_id, before)
		SELECT 1, n, 'updated', n, jsonb_build_object('original_url', repeat('"', 16000)) FROM generate_series(1, 100) n`)
}

// A page is bounded in bytes, however large its rows are, and no row is lost by that.
func TestPagesAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fillLargely()
	for path, rows := range map[string]int{
		"/users": 100, "/urls": 100, "/events": 100, "/tokens": 103, "/imports": 100, "/imports/1/errors": 100, "/imports/1/kept": 100,
	} {
		seen, largest := 0, 0
		for next := path + "?limit=100"; next != ""; {
			page := b.want(200, RoleAdmin, "GET", next, nil)
			seen, largest = seen+len(page.rows()), max(largest, len(page.raw))
			if page.body["count"] != float64(len(page.rows())) || len(page.rows()) == 0 {
				t.Fatalf("%s: a page says count %v and has %d rows", path, page.body["count"], len(page.rows()))
			}
			cursor, _ := page.body["next_cursor"].(string)
			if next = ""; cursor != "" {
				next = path + "?limit=100&cursor=" + cursor
			}
		}
		t.Logf("%s: the largest page has %d bytes", path, largest)
		if seen != rows || largest > maxPage+1000 {
			t.Errorf("%s: %d rows in pages of up to %d bytes, want %d in up to %d", path, seen, largest, rows, maxPage)
		}
	}
}

// If a numbered page ended early, it would hide rows. So it is refused.
func TestNumberedPagesAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fillLargely()
	for _, query := range []string{"per_page=100", "page=1&per_page=100", "page=1&limit=100"} {
		a := b.want(400, RoleReader, "GET", "/events?"+query, nil)
		if message := a.fields()["per_page"]; !strings.Contains(message, "1 MiB") || !strings.Contains(message, "cursor") {
			t.Errorf("%s: %s", query, a.raw)
		}
	}
	if rows := b.want(200, RoleReader, "GET", "/events?page=10&per_page=10", nil).rows(); len(rows) != 10 {
		t.Errorf("a page of ten has %d rows", len(rows))
	}
}

// Rejected rows are cut in JSON, which says so, and are complete in the file.
func TestRejectedRowsAreCut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(202, RoleAdmin, "POST", "/users/bulk", csvOfUsers, "Content-Type", "text/csv")
	b.exec(`INSERT INTO import_errors (import_id, line, field, reason, record) VALUES
		(1, 2, 'email', 'is wrong', convert_to('ann,' || repeat('x', 496), 'UTF8')), (1, 3, 'email', 'is wrong', convert_to('bob,' || repeat('x', 497), 'UTF8'))`)
	list := b.want(200, RoleReader, "GET", "/imports/1/errors", nil).rows()
	first, _ := b.want(200, RoleReader, "GET", "/imports/1", nil).body["first_errors"].([]any)
	for i, name := range []string{"ann,", "bob,"} {
		for _, row := range []map[string]any{list[i], first[i].(map[string]any)} {
			if row["record"] != name+strings.Repeat("x", 496) || row["record_cut"] != (i == 1) {
				t.Errorf("row %d is %v", i, row)
			}
		}
	}
	if file := b.want(200, RoleReader, "GET", "/imports/1/errors?format=csv", nil); !strings.Contains(string(file.raw), strings.Repeat("x", 497)) {
		t.Errorf("the file has not all of it: %s", file.raw)
	}
}

// If very many columns are not read, the first ones are named, and all are counted.
func TestManyIgnoredColumns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	header, row := "username,email", "ann,ann@example.com"
	for i := range 9000 {
		header, row = header+fmt.Sprintf(",c%d", i), row+","
	}
	b.want(202, RoleAdmin, "POST", "/users/bulk", header+"\n"+row+"\n", "Content-Type", "text/csv")
	for _, path := range []string{"/imports/1", "/imports"} {
		got := b.want(200, RoleReader, "GET", path, nil).body
		if path == "/imports" {
			got = got["data"].([]any)[0].(map[string]any)
		}
		names, _ := got["ignored_columns"].([]any)
		if len(names) != 50 || names[49] != "c49" || got["ignored_columns_total"] != 9000.0 {
			t.Errorf("%s: %d names, total %v", path, len(names), got["ignored_columns_total"])
		}
	}
	b.wantCount(50, "SELECT jsonb_array_length(layout->'ignored') FROM imports")
}

// The test is not parallel, so that nothing else uses the heap. Answers to readers that
// stall are kept in our memory: in all no more than the bound, and for one token no
// more than half of it.
func TestStalledReadersOfPages(t *testing.T) {
	b := setup(t)
	b.fillLargely()
	before := inUse()
	statuses := map[int]int{}
	for range 60 {
		statuses[b.stall("/events?limit=100", b.tokens[RoleReader])]++
	}
	grown := inUse() - before
	t.Logf("60 readers of one token: %v, %d KiB more are in use", statuses, grown>>10)
	// On a slow machine, the first readers are cut off before the last have asked, and the
	// database may not answer some of them in time.
	if n := statuses[200]; n < 15 || n+statuses[429]+statuses[503] != 60 {
		t.Errorf("60 readers that stall were answered %v", statuses)
	}
	for range 60 {
		statuses[b.stall("/imports/1/kept?limit=100", b.tokens[RoleEditor])]++
	}
	if grown = inUse() - before; grown > 100<<20 {
		t.Errorf("120 readers that stall take %d KiB", grown>>10)
	}
	if held := b.api.held.count(); held > heldBytes {
		t.Errorf("%d bytes are held", held)
	}
	b.leaveAll()
	b.until("all is given back", func() bool { return b.api.held.count() == 0 })
	b.want(200, RoleReader, "GET", "/events?limit=100", nil)
}

// While all room is taken, small requests still work.
func TestAnswersWithoutRoom(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fillLargely()
	var gives []func()
	for id := range int64(2) {
		give, err := b.api.held.take(actorNumber(1000+id), heldBytes/2)
		require.NoError(t, err)
		gives = append(gives, give)
	}
	b.want(503, RoleReader, "GET", "/events?limit=100", nil)
	b.want(200, RoleReader, "GET", "/users/1", nil)
	b.want(201, RoleAdmin, "POST", "/users", object{"username": "new", "email": "new@example.com"})
	gives[0]()
	b.want(200, RoleReader, "GET", "/events?limit=100", nil)
}

// Bodies that are being received count as well, and do not keep the places of requests.
func TestSlowBodiesAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	begin := func(length string) {
		t.Helper()
		conn := b.dial()
		b.conns = append(b.conns, conn)
		// The server waits for this beginning of the body before it calls the handler.
		b.write(conn, "POST /urls HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"+
			"Content-Type: application/json\r\n%s\r\n\r\n2000\r\n%s\r\n", b.tokens[RoleEditor], length, strings.Repeat(" ", 8<<10))
	}
	for range heldBytes / 2 / maxBody {
		begin("Transfer-Encoding: chunked")
	}
	b.until("half of the bytes are held", func() bool { return b.api.held.count() == heldBytes/2 })
	if n := len(b.api.bulkheads.requests.places); n != 0 {
		t.Errorf("%d requests have a place while their clients send", n)
	}
	link := object{"user_id": ann, "original_url": "https://example.com", "note": strings.Repeat("x", heldLeast)}
	b.want(http.StatusTooManyRequests, RoleEditor, "POST", "/urls", link)
	b.want(201, RoleAdmin, "POST", "/urls", link)
	delete(link, "note")
	b.want(201, RoleEditor, "POST", "/urls", link)
	b.leaveAll()
	b.until("all is given back", func() bool { return b.api.held.count() == 0 })
}

// leaveAll hangs up all connections that were made to stall.
func (b *bundle) leaveAll() {
	for _, conn := range b.conns {
		_ = conn.Close()
	}
}

func TestBodiesOfVeryManyValues(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, body := range []string{
		`{"tags":[` + strings.Repeat("1,", 1<<19-40) + `1]}`,
		`{"x":[` + strings.Repeat("{},", (1<<20-40)/3) + `1]}`,
	} {
		a := b.want(400, RoleEditor, "POST", "/urls", body)
		if !strings.Contains(string(a.raw), "more than 10100 values") {
			t.Errorf("%s", a.raw)
		}
	}
}
