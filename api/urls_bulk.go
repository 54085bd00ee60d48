package api

import (
	"context"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/signpost/signpost/internal/service"
)

// BulkSelection says which links a request is about. It is exported for Huma, like
// PageInput.
type BulkSelection struct {
	IDs      []int64     `json:"ids,omitempty" minItems:"1" maxItems:"10000" nullable:"false" example:"[7,8]" doc:"The links with these ids. Either these or filter."`
	Filter   *BulkFilter `json:"filter,omitempty" doc:"All links that GET /urls would list with these filters, if these are 10000 at most."`
	Expected int         `json:"expected,omitempty" minimum:"1" example:"312" doc:"How many links you have seen that these are. If there are more or fewer by now, nothing is done, and the answer is 409."`
}

// BulkFilter are the filters of GET /urls in a body. Fields that are not known are refused:
// a filter that was misspelled would otherwise find more links than meant.
type BulkFilter struct {
	_        struct{} `additionalProperties:"false"`
	UserID   *int64   `json:"user_id,omitempty" minimum:"1"`
	Domain   string   `json:"domain,omitempty" minLength:"1" maxLength:"253" example:"sign.example"`
	Tag      string   `json:"tag,omitempty" minLength:"1" maxLength:"50" example:"sale"`
	Search   string   `json:"search,omitempty" minLength:"1" maxLength:"2048"`
	IsActive *bool    `json:"is_active,omitempty"`
	All      bool     `json:"all,omitempty" doc:"true, and no other filter, for all links there are."`
}

// BulkChange is the body that changes many links.
type BulkChange struct {
	_ struct{} `additionalProperties:"false"`
	BulkSelection
	AddTags    Optional[[]string] `json:"add_tags" required:"false" maxItems:"20" example:"[\"spring\"]" doc:"Tags that each link gets."`
	RemoveTags Optional[[]string] `json:"remove_tags" required:"false" maxItems:"20" example:"[\"winter\"]" doc:"Tags that each link loses."`
	IsActive   Optional[bool]     `json:"is_active" required:"false" doc:"Whether each link leads to its target."`
}

// BulkDelete is the body that deletes many links.
type BulkDelete struct {
	_ struct{} `additionalProperties:"false"`
	BulkSelection
}

// BulkNew describes one of many new links. Unlike that of a single one its faults are part
// of the answer.
type BulkNew URLCreate

func (b BulkSelection) selection() service.Selection {
	in := service.Selection{IDs: b.IDs, Expected: b.Expected}
	if f := b.Filter; f != nil {
		in.Filter = &service.LinkList{
			UserID: f.UserID, Domain: strings.Clone(f.Domain), Tag: strings.Clone(f.Tag), Search: strings.Clone(f.Search), IsActive: f.IsActive,
		}
	}
	return in
}

// faults returns what is wrong with the selection.
func (b BulkSelection) faults() service.Faults {
	f := b.selection().Check()
	if b.Filter == nil {
		return f
	}
	given := *b.Filter
	given.All = false
	switch none := given == (BulkFilter{}); {
	case none && !b.Filter.All:
		f.Add("filter", "must have at least one filter, or all")
	case !none && b.Filter.All:
		f.Add("filter.all", "goes with no other filter")
	}
	return f
}

func (c *BulkChange) change() service.BulkChange {
	return service.BulkChange{AddTags: c.AddTags.Optional, RemoveTags: c.RemoveTags.Optional, IsActive: c.IsActive.Optional}
}

// Resolve implements huma.Resolver.
func (c *BulkChange) Resolve(huma.Context) []error {
	return bodyFaults(slices.Concat(c.faults(), c.change().Check()))
}

// Resolve implements huma.Resolver.
func (d *BulkDelete) Resolve(huma.Context) []error { return bodyFaults(d.faults()) }

// DryRunInput is the parameter of requests that can be tried out. It is exported for Huma,
// like PageInput, and its Resolve must be called too.
type DryRunInput struct {
	DryRun bool `query:"dry_run" doc:"Changes nothing, and says what would have been changed."`
}

// Resolve implements huma.Resolver. A parameter that was misspelled would otherwise do what
// was to be tried out.
func (in *DryRunInput) Resolve(h huma.Context) []error {
	u := h.URL()
	for name := range u.Query() {
		if name != "dry_run" {
			return []error{&huma.ErrorDetail{Location: "query." + name, Message: "is not known"}}
		}
	}
	return nil
}

type (
	bulkChangeInput struct {
		DryRunInput
		Body BulkChange
	}
	bulkDeleteInput struct {
		DryRunInput
		Body BulkDelete
	}
	bulkCreateInput struct {
		DryRunInput
		Body []BulkNew `nullable:"false" minItems:"1" maxItems:"100"`
	}
	bulkOutput       struct{ Body service.BulkOutcome }
	bulkCreateOutput struct{ Body service.NewLinks }
)

func (a *API) changeURLs(ctx context.Context, in *bulkChangeInput) (*bulkOutput, error) {
	out, err := a.service.ChangeLinks(ctx, actorIn(ctx), in.Body.selection(), in.Body.change(), in.DryRun, onceOf(ctx))
	return &bulkOutput{out}, err
}

func (a *API) deleteURLs(ctx context.Context, in *bulkDeleteInput) (*bulkOutput, error) {
	out, err := a.service.DeleteLinks(ctx, actorIn(ctx), in.Body.selection(), in.DryRun, onceOf(ctx))
	return &bulkOutput{out}, err
}

func (a *API) createURLs(ctx context.Context, in *bulkCreateInput) (*bulkCreateOutput, error) {
	fields := make([]service.LinkFields, len(in.Body))
	for i := range in.Body {
		fields[i] = (*URLCreate)(&in.Body[i]).fields()
	}
	out, err := a.service.CreateLinks(ctx, actorIn(ctx), fields, in.DryRun, onceOf(ctx))
	return &bulkCreateOutput{out}, err
}
