package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/archive"
	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// old is a month that is retired, and young the first that is not.
var (
	old   = postgres.MonthOf(time.Now()).AddDate(0, -4, 0)
	young = postgres.MonthOf(time.Now()).AddDate(0, -3, 0)
)

// archiving is a site whose events are retired when they are more than three months
// old.
type archiving struct {
	*site
	dir   string
	store archive.Store
}

// setupArchiving fills an old and a young month. Only the queue of clicks is worked on
// yet.
func setupArchiving(t *testing.T) *archiving {
	t.Helper()
	s := setup(t)
	dir := filepath.Join(t.TempDir(), "archive")
	store, err := archive.Open(dir, archive.S3{})
	s.ok(err)
	r := &archiving{s, dir, store}
	w := s.start(map[string]int{jobs.QueueClicks: 1})
	r.late("first", 100)
	s.ship("young", many(50, young.Add(24*time.Hour)))
	s.eventually("clicks are ingested", s.allIngested)
	// Every kind of value, and text that CSV has to quote.
	s.exec(`INSERT INTO events (occurred_at, event_type, url_id, source_id, import_id, import_line, bot, details)
		VALUES ($1, 'created', NULL, 7, 3, 9, NULL, '{"a": "b\nc, \"d\"", "e": []}')`, old.Add(time.Hour))
	s.exec(`INSERT INTO events (occurred_at, event_type, url_id, browser, os, kind, rules, firsts, user_agent_id, trigger)
		VALUES ($1, 'updated', 1, '', E'x\ny"z', 'preview', 32767, 3, -9223372036854775808, 'qr')`, old.Add(time.Hour+time.Microsecond))
	s.stop(w)
	return r
}

// late ships clicks of the old month.
func (r *archiving) late(id string, n int) {
	r.ship(id, many(n, old.AddDate(0, 0, 3)))
}

// lateIngested ships clicks of the old month and waits for a worker to ingest them.
func (r *archiving) lateIngested(id string, n int) {
	r.Helper()
	r.late(id, n)
	r.eventually("late clicks are ingested", r.allIngested)
}

// startArchiving works on all queues except for the one of retention. The test itself
// decides when a month is retired: its run puts the job into another queue.
func (r *archiving) startArchiving(options ...func(*deps)) *Worker {
	r.Helper()
	queues := DefaultQueues()
	delete(queues, jobs.QueueRetention)
	return r.startQueues(queues, options...)
}

func (r *archiving) startQueues(queues map[string]int, options ...func(*deps)) *Worker {
	r.Helper()
	retention := func(d *deps) { d.retention = Retention{Months: 3, Changes: 3, Archive: r.store} }
	return r.start(queues, append([]func(*deps){retention}, options...)...)
}

// archive starts a worker and retires the old month.
func (r *archiving) archive() *Worker {
	r.Helper()
	w := r.startArchiving()
	r.run(jobs.ArchiveMonths{})
	return w
}

// detached detaches the old month, and returns the job that goes on with it.
func (r *archiving) detached() *archiveMonths {
	r.Helper()
	w := r.hand()
	r.ok(w.begin(r.ctx, old))
	return w
}

// locked takes the lock of archiving.
func (r *archiving) locked() (unlock func()) {
	r.Helper()
	unlock, err := lockForArchive(r.ctx, r.pool)
	if err != nil || unlock == nil {
		r.Fatalf("lock: %v", err)
	}
	return unlock
}

// hand returns the job, so that a test can do its steps one by one, as far as a worker
// got before it was killed.
func (r *archiving) hand() *archiveMonths {
	d := &deps{
		pool: r.pool, log: r.worker.deps.log, metrics: r.worker.deps.metrics,
		retention: Retention{Months: 3, Changes: 3, Archive: r.store},
	}
	return &archiveMonths{deps: d, now: time.Now}
}

// sum is a fingerprint of all events of the old month and their number.
func (r *archiving) sum() string {
	return r.text(`SELECT count(*) || ' ' || coalesce(md5(string_agg(e::text, E'\n' ORDER BY occurred_at, id)), '') FROM events e
		WHERE occurred_at >= $1 AND occurred_at < $2`, old, young)
}

func (r *archiving) wantSum(want string) {
	r.Helper()
	if got := r.sum(); got != want {
		r.Errorf("the events of the old month are %s, were %s", got, want)
	}
}

func (r *archiving) wantTotals(want string) {
	r.Helper()
	if got := r.totals(); got != want {
		r.Errorf("totals are %s, were %s", got, want)
	}
}

func (r *archiving) totals() string {
	r.fold()
	return r.text("SELECT sum(clicks) || ' ' || sum(people) FROM rollups WHERE scope = 0")
}

// states lists the states in event_parts.
func (r *archiving) states() string {
	return r.text("SELECT coalesce(string_agg(part || ' ' || state || ' ' || coalesce(rows::text, '-'), ', ' ORDER BY part), '') FROM event_parts WHERE month = $1", old)
}

func (r *archiving) wantStates(want string) {
	r.Helper()
	if got := r.states(); got != want {
		r.Errorf("parts: %q, want %q", got, want)
	}
}

// tables counts tables of the old month, partitions and others.
func (r *archiving) wantTables(partitions, others int64) {
	r.Helper()
	r.wantInt(partitions, "SELECT count(*) FROM pg_inherits WHERE inhrelid = to_regclass($1)", old.Format("events_2006_01"))
	r.wantInt(others, "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname LIKE $1 || '\\_%'", old.Format("events_2006_01"))
}

func (r *archiving) files() []string {
	r.Helper()
	names, err := r.store.List(r.ctx, "")
	r.ok(err)
	return names
}

// again lets a retired month be retired once more, as if it were a day later.
func (r *archiving) again() {
	r.exec("UPDATE event_parts SET dropped_at = now() - interval '2 days'")
}

func (r *archiving) restore() Restored {
	r.Helper()
	done, err := RestoreMonth(r.ctx, r.pool, r.store, Restoring{Month: old.AddDate(0, 0, 7), Hold: time.Hour})
	r.ok(err)
	return done
}

