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
	deferredRows = 1000   // rows of one batch, and transaction, at the end
	dropRows     = 50_000 // rows of one statement that removes
	// finishFor is how long one run goes on before it gives its place to other
	// jobs. It must leave a batch time within jobTimeout.
	finishFor = jobTimeout / 2
	// giveWay is for how long it does: the jobs of chunks, which come after it,
	// get a turn then, also where one job runs at a time.
	giveWay = time.Second
)

// finishImport applies the rows that had to wait, in line order, and ends the
// import. It also ends one that is being cancelled.
type finishImport struct {
	river.WorkerDefaults[jobs.FinishImport]
	deps *deps
}

// Work implements [river.Worker].
func (w *finishImport) Work(ctx context.Context, job *river.Job[jobs.FinishImport]) error {
	what := func(context.Context) string { return "the rows that share a key with others of the file" }
	return w.deps.giveUp(ctx, job.JobRow, job.Args.ImportID, what, w.work(ctx, job))
}

func (w *finishImport) work(ctx context.Context, job *river.Job[jobs.FinishImport]) error {
	for start := time.Now(); ; {
		run, err := w.deps.openImport(ctx, job.Args.ImportID)
		if err != nil {
			return err
		}
		switch {
		case run.row.State == stateCancelling:
			if err := w.deps.drop(ctx, queries.New(w.deps.pool).DropImportWork, run.row.ID, start); err != nil {
				return err
			}
			return w.cancel(ctx, job, run)
		case run.row.State != stateRunning || run.row.ChunksDone < run.row.ChunksTotal:
			return nil
		}
		more, err := w.applyDeferred(ctx, run)
		if err != nil {
			return err
		}
		if !more {
			if err := w.deps.drop(ctx, queries.New(w.deps.pool).DropImportWork, run.row.ID, start); err != nil {
				return err
			}
			return w.end(ctx, job, run)
		}
		if time.Since(start) > finishFor {
			return river.JobSnooze(giveWay)
		}
	}
}

// applyDeferred applies the next batch of rows that waited, and reports whether
// there was one.
func (w *finishImport) applyDeferred(ctx context.Context, run *importRun) (more bool, err error) {
	waiting, err := queries.New(w.deps.pool).ListDeferredRows(ctx, run.row.ID, deferredRows)
	if err != nil {
		return false, fmt.Errorf("list rows that waited: %w", err)
	}
	if len(waiting) == 0 {
		return false, nil
	}
	p, err := w.deps.newPart(run)
	if err != nil {
		return false, err
	}
	p.ordered, p.remembers = true, run.row.DryRun
	for _, row := range waiting {
		if n := p.read(row.Record, row.Line); n != 1 {
			return false, fmt.Errorf("line %d of import %d holds %d records and should hold one", row.Line, run.row.ID, n)
		}
	}
	last := waiting[len(waiting)-1].Line
	return true, w.deps.withCare(ctx, p, func() error { return w.applyBatch(ctx, p, len(waiting), last) })
}

// applyBatch is the transaction. The locked import keeps a second run of this
// job out; what that one did shows in the rows that are gone.
func (w *finishImport) applyBatch(ctx context.Context, p *part, rows int, last int64) error {
	var res result
	err := w.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		res = result{}
		locked, err := q.LockImport(ctx, p.run.row.ID)
		if err != nil {
			return fmt.Errorf("lock import: %w", err)
		}
		if locked.State != stateRunning {
			return nil
		}
		removed, err := q.DeleteDeferredRows(ctx, p.run.row.ID, last)
		if err != nil {
			return fmt.Errorf("take rows that waited: %w", err)
		}
		if removed != int64(rows) {
			return errOvertaken
		}
		if res, err = p.apply(ctx, tx, all(p.rows.size())); err != nil {
			return err
		}
		move, err := res.write(ctx, q, p.run.row.ID)
		if err != nil {
			return err
		}
		if _, err := q.MoveImport(ctx, move); err != nil {
			return fmt.Errorf("move import: %w", err)
		}
		return nil
	})
	if errors.Is(err, errOvertaken) {
		return nil
	}
	if err == nil {
		w.deps.count(p.run, res)
	}
	return err
}

