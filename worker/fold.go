package worker

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/signpost/signpost/internal/pause"
	"github.com/signpost/signpost/internal/rollup"
)

const (
	// foldPeriod is the pause between two merges: the statistics lag by about that much.
	foldPeriod = time.Second
	// foldTimeout bounds one merge. Most take milliseconds; to count a day again can take
	// some seconds for each million clicks.
	foldTimeout  = 5 * time.Minute
	totalsPeriod = time.Minute
)

// fold merges digests into the statistics until ctx ends, in one of all workers at a
// time. While much waits, it does not pause.
func (d *deps) fold(ctx context.Context) {
	for totalsAt := time.Now(); ; {
		more, err := d.foldOnce(ctx)
		if err == nil && time.Since(totalsAt) >= totalsPeriod {
			totalsAt = time.Now()
			err = rollup.AddUpTotals(ctx, d.pool)
		}
		if err != nil && ctx.Err() == nil {
			d.metrics.foldFailures.Inc()
			d.log.ErrorContext(ctx, "clicks could not be merged into the statistics, they wait", slog.Any("error", err))
		}
		if more && err == nil {
			continue
		}
		if pause.For(ctx, foldPeriod) != nil {
			return
		}
	}
}

// foldOnce merges once and reports whether there is more to merge at once.
func (d *deps) foldOnce(ctx context.Context) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, foldTimeout)
	defer cancel()
	defer func() {
		if value := recover(); value != nil { // a bug must not end the process, which ingests clicks
			err = fmt.Errorf("panic: %v", value)
		}
	}()
	start := time.Now()
	did, err := rollup.FoldOnce(ctx, d.pool)
	if err == nil && (did.Clicks > 0 || did.Recounts > 0) {
		d.metrics.foldSeconds.Observe(time.Since(start).Seconds())
		d.metrics.foldClicks.Add(float64(did.Clicks))
	}
	return did.More, err
}
