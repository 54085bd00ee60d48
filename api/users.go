package api

import (
	"context"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/signpost/signpost/internal/service"
)

// User owns links.
type User = service.User

// UserCreate is the body that makes a user.
type UserCreate struct {
	Username Optional[string] `json:"username" required:"true" minLength:"1" maxLength:"64" example:"ann" doc:"Unique, whatever the case of its letters."`
	Email    Optional[string] `json:"email" required:"true" minLength:"3" maxLength:"254" example:"ann@example.com" doc:"Unique, whatever the case of its letters."`
}

// UserUpdate is the body that changes a user: absent fields stay as they are.
type UserUpdate struct {
	Username Optional[string] `json:"username" required:"false" minLength:"1" maxLength:"64" example:"ann"`
	Email    Optional[string] `json:"email" required:"false" minLength:"3" maxLength:"254" example:"ann@example.com"`
}

func (u *UserCreate) fields() service.UserFields {
	return service.UserFields{Username: u.Username.Optional, Email: u.Email.Optional}
}

func (u *UserUpdate) fields() service.UserFields { return (*UserCreate)(u).fields() }

// Resolve implements huma.Resolver.
func (u *UserCreate) Resolve(huma.Context) []error { return bodyFaults(u.fields().Check()) }

// Resolve implements huma.Resolver.
func (u *UserUpdate) Resolve(huma.Context) []error { return bodyFaults(u.fields().Check()) }

type (
	userCreateInput struct{ Body UserCreate }
	userUpdateInput struct {
		IDInput
		Body UserUpdate
	}
	userOutput        struct{ Body User }
	userCreatedOutput struct {
		Location string `header:"Location" doc:"Path of the new user."`
		Body     User
	}
)

type userListInput struct {
	ExportInput
	Search string `query:"search" doc:"Only users with this text in their name or e-mail address, whatever the case; three letters or digits in a row at least."`
}

// Resolve implements huma.Resolver.
func (in *userListInput) Resolve(h huma.Context) []error {
	return append(in.ExportInput.Resolve(h), checkSearch(in.Search)...)
}

func (a *API) listUsers(ctx context.Context, in *userListInput) (*listOutput[User], error) {
	next := int64(0)
	list := func(ctx context.Context, actor Actor, p service.Page) (users []User, err error) {
		users, next, err = a.service.SearchUsers(ctx, actor, strings.Clone(in.Search), p)
		return users, err
	}
	out, err := listRows(ctx, &in.PageInput, "users", list, func(u User) int64 { return u.ID })
	if err == nil && out.Body.NextCursor == nil && next != 0 {
		cursor := makeCursor("users", next)
		out.Body.NextCursor = &cursor
	}
	return out, err
}

// exportUsers exports the users that listUsers would list, all of them.
func (a *API) exportUsers(ctx context.Context, in *userListInput) (service.Export, error) {
	after, err := in.after("users")
	if err != nil {
		return service.Export{}, err
	}
	return a.service.ExportUsers(ctx, actorIn(ctx), strings.Clone(in.Search), after, int32(in.offset()))
}

func (a *API) getUser(ctx context.Context, in *IDInput) (*userOutput, error) {
	user, err := a.service.GetUser(ctx, actorIn(ctx), in.ID)
	return &userOutput{user}, err
}

func (a *API) createUser(ctx context.Context, in *userCreateInput) (*userCreatedOutput, error) {
	user, err := a.service.CreateUser(ctx, actorIn(ctx), in.Body.fields(), onceOf(ctx))
	return &userCreatedOutput{Location: user.Path(), Body: user}, err
}

// updateUser serves PUT and PATCH: both take a partial body.
func (a *API) updateUser(ctx context.Context, in *userUpdateInput) (*userOutput, error) {
	user, err := a.service.UpdateUser(ctx, actorIn(ctx), in.ID, in.Body.fields())
	return &userOutput{user}, err
}

func (a *API) deleteUser(ctx context.Context, in *IDInput) (*struct{}, error) {
	return nil, a.service.DeleteUser(ctx, actorIn(ctx), in.ID)
}
