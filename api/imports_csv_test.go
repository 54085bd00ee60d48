package api

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/signpost/signpost/internal/pgtest"
)

// records reads an answer in CSV whose records may differ in length.
func (a answer) records(t *testing.T) [][]string {
	t.Helper()
	r := csv.NewReader(strings.NewReader(string(a.raw)))
	r.FieldsPerRecord = -1
	records, err := r.ReadAll()
	if err != nil {
		t.Fatalf("%v in %s", err, a.raw)
	}
	return records
}

const csvToMend = "email,username,note\n" +
	"ann@example.com,ann,=cmd\n" +
	"bob,bob,\"two\nlines\"\n" +
	"cy@example.com\n"

func TestErrorsAsCSV(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.want(202, RoleAdmin, "POST", "/users/bulk", csvToMend, "Content-Type", "text/csv").id()
	b.exec(`INSERT INTO import_errors (import_id, line, field, reason, record) VALUES
		($1, 2, 'username', 'is taken', 'ann@example.com,ann,=cmd'),
		($1, 3, 'email', 'is wrong', E'bob,bob,"two\nlines"'),
		($1, 5, '', 'has text behind its last column', 'cy@example.com,cy,NULL,""" x """,NULL'),
		($1, 6, 'username', 'has text after its closing quote', 'dan@example.com,"dan" x')`, id)
	path := fmt.Sprintf("/imports/%d/errors", id)
	want := [][]string{
		{"line", "reason", "email", "username", "note"},
		{"2", "username is taken", "ann@example.com", "ann", "'=cmd"},
		{"3", "email is wrong", "bob", "bob", "two\nlines"},
		{"5", "has text behind its last column", "cy@example.com", "cy", "NULL", "\" x \"", "NULL"},
		{"6", "username has text after its closing quote", "", "", "", `dan@example.com,"dan" x`},
	}
	for _, request := range [][]string{
		{path, "text/csv"}, {path + "?format=csv", "application/json"}, {path, "text/csv, application/json;q=0.5"},
	} {
		a := b.want(200, RoleReader, "GET", request[0], nil, "Accept", request[1])
		got := a.records(t)
		if !strings.HasPrefix(a.header.Get("Content-Type"), "text/csv; charset=utf-8") || !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%v: %s %q, want %q", request, a.header.Get("Content-Type"), got, want)
		}
		if got := a.header.Get("Content-Disposition"); got != fmt.Sprintf(`attachment; filename="import-%d-errors.csv"`, id) {
			t.Errorf("the file is called %q", got)
		}
	}
	for _, request := range [][]string{{path, "*/*"}, {path + "?format=json", "text/csv"}, {path, "text/html"}} {
		a := b.want(200, RoleReader, "GET", request[0], nil, "Accept", request[1])
		if len(a.rows()) != 4 {
			t.Errorf("%v: %s", request, a.raw)
		}
	}
	b.want(400, RoleReader, "GET", path+"?format=xml", nil)
	b.want(401, 0, "GET", path+"?format=csv", nil)
	b.want(404, RoleReader, "GET", fmt.Sprintf("/imports/%d/errors?format=csv", id+1), nil)
	b.want(404, RoleReader, "GET", "/imports/x/errors?format=csv", nil)

	// Whether it was mended or not, it can be uploaded again as it is.
	mended := strings.Replace(string(b.do(RoleReader, "GET", path+"?format=csv", nil).raw), "bob,bob", "bob@example.com,bob", 1)
	again := b.want(202, RoleAdmin, "POST", "/users/bulk", mended, "Content-Type", "text/csv").body
	if again["rows_total"] != 4.0 || fmt.Sprint(again["ignored_columns"]) != "[line reason note]" {
		t.Errorf("uploaded again: %v", again)
	}
}

