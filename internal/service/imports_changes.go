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
	"github.com/signpost/signpost/internal/rollup"
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

var errUndoDryRun = Conflict("there is nothing to undo, the import was a dry run")

// UndoImport has workers remove the rows that an import created. Another request while
// they do has no effect. Another request after that has them check the kept rows again,
// and look for events that were in the archive before.
func (s *Service) UndoImport(ctx context.Context, actor Actor, id int64) (Import, error) {
	return s.changeImport(ctx, actor, id, func(c *importChange) error {
		switch {
		case c.row.State == jobs.ImportUndoing:
			return nil
		case c.row.DryRun:
			return errUndoDryRun
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

// UndoPreview says what an undo of an import would do now.
type UndoPreview struct {
	Rows      int64 `json:"rows" doc:"How many of the rows that the import created and that are still there were looked at: the first 20,000 of them at most."`
	More      bool  `json:"more" doc:"Whether there are more rows than those."`
	Removed   int64 `json:"rows_removed" doc:"Of the rows that were looked at, those that would be removed."`
	Changed   int64 `json:"changed" doc:"Rows that would be kept because somebody has changed them."`
	Clicked   int64 `json:"clicked" doc:"Links that would be kept because they were clicked."`
	OwnsLinks int64 `json:"owns_links" doc:"Users that would be kept because they own links."`
	Updated   int64 `json:"rows_updated" doc:"Rows that the import has updated, which an undo leaves as they are."`
}

// undoPreviewRows bounds the rows that a preview of an undo looks at.
const undoPreviewRows = 20_000

// PreviewUndo says what an undo of an import would do now.
func (s *Service) PreviewUndo(ctx context.Context, actor Actor, id int64) (p UndoPreview, err error) {
	row, err := s.findImport(ctx, actor, id)
	if err != nil {
		return p, err
	}
	if view := viewImport(row); !view.MayUndo() {
		if row.DryRun {
			return p, errUndoDryRun
		}
		return p, Conflict("there is nothing to undo, the import is " + row.State)
	}
	p.Updated = row.RowsUpdated
	q := s.lists()
	inUse := &p.Clicked
	var made []queries.ListImportedURLsRow
	var find func([]int64) ([]int64, error)
	switch csvimport.Kind(row.Kind) {
	case csvimport.KindUsers:
		users, err := q.ListImportedUsers(ctx, id, undoPreviewRows+1)
		if err != nil {
			return p, err
		}
		made = views(users, func(u queries.ListImportedUsersRow) queries.ListImportedURLsRow {
			return queries.ListImportedURLsRow(u)
		})
		inUse, find = &p.OwnsLinks, func(ids []int64) ([]int64, error) { return q.FindUsersWithURLs(ctx, ids) }
	case csvimport.KindLinks:
		if made, err = q.ListImportedURLs(ctx, id, undoPreviewRows+1); err != nil {
			return p, err
		}
		find = func(ids []int64) ([]int64, error) { return rollup.FindClicked(ctx, q, ids) }
	default:
		p.Rows, err = q.CountImportedEvents(ctx, id, undoPreviewRows+1)
		p.More, p.Rows = p.Rows > undoPreviewRows, min(p.Rows, undoPreviewRows)
		p.Removed = p.Rows
		return p, err
	}
	p.More, made = len(made) > undoPreviewRows, made[:min(len(made), undoPreviewRows)]
	p.Rows = int64(len(made))
	var untouched []int64
	for _, r := range made {
		if !r.Touched {
			untouched = append(untouched, r.ID)
		}
	}
	used, err := find(untouched)
	p.Changed, *inUse = p.Rows-int64(len(untouched)), int64(len(used))
	p.Removed = p.Rows - p.Changed - *inUse
	return p, err
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
