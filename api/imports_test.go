package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgserver"
	"github.com/signpost/signpost/internal/pgtest"
)

const csvOfUsers = "username,email\nann,ann@example.com\nbob,bob@example.com\n"

// form returns a multipart body with a field and a file, and its content type.
func form(tb testing.TB, field, filename, content string) (body, contentType string) {
	tb.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	require.NoError(tb, w.WriteField("note", "read before the file"))
	part, err := w.CreateFormFile(field, filename)
	require.NoError(tb, err)
	if _, err := io.WriteString(part, content); err != nil {
		tb.Fatal(err)
	}
	require.NoError(tb, w.Close())
	return b.String(), w.FormDataContentType()
}

func (b *bundle) count(sql string, args ...any) int64 {
	b.t.Helper()
	var n int64
	require.NoErrorf(b.t, b.pool.QueryRow(b.t.Context(), sql, args...).Scan(&n), "%s", sql)
	return n
}

// wantCount fails the test unless a query counts so many.
func (b *bundle) wantCount(want int64, sql string, args ...any) {
	b.t.Helper()
	if n := b.count(sql, args...); n != want {
		b.t.Errorf("%s %v: %d, want %d", sql, args, n, want)
	}
}

func TestUpload(t *testing.T) {
	t.Parallel()
	b := setup(t)
	body, contentType := form(t, "file", `C:\files\people.csv`, csvOfUsers)
	for name, path := range map[string]string{"kind": "/imports?kind=users", "bulk": "/users/bulk"} {
		a := b.want(202, RoleAdmin, "POST", path, body, "Content-Type", contentType)
		location := a.header.Get("Location")
		if want := fmt.Sprintf("/imports/%.0f", a.body["id"]); location != want {
			t.Fatalf("%s: Location is %q, want %q", name, location, want)
		}
		got := b.want(200, RoleReader, "GET", location, nil).body
		for field, want := range (object{
			"kind": "users", "state": "queued", "format": "signpost", "filename": "people.csv", "rows_total": 2.0,
			"rows_imported": 0.0, "chunks_total": 1.0, "created_by": "admin of the test", "error": nil, "finished_at": nil,
		}) {
			if got[field] != want {
				t.Errorf("%s: %s is %v, want %v", name, field, got[field], want)
			}
		}
		if sent, _ := got["bytes_received"].(float64); int(sent) < len(csvOfUsers) || int(sent) > len(body) {
			t.Errorf("%s: bytes_received is %v of %d", name, got["bytes_received"], len(body))
		}
	}
	b.want(202, RoleAdmin, "POST", "/imports?kind=users", csvOfUsers, "Content-Type", "text/csv; charset=utf-8")
	b.wantCount(3, "SELECT count(*) FROM river_job j JOIN imports i ON i.job_id = j.id WHERE j.kind = 'apply_chunk'")
	list := b.want(200, RoleReader, "GET", "/imports?limit=2", nil).body
	if list["count"] != 2.0 || list["next_cursor"] == nil {
		t.Errorf("list has %v rows and the cursor %v", list["count"], list["next_cursor"])
	}
}

// A file of several chunks has one job, which applies all of them.
func TestUploadOfManyChunks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var file strings.Builder
	file.WriteString("username,email\n")
	for i := range 5000 {
		fmt.Fprintf(&file, "user%d,user%d@example.com\n", i, i)
	}
	a := b.want(202, RoleAdmin, "POST", "/imports?kind=users", file.String(), "Content-Type", "text/csv")
	if a.body["rows_total"] != 5000.0 || a.body["chunks_total"] != 3.0 {
		t.Errorf("%s", a.raw)
	}
	b.wantCount(1, "SELECT count(*) FROM river_job WHERE kind = 'apply_chunk'")
}

