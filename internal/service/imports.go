package service

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/queries"
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

// Path is the path of the import in the API.
func (i Import) Path() string { return "/imports/" + strconv.FormatInt(i.ID, 10) }

// RowsDone is how many rows are accounted for.
func (i Import) RowsDone() int64 {
	return i.RowsImported + i.RowsUpdated + i.RowsSkipped + i.RowsRejected
}

// Rests reports whether the import has come to an end, so that only an operator can
// make it go on.
func (i Import) Rests() bool {
	switch i.State {
	case jobs.ImportCompleted, jobs.ImportFailed, jobs.ImportCancelled, jobs.ImportUndone:
		return true
	}
	return false
}

// MayUndo reports whether an undo of the import would find anything to take back.
func (i Import) MayUndo() bool {
	switch i.State {
	case jobs.ImportCompleted, jobs.ImportCancelled, jobs.ImportFailed:
		return !i.DryRun
	case jobs.ImportUndone:
		return i.RowsKept > 0 || i.Kind == string(csvimport.KindEvents) && i.RowsRemoved < i.RowsImported
	}
	return false
}

// ImportDetail is an import with its problems and its first rejected rows.
type ImportDetail struct {
	Import
	Columns     []ImportColumn  `json:"columns" nullable:"false" maxItems:"50" doc:"The first columns of the file."`
	Mapping     []string        `json:"mapping" nullable:"false" example:"Goes to:original_url" doc:"The mapping that the request named."`
	UserID      *int64          `json:"user_id" doc:"Who owns the links of rows that name nobody, as the request said."`
	Domain      string          `json:"domain" doc:"The domain of links whose row names none, as the request said; empty for the main one."`
	Problems    []ImportProblem `json:"problems" nullable:"false" maxItems:"20" doc:"Why rows were rejected and what is to be known of imported ones, grouped: an encoding that is not that of the file, then the most frequent reasons, then notices. Empty for an import that ended before these were counted."`
	FirstErrors []ImportError   `json:"first_errors" nullable:"false" doc:"The first ten rejected rows, each cut at 500 bytes; all are at /imports/{id}/errors."`
}

// ImportColumn is a column of a file.
type ImportColumn struct {
	Name   string `json:"name" example:"Goes to" doc:"Its name in the file; empty if it has none."`
	ReadAs string `json:"read_as" example:"original_url" doc:"What it stands for; empty if it is not read."`
}

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

// ImportError is a row of a file that was not imported.
type ImportError struct {
	Line   int64  `json:"line" example:"336" doc:"Line of the file that the row begins on; the header is line 1."`
	Field  string `json:"field" example:"username" doc:"The column at fault; empty if it is the row as a whole."`
	Reason string `json:"reason" example:"is taken by an earlier row or by an existing one"`
	Record string `json:"record" doc:"The row as it is in the file, its first 500 bytes; the list as text/csv has all of it."`
	Cut    bool   `json:"record_cut" doc:"Whether the row is longer than record."`
}

