package api

import (
	"bufio"
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// formWithFile returns a form whose fields stand before its file, and its content type.
func formWithFile(tb testing.TB, name, content string, fields url.Values) (body, contentType string) {
	tb.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for field, values := range fields {
		for _, value := range values {
			require.NoError(tb, w.WriteField(field, value))
		}
	}
	part, err := w.CreateFormFile("file", name)
	require.NoError(tb, err)
	_, err = part.Write([]byte(content))
	require.NoError(tb, err)
	require.NoError(tb, w.Close())
	return b.String(), w.FormDataContentType()
}

// send sends a form with a file.
func (w *browser) send(path, content string, fields url.Values) answer {
	w.b.t.Helper()
	body, contentType := formWithFile(w.b.t, "people.csv", content, fields)
	w.header["Content-Type"] = contentType
	defer delete(w.header, "Content-Type")
	return w.do("POST", path, body)
}

func TestUploadFromThePage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	admin, editor := b.signedIn(RoleAdmin), b.signedIn(RoleEditor)
	users := url.Values{"kind": {"users"}, "mapping": {"username:"}}
	a := admin.send("/app/imports", "username,name,email\nx,ann,ann@example.com\n", url.Values{
		"kind": {"users"}, "dry_run": {"true"}, "on_conflict": {"skip"}, "mapping": {"", "username:", "name:username"}, "timezone": {""},
	})
	require.Equal(t, 303, a.status, "%s", a.raw)
	assert.Equal(t, "/app/imports/1", a.header.Get("Location"))
	got := b.want(200, RoleReader, "GET", "/imports/1", nil).body
	for field, want := range (object{
		"kind": "users", "dry_run": true, "on_conflict": "skip", "filename": "people.csv", "created_by": "admin of the test", "state": "queued", "rows_total": 1.0,
		"mapping": []any{"name:username", "username:"},
	}) {
		assert.Equal(t, want, got[field], field)
	}
	page := string(admin.get("/app/imports/1").raw)
	assert.Contains(t, page, "1 row wait") // its worker
	assert.Contains(t, page, "/app/imports/1/cancel")

	for _, test := range []struct {
		name, content string
		w             *browser
		fields        url.Values
		status        int
		says          string
	}{
		{"no kind", csvOfUsers, admin, nil, 400, "must be users, urls or events"},
		{"a wrong parameter", csvOfUsers, admin, url.Values{"kind": {"users"}, "timezone": {"nowhere"}}, 400, `id="timezone-fault"`},
		{"another file", "a,b\n1,2\n", admin, users, 400, "the file has no column"},
		{"nothing", "", admin, url.Values{"kind": {"users"}}, 400, "the file is empty"},
		{"an owner that is not there", "original_url\nhttps://example.com/\n", editor, url.Values{"kind": {"urls"}, "user_id": {"99"}}, 400, "is not a user"},
		{"no owner", "original_url\nhttps://example.com/\n", editor, url.Values{"kind": {"urls"}}, 400, "is missing"},
		{"users by an editor", csvOfUsers, editor, url.Values{"kind": {"users"}}, 403, "need a token of the role admin"},
		{"too many fields", csvOfUsers, admin, url.Values{"kind": {"users"}, "mapping": {strings.Repeat("x", multipartSlack)}}, 413, "at most 64 KiB"},
		{"no text", csvOfUsers, admin, url.Values{"kind": {"users\xff"}}, 400, "cannot be understood"},
	} {
		a := test.w.send("/app/imports", test.content, test.fields)
		assert.Equal(t, test.status, a.status, test.name)
		assert.Contains(t, string(a.raw), test.says, test.name)
		assert.Contains(t, string(a.raw), "</html>", test.name)
	}
	b.wantCount(1, "SELECT count(*) FROM imports")
	assert.Equal(t, 415, admin.post("/app/imports", url.Values{"kind": {"users"}}).status)

	admin.header["Sec-Fetch-Site"] = "cross-site"
	assert.Equal(t, 403, admin.send("/app/imports", csvOfUsers, url.Values{"kind": {"users"}}).status)
	admin.header["Sec-Fetch-Site"] = "same-origin"
	// It takes a place, like one of the API.
	for range 2 * defaultUploads {
		_, _ = b.api.uploads.take(Actor{}, 1)
	}
	assert.Equal(t, 303, admin.send("/app/imports", csvOfUsers, url.Values{"kind": {"users"}}).status)
	id := int64(99)
	for range 2 * defaultUploads {
		_, _ = b.api.uploads.take(Actor{TokenID: &id}, 1)
	}
	a = admin.send("/app/imports", csvOfUsers, url.Values{"kind": {"users"}})
	assert.Equal(t, 503, a.status)
	assert.NotEmpty(t, a.header.Get("Retry-After"))
}

