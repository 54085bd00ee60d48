package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

const giveUpTimeout = 5 * time.Second

// giveUp returns err, which ended a job of an import. If it was the job's last
// try, the import ends as failed, says why, and waits for an operator: doing the
// same over and over would leave them to wait. Trouble with Postgres itself is no
// reason, since it passes; the job that re-enqueues tries again then. what is the work that failed.
func (d *deps) giveUp(ctx context.Context, job *rivertype.JobRow, importID int64, what func(context.Context) string, err error) error {
	if err == nil || job.Attempt < job.MaxAttempts || !final(ctx, err) {
		return err
	}
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpTimeout)
	defer cancel()
	reason := what(own) + " could not be applied"
	if code := postgres.Code(err); code != "" {
		reason += " (the database says " + code + ")"
	}
	failed, failErr := queries.New(d.pool).FailImportWork(own, &reason, importID)
	if failErr != nil {
		return errors.Join(err, fmt.Errorf("fail import: %w", failErr))
	}
	if failed == 1 {
		d.log.ErrorContext(ctx, "import failed", "import_id", importID, "reason", reason, "error", err)
		if row, readErr := queries.New(d.pool).GetImport(own, importID); readErr == nil {
			d.metrics.importsFinished.WithLabelValues(row.Kind, stateFailed).Inc()
		}
	}
	return err
}

// final reports whether err would come again with the next try: not if the job
// is only put off, the worker stops, or Postgres is in trouble. A job that ran
// out of time is taken to be too slow.
func final(ctx context.Context, err error) bool {
	var snooze *river.JobSnoozeError
	var cancel *river.JobCancelError
	switch {
	case errors.As(err, &snooze), errors.As(err, &cancel), errors.Is(err, context.Canceled):
		return false
	case postgres.Unavailable(err):
		return errors.Is(ctx.Err(), context.DeadlineExceeded)
	}
	return true
}