// Every piece of a long file arrives once and in order, and only one piece at a time is
// in memory.
func TestLongErrorsAsCSV(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const rows = 12_345
	id := b.want(202, RoleAdmin, "POST", "/users/bulk", csvToMend, "Content-Type", "text/csv").id()
	b.exec(`INSERT INTO import_errors (import_id, line, field, reason, record)
		SELECT $1, n * 2, 'email', 'is wrong', convert_to('a' || n || ',' || repeat('x', 100) || ',z', 'UTF8')
		FROM generate_series(1, $2::int) n`, id, rows)
	got := b.want(200, RoleReader, "GET", fmt.Sprintf("/imports/%d/errors?format=csv", id), nil).records(t)
	if len(got) != rows+1 {
		t.Fatalf("%d records, want %d", len(got), rows+1)
	}
	for i, record := range got[1:] {
		if record[0] != fmt.Sprint(2*(i+1)) || record[2] != fmt.Sprintf("a%d", i+1) {
			t.Fatalf("record %d is %q", i, record)
		}
	}
}

func TestImportResult(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.user("ann")
	b.exec(`INSERT INTO imports (kind, layout, keep_ids, actor_name, state)
		VALUES ('users', '{}', true, 't', 'queued'), ('urls', '{}', true, 't', 'queued'), ('events', '{}', true, 't', 'queued')`)
	b.exec(`INSERT INTO users (id, username, email, import_id, import_line) VALUES (100, 'u', 'u@example.com', 1, 3), (101, 'v', 'v@example.com', 1, 9)`)
	b.exec(`INSERT INTO urls (id, user_id, short_code, original_url, import_id, import_line) VALUES
		(200, $1, 'one', 'https://example.com/1', 2, 2), (201, $1, 'two', 'https://example.com/2', NULL, NULL)`, ann)
	b.exec(`INSERT INTO import_outcomes (import_id, line, outcome, row_id) VALUES (2, 3, 'updated', 201), (2, 6, 'skipped', 999), (1, 4, 'skipped', NULL)`)
	b.exec(`INSERT INTO import_errors (import_id, line, field, reason, record) VALUES (2, 5, 'title', '=is too long', 'x'), (1, 2, '', 'is bad', 'y')`)
	b.exec(`INSERT INTO events (id, occurred_at, event_type, import_id, import_line) VALUES (300, now(), 'clicked', 3, 2)`)
	for id, want := range map[int]string{
		1: "2,rejected,,,,is bad\n3,imported,100,,,\n4,skipped,,,,\n9,imported,101,,,\n",
		2: "2,imported,200,https://sign.example/one,,\n3,updated,201,https://sign.example/two,,\n" +
			"5,rejected,,,title,'=is too long\n6,skipped,999,,,\n",
		3: "2,imported,300,,,\n",
	} {
		a := b.want(200, RoleReader, "GET", fmt.Sprintf("/imports/%d/result.csv", id), nil)
		if got := string(a.raw); got != "line,outcome,id,short_url,field,reason\n"+want {
			t.Errorf("result of import %d:\n%s", id, got)
		}
	}
	b.want(404, RoleReader, "GET", "/imports/4/result.csv", nil)
}

// The result of a large import is in order, and takes bounded memory.
func TestLongImportResult(t *testing.T) {
	t.Parallel()
	b := setupOn(t, pgtest.Pool(t))
	const rows = 60_000
	b.exec(`INSERT INTO imports (kind, layout, keep_ids, actor_name, state) VALUES ('users', '{}', true, 't', 'queued')`)
	b.exec(`INSERT INTO users (username, email, import_id, import_line)
		SELECT 'u' || n, n || '@example.com', 1, n FROM generate_series(1, $1::int) n WHERE n % 3 = 0`, rows)
	b.exec(`INSERT INTO import_outcomes (import_id, line, outcome, row_id)
		SELECT 1, n, 'skipped', n FROM generate_series(1, $1::int) n WHERE n % 3 = 1`, rows)
	b.exec(`INSERT INTO import_errors (import_id, line, field, reason, record)
		SELECT 1, n, 'email', 'is wrong', 'x' FROM generate_series(1, $1::int) n WHERE n % 3 = 2`, rows)
	got := b.want(200, RoleAdmin, "GET", "/imports/1/result.csv", nil).records(t)
	if len(got) != rows+1 {
		t.Fatalf("%d records, want %d", len(got), rows+1)
	}
	for i, record := range got[1:] {
		if record[0] != fmt.Sprint(i+1) || record[1] != []string{"imported", "skipped", "rejected"}[(i+1)%3] {
			t.Fatalf("record %d is %q", i, record)
		}
	}
}
