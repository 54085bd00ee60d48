package worker

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

const (
	firstRetry = time.Second
	maxRetry   = 10 * time.Second
)

// retryPolicy waits 1, 2, 4, 8 and then 10 seconds, less up to a tenth. River's own
// policy would wait for minutes after the third death of a worker, and clicks would
// wait with it.
type retryPolicy struct{}

// NextRetry implements [river.ClientRetryPolicy].
func (retryPolicy) NextRetry(job *rivertype.JobRow) time.Time {
	wait := maxRetry
	if n := len(job.Errors); n < 4 {
		wait = firstRetry << n
	}
	return time.Now().Add(wait - rand.N(wait/10))
}

// errorLog logs failing jobs: the first failure quietly, because a retry mostly
// succeeds, and later ones loudly.
type errorLog struct{ log *slog.Logger }

// HandleError implements [river.ErrorHandler].
func (e *errorLog) HandleError(ctx context.Context, job *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	level := slog.LevelWarn
	if job.Attempt >= job.MaxAttempts {
		level = slog.LevelError
	}
	e.log.LogAttrs(ctx, level, "job failed", slog.String("kind", job.Kind), slog.Int64("job_id", job.ID), slog.String("args", string(job.EncodedArgs)),
		slog.Int("attempt", job.Attempt), slog.Int("max_attempts", job.MaxAttempts), slog.Any("error", err))
	return nil
}

// HandlePanic implements [river.ErrorHandler].
func (e *errorLog) HandlePanic(ctx context.Context, job *rivertype.JobRow, value any, trace string) *river.ErrorHandlerResult {
	e.log.ErrorContext(ctx, "job panicked", slog.String("kind", job.Kind), slog.Int64("job_id", job.ID), slog.String("args", string(job.EncodedArgs)),
		slog.Int("attempt", job.Attempt), slog.Any("panic", value), slog.Any("trace", trace))
	return nil
}

// atLeast passes on records from the given level up.
type atLeast struct {
	slog.Handler
	level slog.Level
}

// Enabled implements [slog.Handler].
func (h atLeast) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= h.level && h.Handler.Enabled(ctx, level)
}

// WithAttrs implements [slog.Handler].
func (h atLeast) WithAttrs(attrs []slog.Attr) slog.Handler {
	return atLeast{h.Handler.WithAttrs(attrs), h.level}
}

// WithGroup implements [slog.Handler].
func (h atLeast) WithGroup(name string) slog.Handler {
	return atLeast{h.Handler.WithGroup(name), h.level}
}
