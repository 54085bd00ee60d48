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

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/pgtest"
)

// TestRoundTrip moves from one server to another, which is empty. The rows that were
// exported as CSV and imported there are the same as before.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	from, to := startDevOn(t, pgtest.URL(t)), startDevOn(t, pgtest.URL(t))
	fillForExport(t, from)
	if _, err := pgtest.Open(t, to.database).Exec(t.Context(), "INSERT INTO domains (host) VALUES ('go.example')"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, kind := range []string{"users", "urls", "events"} {
		file := filepath.Join(dir, kind+".csv")
		if err := os.WriteFile(file, from.download("/"+kind+"?format=csv"), 0o600); err != nil {
			t.Fatal(err)
		}
		job := to.upload(kind, file)
		if job["state"] != "completed" || job["rows_imported"] != job["rows_total"] || job["rows_total"] == 0.0 {
			t.Fatalf("import of %s: %v\n%v", kind, job, to.getJSON(fmt.Sprintf("/imports/%v/errors", job["id"]), http.StatusOK))
		}
	}
	for _, kind := range []string{"users", "urls", "events"} {
		want, got := rowsForCompare(t, from, kind), rowsForCompare(t, to, kind)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", kind, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	for _, kind := range []string{"users", "urls"} { // events get ids of their own
		first, err := os.ReadFile(filepath.Join(dir, kind+".csv"))
		if err != nil {
			t.Fatal(err)
		}
		if again := to.download("/" + kind + "?format=csv"); !bytes.Equal(again, first) {
			t.Errorf("the export of %s is\n%s\nwas\n%s", kind, again, first)
		}
	}
	const clicks = `
		SELECT (SELECT count(*) FROM events WHERE browser IS NOT NULL AND bot IS NOT NULL AND details IS NULL)::text
			|| ' clicks as they are counted here, and of bots ' || (SELECT sum(bots) FROM click_days)`
	if got, want := ask[string](t, to.database, clicks), ask[string](t, from.database, clicks); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	again := to.upload("events", filepath.Join(dir, "events.csv"))
	if again["rows_imported"] != 0.0 {
		t.Errorf("the same history went in twice: %v", again)
	}
	to.call(http.MethodPost, "/imports/3/undo", "", nil, to.token, http.StatusAccepted)
	to.eventually("the history to be undone", func() bool { return to.getJSON("/imports/3", http.StatusOK)["state"] == "undone" })
	if left := ask[string](t, to.database, "SELECT count(*)::text FROM click_days"); left != "0" {
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
	pool := pgtest.Open(t, s.database)
	for _, sql := range []string{
		`INSERT INTO users (id, username, email, created_at) VALUES
			(1, 'ann', 'ann@example.com', '2019-05-06 07:08:09.123456+00'), (2, '=SUM(A1)', '+bob@example.com', now()),
			(3, 'NULL', 'null@example.com', now()), (4, E'\\N', 'n@example.com', now()), (5, '6''5" tall', 'tall@example.com', now()), (6, E'\\"', 'b@example.com', now()),
			(7, '''=cite', 'o''neil@example.com', '1999-12-31 23:59:59.999999+00'), (4503599627370496, '@日本語 🎉', 'eve@example.com', now())`,
		`INSERT INTO urls (id, user_id, short_code, original_url, title, tags, is_active, expires_at, redirect_status,
				forward_query, imported_clicks, created_at, updated_at) VALUES
			(1, 1, 'plain', 'https://example.com/', NULL, '{}', true, NULL, 302, false, 0, '2020-01-01', '2020-01-02'),
			(2, 2, '-dash', 'https://example.com/?q="1,2"&x=%22', '=HYPERLINK("http://evil.example";"x")', '{=a,b c}', true, NULL, 302, true, 12, now(), now()),
			(3, 7, '_under', 'https://example.com/%E6%97%A5', E'''''+two, "quotes"; and | pipes', '{[a],"\"q\""}', false, '2001-02-03 04:05:06.789+00', 307, false, 4503599627370496, now(), now()),
			(4, 4503599627370496, 'last', 'https://example.com/#f', 'née 🎉 – ok', '{@x}', true, '2999-01-01', 308, false, 0, now(), now()),
			(5, 1, 'brackets', 'https://example.com/', '[x]', '{[a]}', true, NULL, 302, false, 0, now(), now()),
			(6, 1, 'wide', 'https://example.com/', '＝1＋1', '{＠x}', true, NULL, 302, false, 0, now(), now()),
			(8, 1, 'null', 'https://example.com/', 'NULL', E'{"\\\\N"}', true, NULL, 302, false, 0, now(), now()),
			(9, 1, 'backslash-n', 'https://example.com/', E'\\N', '{NULLS}', true, NULL, 302, false, 0, now(), now()),
			(10, 1, 'quote', 'https://example.com/', '"', E'{"a\\\\"}', true, NULL, 302, false, 0, now(), now()),
			(11, 1, 'folder', 'https://example.com/', E'C:\\', '{}', true, NULL, 302, false, 0, now(), now()),
			(12, 1, 'escaped', 'https://example.com/', E'say \\"hi\\", all', '{}', true, NULL, 302, false, 0, now(), now()),
			(13, 1, 'zero', 'https://example.com/', '0000-00-00', E'{"\\\\\\""}', true, NULL, 302, false, 0, now(), now()),
			(7, 1, 'pasted', E'https://bücher.example/straße|"a, b" 100%-x?c=\\=d#e', NULL, '{}', true, NULL, 302, true, 0, now(), now())`,
		`INSERT INTO urls (id, user_id, short_code, original_url)
			SELECT 20 + n, 1, code, 'https://example.com/' || n FROM unnest(ARRAY['+plus', '@ann', '~a', '$5', '!', 'v1.2', 'spring.', 'team/walks/구글',
				'users', 'users/5', 'café', '🚀', E'👩🏽\u200D💻', '1️⃣', 'T+B', '12.0', repeat('é', 127)]) WITH ORDINALITY codes (code, n)`,
		`INSERT INTO domains (host) VALUES ('go.example')`,
		`INSERT INTO urls (id, user_id, domain_id, short_code, original_url) VALUES
			(38, 1, 2, 'plain', 'https://example.com/on-go'), (39, 1, 2, 'docs', 'https://example.com/docs')`,
		`INSERT INTO events (occurred_at, url_id, user_id, event_type, details, source_id) VALUES
			(date_trunc('month', now()) + interval '1.000001 s', 1, 1, 'created', '{"entity": "url", "by": {"name": "=cmd|'' /C calc''!A0", "token_id": null}, "text": "line\nbreak, \"quotes\" 🎉"}', 99),
			(date_trunc('month', now()) + interval '1.000001 s', 1, 7, 'deleted', NULL, NULL)`,
		`INSERT INTO events (occurred_at, url_id, user_id, event_type, bot, browser, country)
			VALUES (date_trunc('month', now()), 4, 7, 'clicked', true, 'Googlebot', 'DE')`,
		`INSERT INTO click_days (url_id, day, clicks, bots) VALUES (4, date_trunc('month', now()), 1, 1)`,
		`SELECT setval('users_id_seq', 20), setval('urls_id_seq', 40)`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
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
		if err != nil {
			s.t.Fatal(err)
		}
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
		if err := json.Unmarshal(line, &row); err != nil {
			t.Fatal(err)
		}
		if kind == "events" {
			delete(row, "id")
		}
		text, err := json.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, string(text))
	}
	slices.Sort(rows)
	return rows
}
