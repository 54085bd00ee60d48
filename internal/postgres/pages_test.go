package postgres_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

// Every row is in exactly one page, in order, even if many rows have the same time.
func TestEachPage(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	require.NoError(t, postgres.MakeMonth(t.Context(), pool, "pages", month(2012, 2)))
	pgtest.Exec(t, pool, `INSERT INTO pages (id, occurred_at, event_type)
		SELECT n, timestamptz '2012-02-03 04:05:06.789123+01' + n / 4 * interval '1 microsecond', CASE n % 3 WHEN 0 THEN 'clicked' ELSE 'created' END
		FROM generate_series(1, 20) n`)
	const ids = "SELECT coalesce(string_agg(id::text, ' ' ORDER BY occurred_at, id), '') FROM pages WHERE "
	for rows, pages := range map[int]int{1: 21, 3: 7, 19: 2, 20: 2, 21: 1} {
		var all []string
		n := 0
		err := postgres.EachPage(t.Context(), pool, "pages", "true", rows, func(condition string) error {
			n++
			if some := scanText(t, pool, ids+condition); some != "" {
				all = append(all, some)
			}
			return nil
		})
		if got, want := strings.Join(all, " "), scanText(t, pool, ids+"true"); err != nil || got != want || n != pages {
			t.Errorf("pages of %d: %d pages, %q, %v; want %d, %q", rows, n, got, err, pages, want)
		}
	}

	// A row that is moved is in the other table exactly once.
	require.NoError(t, postgres.EnsurePartitions(t.Context(), pool, []time.Time{month(2012, 2)}))
	pgtest.Exec(t, pool, "INSERT INTO events SELECT * FROM pages WHERE id = 4")
	for range 2 {
		require.NoError(t, postgres.MoveEvents(t.Context(), pool, "pages", "events", "event_type = 'created'"))
		if got := scanText(t, pool, ids+"true"); got != "3 6 9 12 15 18" {
			t.Errorf("left: %s", got)
		}
		if got := scanText(t, pool, "SELECT count(*) || ' ' || count(DISTINCT id) FROM events WHERE event_type = 'created'"); got != "14 14" {
			t.Errorf("moved: %s", got)
		}
	}
}