// An upload from the page may take longer than other requests, and ends with its session.
func TestUploadEndsWithItsSession(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.api.clientLimits.recheckToken = time.Millisecond
	w := b.signedIn(RoleAdmin)
	conn := b.dial()
	b.write(conn, "POST /app/imports HTTP/1.1\r\nHost: sign.example\r\nSec-Fetch-Site: same-origin\r\nCookie: %s\r\nContent-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n", w.cookie)
	sendChunk(t, conn, "--b\r\nContent-Disposition: form-data; name=kind\r\n\r\nusers\r\n--b\r\nContent-Disposition: form-data; name=file; filename=x.csv\r\n\r\nusername,email\n"+rowsFrom(0))
	b.until("a chunk is stored", func() bool { return b.count("SELECT count(*) FROM import_chunks") == 1 })
	require.Equal(t, 303, w.post("/app/sign-out", nil).status)
	sendChunk(t, conn, rowsFrom(3000))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, 303, resp.StatusCode)
	assert.Equal(t, "/app/sign-in", resp.Header.Get("Location"))
	b.until("the import failed", func() bool {
		return b.count("SELECT count(*) FROM imports WHERE state = 'failed' AND error LIKE 'the session has ended%'") == 1
	})
	b.wantCount(0, "SELECT count(*) FROM import_chunks")
}

func TestPreviewOnThePage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	admin := b.signedIn(RoleAdmin)
	hostile := `"><script>alert(1)</script>`
	a := admin.send("/app/imports/preview", "Goes to,"+strings.ReplaceAll(hostile, `"`, "'")+"\nhttps://example.com/,<b>x\nftp://x,y\n", url.Values{"mapping": {"Goes to:original_url"}, "dry_run": {"true"}, "kind": {"urls"}})
	require.Equal(t, 200, a.status, "%s", a.raw)
	page := string(a.raw)
	for _, part := range []string{
		`id="options"`, `<option value="urls" selected>`, `<option value="Goes to:original_url" selected>`, "2 rows looked at", "does not say whose its links are",
		"&lt;b&gt;x", "must start with http", `name="dry_run" value="true" checked`,
	} {
		assert.Contains(t, page, part)
	}
	assert.NotContains(t, page, "<script>alert")
	assert.NotContains(t, page, "<b>x")
	page = string(admin.send("/app/imports/preview", csvOfUsers, nil).raw)
	assert.Contains(t, page, `<option value="users" selected>`, "the columns tell it")
	a = admin.send("/app/imports/preview", csvOfUsers, url.Values{"kind": {"users"}, "encoding": {"klingon"}})
	assert.Equal(t, 400, a.status)
	assert.Contains(t, string(a.raw), `id="encoding-fault"`)
	assert.Contains(t, string(a.raw), `id="options"`)
	assert.Equal(t, 403, b.signedIn(RoleEditor).send("/app/imports/preview", csvOfUsers, nil).status)
	b.wantCount(0, "SELECT count(*) FROM imports")
}

