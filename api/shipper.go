package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

const (
	// shipTimeout bounds one transaction, so that a server that hangs is left.
	shipTimeout = 15 * time.Second
	// Several small segments share a transaction when a backlog waits; each
	// stays a batch of its own.
	shipTogether = 8
	shipBytes    = 4 << 20
	// While Postgres is away, attempts are spread over this long, so that many
	// replicas do not come back at the same moment.
	retryLeast, retryMost = 100 * time.Millisecond, 2 * time.Second
	// How often the spool is looked after: folders of dead processes, segments
	// that were kept long enough.
	tidyEvery = 10 * time.Second
)

// ShipperOptions is what a Shipper works with. All but Registry are required.
type ShipperOptions struct {
	Pool     *pgxpool.Pool
	River    *river.Client[pgx.Tx] // only inserts
	Spool    *clicks.Spool
	Log      *slog.Logger
	Registry prometheus.Registerer // nil means metrics go nowhere
}

// A Shipper brings sealed segments from the spool to Postgres. A segment is one
// batch with the segment's name as its id: shipping it twice, or from two
// processes, inserts it once (I2).
type Shipper struct {
	ShipperOptions
	failing  time.Time // since when; zero while all is well
	reported time.Time // when that was last logged
	unmarked error     // why a segment that was committed is still in line

	batches, clicks prometheus.Counter
	failures        prometheus.Counter
}

// NewShipper returns a shipper. Run, Drain and Ship are not to be called at once.
func NewShipper(o ShipperOptions) *Shipper {
	metrics := promauto.With(o.Registry)
	return &Shipper{
		ShipperOptions: o,
		batches: metrics.NewCounter(prometheus.CounterOpts{
			Name: "signpost_batches_shipped_total", Help: "Batches that this process brought to Postgres.",
		}),
		clicks: metrics.NewCounter(prometheus.CounterOpts{
			Name: "signpost_clicks_shipped_total", Help: "Clicks in the batches that this process brought to Postgres.",
		}),
		failures: metrics.NewCounter(prometheus.CounterOpts{
			Name: "signpost_shipping_failures_total", Help: "Attempts to bring batches to Postgres that failed.",
		}),
	}
}

// Run ships what is sealed until ctx ends. It waits out whatever is wrong with
// Postgres, so its only result is nil.
func (s *Shipper) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var tidied time.Time
	for wait := retryLeast; ; {
		if time.Since(tidied) > tidyEvery {
			tidied = time.Now()
			s.tidy(ctx)
		}
		err := s.ship(ctx)
		s.report(ctx, err)
		if err == nil {
			wait = retryLeast
			select {
			case <-ctx.Done():
				return nil
			case <-s.Spool.Sealed():
			case <-tick.C:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait/2 + rand.N(wait)):
			wait = min(2*wait, retryMost)
		}
	}
}

// Drain seals the spool and ships all of it, once. An error says that segments
// are left, which are safe in the spool.
func (s *Shipper) Drain(ctx context.Context) error {
	if err := s.Spool.SealNow(ctx); err != nil {
		return fmt.Errorf("seal spool: %w", err)
	}
	return s.Ship(ctx)
}

// Ship ships all that is sealed, once. An error says that segments are left,
// which are safe in the spool.
func (s *Shipper) Ship(ctx context.Context) error {
	if err := s.ship(ctx); err != nil {
		return err
	}
	if left := s.Spool.Stats().Segments; left > 0 {
		return fmt.Errorf("%d segments could not be read", left)
	}
	return nil
}

// ship ships until nothing that can be read is left.
func (s *Shipper) ship(ctx context.Context) error {
	for {
		segments, err := s.Spool.Segments()
		if err != nil {
			return fmt.Errorf("list segments: %w", err)
		}
		s.unmarked = nil
		shipped, err := s.shipAll(ctx, segments)
		if err = cmp.Or(err, s.unmarked); err != nil || shipped == 0 {
			return err
		}
	}
}

// shipAll ships the segments, oldest first, and returns how many went.
func (s *Shipper) shipAll(ctx context.Context, segments []clicks.Segment) (shipped int, err error) {
	for len(segments) > 0 {
		var batches []clicks.Batch
		var taken int
		batches, taken = s.read(ctx, segments)
		segments = segments[taken:]
		if len(batches) == 0 {
			continue
		}
		n, err := s.send(ctx, batches)
		shipped += n
		if err != nil {
			return shipped, err
		}
	}
	return shipped, nil
}

