package service

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// MaxDomains is how many custom domains there may be. There is a limit because every
// process keeps all of them in memory.
const MaxDomains = 1000

// maxDomainURL is the greatest length of a URL of a domain in bytes. There is a
// limit because every process keeps all domains in memory.
const maxDomainURL = 2048

// Domain is a host name of short links.
type Domain struct {
	ID          int64     `json:"id" example:"2"`
	Host        string    `json:"host" example:"go.example.com"`
	RootURL     *string   `json:"root_url" example:"https://www.example.com/" doc:"Where the bare host leads."`
	NotFoundURL *string   `json:"not_found_url" example:"https://www.example.com/moved" doc:"Where a code leads that no link has."`
	ExpiredURL  *string   `json:"expired_url" example:"https://www.example.com/over" doc:"Where a link leads that has expired or was deactivated."`
	IsMain      bool      `json:"is_main" doc:"Whether it is the domain of PUBLIC_URL, which is always there."`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

// Path is the path of the domain in the API.
func (d Domain) Path() string { return "/domains/" + strconv.FormatInt(d.ID, 10) }

func (s *Service) viewDomain(d queries.Domain) Domain {
	return Domain{
		ID: d.ID, Host: s.hostOf(d.Host), RootURL: d.RootURL, NotFoundURL: d.NotFoundURL, ExpiredURL: d.ExpiredURL,
		IsMain: d.ID == linkcache.MainDomain, CreatedAt: d.CreatedAt.UTC(), UpdatedAt: d.UpdatedAt.UTC(),
	}
}

// hostOf returns the host of a domain. The main domain is stored as nil, and its host
// is the one of PUBLIC_URL.
func (s *Service) hostOf(host *string) string {
	if host != nil {
		return *host
	}
	public, err := url.Parse(s.PublicURL)
	if err != nil {
		return "" // was validated
	}
	return public.Hostname()
}

// MainHost returns the host of the main domain.
func (s *Service) MainHost() string { return s.hostOf(nil) }

// ShortURL returns the short URL of a code on a host, which is nil for the main domain.
// On a custom domain it has the scheme of PUBLIC_URL and no port.
func (s *Service) ShortURL(host *string, code string) string {
	if host == nil {
		return strings.TrimSuffix(s.PublicURL, "/") + links.CodePath(code)
	}
	scheme, _, _ := strings.Cut(s.PublicURL, "://")
	return scheme + "://" + *host + links.DomainCodePath(code)
}

// findDomain returns the domain of a host, and the host as it is stored: nil for the
// main domain. An empty host means the main domain too.
func (s *Service) findDomain(ctx context.Context, q *queries.Queries, host string) (id int64, stored *string, err error) {
	if host == "" || strings.EqualFold(strings.TrimSpace(host), s.hostOf(nil)) {
		return linkcache.MainDomain, nil, nil
	}
	unknown := Invalid(FieldError{"domain", "is not a domain of this service"})
	clean, err := links.CleanHost(host, s.OwnHosts)
	switch {
	case errors.Is(err, links.ErrHostOwn):
		return linkcache.MainDomain, nil, nil
	case err != nil:
		return 0, nil, unknown
	}
	id, err = q.FindDomain(ctx, clean)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil, unknown
	}
	return id, &clean, err
}

// FindDomain returns the id of the domain of a host.
func (s *Service) FindDomain(ctx context.Context, host string) (int64, error) {
	id, _, err := s.findDomain(ctx, queries.New(s.Pool), host)
	return id, err
}

// DomainFields are the fields of a domain that a request may set.
type DomainFields struct {
	Host        Optional[string]
	RootURL     Optional[string]
	NotFoundURL Optional[string]
	ExpiredURL  Optional[string]
}

// Check returns the faults of the fields. The URLs must lead neither to a domain of
// this service, which would redirect in circles, nor to the host itself.
func (d DomainFields) Check(own links.Hosts) Faults {
	var f Faults
	if Check(&f, "host", d.Host, "a string", false, func(host string) error {
		_, err := links.CleanHost(host, own)
		return err
	}) {
		own = withHost(own, d.Host.Value)
	}
	target := func(raw string) error {
		if len(raw) > maxDomainURL {
			return fmt.Errorf("must have at most %d bytes", maxDomainURL)
		}
		_, err := links.CleanTarget(raw, own)
		return err
	}
	Check(&f, "root_url", d.RootURL, "a string", true, target)
	Check(&f, "not_found_url", d.NotFoundURL, "a string", true, target)
	Check(&f, "expired_url", d.ExpiredURL, "a string", true, target)
	return f
}

// withHost returns own with one more host, which is to become a domain.
func withHost(own links.Hosts, host string) links.Hosts {
	host, _ = links.CleanHost(host, own)
	return own.And(host)
}

// checkURLs refuses URLs that lead to the domain's own host. URLs that were given
// before the host was changed may do so.
func (d Domain) checkURLs(own links.Hosts) error {
	given := func(url *string) Optional[string] {
		if url == nil {
			return Optional[string]{}
		}
		return Optional[string]{Value: *url, Sent: true}
	}
	if !d.IsMain {
		own = withHost(own, d.Host)
	}
	fields := DomainFields{RootURL: given(d.RootURL), NotFoundURL: given(d.NotFoundURL), ExpiredURL: given(d.ExpiredURL)}
	return fields.Check(own).Err()
}

