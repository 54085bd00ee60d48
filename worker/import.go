package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

const (
	// importTurn is how long one job applies chunks. It then queues the next job of its
	// import, which runs after those of other imports.
	importTurn = 5 * time.Second
	dropRows   = 50_000 // rows of one statement that removes

	giveUpTimeout = 5 * time.Second
)

// importArgs are the arguments of the jobs that apply an import.
type importArgs interface {
	jobs.PlanImport | jobs.ApplyChunk | jobs.FinishImport
	river.JobArgs
	Import() int64
}

// importJob goes on with an import: it applies the remaining chunks strictly in file
// order, and ends the import.
//
// An import has one job at a time, which imports.job_id names. A job of another
// number was replaced, or comes from the release before, and does nothing; one that
// is replaced while it runs stops after its chunk. Two runs may still be under way
// at once, after a worker was taken for dead: the locked row of each chunk decides
// which run applies it (I6).
type importJob[T importArgs] struct {
	river.WorkerDefaults[T]
	deps *deps
}

// Work implements [river.Worker].
func (w *importJob[T]) Work(ctx context.Context, job *river.Job[T]) error {
	row, err := w.deps.findImport(ctx, job.Args.Import())
	if err != nil {
		return err
	}
	run := &importRun{deps: w.deps, row: row, policy: csvimport.Policy(row.OnConflict), jobID: job.ID, at: theFile}
	if run.replaced(row) {
		return nil
	}
	run.turnEnds = time.Now().Add(w.deps.importTurn)
	run.complete = func(ctx context.Context, tx pgx.Tx) error { return complete(ctx, tx, job) }
	return run.giveUp(ctx, job.JobRow, run.work(ctx))
}

// importRun is one job's work on an import.
type importRun struct {
	deps   *deps
	row    queries.Import // as it was when the job began
	layout csvimport.Layout
	parser *csvimport.Parser
	policy csvimport.Policy

	jobID    int64
	turnEnds time.Time
	complete func(context.Context, pgx.Tx) error
	at       string // the lines of the rows that are being applied, for error messages
}

// theFile stands for all rows in the reason why an import failed.
const theFile = "the file"

// findImport reads an import. If the import does not exist, the job ends for good.
func (d *deps) findImport(ctx context.Context, id int64) (queries.Import, error) {
	row, err := queries.New(d.pool).GetImport(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return row, river.JobCancel(fmt.Errorf("import %d does not exist", id))
	}
	if err != nil {
		return row, fmt.Errorf("read import: %w", err)
	}
	return row, nil
}

// open prepares the parser of the import's rows.
func (run *importRun) open(ctx context.Context) error {
	row := run.row
	if err := json.Unmarshal(row.Layout, &run.layout); err != nil {
		return fmt.Errorf("read layout of import %d: %w", row.ID, err)
	}
	zone, err := run.layout.Zone()
	if err != nil {
		return fmt.Errorf("find the time zone %s of import %d: %w", run.layout.Timezone, row.ID, err)
	}
	domain, err := run.deps.domains(ctx)
	if err != nil {
		return err
	}
	// The rules take the time at which the import began, so that they are the same for
	// all chunks, even for those that are applied after midnight.
	run.parser = run.layout.Parser(csvimport.Rules{
		Domain: domain, OwnHosts: run.deps.ownHosts.WithDomains(func(host string) bool {
			id, ok := domain(host)
			return ok && id != linkcache.MainDomain
		}),
		Zone: zone, Now: row.CreatedAt, KeepIDs: row.KeepIds, UserID: or(row.OwnerID, 0),
	})
	return nil
}

// domains reads all domains and returns a function that finds one by its host, in any
// spelling.
func (d *deps) domains(ctx context.Context) (func(host string) (id int64, ok bool), error) {
	rows, err := queries.New(d.pool).ListHosts(ctx)
	if err != nil {
		return nil, fmt.Errorf("read domains: %w", err)
	}
	byHost := make(map[string]int64, len(rows))
	for _, row := range rows {
		byHost[row.Host] = row.ID
	}
	return func(host string) (int64, bool) {
		clean, err := links.CleanHost(host, d.ownHosts)
		if errors.Is(err, links.ErrHostOwn) {
			return linkcache.MainDomain, true
		}
		id, ok := byHost[clean]
		return id, ok
	}, nil
}