// read reads the segments that go together and returns how many it looked at.
func (s *Shipper) read(ctx context.Context, segments []clicks.Segment) (batches []clicks.Batch, taken int) {
	var bytes int64
	for _, segment := range segments {
		if taken > 0 && (len(batches) == shipTogether || bytes+segment.Bytes > shipBytes) {
			break
		}
		taken++
		batch, err := s.Spool.Read(segment)
		switch {
		case errors.Is(err, clicks.ErrSetAside): // the spool has logged and counted it
		case err != nil:
			s.Log.WarnContext(ctx, "a segment cannot be read now", "segment", segment.ID, "error", err)
		default:
			batches, bytes = append(batches, batch), bytes+segment.Bytes
		}
	}
	return batches, taken
}

// send ships batches in one transaction. One that Postgres refuses for what it
// holds must not keep back the others, so after such an error each goes alone.
//
// BUG: the spool lists its oldest 256 segments, so as many refused ones would
// keep back those behind them. No batch that the spool makes is refused.
func (s *Shipper) send(ctx context.Context, batches []clicks.Batch) (shipped int, err error) {
	err = s.insert(ctx, batches)
	if err != nil && !postgres.DataFault(err) {
		return 0, err
	}
	if err == nil {
		for _, batch := range batches {
			if err := s.Spool.Shipped(batch.ID); err != nil {
				s.unmarked = fmt.Errorf("mark segment as shipped: %w", err)
				continue // it is shipped again, which is harmless; the others go on
			}
			shipped++
			s.batches.Inc()
			s.clicks.Add(float64(batch.Clicks))
		}
		return shipped, nil
	}
	if len(batches) == 1 {
		s.Log.ErrorContext(ctx, "Postgres refuses a batch; it stays in the spool", "batch", batches[0].ID, "error", err)
		return 0, nil
	}
	for i := range batches {
		n, err := s.send(ctx, batches[i:i+1])
		shipped += n
		if err != nil {
			return shipped, err
		}
	}
	return shipped, nil
}

// insert commits batches and the jobs that ingest them. A batch that was
// shipped before is left as it is.
func (s *Shipper) insert(ctx context.Context, batches []clicks.Batch) error {
	ctx, cancel := context.WithTimeout(ctx, shipTimeout)
	defer cancel()
	return postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		q := queries.New(tx)
		for _, batch := range batches {
			n, err := q.InsertClickBatch(ctx, queries.InsertClickBatchParams{
				ID: batch.ID, Payload: batch.Payload, Clicks: int32(batch.Clicks), OldestAt: batch.Oldest,
			})
			if err != nil {
				return fmt.Errorf("insert batch: %w", err)
			}
			if n == 0 {
				continue
			}
			job, err := s.River.InsertTx(ctx, tx, jobs.RecordClicks{BatchID: batch.ID}, nil)
			if err != nil {
				return fmt.Errorf("insert job: %w", err)
			}
			if err := q.SetClickBatchJob(ctx, &job.Job.ID, batch.ID); err != nil {
				return fmt.Errorf("note the batch's job: %w", err)
			}
		}
		return nil
	})
}

// tidy adopts folders of dead processes and removes segments that were kept
// long enough. The ledger learns of a removal only when it is for good: until
// then its row makes shipping the segment again harmless.
func (s *Shipper) tidy(ctx context.Context) {
	if n, err := s.Spool.Adopt(); err != nil {
		s.Log.WarnContext(ctx, "folders of other processes cannot be looked at", "error", err)
	} else if n > 0 {
		s.Log.InfoContext(ctx, "adopted the segments of a dead process", "segments", n)
	}
	for ctx.Err() == nil {
		ids, err := s.Spool.RemoveExpired(time.Now())
		if err != nil {
			s.Log.WarnContext(ctx, "old segments cannot be removed", "error", err)
		}
		if len(ids) == 0 || s.confirm(ctx, ids) != nil {
			return
		}
	}
}

func (s *Shipper) confirm(ctx context.Context, ids []string) error {
	ctx, cancel := context.WithTimeout(ctx, shipTimeout)
	defer cancel()
	if err := queries.New(s.Pool).ConfirmSegmentsRemoved(ctx, ids); err != nil {
		return err // shipping meets the same error and reports it
	}
	if err := s.Spool.Confirmed(ids); err != nil {
		s.Log.WarnContext(ctx, "confirmed removals cannot be forgotten", "error", err)
		return err
	}
	return nil
}

// report logs the first failure, then one a minute, then the recovery.
func (s *Shipper) report(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	if err == nil {
		if !s.failing.IsZero() {
			s.Log.InfoContext(ctx, "clicks are shipped again", "after", now.Sub(s.failing).Round(time.Millisecond))
			s.failing, s.reported = time.Time{}, time.Time{}
		}
		return
	}
	s.failures.Inc()
	if s.failing.IsZero() {
		s.failing = now
	}
	if now.Sub(s.reported) >= time.Minute {
		s.reported = now
		stats := s.Spool.Stats()
		s.Log.WarnContext(ctx, "clicks cannot be shipped and wait in the spool",
			"error", err, "segments", stats.Segments, "bytes", stats.Bytes)
	}
}
