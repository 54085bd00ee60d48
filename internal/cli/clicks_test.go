package cli

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
)

// TestReclassifyCommand judges clicks of a running server by a mark that an operator
// makes.
func TestReclassifyCommand(t *testing.T) {
	t.Parallel()
	s := startDevOn(t, pgtest.URL(t))
	s.post("/users", `{"username": "ann", "email": "ann@example.com"}`, http.StatusCreated)
	s.post("/urls", `{"user_id": 1, "short_code": "spring", "original_url": "https://example.com/"}`, http.StatusCreated)
	for range 3 {
		s.redirect("/spring")
	}
	pool := pgtest.Open(t, s.database)
	told := func(query string) (text string) {
		require.NoError(t, pool.QueryRow(t.Context(), query).Scan(&text))
		return text
	}
	const kinds = "SELECT COALESCE(string_agg(kind, ' '), '') FROM events WHERE event_type = 'clicked'"
	const people = "SELECT COALESCE(sum(people), 0) || ' ' || COALESCE(sum(visitors), 0) FROM rollups WHERE scope = 0"
	s.eventually("the clicks", func() bool { return told(kinds) == "person person person" })
	s.eventually("the statistics", func() bool { return told(people) == "3 1" })
	s.post("/marks", `{"user_agent": "*Firefox/140*", "kind": "monitor"}`, http.StatusCreated)
	environ := []string{"DATABASE_URL=" + s.database, "TIME_ZONE=Europe/Berlin"}
	runs(t, environ, 0, "3 of 3 clicks from 1999-12-31T23:00:00Z", "clicks", "reclassify", "--from", "2000-01-01", "--dry-run")
	assert.Equal(t, "person person person", told(kinds))
	out := runs(t, environ, 0, "person  → monitor  3\n", "clicks", "reclassify", "--from", "2000-01-01T00:00:00+01:00")
	assert.Contains(t, out, "3 of 3 clicks from 1999-12-31T23:00:00Z to ")
	assert.Equal(t, "monitor monitor monitor", told(kinds))
	s.eventually("the statistics", func() bool { return told(people) == "0 0" })
	for text, args := range map[string][]string{
		`required flag(s) "from" not set`:    nil,
		"--from must be before --to":         {"--from", "2025-01-02", "--to", "2025-01-01"},
		"and in the past":                    {"--from", "2999-01-01"},
		`--from: "yesterday" must be a date`: {"--from", "yesterday"},
		`--to: "1" must be a date such as`:   {"--from", "2025-01-01", "--to", "1"},
	} {
		runs(t, environ, 1, text, append([]string{"clicks", "reclassify"}, args...)...)
	}
}

// The end of a range is at most now, and dates are those of the time zone.
func TestReadReclassification(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	now := time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct{ from, to, wantFrom, wantTo string }{
		{"2026-03-01", "2026-03-02", "2026-02-28T23:00:00Z", "2026-03-01T23:00:00Z"},
		{"2026-03-01", "", "2026-02-28T23:00:00Z", "2026-03-05T12:00:00Z"},
		{"2026-03-01T00:00:00Z", "2026-04-01", "2026-03-01T00:00:00Z", "2026-03-05T12:00:00Z"},
	} {
		r, err := readReclassification(test.from, test.to, berlin, now)
		require.NoError(t, err)
		assert.Equal(t, test.wantFrom, r.From.UTC().Format(time.RFC3339))
		assert.Equal(t, test.wantTo, r.To.UTC().Format(time.RFC3339))
	}
}
