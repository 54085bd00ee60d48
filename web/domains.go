package web

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/signpost/signpost/internal/service"
)

// domainsPage lists the host names of short links.
type domainsPage struct {
	Rows  []domainRow
	Pages pages
	Main  string // host of the main domain
}

type domainRow struct {
	service.Domain
	Leads []lead
	Made  moment
	Path  string
}

// lead is where a domain leads in some case.
type lead struct{ When, URL string }

func (w *Web) domains(ctx context.Context, r *Request) (*Answer, error) {
	found, next, err := listPage(ctx, r, w.Service.ListDomains, func(d service.Domain) int64 { return d.ID })
	if err != nil {
		return nil, err
	}
	p := domainsPage{Pages: next, Main: w.Service.MainHost()}
	for _, d := range found {
		row := domainRow{Domain: d, Made: momentOf(d.CreatedAt, w.place(r)), Path: domainPath(d.ID)}
		for _, f := range domainURLs {
			if url := f.of(d); url != nil {
				row.Leads = append(row.Leads, lead{f.when, *url})
			}
		}
		p.Rows = append(p.Rows, row)
	}
	return w.page(r, 200, "Domains", "domains.html", p)
}

func domainPath(id int64) string { return "/app/domains/" + strconv.FormatInt(id, 10) }

// domainURLs are the fields of a domain that lead somewhere.
var domainURLs = []struct {
	name, label, when string
	of                func(service.Domain) *string
}{
	{"root_url", "The bare host leads to", "bare host", func(d service.Domain) *string { return d.RootURL }},
	{"not_found_url", "A code that no link has leads to", "unknown code", func(d service.Domain) *string { return d.NotFoundURL }},
	{"expired_url", "A link that has ended leads to", "ended link", func(d service.Domain) *string { return d.ExpiredURL }},
}

func (w *Web) domainForm(v Values, title, button string, isMain bool, errors fieldErrors) formPage {
	f := formPage{Title: title, Back: "/app/domains", Button: button, Shown: shownFields(v), Errors: errors}
	if isMain {
		f.Hints = []string{"The host of the main domain is that of PUBLIC_URL."}
	} else {
		f.Hints = []string{"In the DNS, let the name lead to where " + w.Service.MainHost() + " leads: with a CNAME record to it, or with the same A and AAAA records. Over HTTPS the proxy in front also needs a certificate for it."}
		f.Fields = append(f.Fields, formField{Name: "host", Label: "Host name", Value: v.Get("host"), Placeholder: "go.example.com"})
	}
	for _, u := range domainURLs {
		f.Fields = append(f.Fields, formField{Name: u.name, Label: u.label, Type: "url", Value: v.Get(u.name), Placeholder: "nowhere"})
	}
	return f
}

func domainFields(v Values, fresh bool) service.DomainFields {
	return service.DomainFields{
		Host: v.field("host", fresh, false), RootURL: v.field("root_url", fresh, true),
		NotFoundURL: v.field("not_found_url", fresh, true), ExpiredURL: v.field("expired_url", fresh, true),
	}
}

func (w *Web) newDomain(_ context.Context, r *Request) (*Answer, error) {
	return w.form(r, 200, w.domainForm(r.Query, "New domain", "Add the domain", false, nil))
}

func (w *Web) createDomain(ctx context.Context, r *Request) (*Answer, error) {
	_, err := w.Service.CreateDomain(ctx, r.Actor, domainFields(r.Form, true))
	if faults, status, ok := asFields(err); ok {
		return w.form(r, status, w.domainForm(r.Form, "New domain", "Add the domain", false, faults))
	}
	return seeOther("/app/domains?done=domain-made"), err
}

func (w *Web) editDomain(ctx context.Context, r *Request) (*Answer, error) {
	d, err := w.Service.GetDomain(ctx, r.Actor, r.ID)
	if err != nil {
		return nil, err
	}
	values := map[string]string{"host": d.Host}
	for _, f := range domainURLs {
		values[f.name] = ""
		if url := f.of(d); url != nil {
			values[f.name] = *url
		}
	}
	return w.form(r, 200, w.domainForm(shownAs(values), "Edit "+d.Host, "Save", d.IsMain, nil))
}

func (w *Web) changeDomain(ctx context.Context, r *Request) (*Answer, error) {
	_, err := w.Service.UpdateDomain(ctx, r.Actor, r.ID, domainFields(r.Form, false))
	if faults, status, ok := asFields(err); ok {
		return w.form(r, status, w.domainForm(r.Form, "Edit a domain", "Save", !r.Form.Has("host"), faults))
	}
	return seeOther("/app/domains?done=changed"), err
}

func (w *Web) askDeleteDomain(ctx context.Context, r *Request) (*Answer, error) {
	return w.askDeleteDomainAgain(ctx, r, 200, "")
}

func (w *Web) askDeleteDomainAgain(ctx context.Context, r *Request, status int, fault string) (*Answer, error) {
	d, err := w.Service.GetDomain(ctx, r.Actor, r.ID)
	if err != nil {
		return nil, err
	}
	return w.ask(r, status, askPage{
		Title: fmt.Sprintf("Delete %s?", d.Host), Back: "/app/domains", Button: "Delete", Fault: sentence(fault),
		Text:    []string{"A domain that has links cannot be deleted: delete the links before, or move them. Whoever follows a link on it after this is looked for on " + w.Service.MainHost() + "."},
		Instead: &choice{Name: "See its links", Href: Values{}.href("/app/links", "domain", d.Host)},
	})
}

func (w *Web) deleteDomain(ctx context.Context, r *Request) (*Answer, error) {
	err := w.Service.DeleteDomain(ctx, r.Actor, r.ID)
	if faults, status, ok := asFields(err); ok {
		return w.askDeleteDomainAgain(ctx, r, status, strings.TrimSpace(faults[""]))
	}
	return seeOther("/app/domains?done=domain-deleted"), err
}
