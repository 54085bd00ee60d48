package rollup

import (
	"context"
	"fmt"
	"time"

	"github.com/signpost/signpost/queries"
)

// Freshness says how far statistics are complete (I12).
type Freshness struct {
	// AsOf is a time such that every accepted click before it is in the statistics. It
	// is never later than the time of asking.
	AsOf time.Time
	// Pending is how many accepted clicks are not in the statistics, as far as the
	// processes that took them have said: they report every second. The clicks of days
	// that are counted again are not in it: nobody knows how many there are.
	Pending int64
}

// ReadFreshness returns the freshness of statistics that are read after it, or in the
// same snapshot. For statistics that were read before it, AsOf may claim too much.
//
// BUG: a process that has never reached Postgres since its start is not known there, and
// neither is a process of a release before this one. Their clicks come as a surprise.
func ReadFreshness(ctx context.Context, q *queries.Queries) (Freshness, error) {
	row, err := q.ReadFreshness(ctx)
	if err != nil {
		return Freshness{}, fmt.Errorf("read freshness: %w", err)
	}
	return Freshness{AsOf: row.AsOf.UTC(), Pending: row.Pending}, nil
}
