package shipping

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/queries"
)

// harness is a spool and a shipper on a database.
type harness struct {
	*testing.T
	pool    *pgxpool.Pool
	dir     string
	spool   *clicks.Spool
	shipper *Shipper
}

func newShipping(t *testing.T, pool *pgxpool.Pool, keep time.Duration) *harness {
	t.Helper()
	return newShippingOf(t, pool, clicks.Options{Dir: t.TempDir(), Keep: keep})
}

func newShippingOf(t *testing.T, pool *pgxpool.Pool, o clicks.Options) *harness {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	o.Log, o.AppendTimeout, o.SegmentAge = log, time.Minute, time.Hour // the machine may be slow
	spool, err := clicks.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = spool.Close() })
	inserter, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: log})
	require.NoError(t, err)
	return &harness{t, pool, o.Dir, spool, New(Options{Pool: pool, River: inserter, Spool: spool, Log: log})}
}

// segment seals a segment of n clicks.
func (s *harness) segment(n int) {
	s.Helper()
	for range n {
		click := clicks.Click{At: time.Now(), URLID: 1, UserID: 1, IP: netip.MustParseAddr("192.0.2.1"), UserAgent: "test"}
		require.NoError(s.T, s.spool.Append(&click))
	}
	require.NoError(s.T, s.spool.SealNow(s.Context()))
}

// want checks the ledger: batches, the clicks in them, and one job for each.
func (s *harness) want(batches, clicks int) {
	s.Helper()
	var gotBatches, gotClicks, jobs int
	err := s.pool.QueryRow(s.Context(), `
		SELECT count(*), COALESCE(sum(clicks), 0), (SELECT count(*) FROM river_job WHERE kind = 'record_clicks')
		FROM click_batches`).Scan(&gotBatches, &gotClicks, &jobs)
	require.NoError(s.T, err)
	if gotBatches != batches || gotClicks != clicks || jobs != batches {
		s.Errorf("%d batches with %d clicks and %d jobs, want %d with %d and a job each", gotBatches, gotClicks, jobs, batches, clicks)
	}
}

// goneSegments selects the batches whose segments are gone according to the ledger.
const goneSegments = "SELECT b.id FROM click_batches b JOIN spool_folders f ON f.folder = left(b.id, 32) AND b.id < f.gone_below"

// gone returns the number of these batches.
func (s *harness) gone() (n int) {
	s.Helper()
	require.NoError(s.T, s.pool.QueryRow(s.Context(), "SELECT count(*) FROM ("+goneSegments+") g").Scan(&n))
	return n
}

func (s *harness) drain() {
	s.Helper()
	require.NoError(s.T, s.shipper.Drain(s.Context()))
}

func TestShipper(t *testing.T) {
	t.Parallel()
	s := newShipping(t, pgtest.Pool(t), time.Hour)
	for n := range 20 { // more than go into one transaction
		s.segment(n + 1)
	}
	s.drain()
	s.want(20, 210)
	if stats := s.spool.Stats(); stats.Segments != 0 || stats.KeptBytes == 0 {
		t.Errorf("the spool after shipping: %+v", stats)
	}
	var linked int
	err := s.pool.QueryRow(t.Context(), `
		SELECT count(*) FROM click_batches b JOIN river_job j ON j.id = b.job_id AND j.args->>'batch_id' = b.id`).Scan(&linked)
	if err != nil || linked != 20 {
		t.Errorf("%d batches know their job, want 20 (%v)", linked, err)
	}
}

