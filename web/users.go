package web

import (
	"context"
	"fmt"
	"strconv"

	"github.com/signpost/signpost/internal/service"
)

// usersPage lists the users.
type usersPage struct {
	Search   string
	Rows     []userRow
	Pages    pages
	Export   string // the path of a file of all that are found
	CanWrite bool
	Errors   fieldErrors
}

type userRow struct {
	service.User
	Made moment
	Path string
}

func (w *Web) users(ctx context.Context, r *Request) (*Answer, error) {
	p := usersPage{Search: r.Query.text("q"), Export: r.Query.only("q").href("/app/users/export", "format", "csv"), CanWrite: r.may(service.WritesUsers)}
	if err := checkUserSearch(p.Search); err != nil {
		faults, status, _ := asFields(err)
		p.Errors = faults
		return w.page(r, status, "Users", "users.html", p)
	}
	next := int64(0)
	list := func(ctx context.Context, actor service.Actor, at service.Page) (users []service.User, err error) {
		users, next, err = w.Service.SearchUsers(ctx, actor, p.Search, at)
		return users, err
	}
	found, pages, err := listPage(ctx, r, list, func(u service.User) int64 { return u.ID })
	if err != nil {
		return nil, err
	}
	if pages.Next == "" && next != 0 {
		pages.Next = r.Query.href(r.Path, "after", strconv.FormatInt(next, 10), "done", "")
	}
	p.Pages = pages
	for _, u := range found {
		p.Rows = append(p.Rows, userRow{u, momentOf(u.CreatedAt, w.place(r)), userPath(u.ID)})
	}
	return w.page(r, 200, "Users", "users.html", p)
}

// checkUserSearch returns the fault of a text that cannot be searched for.
func checkUserSearch(text string) error {
	var faults service.Faults
	for _, f := range (service.LinkList{Search: text}).Check() {
		faults.Add("q", f.Message)
	}
	return faults.Err()
}

// exportUsers sends all users, or those with a text, as a file.
func (w *Web) exportUsers(ctx context.Context, r *Request) (*Answer, error) {
	search := r.Query.text("q")
	if err := checkUserSearch(search); err != nil {
		return nil, err
	}
	source, err := w.Service.ExportUsers(ctx, r.Actor, search, 0, 0)
	return &Answer{Status: 200, Export: &source, Format: r.Query.text("format")}, err
}

func userPath(id int64) string { return "/app/users/" + strconv.FormatInt(id, 10) }

func userForm(v Values, title, button string, errors fieldErrors) formPage {
	return formPage{
		Title: title, Back: "/app/users", Button: button, Shown: shownFields(v), Errors: errors,
		Hints: []string{"Links belong to users. To sign in, somebody needs a token."},
		Fields: []formField{
			{Name: "username", Label: "Name", Value: v.Get("username")},
			{Name: "email", Label: "E-mail address", Type: "email", Value: v.Get("email")},
		},
	}
}

func userFields(v Values, fresh bool) service.UserFields {
	return service.UserFields{Username: v.field("username", fresh, false), Email: v.field("email", fresh, false)}
}

func (w *Web) newUser(_ context.Context, r *Request) (*Answer, error) {
	return w.newUserForm(r, 200, r.Query, nil)
}

func (w *Web) newUserForm(r *Request, status int, v Values, errors fieldErrors) (*Answer, error) {
	f := userForm(v, "New user", "Add the user", errors)
	f.Shown["key"] = newKey()
	return w.form(r, status, f)
}

func (w *Web) createUser(ctx context.Context, r *Request) (*Answer, error) {
	key := onceOf(r, "POST /users")
	_, err := once(ctx, w, key, func() (service.User, error) {
		return w.Service.CreateUser(ctx, r.Actor, userFields(r.Form, true), key)
	})
	if faults, status, ok := asFields(err); ok {
		return w.newUserForm(r, status, r.Form, faults)
	}
	return seeOther("/app/users?done=user-made"), err
}

func (w *Web) editUser(ctx context.Context, r *Request) (*Answer, error) {
	u, err := w.Service.GetUser(ctx, r.Actor, r.ID)
	if err != nil {
		return nil, err
	}
	v := shownAs(map[string]string{"username": u.Username, "email": u.Email})
	return w.form(r, 200, userForm(v, "Edit "+u.Username, "Save", nil))
}

func (w *Web) changeUser(ctx context.Context, r *Request) (*Answer, error) {
	_, err := w.Service.UpdateUser(ctx, r.Actor, r.ID, userFields(r.Form, false))
	if faults, status, ok := asFields(err); ok {
		return w.form(r, status, userForm(r.Form, "Edit a user", "Save", faults))
	}
	return seeOther("/app/users?done=changed"), err
}

func (w *Web) askDeleteUser(ctx context.Context, r *Request) (*Answer, error) {
	return w.askDeleteUserAgain(ctx, r, 200, "")
}

func (w *Web) askDeleteUserAgain(ctx context.Context, r *Request, status int, fault string) (*Answer, error) {
	u, err := w.Service.GetUser(ctx, r.Actor, r.ID)
	if err != nil {
		return nil, err
	}
	return w.ask(r, status, askPage{
		Title: fmt.Sprintf("Delete %s?", u.Username), Back: "/app/users", Button: "Delete", Fault: sentence(fault),
		Text:    []string{"A user who owns links cannot be deleted: give the links to somebody else before, or delete them. The name and address of the user are also taken out of the record of changes."},
		Instead: &choice{Name: "See the links", Href: "/app/links?user_id=" + strconv.FormatInt(u.ID, 10)},
	})
}

func (w *Web) deleteUser(ctx context.Context, r *Request) (*Answer, error) {
	err := w.Service.DeleteUser(ctx, r.Actor, r.ID)
	if faults, status, ok := asFields(err); ok {
		return w.askDeleteUserAgain(ctx, r, status, faults[""])
	}
	return seeOther("/app/users?done=user-deleted"), err
}
