package worker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/internal/visits"
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

// fold merges all clicks into the statistics.
func (s *site) fold() {
	s.Helper()
	s.ok(rollup.Fold(s.ctx, s.pool))
}

// wantClicks checks how many clicks the statistics say a link has, or with 0 all links.
func (s *site) wantClicks(n, link int64) {
	s.Helper()
	s.fold()
	s.wantInt(n, "SELECT COALESCE(sum(clicks), 0) FROM rollups WHERE scope = $1", link)
}

// wantCounted checks that events and statistics hold n clicks and agree.
func (s *site) wantCounted(n int64) {
	s.Helper()
	s.wantInt(n, "SELECT count(*) FROM events WHERE event_type = 'clicked'")
	s.wantRollups()
}

// wantRollups checks that the statistics agree with the events.
func (s *site) wantRollups() {
	s.Helper()
	compared, err := rollup.Check(s.ctx, s.pool)
	s.ok(err)
	if compared.Differ != 0 {
		s.Fatal(compared)
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

// A worker that seemed dead finishes after its job was given to another worker, was
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

// A worker that was taken for dead has read its batch, and gets the lock only after
// another worker has ingested the batch. This is the dangerous order: when the first
// worker looked, the batch was not ingested.
func TestStaleWorkerComesAfterItsSuccessor(t *testing.T) {
	for name, finish := range map[string]func(*site, int64){
		"job is done":    func(*site, int64) {},
		"job is deleted": func(s *site, id int64) { s.exec("DELETE FROM river_job WHERE id = $1", id) },
		"job is run once more": func(s *site, id int64) {
			s.exec("UPDATE river_job SET state = 'running', finalized_at = NULL WHERE id = $1", id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			id := s.ship("a-1", many(50, time.Now()))
			reached, goOn := make(chan struct{}), make(chan struct{})
			release := sync.OnceFunc(func() { close(goOn) })
			stale := s.start(map[string]int{jobs.QueueClicks: 1}, func(d *deps) {
				reach := sync.OnceFunc(func() { close(reached) })
				d.judge.agents.read = func(header string) visits.Agent {
					reach()
					<-goOn
					return visits.ReadAgent(header)
				}
			})
			t.Cleanup(release) // before the worker is stopped
			<-reached

			s.rescueJob(id)
			successor := s.start(map[string]int{jobs.QueueClicks: 1})
			s.eventually("the successor has committed", func() bool { return s.jobState(id) == "completed" })
			s.wantCounted(50)
			finish(s, id)
			release()
			s.stop(stale) // this waits for its job
			s.wantCounted(50)
			s.wantIngested(stale, 0)
			s.wantIngested(successor, 50)
		})
	}
}

// A job that was rescued too early runs twice at once: both runs have read the batch
// and are in the transaction.
func TestJobThatRunsTwiceAtOnce(t *testing.T) {
	for name, held := range map[string]string{
		"both wait for the batch":               "SELECT FROM click_batches WHERE id = 'a-1' FOR UPDATE",
		"one has it and the other waits for it": "LOCK TABLE rollup_digests IN SHARE MODE",
	} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			id := s.ship("a-1", many(50, time.Now()))
			lock := s.lock(held)
			one := s.start(map[string]int{jobs.QueueClicks: 1})
			s.eventually("the first run waits", s.waiting(1))
			s.rescueJob(id)
			two := s.start(map[string]int{jobs.QueueClicks: 1})
			s.eventually("both runs wait", s.waiting(2))
			s.rollback(lock)
			s.eventually("batch is ingested", s.allIngested)
			s.stop(one)
			s.stop(two)
			s.wantCounted(50)
			if sum := ingested(one) + ingested(two); sum != 50 {
				t.Errorf("the workers say that they ingested %v clicks, want 50", sum)
			}
		})
	}
}

