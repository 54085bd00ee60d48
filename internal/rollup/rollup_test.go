package rollup_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/queries"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// base is a month that has a partition.
var base = postgres.MonthOf(time.Now())

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	pgtest.Exec(t, pool, sql, args...)
}

func apply(t *testing.T, pool *pgxpool.Pool, c *rollup.Changes) {
	t.Helper()
	require.NoError(t, c.Apply(t.Context(), queries.New(pool)))
}

func check(t *testing.T, pool *pgxpool.Pool) rollup.Comparison {
	t.Helper()
	c, err := rollup.Check(t.Context(), pool)
	require.NoError(t, err)
	return c
}

// clicks returns clicks at both ends of quarters and days, of two links, one of them by
// a robot.
func clicks() []rollup.Event {
	return []rollup.Event{
		{URLID: 2, At: base},
		{URLID: 2, At: base.Add(15*time.Minute - time.Microsecond), Bot: true},
		{URLID: 2, At: base.Add(15 * time.Minute)},
		{URLID: 1, At: base.Add(24*time.Hour - time.Microsecond)},
		{URLID: 1, At: base.Add(24 * time.Hour)},
	}
}

func TestRollupsFollowEvents(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	apply(t, pool, new(rollup.Changes))
	var added rollup.Changes
	for _, e := range clicks() {
		exec(t, pool, "INSERT INTO events (occurred_at, url_id, event_type, bot) VALUES ($1, $2, 'clicked', $3)", e.At, e.URLID, e.Bot)
		added.Add(e)
	}
	exec(t, pool, "INSERT INTO events (occurred_at, url_id, event_type) VALUES ($1, 1, 'created')", base)
	if got := check(t, pool).Differ; got != 7 { // four quarters and three days
		t.Errorf("before anything was added %d rows differ, want 7", got)
	}
	apply(t, pool, &added)
	if got, want := check(t, pool), (rollup.Comparison{Events: 5, Quarters: 5, Days: 5}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}

	var removed rollup.Changes
	removed.Remove(clicks()[1])
	removed.Remove(clicks()[4])
	exec(t, pool, "DELETE FROM events WHERE bot OR occurred_at = $1", clicks()[4].At)
	if got := check(t, pool).Differ; got != 4 {
		t.Errorf("before anything was taken away %d rows differ, want 4", got)
	}
	apply(t, pool, &removed)
	if got, want := check(t, pool), (rollup.Comparison{Events: 3, Quarters: 3, Days: 3}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	var rows int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM click_days").Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d days are left (%v), want 2: those without clicks are removed", rows, err)
	}
}

func TestCheckOfArchivedMonths(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	var added rollup.Changes
	for _, e := range clicks() {
		added.Add(e)
	}
	apply(t, pool, &added)
	if check(t, pool).Differ == 0 {
		t.Error("rollups without events differ in no row")
	}
	exec(t, pool, "INSERT INTO event_parts (month, part, table_name) VALUES ($1, 1, 'events_part')", base)
	if got := check(t, pool).Differ; got != 0 {
		t.Errorf("%d rows differ of a month whose events are archived", got)
	}
	exec(t, pool, "INSERT INTO events (occurred_at, url_id, event_type, bot) VALUES ($1, 9, 'clicked', false)", base)
	if got := check(t, pool).Differ; got != 2 {
		t.Errorf("%d rows differ for a late click that was not counted, want its quarter and its day", got)
	}
}