func TestArchiveAndRestore(t *testing.T) {
	r := setupArchiving(t)
	before, totals := r.sum(), r.totals()
	w := r.archive()
	r.wantStates("1 dropped 102")
	r.wantTables(0, 0)
	r.wantInt(50, "SELECT count(*) FROM events") // of the young month
	r.wantTotals(totals)
	files := r.files()
	if len(files) != 2 || files[1] != old.Format("2006-01")+".part-0001.json" || !strings.HasSuffix(files[0], ".csv.zst") {
		t.Errorf("the archive has %v", files)
	}
	r.ok(w.deps.sampleOnce(r.ctx, false))
	for gauge, want := range map[string]float64{
		"retired": w.figure("events_months_retired") - 1,
		"rows":    w.figure("events_retired_rows") - 102,
		"open":    w.figure("events_parts_open"),
		"due":     w.figure("events_months_due"),
		"ahead":   w.figure("events_partition_months_ahead") - partitionsAhead,
	} {
		if want != 0 {
			t.Errorf("the gauge of %s is off by %v", gauge, want)
		}
	}

	for range 2 { // once more changes nothing
		if done := r.restore(); done != (Restored{1, 102}) {
			t.Errorf("restored %+v", done)
		}
		r.wantSum(before)
	}
	r.wantTotals(totals)
	r.wantTables(1, 0)
	r.ok(w.deps.sampleOnce(r.ctx, false))
	if got := w.figure("events_months_due"); got != 1 {
		t.Errorf("%v months are due, want the restored one", got)
	}
	r.again()
	r.run(jobs.ArchiveMonths{}) // the month is held
	r.wantTables(1, 0)
	r.exec("UPDATE event_holds SET until = now()")
	r.run(jobs.ArchiveMonths{})
	r.wantStates("1 dropped 102, 2 dropped 102")
	r.wantTables(0, 0)
	if done := r.restore(); done != (Restored{1, 102}) { // the second part replaced the first
		t.Errorf("restored %+v", done)
	}
	r.wantSum(before)
}

// Events that were removed from a restored month do not come back, from whichever part,
// and events that replaced them stay.
func TestRestoreLeavesUndoneEventsAway(t *testing.T) {
	r := setupArchiving(t)
	r.annWithLink()
	r.exec("UPDATE events SET import_id = NULL")
	wrong, mended := "id,url_id,event_type,timestamp\n", "id,url_id,event_type,timestamp\n"
	for n := range 20 {
		at := old.Add(time.Duration(n) * time.Hour).Format(time.RFC3339)
		wrong += fmt.Sprintf("%d,10,clicked,%s\n", n+100, at)
		mended += fmt.Sprintf("%d,10,updated,%s\n", n+100, at)
	}
	r.startArchiving(smallPieces)
	retire := func() {
		r.exec(`UPDATE imports SET finished_at = now() - interval '1 hour', undone_at = undone_at - interval '1 hour'`)
		r.exec("UPDATE event_holds SET until = now()")
		r.again()
		r.run(jobs.ArchiveMonths{})
		r.wantTables(0, 0)
	}
	check := func(when string, clicked, updated int64) {
		t.Helper()
		for kind, want := range map[string]int64{"clicked": clicked, "updated": updated} {
			if got := r.int("SELECT count(*) FROM events WHERE url_id = 10 AND event_type = $1", kind); got != want {
				t.Errorf("%s: %d events %s, want %d", when, got, kind, want)
			}
		}
	}
	id := r.upload(csvimport.KindEvents, wrong, csvimport.SplitOptions{})
	r.wantRows(id, 20, 0)
	retire()
	r.restore()
	check("restored", 20, 0)
	r.undo(id)
	r.undone(id)
	r.restore()
	check("restored once more after the undo", 0, 0)
	r.wantRows(r.upload(csvimport.KindEvents, mended, csvimport.SplitOptions{}), 20, 0)
	retire()
	r.restore()
	check("restored after it was retired again", 0, 20)
	// Late rows make a further part, which replaces none.
	retire()
	r.lateIngested("later", 5)
	r.exec("UPDATE event_parts SET dropped_at = now() - interval '2 days'")
	r.run(jobs.ArchiveMonths{})
	r.wantTables(0, 0)
	r.restore()
	check("restored with late rows", 0, 20)
	r.wantInt(107, "SELECT count(*) FROM events WHERE occurred_at >= $1 AND occurred_at < $2 AND url_id IS DISTINCT FROM 10", old, young)
}

// An undo that found some of its events archived is completed once they are back.
func TestUndoIsCompletedAfterARestore(t *testing.T) {
	r := setupArchiving(t)
	r.annWithLink()
	r.startArchiving(smallPieces)
	before := r.totals()
	file := "id,url_id,event_type,timestamp\n"
	for n := range 20 {
		file += fmt.Sprintf("%d,10,clicked,%s\n", n+100, []time.Time{old, young}[n%2].Add(time.Duration(n)*time.Hour).Format(time.RFC3339))
	}
	id := r.upload(csvimport.KindEvents, file, csvimport.SplitOptions{})
	r.wantRows(id, 20, 0)
	r.exec("UPDATE imports SET finished_at = now() - interval '1 hour'")
	r.run(jobs.ArchiveMonths{})

	r.undo(id)
	r.wantUndone(id, 10, 0)
	r.wantClicks(10, 10)
	r.restore()
	r.undo(id)
	r.wantUndone(id, 20, 0)
	r.wantInt(0, "SELECT count(*) FROM events WHERE url_id = 10")
	r.wantTotals(before)
	if _, err := queries.New(r.pool).RequestImportUndo(r.ctx, id); !errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("an undo of an import that left nothing: %v", err)
	}
}

