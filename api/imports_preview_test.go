package api

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/rollup"
)

func TestPreviewOfImport(t *testing.T) {
	t.Parallel()
	b := setup(t)
	preview := func(status int, role Role, query, body string) answer {
		return b.want(status, role, "POST", "/imports/preview?"+query, body, "Content-Type", "text/csv")
	}
	users, err := os.ReadFile("../examples/users.csv")
	require.NoError(t, err)
	for name, body := range map[string]string{"plain": string(users), "packed": packed(t, codingGzip, string(users))} {
		got := preview(200, RoleAdmin, "", body).body
		assert.Equal(t, "users", got["kind"], name)
		assert.Equal(t, "signpost", got["format"], name)
		assert.Nil(t, got["error"], name)
		assert.Equal(t, 40.0, got["rows_seen"], name)
		assert.Len(t, got["rows"], 8, name)
	}
	// A long file is cut, and its last row is left out, however it is sent.
	long := "username,email\n" + strings.Repeat("ann,ann@example.com\n", 20000)
	got := preview(200, RoleAdmin, "", long).body
	assert.Equal(t, 6552.0, got["rows_seen"])
	assert.Equal(t, 6552.0, preview(200, RoleAdmin, "", packed(t, codingZstd, long)).body["rows_seen"])

	own := "Goes to,Name\nhttps://example.com/menu,menu\nhttps://sign.example/x,two\n"
	got = preview(200, RoleEditor, "", own).body
	assert.Equal(t, "urls", got["kind"])
	assert.Contains(t, got["error"], "the first line names no column of urls")
	assert.Equal(t, "original_url", got["mappable"].([]any)[0])
	mapped := "mapping=Goes+to:original_url&mapping=Name:short_code"
	got = preview(200, RoleEditor, mapped, own).body
	assert.Contains(t, got["error"], "does not say whose the links are")
	assert.Equal(t, "user_id", got["error_field"])
	assert.Equal(t, 1.0, got["rows_rejected"], "the owner is missing once, and not in each row")
	user := b.user("ann")
	got = preview(200, RoleEditor, mapped+"&user_id="+fmt.Sprint(user), own).body
	assert.Nil(t, got["error"])
	assert.Equal(t, []any{map[string]any{"name": "Goes to", "read_as": "original_url"}, map[string]any{"name": "Name", "read_as": "short_code"}}, got["columns"])
	row := got["rows"].([]any)[1].(map[string]any)
	assert.Equal(t, []any{"https://sign.example/x", "two"}, row["cells"])
	assert.Equal(t, "original_url", row["field"])
	assert.NotNil(t, row["reason"])
	assert.Equal(t, "own_link", got["problems"].([]any)[0].(map[string]any)["kind"])

	assert.Contains(t, string(preview(403, RoleEditor, "", csvOfUsers).raw), "imports of users need")
	for query, field := range map[string]string{
		"kind=cats": "kind", "user_id=99": "user_id", "on_conflict=x": "on_conflict", "timezone=x": "timezone", "encoding=x": "encoding",
		"mapping=x:y": "mapping", "mapping=x:title": "mapping", "domain=go.example": "domain", "format=x": "format",
	} {
		if query != "kind=cats" {
			query += "&kind=urls"
		}
		assert.Contains(t, preview(400, RoleAdmin, query, own).fields(), field, query)
	}
	preview(400, RoleAdmin, "", "")
	preview(400, RoleAdmin, "", "PK\x03\x04"+strings.Repeat("x", 100))
	b.want(415, RoleAdmin, "POST", "/imports/preview", "{}", "Content-Type", "application/json")
	b.wantCount(0, "SELECT count(*) FROM imports")
}

func TestColumnsOfImport(t *testing.T) {
	t.Parallel()
	b := setup(t)
	user := b.user("ann")
	b.want(201, RoleAdmin, "POST", "/domains", object{"host": "go.example"})
	id := b.want(202, RoleEditor, "POST", "/imports?kind=urls&domain=go.example&mapping=Goes+to:original_url&mapping=Note:&user_id="+fmt.Sprint(user),
		"Goes to,Note\nhttps://example.com/,x\n", "Content-Type", "text/csv").id()
	got := b.want(200, RoleReader, "GET", "/imports/"+fmt.Sprint(id), nil).body
	assert.Equal(t, []any{map[string]any{"name": "Goes to", "read_as": "original_url"}, map[string]any{"name": "Note", "read_as": ""}}, got["columns"])
	assert.Equal(t, []any{"Goes to:original_url", "Note:"}, got["mapping"])
	assert.EqualValues(t, user, got["user_id"])
	assert.Equal(t, "go.example", got["domain"])
}

func TestPreviewOfUndo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	user := b.user("ann")
	made := func(query, state, file string) int64 {
		id := b.want(202, RoleAdmin, "POST", "/imports?"+query, file, "Content-Type", "text/csv").id()
		b.exec("UPDATE imports SET state = $2, rows_imported = rows_total, finished_at = now() WHERE id = $1", id, state)
		return id
	}
	links := made("kind=urls&user_id="+fmt.Sprint(user), "completed", "original_url\nhttps://example.com/\n")
	for line := range 4 {
		b.exec("INSERT INTO urls (user_id, short_code, original_url, import_id, import_line, import_touched) VALUES ($1, $2, 'https://example.com/', $3, $4, $5)",
			user, "code"+fmt.Sprint(line), links, line+2, line == 0)
	}
	clicked := b.count("SELECT id FROM urls WHERE short_code = 'code1'")
	b.clicked(rollup.Event{URLID: clicked, UserID: user, At: time.Now(), Kind: "person"})
	undo := func(status int, id int64) answer {
		return b.want(status, RoleReader, "GET", "/imports/"+fmt.Sprint(id)+"/undo", nil)
	}
	got := undo(200, links).body
	assert.Equal(t, map[string]any{
		"rows": 4.0, "more": false, "rows_removed": 2.0, "changed": 1.0, "clicked": 1.0, "owns_links": 0.0, "rows_updated": 0.0,
	}, got)

	users := made("kind=users", "failed", csvOfUsers)
	b.exec("UPDATE users SET import_id = $1, import_line = 2 WHERE id = $2", users, user)
	assert.Equal(t, 1.0, undo(200, users).body["owns_links"])
	events := made("kind=events", "cancelled", "url_id,event_type,timestamp\n1,clicked,2026-01-01\n")
	assert.Equal(t, 0.0, undo(200, events).body["rows_removed"])

	// It is refused where an undo is.
	for _, state := range []string{"queued", "running", "receiving", "undoing", "undone"} {
		b.exec("UPDATE imports SET state = $2 WHERE id = $1", links, state)
		assert.Contains(t, string(undo(409, links).raw), "the import is "+state)
	}
	trial := made("kind=users&dry_run=true", "completed", csvOfUsers)
	assert.Contains(t, string(undo(409, trial).raw), "dry run")
	undo(404, 1<<40)
}
