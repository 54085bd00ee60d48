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
// and short URLs, and the ids that the API has. A number is always an id, so that it never
// becomes somebody else's name or code once what had it is gone. The short URL finds a link
// whose code is a number.

// Named returns values in which user_id is the id of the user who is named there.
func (w *Web) Named(ctx context.Context, actor service.Actor, v Values) (Values, error) {
	if untouched(v, "user_id") {
		return v, nil
	}
	id, err := w.userID(ctx, actor, v)
	if id == nil || err != nil {
		return v, err
	}
	v = Values{maps.Clone(v.Values)}
	v.Set("user_id", strconv.FormatInt(*id, 10))
	v.Del(shown + "user_id") // it may be a name, which is not to be taken for an id
	return v, nil
}

// userID returns the id of the user whom the field user_id names, nil only if it is empty.
func (w *Web) userID(ctx context.Context, actor service.Actor, v Values) (*int64, error) {
	text := v.text("user_id")
	if text == "" {
		return nil, nil
	}
	if id, ok := idOf(text); ok {
		return &id, nil
	}
	user, err := w.Service.FindUser(ctx, actor, text)
	if isNotFound(err) {
		err = service.Invalid(service.FieldError{Field: "user_id", Message: "is nobody's name"})
	}
	return &user.ID, err
}

// chosen returns the id of the one among users whom a text names by name or id, 0 if it
// names none of them.
func chosen(users []service.User, text string) int64 {
	text = strings.TrimSpace(text)
	id, isID := idOf(text)
	for _, u := range users {
		if isID && u.ID == id || !isID && strings.EqualFold(u.Username, text) {
			return u.ID
		}
	}
	return 0
}

// linkID returns the id of the link that the field url_id names, nil only if it is empty.
func (w *Web) linkID(ctx context.Context, r *Request) (*int64, error) {
	text := r.Query.text("url_id")
	if text == "" {
		return nil, nil
	}
	if id, ok := idOf(text); ok {
		return &id, nil
	}
	domains, err := w.someDomains(ctx, r)
	if err != nil {
		return nil, err
	}
	found, err := w.linksWithCode(ctx, r, text, "", domains)
	switch {
	case err != nil:
		return nil, err
	case len(found) > 1:
		return nil, service.Invalid(service.FieldError{Field: "url_id", Message: "is the code of links on several domains: type the whole short URL"})
	case len(found) == 0:
		return nil, service.Invalid(service.FieldError{Field: "url_id", Message: "is no link's short code"})
	}
	return &found[0].ID, nil
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

// idOf returns the id that a text is. 007 and +1 are none.
func idOf(text string) (id int64, ok bool) {
	id, err := strconv.ParseInt(text, 10, 64)
	return id, err == nil && id > 0 && strconv.FormatInt(id, 10) == text
}

func isNotFound(err error) bool {
	e := service.Classify(err)
	return err != nil && e != nil && e.Kind == service.KindNotFound
}

// note adds what an error says about fields to other faults, and returns any other error.
func note(faults *service.Faults, err error) error {
	if e := service.Classify(err); err != nil && e != nil && e.Kind == service.KindInvalid && len(e.Fields) > 0 {
		*faults = append(*faults, e.Fields...)
		return nil
	}
	return err
}