// replaced reports whether the import has another job than this by now.
func (run *importRun) replaced(row queries.Import) bool { return or(row.JobID, 0) != run.jobID }

// work applies chunks, unless the import is cancelled: to end it, its chunks need
// not be readable. An import that is queued starts in a transaction of its own, since
// to cancel it must not wait for its first chunk.
func (run *importRun) work(ctx context.Context) error {
	switch run.row.State {
	case jobs.ImportCancelling:
		return run.end(ctx)
	case jobs.ImportQueued:
		if err := queries.New(run.deps.pool).StartImport(ctx, run.row.ID); err != nil {
			return fmt.Errorf("start import: %w", err)
		}
	}
	if err := run.open(ctx); err != nil {
		return err
	}
	return run.goOn(ctx)
}

// goOn applies the chunks that are left until the turn ends, each in a
// transaction, while the next one is read and parsed. After the last it ends the
// import.
func (run *importRun) goOn(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	next := run.prefetch(ctx)
	for {
		run.at = theFile
		p := <-next
		switch {
		case p.err != nil:
			return p.err
		case p.chunk == nil:
			return run.end(ctx)
		}
		run.at = fmt.Sprintf("the %d rows from line %d on", p.chunk.records, p.chunk.firstLine)
		what, err := run.applyChunk(ctx, p.chunk)
		switch {
		case err != nil || what == stopped:
			return err
		case what == notRunning:
			run.at = theFile
			return run.end(ctx)
		}
	}
}

// parsed is the next chunk, nil after the last one, or the error that kept it from
// being read.
type parsed struct {
	chunk *chunk
	err   error
}

// prefetch reads and parses one chunk ahead until ctx ends. The first chunk that is nil
// is the last value on the channel.
func (run *importRun) prefetch(ctx context.Context) <-chan parsed {
	next := make(chan parsed)
	go func() {
		for after := int32(-1); ; {
			c, err := run.readChunkSafely(ctx, after)
			select {
			case next <- parsed{c, err}:
			case <-ctx.Done():
				return
			}
			if err != nil || c == nil {
				return
			}
			after = c.seq
		}
	}()
	return next
}

// readChunkSafely is readChunk, and makes an error of a panic: River does so only in
// the goroutine of the job, and elsewhere a panic would end the process.
func (run *importRun) readChunkSafely(ctx context.Context, after int32) (c *chunk, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("read chunk: panic: %v\n%s", r, debug.Stack())
		}
	}()
	return run.readChunk(ctx, after)
}

// readChunk reads and parses the first chunk after a number that is to be applied,
// and does what must be committed before that. It returns nil if there is none.
func (run *importRun) readChunk(ctx context.Context, after int32) (*chunk, error) {
	row, err := queries.New(run.deps.pool).ReadNextImportChunk(ctx, run.row.ID, after)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read chunk: %w", err)
	}
	c, err := run.parse(row)
	if err != nil {
		return nil, err
	}
	return c, c.rows.prepare(ctx)
}

// Results of applyChunk.
const (
	applied    = iota // the chunk is done, by this run or another
	stopped           // the chunk is done, and another job goes on with the import
	notRunning        // the import is not to be applied any more
)

// applyChunk applies one chunk in a transaction. It repeats the transaction if a
// partition was missing, and goes row by row if Postgres refused a value.
func (run *importRun) applyChunk(ctx context.Context, c *chunk) (what int, err error) {
	try := func() error {
		what, err = run.tryChunk(ctx, c)
		return err
	}
	err = try()
	if postgres.NoPartition(err) {
		run.deps.partitions.Forget()
		if err := c.rows.prepare(ctx); err != nil {
			return what, err
		}
		err = try()
	}
	if postgres.DataFault(err) && !errors.Is(err, errAgain) {
		c.careful = true
		err = try()
	}
	return what, err
}

