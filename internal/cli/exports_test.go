package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/rollup"
)

// TestRoundTrip moves from one server to another, which is empty. The rows that were
// exported as CSV and imported there are the same as before.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	from, to := startDevOn(t, pgtest.URL(t)), startDevOn(t, pgtest.URL(t))
	fold := func(s *server) {
		t.Helper()
		require.NoError(t, rollup.Fold(t.Context(), pgtest.Open(t, s.database)))
	}
	fillForExport(t, from)
	fold(from)
	pgtest.Exec(t, pgtest.Open(t, to.database), "INSERT INTO domains (host) VALUES ('go.example')")
	dir := t.TempDir()
	for _, kind := range []string{"users", "urls", "events"} {
		file := filepath.Join(dir, kind+".csv")
		require.NoError(t, os.WriteFile(file, from.download("/"+kind+"?format=csv"), 0o600))
		job := to.upload(kind, file)
		if job["state"] != "completed" || job["rows_imported"] != job["rows_total"] || job["rows_total"] == 0.0 {
			t.Fatalf("import of %s: %v\n%v", kind, job, to.getJSON(fmt.Sprintf("/imports/%v/errors", job["id"]), http.StatusOK))
		}
	}
	fold(to)
	for _, kind := range []string{"users", "urls", "events"} {
		want, got := rowsForCompare(t, from, kind), rowsForCompare(t, to, kind)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", kind, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	for _, kind := range []string{"users", "urls"} { // events get ids of their own
		first, err := os.ReadFile(filepath.Join(dir, kind+".csv"))
		require.NoError(t, err)
		if again := to.download("/" + kind + "?format=csv"); !bytes.Equal(again, first) {
			t.Errorf("the export of %s is\n%s\nwas\n%s", kind, again, first)
		}
	}
	const clicks = `
		SELECT (SELECT count(*) FROM events WHERE browser IS NOT NULL AND bot IS NOT NULL AND details IS NULL)::text
			|| ' clicks as they are counted here, and of bots ' || (SELECT sum(clicks - people) FROM rollups WHERE scope > 0)`
	if got, want := ask[string](t, to.database, clicks), ask[string](t, from.database, clicks); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	again := to.upload("events", filepath.Join(dir, "events.csv"))
	if again["rows_imported"] != 0.0 {
		t.Errorf("the same history went in twice: %v", again)
	}
	to.call(http.MethodPost, "/imports/3/undo", "", nil, to.token, http.StatusAccepted)
	to.eventually("the history to be undone", func() bool { return to.getJSON("/imports/3", http.StatusOK)["state"] == "undone" })
	fold(to)
	if left := ask[string](t, to.database, "SELECT count(*)::text FROM rollups"); left != "0" {
		t.Errorf("%s rollups are left of an undone history", left)
	}
}

// startDevOn runs everything in one process on a database of the tests.
func startDevOn(t *testing.T, url string) *server {
	t.Helper()
	s := launch(t, "dev", program(t, environment(url, "", "PUBLIC_URL=https://sho.rt"), "dev", "--data", t.TempDir()))
	s.database = url
	return s
}

// fillForExport makes rows with every kind of value that a file could damage.
func fillForExport(t *testing.T, s *server) {
	t.Helper()
	rows, err := os.ReadFile("internal/cli/testdata/export.sql")
	require.NoError(t, err)
	pgtest.Exec(t, pgtest.Open(t, s.database), string(rows))
	s.post("/users", `{"username": "created", "email": "created@example.com"}`, http.StatusCreated)
	for range 3 {
		s.redirect("/plain")
	}
	s.redirect("/-dash")
	s.patch("/urls/1", `{"title": "=changed", "tags": ["x"]}`, http.StatusOK)
	s.changeEverything()
	s.eventually("the clicks", func() bool {
		return s.clicks(1) == 3 && s.clicks(2) == 1
	})
}

// changeEverything changes all fields of a link, from and to values as long as are
// allowed.
func (s *server) changeEverything() {
	s.t.Helper()
	body := func(code string) string {
		var tags []string
		for i := range links.MaxTags {
			tags = append(tags, fmt.Sprintf("%s%02d%s", strings.Repeat("🎉", links.MaxTag-3), i, code))
		}
		target := "https://example.com/"
		text, err := json.Marshal(map[string]any{
			"user_id": 1, "short_code": code, "title": strings.Repeat("🎉", links.MaxTitle-1) + code, "tags": tags,
			"original_url": target + strings.Repeat(code, links.MaxTarget-len(target)),
		})
		require.NoError(s.t, err)
		return string(text)
	}
	link := s.post("/urls", body("a"), http.StatusCreated)
	s.patch(fmt.Sprintf("/urls/%v", link["id"]), body("b"), http.StatusOK)
}

// rowsForCompare returns all rows of a list as JSON, sorted. Events are without their
// ids, which each server gives itself.
func rowsForCompare(t *testing.T, s *server, kind string) []string {
	t.Helper()
	var rows []string
	for line := range bytes.Lines(s.download("/" + kind + "?format=ndjson")) {
		var row map[string]any
		require.NoError(t, json.Unmarshal(line, &row))
		if kind == "events" {
			delete(row, "id")
		}
		text, err := json.Marshal(row)
		require.NoError(t, err)
		rows = append(rows, string(text))
	}
	slices.Sort(rows)
	return rows
}