// ImportNotice is a remark on a row that was imported.
type ImportNotice struct {
	Line   int64  `json:"line" example:"5" doc:"Line of the file that the row begins on."`
	Field  string `json:"field" example:"short_code" doc:"The column that it is about."`
	Kind   string `json:"kind" example:"reserved" doc:"What, in a word that stays the same; more words may come."`
	Notice string `json:"notice" example:"is a reserved word, so the link answers under /r/app"`
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

func viewImport(row queries.Import) Import {
	layout := layoutOf(row)
	ignored, total := layout.IgnoredColumns()
	i := Import{
		ID: row.ID, Kind: row.Kind, State: row.State, Format: layout.Format,
		Escape: cmp.Or(layout.Escape, csvimport.EscapeNone), Timezone: cmp.Or(layout.Timezone, "UTC"),
		OnConflict: row.OnConflict, DryRun: row.DryRun, IgnoredColumns: ignored, IgnoredTotal: total,
		Filename: row.Filename, Error: row.Error,
		RowsTotal: row.RowsTotal, RowsImported: row.RowsImported, RowsUpdated: row.RowsUpdated,
		RowsSkipped: row.RowsSkipped, RowsRejected: row.RowsRejected,
		RowsRemoved: row.RowsRemoved, RowsKept: row.RowsKept,
		ChunksTotal: row.ChunksTotal, ChunksDone: row.ChunksDone, BytesReceived: row.BytesReceived,
		CreatedBy: row.ActorName, CreatedAt: row.CreatedAt.UTC(), StartedAt: utc(row.StartedAt),
		FinishedAt: utc(row.FinishedAt), UndoneAt: utc(row.UndoneAt),
	}
	if layout.Encoding != "" {
		encoding := string(layout.Encoding)
		i.Encoding = &encoding
	}
	now := time.Now()
	i.RowsPerSecond, i.ExpectedAt = i.rate(now), i.end(now)
	return i
}

// layoutOf returns the layout of the file of an import. If it cannot be read, which
// never happens, the rest of the import is worth showing anyway.
func layoutOf(row queries.Import) (layout csvimport.Layout) {
	_ = json.Unmarshal(row.Layout, &layout)
	return layout
}

// rate returns the rows per second, nil if it is too early to say.
func (i Import) rate(now time.Time) *float64 {
	if i.StartedAt == nil {
		return nil
	}
	if i.FinishedAt != nil {
		now = *i.FinishedAt
	}
	elapsed := now.Sub(*i.StartedAt).Seconds()
	if elapsed <= 0 {
		return nil
	}
	rate := math.Round(float64(i.RowsDone())/elapsed*10) / 10
	return &rate
}

// maxExpected is how far ahead the end of an import may be estimated. Beyond that, it
// counts as unknown.
const maxExpected = 30 * 24 * time.Hour

// end estimates when a running import will be done if it goes on at the same speed, nil
// if it cannot be estimated.
func (i Import) end(now time.Time) *time.Time {
	done := i.RowsDone()
	if i.State != jobs.ImportRunning || i.StartedAt == nil || done == 0 {
		return nil
	}
	// The numbers are floats, because files have any size, and after a slow start the
	// end seems far away.
	seconds := now.Sub(*i.StartedAt).Seconds() * float64(i.RowsTotal-done) / float64(done)
	if seconds < 0 || seconds > maxExpected.Seconds() {
		return nil
	}
	end := now.Add(time.Duration(seconds * float64(time.Second))).UTC().Truncate(time.Second)
	return &end
}

// ListImports returns a page of the imports, newest first: those with an id below the
// position of the page.
func (s *Service) ListImports(ctx context.Context, actor Actor, p Page) ([]Import, error) {
	if err := actor.Require(ReadsImports); err != nil {
		return nil, err
	}
	before := cmp.Or(p.After, math.MaxInt64)
	rows, err := s.lists().ListImports(ctx, before, p.Offset, p.Limit)
	return views(rows, func(row queries.ListImportsRow) Import { return viewImport(queries.Import(row)) }), err
}

var errNoImport = NotFound("import")

// GetImport returns an import.
func (s *Service) GetImport(ctx context.Context, actor Actor, id int64) (ImportDetail, error) {
	if err := actor.Require(ReadsImports); err != nil {
		return ImportDetail{}, err
	}
	row, err := queries.New(s.Pool).ShowImport(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return ImportDetail{}, errNoImport
	}
	if err != nil {
		return ImportDetail{}, err
	}
	detail := ImportDetail{Import: viewImport(row.Import), UserID: row.Import.OwnerID, FirstErrors: []ImportError{}}
	layout := layoutOf(row.Import)
	detail.Columns, detail.Mapping, detail.Domain = viewColumns(layout), viewMapping(layout), layout.Domain
	if detail.Problems, err = viewProblems(row); err != nil {
		return ImportDetail{}, err
	}
	var first []queries.ListImportErrorsRow
	if err := json.Unmarshal(row.FirstErrors, &first); err != nil {
		return ImportDetail{}, fmt.Errorf("read first errors of import: %w", err)
	}
	detail.FirstErrors = views(first, viewImportError)
	return detail, nil
}

func viewProblems(row queries.ShowImportRow) ([]ImportProblem, error) {
	var counted []struct {
		Outcome, Field, Reason string
		Kind                   csvimport.ProblemKind
		Rows, Line             int64
	}
	var encoded [][]byte
	if err := errors.Join(json.Unmarshal(row.Problems, &counted), json.Unmarshal(row.Unreadable, &encoded)); err != nil {
		return nil, fmt.Errorf("read problems of import: %w", err)
	}
	groups := make([]csvimport.Problem, len(counted))
	for i, c := range counted {
		groups[i] = csvimport.Problem{Outcome: c.Outcome, Column: c.Field, Kind: c.Kind, Reason: c.Reason, Rows: c.Rows, Line: c.Line}
	}
	unreadable := views(encoded, func(record []byte) string { return string(record) })
	problems := layoutOf(row.Import).Problems(groups, unreadable, csvimport.Policy(row.Import.OnConflict))
	return views(problems, viewProblem), nil
}

func viewProblem(p csvimport.Problem) ImportProblem {
	view := ImportProblem{Outcome: p.Outcome, Column: p.Column, Kind: string(p.Kind), Reason: p.Reason, Rows: p.Rows, Line: p.Line}
	if p.Cure != "" {
		view.Cure = &p.Cure
	}
	return view
}

func viewColumns(layout csvimport.Layout) []ImportColumn {
	names, readAs := layout.PreviewColumns()
	columns := make([]ImportColumn, len(names))
	for i := range names {
		columns[i] = ImportColumn{names[i], readAs[i]}
	}
	return columns
}

// viewMapping returns a mapping as requests name it.
func viewMapping(layout csvimport.Layout) []string {
	mapping := []string{}
	for _, name := range slices.Sorted(maps.Keys(layout.Mapping)) {
		mapping = append(mapping, name+":"+layout.Mapping[name])
	}
	return mapping
}

// maxRecordShown is how many bytes of a rejected row are shown in JSON, where each byte
// may become six. The query ShowImport has the same number.
const maxRecordShown = 500

func viewImportError(row queries.ListImportErrorsRow) ImportError {
	return ImportError{row.Line, row.Field, row.Reason, strings.ToValidUTF8(string(row.Record), "\uFFFD"), row.Cut}
}

// findImport returns an import if the actor may read imports.
func (s *Service) findImport(ctx context.Context, actor Actor, id int64) (queries.Import, error) {
	if err := actor.Require(ReadsImports); err != nil {
		return queries.Import{}, err
	}
	row, err := queries.New(s.Pool).GetImport(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		err = errNoImport
	}
	return row, err
}

// ListImportErrors returns a page of the rejected rows of an import, in file order. The
// position is a line.
func (s *Service) ListImportErrors(ctx context.Context, actor Actor, id int64, p Page) ([]ImportError, error) {
	if _, err := s.findImport(ctx, actor, id); err != nil {
		return nil, err
	}
	rows, err := s.lists().ListImportErrors(ctx, queries.ListImportErrorsParams{
		ImportID: id, AfterLine: p.After, RowOffset: p.Offset, RowLimit: p.Limit, RecordBytes: maxRecordShown,
	})
	return views(rows, viewImportError), err
}

// ListImportNotices returns a page of the notices of imported rows, in file order. The
// position is a line.
func (s *Service) ListImportNotices(ctx context.Context, actor Actor, id int64, p Page) ([]ImportNotice, error) {
	if _, err := s.findImport(ctx, actor, id); err != nil {
		return nil, err
	}
	rows, err := s.lists().ListImportNotices(ctx, queries.ListImportNoticesParams{
		ImportID: id, AfterLine: p.After, RowOffset: p.Offset, RowLimit: p.Limit,
	})
	return views(rows, func(row queries.ListImportNoticesRow) ImportNotice {
		return ImportNotice{row.Line, row.Field, row.Kind, row.Reason}
	}), err
}

// ListKept returns a page of the rows that are left of an import, in file order. The
// position is a line.
func (s *Service) ListKept(ctx context.Context, actor Actor, id int64, p Page) ([]KeptRow, error) {
	row, err := s.findImport(ctx, actor, id)
	if err != nil {
		return nil, err
	}
	rows, err := s.lists().ListImportKept(ctx, queries.ListImportKeptParams{
		ImportID: id, AfterLine: p.After, OfUrls: csvimport.Kind(row.Kind) == csvimport.KindLinks,
		RowOffset: p.Offset, RowLimit: p.Limit,
	})
	return views(rows, s.viewKept), err
}

func (s *Service) viewKept(r queries.ListImportKeptRow) KeptRow {
	kept := KeptRow{Line: r.Line, ID: r.RowID, Reason: r.Reason}
	if r.ShortCode != nil {
		url := s.ShortURL(r.Host, *r.ShortCode)
		kept.ShortURL = &url
	}
	if r.Before != nil {
		_ = json.Unmarshal(r.Before, &kept.Before) // an object that a worker made
	}
	return kept
}