// tryChunk applies one chunk in one transaction. Every run starts on a chunk only after
// it saw that the one before is done. So the run that locks a chunk applies it in file
// order.
func (run *importRun) tryChunk(ctx context.Context, c *chunk) (what int, err error) {
	id, over := run.row.ID, time.Now().After(run.turnEnds)
	var rep report
	err = run.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		what, rep = applied, report{}
		done, err := q.LockImportChunk(ctx, id, c.seq)
		if err != nil {
			return fmt.Errorf("lock chunk: %w", err)
		}
		row, err := q.GetImport(ctx, id)
		if err != nil {
			return fmt.Errorf("read import: %w", err)
		}
		if row.State != jobs.ImportRunning {
			what = notRunning
			return nil
		}
		if !done {
			if rep, err = c.apply(ctx, tx); err != nil {
				return err
			}
			if err := rep.write(ctx, q, id); err != nil {
				return err
			}
			if err := q.FinishImportChunk(ctx, id, c.seq); err != nil {
				return fmt.Errorf("finish chunk: %w", err)
			}
			if !row.DryRun {
				if err := c.rows.count(ctx, q, rep.inserted); err != nil {
					return err
				}
			}
		}
		replaced := run.replaced(row)
		if !over && !replaced {
			return nil
		}
		what = stopped
		return run.stop(ctx, tx, q, replaced, c.seq+1)
	})
	if err == nil {
		run.deps.count(run, rep)
	}
	return what, err
}

// stop completes the job of the run and queues the next job of the import, unless the
// import has another already. If it was given another one since it was read, that stays,
// and the next one will do nothing.
func (run *importRun) stop(ctx context.Context, tx pgx.Tx, q *queries.Queries, replaced bool, seq int32) error {
	if !replaced {
		next, err := insertJob(ctx, tx, jobs.ApplyChunk{ImportID: run.row.ID, Seq: seq}, nil)
		if err != nil {
			return err
		}
		if err := q.ReplaceImportJob(ctx, &next, run.row.ID, &run.jobID); err != nil {
			return fmt.Errorf("note job of import: %w", err)
		}
	}
	return run.complete(ctx, tx)
}

// end ends an import that has no chunk left to apply, or that is being cancelled. If
// every row is accounted for, the import is completed, even if somebody cancelled it at
// the last moment.
func (run *importRun) end(ctx context.Context) error {
	q := queries.New(run.deps.pool)
	row, err := q.GetImport(ctx, run.row.ID)
	if err != nil {
		return fmt.Errorf("read import: %w", err)
	}
	if run.replaced(row) || row.State != jobs.ImportRunning && row.State != jobs.ImportCancelling {
		return nil // another job ends it, or it ended, or failed and waits to be retried
	}
	// The previous release kept some rows aside until all chunks were done. Each of
	// them becomes a chunk of its own after the others.
	waited, err := q.RequeueDeferredRows(ctx, row.ID)
	if err != nil {
		return fmt.Errorf("take up rows that were set aside: %w", err)
	}
	if waited > 0 {
		return river.JobSnooze(0)
	}
	if err := drop(ctx, q.DropImportWork, row.ID, run.turnEnds); err != nil {
		return err
	}
	state := ""
	err = run.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		state = ""
		// Chunks are locked before the import, in the same order as when they are
		// applied, so this waits for a chunk that is being applied.
		if row.State == jobs.ImportCancelling {
			if err := q.StopImportChunks(ctx, row.ID); err != nil {
				return fmt.Errorf("stop chunks: %w", err)
			}
		}
		locked, err := q.LockImport(ctx, row.ID)
		if err != nil {
			return fmt.Errorf("lock import: %w", err)
		}
		switch {
		case locked.State != row.State:
			return nil // another run ended it, or it was cancelled: the cancellation has a job of its own
		case row.RowsTotal > 0 && rowsDone(locked) == row.RowsTotal:
			state = jobs.ImportCompleted
		case row.State == jobs.ImportCancelling:
			state = jobs.ImportCancelled
		default:
			return fmt.Errorf("%d of %d rows are accounted for and no chunk is left", rowsDone(locked), row.RowsTotal)
		}
		if err := drop(ctx, q.DropImportWork, row.ID, time.Time{}); err != nil {
			return err
		}
		if _, err := q.FinishImport(ctx, state, row.ID); err != nil {
			return fmt.Errorf("finish import: %w", err)
		}
		return run.complete(ctx, tx)
	})
	if err == nil && state != "" {
		run.deps.metrics.importsFinished.WithLabelValues(run.row.Kind, state).Inc()
		run.deps.log.InfoContext(ctx, "import ended", slog.Int64("import_id", run.row.ID),
			slog.String("kind", run.row.Kind), slog.String("state", state))
	}
	return err
}

