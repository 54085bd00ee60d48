package api

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

var errUploadFailed = conflict("the file did not arrive, send it again")

// retryImport has a failed import go on where it stopped. An import whose job was
// discarded or cancelled gets a new job at once; without this, workers would give it
// one after some minutes.
func (a *API) retryImport(ctx context.Context, in *IDInput) (*importOutput, error) {
	return a.changeImport(ctx, in.ID, func(tx pgx.Tx, q *queries.Queries, row queries.Import) (queries.Import, error) {
		switch row.State {
		case stateFailed:
			return a.reopenImport(ctx, tx, q, row)
		case stateQueued, stateRunning, stateCancelling, stateUndoing:
			return row, a.replaceImportJob(ctx, tx, q, row)
		}
		return row, conflict("there is nothing to retry, the import is " + row.State)
	})
}

// changeImport runs change in a transaction that locks the import, if the actor of ctx
// may change it.
func (a *API) changeImport(ctx context.Context, id int64, change func(pgx.Tx, *queries.Queries, queries.Import) (queries.Import, error)) (*importOutput, error) {
	row, err := a.findImport(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := mayImport(ctx, csvimport.Kind(row.Kind)); err != nil {
		return nil, err
	}
	err = postgres.InTx(ctx, a.Pool, func(tx pgx.Tx) error {
		q := queries.New(tx)
		if row, err = q.LockImport(ctx, id); err != nil {
			return err
		}
		row, err = change(tx, q, row)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &importOutput{viewImport(row)}, nil
}

func (a *API) reopenImport(ctx context.Context, tx pgx.Tx, q *queries.Queries, row queries.Import) (queries.Import, error) {
	reopened, err := q.ReopenImport(ctx, row.ID)
	if errors.Is(err, pgx.ErrNoRows) {
		return row, errUploadFailed
	}
	if err != nil {
		return row, err
	}
	return reopened, a.insertImportJob(ctx, tx, row.ID, jobs.NextOfImport(row.ID, reopened.State))
}

func (a *API) replaceImportJob(ctx context.Context, tx pgx.Tx, q *queries.Queries, row queries.Import) error {
	gone, err := q.ImportWaitsForNobody(ctx, row.ID)
	if err != nil {
		return err
	}
	if !gone {
		return conflict("nothing of the import has failed, it is " + row.State)
	}
	return a.insertImportJob(ctx, tx, row.ID, jobs.NextOfImport(row.ID, row.State))
}

// undoImport has workers remove the rows that an import created. Another request while
// they do has no effect. Another request after that has them check the kept rows again,
// and look for events that were in the archive before.
func (a *API) undoImport(ctx context.Context, in *IDInput) (*importOutput, error) {
	return a.changeImport(ctx, in.ID, func(tx pgx.Tx, q *queries.Queries, row queries.Import) (queries.Import, error) {
		switch {
		case row.State == stateUndoing:
			return row, nil
		case row.DryRun:
			return row, conflict("there is nothing to undo, the import was a dry run")
		}
		undoing, err := q.RequestImportUndo(ctx, row.ID)
		if errors.Is(err, pgx.ErrNoRows) {
			return row, conflict("there is nothing to undo, the import is " + row.State)
		}
		if err != nil {
			return row, err
		}
		return undoing, a.insertImportJob(ctx, tx, row.ID, jobs.UndoImport{ImportID: row.ID})
	})
}

// KeptRow is a row that is left of an import: it was kept by the undo, or it existed
// before the import, which updated it.
type KeptRow struct {
	Line     int64          `json:"line" example:"336" doc:"Line of the file."`
	ID       int64          `json:"id" example:"42" doc:"Id of the user or link."`
	ShortURL *string        `json:"short_url" example:"https://sign.example/spring" doc:"Of a link that is still there."`
	Reason   string         `json:"reason" enum:"changed,clicked,owns_links,updated" doc:"Somebody changed it since; it was clicked; the user owns links; it was there before the import, which updated it."`
	Before   map[string]any `json:"before" nullable:"true" doc:"What the import replaced, by field; null for a row that it created."`
}

// listKept lists the rows that are left of an import, in file order.
func (a *API) listKept(ctx context.Context, in *importErrorsInput) (*listOutput[KeptRow], error) {
	at, err := in.position("import_kept", 0)
	if err != nil {
		return nil, err
	}
	row, err := a.findImport(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	rows, err := a.lists().ListImportKept(ctx, queries.ListImportKeptParams{
		ImportID: in.ID, AfterLine: at[0], OfUrls: csvimport.Kind(row.Kind) == csvimport.KindLinks,
		RowOffset: int32(in.offset()), RowLimit: in.rows(),
	})
	if err != nil {
		return nil, err
	}
	return newList(&in.PageInput, rows, a.viewKept, func(r queries.ListImportKeptRow) string {
		return makeCursor("import_kept", r.Line)
	})
}

func (a *API) viewKept(r queries.ListImportKeptRow) KeptRow {
	kept := KeptRow{Line: r.Line, ID: r.RowID, Reason: r.Reason}
	if r.ShortCode != nil {
		url := a.service.ShortURL(r.Host, *r.ShortCode)
		kept.ShortURL = &url
	}
	if r.Before != nil {
		_ = json.Unmarshal(r.Before, &kept.Before) // an object that a worker made
	}
	return kept
}

// cancelImport asks an import to stop. The import is cancelling until the current chunk
// is done, and rows that were applied stay. Another request has no effect.
func (a *API) cancelImport(ctx context.Context, in *IDInput) (*importOutput, error) {
	return a.changeImport(ctx, in.ID, func(tx pgx.Tx, q *queries.Queries, row queries.Import) (queries.Import, error) {
		if row.State == stateCancelling {
			return row, nil
		}
		cancelling, err := q.RequestImportCancel(ctx, row.ID)
		if errors.Is(err, pgx.ErrNoRows) {
			return row, conflict("the import has ended already, it is " + row.State)
		}
		if err != nil {
			return row, err
		}
		return cancelling, a.insertImportJob(ctx, tx, row.ID, jobs.FinishImport{ImportID: row.ID})
	})
}

// insertImportJob inserts the next job of an import and stores its number in the
// import, so that workers notice when the job is gone.
func (a *API) insertImportJob(ctx context.Context, tx pgx.Tx, id int64, args river.JobArgs) error {
	job, err := a.River.InsertTx(ctx, tx, args, nil)
	if err != nil {
		return fmt.Errorf("insert %s job: %w", args.Kind(), err)
	}
	if err := queries.New(tx).SetImportJob(ctx, &job.Job.ID, id); err != nil {
		return fmt.Errorf("note job of import: %w", err)
	}
	return nil
}

// mayImport returns an error if the actor of ctx may not import files of kind, and so
// not stop such an import either. Editors may only import links.
func mayImport(ctx context.Context, kind csvimport.Kind) error {
	actor, _ := actorFrom(ctx)
	if actor.Role == RoleAdmin || actor.Role == RoleEditor && kind == csvimport.KindLinks {
		return nil
	}
	return forbidden(fmt.Sprintf("imports of %s need a token of the role %s, yours is %s", kind, RoleAdmin, actor.Role))
}
