package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// jobOf returns the job for which an import waits, as "kind state".
func (b *bundle) jobOf(id int64) string {
	b.t.Helper()
	var job string
	err := b.pool.QueryRow(b.t.Context(), `SELECT concat_ws(' ', j.kind, j.state) FROM imports i
		LEFT JOIN river_job j ON j.id = i.job_id WHERE i.id = $1`, id).Scan(&job)
	require.NoError(b.t, err)
	return job
}

func TestUndoOfImports(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(404, RoleAdmin, "POST", "/imports/1/undo", nil)
	for _, state := range []string{"completed", "cancelled", "failed"} {
		id := b.imported(state, 10, 10)
		path := fmt.Sprintf("/imports/%d/undo", id)
		b.want(403, RoleEditor, "POST", path, nil)
		for range 2 { // asking again is harmless
			if a := b.want(202, RoleAdmin, "POST", path, nil); a.body["state"] != "undoing" {
				t.Errorf("%s: %s", state, a.raw)
			}
		}
		if job := b.jobOf(id); job != "undo_import available" {
			t.Errorf("%s: waits for the job %q", state, job)
		}
	}
	b.wantCount(3, "SELECT count(*) FROM river_job WHERE kind = 'undo_import'")
	kept := b.imported("undone", 10, 10)
	b.exec("UPDATE imports SET rows_removed = 8, rows_kept = 2, undone_at = now() WHERE id = $1", kept)
	again := b.want(202, RoleAdmin, "POST", fmt.Sprintf("/imports/%d/undo", kept), nil).body
	if again["state"] != "undoing" || again["rows_removed"] != 8.0 || again["rows_kept"] != 0.0 || again["undone_at"] != nil {
		t.Errorf("undone again: %v", again)
	}
	for _, state := range []string{"receiving", "queued", "running", "cancelling", "undone"} {
		a := b.want(409, RoleAdmin, "POST", fmt.Sprintf("/imports/%d/undo", b.imported(state, 10, 5)), nil)
		if !strings.Contains(string(a.raw), state) {
			t.Errorf("%s: %s", state, a.raw)
		}
	}
	dry := b.imported("completed", 10, 10)
	b.exec("UPDATE imports SET dry_run = true WHERE id = $1", dry)
	a := b.want(409, RoleAdmin, "POST", fmt.Sprintf("/imports/%d/undo", dry), nil)
	if !strings.Contains(string(a.raw), "dry run") {
		t.Errorf("%s", a.raw)
	}
}

// If an undo has switched a link off for now, a request that sends is_active decides
// the matter: otherwise the undo would switch the link on again. Other changes leave it
// to the undo.
func TestChangesOfLinksThatAnUndoSwitchedOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	id := b.imported("undoing", 10, 10)
	for body, want := range map[string]int64{`{"is_active": false}`: 0, `{"is_active": true}`: 0, `{"title": "new"}`: 1} {
		b.exec("DELETE FROM urls")
		b.exec(`INSERT INTO urls (id, user_id, short_code, original_url, is_active, import_id, import_line, undo_of)
			VALUES (7, $1, 'seven', 'https://example.com/', false, $2, 2, $2)`, ann, id)
		b.want(200, RoleAdmin, "PATCH", "/urls/7", json.RawMessage(body))
		if n := b.count("SELECT count(*) FROM urls WHERE undo_of IS NOT NULL"); n != want {
			t.Errorf("%s: %d links are for the undo to switch on, want %d", body, n, want)
		}
		b.wantCount(1, "SELECT count(*) FROM urls WHERE import_touched")
	}
}

