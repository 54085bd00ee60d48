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
-- What a batch holds never changes, so it is read before the transaction that
-- locks it. No payload means that it was ingested.
SELECT payload
FROM click_batches
WHERE id = @id;

-- name: LockClickBatch :one
-- The row alone decides whether there is still something to ingest.
SELECT (ingested_at IS NOT NULL)::boolean AS ingested
FROM click_batches
WHERE id = @id
FOR UPDATE;

-- name: FinishClickBatch :exec
UPDATE click_batches
SET payload = NULL, ingested_at = now()
WHERE id = @id;

-- name: ConfirmSegmentsRemoved :exec
UPDATE click_batches
SET removed_at = now()
WHERE id = ANY(@ids::text[]) AND removed_at IS NULL;

-- name: PruneClickBatches :execrows
DELETE FROM click_batches
WHERE ingested_at IS NOT NULL AND removed_at < now() - @older_than::interval;

-- name: InsertClickRejects :copyfrom
INSERT INTO click_rejects (batch_id, position, occurred_at, url_id, user_id, user_agent, referrer, reason)
VALUES (@batch_id, @position, @occurred_at, @url_id, @user_id, @user_agent, @referrer, @reason);

-- name: AddClickQuarters :exec
-- In key order, so that two batches never wait for each other in a circle.
INSERT INTO click_quarters (url_id, bucket, clicks, bots)
SELECT r.url_id, r.bucket, r.clicks, r.bots
FROM (
    SELECT
        unnest(@url_ids::bigint[]) AS url_id,
        unnest(@buckets::timestamptz[]) AS bucket,
        unnest(@clicks::bigint[]) AS clicks,
        unnest(@bots::bigint[]) AS bots
) r
ORDER BY r.url_id, r.bucket
ON CONFLICT ON CONSTRAINT click_quarters_pkey DO UPDATE
SET clicks = click_quarters.clicks + excluded.clicks, bots = click_quarters.bots + excluded.bots;

-- name: AddClickDays :exec
INSERT INTO click_days (url_id, day, clicks, bots)
SELECT r.url_id, r.day, r.clicks, r.bots
FROM (
    SELECT
        unnest(@url_ids::bigint[]) AS url_id,
        unnest(@days::date[]) AS day,
        unnest(@clicks::bigint[]) AS clicks,
        unnest(@bots::bigint[]) AS bots
) r
ORDER BY r.url_id, r.day
ON CONFLICT ON CONSTRAINT click_days_pkey DO UPDATE
SET clicks = click_days.clicks + excluded.clicks, bots = click_days.bots + excluded.bots;

-- name: CreateSalt :exec
INSERT INTO visitor_salts (day, salt)
VALUES (@day, @salt)
ON CONFLICT ON CONSTRAINT visitor_salts_pkey DO NOTHING;

-- name: GetSalt :one
SELECT salt
FROM visitor_salts
WHERE day = @day;

-- name: DestroySalts :execrows
-- A day's salt lives as long as a batch of that day can still arrive.
DELETE FROM visitor_salts
WHERE day < @before_day::date
    AND NOT EXISTS (
        SELECT FROM click_batches b
        WHERE b.ingested_at IS NULL AND b.oldest_at < visitor_salts.day + 1
    );

-- name: ListStrandedBatches :many
-- Batches that wait without a job that could still run. One whose job was
-- discarded or cancelled is left alone for a while, for the operator to see.
SELECT b.id
FROM click_batches b
WHERE b.ingested_at IS NULL
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
SELECT count(*) AS batches, COALESCE(sum(clicks), 0)::bigint AS clicks,
    COALESCE(EXTRACT(epoch FROM now() - min(oldest_at)), 0)::float8 AS oldest_seconds
FROM click_batches
WHERE ingested_at IS NULL;
