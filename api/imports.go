package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/queries"
)

// States of an import that this package checks.
const (
	stateQueued     = "queued"
	stateRunning    = "running"
	stateCompleted  = "completed"
	stateFailed     = "failed"
	stateCancelling = "cancelling"
	stateCancelled  = "cancelled"
	stateUndoing    = "undoing"
	stateUndone     = "undone"
)

// Import is a file that is being imported or was. Each row is counted once by its
// outcome: when the import is completed, rows_total is the sum of the other counts.
type Import struct {
	ID             int64      `json:"id" example:"7"`
	Kind           string     `json:"kind" enum:"users,urls,events"`
	State          string     `json:"state" enum:"receiving,queued,running,completed,failed,cancelling,cancelled,undoing,undone"`
	Format         string     `json:"format" example:"signpost" doc:"The format that the header told, or the query."`
	Encoding       *string    `json:"encoding" example:"utf-8" doc:"The encoding that the file was read in; null if an earlier release received it."`
	Escape         string     `json:"escape" enum:"none,backslash" doc:"What makes a quote within quotes a character, beside another quote: nothing, or a backslash. The beginning of the file told, or the query."`
	Timezone       string     `json:"timezone" example:"UTC" doc:"The time zone of times that name none."`
	OnConflict     string     `json:"on_conflict" enum:"reject,skip,update" doc:"What becomes of rows whose keys are taken."`
	DryRun         bool       `json:"dry_run" doc:"Whether this only says what an import of the file would do."`
	IgnoredColumns []string   `json:"ignored_columns" nullable:"false" doc:"The first 50 columns of the file that are not read."`
	IgnoredTotal   int        `json:"ignored_columns_total" doc:"How many columns of the file are not read."`
	Filename       *string    `json:"filename"`
	Error          *string    `json:"error" doc:"Why it failed."`
	RowsTotal      int64      `json:"rows_total" doc:"Rows of the file; 0 until all of it has arrived."`
	RowsImported   int64      `json:"rows_imported"`
	RowsUpdated    int64      `json:"rows_updated"`
	RowsSkipped    int64      `json:"rows_skipped"`
	RowsRejected   int64      `json:"rows_rejected"`
	RowsRemoved    int64      `json:"rows_removed" doc:"Of the imported rows, those that an undo took back."`
	RowsKept       int64      `json:"rows_kept" doc:"Of the imported rows, those that an undo left, see /imports/{id}/kept."`
	RowsPerSecond  *float64   `json:"rows_per_second" doc:"Since it started; null before that."`
	ChunksTotal    int32      `json:"chunks_total"`
	ChunksDone     int32      `json:"chunks_done"`
	BytesReceived  int64      `json:"bytes_received"`
	CreatedBy      string     `json:"created_by" doc:"Name of the token that sent it."`
	CreatedAt      time.Time  `json:"created_at"`
	StartedAt      *time.Time `json:"started_at"`
	ExpectedAt     *time.Time `json:"expected_finished_at" doc:"When it will be done at this rate; null if that is unknown."`
	FinishedAt     *time.Time `json:"finished_at"`
	UndoneAt       *time.Time `json:"undone_at"`
}

// ImportDetail is an import with its problems and its first rejected rows.
type ImportDetail struct {
	Import
	Problems    []ImportProblem `json:"problems" nullable:"false" maxItems:"20" doc:"Why rows were rejected and what is to be known of imported ones, grouped: an encoding that is not that of the file, then the most frequent reasons, then notices. Empty for an import that ended before these were counted."`
	FirstErrors []ImportError   `json:"first_errors" nullable:"false" doc:"The first ten rejected rows, each cut at 500 bytes; all are at /imports/{id}/errors."`
}

func viewImport(row queries.Import) Import {
	var layout csvimport.Layout
	_ = json.Unmarshal(row.Layout, &layout) // we wrote it; the rest is worth showing anyway
	ignored, total := layout.IgnoredColumns()
	now := time.Now()
	return Import{
		ID: row.ID, Kind: row.Kind, State: row.State, Format: layout.Format,
		Encoding: orNull(layout.Encoding), Escape: cmp.Or(layout.Escape, csvimport.EscapeNone), Timezone: cmp.Or(layout.Timezone, "UTC"),
		OnConflict: row.OnConflict, DryRun: row.DryRun, IgnoredColumns: ignored, IgnoredTotal: total,
		Filename: row.Filename, Error: row.Error,
		RowsTotal: row.RowsTotal, RowsImported: row.RowsImported, RowsUpdated: row.RowsUpdated,
		RowsSkipped: row.RowsSkipped, RowsRejected: row.RowsRejected,
		RowsRemoved: row.RowsRemoved, RowsKept: row.RowsKept, RowsPerSecond: importRate(row, now),
		ChunksTotal: row.ChunksTotal, ChunksDone: row.ChunksDone, BytesReceived: row.BytesReceived,
		CreatedBy: row.ActorName, CreatedAt: row.CreatedAt.UTC(), StartedAt: utc(row.StartedAt),
		ExpectedAt: importEnd(row, now), FinishedAt: utc(row.FinishedAt), UndoneAt: utc(row.UndoneAt),
	}
}

