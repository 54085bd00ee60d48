package api

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/queries"
)

// errorsPiece is how many rejected rows are in memory at once; each has up to
// 64 KiB.
const errorsPiece = 100

// errorsAsCSV answers GET /imports/{id}/errors in CSV, if that is asked for: a
// file to be mended and uploaded again.
func (a *API) errorsAsCSV(c *fiber.Ctx) error {
	asked, err := wantsCSV(c)
	if err == nil && !asked {
		return c.Next()
	}
	if admitErr := a.admit(c, RoleReader); admitErr != nil {
		return admitErr
	}
	if err != nil {
		return err
	}
	row, err := a.importOfPath(c)
	if err != nil {
		return err
	}
	var layout csvimport.Layout
	if err := json.Unmarshal(row.Layout, &layout); err != nil {
		return fmt.Errorf("read layout of import: %w", err)
	}
	after := int64(0)
	return a.exportCSV(c, exportSource{
		kind: "import_errors", file: fmt.Sprintf("import-%d-errors", row.ID), piece: errorsPiece, header: layout.MendHeader(),
		next: func(ctx context.Context, limit int32) ([]exportRow, error) {
			rows, err := a.lists().ListImportErrors(ctx, queries.ListImportErrorsParams{
				ImportID: row.ID, AfterLine: after, RowLimit: limit, RecordBytes: math.MaxInt32,
			})
			if err != nil || len(rows) == 0 {
				return nil, err
			}
			after = rows[len(rows)-1].Line
			return exportRows(rows, func(r queries.ListImportErrorsRow) csvRow {
				return layout.MendRecord(csvimport.Reject{Line: r.Line, Column: r.Field, Reason: r.Reason, Raw: string(r.Record)})
			}), nil
		},
	})
}

// csvRow is a row of a file that there is as CSV only.
type csvRow []string

func (r csvRow) cells(to []string) []string { return append(to, r...) }

// exportCSV answers with a file of CSV.
func (a *API) exportCSV(c *fiber.Ctx, source exportSource) error {
	ctx, cancel := context.WithTimeout(c.UserContext(), requestTimeout)
	defer cancel()
	c.SetUserContext(ctx) // for the first piece; the others have their own time
	a.export(c, source, formatCSV, math.MaxInt64)
	return nil
}

// wantsCSV reports whether a request asks for CSV and not JSON: with format, or
// else with Accept.
func wantsCSV(c *fiber.Ctx) (bool, error) {
	c.Vary(fiber.HeaderAccept)
	switch c.Query("format") {
	case "csv":
		return true, nil
	case "json":
		return false, nil
	case "":
		return preferredFormat(c.Request().Header.Peek(fiber.HeaderAccept)) == formatCSV, nil
	}
	return false, invalid(FieldError{Field: "format", Message: "must be json or csv"})
}

// importOfPath finds the import that the path of a route names.
func (a *API) importOfPath(c *fiber.Ctx) (queries.Import, error) {
	c.Set(fiber.HeaderCacheControl, "no-store")
	id, err := idParam(c)
	if err != nil {
		return queries.Import{}, err
	}
	ctx, cancel := context.WithTimeout(c.UserContext(), requestTimeout)
	defer cancel()
	return a.findImport(ctx, id)
}

// importResult answers with what became of each row of an import, in file order.
func (a *API) importResult(c *fiber.Ctx) error {
	row, err := a.importOfPath(c)
	if err != nil {
		return err
	}
	after := int64(0)
	return a.exportCSV(c, exportSource{
		kind: "import_results", file: fmt.Sprintf("import-%d-result", row.ID),
		header: []string{"line", "outcome", "id", "short_url", "field", "reason"},
		next: func(ctx context.Context, limit int32) ([]exportRow, error) {
			rows, err := listResults(ctx, a.lists(), row, after, limit)
			if err != nil || len(rows) == 0 {
				return nil, err
			}
			after = rows[len(rows)-1].Line
			return exportRows(rows, a.viewResult), nil
		},
	})
}

func listResults(ctx context.Context, q *queries.Queries, row queries.Import, after int64, limit int32) ([]queries.ListURLResultsRow, error) {
	switch csvimport.Kind(row.Kind) {
	case csvimport.KindUsers:
		rows, err := q.ListUserResults(ctx, &row.ID, after, limit)
		return resultRows(rows), err
	case csvimport.KindLinks:
		return q.ListURLResults(ctx, &row.ID, after, limit)
	default:
		rows, err := q.ListEventResults(ctx, &row.ID, after, limit)
		return resultRows(rows), err
	}
}

func resultRows[R queries.ListUserResultsRow | queries.ListEventResultsRow](rows []R) []queries.ListURLResultsRow {
	same := make([]queries.ListURLResultsRow, len(rows))
	for i, r := range rows {
		same[i] = queries.ListURLResultsRow(r)
	}
	return same
}

func (a *API) viewResult(r queries.ListURLResultsRow) csvRow {
	cells := csvRow{strconv.FormatInt(r.Line, 10), r.Outcome, "", "", csvimport.Neutralize(r.Field), csvimport.Neutralize(r.Reason)}
	if r.RowID != 0 {
		cells[2] = strconv.FormatInt(r.RowID, 10)
	}
	if r.ShortCode != "" {
		cells[3] = a.shortURL(r.ShortCode)
	}
	return cells
}
