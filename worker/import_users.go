package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// userRows is rows of users.
type userRows struct {
	run   *importRun
	users []csvimport.User
}

func (r *userRows) add(record csvimport.Record) *csvimport.Reject {
	user, reject := r.run.parser.User(record)
	if reject == nil {
		r.users = append(r.users, user)
	}
	return reject
}

func (r *userRows) size() int        { return len(r.users) }
func (r *userRows) line(i int) int64 { return r.users[i].Line }

func (r *userRows) prepare(context.Context) error { return nil }

func (r *userRows) references(context.Context, *queries.Queries, []int) (map[int]fault, error) {
	return nil, nil
}

func (r *userRows) keys(ctx context.Context, q *queries.Queries, of []int) (map[int][]claim, error) {
	var p queries.FindUserKeyOwnersParams
	index := make(map[int64]int, len(of))
	for _, i := range of {
		u := &r.users[i]
		index[u.Line] = i
		p.Lines = append(p.Lines, u.Line)
		p.Ids = append(p.Ids, or(u.ID, 0))
		p.Usernames = append(p.Usernames, u.Username)
		p.Emails = append(p.Emails, u.Email)
	}
	found, err := q.FindUserKeyOwners(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("look for owners of the keys of users: %w", err)
	}
	claims := make(map[int][]claim, len(of))
	for _, f := range found {
		i := index[f.Line]
		if id := r.users[i].ID; id != nil {
			claims[i] = append(claims[i], claim{idKey(*id), true, owner(f.IDOwner)})
		}
		claims[i] = append(claims[i],
			claim{uniqueKey{"username", f.UsernameKey}, true, owner(f.UsernameOwner)},
			claim{uniqueKey{"email", f.EmailKey}, false, owner(f.EmailOwner)})
	}
	return claims, nil
}

func idKey(id int64) uniqueKey { return uniqueKey{"id", strconv.FormatInt(id, 10)} }

func (r *userRows) lock(ctx context.Context, q *queries.Queries, ids []int64) (map[owner][]uniqueKey, error) {
	found, err := q.LockUserKeys(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("lock users: %w", err)
	}
	held := make(map[owner][]uniqueKey, len(found))
	for _, f := range found {
		held[owner(f.ID)] = []uniqueKey{idKey(f.ID), {"username", f.UsernameKey}, {"email", f.EmailKey}}
	}
	return held, nil
}

// redraw moves the sequence beyond ids that were taken by others. It is beyond those of
// the file since the upload ended.
func (r *userRows) redraw(ctx context.Context, q *queries.Queries, missing int) error {
	return postgres.PassTaken(ctx, q.LastTakenUserID, queries.New(r.run.deps.pool).MoveUsersSequence, int64(missing))
}

func (r *userRows) insert(ctx context.Context, q *queries.Queries, of []int) (map[int64]int64, error) {
	p := queries.ImportUsersParams{ImportID: &r.run.row.ID}
	for _, i := range of {
		u := &r.users[i]
		p.Lines = append(p.Lines, u.Line)
		p.Ids = append(p.Ids, or(u.ID, 0))
		p.Usernames = append(p.Usernames, u.Username)
		p.Emails = append(p.Emails, u.Email)
		p.CreatedAts = append(p.CreatedAts, or(u.CreatedAt, time.Time{}))
	}
	found, err := q.ImportUsers(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("insert users: %w", err)
	}
	ids := make(map[int64]int64, len(found))
	for _, f := range found {
		ids[or(f.ImportLine, 0)] = f.ID
	}
	return ids, nil
}

func (r *userRows) update(ctx context.Context, q *queries.Queries, of []int, ids []int64) (map[int64]json.RawMessage, error) {
	p := queries.UpdateImportedUsersParams{Ids: ids}
	for _, i := range of {
		u := &r.users[i]
		p.Lines = append(p.Lines, u.Line)
		p.Emails = append(p.Emails, u.Email)
		p.CreatedAts = append(p.CreatedAts, or(u.CreatedAt, time.Time{}))
	}
	found, err := q.UpdateImportedUsers(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("update users: %w", err)
	}
	before := make(map[int64]json.RawMessage, len(found))
	for _, f := range found {
		before[f.Line] = f.Before
	}
	return before, nil
}

func (r *userRows) count(context.Context, *queries.Queries, []int) error { return nil }

func (r *userRows) notices([]int) []csvimport.Notice { return nil }
