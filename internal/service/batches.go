package service

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/queries"
)

// FailedBatch is a batch of clicks that cannot be ingested as it is, and waits for an
// operator to retry or drop it.
type FailedBatch struct {
	ID       string    `json:"id" example:"0f3c…-000000000012"`
	Clicks   int32     `json:"clicks" example:"120"`
	Bytes    int32     `json:"bytes" example:"5120" doc:"Size of its payload, compressed."`
	OldestAt time.Time `json:"oldest_at" doc:"Time of its oldest click."`
	FailedAt time.Time `json:"failed_at"`
	Reason   string    `json:"reason" example:"the batch is as old as rows that were cut off the ledger"`
}

// ListFailedBatches returns up to limit batches that failed, those first that came first.
func (s *Service) ListFailedBatches(ctx context.Context, actor Actor, limit int32) ([]FailedBatch, error) {
	if err := actor.Require(ManagesBatches); err != nil {
		return nil, err
	}
	rows, err := queries.New(s.Pool).ListFailedBatches(ctx, limit)
	return views(rows, viewFailedBatch), err
}

func viewFailedBatch(r queries.ListFailedBatchesRow) FailedBatch {
	return FailedBatch{r.ID, r.Clicks, r.Bytes, r.OldestAt.UTC(), r.FailedAt.UTC(), *r.Failure}
}

var errNoBatch = NotFound("failed batch")

// RetryBatch has a failed batch ingested again by a new job, as a whole and once. A batch
// that may be a replay is ingested all the same.
func (s *Service) RetryBatch(ctx context.Context, actor Actor, id string) error {
	return s.decideBatch(ctx, actor, id, "updated", func(tx pgx.Tx, q *queries.Queries, _ *changeDetails) (int64, error) {
		n, err := q.RetryFailedBatch(ctx, id)
		if err != nil || n == 0 {
			return n, err
		}
		job, err := s.River.InsertTx(ctx, tx, jobs.RecordClicks{BatchID: id}, nil)
		if err != nil {
			return 0, fmt.Errorf("insert job: %w", err)
		}
		return n, q.SetClickBatchJob(ctx, &job.Job.ID, id)
	})
}

// DropBatch throws away the clicks of a failed batch, for good. Its event says how many
// they were.
func (s *Service) DropBatch(ctx context.Context, actor Actor, id string) error {
	return s.decideBatch(ctx, actor, id, "deleted", func(_ pgx.Tx, q *queries.Queries, details *changeDetails) (int64, error) {
		clicks, err := q.DropFailedBatch(ctx, id)
		for _, n := range clicks {
			details.Clicks = int64(n)
		}
		return int64(len(clicks)), err
	})
}

// decideBatch carries out what an operator decided about a failed batch, and records it.
// do returns the number of failed batches with the id: 0 or 1.
func (s *Service) decideBatch(ctx context.Context, actor Actor, id, event string, do func(pgx.Tx, *queries.Queries, *changeDetails) (int64, error)) error {
	if err := actor.Require(ManagesBatches); err != nil {
		return err
	}
	return s.inJobTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		details := changeDetails{Entity: "batch", Batch: id}
		n, err := do(tx, q, &details)
		if err == nil && n == 0 {
			err = errNoBatch
		}
		if err != nil {
			return err
		}
		return record(ctx, q, actor, event, nil, nil, details)
	})
}
