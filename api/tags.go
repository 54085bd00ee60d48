package api

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/service"
)

// Tag is a tag of links.
type Tag = service.Tag

// TagUpdate is the body that changes a tag: absent fields stay as they are.
type TagUpdate struct {
	Name  Optional[string] `json:"name" required:"false" minLength:"1" maxLength:"50" example:"offer" doc:"Its links get this tag for it."`
	Color Optional[string] `json:"color" required:"false" enum:",red,orange,yellow,green,teal,blue,purple,pink" example:"green" doc:"Empty for none."`
	Merge Optional[bool]   `json:"merge" required:"false" doc:"Whether name may be a tag that there is already. Without it that is 409."`
}

func (t *TagUpdate) fields() service.TagFields {
	return service.TagFields{Name: t.Name.Optional, Color: t.Color.Optional, Merge: t.Merge.Optional}
}

// Resolve implements huma.Resolver.
func (t *TagUpdate) Resolve(huma.Context) []error { return bodyFaults(t.fields().Check()) }

// TagInput is the name in a path, percent-encoded. It is exported for Huma, like IDInput.
type TagInput struct {
	Name string `path:"name" example:"sale"`
}

// tag returns the name. It shares no memory with the request.
func (in *TagInput) tag() (string, error) {
	name, err := url.PathUnescape(in.Name)
	if err != nil || len(checkText("name", name, links.MaxTag)) > 0 {
		return "", service.NotFound("tag")
	}
	return strings.Clone(name), nil
}

type (
	tagListInput struct {
		PageInput
		Prefix string `query:"prefix" doc:"Only tags that begin with this, in the same case."`
	}
	tagUpdateInput struct {
		TagInput
		Body TagUpdate
	}
	tagOutput struct{ Body Tag }
	// tagMovedOutput has the status 202 if workers go on with the links.
	tagMovedOutput struct {
		Status int
		Body   Tag
	}
)

// Resolve implements huma.Resolver.
func (in *tagListInput) Resolve(h huma.Context) []error {
	return append(in.PageInput.Resolve(h), checkText("prefix", in.Prefix, links.MaxTag)...)
}

// tagCursor is before the name in the cursors of tags.
const tagCursor = "tags:"

// after returns the name in the cursor, "" if there is none.
func (in *tagListInput) after() (string, error) {
	text, err := base64.RawURLEncoding.DecodeString(in.Cursor)
	name, ok := strings.CutPrefix(string(text), tagCursor)
	switch {
	case in.Cursor == "":
		return "", nil
	case err != nil || !ok || len(in.Cursor) > maxCursor*2 || len(checkText("cursor", name, links.MaxTag)) > 0:
		return "", errCursor
	}
	return name, nil
}

func (a *API) listTags(ctx context.Context, in *tagListInput) (*listOutput[Tag], error) {
	after, err := in.after()
	if err != nil {
		return nil, err
	}
	tags, next, err := a.service.ListTags(ctx, actorIn(ctx), strings.Clone(in.Prefix), after, in.offset(), in.size())
	out := &listOutput[Tag]{Body: list[Tag]{Data: tags, Count: len(tags)}}
	if next != "" {
		cursor := base64.RawURLEncoding.EncodeToString([]byte(tagCursor + next))
		out.Body.NextCursor = &cursor
	}
	return out, err
}

func (a *API) getTag(ctx context.Context, in *TagInput) (*tagOutput, error) {
	name, err := in.tag()
	if err != nil {
		return nil, err
	}
	tag, err := a.service.GetTag(ctx, actorIn(ctx), name)
	return &tagOutput{tag}, err
}

func (a *API) updateTag(ctx context.Context, in *tagUpdateInput) (*tagMovedOutput, error) {
	name, err := in.tag()
	if err != nil {
		return nil, err
	}
	tag, err := a.service.ChangeTag(ctx, actorIn(ctx), name, in.Body.fields())
	return movedTag(tag, http.StatusOK), err
}

func (a *API) deleteTag(ctx context.Context, in *TagInput) (*tagMovedOutput, error) {
	name, err := in.tag()
	if err != nil {
		return nil, err
	}
	tag, err := a.service.DeleteTag(ctx, actorIn(ctx), name)
	return movedTag(tag, http.StatusNoContent), err
}

func movedTag(tag Tag, done int) *tagMovedOutput {
	if tag.Becomes != nil {
		done = http.StatusAccepted
	}
	return &tagMovedOutput{done, tag}
}