// rescueJob does to a running job what River's rescuer and scheduler do if its worker
// seems dead.
func (s *site) rescueJob(id int64) {
	s.Helper()
	s.exec(`UPDATE river_job SET state = 'available', scheduled_at = now(),
		errors = array_append(errors, '{"at": "2026-01-01T00:00:00Z", "attempt": 1, "error": "stuck", "trace": ""}'::jsonb)
		WHERE id = $1 AND state = 'running'`, id)
	s.wantInt(1, "SELECT count(*) FROM river_job WHERE id = $1 AND errors IS NOT NULL", id)
}

func ingested(w *Worker) float64 { return testutil.ToFloat64(w.deps.metrics.clicksIngested) }

func (s *site) wantIngested(w *Worker, want float64) {
	s.Helper()
	if got := ingested(w); got != want {
		s.Errorf("a worker says that it ingested %v clicks, want %v", got, want)
	}
}

// A worker that dies within its transaction leaves nothing behind, and its batch is
// ingested once all the same.
func TestRecordClicksKilledBeforeCommit(t *testing.T) {
	for name, kill := range map[string]func(*site, *Worker){
		"connection": func(s *site, _ *Worker) {
			s.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
		},
		"process": func(s *site, w *Worker) {
			ctx, cancel := context.WithCancel(s.ctx)
			cancel()
			if err := w.Stop(ctx); !errors.Is(err, context.Canceled) {
				s.Errorf("stop: %v", err)
			}
			s.start(nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			s.ship("a-1", many(50, time.Now()))
			lock := s.lock("LOCK TABLE rollup_digests IN SHARE MODE") // events are written by then
			w := s.start(nil)
			s.eventually("job waits to leave its digest", s.someoneWaits)
			kill(s, w)
			s.wantInt(0, "SELECT count(*) FROM events")
			s.rollback(lock)
			s.eventually("batch is ingested", s.allIngested)
			s.wantCounted(50)
		})
	}
}

// If a worker was killed, before or after its commit, its jobs run again soon, even if
// two other workers had died with them before.
func TestJobsOfAKilledWorkerRunAgain(t *testing.T) {
	// These two periods of River cannot be configured.
	const looksForDead, looksForWaiting = 30 * time.Second, 5 * time.Second
	if worst := rescueAfter + looksForDead + maxRetry + looksForWaiting; worst > 2*time.Minute || rescueAfter < jobTimeout {
		t.Errorf("a job of a killed worker may run again after %v", worst)
	}
	s := setup(t)
	after := s.ship("after", many(50, time.Now()))
	w := s.start(nil)
	s.eventually("job is completed", func() bool { return s.jobState(after) == "completed" })
	s.ok(w.Stop(s.ctx))
	before := s.ship("before", many(50, time.Now()))
	s.exec(`UPDATE river_job SET state = 'running', finalized_at = NULL, attempt = 3, attempted_by = '{dead}',
			attempted_at = now() - $1::interval,
			errors = array_fill('{"at": "2026-01-01T00:00:00Z", "attempt": 1, "error": "died", "trace": ""}'::jsonb, '{2}')
		WHERE id = ANY($2::bigint[])`, rescueAfter+time.Second, []int64{before, after})
	start := time.Now()
	s.start(nil)
	s.eventually("jobs are completed", func() bool {
		return s.jobState(before) == "completed" && s.jobState(after) == "completed"
	})
	s.wantCounted(100)
	t.Logf("the jobs ran %v after the worker was taken to be dead", time.Since(start).Round(100*time.Millisecond))
}

// A job that an operator cancels stops and is left alone for a while. Its batch is
// kept, and ingested after that.
func TestRecordClicksCancelledByAnOperator(t *testing.T) {
	s := setup(t)
	id := s.ship("a-1", many(50, time.Now()))
	lock := s.lock("LOCK TABLE rollup_digests IN SHARE MODE")
	s.start(nil)
	s.eventually("job waits to leave its digest", s.someoneWaits)
	if _, err := s.river.JobCancel(s.ctx, id); err != nil {
		t.Fatalf("cancel job: %v", err)
	}
	s.eventually("job is cancelled", func() bool { return s.jobState(id) == "cancelled" })
	s.rollback(lock)
	s.wantCounted(0)
	s.wantInt(1, "SELECT count(*) FROM click_batches WHERE payload IS NOT NULL")
	s.exec("UPDATE click_batches SET received_at = now() - interval '10 minutes'")
	s.exec("UPDATE river_job SET finalized_at = now() - interval '10 minutes' WHERE id = $1", id)
	s.eventually("batch is ingested", func() bool {
		if _, err := s.river.Insert(s.ctx, jobs.Reenqueue{}, soon()); err != nil {
			t.Fatalf("insert rescue: %v", err)
		}
		return s.allIngested()
	})
	s.wantCounted(50)
}

