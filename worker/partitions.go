package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/rollup"
)

// partitionsAhead is the number of months after the current one for which partitions
// are made in advance, so that a failing worker is noticed long before a partition is
// missing.
const partitionsAhead = 3

// makePartitions makes the partitions of events, statistics and visitors ahead of time, by
// [postgres.EnsurePartitions].
type makePartitions struct {
	river.WorkerDefaults[jobs.MakePartitions]
	deps *deps
}

// Work implements [river.Worker].
func (w *makePartitions) Work(ctx context.Context, _ *river.Job[jobs.MakePartitions]) error {
	var months []time.Time
	for i := range partitionsAhead + 1 {
		months = append(months, postgres.MonthOf(time.Now()).AddDate(0, i, 0))
	}
	// Partitions that this process remembers are checked too, because a partition may
	// have been dropped.
	w.deps.visitors.forget()
	if err := postgres.EnsurePartitions(ctx, w.deps.pool, months); err != nil {
		return fmt.Errorf("make partitions ahead: %w", err)
	}
	if err := rollup.EnsureMonths(ctx, w.deps.pool, months); err != nil {
		return fmt.Errorf("make partitions ahead: %w", err)
	}
	today := dayIn(w.deps.zone, time.Now())
	return wrap("make partitions ahead", w.deps.visitors.ensure(ctx, today, today+1))
}
