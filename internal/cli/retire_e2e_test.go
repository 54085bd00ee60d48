package cli

import (
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/archive"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/worker"
)

// TestRetireUnderKills kills workers at random moments while they retire months.
// In the end every row is in the archive, once, and comes back as it was.
func TestRetireUnderKills(t *testing.T) {
	t.Parallel()
	const rows, months, kills = 40_000, 3, 12
	url, dir := pgtest.URL(t), t.TempDir()
	pool := pgtest.Open(t, url)
	first := postgres.MonthOf(time.Now()).AddDate(0, -2-months, 0)
	var all []time.Time
	for n := range months {
		all = append(all, first.AddDate(0, n, 0))
	}
	require.NoError(t, postgres.EnsurePartitions(t.Context(), pool, all))
	pgtest.Exec(t, pool, `
		INSERT INTO events (occurred_at, event_type, url_id, visitor, details)
		SELECT m + n * interval '1 minute', 'clicked', n % 100, n, jsonb_build_object('text', md5(n::text))
		FROM unnest($1::timestamptz[]) m, generate_series(0, $2 - 1) n`, all, rows)
	figure := func(sql string) (text string) {
		t.Helper()
		require.NoError(t, pool.QueryRow(t.Context(), sql).Scan(&text))
		return text
	}
	const sum = "SELECT count(*) || ' ' || sum(hashtextextended(e::text, 0)) FROM events e"
	before := figure(sum)
	inserter, err := worker.NewInserter(pool, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	environ := append(os.Environ(), "DATABASE_URL="+url, "ADMIN_ADDR=127.0.0.1:0", "LOG_FORMAT=json",
		"EVENTS_RETENTION_MONTHS=1", "EVENTS_ARCHIVE="+dir)
	retired := func() bool {
		return figure("SELECT (count(*) FILTER (WHERE state = 'dropped'))::text FROM event_parts") == "3"
	}
	killed := 0
	for deadline := time.Now().Add(2 * time.Minute); !retired(); {
		if time.Now().After(deadline) {
			t.Fatalf("not retired: %s", figure("SELECT string_agg(month || ' ' || state, ', ') FROM event_parts"))
		}
		s := start(t, "worker", environ)
		// The next regular run may be a minute away.
		if _, err := inserter.Insert(t.Context(), jobs.ArchiveMonths{}, &river.InsertOpts{
			Queue: jobs.QueueRetention, UniqueOpts: river.UniqueOpts{ByPeriod: time.Second},
		}); err != nil {
			t.Fatal(err)
		}
		wait := time.Duration(rand.IntN(250)) * time.Millisecond
		if killed >= kills {
			wait = 10 * time.Second
		}
		for until := time.After(wait); wait > 0 && !retired(); {
			select {
			case <-until:
				wait = 0
			case <-time.After(20 * time.Millisecond):
			}
		}
		s.kill()
		killed++
	}
	if left := figure("SELECT count(*)::text FROM events"); left != "0" {
		t.Errorf("%s events are left", left)
	}
	store, err := archive.Open(dir, archive.S3{})
	require.NoError(t, err)
	for _, month := range all {
		if done, err := worker.RestoreMonth(t.Context(), pool, store, worker.Restoring{Month: month, Hold: time.Hour}); err != nil || done.Parts != 1 {
			t.Errorf("restore: %+v, %v", done, err)
		}
	}
	if got := figure(sum); got != before {
		t.Errorf("after %d kills the events are %s, were %s", killed, got, before)
	}
	t.Logf("%d kills", killed)
}