// Each state of an import has its page, with what the role may do about it.
func TestPageOfImport(t *testing.T) {
	t.Parallel()
	b := setup(t)
	admin, editor, reader := b.signedIn(RoleAdmin), b.signedIn(RoleEditor), b.signedIn(RoleReader)
	b.want(202, RoleAdmin, "POST", "/imports?kind=users", csvOfUsers, "Content-Type", "text/csv")
	for state, shows := range map[string]struct{ says, form string }{
		"receiving": {"The file arrives", "/cancel"}, "queued": {"2 rows wait", "/cancel"}, "running": {"0 of 2 rows done", "/cancel"},
		"cancelling": {"It stops after", ""}, "cancelled": {"It was cancelled after 0 of 2 rows", "/undo"}, "failed": {"It stopped after 0 of 2 rows", "/retry"},
		"undoing": {"It is being undone", ""}, "undone": {"It was undone: 0 of 0 rows removed", ""},
	} {
		b.exec("UPDATE imports SET state = $1", state)
		page := string(admin.get("/app/imports/1").raw)
		assert.Contains(t, page, shows.says, state)
		for _, form := range []string{"/cancel", "/retry"} {
			assert.Equal(t, form == shows.form, strings.Contains(page, "/app/imports/1"+form), "%s: %s", state, form)
		}
		assert.Equal(t, state == "cancelled" || state == "failed", strings.Contains(page, "/app/imports/1/undo"), state)
		for _, w := range []*browser{editor, reader} {
			assert.NotContains(t, string(w.get("/app/imports/1").raw), "<form method=\"post\" action=\"/app/imports", state)
		}
	}
	b.exec("UPDATE imports SET state = 'completed', rows_imported = 1, rows_rejected = 1, dry_run = true, finished_at = now(), started_at = now() - interval '1 second'")
	b.exec("INSERT INTO import_errors (import_id, line, field, reason, record, kind) VALUES (1, 3, 'email', 'is wrong', '<i>bob', 'value')")
	page := string(admin.get("/app/imports/1").raw)
	for _, part := range []string{"Of 2 rows, 1 would go in", `data-upload="kept"`, `<input type="hidden" name="kind" value="users">`, "email is wrong", "&lt;i&gt;bob", "/app/imports/1/errors.csv"} {
		assert.Contains(t, page, part)
	}
	assert.NotContains(t, string(reader.get("/app/imports/1").raw), "data-upload")
	assert.Contains(t, string(reader.get("/app/imports/1/rows").raw), "&lt;i&gt;bob")
	file := reader.get("/app/imports/1/errors.csv")
	assert.Equal(t, 200, file.status)
	assert.Equal(t, `attachment; filename="import-1-errors.csv"`, file.header.Get("Content-Disposition"))
	assert.Equal(t, "line,reason,username,email\n3,email is wrong,<i>bob\n", string(file.raw))
	assert.Equal(t, 200, reader.get("/app/imports/1/result.csv").status)
	assert.Equal(t, 409, admin.get("/app/imports/1/undo").status, "of a dry run")
	assert.Equal(t, 403, editor.get("/app/imports/1/undo").status)
	assert.Equal(t, 403, editor.post("/app/imports/1/undo", nil).status)
	late := admin.post("/app/imports/1/cancel", nil)
	assert.Equal(t, 303, late.status)
	assert.Equal(t, "/app/imports/1", late.header.Get("Location"), "it has ended, as its page says")
	for _, path := range []string{"/app/imports/2", "/app/imports/2/rows", "/app/imports/2/errors.csv", "/app/imports/0", "/app/imports/samples/secret.csv"} {
		assert.Equal(t, 404, admin.get(path).status, path)
	}
	for _, path := range []string{"/app/imports?cursor=x", "/app/imports/1/rows?cursor=x"} {
		assert.Equal(t, 400, admin.get(path).status, path)
	}

	list := string(reader.get("/app/imports").raw)
	assert.Contains(t, list, "/app/imports/1")
	assert.NotContains(t, list, "data-upload")
	for range 30 {
		b.exec("INSERT INTO imports (kind, layout, keep_ids, actor_name, state, finished_at) SELECT kind, layout, keep_ids, actor_name, 'failed', now() FROM imports WHERE id = 1")
	}
	first := string(admin.get("/app/imports").raw)
	assert.Equal(t, 25, strings.Count(first, `<th scope="row">`))
	oldest := b.count("SELECT min(id) FROM (SELECT id FROM imports ORDER BY id DESC LIMIT 25) i")
	next := fmt.Sprintf("/app/imports?cursor=%d", oldest)
	assert.Contains(t, first, next)
	assert.Equal(t, 6, strings.Count(string(admin.get(next).raw), `<th scope="row">`))
}
