package web

import (
	"context"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signpost/signpost/internal/service"
)

// linkForm makes a link or changes one.
type linkForm struct {
	Action  string
	New     bool
	Name    string // of the link that is changed
	Back    string
	Values  Values
	Shown   map[string]string // the hidden fields with the values before
	Owners  []service.User    // to choose from; none if there are too many
	OwnerID int64             // of the link as it is, whose name is then to be typed; 0 if it is typed already
	Domains []string          // likewise
	// A link belongs to a user. If there is none, FirstUser asks for one, and NoUser says
	// that the viewer may not make one.
	FirstUser, NoUser bool
	Key               string   // of a new link, which is made once
	Tags              []string // to choose from
	Suggested         bool     // the short code was suggested
	Zone              string
	Errors            fieldErrors
}

// maxOwners is how many users one may choose from. If there are more, their name has to be
// typed.
const maxOwners = 100

// newLink makes the form of a new link. With check in the query it says what is wrong with
// what one has typed so far.
func (w *Web) newLink(ctx context.Context, r *Request) (*Answer, error) {
	f := linkForm{New: true, Values: r.Query}
	var err error
	if r.Query.Has("suggest") {
		f.Suggested = true
		if err := w.suggestCode(ctx, r); err != nil {
			return nil, err
		}
	}
	if r.Query.Has("check") {
		if f.Errors, err = w.checkNewLink(ctx, r); err != nil {
			return nil, err
		}
	}
	return w.linkForm(ctx, r, 200, f)
}

// checkNewLink returns what is wrong with a new link, as far as it can be told before it is
// made.
func (w *Web) checkNewLink(ctx context.Context, r *Request) (fieldErrors, error) {
	in, faults, err := w.fieldsToCheck(ctx, r, true)
	if err != nil {
		return nil, err
	}
	found := asErrors(append(in.CheckNew(w.Service.OwnHosts), faults...))
	if !in.ShortCode.Sent || found["short_code"] != "" {
		return found, nil
	}
	same, err := w.Service.FindLinks(ctx, r.Actor, in.Domain.Value, in.ShortCode.Value)
	if faults, _, ok := asFields(err); ok {
		maps.Copy(found, faults) // the domain is wrong
		return found, nil
	}
	if len(same) > 0 {
		found["short_code"] = "is taken"
	}
	return found, err
}

// fieldsToCheck returns the fields of a link that a query has, and what is wrong with the name
// of its owner.
func (w *Web) fieldsToCheck(ctx context.Context, r *Request, fresh bool) (in service.LinkFields, faults service.Faults, err error) {
	v, err := w.Named(ctx, r.Actor, r.Query)
	err = note(&faults, err)
	return linkFields(v, w.place(r), fresh), faults, err
}

// suggestCode sets a short code that is free, in the words of the link if it has some.
func (w *Web) suggestCode(ctx context.Context, r *Request) error {
	in := linkFields(r.Query, w.place(r), true)
	code, err := w.Service.SuggestCode(ctx, r.Actor, in)
	if _, _, ok := asFields(err); ok {
		return nil // the domain is wrong, which the form says when it is sent
	}
	r.Query.Set("short_code", code)
	return err
}

func (w *Web) createLink(ctx context.Context, r *Request) (*Answer, error) {
	key := onceOf(r, "POST /urls")
	link, err := once(ctx, w, key, func() (service.Link, error) {
		if err := w.createFirstUser(ctx, r); err != nil {
			return service.Link{}, err
		}
		v, err := w.Named(ctx, r.Actor, r.Form)
		if err != nil {
			return service.Link{}, err
		}
		return w.Service.CreateLink(ctx, r.Actor, linkFields(v, w.place(r), true), key)
	})
	if faults, status, ok := asFields(err); ok {
		return w.linkForm(ctx, r, status, linkForm{New: true, Values: r.Form, Errors: faults})
	} else if err != nil {
		return nil, err
	}
	return seeOther(linkPath(link.ID) + "?done=created"), nil
}

