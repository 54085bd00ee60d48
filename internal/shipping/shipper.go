// Package shipping brings sealed segments from the spool to Postgres, each as one
// batch with the job that ingests it.
package shipping

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/riverqueue/river"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/pause"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

const (
	// shipTimeout bounds one transaction, so that the shipper gives up on a server that
	// hangs.
	shipTimeout = 15 * time.Second
	// When a backlog waits, several small segments share a transaction. Each of them
	// stays a batch of its own.
	shipTogether = 8
	shipBytes    = 4 << 20
	// While Postgres is away, attempts are spread over this long, so that many
	// replicas do not come back at the same moment.
	retryLeast, retryMost = 100 * time.Millisecond, 2 * time.Second
	// tidyEvery is how often the spool is tidied: folders of dead processes are
	// adopted, and segments that were kept long enough are removed.
	tidyEvery = 10 * time.Second
)

// Options are the surroundings of a Shipper. All except for Host, Registry and Tracing
// are required.
type Options struct {
	Pool  *pgxpool.Pool
	River *river.Client[pgx.Tx] // used only to insert jobs
	Spool *clicks.Spool
	Log   *slog.Logger
	// Host is how people know this process, as one of those that take clicks. It is
	// empty for a process that only ships what another one left.
	Host     string
	Registry prometheus.Registerer // nil means metrics go nowhere
	Tracing  trace.TracerProvider  // gets a span for each transaction that ships; nil means no spans
}

// A Shipper brings sealed segments from the spool to Postgres. A segment is one
// batch with the segment's name as its id: shipping it twice, or from two
// processes, inserts it once (I2).
type Shipper struct {
	Options
	tracer    trace.Tracer
	failing   time.Time     // the time of the first failure; zero while all is well
	reported  time.Time     // when the failure was last logged
	back      time.Time     // when it was last logged that Postgres is back
	listing   time.Time     // when it was last logged that folders cannot be listed
	together  int           // how many segments share the next transaction
	running   atomic.Bool   // Run is under way
	tidied    time.Time     // when the spool was last looked after
	tidyEvery time.Duration // the constant tidyEvery, except in tests
	catchUp   catchUp       // the backlog after an outage of Postgres
	replica   replica

	met atomic.Pointer[string] // the installation that Met was given, until Run has passed it on

	// sending is held from before batches are committed until their segments are marked
	// as shipped.
	sending      sync.Mutex
	reshipping   sync.Mutex // held while segments are put back; guards the next two
	reshipBefore time.Time  // segments that were shipped before this time are to be put back; zero when all of them were
	reshipNext   time.Time  // Reship is not served before this time

	batches, clicks prometheus.Counter
	failures        prometheus.Counter
}

// catchUp counts the segments and clicks of a backlog that is being shipped.
type catchUp struct {
	since            time.Time // zero when there is no backlog
	segments, clicks int
}

