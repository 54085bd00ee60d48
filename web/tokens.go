package web

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/signpost/signpost/internal/service"
)

// tokensPage lists the tokens.
type tokensPage struct {
	Rows  []tokenRow
	Pages pages
}

type tokenRow struct {
	service.Token
	State         string // active, expired or revoked
	Made          moment
	Used, Expires *moment
	IsOwn         bool
	Path          string // to revoke it; "" if it has ended
}

func (w *Web) tokens(ctx context.Context, r *Request) (*Answer, error) {
	found, next, err := listPage(ctx, r, w.Service.ListTokens, func(t service.Token) int64 { return t.ID })
	if err != nil {
		return nil, err
	}
	loc := w.place(r)
	p := tokensPage{Pages: next}
	for _, t := range found {
		row := tokenRow{
			Token: t, State: "active", Made: momentOf(t.CreatedAt, loc), Used: momentAt(t.LastUsedAt, loc), Expires: momentAt(t.ExpiresAt, loc),
			IsOwn: t.ID == r.Actor.Token(),
		}
		switch {
		case t.RevokedAt != nil:
			row.State = "revoked"
		case t.ExpiresAt != nil && !t.ExpiresAt.After(now()):
			row.State = "expired"
		default:
			row.Path = tokenPath(t.ID) + "/revoke"
		}
		p.Rows = append(p.Rows, row)
	}
	return w.page(r, 200, "Tokens", "tokens.html", p)
}

func tokenPath(id int64) string { return "/app/tokens/" + strconv.FormatInt(id, 10) }

// roles are the roles of tokens, with what each may do.
var roles = []option{
	{"reader", "reader: sees links, statistics, events, users and imports"},
	{"editor", "editor: also makes, changes and imports links"},
	{"admin", "admin: may do everything"},
}

func (w *Web) tokenForm(r *Request, status int, v Values, errors fieldErrors) (*Answer, error) {
	role := v.Get("role")
	if role == "" {
		role = roles[0].Value
	}
	return w.form(r, status, formPage{
		Title: "New token", Back: "/app/tokens", Button: "Make the token", Errors: errors, Shown: map[string]string{"key": newKey()},
		Hints: []string{"Whoever has the token can sign in here and use the API, until it ends or is revoked."},
		Fields: []formField{
			{Name: "name", Label: "For whom or what", Value: v.Get("name"), Placeholder: "deploy script"},
			{Name: "role", Label: "Role", Value: role, Options: roles},
			{Name: "expires_at", Label: "Ends at", Type: "datetime-local", Value: v.Get("expires_at"), Hint: "In " + w.place(r).String() + ". Never, if it is empty."},
		},
	})
}

func (w *Web) newToken(_ context.Context, r *Request) (*Answer, error) {
	return w.tokenForm(r, 200, r.Query, nil)
}

// tokenPage shows a new token, this once.
type tokenPage struct {
	service.Token
	Secret string // "" if the form was sent before, and it was shown then
	Curl   string // a command that uses it
}

func (w *Web) createToken(ctx context.Context, r *Request) (*Answer, error) {
	in := service.TokenFields{Name: r.Form.field("name", true, false), Role: r.Form.field("role", true, false)}
	if expires := r.Form.field("expires_at", true, false); expires.Sent {
		at, err := time.ParseInLocation(localTime, expires.Value, w.place(r))
		in.ExpiresAt.Optional = service.Optional[time.Time]{Value: at, Sent: true, Wrong: err != nil}
	}
	var secret string
	key := onceOf(r, "POST /tokens")
	token, err := once(ctx, w, key, func() (token service.Token, err error) {
		token, secret, err = w.Service.CreateToken(ctx, r.Actor, in, key)
		return token, err
	})
	if faults, status, ok := asFields(err); ok {
		return w.tokenForm(r, status, r.Form, faults)
	} else if err != nil {
		return nil, err
	}
	return w.page(r, http.StatusCreated, "A new token", "token.html", tokenPage{
		token, secret, fmt.Sprintf(`curl -H "Authorization: Bearer %s" %s/urls`, secret, r.Origin),
	})
}

func (w *Web) askRevokeToken(_ context.Context, r *Request) (*Answer, error) {
	p := askPage{
		Title: "Revoke the token?", Back: "/app/tokens", Button: "Revoke",
		Text: []string{"Whoever uses it is refused at once, and signed out of the dashboard. It stays in the list, and cannot be used again."},
	}
	if r.ID == r.Actor.Token() {
		p.Text = append(p.Text, "It is the one with which you are signed in: you will be signed out.")
	}
	return w.ask(r, 200, p)
}

func (w *Web) revokeToken(ctx context.Context, r *Request) (*Answer, error) {
	return seeOther("/app/tokens?done=token-revoked"), w.Service.RevokeToken(ctx, r.Actor, r.ID)
}
