package web

import (
	"context"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/service"
)

// importPage is everything about one import.
type importPage struct {
	service.ImportDetail
	Name      string
	Summary   string
	Created   moment
	Finished  *moment
	Rate      string // rows a second; "" if that is unknown
	Remaining string // how long it will take, in words; "" if that is unknown
	Moving    bool   // it goes on by itself
	Done      int64  // of Of; bytes are not known beforehand, so rows
	Figures   []importFigure
	Notices   int64 // rows that were imported and have one
	MayChange bool
	MayCancel bool
	MayRetry  bool
	// Again are the hidden fields of a form that sends a file with the same parameters, and
	// AgainPath leads to a form in which they can be changed.
	Again     []hiddenField
	AgainPath string
}

type importFigure struct {
	Name  string
	Count int64
}

type hiddenField struct{ Name, Value string }

func (w *Web) importDetail(ctx context.Context, r *Request) (*Answer, error) {
	found, err := w.Service.GetImport(ctx, r.Actor, r.ID)
	if err != nil {
		return nil, err
	}
	loc := w.place(r)
	i := found.Import
	p := importPage{
		ImportDetail: found, Name: importName(i), Summary: summary(i), Created: momentOf(i.CreatedAt, loc),
		Moving: !i.Rests(), Done: i.RowsDone(), Figures: importFigures(i), Again: again(found),
		MayChange: w.Service.MayImport(r.Actor, csvimport.Kind(i.Kind)) == nil,
	}
	query := url.Values{}
	for _, f := range p.Again {
		query.Add(f.Name, f.Value)
	}
	p.AgainPath = "/app/imports?" + query.Encode()
	if i.FinishedAt != nil {
		at := momentOf(*i.FinishedAt, loc)
		p.Finished = &at
	}
	if i.RowsPerSecond != nil {
		p.Rate = number(int64(*i.RowsPerSecond)) + " rows a second"
	}
	if i.ExpectedAt != nil {
		p.Remaining = lasting(max(1, time.Until(*i.ExpectedAt).Seconds()))
	}
	if i.State == jobs.ImportUndoing || i.State == jobs.ImportUndone {
		p.Done = i.RowsRemoved + i.RowsKept
	}
	for _, problem := range found.Problems {
		if problem.Outcome == csvimport.OutcomeImported {
			p.Notices += problem.Rows
		}
	}
	switch i.State {
	case jobs.ImportReceiving, jobs.ImportQueued, jobs.ImportRunning:
		p.MayCancel = p.MayChange
	case jobs.ImportFailed:
		p.MayRetry = p.MayChange && i.ChunksTotal > 0
	}
	return w.page(r, 200, p.Name, "import.html", p)
}

// summary says in a sentence what became of an import.
func summary(i service.Import) string {
	rows := number(i.RowsTotal) + " " + plural(i.RowsTotal, "row", "rows")
	switch i.State {
	case jobs.ImportReceiving:
		return "The file arrives: " + size(i.BytesReceived) + " so far"
	case jobs.ImportQueued:
		return rows + " wait for a worker"
	case jobs.ImportRunning:
		return number(i.RowsDone()) + " of " + rows + " done"
	case jobs.ImportCompleted:
		return completed(i, rows)
	case jobs.ImportCancelling:
		return "It stops after the rows that are under way"
	case jobs.ImportCancelled:
		return "It was cancelled after " + number(i.RowsDone()) + " of " + rows
	case jobs.ImportFailed:
		if i.ChunksTotal == 0 {
			return "The file did not arrive"
		}
		return "It stopped after " + number(i.RowsDone()) + " of " + rows
	case jobs.ImportUndoing:
		return "It is being undone: " + number(i.RowsRemoved) + " of " + number(i.RowsImported) + " rows removed"
	case jobs.ImportUndone:
		return "It was undone: " + number(i.RowsRemoved) + " of " + number(i.RowsImported) + " rows removed, " + number(i.RowsKept) + " kept"
	}
	return i.State
}

func completed(i service.Import, rows string) string {
	good := i.RowsImported + i.RowsUpdated
	switch {
	case i.DryRun:
		return "Of " + rows + ", " + number(good) + " would go in. Nothing has been changed"
	case i.RowsRejected == 0 && i.RowsSkipped == 0:
		return "All " + rows + " are in"
	}
	return number(good) + " of " + rows + " are in"
}

