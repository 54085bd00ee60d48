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

// ImportProblem is the fault that several rejected rows of a file have in common, or a
// notice about several rows that were imported.
type ImportProblem struct {
	Outcome string  `json:"outcome" enum:"rejected,imported" doc:"What became of the rows."`
	Column  string  `json:"column" example:"user_id" doc:"The column at fault; empty if it is the row or the file as a whole."`
	Kind    string  `json:"kind" example:"missing" doc:"Why, in a word that stays the same; more words may come."`
	Reason  string  `json:"reason" example:"is not the id of a user" doc:"Why, in the words of the first of the rows."`
	Rows    int64   `json:"rows" example:"4000"`
	Line    int64   `json:"line" example:"2" doc:"Line of the first of the rows."`
	Cure    *string `json:"cure" example:"import the users first" doc:"What would have the rows accepted; null if they have to be mended one by one."`
}

func viewProblems(row queries.ShowImportRow) []ImportProblem {
	var layout csvimport.Layout
	var counted []struct {
		Outcome, Field, Reason string
		Kind                   csvimport.ProblemKind
		Rows, Line             int64
	}
	var encoded [][]byte
	_ = json.Unmarshal(row.Import.Layout, &layout) // we wrote it; the rest is worth showing anyway
	_ = json.Unmarshal(row.Problems, &counted)
	_ = json.Unmarshal(row.Unreadable, &encoded)
	groups := make([]csvimport.Problem, len(counted))
	for i, c := range counted {
		groups[i] = csvimport.Problem{Outcome: c.Outcome, Column: c.Field, Kind: c.Kind, Reason: c.Reason, Rows: c.Rows, Line: c.Line}
	}
	unreadable := make([]string, len(encoded))
	for i, record := range encoded {
		unreadable[i] = string(record)
	}
	problems := []ImportProblem{}
	for _, p := range layout.Problems(groups, unreadable, csvimport.Policy(row.Import.OnConflict)) {
		view := ImportProblem{Outcome: p.Outcome, Column: p.Column, Kind: string(p.Kind), Reason: p.Reason, Rows: p.Rows, Line: p.Line}
		if p.Cure != "" {
			view.Cure = &p.Cure
		}
		problems = append(problems, view)
	}
	return problems
}

// ImportNotice is a remark on a row that was imported.
type ImportNotice struct {
	Line   int64  `json:"line" example:"5" doc:"Line of the file that the row begins on."`
	Field  string `json:"field" example:"short_code" doc:"The column that it is about."`
	Kind   string `json:"kind" example:"reserved" doc:"What, in a word that stays the same; more words may come."`
	Notice string `json:"notice" example:"is a reserved word, so the link answers under /r/app"`
}

// listNotices lists the notices of imported rows in file order.
func (a *API) listNotices(ctx context.Context, in *importErrorsInput) (*listOutput[ImportNotice], error) {
	at, err := in.position("import_notices", 0)
	if err != nil {
		return nil, err
	}
	if _, err := a.findImport(ctx, in.ID); err != nil {
		return nil, err
	}
	rows, err := a.lists().ListImportNotices(ctx, queries.ListImportNoticesParams{
		ImportID: in.ID, AfterLine: at[0], RowOffset: int32(in.offset()), RowLimit: in.rows(),
	})
	if err != nil {
		return nil, err
	}
	view := func(row queries.ListImportNoticesRow) ImportNotice {
		return ImportNotice{row.Line, row.Field, row.Kind, row.Reason}
	}
	return newList(&in.PageInput, rows, view, func(row queries.ListImportNoticesRow) string {
		return makeCursor("import_notices", row.Line)
	})
}

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

// csvRow is a row of a file that exists only as CSV.
type csvRow []string

func (r csvRow) cells(to []string) []string { return append(to, r...) }

// exportCSV answers with a file of CSV.
func (a *API) exportCSV(c *fiber.Ctx, source exportSource) error {
	ctx, cancel := context.WithTimeout(c.UserContext(), requestTimeout)
	defer cancel()
	c.SetUserContext(ctx) // for the first piece; the others have their own time limit
	a.export(c, source, formatCSV, math.MaxInt64)
	return nil
}

// wantsCSV reports whether a request asks for CSV instead of JSON: with the parameter
// format, or else with Accept.
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

// importOfPath returns the import whose id is in the path of a request.
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

// importResult answers with the outcome of each row of an import, in file order.
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
		cells[3] = a.service.ShortURL(given(r.Host), r.ShortCode)
	}
	return cells
}
