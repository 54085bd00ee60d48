package service

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

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

// UserFields are the fields of a user that a request may set.
type UserFields struct {
	Username Optional[string]
	Email    Optional[string]
}

// Check returns the faults of the fields.
func (u UserFields) Check() Faults {
	var f Faults
	Check(&f, "username", u.Username, "a string", false, links.CheckUsername)
	Check(&f, "email", u.Email, "a string", false, links.CheckEmail)
	return f
}

var errNoUser = NotFound("user")

// ListUsers returns a page of the users, in the order of their ids.
func (s *Service) ListUsers(ctx context.Context, actor Actor, p Page) ([]User, error) {
	if err := actor.Require(ReadsUsers); err != nil {
		return nil, err
	}
	rows, err := s.lists().ListUsers(ctx, p.After, p.Offset, p.Limit)
	return views(rows, func(r queries.ListUsersRow) User { return viewUser(r.ID, r.Username, r.Email, r.CreatedAt) }), err
}

// SearchUsers is ListUsers for the users with a text in their name or e-mail address; ""
// for all. If next is not 0, the list goes on behind this id, though the page may have
// fewer users than its limit.
func (s *Service) SearchUsers(ctx context.Context, actor Actor, search string, p Page) (users []User, next int64, err error) {
	if search == "" {
		users, err = s.ListUsers(ctx, actor, p)
		return users, 0, err
	}
	if err := actor.Require(ReadsUsers); err != nil {
		return nil, 0, err
	}
	if strings.Contains(search, "\n") {
		return nil, 0, nil // no name or address has one; the index has it between them
	}
	if p.Offset > maxSifted {
		return nil, 0, ErrTooDeep
	}
	users, next, err = s.walkUsers(ctx, search, p, firstUsers*s.Reach.First)
	if err != nil || next == 0 {
		return users, 0, err
	}
	if found, next, ok, err := s.findUsers(ctx, search, p); ok || err != nil {
		return found, next, err
	}
	users, next, err = s.walkUsers(ctx, search, p, s.Reach.Long)
	if next != 0 && p.Offset > 0 {
		return nil, 0, ErrTooDeep
	}
	return users, next, err
}

// firstUsers is how many times further than links users are walked at first: they are
// shorter, so that it takes some ten milliseconds and mostly finds what a hundredth of all
// have. To find those by the index would take longer.
const firstUsers = 5

// walkUsers reads up to reach users behind the beginning of a page. edge is the last of
// them if neither the page is full nor the list has ended; otherwise 0.
func (s *Service) walkUsers(ctx context.Context, search string, p Page, reach int64) (users []User, edge int64, err error) {
	rows, err := s.lists().WalkUsers(ctx, queries.WalkUsersParams{
		AfterID: p.After, Search: *containing(search), WalkLimit: reach, RowLimit: p.Offset + p.Limit,
	})
	if err != nil {
		return nil, 0, err
	}
	for _, r := range rows {
		if r.Passes {
			users = append(users, viewUser(r.ID, r.Username, r.Email, r.CreatedAt))
		}
		if r.IsEdge {
			edge = r.ID
		}
	}
	users = users[min(int(p.Offset), len(users)):]
	if len(users) == int(p.Limit) {
		edge = 0
	}
	return users, edge, nil
}

// findUsers reads a page by the index, which has to read all users with the text. It
// returns false if they are too many or take too long. If some of the page were
// deleted meanwhile, next says where the list goes on.
func (s *Service) findUsers(ctx context.Context, search string, p Page) (users []User, next int64, ok bool, err error) {
	var found queries.FindUsersRow
	err = postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		q := queries.New(queries.Planned{DBTX: tx})
		if err := q.PreferBitmaps(ctx, s.Reach.Timeout.Milliseconds()); err != nil {
			return err
		}
		var err error
		found, err = q.FindUsers(ctx, queries.FindUsersParams{
			AfterID: p.After, Search: *containing(search), RowOffset: p.Offset, RowLimit: p.Limit, FoundLimit: int64(s.Reach.Matches) + 1,
		})
		return err
	})
	if ctx.Err() == nil && postgres.StatementTimeout(err) || found.Found > int64(s.Reach.Matches) {
		return nil, 0, false, nil
	}
	if err != nil {
		return nil, 0, false, err
	}
	rows, err := s.lists().GetUsers(ctx, found.Ids)
	if err == nil && len(rows) < len(found.Ids) {
		next = found.Ids[len(found.Ids)-1]
	}
	return views(rows, func(r queries.GetUsersRow) User { return viewUser(r.ID, r.Username, r.Email, r.CreatedAt) }), next, err == nil, err
}

