package api

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// shownProblems returns the problems in an answer, one a line.
func shownProblems(body map[string]any) string {
	var lines []string
	problems, _ := body["problems"].([]any)
	for _, p := range problems {
		problem, _ := p.(map[string]any)
		lines = append(lines, fmt.Sprintf("%v %v|%v|%v|%v|%v|%v", problem["rows"], problem["outcome"], problem["column"],
			problem["kind"], problem["reason"], problem["line"], problem["cure"]))
	}
	return strings.Join(lines, "\n")
}

func TestProblemsOfAnImport(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.imported("completed", 5000, 5000)
	path := fmt.Sprintf("/imports/%d", id)
	if body := b.want(200, RoleReader, "GET", path, nil).body; !reflect.DeepEqual(body["problems"], []any{}) {
		t.Errorf("without any: %v", body["problems"])
	}
	b.exec(`UPDATE imports SET layout = '{"kind": "users", "encoding": "utf-8", "columns": ["username", "email"], "header": ["Name", "Mail"]}' WHERE id = $1`, id)
	const insert = "INSERT INTO import_errors (import_id, line, field, reason, record, kind) SELECT $1::bigint, "
	b.exec(insert+"n, 'username', 'is taken by an earlier row or by an existing one', '', 'taken' FROM generate_series(1001, 1900) n", id)
	b.exec(insert+"n, 'username', 'must be valid UTF-8', 'M\\374ller,x@example.com', 'encoding' FROM generate_series(3, 42) n", id)
	b.exec(insert+"n, 'email', 'must be valid UTF-8', 'caf\\351,x', 'encoding' FROM generate_series(50, 59) n", id)
	b.exec(insert+"2000, '', 'is longer than 65536 bytes', '', NULL", id) // written by the previous release
	want := strings.Join([]string{
		"50 rejected||encoding|the file is not UTF-8, it looks like Windows-1252|3|encoding=windows-1252 reads it",
		"900 rejected|username|taken|is taken by an earlier row or by an existing one|1001|on_conflict=skip passes over rows that are there already, on_conflict=update updates what they name",
		"1 rejected||other|is longer than 65536 bytes|2000|<nil>",
	}, "\n")
	if got := shownProblems(b.want(200, RoleReader, "GET", path, nil).body); got != want {
		t.Errorf("problems are\n%s\nwant\n%s", got, want)
	}
	b.exec("UPDATE imports SET on_conflict = 'update' WHERE id = $1", id)
	if got := shownProblems(b.want(200, RoleReader, "GET", path, nil).body); strings.Contains(got, "on_conflict") {
		t.Errorf("a policy is named that the import has: %s", got)
	}
	// Answers without details do not query the problems.
	for _, row := range b.want(200, RoleReader, "GET", "/imports", nil).rows() {
		if _, there := row["problems"]; there {
			t.Error("the list shows problems")
		}
	}
	stream := b.watch(t, path+"/progress")
	if end := stream.event(); !strings.Contains(end.data, `"problems":[{"outcome":"rejected"`) {
		t.Errorf("the stream says %s", end.data)
	}
}

func TestNoticesOfAnImport(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	id := b.imported("completed", 60, 60)
	b.exec("UPDATE imports SET kind = 'urls' WHERE id = $1", id)
	b.exec(`INSERT INTO urls (user_id, short_code, original_url, import_id, import_line)
		SELECT $1, 'app' || n, 'https://example.com/', $2, n FROM generate_series(2, 61) n`, ann, id)
	b.exec(`INSERT INTO import_notices (import_id, line, field, kind, reason)
		SELECT $1, n, 'short_code', 'reserved', 'is a reserved word, so the link answers under /r/app' || n FROM generate_series(2, 46) n`, id)
	want := "45 imported|short_code|reserved|is a reserved word, so the link answers under /r/app2|2|<nil>"
	if got := shownProblems(b.want(200, RoleReader, "GET", fmt.Sprintf("/imports/%d", id), nil).body); got != want {
		t.Errorf("problems are %s, want %s", got, want)
	}
	b.want(404, RoleReader, "GET", "/imports/99/notices", nil)
	path, lines := fmt.Sprintf("/imports/%d/notices", id), 0
	for next := path; next != ""; {
		page := b.want(200, RoleReader, "GET", next, nil)
		for _, row := range page.rows() {
			want := map[string]any{
				"line": float64(lines + 2), "field": "short_code", "kind": "reserved",
				"notice": fmt.Sprintf("is a reserved word, so the link answers under /r/app%d", lines+2),
			}
			if !reflect.DeepEqual(row, want) {
				t.Fatalf("notice %d is %v, want %v", lines, row, want)
			}
			lines++
		}
		cursor, _ := page.body["next_cursor"].(string)
		if next = ""; cursor != "" {
			next = path + "?cursor=" + cursor
		}
	}
	if lines != 45 {
		t.Errorf("the list has %d rows, want 45", lines)
	}
	result := string(b.want(200, RoleReader, "GET", fmt.Sprintf("/imports/%d/result.csv", id), nil).raw)
	if n := strings.Count(result, `,short_code,"is a reserved word, so the link answers under /r/app`); n != 45 || strings.Count(result, ",imported,") != 60 {
		t.Errorf("%d rows of the result have a notice, want 45 of 60:\n%s", n, result)
	}
}