func TestListOfKeptRows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	id := b.imported("undone", 100, 100)
	b.exec("UPDATE imports SET kind = 'urls' WHERE id = $1", id)
	b.exec("INSERT INTO urls (id, user_id, short_code, original_url) VALUES (7, $1, 'seven', 'https://example.com/')", ann)
	b.exec("INSERT INTO import_kept SELECT $1, n * 2, n, 'clicked' FROM generate_series(1, 30) n", id)
	b.exec(`INSERT INTO import_outcomes (import_id, line, outcome, row_id, before) VALUES
		($1, 3, 'updated', 7, '{"title": "old"}'), ($1, 5, 'skipped', 8, NULL)`, id)
	var lines []any
	for cursor := ""; ; {
		page := b.want(200, RoleReader, "GET", fmt.Sprintf("/imports/%d/kept?limit=7&cursor=%s", id, cursor), nil)
		for _, row := range page.rows() {
			lines = append(lines, row["line"])
			switch row["line"] {
			case 3.0:
				if fmt.Sprintf("%v %v %v %v", row["before"], row["reason"], row["short_url"], row["id"]) != "map[title:old] updated https://sign.example/seven 7" {
					t.Errorf("updated: %v", row)
				}
			case 14.0:
				if fmt.Sprintf("%v %v %v %v", row["before"], row["reason"], row["short_url"], row["id"]) != "<nil> clicked https://sign.example/seven 7" {
					t.Errorf("kept: %v", row)
				}
			default:
				if row["short_url"] != nil || row["reason"] != "clicked" {
					t.Errorf("gone since: %v", row)
				}
			}
		}
		if cursor, _ = page.body["next_cursor"].(string); cursor == "" {
			break
		}
	}
	if len(lines) != 31 || fmt.Sprint(lines[:4]) != "[2 3 4 6]" {
		t.Errorf("the list has the lines %v", lines)
	}
	if page := b.want(200, RoleReader, "GET", fmt.Sprintf("/imports/%d/kept?page=2&per_page=20", id), nil); len(page.rows()) != 11 {
		t.Errorf("page 2: %s", page.raw)
	}
	b.want(404, RoleReader, "GET", fmt.Sprintf("/imports/%d/kept", id+1), nil)
}

func TestRetryOfImports(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(404, RoleAdmin, "POST", "/imports/1/retry", nil)
	for name, test := range map[string]struct {
		state        string
		chunks, done int
		job          string // the job before
		status       int
		next         string // the job after
	}{
		"the upload broke off":        {"failed", 0, 0, "", 409, ""},
		"a chunk failed":              {"failed", 5, 3, "completed", 202, "apply_chunk available"},
		"the only chunk failed":       {"failed", 1, 0, "discarded", 202, "apply_chunk available"},
		"the end failed":              {"failed", 5, 5, "discarded", 202, "apply_chunk available"},
		"its first job was cancelled": {"queued", 5, 0, "cancelled", 202, "apply_chunk available"},
		"its first job waits":         {"queued", 5, 0, "retryable", 409, ""},
		"its job was discarded":       {"running", 5, 3, "discarded", 202, "apply_chunk available"},
		"its job waits":               {"running", 5, 3, "retryable", 409, ""},
		"the end is gone":             {"cancelling", 5, 2, "", 202, "finish_import available"},
		"the undo was discarded":      {"undoing", 5, 5, "discarded", 202, "undo_import available"},
		"the undo is under way":       {"undoing", 5, 5, "running", 409, ""},
		"it is done":                  {"completed", 5, 5, "completed", 409, ""},
		"it was cancelled":            {"cancelled", 5, 2, "completed", 409, ""},
		"it is undone":                {"undone", 5, 5, "completed", 409, ""},
		"the file is still arriving":  {"receiving", 0, 0, "", 409, ""},
	} {
		id := b.imported(test.state, 50, 10*test.done)
		if test.state == "completed" {
			b.exec("UPDATE imports SET rows_imported = 50 WHERE id = $1", id)
		}
		b.exec("UPDATE imports SET chunks_total = $2, chunks_done = $3, error = 'x' WHERE id = $1", id, test.chunks, test.done)
		if test.job != "" {
			b.exec(`WITH j AS (
					INSERT INTO river_job (kind, args, max_attempts, state, finalized_at)
					VALUES ('any', '{}', 25, $2::text::river_job_state,
						CASE WHEN $2::text IN ('discarded', 'cancelled', 'completed') THEN now() END)
					RETURNING id)
				UPDATE imports SET job_id = j.id FROM j WHERE imports.id = $1`, id, test.job)
		}
		path := fmt.Sprintf("/imports/%d/retry", id)
		b.want(403, RoleEditor, "POST", path, nil)
		a := b.want(test.status, RoleAdmin, "POST", path, nil)
		if test.status == 202 {
			if job := b.jobOf(id); job != test.next {
				t.Errorf("%s: waits for the job %q, want %q", name, job, test.next)
			}
			if test.state == "failed" && (a.body["error"] != nil || a.body["finished_at"] != nil) {
				t.Errorf("%s: %s", name, a.raw)
			}
		}
	}
}
