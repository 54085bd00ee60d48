-- name: InsertClickBatch :execrows
-- InsertClickBatch returns 0 if the batch was shipped before.
INSERT INTO click_batches (id, payload, clicks, oldest_at)
VALUES (@id, @payload, @clicks, @oldest_at)
ON CONFLICT DO NOTHING;

-- name: SetClickBatchJob :exec
UPDATE click_batches
SET job_id = @job_id
WHERE id = @id;

-- name: ReadClickBatch :one
-- ReadClickBatch reads the payload before the transaction that locks the batch, which
-- is safe because a payload never changes. If there is no payload, the batch was
-- ingested.
SELECT payload
FROM click_batches
WHERE id = @id;

-- name: LockClickBatch :one
-- LockClickBatch locks the row of a batch, which alone decides whether the batch is
-- still to be ingested. A batch is forgotten if it is as old as rows that were cut off
-- the ledger: it may be a replay.
SELECT (ingested_at IS NOT NULL)::boolean AS ingested,
    COALESCE(NOT forced AND oldest_at <= (SELECT max(cut_at) FROM click_ledger), false)::boolean AS forgotten,
    EXISTS (SELECT FROM live_wanted WHERE until > now())::boolean AS live
FROM click_batches
WHERE id = @id
FOR UPDATE;

-- name: FinishClickBatch :exec
UPDATE click_batches
SET payload = NULL, ingested_at = now(), failed_at = NULL, failure = NULL
WHERE id = @id;

-- name: FailClickBatch :execrows
-- FailClickBatch leaves the payload, so that an operator can retry or drop the batch.
UPDATE click_batches
SET failed_at = now(), failure = @failure
WHERE id = @id AND ingested_at IS NULL AND failed_at IS NULL;

-- name: ListFailedBatches :many
-- ListFailedBatches returns the oldest ones.
SELECT id, clicks, octet_length(payload)::integer AS bytes, oldest_at, received_at, failed_at, failure
FROM click_batches
WHERE ingested_at IS NULL AND failed_at IS NOT NULL
ORDER BY received_at, id
LIMIT @row_limit;

-- name: CountClickRejects :one
-- CountClickRejects counts up to a limit.
SELECT count(*) FROM (SELECT FROM click_rejects LIMIT @most) r;

-- name: RetryFailedBatch :execrows
UPDATE click_batches
SET failed_at = NULL, failure = NULL, forced = true
WHERE id = @id AND ingested_at IS NULL AND failed_at IS NOT NULL;

-- name: DropFailedBatch :many
-- DropFailedBatch leaves the row in the ledger, so that it is harmless to ship the
-- segment again. It returns the number of clicks of the batch, and none if no failed batch
-- has the id.
UPDATE click_batches
SET payload = NULL, ingested_at = now()
WHERE id = @id AND ingested_at IS NULL AND failed_at IS NOT NULL
RETURNING clicks;

-- name: HoldReplayedBatch :execrows
-- HoldReplayedBatch fails a batch that was just inserted, and so was unknown, if its
-- segment is one of those that were removed. A batch is pruned only after the row of
-- its folder says that the segment was removed. This is a statement of its own, after
-- the insert, and therefore sees that row.
UPDATE click_batches b
SET failed_at = now(), failure = @failure
WHERE b.id = @id
    AND EXISTS (SELECT FROM spool_folders f WHERE f.folder = left(b.id, 32) AND b.id < f.gone_below);

-- name: ConfirmSegmentsGone :exec
-- ConfirmSegmentsGone writes the rows in the order of their keys. It never lowers
-- gone_below: a copy of a folder may hold other segments than the folder.
INSERT INTO spool_folders (folder, gone_below)
SELECT r.folder, r.gone_below
FROM (SELECT unnest(@folders::text[]) AS folder, unnest(@gone_below::text[]) AS gone_below) r
ORDER BY r.folder
ON CONFLICT ON CONSTRAINT spool_folders_pkey DO UPDATE
SET gone_below = excluded.gone_below, confirmed_at = now()
WHERE spool_folders.gone_below < excluded.gone_below;

