package worker

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/jobs"
)

const (
	chrome = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"
	iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1"
)

func click(url int64, at time.Time) clicks.Click {
	return clicks.Click{
		At: at, URLID: url, UserID: 7, IP: netip.MustParseAddr("8.8.8.8"),
		UserAgent: chrome, Referrer: "https://News.Example.org/item?id=1",
	}
}

// many returns n clicks on a few links, some of robots.
func many(n int, at time.Time) []clicks.Click {
	batch := make([]clicks.Click, n)
	for i := range batch {
		batch[i] = click(int64(i%7+1), at.Add(time.Duration(i)*time.Second))
		if i%5 == 0 {
			batch[i].UserAgent = "curl/8.5.0"
		}
	}
	return batch
}

// wantCounted checks that events and rollups hold n clicks and agree.
func (s *site) wantCounted(n int64) {
	s.Helper()
	s.wantInt(n, "SELECT count(*) FROM events WHERE event_type = 'clicked'")
	for _, rollup := range []struct{ table, column, start string }{
		{"click_quarters", "bucket", "date_bin('15 minutes', occurred_at, '2000-01-01 00:00+00')"},
		{"click_days", "day", "(occurred_at AT TIME ZONE 'UTC')::date"},
	} {
		s.wantInt(0, fmt.Sprintf(`
			SELECT count(*) FROM (
				SELECT url_id, %[3]s AS start, count(*) AS clicks, count(*) FILTER (WHERE bot) AS bots
				FROM events WHERE event_type = 'clicked' GROUP BY 1, 2
			) e
			FULL JOIN %[1]s r ON r.url_id = e.url_id AND r.%[2]s = e.start
			WHERE (e.clicks, e.bots) IS DISTINCT FROM (r.clicks, r.bots)`, rollup.table, rollup.column, rollup.start))
	}
}

func TestRecordClicks(t *testing.T) {
	s := setup(t)
	at := time.Now().UTC().Add(-time.Hour).Truncate(time.Microsecond)
	batch := many(500, at)
	batch[1].UserAgent, batch[1].Referrer, batch[1].IP = iphone, "", netip.MustParseAddr("192.168.1.1")
	job := s.ship("a-1", batch)
	s.start(nil)

	s.eventually("batch is ingested", func() bool {
		return s.int("SELECT count(*) FROM click_batches WHERE ingested_at IS NOT NULL AND payload IS NULL") == 1
	})
	s.wantCounted(500)
	s.eventually("job is completed", func() bool { return s.jobState(job) == "completed" })

	row := func(i int) string {
		return s.text(`SELECT concat_ws(' ', url_id, user_id, bot, coalesce(country, '-'), coalesce(browser, '-'),
			coalesce(os, '-'), device, coalesce(referrer_host, '-')) FROM events WHERE occurred_at = $1`, batch[i].At)
	}
	for i, want := range map[int]string{
		0: "1 7 t US curl - bot news.example.org",
		1: "2 7 f - Safari iOS mobile -",
		2: "3 7 f US Chrome Windows desktop news.example.org",
	} {
		if got := row(i); got != want {
			t.Errorf("click %d: got %q, want %q", i, got, want)
		}
	}
}

func TestRecordClicksIsIdempotent(t *testing.T) {
	s := setup(t)
	s.ship("a-1", many(50, time.Now()))
	var again []int64
	for range 5 { // as after a rescue, and as an operator may do
		again = append(again, s.queue("a-1"))
	}
	s.start(map[string]int{jobs.QueueClicks: 4})
	for _, id := range again {
		s.eventually("job is completed", func() bool { return s.jobState(id) == "completed" })
	}
	s.wantCounted(50)
}

// A worker that seemed dead finishes after its job was given to another, was
// cancelled, or was deleted.
func TestRecordClicksOfAStaleWorker(t *testing.T) {
	for name, change := range map[string]string{
		"rescued":   "UPDATE river_job SET state = 'retryable', scheduled_at = now() WHERE id = $1",
		"discarded": "UPDATE river_job SET state = 'discarded', finalized_at = now() WHERE id = $1",
		"cancelled": "UPDATE river_job SET state = 'cancelled', finalized_at = now() WHERE id = $1",
		"deleted":   "DELETE FROM river_job WHERE id = $1",
	} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			id := s.ship("a-1", many(50, time.Now()))
			lock := s.lock("SELECT FROM click_batches WHERE id = 'a-1' FOR UPDATE")
			s.start(nil)
			s.eventually("job waits for the batch", s.someoneWaits)
			s.exec(change, id)
			if name != "rescued" {
				s.insert("a-1")
			}
			s.rollback(lock)
			s.eventually("no job is left", func() bool {
				return s.int("SELECT count(*) FROM river_job WHERE kind = 'record_clicks' AND finalized_at IS NULL") == 0
			})
			s.wantCounted(50)
		})
	}
}

func (s *site) lock(sql string) pgx.Tx {
	s.Helper()
	tx, err := s.pool.Begin(s.ctx)
	if err != nil {
		s.Fatalf("begin: %v", err)
	}
	// A test that fails must not wait for this connection when it closes the pool.
	s.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	if _, err := tx.Exec(s.ctx, sql); err != nil {
		s.Fatalf("%s: %v", sql, err)
	}
	return tx
}

func (s *site) rollback(tx pgx.Tx) {
	s.Helper()
	if err := tx.Rollback(s.ctx); err != nil {
		s.Fatalf("rollback: %v", err)
	}
}

