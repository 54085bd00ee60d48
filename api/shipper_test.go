package api

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/pgtest"
)

// shipping is a spool and a shipper on a database.
type shipping struct {
	*testing.T
	pool    *pgxpool.Pool
	spool   *clicks.Spool
	shipper *Shipper
}

func newShipping(t *testing.T, pool *pgxpool.Pool, keep time.Duration) *shipping {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	spool, err := clicks.Open(clicks.Options{Dir: t.TempDir(), Keep: keep, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spool.Close() })
	inserter, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	return &shipping{t, pool, spool, NewShipper(ShipperOptions{Pool: pool, River: inserter, Spool: spool, Log: log})}
}

// segment seals a segment of n clicks.
func (s *shipping) segment(n int) {
	s.Helper()
	for range n {
		click := clicks.Click{At: time.Now(), URLID: 1, UserID: 1, IP: netip.MustParseAddr("192.0.2.1"), UserAgent: "test"}
		if err := s.spool.Append(&click); err != nil {
			s.Fatal(err)
		}
	}
	if err := s.spool.SealNow(s.Context()); err != nil {
		s.Fatal(err)
	}
}

// want checks the ledger: batches, the clicks in them, and one job for each.
func (s *shipping) want(batches, clicks int) {
	s.Helper()
	var gotBatches, gotClicks, jobs int
	err := s.pool.QueryRow(s.Context(), `
		SELECT count(*), COALESCE(sum(clicks), 0), (SELECT count(*) FROM river_job WHERE kind = 'record_clicks')
		FROM click_batches`).Scan(&gotBatches, &gotClicks, &jobs)
	if err != nil {
		s.Fatal(err)
	}
	if gotBatches != batches || gotClicks != clicks || jobs != batches {
		s.Errorf("%d batches with %d clicks and %d jobs, want %d with %d and a job each", gotBatches, gotClicks, jobs, batches, clicks)
	}
}

func (s *shipping) drain() {
	s.Helper()
	if err := s.shipper.Drain(s.Context()); err != nil {
		s.Fatal(err)
	}
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

// TestShipTwice dies between the commit and the note that the segment was
// shipped: the next attempt finds the batch there.
func TestShipTwice(t *testing.T) {
	t.Parallel()
	s := newShipping(t, pgtest.Pool(t), time.Hour)
	s.segment(7)
	segments, err := s.spool.Segments()
	if err != nil {
		t.Fatal(err)
	}
	batches, _ := s.shipper.read(t.Context(), segments)
	if err := s.shipper.insert(t.Context(), batches); err != nil {
		t.Fatal(err)
	}
	s.drain()
	s.want(1, 7)

	// Two processes that ship the same segment at once.
	s.segment(5)
	if segments, err = s.spool.Segments(); err != nil {
		t.Fatal(err)
	}
	batches, _ = s.shipper.read(t.Context(), segments)
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if err := s.shipper.insert(t.Context(), batches); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	s.want(2, 12)
}

// TestShipAgainAfterRestore sets the database back to before the clicks.
func TestShipAgainAfterRestore(t *testing.T) {
	t.Parallel()
	s := newShipping(t, pgtest.Pool(t), time.Hour)
	s.segment(3)
	s.drain()
	s.segment(4)
	s.drain()
	if _, err := s.pool.Exec(t.Context(), `
		WITH lost AS (DELETE FROM click_batches WHERE clicks = 4 RETURNING job_id)
		DELETE FROM river_job WHERE id IN (SELECT job_id FROM lost)`); err != nil {
		t.Fatal(err)
	}
	if n, err := s.spool.Reship(); err != nil || n != 2 {
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
	var confirmed int
	if err := s.pool.QueryRow(t.Context(), `SELECT count(*) FROM click_batches WHERE removed_at IS NOT NULL`).Scan(&confirmed); err != nil {
		t.Fatal(err)
	}
	if kept := s.spool.Stats().KeptBytes; confirmed != 1 || kept != 0 {
		t.Errorf("%d removals confirmed, %d bytes kept; want 1 and 0", confirmed, kept)
	}
}

// TestRefusedBatchBlocksNoOther has Postgres refuse one batch for what it holds.
func TestRefusedBatchBlocksNoOther(t *testing.T) {
	t.Parallel()
	s := newShipping(t, pgtest.Pool(t), time.Hour)
	if _, err := s.pool.Exec(t.Context(), `ALTER TABLE click_batches ADD CONSTRAINT no_three CHECK (clicks <> 3)`); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		s.segment(n + 1)
	}
	if err := s.shipper.Drain(t.Context()); err == nil {
		t.Error("Drain says that all is shipped")
	}
	s.want(4, 12)
	if _, err := s.pool.Exec(t.Context(), `ALTER TABLE click_batches DROP CONSTRAINT no_three`); err != nil {
		t.Fatal(err)
	}
	s.drain()
	s.want(5, 15)
}

func TestShipperWaitsOutAnOutage(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	s := newShipping(t, pgtest.Open(t, pgtest.Migrated(t, cluster)), time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.shipper.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()

	cluster.Kill()
	for n := range 10 {
		s.segment(n + 1)
	}
	if s.spool.Stats().Segments == 0 {
		t.Fatal("segments were shipped without a database")
	}
	if err := cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); s.spool.Stats().Segments > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the backlog was not shipped")
		}
		<-time.After(10 * time.Millisecond)
	}
	var counted int
	if err := s.pool.QueryRow(t.Context(), `SELECT sum(clicks) FROM click_batches`).Scan(&counted); err != nil || counted != 55 {
		t.Errorf("%d clicks arrived, want 55 (%v)", counted, err)
	}
}
