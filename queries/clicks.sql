-- name: InsertClickBatch :execrows
-- Answers 0 for a batch that was shipped before.
INSERT INTO click_batches (id, payload, clicks, oldest_at)
VALUES (@id, @payload, @clicks, @oldest_at)
ON CONFLICT DO NOTHING;

-- name: SetClickBatchJob :exec
UPDATE click_batches
SET job_id = @job_id
WHERE id = @id;

-- name: ReadClickBatch :one
-- A payload never changes, so it is read before the transaction that locks its
-- batch. No payload means that the batch was ingested.
SELECT payload
FROM click_batches
WHERE id = @id;

-- name: LockClickBatch :one
-- The row alone decides whether there is still something to ingest. One is
-- forgotten when it is as old as what was cut off the ledger: it may be a replay.
SELECT (ingested_at IS NOT NULL)::boolean AS ingested,
    COALESCE(NOT forced AND oldest_at <= (SELECT max(cut_at) FROM click_ledger), false)::boolean AS forgotten
FROM click_batches
WHERE id = @id
FOR UPDATE;

-- name: FinishClickBatch :exec
UPDATE click_batches
SET payload = NULL, ingested_at = now(), failed_at = NULL, failure = NULL
WHERE id = @id;

-- name: FailClickBatch :execrows
-- Its payload stays, for an operator to retry or to drop.
UPDATE click_batches
SET failed_at = now(), failure = @failure
WHERE id = @id AND ingested_at IS NULL AND failed_at IS NULL;

-- name: ListFailedBatches :many
SELECT id, clicks, octet_length(payload)::integer AS bytes, oldest_at, received_at, failed_at, failure
FROM click_batches
WHERE ingested_at IS NULL AND failed_at IS NOT NULL
ORDER BY received_at, id;

-- name: RetryFailedBatch :execrows
UPDATE click_batches
SET failed_at = NULL, failure = NULL, forced = true
WHERE id = @id AND ingested_at IS NULL AND failed_at IS NOT NULL;

-- name: DropFailedBatch :execrows
-- The row stays in the ledger, so that shipping the segment again is harmless.
UPDATE click_batches
SET payload = NULL, ingested_at = now()
WHERE id = @id AND ingested_at IS NULL AND failed_at IS NOT NULL;

-- name: HoldReplayedBatch :execrows
-- Fails a batch that was just inserted, and so was unknown, although its segment
-- is one of those that were removed. A batch is pruned only after its folder's row
-- says so: as a statement of its own, after the insert, this one sees that row.
UPDATE click_batches b
SET failed_at = now(), failure = @failure
WHERE b.id = @id
    AND EXISTS (SELECT FROM spool_folders f WHERE f.folder = left(b.id, 32) AND b.id < f.gone_below);

-- name: ConfirmSegmentsGone :exec
-- In key order, and never back: of a copy of the folder other segments are left.
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
-- Removes batches that no row of a folder covers, and remembers how far back that
-- reaches. A clock that ran ahead counts for a day at most: one wrong by years
-- must not make every later batch look like a replay.
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
-- Of a batch that is ingested once more because an operator said so.
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
-- A day's salt lives as long as a batch of that day can still arrive. One that
-- failed does not keep it, or it would be kept for ever (I9). A salt that is old
-- enough is given notice first: after an outage the spools need a while until
-- their batches are here.
WITH given_notice AS (
    UPDATE visitor_salts
    SET due_at = now()
    WHERE day < @before_day::date AND due_at IS NULL
)
DELETE FROM visitor_salts
WHERE due_at < now() - @notice::interval
    AND NOT EXISTS (
        SELECT FROM click_batches b
        WHERE b.ingested_at IS NULL AND b.failed_at IS NULL AND b.oldest_at < visitor_salts.day + 1
    );

-- name: ListStrandedBatches :many
-- Batches that wait without a job that could still run. One whose job was
-- discarded or cancelled is left alone for a while, for the operator to see.
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
-- Those that failed wait for an operator, not for a worker.
SELECT count(*) FILTER (WHERE failed_at IS NULL) AS batches,
    COALESCE(sum(clicks) FILTER (WHERE failed_at IS NULL), 0)::bigint AS clicks,
    COALESCE(EXTRACT(epoch FROM now() - min(oldest_at) FILTER (WHERE failed_at IS NULL)), 0)::float8 AS oldest_seconds,
    count(failed_at) AS failed_batches,
    COALESCE(sum(clicks) FILTER (WHERE failed_at IS NOT NULL), 0)::bigint AS failed_clicks
FROM click_batches
WHERE ingested_at IS NULL;
