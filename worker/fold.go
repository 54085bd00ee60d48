package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/signpost/signpost/internal/pause"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/queries"
)

const (
	// foldPeriod is the pause between two merges: the statistics lag by about that much.
	foldPeriod = time.Second
	// foldTimeout bounds one merge. Most take milliseconds; to count a day again can take
	// some seconds for each million clicks.
	foldTimeout  = 5 * time.Minute
	totalsPeriod = time.Minute
	// firstRecounts is how many link-days are counted again at first.
	firstRecounts = 16
	// recountRest is how long none are counted again after a failure.
	recountRest = 30 * time.Second
	// checkPeriod is how often one of all workers compares a sample of the statistics
	// with the events.
	checkPeriod = time.Hour
)

// pace is how much is merged and counted again at a time.
type pace struct {
	clicks   int64
	recounts int32
	rest     time.Time // until when nothing is counted again
}

// firstPace begins with few link-days: how many clicks they have is not known before.
func firstPace() pace { return pace{clicks: rollup.MaxClicks, recounts: firstRecounts} }

// after returns the pace after a merge. As long as all goes well, it grows. After a
// failure half as much is tried, since it may have been too much for foldTimeout: how
// many rows change is not known before either. Then nothing is counted again for a
// while, so that merging goes on.
func (p pace) after(err error, now time.Time) pace {
	switch {
	case err != nil:
		return pace{max(p.clicks/2, 1), max(p.recounts/2, 1), now.Add(recountRest)}
	case p.resting(now):
		return pace{min(2*p.clicks, rollup.MaxClicks), p.recounts, p.rest}
	default:
		return pace{min(2*p.clicks, rollup.MaxClicks), min(2*p.recounts, rollup.MaxRecounts), p.rest}
	}
}

func (p pace) resting(now time.Time) bool { return now.Before(p.rest) }

// fold merges digests into the statistics until ctx ends, in one of all workers at a
// time. While much waits, it does not pause.
func (d *deps) fold(ctx context.Context) {
	pace, totalsAt := firstPace(), time.Time{} // the first totals come at once
	for {
		more, err := d.foldOnce(ctx, pace)
		pace = pace.after(err, time.Now())
		if err == nil && time.Since(totalsAt) >= totalsPeriod {
			err = guarded(ctx, func(ctx context.Context) error { return rollup.AddUpTotals(ctx, d.pool) })
			if errors.Is(err, rollup.ErrBusy) {
				err = nil
			} else {
				totalsAt = time.Now()
			}
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

// guarded gives do foldTimeout. A panic becomes an error: a bug in statistics must not
// end the process, which ingests clicks.
func guarded(ctx context.Context, do func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, foldTimeout)
	defer cancel()
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("panic: %v", value)
		}
	}()
	return do(ctx)
}

// foldOnce merges once and reports whether there is more to merge at once.
func (d *deps) foldOnce(ctx context.Context, p pace) (more bool, err error) {
	start, did, recounts := time.Now(), rollup.Folded{}, p.recounts
	if p.resting(time.Now()) {
		recounts = 0
	}
	err = guarded(ctx, func(ctx context.Context) (err error) {
		did, err = rollup.FoldOnce(ctx, d.pool, p.clicks, recounts)
		return err
	})
	if did.Clicks > 0 || did.Recounts > 0 {
		d.metrics.foldSeconds.Observe(time.Since(start).Seconds())
		d.metrics.foldClicks.Add(float64(did.Clicks))
	}
	if did.Failed != nil {
		d.log.ErrorContext(ctx, "a digest of clicks cannot be decoded: the statistics lack them until \"signpost stats rebuild --from\" of that day",
			slog.Int64("digest", did.Failed.ID), slog.Int("clicks", int(did.Failed.Clicks)), slog.Time("from", did.Failed.OldestAt))
	}
	if len(did.Damaged) > 0 {
		d.metrics.rollupsDiffer.Add(float64(len(did.Damaged)))
		d.log.ErrorContext(ctx, "statistics could not be decoded, they are counted again", slog.Any("rows", did.Damaged))
	}
	return did.More, err
}

// checkStatistics compares a sample of the statistics with the events once in each
// period, until ctx ends. It is no job, because workers of the previous release would not
// know it.
func (d *deps) checkStatistics(ctx context.Context) {
	for pause.For(ctx, time.Minute) == nil {
		if err := d.checkOnce(ctx, checkPeriod); err != nil && ctx.Err() == nil {
			d.log.WarnContext(ctx, "statistics could not be compared with events", slog.Any("error", err))
		}
	}
}

func (d *deps) checkOnce(ctx context.Context, period time.Duration) error {
	return guarded(ctx, func(ctx context.Context) error {
		due, err := queries.New(d.pool).ClaimStatisticsCheck(ctx, interval(period))
		if err != nil || due == 0 {
			return wrap("look whether statistics are to be compared", err)
		}
		found, err := rollup.CheckSample(ctx, d.pool, time.Now())
		if err != nil {
			return err
		}
		d.metrics.rollupsDiffer.Add(float64(found.Differ))
		if found.Differ > 0 {
			d.log.ErrorContext(ctx, "statistics did not agree with events, they are counted again", slog.String("found", found.String()))
		}
		return nil
	})
}
