-- name: QueueDepths :many
-- One row a queue and state of jobs that are not finished.
SELECT queue, state::text AS state, count(*) AS jobs,
    GREATEST(COALESCE(EXTRACT(epoch FROM now() - min(scheduled_at)), 0), 0)::float8 AS oldest_seconds
FROM river_job
WHERE state IN ('available', 'pending', 'retryable', 'running', 'scheduled', 'discarded')
GROUP BY queue, state;