// eventually polls until ok is true, for at most a minute.
func (s *harness) eventually(what string, ok func() bool) {
	s.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			s.Fatalf("never came true: %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// run makes the shipper run until the test ends or stop is called.
func (s *harness) run() (stop func()) {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	var running sync.WaitGroup
	running.Go(func() {
		assert.NoError(s, s.shipper.Run(ctx))
	})
	stop = func() {
		cancel()
		running.Wait()
	}
	s.Cleanup(stop)
	return stop
}

// The line may never be empty, because a segment is sealed in less time than one is
// shipped. The spool is tidied all the same, and a segment that was passed over has its
// turn.
func TestShipperTidiesWhileItShips(t *testing.T) {
	t.Parallel()
	s := newShipping(t, pgtest.Pool(t), 0)
	pgtest.Exec(t, s.pool, `
		CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END $$;
		CREATE TRIGGER slow BEFORE INSERT ON click_batches FOR EACH ROW EXECUTE FUNCTION slow()`)
	s.shipper.tidyEvery = 10 * time.Millisecond
	s.segment(1)
	segments, err := s.spool.Segments("")
	if err != nil || len(segments) != 1 {
		t.Fatalf("%v, %v", segments, err)
	}
	s.spool.PassOver(segments[0].ID)
	stop := s.run()
	for _, where := range []string{"id IN (" + goneSegments + ")", "id = '" + segments[0].ID + "'"} {
		s.eventually(where, func() bool {
			for s.spool.Stats().Segments < 4 {
				s.segment(1)
			}
			var found bool
			require.NoError(t, s.pool.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM click_batches WHERE "+where+")").Scan(&found))
			return found
		})
	}
	stop()
}

// read reads the segments that are in line.
func (s *harness) read() []clicks.Batch {
	s.Helper()
	segments, err := s.spool.Segments("")
	require.NoError(s.T, err)
	batches, _ := s.shipper.read(s.Context(), segments)
	return batches
}

// TestShipTwice stops between the commit and the note that the segment was shipped. The
// next attempt finds that the batch is there already.
func TestShipTwice(t *testing.T) {
	t.Parallel()
	s := newShipping(t, pgtest.Pool(t), time.Hour)
	s.segment(7)
	require.NoError(t, s.shipper.meet(t.Context()))
	require.NoError(t, s.shipper.insert(t.Context(), s.read()))
	s.drain()
	s.want(1, 7)

	// Two processes ship the same segment at once.
	s.segment(5)
	batches := s.read()
	other := New(Options{Pool: s.pool, River: s.shipper.River, Spool: s.spool, Log: s.shipper.Log})
	var both sync.WaitGroup
	for _, shipper := range []*Shipper{s.shipper, other} {
		both.Go(func() {
			assert.NoError(t, shipper.insert(t.Context(), batches))
		})
	}
	both.Wait()
	s.want(2, 12)
}

// TestShipAgainAfterRestore sets the database back to the state before the clicks.
func TestShipAgainAfterRestore(t *testing.T) {
	t.Parallel()
	s := newShipping(t, pgtest.Pool(t), time.Hour)
	s.segment(3)
	s.drain()
	s.segment(4)
	s.drain()
	pgtest.Exec(t, s.pool, `
		WITH lost AS (DELETE FROM click_batches WHERE clicks = 4 RETURNING job_id)
		DELETE FROM river_job WHERE id IN (SELECT job_id FROM lost)`)
	if n, _, err := s.spool.Reship(time.Now()); err != nil || n != 2 {
		t.Fatalf("%d segments are shipped again, want 2 (%v)", n, err)
	}
	s.drain()
	s.want(2, 7)
}

func TestShipperConfirmsRemovals(t *testing.T) {
	t.Parallel()
	s := newShipping(t, pgtest.Pool(t), time.Nanosecond)
	s.segment(2)
	s.drain()
	s.shipper.tidy(t.Context())
	confirmed := s.gone()
	if kept := s.spool.Stats().KeptBytes; confirmed != 1 || kept != 0 {
		t.Errorf("%d removals confirmed, %d bytes kept; want 1 and 0", confirmed, kept)
	}
}

// TestRefusedBatchBlocksNoOther makes Postgres refuse one batch for its content.
func TestRefusedBatchBlocksNoOther(t *testing.T) {
	t.Parallel()
	s := newShipping(t, pgtest.Pool(t), time.Hour)
	pgtest.Exec(t, s.pool, `ALTER TABLE click_batches ADD CONSTRAINT no_three CHECK (clicks <> 3)`)
	const refused = 300 // more than one listing of the spool returns
	for range refused {
		s.segment(3)
	}
	for n := range 2 {
		s.segment(n + 1)
	}
	if err := s.shipper.Drain(t.Context()); err == nil {
		t.Error("Drain says that all is shipped")
	}
	s.want(2, 3)
	s.segment(5)
	if err := s.shipper.Drain(t.Context()); err == nil {
		t.Error("Drain says that all is shipped")
	}
	s.want(3, 8)
	pgtest.Exec(t, s.pool, `ALTER TABLE click_batches DROP CONSTRAINT no_three`)
	s.eventually("the refused batches are shipped", func() bool {
		_ = s.shipper.Drain(t.Context())
		return s.spool.Stats().Segments == 0
	})
	s.want(3+refused, 8+3*refused)
}

func TestShipperWaitsOutAnOutage(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	s := newShipping(t, pgtest.Open(t, pgtest.Migrated(t, cluster)), time.Hour)
	logs := new(logLines)
	s.shipper.Log = slog.New(slog.NewJSONHandler(logs, nil))
	s.run()
	s.segment(1)
	s.eventually("the first segment is shipped", func() bool { return s.spool.Stats().Segments == 0 })

	cluster.Kill()
	for n := range 10 {
		s.segment(n + 1)
	}
	if s.spool.Stats().Segments == 0 {
		t.Fatal("segments were shipped without a database")
	}
	require.NoError(t, cluster.Start(t.Context()))
	s.eventually("the backlog is shipped", func() bool { return s.spool.Stats().Segments == 0 })
	var counted int
	if err := s.pool.QueryRow(t.Context(), `SELECT sum(clicks) FROM click_batches`).Scan(&counted); err != nil || counted != 56 {
		t.Errorf("%d clicks arrived, want 56 (%v)", counted, err)
	}

	// The log says how much waited, and how long shipping it took.
	s.eventually("the log says that all is shipped", func() bool { return logs.line("clicks are shipped again") != nil })
	for message, want := range map[string]map[string]float64{
		"clicks cannot be shipped and wait in the spool":    nil,
		"Postgres takes clicks again; shipping the backlog": {"segments": 10},
		"clicks are shipped again":                          {"segments": 10, "clicks": 55},
	} {
		line := logs.line(message)
		if line == nil {
			t.Errorf("the log does not say: %s", message)
			continue
		}
		for key, value := range want {
			if line[key] != value {
				t.Errorf("%s: %s is %v, want %v", message, key, line[key], value)
			}
		}
		for _, key := range []string{"bytes", "oldest_age"} {
			if _, there := line[key]; !there && message != "clicks are shipped again" {
				t.Errorf("%s: no %s in %v", message, key, line)
			}
		}
	}
	if line := logs.line("clicks are shipped again"); line != nil && (line["took"] == nil || line["outage"] == 0.0) {
		t.Errorf("the log line of the recovery: %v", line)
	}
}

// logLines collects lines of JSON.
type logLines struct {
	mu    sync.Mutex
	lines []map[string]any
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var line map[string]any
	if err := json.Unmarshal(p, &line); err != nil {
		return 0, err
	}
	l.lines = append(l.lines, line)
	return len(p), nil
}

// line returns the first line with this message, nil if there is none.
func (l *logLines) line(message string) map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if line["msg"] == message {
			return line
		}
	}
	return nil
}

