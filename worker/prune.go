package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/queries"
)

const (
	// changesKept exceeds by far how long a replica may be cut off before it
	// revalidates all it has.
	changesKept = 2 * time.Hour
	// batchesKept counts from the confirmation that a batch's segment is gone.
	batchesKept = 24 * time.Hour
	// saltsKept is in days; a backlog of a day keeps its salt longer.
	//
	// BUG: clicks that come out of a spool after that, when Postgres was away
	// for days, get a new salt, so that visitors of their day count once more.
	saltsKept = 2
	// pruneTimeout is generous, since a prune that is cut off removes nothing.
	pruneTimeout = 5 * time.Minute
)

// prune removes what has served.
type prune struct {
	river.WorkerDefaults[jobs.Prune]
	deps *deps
}

// Timeout implements [river.Worker].
func (w *prune) Timeout(*river.Job[jobs.Prune]) time.Duration { return pruneTimeout }

// Work implements [river.Worker]. Salts come first and no part waits for the
// success of another: a salt that outlives its day is a broken promise (I9).
func (w *prune) Work(ctx context.Context, _ *river.Job[jobs.Prune]) error {
	q := queries.New(w.deps.pool)
	var errs []error
	note := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	salts, err := q.DestroySalts(ctx, time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -saltsKept))
	note("destroy salts", err)
	batches, err := q.PruneClickBatches(ctx, interval(batchesKept))
	note("prune click batches", err)
	changes, err := q.PruneLinkChanges(ctx, interval(changesKept))
	note("prune link changes", err)
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	w.deps.log.DebugContext(ctx, "pruned", "link_changes", changes, "click_batches", batches, "salts", salts)
	return nil
}

func interval(d time.Duration) pgtype.Interval {
	return pgtype.Interval{Microseconds: d.Microseconds(), Valid: true}
}