func viewImportDetail(row queries.ShowImportRow) ImportDetail {
	detail := ImportDetail{Import: viewImport(row.Import), Problems: viewProblems(row), FirstErrors: []ImportError{}}
	var errs []struct {
		Line          int64
		Field, Reason string
		Record        []byte
		Cut           bool
	}
	_ = json.Unmarshal(row.FirstErrors, &errs) // our own query made it
	for _, e := range errs {
		detail.FirstErrors = append(detail.FirstErrors, viewImportError(queries.ListImportErrorsRow(e)))
	}
	return detail
}

// orNull returns nil for an unknown encoding.
func orNull(encoding csvimport.Encoding) *string {
	if encoding == "" {
		return nil
	}
	text := string(encoding)
	return &text
}

// rowsDone returns how many rows of an import are accounted for.
func rowsDone(row queries.Import) int64 {
	return row.RowsImported + row.RowsUpdated + row.RowsSkipped + row.RowsRejected
}

// importRate returns the rows per second, nil if it is too early to say.
func importRate(row queries.Import, now time.Time) *float64 {
	if row.StartedAt == nil {
		return nil
	}
	if row.FinishedAt != nil {
		now = *row.FinishedAt
	}
	elapsed := now.Sub(*row.StartedAt).Seconds()
	if elapsed <= 0 {
		return nil
	}
	rate := math.Round(float64(rowsDone(row))/elapsed*10) / 10
	return &rate
}

// importEnd estimates when a running import will be done if it goes on at the same
// speed, nil if it cannot be estimated.
func importEnd(row queries.Import, now time.Time) *time.Time {
	done, left := rowsDone(row), row.RowsTotal-rowsDone(row)
	if row.State != stateRunning || row.StartedAt == nil || done == 0 {
		return nil
	}
	// The numbers are floats, because files have any size, and after a slow start the
	// end seems far away.
	seconds := now.Sub(*row.StartedAt).Seconds() * float64(left) / float64(done)
	if seconds < 0 || seconds > maxExpected.Seconds() {
		return nil
	}
	end := now.Add(time.Duration(seconds * float64(time.Second))).UTC().Truncate(time.Second)
	return &end
}

// maxExpected is how far ahead the end of an import may be estimated. Beyond that, it
// counts as unknown.
const maxExpected = 30 * 24 * time.Hour

// ImportError is a row of a file that was not imported.
type ImportError struct {
	Line   int64  `json:"line" example:"336" doc:"Line of the file that the row begins on; the header is line 1."`
	Field  string `json:"field" example:"username" doc:"The column at fault; empty if it is the row as a whole."`
	Reason string `json:"reason" example:"is taken by an earlier row or by an existing one"`
	Record string `json:"record" doc:"The row as it is in the file, its first 500 bytes; the list as text/csv has all of it."`
	Cut    bool   `json:"record_cut" doc:"Whether the row is longer than record."`
}

// maxRecordShown is how many bytes of a rejected row are shown in JSON, where each byte
// may become six. The query ShowImport has the same number.
const maxRecordShown = 500

func viewImportError(row queries.ListImportErrorsRow) ImportError {
	return ImportError{row.Line, row.Field, row.Reason, strings.ToValidUTF8(string(row.Record), "\uFFFD"), row.Cut}
}

type importOutput struct{ Body Import }

// listImports lists imports, newest first.
func (a *API) listImports(ctx context.Context, in *PageInput) (*listOutput[Import], error) {
	at, err := in.position("imports", math.MaxInt64)
	if err != nil {
		return nil, err
	}
	rows, err := a.lists().ListImports(ctx, at[0], int32(in.offset()), in.rows())
	if err != nil {
		return nil, err
	}
	view := func(row queries.ListImportsRow) Import { return viewImport(queries.Import(row)) }
	return newList(in, rows, view, func(row queries.ListImportsRow) string { return makeCursor("imports", row.ID) })
}

type importDetailOutput struct{ Body ImportDetail }

func (a *API) getImport(ctx context.Context, in *IDInput) (*importDetailOutput, error) {
	row, err := a.showImport(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &importDetailOutput{viewImportDetail(row)}, nil
}

func (a *API) showImport(ctx context.Context, id int64) (queries.ShowImportRow, error) {
	row, err := queries.New(a.Pool).ShowImport(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		err = notFound("import")
	}
	return row, err
}

func (a *API) findImport(ctx context.Context, id int64) (queries.Import, error) {
	row, err := queries.New(a.Pool).GetImport(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		err = notFound("import")
	}
	return row, err
}

type importErrorsInput struct {
	IDInput
	PageInput
}

// listImportErrors lists the rejected rows of an import in file order.
func (a *API) listImportErrors(ctx context.Context, in *importErrorsInput) (*listOutput[ImportError], error) {
	at, err := in.position("import_errors", 0)
	if err != nil {
		return nil, err
	}
	if _, err := a.findImport(ctx, in.ID); err != nil {
		return nil, err
	}
	rows, err := a.lists().ListImportErrors(ctx, queries.ListImportErrorsParams{
		ImportID: in.ID, AfterLine: at[0], RowOffset: int32(in.offset()), RowLimit: in.rows(), RecordBytes: maxRecordShown,
	})
	if err != nil {
		return nil, err
	}
	return newList(&in.PageInput, rows, viewImportError, func(row queries.ListImportErrorsRow) string {
		return makeCursor("import_errors", row.Line)
	})
}