func TestRefusedUploads(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other, otherType := form(t, "document", "a.csv", csvOfUsers)
	for _, test := range []struct {
		name, path, body, contentType string
		role                          Role
		status                        int
		says                          string
	}{
		{"no kind", "/imports", csvOfUsers, "text/csv", RoleAdmin, 400, "users, urls or events"},
		{"unknown kind", "/imports?kind=cats", csvOfUsers, "text/csv", RoleAdmin, 400, "users, urls or events"},
		{"JSON", "/imports?kind=users", `{}`, "application/json", RoleAdmin, 415, "text/csv"},
		{"form without a boundary", "/imports?kind=users", csvOfUsers, "multipart/form-data", RoleAdmin, 400, "boundary"},
		{"form with an empty boundary", "/imports?kind=users", csvOfUsers, "multipart/form-data; boundary=", RoleAdmin, 400, "boundary"},
		{"form with two boundaries", "/users/bulk", csvOfUsers, "Multipart/Form-Data ;boundary=a; boundary=b", RoleAdmin, 400, "boundary"},
		{"another kind of multipart", "/imports?kind=users", csvOfUsers, "multipart/mixed", RoleAdmin, 415, "text/csv"},
		{"no type", "/imports?kind=users", csvOfUsers, ";", RoleAdmin, 415, "text/csv"},
		{"form without the file", "/imports?kind=users", other, otherType, RoleAdmin, 400, "file"},
		{"form cut off", "/imports?kind=users", other[:60], otherType, RoleAdmin, 400, ""},
		{"nothing", "/imports?kind=users", "", "text/csv", RoleAdmin, 400, "empty"},
		{"header only", "/imports?kind=users", "username,email\n", "text/csv", RoleAdmin, 400, "no rows"},
		{"other columns", "/imports?kind=users", "a,b\n1,2\n", "text/csv", RoleAdmin, 400, "username"},
		{"ZIP", "/imports?kind=users", "PK\x03\x04" + strings.Repeat("x", 100), "text/csv", RoleAdmin, 400, ""},
		{"NUL in a name", "/imports?kind=users", "username,email,sh\x00oe\nann,ann@example.com,39\n", "text/csv", RoleAdmin, 400, "the name of column 3, sh?oe, has a NUL byte in it; found the columns username, email, sh?oe; expected username, email"},
		{"users by an editor", "/imports?kind=users", csvOfUsers, "text/csv", RoleEditor, 403, "admin"},
		{"events by an editor", "/imports?kind=events", csvOfUsers, "text/csv", RoleEditor, 403, "admin"},
		{"links by a reader", "/imports?kind=urls", csvOfUsers, "text/csv", RoleReader, 403, "editor"},
	} {
		a := b.want(test.status, test.role, "POST", test.path, test.body, "Content-Type", test.contentType)
		if !strings.Contains(string(a.raw), test.says) {
			t.Errorf("%s: %s does not say %q", test.name, a.raw, test.says)
		}
	}
	b.wantCount(0, "SELECT count(*) FROM imports WHERE state <> 'failed'")
	b.wantCount(0, "SELECT count(*) FROM import_chunks")
}

// An upload that is too large is refused, whether or not its length is announced.
func TestUploadOfTooMuch(t *testing.T) {
	t.Parallel()
	b := setupOn(t, pgtest.Pool(t), func(o *Options) { o.ImportMaxBytes = 1 << 20 })
	big := "username,email\n" + strings.Repeat("a,a@example.com\n", 1<<20/16)
	a := b.want(413, RoleAdmin, "POST", "/imports?kind=users", big, "Content-Type", "text/csv")
	if !strings.Contains(string(a.raw), "1048576") {
		t.Errorf("%s does not say how much is allowed", a.raw)
	}
	a, err := b.send(RoleAdmin, "POST", "/imports?kind=users", io.MultiReader(strings.NewReader(big)), "Content-Type", "text/csv")
	if err != nil || a.status != 413 {
		t.Errorf("in chunks: %d %s %v", a.status, a.raw, err)
	}
	form, contentType := form(t, "file", "a.csv", big)
	b.want(413, RoleAdmin, "POST", "/imports?kind=users", form+strings.Repeat("\r\n", multipartSlack), "Content-Type", contentType)
	b.wantCount(0, "SELECT count(*) FROM import_chunks")
}

// If the announced length is too large, the answer comes before the body is sent.
// fasthttp waits for the first 8 KiB, and nobody waits for the rest.
func TestUploadOfTooMuchIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	b := setupOn(t, pgtest.Pool(t), func(o *Options) { o.ImportMaxBytes = 1 << 20 })
	for name, header := range map[string]string{
		"10 GB":        "Content-Type: text/csv\r\nContent-Length: 10000000000",
		"one byte":     "Content-Type: text/csv\r\nContent-Length: 1048577",
		"packed":       "Content-Type: text/csv\r\nContent-Encoding: gzip\r\nContent-Length: 1048577",
		"in a form":    fmt.Sprintf("Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d", 1<<20+multipartSlack+1),
		"as users":     "Content-Type: text/csv\r\nContent-Length: 9223372036854775807",
		"to be waited": "Content-Type: text/csv\r\nExpect: 100-continue\r\nContent-Length: 10000000000",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := b.dial()
			// This is well below uploadIdle, after which a silent upload is given up.
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(uploadIdle/3)))
			b.write(conn, "POST /users/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n%s", testAdminToken, header,
				strings.Repeat("a,a@example.com\n", 1024))
			answer, err := io.ReadAll(conn)
			text := strings.TrimPrefix(string(answer), "HTTP/1.1 100 Continue\r\n\r\n")
			if err != nil || !strings.HasPrefix(text, "HTTP/1.1 413 ") || !strings.Contains(text, "at most 1048576 bytes") {
				t.Errorf("answered with %q, %v", answer, err)
			}
		})
	}
}