-- name: PruneClickBatches :execrows
DELETE FROM click_batches
WHERE id IN (
    SELECT b.id
    FROM spool_folders f
    CROSS JOIN LATERAL (
        SELECT x.id FROM click_batches x
        WHERE x.id > f.folder AND x.id < f.gone_below AND x.ingested_at < now() - @older_than::interval
        LIMIT @row_limit
    ) b
    LIMIT @row_limit
);

-- name: PruneClickRejects :execrows
DELETE FROM click_rejects
WHERE (batch_id, position) IN (
    SELECT r.batch_id, r.position FROM click_rejects r
    WHERE r.rejected_at < now() - @older_than::interval
    LIMIT @row_limit
);

-- name: CutClickLedger :one
-- CutClickLedger removes batches that no row of a folder covers, and remembers the time
-- up to which batches were removed. A clock that ran ahead counts for a day at most: a
-- clock that is wrong by years must not make every later batch look like a replay.
WITH cut AS (
    DELETE FROM click_batches
    WHERE id IN (
        SELECT b.id FROM click_batches b
        WHERE b.ingested_at < now() - @older_than::interval
        LIMIT @row_limit
    )
    RETURNING LEAST(oldest_at, received_at + interval '1 day') AS reach
)
UPDATE click_ledger
SET cut_at = GREATEST(cut_at, (SELECT max(reach) FROM cut))
RETURNING (SELECT count(*) FROM cut) AS batches;

-- name: DropClickRejects :exec
-- DropClickRejects is for a batch that is ingested once more because an operator said
-- so.
DELETE FROM click_rejects
WHERE batch_id = @batch_id;

-- name: InsertClickRejects :copyfrom
INSERT INTO click_rejects (batch_id, position, occurred_at, url_id, user_id, user_agent, referrer, reason)
VALUES (@batch_id, @position, @occurred_at, @url_id, @user_id, @user_agent, @referrer, @reason);

-- name: CreateSalt :exec
INSERT INTO visitor_salts (day, salt)
VALUES (@day, @salt)
ON CONFLICT ON CONSTRAINT visitor_salts_pkey DO NOTHING;

-- name: GetSalt :one
SELECT salt
FROM visitor_salts
WHERE day = @day;

-- name: DestroySalts :execrows
-- DestroySalts removes the salts of days of which no batch can arrive any more. A
-- failed batch does not keep a salt, or it would be kept for ever (I9). Before a salt
-- is removed it is given notice, because after an outage it takes a while until the
-- batches in the spools have arrived. Days are those of a time zone, so each ends at
-- most half a day after that of UTC.
WITH given_notice AS (
    UPDATE visitor_salts
    SET due_at = now()
    WHERE day < @before_day::date AND due_at IS NULL
)
DELETE FROM visitor_salts
WHERE due_at < now() - @notice::interval
    AND NOT EXISTS (
        SELECT FROM click_batches b
        WHERE b.ingested_at IS NULL AND b.failed_at IS NULL AND b.oldest_at < visitor_salts.day + 2
    );

-- name: ListStrandedBatches :many
-- ListStrandedBatches returns batches that wait although they have no job that could
-- still run. If the job was discarded or cancelled, the batch is left alone for a
-- while, so that the operator can see the job.
SELECT b.id
FROM click_batches b
WHERE b.ingested_at IS NULL AND b.failed_at IS NULL
    AND b.received_at < now() - @older_than::interval
    AND NOT EXISTS (
        SELECT FROM river_job j
        WHERE j.id = b.job_id
            AND (j.state NOT IN ('cancelled', 'completed', 'discarded')
                OR (j.state <> 'completed' AND j.finalized_at > now() - @left_alone::interval))
    )
ORDER BY b.received_at
LIMIT @row_limit;

-- name: PendingBatches :one
-- PendingBatches counts failed batches separately, since they wait for an operator and
-- not for a worker.
SELECT count(*) FILTER (WHERE failed_at IS NULL) AS batches,
    COALESCE(sum(clicks) FILTER (WHERE failed_at IS NULL), 0)::bigint AS clicks,
    COALESCE(EXTRACT(epoch FROM now() - min(oldest_at) FILTER (WHERE failed_at IS NULL)), 0)::float8 AS oldest_seconds,
    count(failed_at) AS failed_batches,
    COALESCE(sum(clicks) FILTER (WHERE failed_at IS NOT NULL), 0)::bigint AS failed_clicks
FROM click_batches
WHERE ingested_at IS NULL;
