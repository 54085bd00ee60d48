-- name: ReportWorker :exec
INSERT INTO workers (id, host, version, queues)
VALUES (@id, @host, @version, @queues::text[])
ON CONFLICT ON CONSTRAINT workers_pkey DO UPDATE
SET seen_at = now();

-- name: RemoveWorker :exec
DELETE FROM workers
WHERE id = @id;

-- name: ListWorkers :many
-- ListWorkers returns the workers; one that has not reported for a minute counts as gone.
SELECT id, host, version, queues, started_at, seen_at, (seen_at < now() - interval '1 minute')::boolean AS gone
FROM workers
ORDER BY seen_at DESC, id
LIMIT @row_limit;

-- name: PruneWorkers :execrows
DELETE FROM workers
WHERE seen_at < now() - @older_than::interval;