// An upload may take longer than the time that the server gives for reading a request,
// as long as bytes keep coming.
func TestUploadIsSlowerThanReadTimeout(t *testing.T) {
	t.Parallel()
	b := *setup(t)
	const timeout = 300 * time.Millisecond
	o := b.api.Options
	o.Registry = nil
	var err error
	if b.api, err = New(o); err != nil { // besides the first API, which is serving already
		t.Fatal(err)
	}
	b.api.app.Server().ReadTimeout = timeout
	b.serve()
	body, w := io.Pipe()
	go func() {
		tick := time.NewTicker(timeout / 3)
		defer tick.Stop()
		_, err := io.WriteString(w, csvOfUsers)
		for n := 0; n < 10 && err == nil; n++ { // more than three times the timeout
			<-tick.C
			_, err = fmt.Fprintf(w, "user%d,user%d@example.com\n", n, n)
		}
		_ = w.CloseWithError(err) // never fails
	}()
	a, err := b.send(RoleAdmin, "POST", "/imports?kind=users", body, "Content-Type", "text/csv")
	if err != nil || a.status != 202 || a.body["rows_total"] != 12.0 {
		t.Errorf("%d %s %v", a.status, a.raw, err)
	}
}

// The number of concurrent uploads is bounded (I7), and a place becomes free when an
// upload has ended, in whatever way. A repeated request gets the outcome of the first
// one all the same.
func TestUploadsAreBounded(t *testing.T) {
	t.Parallel()
	b := setupOn(t, pgtest.Pool(t), func(o *Options) { o.ImportMaxUploads, o.ImportMaxBytes = 1, 1<<20 })
	send := func(status int, key string) answer {
		return b.want(status, RoleAdmin, "POST", "/users/bulk", csvOfUsers, "Content-Type", "text/csv", "Idempotency-Key", key)
	}
	taken := func(n float64) func() bool {
		return func() bool { return testutil.ToFloat64(b.api.metrics.uploading) == n }
	}
	first := send(202, "done")
	for _, end := range []error{nil, io.ErrUnexpectedEOF} {
		key := fmt.Sprint("ends with ", end)
		body, w := io.Pipe()
		done := make(chan answer, 1)
		go func() {
			a, _ := b.send(RoleAdmin, "POST", "/users/bulk", body, "Content-Type", "text/csv", "Idempotency-Key", key)
			done <- a
		}()
		// This is too little for the key to be in the database.
		if _, err := io.WriteString(w, csvOfUsers); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the place to be taken", taken(1))
		if a := send(503, "another"); a.header.Get("Retry-After") != "10" {
			t.Errorf("refused with %v", a.header)
		}
		sameAnswer(t, "a repeat", first, send(202, "done"))
		b.want(413, RoleAdmin, "POST", "/users/bulk", strings.Repeat("x", 1<<20+1), "Content-Type", "text/csv")
		_ = w.CloseWithError(end) // never fails
		if a := <-done; end == nil && a.status != 202 {
			t.Errorf("the one that was there is answered with %d %s", a.status, a.raw)
		}
		eventually(t, "the place to be free", taken(0))
	}
	send(202, "another")
}

// A file that was cut off is not taken for a whole file.
func TestUploadCutOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, request := range map[string]string{
		"length": "Content-Length: 1000\r\n\r\n" + csvOfUsers,
		"chunks": fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(csvOfUsers), csvOfUsers),
	} {
		conn := b.dial()
		b.write(conn, "POST /users/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: text/csv\r\n%s", testAdminToken, request)
		if tcp, ok := conn.(*net.TCPConn); !ok || tcp.CloseWrite() != nil {
			t.Fatal("half of the connection cannot be closed")
		}
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.Contains(answer, " 400 ") {
			t.Errorf("%s: answered with %q, %v", name, answer, err)
		}
		_ = conn.Close()
	}
	b.wantCount(0, "SELECT count(*) FROM river_job")
}