// Ids that were noted for a detach that did not happen hinder nobody once the events
// are gone.
func TestNotedIDsOfNoDetach(t *testing.T) {
	r := setupArchiving(t)
	r.annWithLink()
	r.start(map[string]int{jobs.QueueImports: 1}, smallPieces)
	const file = "id,url_id,event_type,timestamp\n1,10,clicked,2015-01-01 10:00:00\n2,10,clicked,2015-01-01 11:00:00\n"
	id := r.upload(csvimport.KindEvents, file, csvimport.SplitOptions{})
	r.wantRows(id, 2, 0)
	month := time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC)
	reader := r.lock("SELECT FROM events LIMIT 1") // such as pg_dump
	if err := r.hand().begin(r.ctx, month); err == nil {
		t.Error("a month that is read was detached")
	}
	r.rollback(reader)
	r.wantInt(2, "SELECT count(*) FROM archived_event_ids")
	r.undo(id)
	r.undone(id)
	r.wantRows(r.upload(csvimport.KindEvents, file, csvimport.SplitOptions{}), 2, 0)
}

// If a worker dies on the way, the next run continues, unless another worker is doing so.
func TestArchiveIsDoneByOne(t *testing.T) {
	r := setupArchiving(t)
	r.detached()
	unlock := r.locked()
	r.startQueues(nil)
	r.run(jobs.ArchiveMonths{})
	r.wantStates("1 detached -")
	unlock()
	r.run(jobs.ArchiveMonths{})
	r.wantStates("1 dropped 102")
}

// A changed setting takes effect in the first run after the start.
func TestRetentionIsLookedAtWhenItChanges(t *testing.T) {
	r := setupArchiving(t)
	start := func(retention Retention) *Worker {
		w, err := New(Options{
			Pool: r.pool, Queues: map[string]int{jobs.QueueRetention: 1}, Retention: retention,
			Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(),
		})
		r.ok(err)
		r.ok(w.Start(r.ctx))
		t.Cleanup(func() { r.stop(w) })
		return w
	}
	w := start(Retention{})
	r.eventually("a run found nothing to do", func() bool {
		return r.int("SELECT count(*) FROM river_job WHERE kind = 'retire_months' AND state = 'completed'") == 1
	})
	r.stop(w)
	r.wantStates("")
	start(Retention{Months: 3, Changes: 3, Archive: r.store})
	r.eventually("the month is retired", func() bool { return r.states() == "1 dropped 102" })
}

// This is the same with storage that speaks S3, on a server in this process.
func TestArchiveIntoABucket(t *testing.T) {
	r := setupArchiving(t)
	backend := s3mem.New()
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	r.ok(backend.CreateBucket("events"))
	var err error
	r.store, err = archive.Open("s3://events/signpost", archive.S3{Endpoint: server.URL, Region: "eu-central-1", AccessKey: "key", SecretKey: "secret"})
	r.ok(err)
	before := r.sum()
	r.archive()
	r.wantStates("1 dropped 102")
	r.wantTables(0, 0)
	r.restore()
	r.wantSum(before)
}

// A restored month is a complete partition: it has the same columns, constraints and
// indexes, each once.
func TestRestoredMonthIsComplete(t *testing.T) {
	r := setupArchiving(t)
	r.archive()
	r.restore()
	describe := func(month time.Time) string {
		name := month.Format("events_2006_01")
		return r.text(`SELECT string_agg(what, E'\n' ORDER BY what) FROM (
			SELECT regexp_replace(pg_get_indexdef(indexrelid), '^.* USING', '') || ' ' || indisunique || ' ' ||
				(SELECT count(*) FROM pg_inherits p WHERE p.inhrelid = indexrelid) AS what
			FROM pg_index WHERE indrelid = $1::regclass
			UNION ALL SELECT contype::text || pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1::regclass
			UNION ALL SELECT concat(attname, atttypid::regtype, attnotnull, attstorage, pg_get_expr(d.adbin, d.adrelid))
			FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
			WHERE a.attrelid = $1::regclass AND attnum > 0) x`, name)
	}
	if got, want := describe(old), describe(young); got != want || got == "" {
		t.Errorf("a restored month is\n%s\nwant\n%s", got, want)
	}
}

// Partitions are made ahead of time again if somebody dropped them.
func TestMakePartitionsAhead(t *testing.T) {
	s := setup(t)
	for n := 1; n <= partitionsAhead; n++ {
		s.exec("DROP TABLE " + postgres.MonthOf(time.Now()).AddDate(0, n, 0).Format("events_2006_01"))
	}
	w := s.start(nil)
	s.run(jobs.MakePartitions{})
	s.ok(w.deps.sampleOnce(s.ctx, false))
	if n := w.figure("events_partition_months_ahead"); n != partitionsAhead {
		t.Errorf("%v months ahead have a partition, want %d", n, partitionsAhead)
	}
}

// Late clicks of a retired month are counted, are visible, and go to the archive as a
// further part.
func TestLateClicksOfARetiredMonth(t *testing.T) {
	r := setupArchiving(t)
	r.archive()
	r.lateIngested("late", 30)
	r.wantInt(0, "SELECT count(*) FROM click_rejects")
	r.wantInt(30, "SELECT count(*) FROM events WHERE occurred_at < $1", young)
	r.wantClicks(180, 0)
	r.run(jobs.ArchiveMonths{}) // not on the same day
	r.wantStates("1 dropped 102")
	r.again()
	r.run(jobs.ArchiveMonths{})
	r.wantStates("1 dropped 102, 2 dropped 30")
	r.wantClicks(180, 0)
	if n := len(r.files()); n != 4 {
		t.Errorf("the archive has %d files, want 4", n)
	}
	r.lateIngested("later", 5)
	r.restore()
	r.wantInt(137, "SELECT count(*) FROM events WHERE occurred_at < $1", young)
}

