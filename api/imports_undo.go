package api

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/queries"
)

// undoImport has workers take back what an import created. Asking again while
// they do changes nothing; asking again after that has them look once more at
// what they kept, and for events that were in the archive then.
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

// KeptRow is a row that is left of an import: one that its undo kept, or one
// that was there before the import, which updated it.
type KeptRow struct {
	Line     int64          `json:"line" example:"336" doc:"Line of the file."`
	ID       int64          `json:"id" example:"42" doc:"Id of the user or link."`
	ShortURL *string        `json:"short_url" example:"https://sign.example/spring" doc:"Of a link that is still there."`
	Reason   string         `json:"reason" enum:"changed,clicked,owns_links,updated" doc:"Somebody changed it since; it was clicked; the user owns links; it was there before the import, which updated it."`
	Before   map[string]any `json:"before" nullable:"true" doc:"What the import replaced, by field; null for a row that it created."`
}

// listKept lists what is left of an import in file order.
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
		url := a.shortURL(*r.ShortCode)
		kept.ShortURL = &url
	}
	if r.Before != nil {
		_ = json.Unmarshal(r.Before, &kept.Before) // an object, which a worker made
	}
	return kept
}
