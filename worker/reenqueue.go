package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/queries"
)

const (
	// strandedAfter gives the transaction that ships a batch time to commit.
	strandedAfter = time.Minute
	// leftAlone is how long a discarded or cancelled job is not replaced, so that an
	// operator can look at it.
	leftAlone = 5 * time.Minute
	// silentAfter is how long an upload may go without a sign of life. The API gives
	// one within a minute while bytes arrive. The upload's Idempotency-Key stays taken
	// until the upload is given up, so silentAfter must be well below the five minutes
	// for which "signpost import" goes on trying.
	silentAfter = 2 * time.Minute
	// stalledAfter is longer than a turn, within which the job of an import begins its
	// last chunk. A job that runs for longer while no transaction has locked the import's
	// next chunk is one of a worker that was killed.
	stalledAfter   = 15 * time.Second
	reenqueuePage  = 500 // batches, imports or uploads that one query lists
	reenqueuePages = 10  // queries for each of them in one run
)

// reenqueue gives a new job to every batch and import whose job is gone, and gives up
// uploads whose API process is gone. So nothing is lost when a job is discarded, deleted
// by an operator or cleaned away by River. The job of an import whose worker was killed
// is replaced, too: River takes a minute or two to notice.
type reenqueue struct {
	river.WorkerDefaults[jobs.Reenqueue]
	deps *deps
}

// Work implements [river.Worker].
func (w *reenqueue) Work(ctx context.Context, _ *river.Job[jobs.Reenqueue]) error {
	var errs []error
	for _, find := range []func(context.Context) (int, error){w.batches, w.imports, w.stalled, w.uploads, w.reclassifications} {
		for range reenqueuePages {
			n, err := find(ctx)
			errs = append(errs, err)
			if n < reenqueuePage {
				break
			}
		}
	}
	return errors.Join(errs...)
}

func (w *reenqueue) batches(ctx context.Context) (int, error) {
	ids, err := queries.New(w.deps.pool).ListStrandedBatches(ctx,
		interval(strandedAfter), interval(leftAlone), reenqueuePage)
	if err != nil {
		return 0, fmt.Errorf("list stranded batches: %w", err)
	}
	for _, id := range ids {
		err := w.insert(ctx, jobs.RecordClicks{BatchID: id}, func(q *queries.Queries, jobID int64) error {
			return q.SetClickBatchJob(ctx, &jobID, id)
		})
		if err != nil {
			return 0, fmt.Errorf("re-enqueue batch: %w", err)
		}
	}
	w.report(ctx, "batches", len(ids))
	return len(ids), nil
}

func (w *reenqueue) imports(ctx context.Context) (int, error) {
	found, err := queries.New(w.deps.pool).ListStrandedImports(ctx, interval(leftAlone), reenqueuePage)
	if err != nil {
		return 0, fmt.Errorf("list stranded imports: %w", err)
	}
	for _, i := range found {
		err := w.insert(ctx, jobs.NextOfImport(i.ID, i.State), func(q *queries.Queries, jobID int64) error {
			return q.SetImportJob(ctx, &jobID, i.ID)
		})
		if err != nil {
			return 0, fmt.Errorf("re-enqueue import: %w", err)
		}
	}
	w.report(ctx, "imports", len(found))
	return len(found), nil
}

// stalled replaces the jobs of imports that a killed worker left. If the worker lives
// after all, no harm is done: its run stops after its chunk.
func (w *reenqueue) stalled(ctx context.Context) (int, error) {
	reason := "every worker that applied it was killed: look for the cause, such as a lack of memory, and retry the import"
	found, replaced := 0, 0
	err := w.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		found, replaced = 0, 0
		imports, err := q.LockStalledImports(ctx, interval(stalledAfter), reenqueuePage)
		if err != nil {
			return fmt.Errorf("list stalled imports: %w", err)
		}
		found = len(imports)
		for _, i := range imports {
			free, err := q.NextImportChunkIsFree(ctx, i.ID)
			if err != nil {
				return fmt.Errorf("look at the next chunk of an import: %w", err)
			}
			if !free {
				continue
			}
			replaced++
			if i.TriesLeft == 0 && i.State == jobs.ImportRunning {
				if _, err := q.FailImportWork(ctx, &reason, i.ID, i.JobID); err != nil {
					return fmt.Errorf("fail import: %w", err)
				}
				continue
			}
			// The new job has the tries that the old one had left, so that rows that crash
			// every worker stop being tried.
			jobID, err := insertJob(ctx, tx, jobs.NextOfImport(i.ID, i.State), &river.InsertOpts{MaxAttempts: max(1, int(i.TriesLeft))})
			if err != nil {
				return err
			}
			if err := q.SetImportJob(ctx, &jobID, i.ID); err != nil {
				return fmt.Errorf("note job of import: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	w.report(ctx, "imports", replaced)
	return found, nil
}

func (w *reenqueue) reclassifications(ctx context.Context) (int, error) {
	ids, err := queries.New(w.deps.pool).ListStrandedReclassifications(ctx, interval(leftAlone))
	if err != nil {
		return 0, fmt.Errorf("list stranded reclassifications: %w", err)
	}
	for _, id := range ids {
		err := w.insert(ctx, jobs.Reclassify{ID: id}, func(q *queries.Queries, jobID int64) error {
			return q.SetReclassificationJob(ctx, &jobID, id)
		})
		if err != nil {
			return 0, fmt.Errorf("re-enqueue reclassification: %w", err)
		}
	}
	w.report(ctx, "reclassifications", len(ids))
	return len(ids), nil
}

func (w *reenqueue) insert(ctx context.Context, args river.JobArgs, note func(*queries.Queries, int64) error) error {
	return w.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		jobID, err := insertJob(ctx, tx, args, nil)
		if err != nil {
			return err
		}
		return note(q, jobID)
	})
}

func (w *reenqueue) uploads(ctx context.Context) (int, error) {
	ids, err := queries.New(w.deps.pool).ListSilentUploads(ctx, interval(silentAfter), reenqueuePage)
	if err != nil {
		return 0, fmt.Errorf("list silent uploads: %w", err)
	}
	reason := "the upload broke off, send the file again"
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
	w.report(ctx, "uploads", len(ids))
	return len(ids), nil
}

func (w *reenqueue) report(ctx context.Context, what string, n int) {
	if n == 0 {
		return
	}
	w.deps.metrics.reenqueued.WithLabelValues(what).Add(float64(n))
	w.deps.log.WarnContext(ctx, "work without a process was re-enqueued or given up", slog.String("what", what), slog.Int("count", n))
}