// TestShipAgainWhileRunning asks a running shipper to ship again the clicks that a
// database has lost because it was set back.
func TestShipAgainWhileRunning(t *testing.T) {
	t.Parallel()
	s := newShipping(t, pgtest.Pool(t), time.Hour)
	s.run()
	var busy *BusyError
	minuteLater := func() {
		s.shipper.reshipping.Lock()
		defer s.shipper.reshipping.Unlock()
		s.shipper.reshipNext = s.shipper.reshipNext.Add(-reshipEvery)
	}
	for n := range 5 {
		s.segment(n + 1)
	}
	shipped := func() bool { return s.spool.Stats().Segments == 0 }
	s.eventually("the segments are shipped", shipped)
	s.want(5, 15)

	// The last two batches are removed from Postgres.
	pgtest.Exec(t, s.pool, `
		WITH lost AS (DELETE FROM click_batches WHERE clicks > 3 RETURNING job_id)
		DELETE FROM river_job WHERE id IN (SELECT job_id FROM lost)`)
	s.want(3, 6)
	for range 3 { // one call is enough; more do no harm
		if put, waiting, err := s.shipper.Reship(t.Context()); put != 5 || waiting != 0 || err != nil {
			t.Errorf("put back %d segments, %d wait, %v", put, waiting, err)
		}
		_, _, err := s.shipper.Reship(t.Context())
		if !errors.As(err, &busy) || busy.RetryAfter <= 0 || busy.RetryAfter > time.Minute {
			t.Errorf("at once again: %v", err)
		}
		s.eventually("the segments are shipped again", shipped)
		s.want(5, 15)
		minuteLater()
	}

	// Many calls come at once, while new clicks are shipped. One of them is served.
	var all sync.WaitGroup
	var served, refused atomic.Int64
	for range 8 {
		all.Go(func() {
			switch _, _, err := s.shipper.Reship(t.Context()); {
			case err == nil:
				served.Add(1)
			case errors.As(err, new(*BusyError)):
				refused.Add(1)
			}
		})
	}
	s.segment(6)
	all.Wait()
	if served.Load() != 1 || refused.Load() != 7 {
		t.Errorf("%d were served and %d told to wait, of 8 at once", served.Load(), refused.Load())
	}
	s.eventually("the segments are shipped again", shipped)
	s.want(6, 21)
}