// importFigures are the counts of an import, whose sum is the number of rows once it is
// completed.
func importFigures(i service.Import) []importFigure {
	figures := []importFigure{{"Imported", i.RowsImported}}
	if i.RowsUpdated > 0 || i.OnConflict == string(csvimport.PolicyUpdate) {
		figures = append(figures, importFigure{"Updated", i.RowsUpdated})
	}
	if i.RowsSkipped > 0 || i.OnConflict == string(csvimport.PolicySkip) {
		figures = append(figures, importFigure{"Passed over", i.RowsSkipped})
	}
	return append(figures, importFigure{"Rejected", i.RowsRejected})
}

// again returns the fields of a form that sends a file with the parameters of an import.
func again(i service.ImportDetail) []hiddenField {
	fields := []hiddenField{
		{"kind", i.Kind}, {"format", i.Format}, {"on_conflict", i.OnConflict}, {"timezone", i.Timezone}, {"domain", i.Domain}, {"escape", i.Escape},
	}
	if i.Encoding != nil {
		fields = append(fields, hiddenField{"encoding", *i.Encoding})
	}
	if i.UserID != nil {
		fields = append(fields, hiddenField{"user_id", strconv.FormatInt(*i.UserID, 10)})
	}
	for _, pair := range i.Mapping {
		fields = append(fields, hiddenField{"mapping", pair})
	}
	return slices.DeleteFunc(fields, func(f hiddenField) bool { return f.Value == "" })
}

// cures are the parameters that the cure of a problem names, in the words of the form.
var cures = []struct {
	names *regexp.Regexp
	words string
}{
	{regexp.MustCompile(`^on_conflict=skip .* on_conflict=update .*`), "choose that such rows are passed over, or that they update what is there"},
	{regexp.MustCompile(`^on_conflict=skip .*`), "choose that such rows are passed over"},
	{regexp.MustCompile(`^encoding=… names its encoding`), "choose its encoding"},
	{regexp.MustCompile(`^encoding=(\S+) reads it`), "choose the encoding $1"},
	{regexp.MustCompile(`^escape=backslash reads .*`), "choose that quotes within quotes have a backslash"},
	{regexp.MustCompile(`^user_id=… names the owner .*`), "choose the owner of links that name nobody"},
	{regexp.MustCompile(`give the links to one with user_id=… and mapping="?([^":]+):"?$`), "choose the owner of links that name nobody and read $1 as nothing"},
	{regexp.MustCompile(`^mapping="?([^":]+):"? leaves .*`), "read $1 as nothing"},
}

// cure says what helps against a problem.
func cure(p service.ImportProblem) string {
	switch {
	case p.Outcome == csvimport.OutcomeImported:
		return "nothing to do"
	case p.Cure == nil:
		return "mend them one by one"
	}
	for _, c := range cures {
		if c.names.MatchString(*p.Cure) {
			return c.names.ReplaceAllString(*p.Cure, c.words)
		}
	}
	return *p.Cure
}

// exportOfImport returns the handler of a file about an import.
func exportOfImport(export func(context.Context, service.Actor, int64) (service.Export, error)) Handler {
	return func(ctx context.Context, r *Request) (*Answer, error) {
		source, err := export(ctx, r.Actor, r.ID)
		return &Answer{Status: 200, Export: &source, Format: "csv"}, err
	}
}

// changeImport returns the handler of a form that changes what becomes of an import.
func (w *Web) changeImport(change func(context.Context, service.Actor, int64) (service.Import, error)) Handler {
	return func(ctx context.Context, r *Request) (*Answer, error) {
		_, err := change(ctx, r.Actor, r.ID)
		// An import that has come to another state meanwhile is shown as it is.
		if e := service.Classify(err); err != nil && (e == nil || e.Kind != service.KindConflict) {
			return nil, err
		}
		return seeOther(importPath(r.ID)), nil
	}
}

// undoPage asks whether an import is to be undone.
type undoPage struct {
	ID   int64
	Name string
	Of   string // users, links or events
	service.UndoPreview
}

func (w *Web) askUndo(ctx context.Context, r *Request) (*Answer, error) {
	found, err := w.Service.GetImport(ctx, r.Actor, r.ID)
	if err != nil {
		return nil, err
	}
	if err := w.Service.MayImport(r.Actor, csvimport.Kind(found.Kind)); err != nil {
		return nil, err
	}
	p := undoPage{ID: r.ID, Name: importName(found.Import), Of: kindName(found.Kind)}
	if p.UndoPreview, err = w.Service.PreviewUndo(ctx, r.Actor, r.ID); err != nil {
		return nil, err
	}
	return w.page(r, 200, "Undo "+p.Name, "undo.html", p)
}

