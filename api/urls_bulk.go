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
	IDs      Optional[[]int64] `json:"ids" required:"false" minItems:"1" maxItems:"10000" example:"[7,8]" doc:"The links with these ids. Either these or filter."`
	Filter   *BulkFilter       `json:"filter,omitempty" doc:"All links that GET /urls would list with these filters, if these are 10000 at most."`
	Expected Optional[int]     `json:"expected" required:"false" minimum:"1" example:"312" doc:"How many links you have seen that these are. If there are more or fewer by now, nothing is done, and the answer is 409."`
}

// BulkFilter are the filters of GET /urls in a body. Fields that are not known are refused,
// and so is null: a filter that was left out would find more links than meant.
type BulkFilter struct {
	_        struct{}         `additionalProperties:"false"`
	UserID   Optional[int64]  `json:"user_id" required:"false" minimum:"1"`
	Domain   Optional[string] `json:"domain" required:"false" minLength:"1" maxLength:"253" example:"sign.example"`
	Tag      Optional[string] `json:"tag" required:"false" minLength:"1" maxLength:"50" example:"sale"`
	Search   Optional[string] `json:"search" required:"false" minLength:"1" maxLength:"2048"`
	IsActive Optional[bool]   `json:"is_active" required:"false"`
	All      Optional[bool]   `json:"all" required:"false" doc:"true, and no other filter, for all links there are."`
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
	in := service.Selection{IDs: b.IDs.Value, Expected: b.Expected.Value}
	if f := b.Filter; f != nil {
		in.Filter = &service.LinkList{Domain: strings.Clone(f.Domain.Value), Tag: strings.Clone(f.Tag.Value), Search: strings.Clone(f.Search.Value)}
		if f.UserID.Sent {
			in.Filter.UserID = &f.UserID.Value
		}
		if f.IsActive.Sent {
			in.Filter.IsActive = &f.IsActive.Value
		}
	}
	return in
}

// faults returns what is wrong with the selection.
func (b BulkSelection) faults() service.Faults {
	var f service.Faults
	service.Check(&f, "ids", b.IDs.Optional, "a list of ids", false, nil)
	service.Check(&f, "expected", b.Expected.Optional, "a number", false, nil)
	if b.Filter != nil {
		f = append(f, b.Filter.faults()...)
	}
	if len(f) > 0 {
		return f
	}
	return b.selection().Check()
}

// faults returns what is wrong with the filter, if a list of links cannot know it.
func (b BulkFilter) faults() service.Faults {
	var f service.Faults
	service.Check(&f, "filter.user_id", b.UserID.Optional, "an id", false, nil)
	service.Check(&f, "filter.domain", b.Domain.Optional, "a string", false, nil)
	service.Check(&f, "filter.tag", b.Tag.Optional, "a string", false, nil)
	service.Check(&f, "filter.search", b.Search.Optional, "a string", false, nil)
	service.Check(&f, "filter.is_active", b.IsActive.Optional, "true or false", false, nil)
	service.Check(&f, "filter.all", b.All.Optional, "true or false", false, nil)
	if len(f) > 0 {
		return f
	}
	all := b.All.Value
	b.All = Optional[bool]{}
	switch none := b == (BulkFilter{}); {
	case none && !all:
		f.Add("filter", "must have at least one filter, or all")
	case !none && all:
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

// Resolve implements huma.Resolver. A parameter that was misspelled, or has no value, would
// otherwise do what was to be tried out.
func (in *DryRunInput) Resolve(h huma.Context) []error {
	u := h.URL()
	for name, values := range u.Query() {
		if name != "dry_run" {
			return []error{&huma.ErrorDetail{Location: "query." + name, Message: "is not known"}}
		}
		if _, err := dryRunParam(values); err != nil {
			return []error{&huma.ErrorDetail{Location: "query.dry_run", Message: err.Error()}}
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