// A job that has failed too often stays visible to an operator, with its batch, and can
// be run again once the cause is gone.
func TestJobThatFailsForever(t *testing.T) {
	s := setup(t)
	s.exec("ALTER TABLE rollup_digests RENAME COLUMN payload TO payload_away")
	id := s.ship("a-1", many(50, time.Now()))
	s.exec("UPDATE river_job SET attempt = max_attempts - 1 WHERE id = $1", id)
	w := s.start(nil)
	s.eventually("job is discarded", func() bool { return s.jobState(id) == "discarded" })
	s.wantInt(0, "SELECT count(*) FROM events")
	s.wantInt(1, "SELECT count(*) FROM click_batches WHERE payload IS NOT NULL")
	if why := s.text("SELECT errors[1]->>'error' FROM river_job WHERE id = $1", id); !strings.Contains(why, "rollup_digests") {
		t.Errorf("the job says %q", why)
	}
	s.ok(w.deps.sampleOnce(s.ctx, false))
	if n := w.figure("queue_jobs", "queue", jobs.QueueClicks, "state", "discarded"); n != 1 {
		t.Errorf("the gauge of discarded jobs says %v", n)
	}
	if n := w.figure("clicks_pending"); n != 50 {
		t.Errorf("the gauge of pending clicks says %v", n)
	}
	s.exec("ALTER TABLE rollup_digests RENAME COLUMN payload_away TO payload")
	if _, err := s.river.JobRetry(s.ctx, id); err != nil {
		t.Fatalf("retry job: %v", err)
	}
	s.eventually("job is completed", func() bool { return s.jobState(id) == "completed" })
	s.wantCounted(50)
}

func TestLinkDeletedWhileItsClicksAreInFlight(t *testing.T) {
	s := setup(t)
	s.exec("INSERT INTO users (id, username, email) VALUES (7, 'ann', 'ann@example.org')")
	s.exec("INSERT INTO urls (id, user_id, short_code, original_url) VALUES (1, 7, 'one', 'https://example.org/')")
	s.ship("a-1", []clicks.Click{click(1, time.Now()), click(1, time.Now())})
	s.ship("a-2", []clicks.Click{click(1, time.Now())})
	lock := s.lock("LOCK TABLE rollup_digests IN SHARE MODE")
	s.start(map[string]int{jobs.QueueClicks: 1})
	s.eventually("job waits to leave its digest", s.someoneWaits)
	s.exec("DELETE FROM urls")
	s.exec("DELETE FROM users")
	s.rollback(lock)
	s.eventually("batches are ingested", s.allIngested)
	s.wantCounted(3)
}

// Text that no spool would write, and that Postgres would refuse, costs no click.
func TestRecordClicksWithTextThatIsNoText(t *testing.T) {
	s := setup(t)
	batch := many(5, time.Now())
	batch[0].UserAgent = "bad \xff\xfe\x00 agent"
	batch[1].UserAgent = "Mozilla/5.0 (\x00) Bad\xc3\x28/1.0 Chro\x00me/1 (compatible; Evil\x00bot/1.0)"
	batch[2].Referrer = "https://exa\x00mple.org/"
	batch[3].Referrer = "https://exam\xffple.org/"
	batch[4].Referrer = "https://[\xed\xa0\x80]/"
	s.ship("a-1", batch)
	s.start(nil)
	s.eventually("batch is ingested", s.allIngested)
	s.wantCounted(5)
	s.wantInt(0, "SELECT count(*) FROM click_rejects")
	s.wantInt(2, "SELECT count(referrer_host) FROM events")
}

