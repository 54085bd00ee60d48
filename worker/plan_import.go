package worker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/queries"
)

const (
	// planMemory bounds the keys that are held at once to find those that occur
	// twice, in bytes. Larger imports are read several times.
	planMemory  = 16 << 20
	bytesPerRow = 3 * 8  // a row claims three keys at most
	keysAtOnce  = 64     // chunks whose keys are read together
	insertKeys  = 10_000 // contended keys a statement
	insertJobs  = 1000   // jobs a statement
	// planTurn is how long one run goes on before it gives its place to other
	// jobs. It must leave a walk time within jobTimeout.
	planTurn = jobTimeout / 2
)

// planImport finds the keys that more than one row of an upload claims, and
// queues a job for each of its chunks.
type planImport struct {
	river.WorkerDefaults[jobs.PlanImport]
	deps   *deps
	memory int           // usually planMemory
	turn   time.Duration // usually planTurn
}

// Work implements [river.Worker].
//
// The keys of a large file take several walks. Each is a transaction of its
// own, so that no row is locked meanwhile, and that neither the time of a job
// nor the death of a worker costs more than one walk.
func (w *planImport) Work(ctx context.Context, job *river.Job[jobs.PlanImport]) error {
	what := func(context.Context) string { return "the file" }
	return w.deps.giveUp(ctx, job.JobRow, job.Args.ImportID, what, w.work(ctx, job))
}

func (w *planImport) work(ctx context.Context, job *river.Job[jobs.PlanImport]) error {
	run, err := w.deps.openImport(ctx, job.Args.ImportID)
	if err != nil || run.row.State != stateQueued {
		return err
	}
	if err := w.findContended(ctx, run.row); err != nil {
		return err
	}
	return w.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		locked, err := q.LockImport(ctx, run.row.ID)
		if err != nil {
			return fmt.Errorf("lock import: %w", err)
		}
		if locked.State != stateQueued {
			return complete(ctx, tx, job)
		}
		if err := queueChunks(ctx, tx, q, run.row.ID); err != nil {
			return err
		}
		if _, err := q.StartImport(ctx, run.row.ID); err != nil {
			return fmt.Errorf("start import: %w", err)
		}
		return complete(ctx, tx, job)
	})
}

// findContended notes the keys that more than one row claims. Noting one again
// does no harm.
func (w *planImport) findContended(ctx context.Context, row queries.Import) error {
	start := time.Now()
	q := queries.New(w.deps.pool)
	lists := func(yield func([]uint64) error) error { return walkKeys(ctx, q, row.ID, yield) }
	from := uint64(row.PlannedTo)                                  //nolint:gosec // the same bits
	memory := int(min(int64(w.memory), row.RowsTotal*bytesPerRow)) // a small file needs little
	for found, err := range csvimport.Contended(lists, from, memory) {
		if err != nil {
			return fmt.Errorf("find contended keys: %w", err)
		}
		if err := w.note(ctx, row.ID, found); err != nil {
			return err
		}
		if found.Next != 0 && time.Since(start) > w.turn {
			return river.JobSnooze(giveWay)
		}
	}
	return nil
}

// note stores the contended keys of a range, unless the import was cancelled
// meanwhile: nobody would remove them again.
func (w *planImport) note(ctx context.Context, importID int64, found csvimport.ContendedKeys) error {
	return w.deps.inTx(ctx, func(_ pgx.Tx, q *queries.Queries) error {
		queued, err := q.NoteImportPlan(ctx, int64(found.Next), importID) //nolint:gosec // the same bits
		if err != nil {
			return fmt.Errorf("note plan of import: %w", err)
		}
		if queued == 0 {
			return nil
		}
		for part := range slices.Chunk(found.Keys, insertKeys) {
			keys := make([]int64, len(part))
			for i, k := range part {
				keys[i] = int64(k) //nolint:gosec // the same bits
			}
			if err := q.InsertContendedKeys(ctx, importID, keys); err != nil {
				return fmt.Errorf("note contended keys: %w", err)
			}
		}
		return nil
	})
}

func walkKeys(ctx context.Context, q *queries.Queries, importID int64, yield func([]uint64) error) error {
	var keys []uint64
	for after := int32(-1); ; {
		chunks, err := q.ListImportChunkKeys(ctx, importID, after, keysAtOnce)
		if err != nil {
			return fmt.Errorf("read keys of chunks: %w", err)
		}
		if len(chunks) == 0 {
			return nil
		}
		for _, c := range chunks {
			if keys, err = csvimport.DecodeKeys(keys[:0], c.Keys); err != nil {
				return err
			}
			if err := yield(keys); err != nil {
				return err
			}
			after = c.Seq
		}
	}
}

func queueChunks(ctx context.Context, tx pgx.Tx, q *queries.Queries, importID int64) error {
	seqs, err := q.ListImportChunkSeqs(ctx, importID)
	if err != nil {
		return fmt.Errorf("list chunks: %w", err)
	}
	client := river.ClientFromContext[pgx.Tx](ctx)
	for part := range slices.Chunk(seqs, insertJobs) {
		params := make([]river.InsertManyParams, len(part))
		for i, seq := range part {
			params[i].Args = jobs.ApplyChunk{ImportID: importID, Seq: seq}
		}
		inserted, err := client.InsertManyTx(ctx, tx, params)
		if err != nil {
			return fmt.Errorf("insert jobs of chunks: %w", err)
		}
		ids := make([]int64, len(inserted))
		for i := range inserted {
			ids[i] = inserted[i].Job.ID
		}
		if err := q.SetImportChunkJobs(ctx, importID, part, ids); err != nil {
			return fmt.Errorf("note jobs of chunks: %w", err)
		}
	}
	return nil
}
