package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// States of an import.
const (
	stateQueued     = "queued"
	stateRunning    = "running"
	stateCompleted  = "completed"
	stateCancelling = "cancelling"
	stateCancelled  = "cancelled"
	stateFailed     = "failed"
	stateUndoing    = "undoing"
	stateUndone     = "undone"
)

// applyChunk applies one chunk of an import, exactly once (I6).
type applyChunk struct {
	river.WorkerDefaults[jobs.ApplyChunk]
	deps *deps
}

// Work implements [river.Worker].
//
// Rows that claim a key together with other rows of the file are only set
// aside here: in which order chunks run must not decide who wins. A chunk that
// is the whole file takes its rows in line order itself.
func (w *applyChunk) Work(ctx context.Context, job *river.Job[jobs.ApplyChunk]) error {
	return w.deps.giveUp(ctx, job.JobRow, job.Args.ImportID, w.describe(job.Args), w.work(ctx, job))
}

// describe says which rows a chunk has.
func (w *applyChunk) describe(args jobs.ApplyChunk) func(context.Context) string {
	return func(ctx context.Context) string {
		chunk, err := queries.New(w.deps.pool).ReadImportChunk(ctx, args.ImportID, args.Seq)
		if err != nil {
			return "a piece of the file"
		}
		return fmt.Sprintf("the %d rows from line %d on", chunk.Rows, chunk.FirstLine)
	}
}

func (w *applyChunk) work(ctx context.Context, job *river.Job[jobs.ApplyChunk]) error {
	run, err := w.deps.openImport(ctx, job.Args.ImportID)
	if err != nil || !active(run.row) {
		return err
	}
	p, err := w.read(ctx, run, job.Args.Seq)
	if err != nil || p == nil {
		return err
	}
	of, err := w.setAside(ctx, p)
	if err != nil {
		return err
	}
	return w.deps.withCare(ctx, p, func() error { return w.apply(ctx, job, p, of) })
}

// openImport reads an import. One that does not exist ends the job for good.
func (d *deps) openImport(ctx context.Context, id int64) (*importRun, error) {
	row, err := queries.New(d.pool).GetImport(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, river.JobCancel(fmt.Errorf("import %d does not exist", id))
	}
	if err != nil {
		return nil, fmt.Errorf("read import: %w", err)
	}
	run := &importRun{row: row, policy: csvimport.Policy(row.OnConflict)}
	if err := json.Unmarshal(row.Layout, &run.layout); err != nil {
		return nil, fmt.Errorf("read layout of import %d: %w", id, err)
	}
	zone, err := run.layout.Zone()
	if err != nil {
		return nil, fmt.Errorf("find the time zone %s of import %d: %w", run.layout.Timezone, id, err)
	}
	// Rules go by when the import began, so that a chunk that runs after
	// midnight is judged like the others.
	run.parser = run.layout.Parser(csvimport.Rules{
		OwnHosts: d.ownHosts, Zone: zone, Now: row.CreatedAt, KeepIDs: row.KeepIds, UserID: or(row.OwnerID, 0),
	})
	return run, nil
}

// active reports whether chunks are applied. Those of a queued import are left
// to its plan, which queues them: a job from before a retry must not start it.
// Only a file of one chunk is not planned.
func active(row queries.Import) bool {
	return row.State == stateRunning || row.State == stateQueued && row.ChunksTotal == 1
}

// read returns nil for a chunk that is done.
func (w *applyChunk) read(ctx context.Context, run *importRun, seq int32) (*part, error) {
	chunk, err := queries.New(w.deps.pool).ReadImportChunk(ctx, run.row.ID, seq)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, river.JobCancel(fmt.Errorf("import %d has no chunk %d", run.row.ID, seq))
	}
	if err != nil {
		return nil, fmt.Errorf("read chunk: %w", err)
	}
	if chunk.Data == nil {
		return nil, nil
	}
	p, err := w.deps.newPart(run)
	if err != nil {
		return nil, err
	}
	p.ordered = run.row.ChunksTotal == 1
	if n := p.read(chunk.Data, chunk.FirstLine); n != int(chunk.Rows) {
		return nil, fmt.Errorf("chunk %d of import %d has %d records and should have %d", seq, run.row.ID, n, chunk.Rows)
	}
	return p, nil
}

func (d *deps) newPart(run *importRun) (*part, error) {
	rows, err := d.newRows(run)
	if err != nil {
		return nil, err
	}
	return &part{deps: d, run: run, rows: rows, raw: map[int64]string{}}, nil
}

// setAside takes out the rows that have to wait for the end of the import, and
// returns the others.
func (w *applyChunk) setAside(ctx context.Context, p *part) ([]int, error) {
	if p.ordered {
		return all(p.rows.size()), nil
	}
	contended, err := w.contended(ctx, p)
	if err != nil {
		return nil, err
	}
	unsettled, err := w.unsettled(ctx, p)
	if err != nil {
		return nil, err
	}
	of := make([]int, 0, p.rows.size())
	for i := range p.rows.size() {
		line := p.rows.line(i)
		if contended[line] || unsettled[i] || p.rows.draws(i) {
			p.deferred = append(p.deferred, queries.InsertDeferredRowsParams{
				ImportID: p.run.row.ID, Line: line, Record: []byte(p.raw[line]),
			})
			continue
		}
		of = append(of, i)
	}
	return of, nil
}