// If Postgres is set back to a copy of an hour ago, the segments that the spools still
// keep are shipped again. This restores the present state, and counts nothing twice.
func TestPostgresSetBack(t *testing.T) {
	s := setup(t)
	batch := func(n int) []clicks.Click { return many(10, time.Now().Add(-time.Duration(n)*time.Hour)) }
	s.ship("done-before", batch(1))
	w := s.start(nil)
	s.eventually("batch is ingested", s.allIngested)
	s.stop(w)
	s.ship("under-way", batch(2))

	goBack := s.branch()
	w = s.start(nil)
	s.ship("lost", batch(3))
	s.eventually("batches are ingested", s.allIngested)
	s.wantCounted(30)
	s.stop(w)

	goBack()
	s.wantInt(2, "SELECT count(*) FROM click_batches")
	for i, id := range []string{"done-before", "under-way", "lost"} {
		if s.store(id, clicks.EncodeBatch(id, batch(i+1)), 10) {
			s.queue(id)
		}
	}
	s.start(nil)
	s.eventually("batches are ingested", s.allIngested)
	s.wantCounted(30)
}

func (s *site) allIngested() bool {
	return s.int("SELECT count(*) FROM click_batches WHERE ingested_at IS NULL") == 0
}

func (s *site) lock(sql string) pgx.Tx {
	s.Helper()
	tx, err := s.pool.Begin(s.ctx)
	s.ok(err)
	// A test that fails must not wait for this connection when it closes the pool.
	s.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	if _, err := tx.Exec(s.ctx, sql); err != nil {
		s.Fatalf("%s: %v", sql, err)
	}
	return tx
}

func (s *site) rollback(tx pgx.Tx) {
	s.Helper()
	s.ok(tx.Rollback(s.ctx))
}

// someoneWaits reports whether a statement waits for a lock.
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

// Batches on the same links, in opposite order and many at once, wait for each other,
// but never in a circle in which one is lost.
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
	first, second := s.start(map[string]int{jobs.QueueClicks: 4}), s.start(map[string]int{jobs.QueueClicks: 4})
	s.eventually("all are ingested", s.allIngested)
	s.wantCounted(40 * 140)
	s.stop(first)
	s.stop(second)
	s.pool.Reset() // sessions report what they saw when they end
	s.eventually("sessions end", func() bool {
		return s.int("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") == 1
	})
	s.wantInt(0, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
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
	s.eventually("both are ingested", s.allIngested)
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
	s.eventually("first is ingested", s.allIngested)
	s.exec("DROP TABLE " + at.Format("events_2006_01"))
	s.empty("rollups, rollup_digests")
	s.ship("a-2", []clicks.Click{click(1, at)})
	s.eventually("second is ingested", s.allIngested)
	s.wantCounted(1)
}

// Clicks of a month whose partition somebody detached are rejected. They keep back no
// other click, and the table is left alone.
func TestRecordClicksOfADetachedMonth(t *testing.T) {
	s := setup(t)
	at := time.Date(2015, time.March, 31, 23, 59, 50, 0, time.UTC)
	s.exec("CREATE TABLE events_2015_03 (LIKE events)")
	s.ship("a-1", many(20, at)) // ten of them in April
	w := s.start(nil)
	s.eventually("batch is ingested", s.allIngested)
	s.wantCounted(10)
	s.wantInt(10, "SELECT count(*) FROM click_rejects WHERE reason LIKE 'month: %events_2015_03%' AND occurred_at < '2015-04-01'")
	s.wantInt(0, "SELECT count(*) FROM events_2015_03")
	if n := testutil.ToFloat64(w.deps.metrics.clicksRejected.WithLabelValues(rejectedMonth)); n != 10 {
		t.Errorf("the counter of clicks without a month says %v", n)
	}
}