// New returns a shipper. Run, Drain and Ship must not be called at the same time;
// Reship and Met may be called at any time.
func New(o Options) *Shipper {
	metrics := promauto.With(o.Registry)
	if o.Tracing == nil {
		o.Tracing = noop.NewTracerProvider()
	}
	return &Shipper{
		Options:   o,
		tracer:    o.Tracing.Tracer("github.com/signpost/signpost/internal/shipping"),
		together:  shipTogether,
		tidyEvery: tidyEvery,
		replica:   newReplica(),
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

// Run ships sealed segments until ctx ends. It waits until any trouble with Postgres is
// over, so its only result is nil.
func (s *Shipper) Run(ctx context.Context) error {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	s.running.Store(true)
	defer s.running.Store(false)
	for wait := retryLeast; ; {
		s.attend(ctx)
		s.reshipRest(ctx)
		err := s.ship(ctx)
		s.report(ctx, err)
		if !postgres.Unavailable(err) {
			s.reportIfDue(ctx)
		}
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
		if pause.For(ctx, wait/2+rand.N(wait)) != nil {
			return nil
		}
		wait = min(2*wait, retryMost)
	}
}

// Drain seals the spool and ships all of it, once. An error means that segments are
// left. They are safe in the spool.
func (s *Shipper) Drain(ctx context.Context) error {
	if err := s.Spool.SealNow(ctx); err != nil {
		return fmt.Errorf("seal spool: %w", err)
	}
	err := s.Ship(ctx)
	// This process may stop for good, and then no other process could confirm its
	// removals.
	err = errors.Join(err, s.Expire(ctx, time.Now()))
	if s.Host != "" {
		err = errors.Join(err, s.Report(ctx))
	}
	return err
}

// Expire removes the segments that have been kept long enough by now, and tells the
// ledger up to which segment their folders are empty. It does not matter if a later
// segment is shipped again, because the ledger has a row for it. An error means that
// some segments are left.
func (s *Shipper) Expire(ctx context.Context, now time.Time) error {
	for {
		gone, err := s.Spool.RemoveExpired(now)
		if err != nil {
			err = fmt.Errorf("remove old segments: %w", err) // the error is about one folder; gone is about the others
		}
		if len(gone) > 0 {
			err = errors.Join(err, s.confirm(ctx, gone))
		}
		if err != nil || len(gone) == 0 {
			return err
		}
	}
}

// Ship ships all sealed segments, once. An error means that segments are left. They are
// safe in the spool.
func (s *Shipper) Ship(ctx context.Context) error {
	if err := s.ship(ctx); err != nil {
		return err
	}
	if left := s.Spool.Stats().Segments; left > 0 {
		return fmt.Errorf("%d segments are left; the log says why", left)
	}
	return nil
}

// ship ships until no segment is left that can be shipped.
func (s *Shipper) ship(ctx context.Context) error {
	for {
		shipped, err := s.pass(ctx)
		if err != nil {
			// A server that is slow, or has just come back, gets little at first: a
			// transaction that takes longer than shipTimeout would never succeed.
			s.together = 1
		}
		if err != nil || shipped == 0 {
			return err
		}
	}
}

// pass goes through the line once, from the oldest segment to the newest, and returns
// how many were shipped. A segment that cannot be shipped stays behind and does not
// keep back others. The pass ends after a while even if more segments are sealed
// meanwhile: segments that were adopted or passed over are older, and have their turn
// in the next pass.
func (s *Shipper) pass(ctx context.Context) (shipped int, err error) {
	began := time.Now()
	for after := ""; shipped == 0 || time.Since(began) < s.tidyEvery; {
		segments, err := s.Spool.Segments(after)
		s.reportListing(ctx, err)
		if len(segments) == 0 {
			return shipped, nil
		}
		if s.Spool.Installation() == "" {
			if err := s.meet(ctx); err != nil {
				return shipped, err
			}
			continue // folders of another installation are out of the line now
		}
		n, err := s.shipAll(ctx, segments)
		shipped += n
		if err != nil {
			return shipped, err
		}
		after = segments[len(segments)-1].ID
	}
	return shipped, nil
}

// Met tells the shipper which installation the database is. It is for a caller that has
// asked the database before there is anything to ship: the spool then knows at once
// which segments belong to this installation. It returns at once, and may be called at
// any time.
func (s *Shipper) Met(installation string) { s.met.Store(&installation) }

// meet asks Postgres which installation it is, so that the spool can say which segments
// belong to it.
func (s *Shipper) meet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shipTimeout)
	defer cancel()
	installation, err := queries.New(s.Pool).GetInstallation(ctx)
	if err != nil {
		return fmt.Errorf("ask which installation this is: %w", err)
	}
	s.Spool.ShipTo(installation)
	return nil
}

// errMoved means that the database is not the one to which the spool ships.
var errMoved = errors.New("the database is another installation than before; clicks of that one are held")

// checkInstallation is called in the transaction that ships, so that no click is
// counted in another installation, whatever happens to the database meanwhile.
func (s *Shipper) checkInstallation(ctx context.Context, q *queries.Queries) error {
	installation, err := q.GetInstallation(ctx)
	if err != nil {
		return fmt.Errorf("ask which installation this is: %w", err)
	}
	if installation != s.Spool.Installation() {
		s.Spool.ShipTo(installation)
		return errMoved
	}
	return nil
}