// A worker may be killed between any two steps, or after a step took effect and before
// that was noted. The next worker finishes its work.
func TestArchiveGoesOnAfterAKill(t *testing.T) {
	for name, live := range map[string]func(*archiving, *archiveMonths){
		"after the detach": func(*archiving, *archiveMonths) {},
		"within the archive": func(r *archiving, w *archiveMonths) {
			part := r.parts(w)
			name := archive.NewFileName(part.Month, 1)
			r.exec("UPDATE event_parts SET file = $1", name)
			r.create("." + name + ".1.tmp")
		},
		"before the archive is noted": func(r *archiving, w *archiveMonths) {
			r.step(w)
			r.exec("UPDATE event_parts SET state = 'detached', rows = NULL")
		},
		"after the archive": func(r *archiving, w *archiveMonths) { r.step(w) },
		"in the previous release, before its check": func(r *archiving, w *archiveMonths) {
			r.step(w)
			r.exec("UPDATE event_parts SET state = 'archived'")
		},
		"after the end, with late clicks": func(r *archiving, w *archiveMonths) { r.step(w); r.step(w) },
	} {
		t.Run(name, func(t *testing.T) {
			r := setupArchiving(t)
			before := r.sum()
			w := r.detached()
			live(r, w)
			// Late clicks find a place at every moment.
			r.late("late", 10)
			r.startArchiving()
			r.eventually("late clicks are ingested", r.allIngested)
			r.run(jobs.ArchiveMonths{})
			r.wantStates("1 dropped 102")
			r.wantTables(1, 0)
			r.wantInt(10, "SELECT count(*) FROM events WHERE occurred_at < $1", young)
			for _, file := range r.files() {
				if strings.HasSuffix(file, ".tmp") {
					t.Errorf("%s is left in the archive", file)
				}
			}
			if n := len(r.files()); n != 2 {
				t.Errorf("the archive has %v", r.files())
			}
			r.exec("DROP TABLE " + old.Format("events_2006_01"))
			r.restore()
			r.wantSum(before)
		})
	}
}

func (r *archiving) create(name string) {
	r.Helper()
	r.ok(os.WriteFile(filepath.Join(r.dir, name), []byte("half"), 0o600))
}

// step archives the open part, or drops its table.
func (r *archiving) step(w *archiveMonths) {
	r.Helper()
	part, step := r.parts(w), w.archive
	if part.State == partVerified {
		step = w.drop
	}
	r.ok(step(r.ctx, &part))
}

// parts returns the one open part.
func (r *archiving) parts(w *archiveMonths) queries.EventPart {
	r.Helper()
	parts, err := queries.New(w.deps.pool).ListOpenEventParts(r.ctx)
	if err != nil || len(parts) != 1 {
		r.Fatalf("open parts: %v, %v", parts, err)
	}
	return parts[0]
}

// faulty is an archive that fails.
type faulty struct {
	archive.Store
	create func(name string) error           // called before a data file is made
	spoil  func(io.ReadCloser) io.ReadCloser // wraps a data file that is read
	noted  error                             // returned after a manifest was made
}

func (f *faulty) Create(ctx context.Context, name string, write func(io.Writer) error) error {
	if f.create != nil && strings.HasSuffix(name, ".csv.zst") && !strings.HasPrefix(name, "probe") {
		if err := f.create(name); err != nil {
			return err
		}
	}
	err := f.Store.Create(ctx, name, write)
	if err == nil && strings.HasSuffix(name, ".json") {
		err = f.noted
	}
	return err
}

func (f *faulty) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	file, err := f.Store.Open(ctx, name)
	if err == nil && f.spoil != nil && strings.HasSuffix(name, ".csv.zst") {
		file = f.spoil(file)
	}
	return file, err
}

// cut is a file whose end is missing.
type cut struct {
	io.Reader
	io.Closer
}

// If the archive fails, or does not give back the bytes that it was given, the month
// stays detached and no row is lost. Once the archive works again, the next run
// finishes the work.
func TestArchiveThatFails(t *testing.T) {
	for name, f := range map[string]*faulty{
		"full":    {create: func(string) error { return errors.New("no space left") }},
		"damaged": {spoil: func(f io.ReadCloser) io.ReadCloser { return cut{io.LimitReader(f, 100), f} }},
		"silent":  {noted: errors.New("the answer was lost")},
	} {
		t.Run(name, func(t *testing.T) {
			r := setupArchiving(t)
			before, good := r.sum(), r.store
			f.Store, r.store = good, f
			r.detached()
			r.wantInt(0, "SELECT count(*) FROM events WHERE occurred_at < $1", young)
			late := many(10, old.AddDate(0, 0, 3))
			for i := range late {
				late[i].URLID = 99
			}
			r.ship("late", late)
			worker := r.startArchiving()
			r.eventually("late clicks are ingested", r.allIngested)
			hand := &archiveMonths{deps: worker.deps, now: time.Now}
			if err := hand.finishParts(r.ctx); err == nil {
				t.Fatal("no error")
			}
			if n := testutil.ToFloat64(worker.deps.metrics.archiveFailures); n == 0 {
				t.Error("the failure is not counted")
			}
			r.wantStates("1 detached -")
			r.wantTables(1, 1)
			r.wantInt(10, "SELECT count(*) FROM events WHERE occurred_at < $1", young)
			r.stop(worker)

			r.store = good
			r.archive()
			r.wantStates("1 dropped 102")
			if n := len(r.files()); n != 2 {
				t.Errorf("the archive has %v", r.files())
			}
			r.exec("DELETE FROM events WHERE url_id = 99")
			r.restore()
			r.wantSum(before)
		})
	}
}

// changes returns the change events of the old month.
func (r *archiving) changes() string {
	return r.text(`SELECT string_agg(e::text, E'\n' ORDER BY occurred_at, id) FROM events e
		WHERE occurred_at >= $1 AND occurred_at < $2 AND event_type <> 'clicked'`, old, young)
}

