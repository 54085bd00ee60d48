package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/queries"
)

const (
	// changesKept exceeds by far how long a replica may be cut off before it
	// revalidates all it has.
	changesKept = 2 * time.Hour
	// batchesKept counts from the ingestion of a batch whose segment is gone. Its
	// row has served: the time is for a job that runs late, and for people.
	batchesKept = 24 * time.Hour
	// keysKept is how long a request may be repeated and is done once.
	keysKept = 24 * time.Hour
	// rejectsKept is the time to look at quarantined clicks, which hold the user agent
	// and the whole referrer.
	rejectsKept = 30 * 24 * time.Hour
	// saltsKept is in days; a backlog of a day keeps its salt longer. So does an
	// outage: saltNotice is how long the spools have to bring their backlog when
	// Postgres is back, counted from when the salt was first found to be due.
	//
	// BUG: clicks of an API that alone was cut off from Postgres for days get a
	// new salt, so that visitors of their day count once more. The same goes for
	// a failed batch that is retried after that.
	saltsKept  = 2
	saltNotice = time.Hour
	// prunePiece is how many rows go in one transaction, so that none is long and the
	// removed rows stay removed when the rest has to wait for the next run.
	prunePiece = 5_000
)

// DefaultLedgerKeep is three times the longest that a spool can be told to keep
// its segments.
const DefaultLedgerKeep = 90 * 24 * time.Hour

// prune removes rows that have served their purpose.
type prune struct {
	river.WorkerDefaults[jobs.Prune]
	deps  *deps
	piece int32
}

// Work implements [river.Worker]. Salts come first and no part waits for the
// success of another: a salt that outlives its day is a broken promise (I9).
func (w *prune) Work(ctx context.Context, _ *river.Job[jobs.Prune]) error {
	q := queries.New(w.deps.pool)
	_, err := q.DestroySalts(ctx, interval(saltNotice), time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -saltsKept))
	errs := []error{wrap("destroy salts", err)}
	tables := []prunable{
		{"click batches", func() (int64, error) { return q.PruneClickBatches(ctx, interval(batchesKept), w.piece) }},
		{"old click batches", func() (int64, error) { return q.CutClickLedger(ctx, interval(w.deps.ledgerKeep), w.piece) }},
		{"quarantined clicks", func() (int64, error) { return q.PruneClickRejects(ctx, interval(rejectsKept), w.piece) }},
		{"names of deleted users", func() (int64, error) { return q.ForgetDeletedUsers(ctx, w.piece) }},
		{"idempotency keys", func() (int64, error) { return q.PruneIdempotencyKeys(ctx, interval(keysKept), w.piece) }},
		{"link changes", func() (int64, error) { return q.PruneLinkChanges(ctx, interval(changesKept), w.piece) }},
	}
	if keep := interval(w.deps.importKeep); w.deps.importKeep > 0 {
		tables = append(tables,
			prunable{"rows of old imports", func() (int64, error) { return q.PruneImportRows(ctx, keep, w.piece) }},
			prunable{"old imports", func() (int64, error) { return q.PruneImports(ctx, keep, w.piece) }})
	}
	for _, table := range tables {
		errs = append(errs, wrap("prune "+table.what, w.inPieces(ctx, table.what, table.piece)))
	}
	return errors.Join(errs...)
}

// prunable is something of which a piece can be removed.
type prunable struct {
	what  string
	piece func() (int64, error)
}

// inPieces removes piece by piece until nothing is left. When its time is up, the next
// run goes on.
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

func wrap(action string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", action, err)
}

func interval(d time.Duration) pgtype.Interval {
	return pgtype.Interval{Microseconds: d.Microseconds(), Valid: true}
}