// A partition that an operator made may hold only half of the month. It gets the clicks
// of that half, and the rest does not keep back the batch for ever.
func TestRecordClicksOfHalfAMonth(t *testing.T) {
	s := setup(t)
	s.exec("CREATE TABLE half PARTITION OF events FOR VALUES FROM ('2015-03-01') TO ('2015-03-15')")
	s.ship("a-1", many(20, time.Date(2015, time.March, 14, 23, 59, 50, 0, time.UTC)))
	s.start(nil)
	s.eventually("batch is ingested", s.allIngested)
	s.wantCounted(10)
	s.wantInt(10, "SELECT count(*) FROM click_rejects WHERE reason LIKE 'month: %' AND occurred_at >= '2015-03-15'")
}

// A batch that cannot be decoded fails: it is kept, counted and visible with its
// reason. It blocks neither other batches nor the end of its day's salt, and can be
// retried.
func TestUndecodableBatchFails(t *testing.T) {
	s := setup(t)
	good := clicks.EncodeBatch("bad", many(5, time.Now().Add(-96*time.Hour)))
	s.store("bad", append(slices.Clone(good), 'x'), 5)
	id := s.queue("bad")
	s.exec("UPDATE click_batches SET oldest_at = now() - interval '96 hours', received_at = now() - interval '1 hour'")
	s.exec("UPDATE river_job SET attempt = max_attempts - 1 WHERE id = $1", id)
	w := s.start(nil)
	s.eventually("job is discarded", func() bool { return s.jobState(id) == "discarded" })
	if why := s.text("SELECT failure FROM click_batches WHERE failed_at IS NOT NULL AND payload IS NOT NULL"); !strings.Contains(why, "malformed click batch") {
		t.Errorf("the batch says %q", why)
	}
	s.ok(w.deps.sampleOnce(s.ctx, false))
	for gauge, want := range map[string]float64{
		"click_batches_failed": 1, "clicks_failed": 5, "click_batches_pending": 0, "clicks_pending": 0, "clicks_pending_oldest_seconds": 0,
	} {
		if got := w.figure(gauge); got != want {
			t.Errorf("%s is %v, want %v", gauge, got, want)
		}
	}
	// Neither the rescue nor its salt waits for it.
	s.exec("UPDATE river_job SET finalized_at = now() - interval '10 minutes' WHERE id = $1", id)
	s.exec("INSERT INTO visitor_salts VALUES ((now() AT TIME ZONE 'UTC')::date - 4, decode(repeat('00', 32), 'hex'))")
	s.run(jobs.Reenqueue{})
	s.run(jobs.Prune{})
	s.saltsWereGivenNotice()
	s.run(jobs.Prune{})
	s.wantInt(1, "SELECT count(*) FROM river_job WHERE kind = 'record_clicks'")
	s.wantInt(0, "SELECT count(*) FROM visitor_salts")

	// An operator who knows better can retry it.
	s.exec("UPDATE click_batches SET payload = $1", good)
	operator := &service.Service{Pool: s.pool, River: s.river}
	s.ok(operator.RetryBatch(s.ctx, service.Actor{Role: service.RoleAdmin}, "bad"))
	if err := operator.RetryBatch(s.ctx, service.Actor{Role: service.RoleAdmin}, "bad"); err == nil {
		t.Fatal("it was retried twice")
	}
	s.eventually("batch is ingested", s.allIngested)
	s.wantCounted(5)
	s.wantInt(0, "SELECT count(*) FROM click_batches WHERE failed_at IS NOT NULL")
}

// A batch that an api of the previous release shipped before the upgrade is ingested by
// this release.
func TestBatchOfThePreviousRelease(t *testing.T) {
	s := setup(t)
	payload, err := os.ReadFile("../internal/clicks/testdata/payload-v1")
	s.ok(err)
	s.store("previous", payload, 200)
	s.queue("previous")
	s.start(nil)
	s.eventually("batch is ingested", s.allIngested)
	s.wantCounted(200)
}