// A call of Reship that comes between the commit of a batch and the move of its segment
// puts that segment back too: the database may have lost the commit.
func TestShipAgainWhatIsBeingMarked(t *testing.T) {
	t.Parallel()
	s := newShipping(t, pgtest.Pool(t), time.Hour)
	if _, _, err := s.shipper.Reship(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("without Run: %v", err)
	}
	s.segment(3)
	require.NoError(t, s.shipper.meet(t.Context()))
	batches := s.read()
	s.shipper.sending.Lock()
	require.NoError(t, s.shipper.insert(t.Context(), batches))
	s.shipper.running.Store(true)
	put := make(chan int, 1)
	go func() {
		n, _, err := s.shipper.Reship(t.Context())
		assert.NoError(t, err)
		put <- n
	}()
	s.eventually("Reship is under way", func() bool {
		free := s.shipper.reshipping.TryLock()
		if free {
			s.shipper.reshipping.Unlock()
		}
		return !free
	})
	s.shipper.mark(t.Context(), batches[0])
	s.shipper.sending.Unlock()
	if n := <-put; n != 1 {
		t.Errorf("%d segments were put back, want 1", n)
	}
}

// TestShipAfterDeath lets a process die between the commit and the removal of its
// segment. Another process adopts its folder and finds that the batch is there already.
func TestShipAfterDeath(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	s := newShipping(t, pool, time.Hour)
	s.segment(7)
	require.NoError(t, s.shipper.meet(t.Context()))
	require.NoError(t, s.shipper.insert(t.Context(), s.read()))
	require.NoError(t, s.spool.Close())
	heir, err := clicks.OpenForShipping(s.dir, clicks.Options{Log: s.shipper.Log})
	require.NoError(t, err)
	defer heir.Close() //nolint:errcheck // takes no clicks
	if got := heir.Stats().Segments; got != 1 {
		t.Fatalf("%d segments adopted, want 1", got)
	}
	s.shipper.Spool = heir
	require.NoError(t, s.shipper.Ship(t.Context()))
	s.want(1, 7)
}

// copyOf copies the spool, as a snapshot of its volume does.
func (s *harness) copyOf(dir string) (copied string) {
	s.Helper()
	copied = s.TempDir()
	require.NoError(s.T, os.CopyFS(copied, os.DirFS(dir)))
	return copied
}