// The owner of links in a file without owners is given with the upload.
func TestUploadOfLinksWithoutOwners(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	const file = "keyword,url\none,https://example.com/\n"
	for query, says := range map[string]string{
		"":                                  "whose the links are",
		"&user_id=0":                        "must be the id of a user",
		"&user_id=ann":                      "must be the id of a user",
		fmt.Sprint("&user_id=", ann+1):      "is not a user",
		"&user_id=9223372036854775808":      "must be the id of a user",
		"&user_id=" + fmt.Sprint(int64(-1)): "must be the id of a user",
	} {
		a := b.want(400, RoleEditor, "POST", "/imports?kind=urls"+query, file, "Content-Type", "text/csv")
		if !strings.Contains(string(a.raw), says) || a.fields()["user_id"] == "" {
			t.Errorf("%q: %s does not say %q", query, a.raw, says)
		}
	}
	a := b.want(202, RoleEditor, "POST", fmt.Sprint("/imports?kind=urls&user_id=", ann), file, "Content-Type", "text/csv")
	if a.body["format"] != "yourls" {
		t.Errorf("%s", a.raw)
	}
	b.wantCount(1, "SELECT count(*) FROM imports WHERE owner_id = $1", ann)
}

// The options in the query of an upload are stored with the import.
func TestUploadOptions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := b.want(202, RoleAdmin, "POST", "/imports?kind=users&on_conflict=update&dry_run=true&format=signpost"+
		"&mapping=Who%2C+really%3A:username&mapping=mail:email&mapping=ignored:&escape=backslash&timezone=America/New_York",
		"\"Who, really:\",mail,ignored\nann,ann@example.com,x\n", "Content-Type", "text/csv")
	for field, want := range (object{
		"on_conflict": "update", "dry_run": true, "format": "signpost", "encoding": "utf-8", "rows_total": 1.0, "escape": "backslash", "timezone": "America/New_York", "rows_updated": 0.0, "rows_skipped": 0.0,
	}) {
		if a.body[field] != want {
			t.Errorf("%s is %v, want %v", field, a.body[field], want)
		}
	}
	a = b.want(202, RoleAdmin, "POST", "/users/bulk?on_conflict=skip&dry_run=0", csvOfUsers, "Content-Type", "text/csv")
	if a.body["on_conflict"] != "skip" || a.body["dry_run"] != false {
		t.Errorf("%s", a.raw)
	}
	a = b.want(202, RoleAdmin, "POST", "/imports?kind=users", csvOfUsers, "Content-Type", "text/csv")
	if a.body["on_conflict"] != "reject" || a.body["dry_run"] != false || a.body["escape"] != "none" || a.body["timezone"] != "UTC" {
		t.Errorf("%s", a.raw)
	}
	a = b.want(202, RoleAdmin, "POST", "/users/bulk?encoding=Latin-1", "username,email\nJos\xe9,jose@example.com\n", "Content-Type", "text/csv")
	if a.body["encoding"] != "iso-8859-1" {
		t.Errorf("%s", a.raw)
	}
	b.wantCount(1, "SELECT count(*) FROM import_chunks WHERE convert_from(data, 'UTF8') = E'José,jose@example.com\n'")
	b.exec("UPDATE imports SET layout = layout - 'encoding'") // as in rows of the previous release
	if got := b.want(200, RoleReader, "GET", "/imports/1", nil).body; got["encoding"] != nil {
		t.Errorf("the encoding of an old import is %v", got["encoding"])
	}
}

