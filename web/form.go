package web

import (
	"context"
	"strconv"

	"github.com/signpost/signpost/internal/service"
)

// formPage is a form of a few fields.
type formPage struct {
	Title, Action, Back, Button string
	Hints                       []string
	Fields                      []formField
	Shown                       map[string]string // the hidden fields, with the values before
	Errors                      fieldErrors
}

// formField is a field of a form. With Options it is one to choose from.
type formField struct {
	Name, Label, Type, Value, Placeholder, Hint string
	Options                                     []option
}

// option is a value among which one chooses.
type option struct{ Value, Name string }

// form makes the page of a form. The first field gets the focus unless another is wrong.
func (w *Web) form(r *Request, status int, f formPage) (*Answer, error) {
	f.Action = r.Path
	return w.page(r, status, f.Title, "form.html", f)
}

// askPage asks whether something that cannot be undone is to be done.
type askPage struct {
	Title, Action, Back, Button string
	Text                        []string
	Hidden                      map[string]string
	Fault                       string // why it could not be done
	Instead                     *choice
}

// ask makes the page of a question.
func (w *Web) ask(r *Request, status int, p askPage) (*Answer, error) {
	p.Action = r.Path
	return w.page(r, status, p.Title, "ask.html", p)
}

// field returns the field of a form as the input of a service. A field that is empty in a
// new thing is absent, and one that nobody has touched in a change is too; where a change
// may clear the field, an empty one is null.
func (v Values) field(name string, fresh, clears bool) service.Optional[string] {
	value := given(v.text(name))
	value.Sent = v.Has(name) && !untouched(v, name) && (value.Value != "" || !fresh)
	value.Null = clears && value.Value == ""
	return value
}

// shownAs returns a form's values for a thing as it is, with what they were shown with.
func shownAs(values map[string]string) Values {
	v := Values{map[string][]string{}}
	for name, value := range values {
		v.Set(name, value)
		v.Set(shown+name, value)
	}
	return v
}

// pages leads to the other pages of a list.
type pages struct{ First, Next string }

// onPage is how many rows a page of a list in the order of ids has.
const onPage = 50

// listPage reads a page of a list in the order of ids.
func listPage[T any](ctx context.Context, r *Request, list func(context.Context, service.Actor, service.Page) ([]T, error), id func(T) int64) (rows []T, p pages, err error) {
	after, err := strconv.ParseInt(r.Query.text("after"), 10, 64)
	if err != nil || after < 0 {
		after = 0
	}
	if rows, err = list(ctx, r.Actor, service.Page{After: after, Limit: onPage + 1}); err != nil {
		return nil, p, err
	}
	if after > 0 {
		p.First = r.Query.href(r.Path, "after", "", "done", "")
	}
	if len(rows) > onPage {
		rows = rows[:onPage]
		p.Next = r.Query.href(r.Path, "after", strconv.FormatInt(id(rows[onPage-1]), 10), "done", "")
	}
	return rows, p, nil
}
