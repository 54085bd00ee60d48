package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// MayImport returns an error if the actor may not import files of a kind, and so not
// stop such an import either. Editors may only import links.
func (*Service) MayImport(actor Actor, kind csvimport.Kind) error {
	least := ImportsAll
	if kind == csvimport.KindLinks {
		least = ImportsLinks
	}
	if actor.Role < least {
		return Forbidden(fmt.Sprintf("imports of %s need a token of the role %s, yours is %s", kind, least, actor.Role))
	}
	return nil
}

// importChange is the change of one import, in the transaction that has locked it.
type importChange struct {
	tx  pgx.Tx
	q   *queries.Queries
	row queries.Import
}

// changeImport runs change in a transaction that locks the import, if the actor may
// change it.
func (s *Service) changeImport(ctx context.Context, actor Actor, id int64, change func(*importChange) error) (Import, error) {
	if err := actor.Require(ImportsLinks); err != nil {
		return Import{}, err
	}
	row, err := s.findImport(ctx, actor, id)
	if err != nil {
		return Import{}, err
	}
	if err := s.MayImport(actor, csvimport.Kind(row.Kind)); err != nil {
		return Import{}, err
	}
	err = postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		q := queries.New(tx)
		locked, err := q.LockImport(ctx, id)
		if err != nil {
			return err
		}
		c := &importChange{tx, q, locked}
		err = change(c)
		row = c.row
		return err
	})
	if err != nil {
		return Import{}, err
	}
	return viewImport(row), nil
}

// CancelImport asks an import to stop. The import is cancelling until the current chunk
// is done, and rows that were applied stay. Another request has no effect.
func (s *Service) CancelImport(ctx context.Context, actor Actor, id int64) (Import, error) {
	return s.changeImport(ctx, actor, id, func(c *importChange) error {
		if c.row.State == jobs.ImportCancelling {
			return nil
		}
		cancelling, err := c.q.RequestImportCancel(ctx, id)
		if errors.Is(err, pgx.ErrNoRows) {
			return Conflict("the import has ended already, it is " + c.row.State)
		}
		if err != nil {
			return err
		}
		c.row = cancelling
		return s.insertImportJob(ctx, c.tx, id, jobs.FinishImport{ImportID: id})
	})
}

// RetryImport has a failed import go on where it stopped. An import whose job was
// discarded or cancelled gets a new job at once; without this, workers would give it
// one after some minutes.
func (s *Service) RetryImport(ctx context.Context, actor Actor, id int64) (Import, error) {
	return s.changeImport(ctx, actor, id, func(c *importChange) error {
		switch c.row.State {
		case jobs.ImportFailed:
			reopened, err := c.q.ReopenImport(ctx, id)
			if errors.Is(err, pgx.ErrNoRows) {
				return Conflict("the file did not arrive, send it again")
			}
			if err != nil {
				return err
			}
			c.row = reopened
		case jobs.ImportQueued, jobs.ImportRunning, jobs.ImportCancelling, jobs.ImportUndoing:
			gone, err := c.q.ImportWaitsForNobody(ctx, id)
			if err != nil {
				return err
			}
			if !gone {
				return Conflict("nothing of the import has failed, it is " + c.row.State)
			}
		default:
			return Conflict("there is nothing to retry, the import is " + c.row.State)
		}
		return s.insertImportJob(ctx, c.tx, id, jobs.NextOfImport(id, c.row.State))
	})
}

// UndoImport has workers remove the rows that an import created. Another request while
// they do has no effect. Another request after that has them check the kept rows again,
// and look for events that were in the archive before.
func (s *Service) UndoImport(ctx context.Context, actor Actor, id int64) (Import, error) {
	return s.changeImport(ctx, actor, id, func(c *importChange) error {
		switch {
		case c.row.State == jobs.ImportUndoing:
			return nil
		case c.row.DryRun:
			return Conflict("there is nothing to undo, the import was a dry run")
		}
		undoing, err := c.q.RequestImportUndo(ctx, id)
		if errors.Is(err, pgx.ErrNoRows) {
			return Conflict("there is nothing to undo, the import is " + c.row.State)
		}
		if err != nil {
			return err
		}
		c.row = undoing
		return s.insertImportJob(ctx, c.tx, id, jobs.UndoImport{ImportID: id})
	})
}

// insertImportJob inserts the next job of an import and stores its number in the
// import, so that workers notice when the job is gone.
func (s *Service) insertImportJob(ctx context.Context, tx pgx.Tx, id int64, args river.JobArgs) error {
	job, err := s.River.InsertTx(ctx, tx, args, nil)
	if err != nil {
		return fmt.Errorf("insert %s job: %w", args.Kind(), err)
	}
	if err := queries.New(tx).SetImportJob(ctx, &job.Job.ID, id); err != nil {
		return fmt.Errorf("note job of import: %w", err)
	}
	return nil
}