func TestWrongUploadOptions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for query, field := range map[string]string{
		"kind=users&on_conflict=replace":                   "on_conflict",
		"kind=events&on_conflict=update":                   "on_conflict",
		"kind=users&dry_run=maybe":                         "dry_run",
		"kind=users&dry_run":                               "dry_run",
		"kind=users&dry_run=false&dry_run=true":            "dry_run",
		"kind=users&encoding=koi8-r":                       "encoding",
		"kind=users&escape=slash":                          "escape",
		"kind=users&timezone=Local":                        "timezone",
		"kind=users&timezone=%2B02:00":                     "timezone",
		"kind=users&format=shlink":                         "format",
		"kind=users&mapping=username":                      "mapping",
		"kind=users&mapping=:username":                     "mapping",
		"kind=users&mapping=username:nonsense":             "mapping",
		"kind=users&mapping=nonsense:username":             "mapping",
		"kind=users&mapping=email:&mapping=email:username": "mapping",
		"kind=users" + strings.Repeat("&mapping=a:", 101):  "mapping",
	} {
		a := b.want(400, RoleAdmin, "POST", "/imports?"+query, csvOfUsers, "Content-Type", "text/csv")
		if a.fields()[field] == "" || len(a.fields()) != 1 {
			t.Errorf("%s: %s does not blame %s alone", query, a.raw, field)
		}
	}
	a := b.want(400, RoleAdmin, "POST", "/imports?kind=users&on_conflict=x&dry_run=x&user_id=x&mapping=x&encoding=x&escape=x&timezone=x", csvOfUsers, "Content-Type", "text/csv")
	if len(a.fields()) != 7 {
		t.Errorf("%s does not name all seven", a.raw)
	}
	b.wantCount(0, "SELECT count(*) FROM imports")
}

// A dry run reserves no ids.
func TestDryRunReservesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(202, RoleAdmin, "POST", "/imports?kind=users&dry_run=true", "id,username,email\n70,ann,ann@example.com\n", "Content-Type", "text/csv")
	if user := b.user("cleo"); user >= 70 {
		t.Errorf("a user got id %d", user)
	}
}

// The ids in a file of an editor are not kept.
func TestUploadByAnEditor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(202, RoleEditor, "POST", "/imports?kind=urls", "id,user_id,original_url\n1,1,https://example.com/\n",
		"Content-Type", "text/csv")
	b.wantCount(1, "SELECT count(*) FROM imports WHERE NOT keep_ids")
}

// slowUpload begins an upload without announcing its length.
func slowUpload(t *testing.T, b *bundle, header ...string) net.Conn {
	t.Helper()
	return slowUploadAs(t, b, testAdminToken, header...)
}

// slowUploadAs is like slowUpload, with a given token.
func slowUploadAs(t *testing.T, b *bundle, secret string, header ...string) net.Conn {
	t.Helper()
	conn := b.dial()
	b.write(conn, "POST /imports?kind=users HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: text/csv\r\n%sTransfer-Encoding: chunked\r\n\r\n", secret, strings.Join(header, ""))
	sendChunk(t, conn, "username,email\n")
	return conn
}

func sendChunk(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := fmt.Fprintf(conn, "%x\r\n%s\r\n", len(text), text); err != nil {
		t.Fatal(err)
	}
}

// rowsFrom returns more rows than a chunk takes.
func rowsFrom(first int) string {
	var rows strings.Builder
	for i := range 2100 {
		fmt.Fprintf(&rows, "user%d,user%d@example.com\n", first+i, first+i)
	}
	return rows.String()
}

// until polls until ok is true.
func (b *bundle) until(what string, ok func() bool) {
	b.t.Helper()
	eventually(b.t, what, ok)
}

// If a client hangs up, only an import that failed is left.
func TestUploadBreaksOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	conn := slowUpload(t, b)
	sendChunk(t, conn, rowsFrom(0))
	b.until("a chunk is stored", func() bool { return b.count("SELECT count(*) FROM import_chunks") > 0 })
	require.NoError(t, conn.Close())
	b.until("the import failed", func() bool {
		return b.count("SELECT count(*) FROM imports WHERE state = 'failed' AND error IS NOT NULL") == 1
	})
	b.wantCount(0, "SELECT count(*) FROM import_chunks")
	b.wantCount(0, "SELECT count(*) FROM river_job")
}

// An upload can be cancelled while it arrives.
func TestCancelUpload(t *testing.T) {
	t.Parallel()
	b := setup(t)
	conn := slowUpload(t, b)
	sendChunk(t, conn, rowsFrom(0))
	b.until("a chunk is stored", func() bool { return b.count("SELECT count(*) FROM import_chunks") == 1 })
	b.want(403, RoleEditor, "POST", "/imports/1/cancel", nil)
	a := b.want(202, RoleAdmin, "POST", "/imports/1/cancel", nil)
	if a.body["state"] != "cancelling" {
		t.Errorf("%s", a.raw)
	}
	b.wantCount(1, "SELECT count(*) FROM river_job j JOIN imports i ON i.job_id = j.id WHERE j.kind = 'finish_import'")
	again := b.want(202, RoleAdmin, "POST", "/imports/1/cancel", nil)
	if n := b.count("SELECT count(*) FROM river_job WHERE kind = 'finish_import'"); n != 1 || again.body["state"] != "cancelling" {
		t.Errorf("cancelling again queued %d jobs and was answered %s", n, again.raw)
	}
	sendChunk(t, conn, rowsFrom(3000))
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(answer, " 409 ") {
		t.Errorf("the upload was answered with %q, %v", answer, err)
	}
	b.wantCount(1, "SELECT count(*) FROM import_chunks")
}

