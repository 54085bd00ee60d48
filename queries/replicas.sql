-- name: ReportReplica :exec
INSERT INTO replicas (id, host, folders, spooled, complete_to)
VALUES (@id, @host, @folders::text[], @spooled, @complete_to)
ON CONFLICT ON CONSTRAINT replicas_pkey DO UPDATE
SET host = excluded.host, folders = excluded.folders, spooled = excluded.spooled, complete_to = excluded.complete_to,
    seen_at = now();

-- name: TakeOverFolders :exec
-- TakeOverFolders takes folders out of the rows of the processes that had them before.
-- Such a process is gone: the other one holds the lock of its folder. A row without any
-- folder left has done its work.
WITH done AS (
    DELETE FROM replicas d
    WHERE d.id <> @id AND d.folders <@ @folders::text[] AND d.folders <> '{}'
)
UPDATE replicas r
SET folders = ARRAY(SELECT f FROM unnest(r.folders) f WHERE f <> ALL (@folders::text[]))
WHERE r.id <> @id AND r.folders && @folders::text[] AND NOT r.folders <@ @folders::text[];

-- name: RemoveReplica :execrows
DELETE FROM replicas
WHERE id = @id;

-- name: ForgetReplica :execrows
-- ForgetReplica is for a process whose disk is lost: an operator says that nobody will
-- ever bring its clicks. A process that lives is left alone.
DELETE FROM replicas
WHERE id = @id AND seen_at < now() - interval '1 minute';

-- name: PruneReplicas :execrows
-- PruneReplicas removes processes that died without a folder that could be taken over.
DELETE FROM replicas
WHERE folders = '{}' AND seen_at < now() - interval '1 minute';

-- name: ListReplicas :many
-- ListReplicas returns all processes that take clicks. One that has not reported for a
-- minute counts as gone.
SELECT id, host, spooled, complete_to, started_at, seen_at, (seen_at < now() - interval '1 minute')::boolean AS gone
FROM replicas
ORDER BY seen_at, id;

-- name: ReadFreshness :one
-- ReadFreshness is one statement, so it takes one snapshot. A click moves from a replica
-- to a batch in one transaction, from the batch to a digest, and on to the statistics:
-- it is always found in one of them. A failed batch counts too, until an operator
-- retries or drops it, and a failed digest until its days are counted again. So do
-- imported clicks, as soon as they are events.
SELECT
    LEAST(
        now(),
        (SELECT min(complete_to) FROM replicas),
        (SELECT min(oldest_at) FROM click_batches WHERE ingested_at IS NULL),
        (SELECT min(oldest_at) FROM rollup_digests),
        (SELECT min(oldest_at) FROM failed_rollup_digests),
        (SELECT min(day)::timestamp AT TIME ZONE 'UTC' FROM rollup_recounts)
    )::timestamptz AS as_of,
    (
        (SELECT COALESCE(sum(spooled), 0) FROM replicas)
        + (SELECT COALESCE(sum(clicks), 0) FROM click_batches WHERE ingested_at IS NULL)
        + (SELECT COALESCE(sum(clicks), 0) FROM rollup_digests)
        + (SELECT COALESCE(sum(clicks), 0) FROM failed_rollup_digests)
    )::bigint AS pending;