// Change events are an audit trail. When clicks are retired, they stay in place with
// their ids, up to an age of their own.
func TestArchiveKeepsChanges(t *testing.T) {
	r := setupArchiving(t)
	changes := r.changes()
	keep := Retention{Months: 3, Archive: r.store}
	w := r.startArchiving(func(d *deps) { d.retention = keep })
	check := func(when, states string) {
		t.Helper()
		r.wantStates(states)
		if got := r.changes(); got != changes {
			t.Errorf("%s the change events are\n%s\nwere\n%s", when, got, changes)
		}
		r.wantTables(1, 0)
	}
	r.run(jobs.ArchiveMonths{})
	check("retired", "1 dropped 100")
	r.wantInt(2, "SELECT count(*) FROM events WHERE occurred_at < $1", young)
	r.wantInt(0, "SELECT count(*) FROM archived_event_ids") // the id of an event that is still there
	r.again()
	r.run(jobs.ArchiveMonths{}) // nothing is left to retire
	check("looked at once more", "1 dropped 100")
	r.ok(w.deps.sampleOnce(r.ctx, false))
	if n := w.figure("events_months_due"); n != 0 {
		t.Errorf("%v months are due", n)
	}
	r.lateIngested("late", 30)
	r.run(jobs.ArchiveMonths{})
	check("retired with late clicks", "1 dropped 100, 2 dropped 30")

	if done := r.restore(); done != (Restored{2, 130}) {
		t.Errorf("restored %+v", done)
	}
	check("restored", "1 dropped 100, 2 dropped 30")
	r.wantInt(132, "SELECT count(*) FROM events WHERE occurred_at < $1", young)
	r.wantInt(0, "SELECT count(*) FROM pg_class WHERE relname LIKE '%clicked'")
	r.exec("UPDATE event_holds SET until = now()")
	r.again()
	r.run(jobs.ArchiveMonths{})
	check("retired again", "1 dropped 100, 2 dropped 30, 3 dropped 130")
	if done := r.restore(); done != (Restored{1, 130}) { // this replaced both
		t.Errorf("restored %+v", done)
	}
	// If all clicks of a restored month were removed, that has to be recorded in the
	// archive.
	r.exec("DELETE FROM events WHERE event_type = 'clicked' AND occurred_at < $1", young)
	r.exec("UPDATE event_holds SET until = now()")
	r.again()
	r.run(jobs.ArchiveMonths{})
	check("retired without clicks", "1 dropped 100, 2 dropped 30, 3 dropped 130, 4 dropped 0")

	r.stop(w)
	r.startArchiving() // with it, changes are archived with the rest
	r.again()
	r.run(jobs.ArchiveMonths{})
	r.wantStates("1 dropped 100, 2 dropped 30, 3 dropped 130, 4 dropped 0, 5 dropped 2")
	r.wantTables(0, 0)
	if done := r.restore(); done != (Restored{2, 2}) {
		t.Errorf("restored %+v", done)
	}
	if got := r.changes(); got != changes {
		t.Errorf("the restored change events are %s, were %s", got, changes)
	}
}

// The same holds if it was begun by a worker that died, if nothing is archived, and if
// the archive failed at first.
func TestArchiveKeepsChangesWhateverHappens(t *testing.T) {
	for name, live := range map[string]func(*archiving, *archiveMonths){
		"killed": func(r *archiving, w *archiveMonths) {
			part := r.parts(w)
			require.NoError(r, postgres.EnsurePartitions(r.ctx, r.pool, []time.Time{old}))
			require.NoError(r, postgres.MoveEvents(r.ctx, r.pool, part.TableName, "events", "event_type = 'created'"))
		},
		"without an archive": func(_ *archiving, w *archiveMonths) { w.deps.retention.Archive = nil },
		"after a failure": func(r *archiving, w *archiveMonths) {
			w.deps.retention.Archive = &faulty{Store: r.store, create: func(string) error { return errors.New("no space left") }}
			if err := w.finishParts(r.ctx); err == nil {
				r.Error("no error")
			}
			w.deps.retention.Archive = r.store
			r.wantStates("1 detached -")
			r.wantInt(2, "SELECT count(*) FROM events WHERE occurred_at < $1", young)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := setupArchiving(t)
			changes := r.changes()
			w := r.hand()
			w.deps.retention.Changes = 0
			r.ok(w.begin(r.ctx, old))
			live(r, w)
			r.ok(w.finishParts(r.ctx))
			r.wantStates("1 dropped 100")
			if got := r.changes(); got != changes {
				t.Errorf("the change events are %s, were %s", got, changes)
			}
		})
	}
}

// Events of another installation are neither restored nor mixed with ours.
func TestArchiveOfAnotherInstallation(t *testing.T) {
	r := setupArchiving(t)
	w := r.archive()
	r.exec("UPDATE installation SET id = gen_random_uuid()") // as if the database were another installation
	_, err := RestoreMonth(r.ctx, r.pool, r.store, Restoring{Month: old, Hold: time.Hour})
	if err == nil || !strings.Contains(err.Error(), "of the installation") {
		t.Errorf("restore: %v", err)
	}
	r.wantTables(0, 0)

	r.lateIngested("late", 30)
	hand := &archiveMonths{deps: w.deps, now: time.Now}
	if err := hand.begin(r.ctx, old); err == nil || !strings.Contains(err.Error(), "an archive of its own") {
		t.Errorf("begin: %v", err)
	}
	r.wantStates("1 dropped 102")
	r.wantTables(1, 0)
}