// shipFrom ships the segments in a folder of folders and removes them at once.
func (s *harness) shipFrom(dir string) {
	s.Helper()
	spool, err := clicks.OpenForShipping(dir, clicks.Options{Log: s.shipper.Log})
	require.NoError(s.T, err)
	defer spool.Close() //nolint:errcheck // takes no clicks
	shipper := New(Options{Pool: s.pool, River: s.shipper.River, Spool: spool, Log: s.shipper.Log})
	require.NoError(s.T, errors.Join(shipper.Ship(s.Context()), shipper.Expire(s.Context(), time.Now().Add(time.Hour))))
}

// ingestAll marks the batches as ingested by a worker, a day or more ago.
func (s *harness) ingestAll() {
	s.Helper()
	pgtest.Exec(s.T, s.pool, `
		WITH done AS (
			UPDATE click_batches SET payload = NULL, ingested_at = now() - interval '25 hours'
			WHERE ingested_at IS NULL AND failed_at IS NULL RETURNING job_id)
		DELETE FROM river_job WHERE id IN (SELECT job_id FROM done)`)
}

func (s *harness) prune(want int64) {
	s.Helper()
	day := pgtype.Interval{Days: 1, Valid: true}
	if n, err := queries.New(s.pool).PruneClickBatches(s.Context(), day, 1000); err != nil || n != want {
		s.Errorf("pruned %d batches, want %d (%v)", n, want, err)
	}
}

// wantHeld checks how many batches wait for an operator, without a job.
func (s *harness) wantHeld(want, inAll int) {
	s.Helper()
	var held, all, queued int
	err := s.pool.QueryRow(s.Context(), `
		SELECT count(*) FILTER (WHERE failed_at IS NOT NULL AND payload IS NOT NULL AND failure LIKE '%came back from a copy%'),
			count(*), (SELECT count(*) FROM river_job) FROM click_batches`).Scan(&held, &all, &queued)
	if err != nil || held != want || all != inAll || queued != inAll-want {
		s.Errorf("%d of %d batches are held, with %d jobs, want %d of %d and jobs for the others (%v)", held, all, queued, want, inAll, err)
	}
}

// If a volume is restored from a snapshot, or copied, after the ledger has forgotten
// its batches, they are not counted again, whichever process ships them and however
// often.
func TestCopyOfASpoolIsHeld(t *testing.T) {
	t.Parallel()
	s := newShipping(t, pgtest.Pool(t), 0)
	for n := range 3 {
		s.segment(n + 1)
	}
	snapshot := s.copyOf(s.dir)
	s.drain()
	s.want(3, 6)
	s.shipFrom(s.copyOf(snapshot)) // they are still in the ledger
	s.want(3, 6)
	s.ingestAll()
	s.prune(3)

	for range 2 {
		s.shipFrom(s.copyOf(snapshot))
		s.wantHeld(3, 3)
	}
	// Once they were dropped, the ledger forgets them in their turn.
	pgtest.Exec(t, s.pool, `UPDATE click_batches SET payload = NULL, ingested_at = now() - interval '25 hours'`)
	s.prune(3)

	// The folder is back in its place, and a new process adopts it.
	require.NoError(t, s.spool.Close())
	heir := newShippingOf(t, s.pool, clicks.Options{Dir: s.copyOf(snapshot)})
	heir.segment(4)
	heir.drain()
	heir.wantHeld(3, 4)
	heir.ingestAll()
	heir.prune(1) // none of the held ones
}

// A copy that was taken while the folder's owner went on says nothing about segments
// that the owner has added since.
func TestOwnerGoesOnBesideACopy(t *testing.T) {
	t.Parallel()
	s := newShipping(t, pgtest.Pool(t), time.Hour)
	s.segment(1)
	snapshot := s.copyOf(s.dir)
	s.segment(2)
	s.shipFrom(snapshot)
	s.segment(3)
	s.drain()
	s.want(3, 6)
	s.wantHeld(0, 3)
}