// nextUsers returns the next users of a list that is read to its end, up to the limit;
// fewer only if there are no more.
func (s *Service) nextUsers(ctx context.Context, actor Actor, search string, p Page) (users []User, err error) {
	for p.Limit > 0 {
		more, next, err := s.SearchUsers(ctx, actor, search, p)
		if err != nil {
			return nil, err
		}
		users = append(users, more...)
		if next == 0 {
			break
		}
		p = Page{After: next, Limit: p.Limit - int32(len(more))}
	}
	return users, nil
}

// GetUser returns a user.
func (s *Service) GetUser(ctx context.Context, actor Actor, id int64) (User, error) {
	if err := actor.Require(ReadsUsers); err != nil {
		return User{}, err
	}
	u, err := queries.New(s.Pool).GetUser(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return User{}, errNoUser
	}
	return viewUser(u.ID, u.Username, u.Email, u.CreatedAt), err
}

// FindUser returns the user with a name, whatever the case of its letters.
func (s *Service) FindUser(ctx context.Context, actor Actor, name string) (User, error) {
	if err := actor.Require(ReadsUsers); err != nil {
		return User{}, err
	}
	u, err := queries.New(s.Pool).GetUserByName(ctx, name)
	if errors.Is(err, pgx.ErrNoRows) {
		return User{}, errNoUser
	}
	return viewUser(u.ID, u.Username, u.Email, u.CreatedAt), err
}

// CreateUser makes a user. Both fields are required.
func (s *Service) CreateUser(ctx context.Context, actor Actor, in UserFields, once *Once) (User, error) {
	if err := actor.Require(WritesUsers); err != nil {
		return User{}, err
	}
	f := in.Check()
	if !in.Username.Sent {
		f.Add("username", "is required")
	}
	if !in.Email.Sent {
		f.Add("email", "is required")
	}
	if err := f.Err(); err != nil {
		return User{}, err
	}
	return create(ctx, s, once, func(q *queries.Queries) (User, string, error) {
		u, err := q.CreateUser(ctx, in.Username.Value, in.Email.Value)
		if err != nil {
			return User{}, "", err
		}
		user := viewUser(u.ID, u.Username, u.Email, u.CreatedAt)
		return user, user.Path(), recordUser(ctx, q, actor, "created", user, nil)
	})
}

// Path is the path of the user in the API.
func (u User) Path() string { return "/users/" + strconv.FormatInt(u.ID, 10) }

// UpdateUser changes the fields that were sent.
func (s *Service) UpdateUser(ctx context.Context, actor Actor, id int64, in UserFields) (user User, err error) {
	if err := actor.Require(WritesUsers); err != nil {
		return User{}, err
	}
	if err := in.Check().Err(); err != nil {
		return User{}, err
	}
	err = s.inTx(ctx, func(q *queries.Queries) error {
		u, err := q.LockUser(ctx, id)
		if err != nil {
			return err
		}
		user = viewUser(u.ID, u.Username, u.Email, u.CreatedAt)
		changes := changes{}
		change(changes, "username", &user.Username, in.Username)
		change(changes, "email", &user.Email, in.Email)
		if len(changes) == 0 {
			return nil
		}
		if _, err := q.UpdateUser(ctx, user.Username, user.Email, user.ID); err != nil {
			return err
		}
		return recordUser(ctx, q, actor, "updated", user, changes)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = errNoUser
	}
	return user, err
}

// forgetAtOnce bounds how many events are looked at in the transaction that deletes a
// user. The worker's pruning does the older ones later.
const forgetAtOnce = 1000

// DeleteUser removes a user who owns no links, and removes the user's name from events.
func (s *Service) DeleteUser(ctx context.Context, actor Actor, id int64) error {
	if err := actor.Require(WritesUsers); err != nil {
		return err
	}
	err := s.inTx(ctx, func(q *queries.Queries) error {
		u, err := q.LockUser(ctx, id)
		if err != nil {
			return err
		}
		if _, err := q.DeleteUser(ctx, u.ID); err != nil {
			return err
		}
		// Neither the event of the deletion nor earlier events say any longer who the
		// user was.
		if err := recordUser(ctx, q, actor, "deleted", User{ID: u.ID}, nil); err != nil {
			return err
		}
		return q.ForgetUser(ctx, &u.ID, forgetAtOnce)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errNoUser
	case postgres.Constraint(err) == "urls_user_id_fkey":
		return Conflict("the user still owns links")
	}
	return err
}

// recordUser writes the event of a change of a user, in the transaction of q.
func recordUser(ctx context.Context, q *queries.Queries, actor Actor, event string, u User, c changes) error {
	details := changeDetails{Entity: "user", Username: u.Username, Email: u.Email, Changes: c}
	return record(ctx, q, actor, event, nil, &u.ID, details)
}