// reportListing logs once a minute that folders cannot be listed.
func (s *Shipper) reportListing(ctx context.Context, err error) {
	if err != nil && time.Since(s.listing) >= time.Minute {
		s.listing = time.Now()
		s.Log.WarnContext(ctx, "segments of a folder cannot be listed; the others are shipped", slog.Any("error", err))
	}
}

// shipAll ships the segments, oldest first, and returns how many were shipped.
func (s *Shipper) shipAll(ctx context.Context, segments []clicks.Segment) (shipped int, err error) {
	home := s.Spool.Installation()
	for len(segments) > 0 {
		s.attend(ctx)
		if s.Spool.Installation() != home {
			return shipped, nil // the spool was told another installation meanwhile, so the line is another one
		}
		var batches []clicks.Batch
		var taken int
		batches, taken = s.read(ctx, segments)
		segments = segments[taken:]
		if len(batches) == 0 {
			continue
		}
		s.sending.Lock()
		n, err := s.send(ctx, batches)
		s.sending.Unlock()
		shipped += n
		if err != nil {
			return shipped, err
		}
		s.together = min(2*s.together, shipTogether)
	}
	return shipped, nil
}

// read reads the segments that go into one transaction and returns how many segments it
// looked at.
func (s *Shipper) read(ctx context.Context, segments []clicks.Segment) (batches []clicks.Batch, taken int) {
	var bytes int64
	for _, segment := range segments {
		if taken > 0 && (len(batches) == s.together || bytes+segment.Bytes > shipBytes) {
			break
		}
		taken++
		batch, err := s.Spool.Read(segment)
		switch {
		case errors.Is(err, clicks.ErrQuarantined): // the spool has logged and counted this
		case err != nil:
			s.Log.WarnContext(ctx, "a segment cannot be read now", slog.String("segment", segment.ID), slog.Any("error", err))
		default:
			batches, bytes = append(batches, batch), bytes+segment.Bytes
		}
	}
	return batches, taken
}

// send ships batches in one transaction. Postgres may refuse a batch for its content,
// which must not keep back the others. So after such an error each batch is shipped
// alone, and the refused one is tried again from time to time.
func (s *Shipper) send(ctx context.Context, batches []clicks.Batch) (shipped int, err error) {
	err = s.insert(ctx, batches)
	if err != nil && !postgres.DataFault(err) {
		return 0, err
	}
	if err == nil {
		s.reportBack(ctx)
		for _, batch := range batches {
			shipped += s.mark(ctx, batch)
		}
		return shipped, nil
	}
	if len(batches) == 1 {
		s.Log.ErrorContext(ctx, "Postgres refuses a batch; it stays in the spool", slog.String("batch_id", batches[0].ID), slog.Any("error", err))
		s.Spool.PassOver(batches[0].ID)
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

// mark takes the segment of a committed batch out of the line and returns 1. If that
// fails, it returns 0 and the segment is shipped again, which is harmless.
func (s *Shipper) mark(ctx context.Context, batch clicks.Batch) int {
	if err := s.Spool.Shipped(batch); err != nil {
		s.Spool.PassOver(batch.ID)
		s.Log.WarnContext(ctx, "a shipped segment stays in line", slog.String("segment", batch.ID), slog.Any("error", err))
		return 0
	}
	s.batches.Inc()
	s.clicks.Add(float64(batch.Clicks))
	s.catchUp.segments++
	s.catchUp.clicks += batch.Clicks
	return 1
}

// insert commits batches and the jobs that ingest them. A batch that was
// shipped before is left as it is.
func (s *Shipper) insert(ctx context.Context, batches []clicks.Batch) (err error) {
	ctx, cancel := context.WithTimeout(ctx, shipTimeout)
	defer cancel()
	ctx, span := s.tracer.Start(ctx, "ship clicks", trace.WithSpanKind(trace.SpanKindProducer))
	defer func() { endSpan(span, batches, err) }()
	var replays []string
	var report clicks.Report
	err = postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		replays = nil
		if err := s.checkInstallation(ctx, queries.New(tx)); err != nil {
			return err
		}
		for _, batch := range batches {
			replay, err := s.insertBatch(ctx, tx, batch)
			if err != nil {
				return err
			}
			if replay {
				replays = append(replays, batch.ID)
			}
		}
		report, err = s.store(ctx, queries.New(tx), batches)
		return err
	})
	if err == nil {
		s.stored(report)
	}
	if err == nil && len(replays) > 0 {
		s.Log.ErrorContext(ctx, "batches whose segments were removed are back and wait for an operator", slog.Any("batch_ids", replays), slog.String("reason", replayed))
	}
	return err
}

