// Package service holds the work of a management request that has nothing to do with HTTP:
// authorisation, validation, the write, the event of the change, and the cache. A
// function takes an [Actor] and an input, and returns a value or an error that
// [Classify] understands. The HTTP API and any other surface call the same
// functions, so none of them can do more than another.
package service

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/live"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// Service does the work of management requests. Its fields are set once; it may be
// used concurrently.
type Service struct {
	Pool  *pgxpool.Pool
	River *river.Client[pgx.Tx] // only inserts
	Cache *linkcache.Cache
	Log   *slog.Logger // for what changes of many links cannot tell their client
	// Clicks are those that come in, for the ones who listen.
	Clicks *live.Source
	// PublicURL is the beginning of the short URLs of the main domain: absolute,
	// without a path.
	PublicURL string
	// OwnHosts are the hosts of this service's own short links, to which no link may
	// lead.
	OwnHosts links.Hosts
	Reach    Reach
	// AdminKey tells the sessions of the present ADMIN_TOKEN from those of a former one.
	AdminKey func() []byte
	// About is what GetSystem tells of the process.
	About About
	// TimeZone is the zone of statistics for requests that name none; "" is UTC.
	TimeZone string
	// EnterBulk takes a place for a piece of a request about many links; nil if there are no
	// bounds.
	EnterBulk func(context.Context) (leave func(), err error)
}

// maxTries is how often a transaction is tried if it fails only by bad luck.
const maxTries = 5

// inTx runs fn in a transaction. It runs it again if the transaction and another one
// got in each other's way, if it drew an id that an import had brought, or if there was
// no partition for the event that it wrote.
func (s *Service) inTx(ctx context.Context, fn func(*queries.Queries) error) error {
	return s.inJobTx(ctx, func(_ pgx.Tx, q *queries.Queries) error { return fn(q) })
}

// inJobTx is inTx for transactions that also insert jobs.
func (s *Service) inJobTx(ctx context.Context, fn func(pgx.Tx, *queries.Queries) error) error {
	for try := 1; ; try++ {
		err := postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) error { return fn(tx, queries.New(tx)) })
		if err == nil || try == maxTries {
			return err
		}
		constraint := postgres.Constraint(err)
		switch {
		case postgres.Retryable(err):
		case constraint == "users_pkey", constraint == "urls_pkey":
			if err := passTaken(ctx, queries.New(s.Pool), constraint); err != nil {
				return err
			}
		case postgres.NoPartition(err):
			if err := postgres.EnsurePartitions(ctx, s.Pool, []time.Time{time.Now()}); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// passTaken is called when the id that a sequence gave last was taken. It moves the
// sequence to just before the next free id, however many imported ids are in between.
func passTaken(ctx context.Context, q *queries.Queries, constraint string) error {
	last, move := q.LastTakenUserID, q.MoveUsersSequence
	if constraint == "urls_pkey" {
		last, move = q.LastTakenURLID, q.MoveURLsSequence
	}
	return postgres.PassTaken(ctx, last, move, 1)
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}
