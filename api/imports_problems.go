package api

import (
	"context"
	"encoding/json"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/queries"
)

// ImportProblem is what rows of a file have in common that were rejected, or of
// which something is to be known.
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

// ImportNotice is what is to be known of a row that was imported.
type ImportNotice struct {
	Line   int64  `json:"line" example:"5" doc:"Line of the file that the row begins on."`
	Field  string `json:"field" example:"short_code" doc:"The column that it is about."`
	Kind   string `json:"kind" example:"reserved" doc:"What, in a word that stays the same; more words may come."`
	Notice string `json:"notice" example:"is a reserved word, so the link answers under /r/app"`
}

// listNotices lists what is to be known of imported rows in file order.
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
