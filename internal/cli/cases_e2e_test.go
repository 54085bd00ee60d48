package cli

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/pgtest"
)

// casesOfFiles is the folder of files that users of such services reported as rejected
// or misread, with the results of a correct import of each.
const casesOfFiles = "internal/csvimport/testdata/cases/"

// storedOfCases are the links that the files result in: code, target, title, tags and
// clicks, and the time of creation unless that is the time of the import.
var storedOfCases = map[string][]string{
	"cells.csv":  {"cells-one /1 - {} 0 -", "cells-two /2 T {} 0 -", "cells-three /3 T {x} 0 -"},
	"padded.csv": {"pad-one /1 Fish, chips {} 0 -", "pad-two /2 x {} 0 -"},
	"mysql.csv": {
		"my1 /1 - {} 42 2021-03-04 05:06:07", "my2 /2 - {} 0 -", `my3 /3 Say "hi", all {} 1 2021-03-04 05:06:07`,
		"my4 /4 x {} 0 -", "my5 /5 NULL {} 0 2021-03-04 05:06:07",
	},
	"numbers.csv":   {"num1 /1 x {} 12 2024-05-01 08:00:00", "num2 /2 x {} 1204 2024-05-01 08:00:00"},
	"times.csv":     {"epoch-s /1 - {} 0 2024-05-01 08:00:00", "epoch-ms /2 - {} 0 2024-05-01 08:00:00", "day /4 - {} 0 2024-05-01 00:00:00"},
	"quote.csv":     {`quote-one /3 6'5" tall {} 0 -`, "quote-two /4 ok {} 0 -"},
	"cp1252.csv":    {},
	"dub-query.csv": {"plain /10 - {} 2 -"},
	"codes.csv": {
		"v1.2 /1 a {} 0 -", "team/walks /2 b {} 0 -", "T+B /3 c {} 0 -", "구글 /4 d {} 0 -", "🚀 /5 e {} 0 -",
		"jobs /6 f {} 0 -", "help /7 g {} 0 -", "~a /8 h {} 0 -",
	},
}

// TestFilesFromTheField imports each file as it is, through API and worker.
func TestFilesFromTheField(t *testing.T) {
	t.Parallel()
	s := startDevOn(t, pgtest.URL(t))
	s.post("/users", `{"username": "ann", "email": "ann@example.com"}`, http.StatusCreated)
	seen := 0
	for file, want := range expectedOfFiles(t) {
		seen++
		job := s.upload("urls&user_id=1", casesOfFiles+file)
		if job["rows_imported"] != want.imported || job["rows_rejected"] != want.rejected || job["state"] != "completed" {
			t.Errorf("%s: want %+v of %v", file, want, job)
		}
		if escape := map[bool]string{true: "backslash", false: "none"}[file == "mysql.csv"]; job["escape"] != escape || job["timezone"] != "UTC" {
			t.Errorf("%s: escape is %v, want %v; the time zone is %v", file, job["escape"], escape, job["timezone"])
		}
		if said := fmt.Sprint(job["problems"]); file == "cp1252.csv" && (!strings.Contains(said, "Windows-1252") || !strings.Contains(said, "encoding=windows-1252")) {
			t.Errorf("%s: the problems are %s", file, said)
		}
		if got := storedOf(t, s, job["id"]); !slices.Equal(got, storedOfCases[file]) {
			t.Errorf("%s: stored are\n%s\nwant\n%s", file, strings.Join(got, "\n"), strings.Join(storedOfCases[file], "\n"))
		}
	}
	if files, _ := filepath.Glob(casesOfFiles + "*.csv"); seen == 0 || seen != len(files) {
		t.Errorf("%d files are said to come to something, there are %d", seen, len(files))
	}
	western := s.upload("urls&user_id=1&encoding=windows-1252&timezone=Europe/Berlin", casesOfFiles+"cp1252.csv")
	if got, want := storedOf(t, s, western["id"]), []string{"cp-one /1 München – Bad {} 0 -", "cp-two /2 Café {} 0 -"}; !slices.Equal(got, want) {
		t.Errorf("in its encoding cp1252.csv comes to %q, want %q", got, want)
	}
	if western["timezone"] != "Europe/Berlin" {
		t.Errorf("the time zone is %v", western["timezone"])
	}
}

type expectedRows struct{ imported, rejected float64 }

// expectedOfFiles reads the expected results of each file.
func expectedOfFiles(t *testing.T) map[string]expectedRows {
	t.Helper()
	table, err := os.ReadFile(casesOfFiles + "expected.tsv")
	require.NoError(t, err)
	files := map[string]expectedRows{}
	for line := range strings.Lines(string(table)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		cells := strings.Split(line, "\t")
		imported, err := strconv.ParseFloat(cells[1], 64)
		require.NoError(t, err)
		rejected, err := strconv.ParseFloat(cells[2], 64)
		require.NoError(t, err)
		files[cells[0]] = expectedRows{imported, rejected}
	}
	return files
}

// storedOf lists the rows that an import made, in the order of its file, and checks
// that each of its links leads somewhere.
func storedOf(t *testing.T, s *server, id any) []string {
	t.Helper()
	rows, err := pgtest.Open(t, s.database).Query(t.Context(), `
		SELECT short_code, concat_ws(' ', short_code, substr(original_url, length('https://e.example') + 1), COALESCE(title, '-'), tags, imported_clicks,
			CASE WHEN created_at >= (SELECT created_at FROM imports WHERE id = $1::bigint) THEN '-' ELSE to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') END)
		FROM urls WHERE import_id = $1::bigint ORDER BY import_line`, fmt.Sprint(id))
	require.NoError(t, err)
	defer rows.Close()
	var stored []string
	for rows.Next() {
		var code, row string
		require.NoError(t, rows.Scan(&code, &row))
		if location := s.redirect(links.CodePath(code)); !strings.HasPrefix(location, "https://e.example/") {
			t.Errorf("%s leads to %q", code, location)
		}
		stored = append(stored, row)
	}
	require.NoError(t, rows.Err())
	return stored
}
