package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"github.com/signpost/signpost/internal/service"
)

// Domain is a host name of short links.
type Domain = service.Domain

// DomainCreate is the body that makes a domain.
type DomainCreate struct {
	Host        Optional[string] `json:"host" required:"true" minLength:"1" maxLength:"253" example:"go.example.com" doc:"A host name without scheme, port or path; not that of PUBLIC_URL or one of PUBLIC_HOSTS. Kept in lower case and punycode."`
	RootURL     Optional[string] `json:"root_url" required:"false" nullable:"true" minLength:"1" example:"https://www.example.com/" doc:"Where the bare host leads; nowhere if absent."`
	NotFoundURL Optional[string] `json:"not_found_url" required:"false" nullable:"true" minLength:"1" example:"https://www.example.com/moved" doc:"Where a code leads that no link has; to the usual 404 if absent."`
	ExpiredURL  Optional[string] `json:"expired_url" required:"false" nullable:"true" minLength:"1" example:"https://www.example.com/over" doc:"Where a link leads that has expired or was deactivated; to the usual 410 if absent."`
}

// DomainUpdate is the body that changes a domain: absent fields stay as they are, and
// null clears any field but the host.
type DomainUpdate struct {
	Host        Optional[string] `json:"host" required:"false" minLength:"1" maxLength:"253" example:"go.example.com" doc:"The links of the domain move with it. That of the main domain cannot be changed."`
	RootURL     Optional[string] `json:"root_url" required:"false" nullable:"true" minLength:"1" example:"https://www.example.com/"`
	NotFoundURL Optional[string] `json:"not_found_url" required:"false" nullable:"true" minLength:"1" example:"https://www.example.com/moved"`
	ExpiredURL  Optional[string] `json:"expired_url" required:"false" nullable:"true" minLength:"1" example:"https://www.example.com/over"`
}

func (d *DomainCreate) fields() service.DomainFields {
	return service.DomainFields{
		Host: d.Host.Optional, RootURL: d.RootURL.Optional, NotFoundURL: d.NotFoundURL.Optional, ExpiredURL: d.ExpiredURL.Optional,
	}
}

func (d *DomainUpdate) fields() service.DomainFields { return (*DomainCreate)(d).fields() }

// Resolve implements huma.Resolver.
func (d *DomainCreate) Resolve(h huma.Context) []error {
	return bodyFaults(d.fields().Check(ownHostsOf(h.Context())))
}

type (
	domainCreateInput struct{ Body DomainCreate }
	domainUpdateInput struct {
		IDInput
		Body DomainUpdate
	}
	domainOutput        struct{ Body Domain }
	domainCreatedOutput struct {
		Location string `header:"Location" doc:"Path of the new domain."`
		Body     Domain
	}
)

func (a *API) listDomains(ctx context.Context, in *PageInput) (*listOutput[Domain], error) {
	return listRows(ctx, in, "domains", a.service.ListDomains, func(d Domain) int64 { return d.ID })
}

func (a *API) getDomain(ctx context.Context, in *IDInput) (*domainOutput, error) {
	domain, err := a.service.GetDomain(ctx, actorIn(ctx), in.ID)
	return &domainOutput{domain}, err
}

func (a *API) createDomain(ctx context.Context, in *domainCreateInput) (*domainCreatedOutput, error) {
	domain, err := a.service.CreateDomain(ctx, actorIn(ctx), in.Body.fields())
	return &domainCreatedOutput{Location: domain.Path(), Body: domain}, err
}

func (a *API) updateDomain(ctx context.Context, in *domainUpdateInput) (*domainOutput, error) {
	domain, err := a.service.UpdateDomain(ctx, actorIn(ctx), in.ID, in.Body.fields())
	return &domainOutput{domain}, err
}

func (a *API) deleteDomain(ctx context.Context, in *IDInput) (*struct{}, error) {
	return nil, a.service.DeleteDomain(ctx, actorIn(ctx), in.ID)
}
