package api

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/queries"
)

const (
	// A piece of a download is read at once, and so is in memory. Rejected rows
	// have at most 64 KiB each.
	errorsPiece  = 100
	resultsPiece = 2000
)

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
	t := newTable(layout.MendHeader(), func(ctx context.Context, q *queries.Queries, t *table) (bool, error) {
		rows, err := q.ListImportErrors(ctx, queries.ListImportErrorsParams{
			ImportID: row.ID, AfterLine: t.line, RowLimit: errorsPiece,
		})
		for _, r := range rows {
			t.line = r.Line
			t.write(layout.MendRecord(csvimport.Reject{
				Line: r.Line, Column: r.Field, Reason: r.Reason, Raw: string(r.Record),
			}))
		}
		return len(rows) == errorsPiece, err
	})
	a.download(c, fmt.Sprintf("import-%d-errors.csv", row.ID), t)
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
		return c.Accepts("application/json", "text/csv") == "text/csv", nil
	}
	return false, invalid(FieldError{"format", "must be json or csv"})
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
	header := []string{"line", "outcome", "id", "short_url", "field", "reason"}
	t := newTable(header, func(ctx context.Context, q *queries.Queries, t *table) (bool, error) {
		rows, err := listResults(ctx, q, row, t.line)
		for _, r := range rows {
			t.line = r.Line
			t.write(a.resultRecord(r))
		}
		return len(rows) == resultsPiece, err
	})
	a.download(c, fmt.Sprintf("import-%d-result.csv", row.ID), t)
	return nil
}

func listResults(ctx context.Context, q *queries.Queries, row queries.Import, after int64) ([]queries.ListURLResultsRow, error) {
	switch csvimport.Kind(row.Kind) {
	case csvimport.KindUsers:
		rows, err := q.ListUserResults(ctx, &row.ID, after, resultsPiece)
		return resultRows(rows), err
	case csvimport.KindLinks:
		return q.ListURLResults(ctx, &row.ID, after, resultsPiece)
	default:
		rows, err := q.ListEventResults(ctx, &row.ID, after, resultsPiece)
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

func (a *API) resultRecord(r queries.ListURLResultsRow) []string {
	cells := []string{strconv.FormatInt(r.Line, 10), r.Outcome, "", "", csvimport.Neutralize(r.Field), csvimport.Neutralize(r.Reason)}
	if r.RowID != 0 {
		cells[2] = strconv.FormatInt(r.RowID, 10)
	}
	if r.ShortCode != "" {
		cells[3] = a.shortURL(r.ShortCode)
	}
	return cells
}

// table is a CSV file that is read from the database piece by piece.
type table struct {
	// read writes the next rows, those after line, and reports whether there may
	// be more.
	read func(ctx context.Context, q *queries.Queries, t *table) (more bool, err error)
	line int64
	more bool
	sent bool // a piece, which is what buf holds
	buf  bytes.Buffer
	out  *csv.Writer
}

func newTable(header []string, read func(context.Context, *queries.Queries, *table) (bool, error)) *table {
	t := &table{read: read, more: true}
	t.out = csv.NewWriter(&t.buf)
	t.write(header)
	return t
}

func (t *table) write(cells []string) {
	_ = t.out.Write(cells) // a buffer takes all
}

// next returns the next piece of the file.
func (t *table) next(q *queries.Queries) ([]byte, error) {
	if !t.more {
		return nil, io.EOF
	}
	if t.sent {
		t.buf.Reset()
	}
	t.sent = true
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	var err error
	if t.more, err = t.read(ctx, q, t); err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	t.out.Flush()
	return t.buf.Bytes(), nil
}

// download answers c with a file.
func (a *API) download(c *fiber.Ctx, name string, t *table) {
	c.Set(fiber.HeaderContentType, "text/csv; charset=utf-8")
	c.Set(fiber.HeaderContentDisposition, fmt.Sprintf(`attachment; filename="%s"`, name))
	q := a.lists()
	a.stream(c, func() ([]byte, error) { return t.next(q) }, nil)
}
