package api

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

var errUploadFailed = conflict("the file did not arrive, send it again")

// retryImport takes up an import that failed where it was left, and gives one whose
// job was discarded or cancelled a new job at once. Workers would see to the latter
// after some minutes.
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

// changeImport runs change in a transaction that holds the import, if the actor
// of ctx may.
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