// unsettled returns the rows that take a key which somebody in the database
// has, or that set one free by an update: another row of the file may depend on
// that, or the other way round. Only users have keys that can be updated.
func (w *applyChunk) unsettled(ctx context.Context, p *part) (map[int]bool, error) {
	if p.run.policy != csvimport.PolicyUpdate || csvimport.Kind(p.run.row.Kind) != csvimport.KindUsers {
		return nil, nil
	}
	claims, err := p.rows.claims(ctx, queries.New(w.deps.pool), all(p.rows.size()))
	if err != nil {
		return nil, err
	}
	ring, unsettled := newKeyring(p.run.policy, claims), map[int]bool{}
	for i, c := range claims {
		unsettled[i] = ring.unsettled(c)
	}
	return unsettled, nil
}

// contended returns the lines of rows that claim a key which other rows of the
// file claim too. What is contended does not change once chunks run.
func (w *applyChunk) contended(ctx context.Context, p *part) (map[int64]bool, error) {
	q := queries.New(w.deps.pool)
	some, err := q.HasContendedKeys(ctx, p.run.row.ID)
	if err != nil {
		return nil, fmt.Errorf("look for contended keys: %w", err)
	}
	if !some {
		return nil, nil
	}
	keys, lines := p.keys()
	found, err := q.FindContendedKeys(ctx, p.run.row.ID, keys)
	if err != nil {
		return nil, fmt.Errorf("look for contended keys: %w", err)
	}
	contended := map[int64]bool{}
	for _, key := range found {
		for _, line := range lines[key] {
			contended[line] = true
		}
	}
	return contended, nil
}

// keys returns the hashes of the keys that the rows claim, and the lines that
// claim each.
func (p *part) keys() (keys []int64, lines map[int64][]int64) {
	lines = map[int64][]int64{}
	var of []uint64
	for line, raw := range p.raw {
		for record := range p.run.layout.Records([]byte(raw), line) {
			of = p.run.layout.KeysOf(record, of[:0])
		}
		for _, k := range of {
			key := int64(k) //nolint:gosec // the same bits, as the table keeps them
			if lines[key] == nil {
				keys = append(keys, key)
			}
			lines[key] = append(lines[key], line)
		}
	}
	return keys, lines
}

// apply is the transaction.
func (w *applyChunk) apply(ctx context.Context, job *river.Job[jobs.ApplyChunk], p *part, of []int) error {
	id := job.Args.ImportID
	var res result
	err := w.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		res = result{}
		todo, err := w.lock(ctx, q, job.Args)
		if err != nil || !todo {
			return err
		}
		if res, err = p.apply(ctx, tx, of); err != nil {
			return err
		}
		if len(p.deferred) > 0 {
			if _, err := q.InsertDeferredRows(ctx, p.deferred); err != nil {
				return fmt.Errorf("set rows aside: %w", err)
			}
		}
		move, err := res.write(ctx, q, id)
		if err != nil {
			return err
		}
		if err := q.FinishImportChunk(ctx, id, job.Args.Seq); err != nil {
			return fmt.Errorf("finish chunk: %w", err)
		}
		if err := complete(ctx, tx, job); err != nil {
			return err
		}
		move.Chunks = 1
		return w.move(ctx, tx, q, move)
	})
	if err == nil {
		w.deps.count(p.run, res)
	}
	return err
}

// lock locks the chunk, which alone decides whether there is something to do,
// and reports whether there is. A chunk of an import that is being cancelled is
// left to the job that ends the import.
func (w *applyChunk) lock(ctx context.Context, q *queries.Queries, args jobs.ApplyChunk) (bool, error) {
	done, err := q.LockImportChunk(ctx, args.ImportID, args.Seq)
	if err != nil {
		return false, fmt.Errorf("lock chunk: %w", err)
	}
	if done {
		return false, nil
	}
	row, err := q.GetImport(ctx, args.ImportID)
	if err != nil {
		return false, fmt.Errorf("read import: %w", err)
	}
	if !active(row) || row.State == stateRunning {
		return active(row), nil
	}
	started, err := q.StartImport(ctx, args.ImportID)
	if err != nil {
		return false, fmt.Errorf("start import: %w", err)
	}
	return started == 1, nil // 0: it was cancelled since it was read
}

// move adds to the import's counters, last in the transaction since all chunks
// share that row, and lets the last chunk see to the end of the import.
func (w *applyChunk) move(ctx context.Context, tx pgx.Tx, q *queries.Queries, move queries.MoveImportParams) error {
	row, err := q.MoveImport(ctx, move)
	if err != nil {
		return fmt.Errorf("move import: %w", err)
	}
	if row.ChunksDone < row.ChunksTotal {
		return nil
	}
	jobID, err := insertJob(ctx, tx, jobs.FinishImport{ImportID: row.ID})
	if err != nil {
		return err
	}
	if err := q.SetImportJob(ctx, &jobID, row.ID); err != nil {
		return fmt.Errorf("note job of import: %w", err)
	}
	return nil
}

// withCare runs do, and once more when a partition was missing, and once more
// row by row when Postgres refused a value.
func (d *deps) withCare(ctx context.Context, p *part, do func() error) error {
	if err := p.rows.prepare(ctx); err != nil {
		return err
	}
	err := do()
	if postgres.NoPartition(err) {
		d.partitions.Forget()
		if err := p.rows.prepare(ctx); err != nil {
			return err
		}
		err = do()
	}
	if postgres.DataFault(err) && !errors.Is(err, errAgain) {
		p.careful = true
		err = do()
	}
	return err
}