// apply sets the fields of d to those of f, which have been checked, and returns the
// changes.
func (d *Domain) apply(f DomainFields) changes {
	c := changes{}
	f.Host.Value, _ = links.CleanHost(f.Host.Value, links.Hosts{})
	change(c, "host", &d.Host, f.Host)
	for _, u := range []struct {
		name  string
		value **string
		sent  Optional[string]
	}{
		{"root_url", &d.RootURL, f.RootURL}, {"not_found_url", &d.NotFoundURL, f.NotFoundURL}, {"expired_url", &d.ExpiredURL, f.ExpiredURL},
	} {
		u.sent.Value, _ = links.CleanTarget(u.sent.Value, links.Hosts{})
		changeNullable(c, u.name, u.value, u.sent)
	}
	return c
}

var errNoDomain = NotFound("domain")

// ListDomains returns a page of the domains, in the order of their ids.
func (s *Service) ListDomains(ctx context.Context, actor Actor, p Page) ([]Domain, error) {
	if err := actor.Require(ManagesDomains); err != nil {
		return nil, err
	}
	rows, err := queries.New(s.Pool).ListDomains(ctx, p.After, p.Offset, p.Limit)
	return views(rows, s.viewDomain), err
}

// GetDomain returns a domain.
func (s *Service) GetDomain(ctx context.Context, actor Actor, id int64) (Domain, error) {
	if err := actor.Require(ManagesDomains); err != nil {
		return Domain{}, err
	}
	row, err := queries.New(s.Pool).GetDomain(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return Domain{}, errNoDomain
	}
	return s.viewDomain(row), err
}

// CreateDomain makes a domain. The host is required. Every replica answers on it within
// a second.
func (s *Service) CreateDomain(ctx context.Context, actor Actor, in DomainFields) (Domain, error) {
	if err := actor.Require(ManagesDomains); err != nil {
		return Domain{}, err
	}
	f := in.Check(s.OwnHosts)
	if !in.Host.Sent {
		f.Add("host", "is required")
	}
	if err := f.Err(); err != nil {
		return Domain{}, err
	}
	var domain Domain
	domain.apply(in)
	err := s.inTx(ctx, func(q *queries.Queries) error {
		stored, err := q.CreateDomain(ctx, queries.CreateDomainParams{
			Host: domain.Host, RootURL: domain.RootURL, NotFoundURL: domain.NotFoundURL, ExpiredURL: domain.ExpiredURL, Most: MaxDomains,
		})
		if errors.Is(err, pgx.ErrNoRows) {
			return Conflict("there are " + strconv.Itoa(MaxDomains) + " domains, and more are not possible")
		}
		if err != nil {
			return err
		}
		domain = s.viewDomain(stored)
		return recordDomain(ctx, q, actor, "created", domain, nil)
	})
	return domain, err
}

// UpdateDomain changes the fields that were sent. The host of the main domain cannot be
// changed here, since PUBLIC_URL sets it.
func (s *Service) UpdateDomain(ctx context.Context, actor Actor, id int64, in DomainFields) (domain Domain, err error) {
	if err := actor.Require(ManagesDomains); err != nil {
		return Domain{}, err
	}
	if id == linkcache.MainDomain {
		if strings.EqualFold(in.Host.Value, s.hostOf(nil)) {
			in.Host = Optional[string]{}
		} else if in.Host.Sent {
			return Domain{}, Invalid(FieldError{"host", "of the main domain cannot be changed here: PUBLIC_URL sets it"})
		}
	}
	if err := in.Check(s.OwnHosts).Err(); err != nil {
		return Domain{}, err
	}
	err = s.inTx(ctx, func(q *queries.Queries) error {
		row, err := q.LockDomain(ctx, id)
		if err != nil {
			return err
		}
		domain = s.viewDomain(row)
		changes := domain.apply(in)
		if len(changes) == 0 {
			return nil
		}
		if err := domain.checkURLs(s.OwnHosts); err != nil {
			return err
		}
		host := &domain.Host
		if domain.IsMain {
			host = nil
		}
		stored, err := q.UpdateDomain(ctx, queries.UpdateDomainParams{
			ID: id, Host: host, RootURL: domain.RootURL, NotFoundURL: domain.NotFoundURL, ExpiredURL: domain.ExpiredURL,
		})
		if err != nil {
			return err
		}
		domain = s.viewDomain(stored)
		return recordDomain(ctx, q, actor, "updated", domain, changes)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return Domain{}, errNoDomain
	}
	return domain, err
}

// DeleteDomain removes a domain that has no links.
func (s *Service) DeleteDomain(ctx context.Context, actor Actor, id int64) error {
	if err := actor.Require(ManagesDomains); err != nil {
		return err
	}
	if id == linkcache.MainDomain {
		return Conflict("the main domain cannot be deleted")
	}
	err := s.inTx(ctx, func(q *queries.Queries) error {
		row, err := q.LockDomain(ctx, id)
		if err != nil {
			return err
		}
		if _, err := q.DeleteDomain(ctx, id); err != nil {
			return err
		}
		return recordDomain(ctx, q, actor, "deleted", s.viewDomain(row), nil)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errNoDomain
	case postgres.Constraint(err) == "urls_domain_id_fkey":
		return Conflict("the domain still has links")
	}
	return err
}

// recordDomain writes the event of a change of a domain, in the transaction of q.
func recordDomain(ctx context.Context, q *queries.Queries, actor Actor, event string, d Domain, c changes) error {
	return record(ctx, q, actor, event, nil, nil, changeDetails{Entity: "domain", Domain: d.Host, Changes: c})
}
