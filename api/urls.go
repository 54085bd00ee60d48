package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"github.com/signpost/signpost/internal/service"
)

// URL is a link. It has this name in the API.
type URL service.Link

// URLCreate is the body that makes a link.
type URLCreate struct {
	UserID         Optional[int64]    `json:"user_id" required:"true" minimum:"1" example:"42" doc:"The user who owns the link."`
	Domain         Optional[string]   `json:"domain" required:"false" minLength:"1" maxLength:"253" example:"sign.example" doc:"The host of the short URL: one of /domains; the main one if absent."`
	OriginalURL    Optional[string]   `json:"original_url" required:"true" minLength:"1" example:"https://example.com/sale?season=spring" doc:"An absolute http or https URL of at most 8192 bytes. Blanks and line ends around it are taken off; what a URL may not hold is percent-encoded in the redirect."`
	ShortCode      Optional[string]   `json:"short_code" required:"false" nullable:"true" minLength:"1" maxLength:"255" example:"spring" doc:"Drawn if absent. Letters and digits of any script, emoji and - _ . ~ + @ ! $, with slashes inside; at most 255 bytes. Case-sensitive, and unique on its domain."`
	Title          Optional[string]   `json:"title" required:"false" nullable:"true" maxLength:"255" example:"Spring sale"`
	Tags           Optional[[]string] `json:"tags" required:"false" maxItems:"20" example:"[\"sale\"]"`
	IsActive       Optional[bool]     `json:"is_active" required:"false" doc:"true if absent."`
	ExpiresAt      OptionalTime       `json:"expires_at" required:"false" nullable:"true" example:"2030-01-31T12:00:00Z" doc:"When the link ends; must be in the future."`
	RedirectStatus Optional[int]      `json:"redirect_status" required:"false" enum:"301,302,307,308" example:"302" doc:"302 if absent."`
	ForwardQuery   Optional[bool]     `json:"forward_query" required:"false" doc:"Whether the query of a visit is added to the target's; false if absent."`
}

// URLUpdate is the body that changes a link: absent fields stay as they are, and null
// clears title and expires_at.
type URLUpdate struct {
	UserID         Optional[int64]    `json:"user_id" required:"false" minimum:"1" example:"42"`
	Domain         Optional[string]   `json:"domain" required:"false" minLength:"1" maxLength:"253" example:"sign.example" doc:"The host of the short URL: one of /domains."`
	OriginalURL    Optional[string]   `json:"original_url" required:"false" minLength:"1" example:"https://example.com/sale?season=spring"`
	ShortCode      Optional[string]   `json:"short_code" required:"false" minLength:"1" maxLength:"255" example:"spring"`
	Title          Optional[string]   `json:"title" required:"false" nullable:"true" maxLength:"255" example:"Spring sale"`
	Tags           Optional[[]string] `json:"tags" required:"false" maxItems:"20" example:"[\"sale\"]"`
	IsActive       Optional[bool]     `json:"is_active" required:"false" example:"false"`
	ExpiresAt      OptionalTime       `json:"expires_at" required:"false" nullable:"true" example:"2030-01-31T12:00:00Z"`
	RedirectStatus Optional[int]      `json:"redirect_status" required:"false" enum:"301,302,307,308" example:"302"`
	ForwardQuery   Optional[bool]     `json:"forward_query" required:"false"`
}

func (u *URLCreate) fields() service.LinkFields {
	return service.LinkFields{
		UserID: u.UserID.Optional, Domain: u.Domain.Optional, OriginalURL: u.OriginalURL.Optional,
		ShortCode: u.ShortCode.Optional, Title: u.Title.Optional, Tags: u.Tags.Optional,
		IsActive: u.IsActive.Optional, ExpiresAt: u.ExpiresAt.OptionalTime,
		RedirectStatus: u.RedirectStatus.Optional, ForwardQuery: u.ForwardQuery.Optional,
	}
}

func (u *URLUpdate) fields() service.LinkFields { return (*URLCreate)(u).fields() }

// Resolve implements huma.Resolver.
func (u *URLCreate) Resolve(h huma.Context) []error {
	return bodyFaults(u.fields().CheckNew(ownHostsOf(h.Context())))
}

// Resolve implements huma.Resolver.
func (u *URLUpdate) Resolve(h huma.Context) []error {
	return bodyFaults(u.fields().CheckChange(ownHostsOf(h.Context())))
}

type (
	urlCreateInput struct{ Body URLCreate }
	urlUpdateInput struct {
		IDInput
		Body URLUpdate
	}
	urlOutput        struct{ Body URL }
	urlCreatedOutput struct {
		Location string `header:"Location" doc:"Path of the new link."`
		Body     URL
	}
)

func (a *API) getURL(ctx context.Context, in *IDInput) (*urlOutput, error) {
	link, err := a.service.GetLink(ctx, actorIn(ctx), in.ID)
	return &urlOutput{URL(link)}, err
}

func (a *API) createURL(ctx context.Context, in *urlCreateInput) (*urlCreatedOutput, error) {
	link, err := a.service.CreateLink(ctx, actorIn(ctx), in.Body.fields(), onceOf(ctx))
	return &urlCreatedOutput{Location: link.Path(), Body: URL(link)}, err
}

// updateURL serves PUT and PATCH: both take a partial body.
func (a *API) updateURL(ctx context.Context, in *urlUpdateInput) (*urlOutput, error) {
	link, err := a.service.UpdateLink(ctx, actorIn(ctx), in.ID, in.Body.fields())
	return &urlOutput{URL(link)}, err
}

func (a *API) deleteURL(ctx context.Context, in *IDInput) (*struct{}, error) {
	return nil, a.service.DeleteLink(ctx, actorIn(ctx), in.ID)
}
