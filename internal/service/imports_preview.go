package service

import (
	"context"
	"errors"
	"time"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/links"
)

// ImportPreview is what the beginning of a file tells about an import of it.
type ImportPreview struct {
	Kind       string             `json:"kind" enum:"users,urls,events" doc:"The one of the request, or else the one whose columns the file has."`
	Format     string             `json:"format" example:"signpost"`
	Encoding   string             `json:"encoding" example:"utf-8"`
	Escape     string             `json:"escape" enum:"none,backslash"`
	Timezone   string             `json:"timezone" example:"UTC"`
	OnConflict string             `json:"on_conflict" enum:"reject,skip,update"`
	Error      *string            `json:"error" doc:"Why an import with these parameters would be refused; null if it would not."`
	Field      string             `json:"error_field" example:"user_id" doc:"The parameter that is at fault then, if one is."`
	Columns    []ImportColumn     `json:"columns" nullable:"false" maxItems:"50" doc:"The first columns of the file."`
	Total      int                `json:"columns_total" doc:"How many columns the file has."`
	Mappable   []string           `json:"mappable" nullable:"false" doc:"What a mapping may say that a column stands for, the required ones first."`
	Rows       []ImportPreviewRow `json:"rows" nullable:"false" maxItems:"8" doc:"The first rows."`
	RowsSeen   int64              `json:"rows_seen" doc:"How many whole rows were sent."`
	Rejected   int64              `json:"rows_rejected" doc:"How many of these would be rejected whatever is there already."`
	Problems   []ImportProblem    `json:"problems" nullable:"false" maxItems:"20" doc:"Why, grouped, as of an import."`
}

// ImportPreviewRow is one of the first rows of a file.
type ImportPreviewRow struct {
	Line   int64    `json:"line" example:"2"`
	Cells  []string `json:"cells" nullable:"false" doc:"The cells, each cut at 80 characters; the whole record as one if it cannot be cut into cells."`
	Field  string   `json:"field" example:"user_id" doc:"The column at fault, if the row would be rejected."`
	Reason *string  `json:"reason" example:"must not be empty" doc:"Why the row would be rejected; null if it would not."`
}

// PreviewImport says what an import of a file would find, by the beginning of the file.
// whole says that the sample is all of the file. It writes nothing. If the options name no
// kind, the sample tells it.
func (s *Service) PreviewImport(
	_ context.Context, actor Actor, o ImportOptions, split csvimport.SplitOptions, sample []byte, whole bool,
) (ImportPreview, error) {
	if err := actor.Require(ImportsLinks); err != nil {
		return ImportPreview{}, err
	}
	if err := s.MayImport(actor, o.Kind); err != nil {
		return ImportPreview{}, err
	}
	zone, err := csvimport.Layout{Timezone: split.Timezone}.Zone()
	if err != nil {
		return ImportPreview{}, Invalid(FieldError{"timezone", "is not a time zone"})
	}
	rules := csvimport.Rules{OwnHosts: s.OwnHosts, Now: time.Now(), Zone: zone, KeepIDs: actor.Role == RoleAdmin, Domain: s.knownDomain}
	if o.Owner != nil {
		rules.UserID = *o.Owner
	}
	found, err := csvimport.NewPreview(sample, whole, o.Kind, split, rules, o.Policy)
	if err != nil {
		return ImportPreview{}, err
	}
	if missing := o.CheckOwned(found.Layout); missing != nil && found.Fault == nil {
		rules.UserID = 1 // it is said once, and not of each row
		if found, err = csvimport.NewPreview(sample, whole, o.Kind, split, rules, o.Policy); err != nil {
			return ImportPreview{}, err
		}
		found.Fault = missing
	}
	return viewPreview(found, o.Policy), nil
}

// knownDomain returns the id of the domain with a host, as the workers find it.
func (s *Service) knownDomain(host string) (id int64, ok bool) {
	clean, err := links.CleanHost(host, s.OwnHosts)
	if errors.Is(err, links.ErrHostOwn) {
		return linkcache.MainDomain, true
	}
	id = s.Cache.Domain(clean).ID
	return id, err == nil && id != linkcache.MainDomain
}

func viewPreview(p csvimport.Preview, policy csvimport.Policy) ImportPreview {
	l := p.Layout
	view := ImportPreview{
		Kind: string(l.Kind), Format: l.Format, Encoding: string(l.Encoding), Escape: csvimport.EscapeNone, Timezone: "UTC",
		OnConflict: string(policy), Columns: viewColumns(l), Total: len(l.Columns), Mappable: csvimport.Mappable(l.Kind),
		RowsSeen: p.Read, Rejected: p.Rejected, Problems: views(p.Problems, viewProblem),
		Rows: views(p.Rows, func(row csvimport.PreviewRow) ImportPreviewRow {
			view := ImportPreviewRow{Line: row.Line, Cells: row.Cells}
			if row.Reject != nil {
				view.Field, view.Reason = row.Reject.Column, &row.Reject.Reason
			}
			return view
		}),
	}
	if l.Escape != "" {
		view.Escape = l.Escape
	}
	if l.Timezone != "" {
		view.Timezone = l.Timezone
	}
	if p.Fault != nil {
		text := p.Fault.Error()
		view.Error = &text
		var known *Error
		if errors.As(p.Fault, &known) && len(known.Fields) > 0 {
			view.Field = known.Fields[0].Field
		}
	}
	return view
}