func rowsDone(row queries.Import) int64 {
	return row.RowsImported + row.RowsUpdated + row.RowsSkipped + row.RowsRejected
}

// dropper removes up to the given number of rows from one table of an import, and
// returns how many it removed.
type dropper func(ctx context.Context, importID int64, rows int32) (int64, error)

// drop removes rows that an import which is about to end no longer needs, until none are
// left. It is called before the transaction that ends the import, because a large dry
// run has millions of such rows, and snoozes the job if its turn ends first; and in that
// transaction, with a zero time, for the rest. It removes at least one piece.
func drop(ctx context.Context, remove dropper, importID int64, turnEnds time.Time) error {
	for {
		removed, err := remove(ctx, importID, dropRows)
		switch {
		case err != nil:
			return fmt.Errorf("drop what an import no longer needs: %w", err)
		case removed == 0:
			return nil
		case !turnEnds.IsZero() && time.Now().After(turnEnds):
			return river.JobSnooze(0)
		}
	}
}

// giveUp returns err, the error of the job. After the job's last try, the import ends
// as failed, with the reason, and waits for an operator: without that, its users would
// wait while the same error happens again and again. If Postgres itself is in trouble,
// the import does not fail, because that trouble passes; the import gets a new job
// then.
func (run *importRun) giveUp(ctx context.Context, job *rivertype.JobRow, err error) error {
	if err == nil || job.Attempt < job.MaxAttempts || !final(ctx, err) {
		return err
	}
	reason := run.at + " could not be applied"
	if code := postgres.Code(err); code != "" {
		reason += " (the database says " + code + ")"
	}
	return run.fail(ctx, reason, err)
}

// fail ends the import as failed for the given reason. It returns err.
func (run *importRun) fail(ctx context.Context, reason string, err error) error {
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpTimeout)
	defer cancel()
	failed, failErr := queries.New(run.deps.pool).FailImportWork(own, &reason, run.row.ID, &run.jobID)
	if failErr != nil {
		return errors.Join(err, fmt.Errorf("fail import: %w", failErr))
	}
	if failed == 1 {
		run.deps.log.ErrorContext(ctx, "import failed", slog.Int64("import_id", run.row.ID),
			slog.String("reason", reason), slog.Any("error", err))
		run.deps.metrics.importsFinished.WithLabelValues(run.row.Kind, jobs.ImportFailed).Inc()
	}
	return err
}

// final reports whether the next try would give the same err. It would not if the job
// is only put off, the worker stops, or Postgres is in trouble. A job that ran out of
// time is assumed to do so again.
func final(ctx context.Context, err error) bool {
	var snooze *river.JobSnoozeError
	var cancel *river.JobCancelError
	switch {
	case errors.As(err, &snooze), errors.As(err, &cancel), errors.Is(err, context.Canceled):
		return false
	case postgres.Unavailable(err):
		return errors.Is(ctx.Err(), context.DeadlineExceeded)
	}
	return true
}
