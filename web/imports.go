package web

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/service"
)

// importsPage is the list of imports, with the form of a new one.
type importsPage struct {
	Form      importForm
	MayImport bool
	Tour      []tourStep // nil if there is nothing to teach
	Rows      []importRow
	Next      string // the path of the next page; "" on the last
	First     string // the path of the first page; "" on it
}

// importRow is an import in the list.
type importRow struct {
	service.Import
	Name    string
	Created moment
	Href    string
}

// In is how many rows of an import are in now.
func (r importRow) In() int64 { return r.RowsImported + r.RowsUpdated - r.RowsRemoved }

// tourStep is one of the files to try an import with.
type tourStep struct {
	Kind, Holds string
	Done, Next  bool
}

// importForm has the parameters of an import, and what is known of its file.
type importForm struct {
	Values   Values
	Kinds    []csvimport.Kind // that the viewer may import
	Preview  *service.ImportPreview
	Columns  []formColumn
	Policies []policyChoice
	Formats  []string
	Owners   []service.User
	Domains  []string
	Preset   []hiddenField // that are known before there is a preview
	Scripted bool          // a script shows the form: its parameters come once a file is chosen
	Message  string        // why it was refused
	Errors   fieldErrors
	DryRun   bool
}

// formColumn is a column of the file of a form.
type formColumn struct {
	service.ImportColumn
	Mapped string // what the form says that it stands for, "-" for nothing; "" if the form does not say
	CanMap bool
}

type policyChoice struct{ Value, Name string }

var policyNames = []policyChoice{
	{string(csvimport.PolicyReject), "is reported"},
	{string(csvimport.PolicySkip), "is passed over"},
	{string(csvimport.PolicyUpdate), "updates what is there"},
}

const importsOnPage = 25

func (w *Web) imports(ctx context.Context, r *Request) (*Answer, error) {
	p := importsPage{MayImport: r.may(service.ImportsLinks)}
	at := r.Query.text("cursor")
	before, err := strconv.ParseInt(cmp.Or(at, "0"), 10, 64)
	if err != nil || before < 0 {
		return nil, service.Invalid(service.FieldError{Field: "cursor", Message: "is not a page of this list"})
	}
	found, err := w.Service.ListImports(ctx, r.Actor, service.Page{After: before, Limit: importsOnPage + 1})
	if err != nil {
		return nil, err
	}
	if len(found) > importsOnPage {
		found = found[:importsOnPage]
		p.Next = r.Query.href(r.Path, "cursor", strconv.FormatInt(found[importsOnPage-1].ID, 10))
	}
	if at != "" {
		p.First = r.Query.href(r.Path, "cursor", "")
	}
	loc := w.place(r)
	for _, i := range found {
		p.Rows = append(p.Rows, importRow{i, importName(i), momentOf(i.CreatedAt, loc), importPath(i.ID)})
	}
	if p.MayImport && at == "" {
		p.Tour = tour(r, found)
		if p.Form, err = w.importForm(ctx, r, r.Query, nil); err != nil {
			return nil, err
		}
		p.Form.Preset = preset(r.Query)
	}
	return w.page(r, 200, "Imports", "imports.html", p)
}

// preset returns the hidden fields of a form for those parameters that a query names, such
// as those of an import that is to be repeated. try has it proposed that the file is tried
// first; whether it is, the form says.
func preset(query Values) []hiddenField {
	var fields []hiddenField
	for _, name := range []string{"kind", "format", "encoding", "escape", "timezone", "domain", "user_id", "on_conflict", "mapping", "try"} {
		for _, value := range query.Values[name] {
			if value != "" {
				fields = append(fields, hiddenField{name, value})
			}
		}
	}
	return fields
}

// tour returns the files to try an import with, and which of them is next; nil if all are in,
// or if there are imports of other files only. Only admins may import all of them.
func tour(r *Request, imports []service.Import) []tourStep {
	if !r.may(service.ImportsAll) {
		return nil
	}
	steps := []tourStep{
		{Kind: "users", Holds: "40 people, to whom the links will belong"},
		{Kind: "urls", Holds: "200 links of theirs"},
		{Kind: "events", Holds: "400 events of these links: when they were made, changed and clicked"},
	}
	next, begun := true, len(imports) == 0
	for n := range steps {
		for _, i := range imports {
			if i.Kind == steps[n].Kind && importName(i) == i.Kind+".csv" {
				begun = true
				steps[n].Done = steps[n].Done || i.State == jobs.ImportCompleted && !i.DryRun
			}
		}
		steps[n].Next = next && !steps[n].Done
		next = next && steps[n].Done
	}
	if next || !begun {
		return nil
	}
	return steps
}

