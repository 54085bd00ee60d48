package worker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
)

// wantProblems checks that an import's problems are the groups of its rejected rows and
// of its notices. This holds at any moment, so both are read at once.
func (s *site) wantProblems(id int64) {
	s.Helper()
	const group = ` field, COALESCE(kind, 'other') AS kind, import_reason_shape(reason) AS shape,
		count(*) AS rows, min(line) AS line, (array_agg(reason ORDER BY line))[1] AS reason`
	got := s.text(`
		WITH should AS (
			SELECT 'rejected' AS outcome,`+group+` FROM import_errors WHERE import_id = $1 GROUP BY field, COALESCE(kind, 'other'), 4
			UNION ALL
			SELECT 'imported',`+group+` FROM import_notices WHERE import_id = $1 GROUP BY field, kind, 4
		), are AS (
			SELECT outcome, field, kind, shape, rows, line, reason FROM import_problems WHERE import_id = $1
		)
		SELECT string_agg(what || d::text, E'\n') FROM (
			SELECT 'not counted: ' AS what, d FROM (SELECT * FROM should EXCEPT SELECT * FROM are) d
			UNION ALL
			SELECT 'counted: ', d FROM (SELECT * FROM are EXCEPT SELECT * FROM should) d
		) d`, id)
	if got != "NULL" {
		s.Errorf("problems of import %d:\n%s", id, got)
	}
	s.wantInt(0, "SELECT count(*) FROM import_errors WHERE import_id = $1 AND kind IS NULL", id)
}

// problems lists the problems of an import as "outcome field kind rows line reason".
func (s *site) problems(id int64) string {
	s.Helper()
	return s.text(`SELECT string_agg(concat_ws(' ', outcome, field, kind, rows, line, reason), E'\n' ORDER BY rows DESC, line)
		FROM import_problems WHERE import_id = $1`, id)
}

// The file has many kinds of errors, and many workers apply it at once.
func TestProblemsOfAFile(t *testing.T) {
	s := setup(t)
	s.start(map[string]int{jobs.QueueImports: 4})
	s.exec(ann)
	var file strings.Builder
	file.WriteString("id,user_id,original_url,title\n")
	for i := range 3000 {
		switch i % 6 {
		case 0:
			fmt.Fprintf(&file, ",1,host%d.example/%d,\n", i, i)
		case 1:
			fmt.Fprintf(&file, ",1,https://example.com/,,%d\n", i)
		case 2:
			fmt.Fprintf(&file, ",%d,https://example.com/,\n", 2+i)
		case 3:
			fmt.Fprintf(&file, "1,1,https://example.com/,\n")
		case 4:
			fmt.Fprintf(&file, ",1,https://example.com/,caf\xe9\n")
		default:
			fmt.Fprintf(&file, ",1,https://example.com/%d,\n", i)
		}
	}
	id := s.upload(csvimport.KindLinks, file.String(), csvimport.SplitOptions{ChunkRows: 50})
	s.wantRows(id, 501, 2499)
	want := `rejected original_url target 500 2 must start with http:// or https://, such as https://host0.example/0
rejected cells 500 3 has text behind its last column: it has 5 fields, 4 are expected, and field 5 is "1"
rejected user_id missing 500 4 is not the id of a user
rejected title encoding 500 6 must be valid UTF-8
rejected id taken 499 11 is taken by an earlier row or by an existing one`
	if got := s.problems(id); strings.ReplaceAll(got, "  ", " ") != want {
		t.Errorf("problems are\n%s\nwant\n%s", got, want)
	}
}