// A failover to a standby that lagged sets the ledger back, including its rows of
// folders. Segments that are shipped again are counted, whether the standby had
// forgotten them or never knew them.
func TestShipAgainAfterFailover(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	began := time.Now()
	s := newShippingOf(t, pgtest.Pool(t), clicks.Options{
		Dir: t.TempDir(), Keep: time.Hour, Now: func() time.Time { return began.Add(time.Duration(now.Load())) },
	})
	hour := func(n int) time.Time {
		now.Store(int64(n) * int64(time.Hour))
		return began.Add(time.Duration(n) * time.Hour)
	}
	ship := func(clicks ...int) {
		for _, n := range clicks {
			s.segment(n)
		}
		require.NoError(t, s.shipper.Ship(t.Context()))
	}
	settle := func(at time.Time, gone int) {
		t.Helper()
		require.NoError(t, s.shipper.Expire(t.Context(), at))
		if got := s.gone(); got != gone {
			t.Errorf("the ledger takes %d segments for gone, want %d", got, gone)
		}
	}
	ship(1, 1)
	settle(hour(1), 2)
	pgtest.Exec(t, s.pool, `CREATE TABLE standby AS SELECT * FROM spool_folders`)
	ship(10)
	hour(2)
	ship(100, 1000)
	settle(hour(2), 3) // two segments are kept

	pgtest.Exec(t, s.pool, `
		UPDATE spool_folders f SET gone_below = s.gone_below FROM standby s WHERE f.folder = s.folder;
		WITH lost AS (DELETE FROM click_batches WHERE clicks >= 100 RETURNING job_id)
		DELETE FROM river_job WHERE id IN (SELECT job_id FROM lost)`)
	s.want(3, 12)
	hour(2)
	if n, _, err := s.spool.Reship(began.Add(2*time.Hour + time.Minute)); err != nil || n != 2 {
		t.Fatalf("%d segments are shipped again, want 2 (%v)", n, err)
	}
	ship()
	s.want(5, 1112)
	s.wantHeld(0, 5)
	settle(hour(3), 5)
	s.ingestAll()
	s.prune(5)
}

// The clicks of one installation are never counted in another. This holds for clicks
// that a process left, for clicks of a running process whose database is replaced by
// that of another installation, and for clicks in memory.
func TestSpoolOfAnotherInstallation(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	theirs := newShipping(t, pgtest.Pool(t), time.Hour)
	// The databases of the tests are copies of one.
	pgtest.Exec(t, theirs.pool, "UPDATE installation SET id = gen_random_uuid()")
	theirs.segment(7)
	theirs.drain()
	theirs.segment(8) // not shipped
	require.NoError(t, theirs.spool.Close())

	s := newShippingOf(t, pool, clicks.Options{Dir: theirs.dir, Keep: time.Hour})
	s.segment(1)
	s.run()
	s.eventually("our click is shipped", func() bool { return s.spool.Stats().Segments == 0 })
	s.want(1, 1)
	if held := s.spool.Foreign(); len(held) != 1 {
		t.Errorf("held: %v", held)
	}

	// The database becomes that of another installation.
	was := s.spool.Installation()
	pgtest.Exec(t, pool, "UPDATE installation SET id = gen_random_uuid()")
	s.segment(10)
	s.eventually("the spool knows it", func() bool { return s.spool.Installation() != was && len(s.spool.Foreign()) == 2 })
	s.segment(100)
	s.eventually("the new click is shipped", func() bool { return s.spool.Stats().Segments == 0 })
	s.want(2, 101)
	// Then it is the first one again.
	pgtest.Exec(t, pool, "UPDATE installation SET id = $1::uuid", was)
	s.segment(1000)
	s.eventually("the spool knows it", func() bool { return s.spool.Installation() == was })
	s.shipper.Met(was) // this happens by itself as well
	s.eventually("the clicks of the first are shipped", func() bool {
		var clicks int
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT sum(clicks) FROM click_batches").Scan(&clicks))
		if _, err := s.spool.Adopt(); err != nil {
			t.Error(err)
		}
		return clicks == 111
	})
	// The clicks of the second installation are held, and so are those that were never
	// ours.
	s.eventually("the others are held", func() bool { return len(s.spool.Foreign()) == 2 })
}