// Refused says why a form was not carried out. The zero value says that it was not tried.
type Refused struct {
	Status  int
	Message string
	Fields  []service.FieldError
}

// ImportForm makes the page of the form of an import that was sent or previewed: with the
// preview of its file (nil without one), or with what was wrong. Only scripts ask for
// previews.
func (w *Web) ImportForm(ctx context.Context, r *Request, preview *service.ImportPreview, scripted bool, refused Refused) (*Answer, error) {
	p := importsPage{MayImport: true}
	var err error
	if p.Form, err = w.importForm(ctx, r, r.Form, preview); err != nil {
		return nil, err
	}
	p.Form.Scripted = scripted
	if refused.Status != 0 {
		p.Form.Errors = asErrors(refused.Fields)
		if p.Form.Message = sentence(refused.Message); p.Form.Errors["file"] == "" && len(refused.Fields) == 1 {
			p.Form.Message = "" // it stands beside its field
		}
	}
	return w.page(r, cmp.Or(refused.Status, 200), "Import a file", "imports.html", p)
}

func (w *Web) importForm(ctx context.Context, r *Request, values Values, preview *service.ImportPreview) (importForm, error) {
	f := importForm{Values: values, Preview: preview, DryRun: values.Has("dry_run") || values.Has("try") || !values.Has("kind"), Policies: policyNames, Formats: csvimport.FormatNames(csvimport.KindLinks)}
	f.Kinds = []csvimport.Kind{csvimport.KindLinks}
	if r.may(service.ImportsAll) {
		f.Kinds = []csvimport.Kind{csvimport.KindUsers, csvimport.KindLinks, csvimport.KindEvents}
	}
	if preview != nil {
		values.Set("kind", preview.Kind)
		f.Formats = csvimport.FormatNames(csvimport.Kind(preview.Kind))
		if preview.Kind == string(csvimport.KindEvents) {
			f.Policies = policyNames[:2]
		}
		f.Columns = formColumns(values, preview.Columns)
		if preview.Field == "user_id" {
			f.Errors = fieldErrors{"user_id": "The file does not say whose its links are. Choose somebody."}
		}
	}
	var err error
	f.Owners, f.Domains, err = w.choices(ctx, r)
	return f, err
}

// formColumns returns the columns of a preview with what the form says of each. A column
// can be mapped by its name only.
func formColumns(values Values, columns []service.ImportColumn) []formColumn {
	mapped := map[string]string{}
	for _, pair := range values.Values["mapping"] {
		if i := strings.LastIndexByte(pair, ':'); i > 0 {
			mapped[pair[:i]] = cmp.Or(pair[i+1:], "-")
		}
	}
	all := make([]formColumn, len(columns))
	for i, c := range columns {
		all[i] = formColumn{ImportColumn: c, Mapped: mapped[c.Name], CanMap: c.Name != ""}
	}
	return all
}

// Wrong reports whether a row of the preview is at fault in its nth column.
func (f importForm) Wrong(row service.ImportPreviewRow, n int) bool {
	return row.Field != "" && n < len(f.Columns) && (f.Columns[n].ReadAs == row.Field || f.Columns[n].Name == row.Field)
}

// Whole says what the preview is about, in words.
func (f importForm) Whole() string {
	p := f.Preview
	words := []string{number(p.RowsSeen) + " " + plural(p.RowsSeen, "row", "rows") + " looked at"}
	if p.Rejected > 0 {
		words = append(words, number(p.Rejected)+" wrong")
	}
	return strings.Join(append(words, "format "+p.Format, encodingName(p.Encoding)), ", ")
}

func encodingName(encoding string) string {
	return strings.ToUpper(strings.ReplaceAll(encoding, "macintosh", "Mac Roman"))
}

// importName is how pages call an import.
func importName(i service.Import) string {
	if i.Filename != nil {
		return *i.Filename
	}
	return fmt.Sprintf("Import %d", i.ID)
}

func importPath(id int64) string { return "/app" + service.Import{ID: id}.Path() }