// A loaded month waits for a transaction that reads events, such as a dump.
func TestRestoreWaitsForReaders(t *testing.T) {
	r := setupArchiving(t)
	before := r.sum()
	w := r.startArchiving()
	w.deps.retention.Changes = 0 // makes the month have a partition, which is taken out for an instant
	r.run(jobs.ArchiveMonths{})
	parts, err := archive.Manifests(r.ctx, r.store, monthText(old))
	r.ok(err)
	conn, err := lockToRestore(r.ctx, r.pool)
	r.ok(err)
	reader, err := r.pool.Begin(r.ctx)
	r.ok(err)
	defer func() { _ = reader.Rollback(r.ctx) }()
	if _, err := reader.Exec(r.ctx, "LOCK TABLE events IN ACCESS SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	pauses := 0
	restore := restore{conn: conn, store: r.store, month: old, hold: time.Hour, last: 1, pause: func(ctx context.Context) error {
		pauses++
		return reader.Rollback(ctx)
	}}
	defer restore.end(r.ctx)
	if err := restore.run(r.ctx, parts); err != nil || pauses != 1 {
		t.Fatalf("restored with %d pauses, %v", pauses, err)
	}
	r.wantSum(before)
}

// Manifests of earlier releases do not name their installation, and count as ours.
func TestArchiveThatNamesNoInstallation(t *testing.T) {
	r := setupArchiving(t)
	before := r.sum()
	r.archive()
	manifest := filepath.Join(r.dir, r.files()[1])
	text, err := os.ReadFile(manifest)
	r.ok(err)
	earlier := regexp.MustCompile(`,\s*"installation": "[^"]*"`).ReplaceAll(text, nil)
	if len(earlier) == len(text) {
		t.Fatalf("%s names no installation: %s", manifest, text)
	}
	r.ok(os.WriteFile(manifest, earlier, 0o600))
	r.restore()
	r.wantSum(before)
}

// blocking is an archive that takes, or gives, a little of a data file and then
// nothing, until it is released.
type blocking struct {
	archive.Store
	blocked, goOn chan struct{}
	once, let     sync.Once
}

func (r *archiving) block(store archive.Store) *blocking {
	b := &blocking{Store: store, blocked: make(chan struct{}), goOn: make(chan struct{})}
	r.Cleanup(b.letGo) // also of a test that failed
	return b
}

func (b *blocking) letGo() { b.let.Do(func() { close(b.goOn) }) }

func (b *blocking) wait() {
	b.once.Do(func() { close(b.blocked) })
	<-b.goOn
}

func (b *blocking) Create(ctx context.Context, name string, write func(io.Writer) error) error {
	return b.Store.Create(ctx, name, func(w io.Writer) error {
		if strings.HasSuffix(name, ".csv.zst") && !strings.HasPrefix(name, "probe") {
			w = &blockingFile{Writer: w, wait: b.wait}
		}
		return write(w)
	})
}

func (b *blocking) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	file, err := b.Store.Open(ctx, name)
	if err == nil && strings.HasSuffix(name, ".csv.zst") {
		file = &blockingFile{ReadCloser: file, wait: b.wait}
	}
	return file, err
}

type blockingFile struct {
	io.Writer
	io.ReadCloser
	wait func()
	n    int
}

func (f *blockingFile) Write(p []byte) (int, error) {
	f.wait()
	return f.Writer.Write(p)
}

func (f *blockingFile) Read(p []byte) (int, error) {
	if f.n++; f.n > 2 {
		f.wait()
	}
	return f.ReadCloser.Read(p[:min(len(p), 64<<10)])
}

// wantNoSnapshot checks that no transaction and no snapshot is held while other
// transactions come and go. Otherwise Postgres could not clean up.
func (r *archiving) wantNoSnapshot(when string) {
	r.Helper()
	for range 60 {
		r.exec("INSERT INTO click_batches (id, clicks, oldest_at, ingested_at) VALUES ('churn', 0, now(), now())")
		r.exec("DELETE FROM click_batches WHERE id = 'churn'")
	}
	r.eventually("no old snapshot is held "+when, func() bool {
		return r.int(`SELECT coalesce(max(greatest(age(backend_xmin), age(backend_xid))), 0) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`) < 60
	})
}

// However long an archive takes to store or return a month, no transaction waits for
// it.
func TestArchiveAndRestoreHoldNoSnapshot(t *testing.T) {
	r := setupArchiving(t)
	r.exec(`INSERT INTO events (occurred_at, event_type, url_id, details)
		SELECT $1::timestamptz + n * interval '1 second', 'clicked', 1, jsonb_build_object('text', md5(n::text) || md5((-n)::text))
		FROM generate_series(1, 60000) n`, old)
	before, good := r.sum(), r.store
	slow := r.block(good)
	r.store = slow
	w := r.detached()
	done := make(chan error, 1)
	go func() { done <- w.finishParts(r.ctx) }()
	<-slow.blocked
	r.wantNoSnapshot("while a month is archived")
	slow.letGo()
	r.ok(<-done)
	r.wantStates("1 dropped 60102")

	slow = r.block(good)
	go func() {
		_, err := RestoreMonth(r.ctx, r.pool, slow, Restoring{Month: old, Hold: time.Hour})
		done <- err
	}()
	<-slow.blocked
	r.wantNoSnapshot("while a month is restored")
	if other, err := lockForArchive(r.ctx, r.pool); err != nil || other != nil {
		t.Errorf("the lock was given beside a restore (%v)", err)
	}
	slow.letGo()
	r.ok(<-done)
	r.wantSum(before)
	r.wantTables(1, 0)
}

// A restore that was killed leaves a table. The next restore begins anew, and the job
// that archives months drops the table too.
func TestRestoreAfterAKill(t *testing.T) {
	r := setupArchiving(t)
	before := r.sum()
	r.archive()
	left := old.Format("events_2006_01") + "_restored"
	for _, goOn := range []func(){func() { r.run(jobs.ArchiveMonths{}) }, func() { r.restore() }} {
		r.ok(postgres.MakeMonth(r.ctx, r.pool, left, old))
		r.exec("INSERT INTO "+left+" (occurred_at, event_type, url_id) VALUES ($1, 'clicked', 1)", old)
		goOn()
		r.wantInt(0, "SELECT count(*) FROM pg_class WHERE relname = $1", left)
	}
	r.wantSum(before)
}

// Nothing is detached while the archive cannot be written.
func TestArchiveTriesTheArchiveFirst(t *testing.T) {
	r := setupArchiving(t)
	if err := os.WriteFile(r.dir, nil, 0o600); err != nil { // a file where the folder should be
		t.Fatal(err)
	}
	w := r.hand()
	if err := w.begin(r.ctx, old); err == nil || !strings.Contains(err.Error(), "try the archive") {
		t.Errorf("begin: %v", err)
	}
	r.wantTables(1, 0)
	r.wantStates("")
}

// A part of an archive is never overwritten, even if the database has forgotten it.
func TestArchiveOverwritesNothing(t *testing.T) {
	r := setupArchiving(t)
	r.archive()
	r.exec("DELETE FROM event_parts")
	r.lateIngested("late", 30)
	r.run(jobs.ArchiveMonths{})
	r.wantStates("2 dropped 30")
	if done := r.restore(); done != (Restored{2, 132}) {
		t.Errorf("restored %+v", done)
	}
}