// Rejected rows that the previous release writes are counted too. Rows whose reasons
// differ in words do not make more groups than are of use. All groups are removed with
// the import.
func TestProblemsAreCountedWhoeverWrites(t *testing.T) {
	s := setup(t)
	id := s.receive(csvimport.KindUsers, "username,email\nann,ann@example.com\n", csvimport.SplitOptions{})
	other := s.receive(csvimport.KindUsers, "username,email\nann,ann@example.com\n", csvimport.SplitOptions{})
	const insert = "INSERT INTO import_errors (import_id, line, field, reason, record) SELECT $1::bigint, "
	s.exec(insert+"n, 'email', 'is wrong ' || n, '' FROM generate_series(11, 13) n", id)
	s.exec(insert+"n, 'email', 'is wrong ' || n, '' FROM generate_series(2, 4) n", id)
	s.exec(insert+"2, 'email', 'is wrong', ''", other)
	if got, want := s.problems(id), "rejected email other 6 2 is wrong 2"; got != want {
		t.Errorf("problems are %s, want %s", got, want)
	}
	// The reasons differ in letters, since digits make no difference: 999 reasons in
	// three statements.
	for n := range 3 {
		s.exec(insert+"1000 + n, 'column ' || translate(n::text, '0123456789', 'abcdefghij'), 'is wrong', '' FROM generate_series($2::int, $2 + 332) n", id, n*333)
	}
	s.wantInt(6+999, "SELECT sum(rows) FROM import_problems WHERE import_id = $1", id)
	s.wantInt(101, "SELECT count(*) FROM import_problems WHERE import_id = $1", id)
	s.wantInt(900, "SELECT rows FROM import_problems WHERE import_id = $1 AND field = '' AND shape = '' AND reason = 'other reasons'", id)
	// A row whose reason has a group is still counted there.
	s.exec(insert+"5000, 'email', 'is wrong 5', ''", id)
	s.wantInt(7, "SELECT rows FROM import_problems WHERE import_id = $1 AND field = 'email'", id)
	s.exec("DELETE FROM imports WHERE id = $1", id)
	s.wantInt(1, "SELECT count(*) FROM import_problems")
}

// Links with reserved codes are imported, with a notice that names their path. Links
// that are rejected for another reason, or updated, have no notice. A dry run has the
// same notices.
func TestNoticesOfReservedCodes(t *testing.T) {
	s := setup(t)
	s.start(map[string]int{jobs.QueueImports: 3}, smallPieces)
	s.exec(ann)
	s.exec("INSERT INTO urls (user_id, short_code, original_url) VALUES (1, 'api/there', 'https://example.com/')")
	const file = "short_code,user_id,original_url\n" +
		"app,1,https://example.com/\n" + // 2
		"app/x,1,https://example.com/\n" +
		"spring,1,https://example.com/\n" +
		"apps,1,https://example.com/\n" +
		"users,1,nonsense\n" + // 6
		"App,1,https://example.com/\n" +
		"api/there,1,https://example.com/new\n" +
		"app,1,https://example.com/\n" +
		",1,https://example.com/\n" // 10
	const want = "2 short_code reserved is a reserved word, so the link answers under /r/app\n" +
		"3 short_code reserved is a reserved word, so the link answers under /r/app/x"
	for _, dry := range []bool{true, false} {
		for _, opts := range []csvimport.SplitOptions{{}, {ChunkRows: 2}} {
			id := s.uploadAs(csvimport.KindLinks, file, opts, csvimport.PolicyUpdate, dry)
			s.ended(id)
			got := s.text("SELECT string_agg(concat_ws(' ', line, field, kind, reason), E'\\n' ORDER BY line) FROM import_notices WHERE import_id = $1", id)
			if got != want {
				t.Errorf("dry run %v, %+v: notices are\n%s\nwant\n%s", dry, opts, got, want)
			}
			s.wantInt(2, "SELECT rows FROM import_problems WHERE import_id = $1 AND outcome = 'imported'", id)
			if dry {
				continue
			}
			s.undo(id)
			s.undone(id)
			s.wantInt(0, "SELECT count(*) FROM import_notices WHERE import_id = $1", id)
			s.wantProblems(id)
		}
	}
}

// An undo removes notices, however many there are. The reasons why rows were rejected
// stay.
func TestUndoForgetsNotices(t *testing.T) {
	s := setup(t)
	s.start(nil, smallPieces)
	s.exec(ann)
	id := s.upload(csvimport.KindLinks, "user_id,original_url\n1,https://example.com/\n1,nonsense\n9,https://example.com/\n", csvimport.SplitOptions{})
	s.wantRows(id, 1, 2)
	other := s.receive(csvimport.KindLinks, "user_id,original_url\n1,https://example.com/\n", csvimport.SplitOptions{})
	for _, of := range []int64{id, other} {
		s.exec(`INSERT INTO import_notices (import_id, line, field, kind, reason)
			SELECT $1, n, 'short_code', 'reserved', 'answers under /r/app' || n FROM generate_series(2, 20) n`, of)
	}
	s.wantInt(19, "SELECT rows FROM import_problems WHERE import_id = $1 AND outcome = 'imported'", id)
	s.undo(id)
	s.wantUndone(id, 1, 0)
	s.wantInt(0, "SELECT count(*) FROM import_notices WHERE import_id = $1", id)
	s.wantInt(2, "SELECT sum(rows) FROM import_problems WHERE import_id = $1", id)
	s.wantProblems(id)
	s.wantInt(19, "SELECT count(*) FROM import_notices WHERE import_id = $1", other)
	s.wantInt(19, "SELECT sum(rows) FROM import_problems WHERE import_id = $1", other)
}