// errOvertaken rolls back a batch that another run of the job applied already.
var errOvertaken = errors.New("another run applied these rows")

// end completes an import whose rows are all accounted for: a constraint of the
// table refuses it otherwise.
func (w *finishImport) end(ctx context.Context, job *river.Job[jobs.FinishImport], run *importRun) error {
	ended := false
	err := w.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		locked, err := q.LockImport(ctx, run.row.ID)
		if err != nil {
			return fmt.Errorf("lock import: %w", err)
		}
		ended = locked.State == stateRunning
		if !ended {
			return nil // cancelled since: this run, or that of the cancellation, sees to it
		}
		return w.close(ctx, tx, q, job, stateCompleted)
	})
	if err == nil && ended {
		w.account(ctx, run, stateCompleted)
	}
	return err
}

// cancel ends an import that was asked to stop. Chunks are locked before the
// import, like in a chunk's own transaction: those that run are waited for, and
// the others never will. An import whose last row was done meanwhile is completed.
func (w *finishImport) cancel(ctx context.Context, job *river.Job[jobs.FinishImport], run *importRun) error {
	ended, state := false, stateCancelled
	err := w.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		if err := q.StopImportChunks(ctx, run.row.ID); err != nil {
			return fmt.Errorf("stop chunks: %w", err)
		}
		locked, err := q.LockImport(ctx, run.row.ID)
		if err != nil {
			return fmt.Errorf("lock import: %w", err)
		}
		ended = locked.State == stateCancelling
		if !ended {
			return complete(ctx, tx, job)
		}
		state = stateCancelled
		if locked.RowsTotal > 0 && locked.RowsImported+locked.RowsUpdated+locked.RowsSkipped+locked.RowsRejected == locked.RowsTotal {
			state = stateCompleted
		}
		return w.close(ctx, tx, q, job, state)
	})
	if err == nil && ended {
		w.account(ctx, run, state)
	}
	return err
}

func (w *finishImport) close(ctx context.Context, tx pgx.Tx, q *queries.Queries, job *river.Job[jobs.FinishImport], state string) error {
	if _, err := drop(ctx, q.DropImportWork, job.Args.ImportID, time.Time{}); err != nil {
		return err
	}
	if _, err := q.FinishImport(ctx, state, job.Args.ImportID); err != nil {
		return fmt.Errorf("finish import: %w", err)
	}
	return complete(ctx, tx, job)
}

// dropper removes up to so many rows of what an import has, and answers how many.
type dropper func(ctx context.Context, importID int64, rows int32) (int64, error)

// drop removes what an import that is ending no longer needs, before the
// transaction that ends it: of a large file that is tens of millions of rows.
// That transaction removes what chunks that still ran have added since.
func (d *deps) drop(ctx context.Context, remove dropper, importID int64, start time.Time) error {
	done, err := drop(ctx, remove, importID, start.Add(finishFor))
	if err == nil && !done {
		err = river.JobSnooze(giveWay)
	}
	return err
}

// drop goes on until all is removed, or until a moment, if there is one.
func drop(ctx context.Context, remove dropper, importID int64, until time.Time) (done bool, err error) {
	for until.IsZero() || time.Now().Before(until) {
		removed, err := remove(ctx, importID, dropRows)
		if err != nil {
			return false, fmt.Errorf("drop what an import no longer needs: %w", err)
		}
		if removed == 0 {
			return true, nil
		}
	}
	return false, nil
}

func (w *finishImport) account(ctx context.Context, run *importRun, state string) {
	w.deps.metrics.importsFinished.WithLabelValues(run.row.Kind, state).Inc()
	w.deps.log.InfoContext(ctx, "import ended", "import_id", run.row.ID, "kind", run.row.Kind, "state", state)
}