// Two workers may be at one part, for example if the lock was lost with its connection.
// The one that came later wins, and no row is lost or stored twice.
func TestArchiveOnTwoWorkers(t *testing.T) {
	r := setupArchiving(t)
	before := r.sum()
	first, good := r.hand(), r.store
	r.ok(first.begin(r.ctx, old))
	part := r.parts(first)
	first.deps.retention.Archive = &faulty{Store: good, create: func(string) error {
		second := r.hand() // while the first one writes
		r.step(second)
		return nil
	}}
	if err := first.finish(r.ctx, part); !errors.Is(err, errSuperseded) {
		t.Errorf("the first: %v", err)
	}
	r.wantStates("1 verified 102")
	r.archive()
	r.wantStates("1 dropped 102")
	if n := len(r.files()); n != 2 {
		t.Errorf("the archive has %v", r.files())
	}
	r.restore()
	r.wantSum(before)

	unlock := r.locked()
	if other, err := lockForArchive(r.ctx, r.pool); err != nil || other != nil {
		t.Errorf("a second lock was given (%v)", err)
	}
	unlock()
}

// With EVENTS_ARCHIVE=none, old events are deleted.
func TestArchiveWithoutAnArchive(t *testing.T) {
	r := setupArchiving(t)
	totals := r.totals()
	r.store = nil
	r.archive()
	r.wantStates("1 dropped 102")
	r.wantTables(0, 0)
	r.wantTotals(totals)
}

// Without a retention no month is retired. A month that was detached under another
// configuration stays detached until there is an archive again.
func TestNoRetention(t *testing.T) {
	r := setupArchiving(t)
	w := r.detached()
	none := &archiveMonths{deps: r.start(map[string]int{jobs.QueueClicks: 1}).deps, now: time.Now}
	for range 2 {
		if err := none.Work(r.ctx, nil); err == nil || !strings.Contains(err.Error(), "EVENTS_ARCHIVE") {
			t.Errorf("work: %v", err)
		}
		r.wantStates("1 detached -")
	}
	assert.NoError(t, w.Work(r.ctx, nil), "work")
	r.wantStates("1 dropped 102")
}

// No month is retired while events are imported, because the import looks in the month
// for events that it already has.
func TestArchiveWaitsForImports(t *testing.T) {
	r := setupArchiving(t)
	r.exec(`INSERT INTO imports (kind, state, layout, keep_ids, actor_name) VALUES ('events', 'running', '{}', true, 'ann')`)
	w := r.startArchiving()
	hand := &archiveMonths{deps: w.deps, now: time.Now}
	if months, err := hand.due(r.ctx); err != nil || len(months) > 0 {
		t.Errorf("due: %v, %v", months, err)
	}
	r.exec("UPDATE imports SET state = 'undoing', finished_at = now()")
	if months, err := hand.due(r.ctx); err != nil || len(months) > 0 {
		t.Errorf("due: %v, %v", months, err)
	}
	r.exec("UPDATE imports SET state = 'failed'")
	if months, err := hand.due(r.ctx); err != nil || !slices.EqualFunc(months, []time.Time{old}, time.Time.Equal) {
		t.Errorf("due: %v, %v; want the old month", months, err)
	}
	hand.now = func() time.Time { return time.Now().AddDate(0, 1, 0) }
	if months, err := hand.due(r.ctx); err != nil || len(months) != 2 {
		t.Errorf("due a month later: %v, %v", months, err)
	}
}

// If a file is imported again after its month was archived or restored, no event is
// there twice.
func TestImportOfArchivedEvents(t *testing.T) {
	r := setupArchiving(t)
	r.annWithLink()
	file := "id,url_id,event_type,timestamp\n"
	for n := range 20 {
		file += fmt.Sprintf("%d,10,clicked,%s\n", n+100, old.Add(time.Duration(n)*time.Hour).Format(time.RFC3339))
	}
	w := r.startArchiving()
	first := r.upload(csvimport.KindEvents, file, csvimport.SplitOptions{ChunkRows: 6})
	r.wantRows(first, 20, 0)
	r.exec("UPDATE imports SET finished_at = now() - interval '1 hour'")
	again := func() {
		t.Helper()
		r.wantRows(r.upload(csvimport.KindEvents, file, csvimport.SplitOptions{ChunkRows: 6}), 0, 20)
		r.wantClicks(20, 10)
		r.exec("UPDATE imports SET finished_at = now() - interval '1 hour'")
	}
	again() // while they are in the database

	hand := r.hand()
	r.ok(hand.begin(r.ctx, old))
	again() // while they are detached
	r.run(jobs.ArchiveMonths{})
	r.wantStates("1 dropped 122")
	r.wantInt(21, "SELECT count(*) FROM archived_event_ids")
	again()
	late := r.upload(csvimport.KindEvents, file+fmt.Sprintf("500,10,clicked,%s\n", old.Format(time.RFC3339)), csvimport.SplitOptions{})
	r.wantRows(late, 1, 20)
	r.exec("UPDATE imports SET finished_at = now() - interval '1 hour'")
	r.again()
	r.run(jobs.ArchiveMonths{})
	r.wantStates("1 dropped 122, 2 dropped 1")
	r.wantInt(22, "SELECT count(*) FROM archived_event_ids")
	r.restore()
	r.wantInt(0, "SELECT count(*) FROM archived_event_ids")
	r.wantInt(123, "SELECT count(*) FROM events WHERE occurred_at < $1", young)

	// This is an import that began after the ids were noted, and a detach that did not
	// happen after that.
	r.exec("DELETE FROM event_holds")
	r.stop(w)
	since, err := hand.noteIDs(r.ctx, old, 1)
	r.ok(err)
	r.wantInt(22, "SELECT count(*) FROM archived_event_ids")
	r.exec("UPDATE imports SET finished_at = now() WHERE id = $1", late)
	err = postgres.InTx(r.ctx, r.pool, func(tx pgx.Tx) error {
		return noteDetached(r.ctx, tx, queries.CreateEventPartParams{Month: old, TableName: "events", Batch: 1}, since)
	})
	if !errors.Is(err, errImportBegan) {
		t.Errorf("a detach beside an import: %v", err)
	}
	r.exec("DELETE FROM events WHERE source_id = 500") // as an undo does
	if _, err := hand.noteIDs(r.ctx, old, 2); err != nil {
		t.Fatal(err)
	}
	r.wantInt(21, "SELECT count(*) FROM archived_event_ids WHERE batch = 2")
}

