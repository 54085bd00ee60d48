package service

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/signpost/signpost/queries"
)

// A session ends when it was not used for SessionIdle, and SessionLife after it began.
const (
	SessionIdle = 7 * 24 * time.Hour
	SessionLife = 30 * 24 * time.Hour
)

// Session is a browser that was signed in with a token.
type Session struct {
	ID        int64
	Agent     string // the browser and its system, as far as they are known
	CreatedAt time.Time
	UsedAt    time.Time // to the minute
}

// ListSessions returns the sessions of the actor's token, the last used first. Those of a
// former ADMIN_TOKEN are not among them.
func (s *Service) ListSessions(ctx context.Context, actor Actor) ([]Session, error) {
	if err := actor.Require(RoleReader); err != nil {
		return nil, err
	}
	p := queries.ListSessionsParams{TokenID: actor.TokenID, IdleFor: Interval(SessionIdle), LivesFor: Interval(SessionLife)}
	if actor.TokenID == nil {
		p.AdminKey = s.AdminKey()
	}
	rows, err := queries.New(s.Pool).ListSessions(ctx, p)
	return views(rows, func(r queries.ListSessionsRow) Session { return Session(r) }), err
}

// EndSessions ends all sessions of the actor's token.
func (s *Service) EndSessions(ctx context.Context, actor Actor) error {
	if err := actor.Require(RoleReader); err != nil {
		return err
	}
	return queries.New(s.Pool).EndSessions(ctx, actor.TokenID)
}

// Interval returns a duration as Postgres takes it.
func Interval(d time.Duration) pgtype.Interval {
	return pgtype.Interval{Microseconds: d.Microseconds(), Valid: true}
}