func endSpan(span trace.Span, batches []clicks.Batch, err error) {
	if span.IsRecording() {
		ids := make([]string, len(batches))
		for i, b := range batches {
			ids[i] = b.ID
		}
		span.SetAttributes(attribute.StringSlice("signpost.batches", ids))
	}
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// replayed is the reason why a batch is held whose segment was removed and that the
// ledger does not know.
const replayed = "its segment was shipped and removed, and came back from a copy of the spool, so that it was counted before; " +
	"drop it, or ingest it with `signpost batches retry` if you know better"

// insertBatch inserts a batch and the job that ingests it. A replay gets no job: an
// operator decides about it.
func (s *Shipper) insertBatch(ctx context.Context, tx pgx.Tx, batch clicks.Batch) (replay bool, err error) {
	q := queries.New(tx)
	n, err := q.InsertClickBatch(ctx, queries.InsertClickBatchParams{
		ID: batch.ID, Payload: batch.Payload, Clicks: int32(batch.Clicks), OldestAt: batch.Oldest,
	})
	if err != nil {
		return false, fmt.Errorf("insert batch: %w", err)
	}
	if n == 0 {
		return false, nil
	}
	reason := replayed
	n, err = q.HoldReplayedBatch(ctx, &reason, batch.ID)
	if err != nil {
		return false, fmt.Errorf("look whether the batch is a replay: %w", err)
	}
	if n > 0 {
		return true, nil
	}
	job, err := s.River.InsertTx(ctx, tx, jobs.RecordClicks{BatchID: batch.ID}, nil)
	if err != nil {
		return false, fmt.Errorf("insert job: %w", err)
	}
	if err := q.SetClickBatchJob(ctx, &job.Job.ID, batch.ID); err != nil {
		return false, fmt.Errorf("note the batch's job: %w", err)
	}
	return false, nil
}

// attend does other work than shipping when it is due. It does not wait for the end of
// the line, because the line may never be empty if a transaction takes longer than it
// takes to seal a segment.
func (s *Shipper) attend(ctx context.Context) {
	if met := s.met.Swap(nil); met != nil {
		s.Spool.ShipTo(*met)
	}
	if !s.running.Load() || time.Since(s.tidied) <= s.tidyEvery {
		return
	}
	s.tidied = time.Now()
	s.tidy(ctx)
	s.reshipRest(ctx)
}

// tidy adopts folders of dead processes and removes segments that were kept
// long enough.
func (s *Shipper) tidy(ctx context.Context) {
	if n, err := s.Spool.Adopt(); err != nil {
		s.Log.WarnContext(ctx, "folders of other processes cannot be looked at", slog.Any("error", err))
	} else if n > 0 {
		s.Log.InfoContext(ctx, "adopted the segments of a dead process", slog.Int("segments", n))
	}
	if err := s.Expire(ctx, time.Now()); err != nil && ctx.Err() == nil && !postgres.Unavailable(err) {
		s.Log.WarnContext(ctx, "old segments cannot be removed", slog.Any("error", err)) // an outage is reported by shipping
	}
}

func (s *Shipper) confirm(ctx context.Context, gone []clicks.Gone) error {
	ctx, cancel := context.WithTimeout(ctx, shipTimeout)
	defer cancel()
	var folders, below []string
	for _, g := range gone {
		folders, below = append(folders, g.Folder), append(below, g.Below)
	}
	if err := queries.New(s.Pool).ConfirmSegmentsGone(ctx, folders, below); err != nil {
		return fmt.Errorf("confirm removed segments: %w", err)
	}
	if err := s.Spool.Confirmed(gone); err != nil {
		return fmt.Errorf("forget confirmed removals: %w", err)
	}
	return nil
}