// A batch is also ingested if an operator retries its job instead, as in River's own
// pages.
func TestUndecodableBatchIsRetriedByItsJob(t *testing.T) {
	s := setup(t)
	s.store("bad", []byte("no batch at all"), 5)
	id := s.queue("bad")
	s.exec("UPDATE river_job SET attempt = max_attempts - 1 WHERE id = $1", id)
	s.start(nil)
	s.eventually("job is discarded", func() bool { return s.jobState(id) == "discarded" })
	s.exec("UPDATE click_batches SET payload = $1", clicks.EncodeBatch("bad", many(5, time.Now())))
	if _, err := s.river.JobRetry(s.ctx, id); err != nil {
		t.Fatalf("retry job: %v", err)
	}
	s.eventually("batch is ingested", s.allIngested)
	s.wantCounted(5)
}

// If a click makes the enricher panic, no other click is lost.
func TestRecordClicksSetsAsideWhatItPanicsOn(t *testing.T) {
	s := setup(t)
	batch := many(10, time.Now())
	for _, i := range []int{0, 4, 5, 9} {
		batch[i].UserAgent = fmt.Sprint("bomb ", i)
	}
	s.ship("a-1", batch)
	s.start(nil, func(d *deps) {
		d.judge.agents.read = func(header string) visits.Agent {
			if strings.HasPrefix(header, "bomb") {
				panic("cannot parse " + header)
			}
			return visits.ReadAgent(header)
		}
	})
	s.eventually("batch is ingested", s.allIngested)
	s.wantCounted(6)
	s.wantInt(4, "SELECT count(*) FROM click_rejects WHERE reason LIKE 'panic: cannot parse bomb%' AND user_agent LIKE 'bomb%'")
}

// A day's salt is kept after its day while clicks of that day wait. The visitors of the
// backlog are the same as those of the clicks that were ingested in time. Then the salt
// is destroyed.
func TestSaltOfABacklogThatCrossedMidnight(t *testing.T) {
	s := setup(t)
	day := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -5).Add(23*time.Hour + 59*time.Minute)
	s.ship("in-time", []clicks.Click{click(1, day)})
	s.start(nil)
	s.eventually("first is ingested", s.allIngested)
	s.store("backlog", clicks.EncodeBatch("backlog", []clicks.Click{click(2, day.Add(time.Second)), click(3, day.Add(2*time.Minute))}), 2)
	s.exec("UPDATE click_batches SET oldest_at = $1 WHERE id = 'backlog'", day.Add(time.Second))
	s.run(jobs.Prune{})
	s.saltsWereGivenNotice()
	s.run(jobs.Prune{})
	s.wantInt(1, "SELECT count(*) FROM visitor_salts")
	s.queue("backlog")
	s.eventually("backlog is ingested", s.allIngested)
	s.wantInt(1, "SELECT count(DISTINCT visitor) FROM events WHERE url_id IN (1, 2)")
	s.wantInt(2, "SELECT count(DISTINCT visitor) FROM events WHERE url_id IN (2, 3)")
	s.run(jobs.Prune{})
	s.saltsWereGivenNotice()
	s.run(jobs.Prune{})
	s.wantInt(0, "SELECT count(*) FROM visitor_salts")
}

// A backlog of a day that ended days ago may still be in the spools when Postgres is
// back after an outage, and the first job of a worker prunes. The backlog still finds
// its salt; an hour later the salt is destroyed.
func TestSaltOfABacklogThatWaitsInASpool(t *testing.T) {
	s := setup(t)
	day := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -5).Add(12 * time.Hour)
	s.ship("before", []clicks.Click{click(1, day)})
	s.start(nil)
	s.eventually("first is ingested", s.allIngested)
	s.run(jobs.Prune{})
	s.run(jobs.Prune{})
	s.ship("backlog", []clicks.Click{click(2, day.Add(time.Hour))})
	s.eventually("backlog is ingested", s.allIngested)
	s.wantInt(1, "SELECT count(DISTINCT visitor) FROM events")
	s.saltsWereGivenNotice()
	s.run(jobs.Prune{})
	s.wantInt(0, "SELECT count(*) FROM visitor_salts")
}

// saltsWereGivenNotice lets the time pass for which a salt is kept after it was found
// to be due.
func (s *site) saltsWereGivenNotice() {
	s.Helper()
	s.exec("UPDATE visitor_salts SET due_at = due_at - $1::interval - interval '1 second'", saltNotice)
}