// kindName is the word for rows of a kind.
func kindName(kind string) string {
	if kind == string(csvimport.KindLinks) {
		return "links"
	}
	return kind
}

// rowsPage is a list of rows of an import: of those that were rejected, that have a notice,
// or that an undo kept.
type rowsPage struct {
	ID    int64
	Name  string
	Title string
	Rows  []fileRow
	Next  string
}

// fileRow is a row of a file and what is to be said of it.
type fileRow struct {
	Line   int64
	Says   string
	Record string
	Href   string // of the link that it is
}

const rowsOnPage = 50

func (w *Web) importRows(ctx context.Context, r *Request) (*Answer, error) {
	after, err := strconv.ParseInt("0"+r.Query.text("cursor"), 10, 64)
	if err != nil {
		return nil, service.Invalid(service.FieldError{Field: "cursor", Message: "is not a page of this list"})
	}
	found, err := w.Service.GetImport(ctx, r.Actor, r.ID)
	if err != nil {
		return nil, err
	}
	p := rowsPage{ID: r.ID, Name: importName(found.Import)}
	page := service.Page{After: after, Limit: rowsOnPage + 1}
	switch of := r.Query.text("of"); of {
	case "notices":
		p.Title = "Rows to know about"
		p.Rows, err = rowsOf(ctx, r, page, w.Service.ListImportNotices, func(n service.ImportNotice) fileRow {
			return fileRow{Line: n.Line, Says: n.Field + " " + n.Notice}
		})
	case "kept":
		p.Title = "Rows that are left"
		p.Rows, err = rowsOf(ctx, r, page, w.Service.ListKept, func(k service.KeptRow) fileRow { return keptRow(k, found.Kind) })
	default:
		p.Title = "Rejected rows"
		p.Rows, err = rowsOf(ctx, r, page, w.Service.ListImportErrors, rejectedRow)
	}
	if err != nil {
		return nil, err
	}
	if len(p.Rows) > rowsOnPage {
		p.Rows = p.Rows[:rowsOnPage]
		p.Next = r.Query.href(r.Path, "cursor", strconv.FormatInt(p.Rows[rowsOnPage-1].Line, 10))
	}
	return w.page(r, 200, p.Title, "importrows.html", p)
}

func rowsOf[T any](
	ctx context.Context, r *Request, page service.Page,
	list func(context.Context, service.Actor, int64, service.Page) ([]T, error), view func(T) fileRow,
) ([]fileRow, error) {
	found, err := list(ctx, r.Actor, r.ID, page)
	rows := make([]fileRow, len(found))
	for i, row := range found {
		rows[i] = view(row)
	}
	return rows, err
}

func rejectedRow(e service.ImportError) fileRow {
	row := fileRow{Line: e.Line, Says: strings.TrimSpace(e.Field + " " + e.Reason), Record: e.Record}
	if e.Cut {
		row.Record += "…"
	}
	return row
}

// keptReasons say why a row is left of an import.
var keptReasons = map[string]string{
	"changed":    "somebody has changed it since",
	"clicked":    "it was clicked",
	"owns_links": "this user owns links",
	"updated":    "it was there before, and the import updated it",
}

func keptRow(k service.KeptRow, kind string) fileRow {
	row := fileRow{Line: k.Line, Says: keptReasons[k.Reason], Record: strconv.FormatInt(k.ID, 10)}
	if k.ShortURL != nil {
		row.Record = withoutScheme(*k.ShortURL)
	}
	if kind == string(csvimport.KindLinks) {
		row.Href = linkPath(k.ID)
	}
	return row
}

// FirstRejected are the first rejected rows.
func (p importPage) FirstRejected() []fileRow {
	rows := make([]fileRow, len(p.FirstErrors))
	for i, e := range p.FirstErrors {
		rows[i] = rejectedRow(e)
	}
	return rows
}

// tone is how a state looks.
func tone(state string) string {
	switch state {
	case jobs.ImportCompleted:
		return "active"
	case jobs.ImportFailed:
		return "expired"
	}
	return "off"
}
