package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/queries"
)

const (
	// strandedAfter leaves the transaction that ships a batch time to commit.
	strandedAfter = time.Minute
	// leftAlone is how long a discarded or cancelled job is left as it is, for
	// the operator who looks at it.
	leftAlone = 5 * time.Minute
	// silentAfter is how long an upload may say nothing. The API says something
	// within a minute while bytes arrive. Until it is given up its
	// Idempotency-Key is taken, so it must be well within the five minutes for
	// which "signpost import" goes on trying.
	silentAfter = 2 * time.Minute
	// A run looks for so many of each sort at a time, and so many times.
	rescuedMax  = 500
	rescuePages = 10
)

// rescue gives every batch, chunk, import and month on its way to the archive
// whose job is gone a new one, and gives up uploads whose API process is gone. That a job was discarded, deleted
// by an operator or cleaned away by River never loses what it was for.
type rescue struct {
	river.WorkerDefaults[jobs.Rescue]
	deps *deps
}

// Work implements [river.Worker].
func (w *rescue) Work(ctx context.Context, _ *river.Job[jobs.Rescue]) error {
	var errs []error
	for _, find := range []func(context.Context) (int, error){w.batches, w.chunks, w.imports, w.uploads, w.parts} {
		for range rescuePages {
			n, err := find(ctx)
			errs = append(errs, err)
			if n < rescuedMax {
				break
			}
		}
	}
	return errors.Join(errs...)
}

func (w *rescue) batches(ctx context.Context) (int, error) {
	ids, err := queries.New(w.deps.pool).ListStrandedBatches(ctx,
		interval(strandedAfter), interval(leftAlone), rescuedMax)
	if err != nil {
		return 0, fmt.Errorf("list stranded batches: %w", err)
	}
	for _, id := range ids {
		err := w.insert(ctx, jobs.RecordClicks{BatchID: id}, func(q *queries.Queries, jobID int64) error {
			return q.SetClickBatchJob(ctx, &jobID, id)
		})
		if err != nil {
			return 0, fmt.Errorf("rescue batch: %w", err)
		}
	}
	w.account(ctx, "batches", len(ids))
	return len(ids), nil
}

func (w *rescue) chunks(ctx context.Context) (int, error) {
	found, err := queries.New(w.deps.pool).ListStrandedChunks(ctx, interval(leftAlone), rescuedMax)
	if err != nil {
		return 0, fmt.Errorf("list stranded chunks: %w", err)
	}
	for _, c := range found {
		err := w.insert(ctx, jobs.ApplyChunk{ImportID: c.ImportID, Seq: c.Seq}, func(q *queries.Queries, jobID int64) error {
			return q.SetImportChunkJobs(ctx, c.ImportID, []int32{c.Seq}, []int64{jobID})
		})
		if err != nil {
			return 0, fmt.Errorf("rescue chunk: %w", err)
		}
	}
	w.account(ctx, "chunks", len(found))
	return len(found), nil
}

func (w *rescue) imports(ctx context.Context) (int, error) {
	found, err := queries.New(w.deps.pool).ListStrandedImports(ctx, interval(leftAlone), rescuedMax)
	if err != nil {
		return 0, fmt.Errorf("list stranded imports: %w", err)
	}
	for _, i := range found {
		err := w.insert(ctx, jobs.NextOfImport(i.ID, i.State, i.ChunksTotal), func(q *queries.Queries, jobID int64) error {
			return q.SetImportJob(ctx, &jobID, i.ID)
		})
		if err != nil {
			return 0, fmt.Errorf("rescue import: %w", err)
		}
	}
	w.account(ctx, "imports", len(found))
	return len(found), nil
}

func (w *rescue) insert(ctx context.Context, args river.JobArgs, note func(*queries.Queries, int64) error) error {
	return w.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		jobID, err := insertJob(ctx, tx, args)
		if err != nil {
			return err
		}
		return note(q, jobID)
	})
}

func (w *rescue) uploads(ctx context.Context) (int, error) {
	ids, err := queries.New(w.deps.pool).ListSilentUploads(ctx, interval(silentAfter), rescuedMax)
	if err != nil {
		return 0, fmt.Errorf("list silent uploads: %w", err)
	}
	reason := "the upload broke off"
	for _, id := range ids {
		err := w.deps.inTx(ctx, func(_ pgx.Tx, q *queries.Queries) error {
			failed, err := q.FailImport(ctx, &reason, id)
			if err != nil || failed == 0 {
				return err
			}
			return q.DropImportChunks(ctx, id)
		})
		if err != nil {
			return 0, fmt.Errorf("give up upload: %w", err)
		}
	}
	w.account(ctx, "uploads", len(ids))
	return len(ids), nil
}

// parts has somebody go on with a month that is out of events and not yet
// archived, when its worker is gone: the next run that is due may be an hour away.
func (w *rescue) parts(ctx context.Context) (int, error) {
	figures, err := queries.New(w.deps.pool).EventPartFigures(ctx)
	if err != nil || figures.PartsOpen == 0 {
		return 0, wrap("look for open parts", err)
	}
	// Only looked at: taken for an instant, the lock would make a run that is due
	// in that instant believe that another worker is at it.
	held, err := queries.New(w.deps.pool).AdvisoryLockHeld(ctx, lockRetire)
	if err != nil || held {
		return 0, wrap("look for who retires", err)
	}
	_, err = river.ClientFromContext[pgx.Tx](ctx).Insert(ctx, jobs.RetireMonths{}, &river.InsertOpts{
		Queue: jobs.QueueRetention, MaxAttempts: 1, UniqueOpts: river.UniqueOpts{ByPeriod: time.Minute},
	})
	if err != nil {
		return 0, fmt.Errorf("rescue part: %w", err)
	}
	w.account(ctx, "parts", int(figures.PartsOpen))
	return int(figures.PartsOpen), nil
}

func (w *rescue) account(ctx context.Context, what string, n int) {
	if n == 0 {
		return
	}
	w.deps.metrics.rescued.WithLabelValues(what).Add(float64(n))
	w.deps.log.WarnContext(ctx, "rescued what had no job", "what", what, "count", n)
}