// someoneWaits reports whether a statement waits for a row lock.
func (s *site) someoneWaits() bool {
	return s.int(`SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock'`) > 0
}

func TestRecordClicksSetsAsideWhatPostgresRefuses(t *testing.T) {
	s := setup(t)
	s.exec("ALTER TABLE events ADD CONSTRAINT events_no_three CHECK (url_id <> 3)")
	batch := many(70, time.Now().Add(-time.Hour))
	s.ship("a-1", batch)
	s.start(nil)
	s.eventually("batch is ingested", func() bool {
		return s.int("SELECT count(*) FROM click_batches WHERE ingested_at IS NOT NULL") == 1
	})
	s.wantCounted(60)
	s.wantInt(10, "SELECT count(*) FROM click_rejects WHERE url_id = 3 AND reason LIKE 'refused%'")
	s.wantInt(2, "SELECT min(position) FROM click_rejects")
}

func TestRecordClicksSetsAsideImpossibleTimes(t *testing.T) {
	s := setup(t)
	batch := many(10, time.Now().Add(-time.Hour))
	batch[3].At = time.Unix(0, 0).UTC()
	batch[4].At = time.Date(2190, 1, 1, 0, 0, 0, 0, time.UTC)
	batch[5].At = time.Date(2011, 5, 1, 0, 0, 0, 0, time.UTC) // a slow clock, but a month we can have
	s.ship("a-1", batch)
	s.start(nil)
	s.eventually("batch is ingested", func() bool {
		return s.int("SELECT count(*) FROM click_batches WHERE ingested_at IS NOT NULL") == 1
	})
	s.wantCounted(8)
	s.wantInt(2, "SELECT count(*) FROM click_rejects WHERE reason LIKE 'time%'")
}

func TestPoisonousBatchBlocksNoOther(t *testing.T) {
	s := setup(t)
	s.store("bad", []byte("no batch at all"), 5)
	bad := s.queue("bad")
	for i := range 10 {
		s.ship(fmt.Sprintf("good-%d", i), many(10, time.Now()))
	}
	s.start(map[string]int{jobs.QueueClicks: 1})
	s.eventually("the others are ingested", func() bool {
		return s.int("SELECT count(*) FROM click_batches WHERE ingested_at IS NOT NULL") == 10
	})
	s.wantCounted(100)
	s.wantInt(1, "SELECT count(*) FROM click_batches WHERE id = 'bad' AND payload IS NOT NULL")
	s.eventually("its job says why", func() bool {
		return strings.Contains(s.text("SELECT errors[1]->>'error' FROM river_job WHERE id = $1", bad), "malformed click batch")
	})
}

func TestMissingBatchCancelsItsJob(t *testing.T) {
	s := setup(t)
	id := s.queue("nowhere")
	s.start(nil)
	s.eventually("job is cancelled", func() bool { return s.jobState(id) == "cancelled" })
}

// Batches on the same links, in opposite order and many at once, wait for each
// other but never in a circle that loses one.
func TestRollupsInOppositeOrder(t *testing.T) {
	s := setup(t)
	at := time.Now().UTC().Truncate(time.Hour)
	for i := range 40 {
		batch := many(140, at)
		if i%2 == 0 {
			slices.Reverse(batch)
		}
		s.ship(fmt.Sprintf("b-%02d", i), batch)
	}
	s.start(map[string]int{jobs.QueueClicks: 8})
	s.eventually("all are ingested", func() bool {
		return s.int("SELECT count(*) FROM click_batches WHERE ingested_at IS NULL") == 0
	})
	s.wantCounted(40 * 140)
}

func TestVisitorsAreOfOneDay(t *testing.T) {
	s := setup(t)
	midnight := time.Now().UTC().Truncate(24 * time.Hour)
	before := []clicks.Click{click(1, midnight.Add(-2*time.Second)), click(2, midnight.Add(-time.Second))}
	after := []clicks.Click{click(3, midnight.Add(-time.Microsecond)), click(4, midnight), click(5, midnight)}
	after[2].UserAgent = iphone
	s.ship("a", before)
	s.ship("b", after)
	s.start(nil)
	s.eventually("both are ingested", func() bool {
		return s.int("SELECT count(*) FROM click_batches WHERE ingested_at IS NULL") == 0
	})
	visitor := func(url int64) int64 { return s.int("SELECT visitor FROM events WHERE url_id = $1", url) }
	if visitor(1) != visitor(2) || visitor(1) != visitor(3) {
		t.Errorf("one visitor of one day has several names")
	}
	if visitor(3) == visitor(4) {
		t.Errorf("a visitor is the same on the next day")
	}
	if visitor(4) == visitor(5) {
		t.Errorf("two visitors are one")
	}
	s.wantInt(2, "SELECT count(*) FROM visitor_salts")
}

func TestRecordClicksAfterAPartitionWasDropped(t *testing.T) {
	s := setup(t)
	s.start(nil)
	at := time.Now().UTC()
	s.ship("a-1", many(10, at))
	s.eventually("first is ingested", func() bool {
		return s.int("SELECT count(*) FROM click_batches WHERE ingested_at IS NULL") == 0
	})
	s.exec("DROP TABLE " + at.Format("events_2006_01"))
	s.exec("TRUNCATE click_quarters, click_days")
	s.ship("a-2", []clicks.Click{click(1, at)})
	s.eventually("second is ingested", func() bool {
		return s.int("SELECT count(*) FROM click_batches WHERE ingested_at IS NULL") == 0
	})
	s.wantCounted(1)
}
