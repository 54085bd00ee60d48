package web

import (
	"context"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/signpost/signpost/internal/service"
)

// This file finds users and links by what people call them. Fields take names, short codes
// and short URLs, and the ids that the API has. A number is an id if something has it, so
// that the links of pages, which have ids, never lead astray; then it is a name or code; and
// if nothing has it in any way it stays an id, of something that is gone.

// Named returns values in which user_id is the id of the user who is named there. The error
// for a name that nobody has is about that field, and the values are then without it.
func (w *Web) Named(ctx context.Context, actor service.Actor, v Values) (Values, error) {
	text := v.text("user_id")
	if text == "" || untouched(v, "user_id") {
		return v, nil
	}
	v = Values{maps.Clone(v.Values)}
	id, isID := idOf(text)
	if isID {
		if _, err := w.Service.GetUser(ctx, actor, id); !isNotFound(err) {
			return v, err
		}
	}
	user, err := w.Service.FindUser(ctx, actor, text)
	switch {
	case isNotFound(err) && isID:
		return v, nil
	case isNotFound(err):
		v.Del("user_id")
		return v, service.Invalid(service.FieldError{Field: "user_id", Message: "is nobody's name"})
	}
	v.Set("user_id", strconv.FormatInt(user.ID, 10))
	return v, err
}

// linkID returns the id of the link that the field url_id names, nil if it is empty.
func (w *Web) linkID(ctx context.Context, r *Request) (*int64, error) {
	text := r.Query.text("url_id")
	if text == "" {
		return nil, nil
	}
	id, isID := idOf(text)
	if isID {
		if found, err := w.Service.GetLinks(ctx, r.Actor, []int64{id}); err != nil || len(found) == 1 {
			return &id, err
		}
	}
	domains, err := w.someDomains(ctx, r)
	if err != nil {
		return nil, err
	}
	found, err := w.linksWithCode(ctx, r, text, "", domains)
	switch {
	case err != nil:
		return nil, err
	case len(found) == 1:
		return &found[0].ID, nil
	case len(found) > 1:
		return nil, service.Invalid(service.FieldError{Field: "url_id", Message: "is the code of links on several domains: type the whole short URL"})
	case isID:
		return &id, nil
	}
	return nil, service.Invalid(service.FieldError{Field: "url_id", Message: "is no link's short code"})
}

// maxExact is on how many domains a code is looked for.
const maxExact = 10

// linksWithCode returns the links with a short code, which is typed alone or as a short URL.
func (w *Web) linksWithCode(ctx context.Context, r *Request, text, domain string, domains []string) ([]service.Link, error) {
	code, hosts := text, append([]string{""}, domains[:min(len(domains), maxExact)]...)
	if domain != "" {
		hosts = []string{domain}
	}
	if u, err := url.Parse("//" + withoutScheme(text)); err == nil && u.Path != "" {
		code, hosts = strings.TrimPrefix(strings.TrimPrefix(u.Path, "/"), "r/"), []string{u.Hostname()}
	}
	var links []service.Link
	for _, host := range hosts {
		found, err := w.Service.FindLinks(ctx, r.Actor, host, code)
		if _, _, ok := asFields(err); ok {
			continue // it is no domain of this service
		} else if err != nil {
			return nil, err
		}
		for _, l := range found { // the main domain may be among those of the list
			if !slices.ContainsFunc(links, func(other service.Link) bool { return other.ID == l.ID }) {
				links = append(links, l)
			}
		}
	}
	return links, nil
}

func idOf(text string) (id int64, ok bool) {
	id, err := strconv.ParseInt(text, 10, 64)
	return id, err == nil && id > 0
}

func isNotFound(err error) bool {
	e := service.Classify(err)
	return err != nil && e != nil && e.Kind == service.KindNotFound
}

// note adds what an error says about fields to other faults, and returns any other error.
func note(faults *service.Faults, err error) error {
	if e := service.Classify(err); err != nil && e != nil && e.Kind == service.KindInvalid {
		*faults = append(*faults, e.Fields...)
		return nil
	}
	return err
}
