package worker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/live"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

const (
	// changesKept is how long changes of links are kept. It is much longer than a
	// replica can be cut off before it has to revalidate its whole cache.
	changesKept = 2 * time.Hour
	// batchesKept counts from the ingestion of a batch whose segment is gone. The row
	// has done its work by then; it stays for jobs that run late, and for people who
	// look at it.
	batchesKept = 24 * time.Hour
	// keysKept is how long a request with an idempotency key can be repeated without
	// being carried out twice.
	keysKept = 24 * time.Hour
	// rejectsKept is how long people can look at rejected clicks, which contain the
	// user agent and the whole referrer.
	rejectsKept = 30 * 24 * time.Hour
	// sessionsKept counts from the last use: a session has ended that was not used for a
	// week.
	sessionsKept = 7 * 24 * time.Hour
	// workersKept is how long a worker that vanished is told of.
	workersKept = time.Hour
	// saltsKept is in days. A salt is kept longer while there is a backlog of its day,
	// and after an outage: saltNotice is how long the spools have to ship their backlog
	// once Postgres is back. It counts from when prune first found that the salt was
	// due.
	//
	// BUG: clicks of an API that alone was cut off from Postgres for days get a
	// new salt, so that visitors of their day count once more. The same goes for
	// a failed batch that is retried after that.
	saltsKept  = 2
	saltNotice = time.Hour
	// prunePiece is how many rows one transaction removes, so that no transaction takes
	// long, and so that removed rows stay removed when the rest has to wait for the
	// next run.
	prunePiece = 5_000
)

// DefaultLedgerKeep is three times the longest time for which a spool can be configured
// to keep its segments.
const DefaultLedgerKeep = 90 * 24 * time.Hour

// prune removes rows that have served their purpose. Events have a retention of their
// own (retention.go).
type prune struct {
	river.WorkerDefaults[jobs.Prune]
	deps  *deps
	piece int32
}

// Work implements [river.Worker]. Salts come first, and each part runs even if another
// failed, because a salt that is kept for too long breaks a promise (I9).
func (w *prune) Work(ctx context.Context, _ *river.Job[jobs.Prune]) error {
	q := queries.New(w.deps.pool)
	before := dateOf(dayIn(w.deps.zone, time.Now()) - saltsKept)
	_, err := q.DestroySalts(ctx, interval(saltNotice), before)
	errs := []error{wrap("destroy salts", err), wrap("drop visitors", w.deps.dropVisitors(ctx, before))}
	tables := []prunable{
		{"click batches", func() (int64, error) { return q.PruneClickBatches(ctx, interval(batchesKept), w.piece) }},
		{"old click batches", func() (int64, error) { return q.CutClickLedger(ctx, interval(w.deps.ledgerKeep), w.piece) }},
		{"quarantined clicks", func() (int64, error) { return q.PruneClickRejects(ctx, interval(rejectsKept), w.piece) }},
		{"names of deleted users", func() (int64, error) { return q.ForgetDeletedUsers(ctx, w.piece) }},
		{"idempotency keys", func() (int64, error) { return q.PruneIdempotencyKeys(ctx, interval(keysKept), w.piece) }},
		{"sessions", func() (int64, error) { return q.PruneSessions(ctx, interval(sessionsKept), w.piece) }},
		{"processes without a folder", func() (int64, error) { return q.PruneReplicas(ctx) }},
		{"vanished workers", func() (int64, error) { return q.PruneWorkers(ctx, interval(workersKept)) }},
		{"live clicks", func() (int64, error) { return q.PruneLiveClicks(ctx, interval(live.Kept)) }},
		{"link changes", func() (int64, error) { return q.PruneLinkChanges(ctx, interval(changesKept), w.piece) }},
	}
	if keep := interval(w.deps.importKeep); w.deps.importKeep > 0 {
		tables = append(tables,
			prunable{"rows of old imports", func() (int64, error) { return q.PruneImportRows(ctx, keep, w.piece) }},
			prunable{"old imports", func() (int64, error) { return q.PruneImports(ctx, keep, w.piece) }})
	}
	if months := w.deps.retention.Months; months > 0 {
		first := postgres.MonthOf(time.Now()).AddDate(0, -months, 0) // whose events are kept
		tables = append(tables, prunable{"user agents", func() (int64, error) { return q.PruneUserAgents(ctx, first, w.piece) }})
	}
	for _, table := range tables {
		errs = append(errs, wrap("prune "+table.what, w.inPieces(ctx, table.what, table.piece)))
	}
	return errors.Join(errs...)
}

// prunable is a kind of rows, of which one piece can be removed at a time.
type prunable struct {
	what  string
	piece func() (int64, error)
}

// inPieces removes piece by piece until nothing is left, or until its time is over; the
// next run then goes on.
func (w *prune) inPieces(ctx context.Context, what string, piece func() (int64, error)) error {
	for total := int64(0); ; {
		n, err := piece()
		total += n
		if err == nil && n == int64(w.piece) {
			continue
		}
		if total > 0 {
			w.deps.log.DebugContext(ctx, "pruned", slog.String("what", what), slog.Int64("rows", total))
		}
		return err
	}
}