// A partition without rows is just dropped.
func TestArchiveOfAnEmptyMonth(t *testing.T) {
	r := setupArchiving(t)
	r.exec("DELETE FROM events WHERE occurred_at < $1", young)
	r.archive()
	r.wantStates("")
	r.wantTables(0, 0)
	if len(r.files()) > 0 {
		t.Errorf("the archive has %v", r.files())
	}
}

// A month is not restored while another is being archived, or while a part of the month
// is on its way: it would not be clear which rows are where.
func TestRestoreWaits(t *testing.T) {
	r := setupArchiving(t)
	w := r.detached()
	r.step(w)
	refused := func(want string) {
		t.Helper()
		if _, err := RestoreMonth(r.ctx, r.pool, r.store, Restoring{Month: old, Hold: time.Hour}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("restore: %v; want %q", err, want)
		}
	}
	refused("part 1 is on its way")
	r.step(w)
	unlock := r.locked()
	refused("a worker is archiving")
	unlock()
	r.restore()
}

// A damaged part is not restored, nor are the other parts of its month.
func TestRestoreOfADamagedPart(t *testing.T) {
	r := setupArchiving(t)
	r.archive()
	r.lateIngested("late", 30)
	r.again()
	r.run(jobs.ArchiveMonths{})
	second := filepath.Join(r.dir, r.files()[2])
	whole, err := os.ReadFile(second)
	if err != nil || !strings.Contains(second, "part-0002") {
		t.Fatal(second, err)
	}
	for what, content := range map[string][]byte{
		"cut": whole[:len(whole)-1], "flipped": slices.Concat(whole[:50], []byte{whole[50] ^ 1}, whole[51:]), "longer": append(slices.Clone(whole), 0),
	} {
		r.ok(os.WriteFile(second, content, 0o600))
		if _, err := RestoreMonth(r.ctx, r.pool, r.store, Restoring{Month: old, Hold: time.Hour}); err == nil || !strings.Contains(err.Error(), "part 2") {
			t.Errorf("restore of a part that is %s: %v", what, err)
		}
		r.wantTables(0, 0)
	}
	if _, err := RestoreMonth(r.ctx, r.pool, r.store, Restoring{Month: young, Hold: time.Hour}); err == nil {
		t.Error("a month without parts was restored")
	}
	r.wantInt(0, "SELECT count(*) FROM event_holds")
}

// Clicks can be written while their month is detached, attached and restored.
func TestClicksWhileAMonthComesAndGoes(t *testing.T) {
	r := setupArchiving(t)
	r.startArchiving()
	for i := range 30 {
		r.late(fmt.Sprintf("late-%02d", i), 10)
		if i%10 == 5 {
			r.again()
			r.run(jobs.ArchiveMonths{})
			r.restore()
			r.exec("DELETE FROM event_holds")
		}
	}
	r.eventually("late clicks are ingested", r.allIngested)
	r.wantInt(0, "SELECT count(*) FROM click_rejects")
	r.restore()
	r.wantInt(402, "SELECT count(*) FROM events WHERE occurred_at < $1", young)
	r.wantClicks(450, 0)
}

func TestMonthsAhead(t *testing.T) {
	t.Parallel()
	now := time.Date(2025, 11, 30, 23, 59, 0, 0, time.UTC)
	months := func(ahead ...int) (list []time.Time) {
		for _, n := range ahead {
			list = append(list, postgres.MonthOf(now).AddDate(0, n, 0))
		}
		return list
	}
	for want, list := range map[int][]time.Time{
		-1: months(-1, 1, 2), 0: months(-2, 0, 2, 3), 1: months(0, 1), 3: months(-1, 0, 1, 2, 3, 5),
	} {
		if got := monthsAhead(list, now); got != want {
			t.Errorf("%v: %d months ahead, want %d", list, got, want)
		}
	}
}

// Finished imports are removed by age, with all their records; the rows that they
// brought stay.
func TestPruneOfImports(t *testing.T) {
	s := setup(t)
	for _, state := range []string{"completed", "failed", "undoing", "running"} {
		s.exec(`INSERT INTO imports (kind, state, layout, keep_ids, actor_name, finished_at)
			VALUES ('users', $1, '{}', true, 'ann', CASE WHEN $1 <> 'running' THEN now() - interval '100 days' END)`, state)
	}
	s.exec("INSERT INTO imports (kind, state, layout, keep_ids, actor_name, finished_at) VALUES ('users', 'completed', '{}', true, 'ann', now() - interval '80 days')")
	s.exec("INSERT INTO import_errors SELECT i.id, n, 'f', 'r', '' FROM imports i, generate_series(1, 8) n")
	s.exec("INSERT INTO import_outcomes SELECT i.id, n, 'skipped' FROM imports i, generate_series(1, 5) n")
	s.exec("INSERT INTO import_notices SELECT i.id, n, 'f', 'k', 'r' FROM imports i, generate_series(1, 9) n")
	s.exec("INSERT INTO users (username, email, import_id, import_line) SELECT 'ann', 'ann@example.org', id, 1 FROM imports WHERE state = 'failed'")
	d := s.start(map[string]int{jobs.QueueClicks: 1}).deps
	w := &prune{deps: d, piece: 3}
	s.ok(w.Work(s.ctx, nil))
	s.wantInt(5, "SELECT count(*) FROM imports") // no age was set
	d.importKeep = 90 * 24 * time.Hour
	s.ok(w.Work(s.ctx, nil))
	s.wantText("undoing running completed", "SELECT string_agg(state, ' ' ORDER BY id) FROM imports")
	s.wantInt(24, "SELECT count(*) FROM import_errors")
	s.wantInt(27, "SELECT count(*) FROM import_notices")
	s.wantInt(24+27, "SELECT sum(rows) FROM import_problems")
	s.wantInt(1, "SELECT count(*) FROM users WHERE import_id IS NOT NULL")
}