// Each click says its kind and by which rules, and the header is stored once. Of a
// visitor who does not want to be tracked nothing is kept but the time, link, country
// and kind.
func TestRecordClicksStoresKinds(t *testing.T) {
	s := setup(t)
	at := time.Now().UTC().Add(-time.Hour).Truncate(time.Microsecond)
	batch := many(8, at)
	for i, agent := range []string{chrome, "WhatsApp/2.23.20", "kube-probe/1.27", "curl/8.5.0", "", chrome, chrome, "curl/8.5.0"} {
		batch[i].UserAgent = agent
	}
	batch[5].Prefetch = true
	batch[6].Private, batch[6].Trigger = true, clicks.TriggerQR
	batch[7].Private = true
	s.ship("a-1", batch)
	s.start(nil)
	s.eventually("batch is ingested", s.allIngested)
	for i, want := range []string{
		"person f 1 - US Chrome desktop news.example.org t true",
		"preview t 1 - US WhatsApp bot news.example.org t true",
		"monitor t 1 - US kube-probe bot news.example.org t true",
		"tool t 1 - US curl bot news.example.org t true",
		"empty t 1 - US - bot news.example.org t false",
		"prefetch t 1 - US Chrome desktop news.example.org t true",
		"person f 1 qr US - - - f false",
		"tool t 1 - US - - - f false",
	} {
		got := s.text(`SELECT concat_ws(' ', e.kind, e.bot, e.rules, coalesce(e.trigger, '-'), e.country, coalesce(e.browser, '-'),
			coalesce(e.device, '-'), coalesce(e.referrer_host, '-'), e.visitor IS NOT NULL,
			CASE WHEN a.agent = $2 THEN 'true' WHEN e.user_agent_id IS NULL THEN 'false' END)
			FROM events e LEFT JOIN user_agents a ON a.id = e.user_agent_id WHERE e.occurred_at = $1`, batch[i].At, batch[i].UserAgent)
		assert.Equal(t, want, got, "click %d", i)
	}
	s.wantInt(4, "SELECT count(*) FROM user_agents WHERE seen_on = (now() AT TIME ZONE 'UTC')::date")
	s.wantCounted(8)
}

// A header is noted as seen once a day, by whichever process sees it first.
func TestUserAgentsAreSeenOnceADay(t *testing.T) {
	s := setup(t)
	seen := func() string { return s.text("SELECT string_agg(agent || ' ' || seen_on, ', ') FROM user_agents") }
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	of := func() []event {
		read, err := newAgents(visits.ReadAgent) // as in another process
		s.ok(err)
		return []event{{agent: read.get("curl")}, {agent: read.get("curl")}, {agent: read.get("")}, {agent: untold}}
	}
	events := of()
	s.ok(storeAgents(s.ctx, s.pool, events, now))
	assert.Equal(t, "curl 2026-03-01", seen())
	s.exec("DELETE FROM user_agents")
	s.ok(storeAgents(s.ctx, s.pool, events, now.Add(time.Hour)))
	s.wantInt(0, "SELECT count(*) FROM user_agents")
	s.ok(storeAgents(s.ctx, s.pool, events, now.Add(24*time.Hour)))
	assert.Equal(t, "curl 2026-03-02", seen())
	s.ok(storeAgents(s.ctx, s.pool, of(), now))
	assert.Equal(t, "curl 2026-03-02", seen())
	s.ok(storeAgents(s.ctx, s.pool, of(), now.Add(48*time.Hour)))
	assert.Equal(t, "curl 2026-03-03", seen())
}

func TestRejectsOfPrivateVisitorsHaveNoHeaders(t *testing.T) {
	t.Parallel()
	b := &clickBatch{clicks: many(2, time.Now())}
	b.clicks[1].Private = true
	assert.NotNil(t, b.rejected(0, rejectedTime, "").row.UserAgent)
	assert.Nil(t, b.rejected(1, rejectedTime, "").row.UserAgent)
	assert.Nil(t, b.rejected(1, rejectedTime, "").row.Referrer)
}