// createFirstUser makes the user whom a form names, and sets the owner of the link. If the
// link is wrong after that, the user is there all the same.
func (w *Web) createFirstUser(ctx context.Context, r *Request) error {
	if !r.Form.Has("username") {
		return nil
	}
	user, err := w.Service.CreateUser(ctx, r.Actor, service.UserFields{
		Username: given(r.Form.text("username")), Email: given(r.Form.text("email")),
	}, nil)
	if err == nil {
		r.Form.Set("user_id", strconv.FormatInt(user.ID, 10))
	}
	return err
}

func (w *Web) editLink(ctx context.Context, r *Request) (*Answer, error) {
	link, err := w.Service.GetLink(ctx, r.Actor, r.ID)
	if err != nil {
		return nil, err
	}
	f := linkForm{Name: withoutScheme(link.ShortURL), Values: valuesOf(link, w.place(r))}
	if r.Query.Has("check") {
		in, faults, err := w.fieldsToCheck(ctx, r, false)
		if err != nil {
			return nil, err
		}
		f.Values, f.Errors = r.Query, asErrors(append(in.CheckChange(w.Service.OwnHosts), faults...))
	} else {
		f.OwnerID = link.UserID
	}
	return w.linkForm(ctx, r, 200, f)
}

func (w *Web) changeLink(ctx context.Context, r *Request) (*Answer, error) {
	v, err := w.Named(ctx, r.Actor, r.Form)
	if err == nil {
		_, err = w.Service.UpdateLink(ctx, r.Actor, r.ID, linkFields(v, w.place(r), false))
	}
	if faults, status, ok := asFields(err); ok {
		link, err := w.Service.GetLink(ctx, r.Actor, r.ID)
		if err != nil {
			return nil, err
		}
		return w.linkForm(ctx, r, status, linkForm{Name: withoutScheme(link.ShortURL), Values: r.Form, Errors: faults})
	} else if err != nil {
		return nil, err
	}
	return seeOther(linkPath(r.ID) + "?done=changed"), nil
}

// linkForm makes the page of a form, with what there is to choose from.
func (w *Web) linkForm(ctx context.Context, r *Request, status int, f linkForm) (*Answer, error) {
	f.Action, f.Back, f.Zone = r.Path, "/app/links", w.place(r).String()
	title := "New link"
	if !f.New {
		f.Back, title = linkPath(r.ID), "Edit "+f.Name
	}
	f.Key = newKey()
	var err error
	if f.Tags, err = w.someTags(ctx, r); err != nil {
		return nil, err
	}
	if f.Owners, f.Domains, err = w.choices(ctx, r); err != nil {
		return nil, err
	}
	if f.Owners == nil && f.OwnerID != 0 {
		owner, err := w.Service.GetUser(ctx, r.Actor, f.OwnerID)
		if err != nil {
			return nil, err
		}
		f.Values.Set("user_id", owner.Username)
		f.Values.Set(shown+"user_id", owner.Username)
	}
	nobody := f.Owners != nil && len(f.Owners) == 0
	f.FirstUser, f.NoUser = nobody && r.may(service.WritesUsers), nobody && !r.may(service.WritesUsers)
	if !f.New {
		f.Shown = shownFields(f.Values)
	}
	return w.page(r, status, title, "linkform.html", f)
}

// choices returns the users and domains among which one may choose: no users (nil) if
// there are too many, and no domains if there is only one or the viewer may not list them.
func (w *Web) choices(ctx context.Context, r *Request) (owners []service.User, domains []string, err error) {
	owners, err = w.Service.ListUsers(ctx, r.Actor, service.Page{Limit: maxOwners + 1})
	if err != nil {
		return nil, nil, err
	}
	if len(owners) > maxOwners {
		owners = nil
	}
	domains, err = w.someDomains(ctx, r)
	return owners, domains, err
}

// someDomains returns the hosts among which one may choose, nil if there is only one or the
// viewer may not list them.
func (w *Web) someDomains(ctx context.Context, r *Request) (hosts []string, err error) {
	if !r.may(service.ManagesDomains) {
		return nil, nil
	}
	found, err := w.Service.ListDomains(ctx, r.Actor, service.Page{Limit: maxOwners})
	if len(found) > 1 {
		for _, d := range found {
			hosts = append(hosts, d.Host)
		}
	}
	return hosts, err
}