func TestCancelOfAnEndedImport(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(404, RoleAdmin, "POST", "/imports/1/cancel", nil)
	b.want(202, RoleAdmin, "POST", "/users/bulk", csvOfUsers, "Content-Type", "text/csv")
	b.exec("UPDATE imports SET state = 'failed', finished_at = now()")
	a := b.want(409, RoleAdmin, "POST", "/imports/1/cancel", nil)
	if !strings.Contains(string(a.raw), "failed") {
		t.Errorf("%s", a.raw)
	}
}

func TestListOfRejectedRows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(202, RoleAdmin, "POST", "/users/bulk", csvOfUsers, "Content-Type", "text/csv")
	_, err := b.pool.Exec(t.Context(), `INSERT INTO import_errors (import_id, line, field, reason, record)
		SELECT 1, n, 'email', 'is wrong', '\x61ff00' FROM generate_series(2, 46) n`)
	require.NoError(t, err)
	b.want(404, RoleReader, "GET", "/imports/2/errors", nil)
	path, lines := "/imports/1/errors", 0
	for path != "" {
		page := b.want(200, RoleReader, "GET", path, nil).body
		rows, _ := page["data"].([]any)
		for _, r := range rows {
			row, _ := r.(map[string]any)
			if row["line"] != float64(lines+2) || row["field"] != "email" || row["record"] != "a\uFFFD\x00" {
				t.Fatalf("row %d is %v", lines, row)
			}
			lines++
		}
		cursor, _ := page["next_cursor"].(string)
		if path = ""; cursor != "" {
			path = "/imports/1/errors?cursor=" + cursor
		}
	}
	if lines != 45 {
		t.Errorf("the list has %d rows, want 45", lines)
	}
}

// If Postgres goes away in the middle of an upload, the client is told to come back,
// and the remains are swept later.
func TestUploadDuringAnOutage(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	b := setupOn(t, pgtest.Open(t, pgtest.Migrated(t, cluster)))
	conn := slowUpload(t, b)
	sendChunk(t, conn, rowsFrom(0))
	b.until("a chunk is stored", func() bool { return b.count("SELECT count(*) FROM import_chunks") == 1 })
	stopped(t, cluster)
	sendChunk(t, conn, rowsFrom(3000))
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(answer, " 503 ") {
		t.Errorf("the upload was answered with %q, %v", answer, err)
	}
	b.want(503, RoleAdmin, "POST", "/imports?kind=users", csvOfUsers, "Content-Type", "text/csv")
}

func stopped(t *testing.T, cluster *pgserver.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	require.NoError(t, cluster.Stop(ctx))
}

// An upload that is under way does not hold up a shutdown.
func TestShutdownEndsUploads(t *testing.T) {
	t.Parallel()
	b := setup(t)
	conn := slowUpload(t, b)
	sendChunk(t, conn, rowsFrom(0))
	b.until("a chunk is stored", func() bool { return b.count("SELECT count(*) FROM import_chunks") == 1 })
	b.api.stop()
	sendChunk(t, conn, rowsFrom(3000))
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(answer, " 503 ") {
		t.Errorf("the upload was answered with %q, %v", answer, err)
	}
}

// From the end of the upload on, nobody else can get the ids of a file, although its
// chunks are yet to be applied.
func TestUploadReservesItsIDs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(202, RoleAdmin, "POST", "/imports?kind=users", "id,username,email\n5,ann,ann@example.com\n4503599627370496,far,far@example.com\n70,bob,bob@example.com\n", "Content-Type", "text/csv")
	user := b.user("cleo")
	if user != 71 {
		t.Errorf("a user got id %d, want the first one past the file's, 71", user)
	}
	b.want(202, RoleAdmin, "POST", "/imports?kind=urls", fmt.Sprintf("id,user_id,original_url\n90,%d,https://example.com/\n", user), "Content-Type", "text/csv")
	if link := b.newLink(user, "https://example.com/", nil).id(); link != 91 {
		t.Errorf("a link got id %d, want the first one past the file's, 91", link)
	}
}
