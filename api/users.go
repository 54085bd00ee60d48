package api

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// User owns links.
type User struct {
	ID        int64     `json:"id" example:"42"`
	Username  string    `json:"username" example:"ann"`
	Email     string    `json:"email" example:"ann@example.com"`
	CreatedAt time.Time `json:"created_at"`
}

func viewUser(id int64, username, email string, createdAt time.Time) User {
	return User{ID: id, Username: username, Email: email, CreatedAt: createdAt.UTC()}
}

// userFields are what a request may say about a user. The two bodies differ
// from it in their tags only.
type userFields struct {
	Username Optional[string]
	Email    Optional[string]
}

// UserCreate is the body that makes a user.
type UserCreate struct {
	Username Optional[string] `json:"username" required:"true" minLength:"1" maxLength:"64" example:"ann" doc:"Unique, whatever the case of its letters."`
	Email    Optional[string] `json:"email" required:"true" minLength:"3" maxLength:"254" example:"ann@example.com" doc:"Unique, whatever the case of its letters."`
}

// UserUpdate is the body that changes a user: fields that are absent stay.
type UserUpdate struct {
	Username Optional[string] `json:"username" required:"false" minLength:"1" maxLength:"64" example:"ann"`
	Email    Optional[string] `json:"email" required:"false" minLength:"3" maxLength:"254" example:"ann@example.com"`
}

// Resolve implements huma.Resolver.
func (u *UserCreate) Resolve(huma.Context) []error { return userFields(*u).check() }

// Resolve implements huma.Resolver.
func (u *UserUpdate) Resolve(huma.Context) []error { return userFields(*u).check() }

func (u userFields) check() []error {
	var f faults
	check(&f, "username", u.Username, "a string", false, links.CheckUsername)
	check(&f, "email", u.Email, "a string", false, links.CheckEmail)
	return f
}

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

type userListInput struct{ ExportInput }

func (a *API) listUsers(ctx context.Context, in *userListInput) (*listOutput[User], error) {
	at, err := in.position("users", 0)
	if err != nil {
		return nil, err
	}
	rows, err := a.lists().ListUsers(ctx, at[0], int32(in.offset()), in.rows())
	if err != nil {
		return nil, err
	}
	return newList(&in.PageInput, rows, viewListedUser,
		func(r queries.ListUsersRow) string { return makeCursor("users", r.ID) })
}

func viewListedUser(r queries.ListUsersRow) User {
	return viewUser(r.ID, r.Username, r.Email, r.CreatedAt)
}

func (a *API) getUser(ctx context.Context, in *IDInput) (*userOutput, error) {
	u, err := queries.New(a.Pool).GetUser(ctx, in.ID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound("user")
	}
	if err != nil {
		return nil, err
	}
	return &userOutput{viewUser(u.ID, u.Username, u.Email, u.CreatedAt)}, nil
}

func (a *API) createUser(ctx context.Context, in *userCreateInput) (*userCreatedOutput, error) {
	location, user, err := create(ctx, a, func(q *queries.Queries) (string, User, error) {
		u, err := q.CreateUser(ctx, in.Body.Username.Value, in.Body.Email.Value)
		if err != nil {
			return "", User{}, err
		}
		user := viewUser(u.ID, u.Username, u.Email, u.CreatedAt)
		return "/users/" + strconv.FormatInt(user.ID, 10), user, recordUser(ctx, q, "created", user, nil)
	})
	if err != nil {
		return nil, err
	}
	return &userCreatedOutput{Location: location, Body: user}, nil
}

// updateUser serves PUT and PATCH: both take a partial body.
func (a *API) updateUser(ctx context.Context, in *userUpdateInput) (*userOutput, error) {
	var user User
	err := a.inTx(ctx, func(q *queries.Queries) error {
		u, err := q.LockUser(ctx, in.ID)
		if err != nil {
			return err
		}
		user = viewUser(u.ID, u.Username, u.Email, u.CreatedAt)
		changes := changes{}
		change(changes, "username", &user.Username, in.Body.Username)
		change(changes, "email", &user.Email, in.Body.Email)
		if len(changes) == 0 {
			return nil
		}
		if _, err := q.UpdateUser(ctx, user.Username, user.Email, user.ID); err != nil {
			return err
		}
		return recordUser(ctx, q, "updated", user, changes)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound("user")
	}
	if err != nil {
		return nil, err
	}
	return &userOutput{user}, nil
}

// forgetAtOnce bounds the events that deleting a user looks at in one transaction.
// The worker's pruning comes to what is older.
const forgetAtOnce = 1000

func (a *API) deleteUser(ctx context.Context, in *IDInput) (*struct{}, error) {
	err := a.inTx(ctx, func(q *queries.Queries) error {
		u, err := q.LockUser(ctx, in.ID)
		if err != nil {
			return err
		}
		if _, err := q.DeleteUser(ctx, u.ID); err != nil {
			return err
		}
		// Neither its own event nor those before it say any longer who it was.
		if err := recordUser(ctx, q, "deleted", User{ID: u.ID}, nil); err != nil {
			return err
		}
		return q.ForgetUser(ctx, &u.ID, forgetAtOnce)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, notFound("user")
	case postgres.Constraint(err) == "urls_user_id_fkey":
		return nil, conflict("the user still owns links")
	}
	return nil, err
}