// linkFields returns the fields of a form. In a new link those that are empty are absent,
// and in a change those that nobody has touched: the link may have changed meanwhile, and a
// field may say less than the link has, such as a time without its seconds.
func linkFields(v Values, loc *time.Location, fresh bool) service.LinkFields {
	sent := func(name string) service.Optional[string] {
		value := given(v.text(name))
		value.Sent = v.Has(name) && !untouched(v, name) && (value.Value != "" || !fresh)
		return value
	}
	in := service.LinkFields{
		Domain: sent("domain"), OriginalURL: sent("original_url"), ShortCode: sent("short_code"), Title: sent("title"),
		UserID: whole[int64](sent("user_id")), RedirectStatus: whole[int](sent("redirect_status")),
	}
	in.Tags.Sent, in.Tags.Value = v.Has("tags") && !untouched(v, "tags"), tagsOf(v.Get("tags"))
	if expires := sent("expires_at"); expires.Sent {
		in.ExpiresAt.Sent, in.ExpiresAt.Null = true, expires.Value == ""
		if !in.ExpiresAt.Null {
			t, err := time.ParseInLocation(localTime, expires.Value, loc)
			in.ExpiresAt.Value, in.ExpiresAt.Wrong = t, err != nil
		}
	}
	// A box that is not ticked is not sent; a hidden field before it says that there is one.
	in.ForwardQuery.Sent = v.Has("forward_query") && !untouched(v, "forward_query")
	in.ForwardQuery.Value = slices.Contains(v.Values["forward_query"], "true")
	return in
}

// shown is before the names of hidden fields with the values that a form was shown with.
const shown = "shown_"

// untouched reports whether a field has the value that its form was shown with.
func untouched(v Values, name string) bool {
	all := v.Values[name]
	return v.Has(shown+name) && len(all) > 0 && all[len(all)-1] == v.Get(shown+name)
}

// shownFields returns the hidden fields of a form for a change.
func shownFields(v Values) map[string]string {
	fields := map[string]string{}
	for name, all := range v.Values {
		if strings.HasPrefix(name, shown) {
			fields[name] = all[0]
		}
	}
	return fields
}

// valuesOf returns the values of a form for a link as it is.
func valuesOf(l service.Link, loc *time.Location) Values {
	v := Values{url.Values{}}
	v.Set("original_url", l.OriginalURL)
	v.Set("short_code", l.ShortCode)
	v.Set("domain", l.Domain)
	v.Set("tags", strings.Join(l.Tags, ", "))
	v.Set("user_id", strconv.FormatInt(l.UserID, 10))
	v.Set("redirect_status", strconv.Itoa(l.RedirectStatus))
	v.Set("forward_query", strconv.FormatBool(l.ForwardQuery))
	if l.Title != nil {
		v.Set("title", *l.Title)
	}
	if l.ExpiresAt != nil {
		v.Set("expires_at", l.ExpiresAt.In(loc).Format(localTime))
	}
	for _, name := range []string{"original_url", "short_code", "domain", "tags", "user_id", "redirect_status", "forward_query", "title", "expires_at"} {
		v.Set(shown+name, v.Get(name))
	}
	return v
}

// localTime is how browsers send a time of the viewer's zone.
const localTime = "2006-01-02T15:04"

func given(value string) service.Optional[string] {
	return service.Optional[string]{Value: value, Sent: true}
}

// whole returns the whole number in a field.
func whole[T int | int64](o service.Optional[string]) service.Optional[T] {
	n, err := strconv.ParseInt(o.Value, 10, 64)
	return service.Optional[T]{Value: T(n), Sent: o.Sent, Wrong: err != nil || int64(T(n)) != n}
}

// tagsOf returns the tags in a text with commas between them.
func tagsOf(text string) []string {
	tags := []string{}
	for tag := range strings.SplitSeq(text, ",") {
		if tag = strings.TrimSpace(tag); tag != "" {
			tags = append(tags, tag)
		}
	}
	return tags
}
