-- name: AddClickQuarters :exec
-- AddClickQuarters writes the rows in the order of their keys, so that two batches
-- never wait for each other in a circle.
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

-- name: DropEmptyQuarters :exec
-- DropEmptyQuarters is called after counts were lowered. This has already locked the
-- rows.
DELETE FROM click_quarters q
USING (SELECT unnest(@url_ids::bigint[]) AS url_id, unnest(@buckets::timestamptz[]) AS bucket) r
WHERE q.url_id = r.url_id AND q.bucket = r.bucket AND q.clicks <= 0;

-- name: DropEmptyDays :exec
DELETE FROM click_days d
USING (SELECT unnest(@url_ids::bigint[]) AS url_id, unnest(@days::date[]) AS day) r
WHERE d.url_id = r.url_id AND d.day = r.day AND d.clicks <= 0;

-- name: CompareRollups :one
-- CompareRollups returns the sums of the rollups and of the clicks among the events,
-- and the number of rollup rows that disagree with the events or are missing. A month
-- that was archived, in whole or in part, keeps its rollups. They only must not be less
-- than the events that are still in the database.
WITH raw_quarters AS (
    SELECT e.url_id, date_bin('15 minutes', e.occurred_at, '2000-01-01 00:00+00') AS bucket,
        count(*) AS clicks, count(*) FILTER (WHERE e.bot) AS bots
    FROM events e
    WHERE e.event_type = 'clicked' AND e.url_id IS NOT NULL
    GROUP BY 1, 2
), raw_days AS (
    SELECT url_id, (bucket AT TIME ZONE 'UTC')::date AS day, sum(clicks)::bigint AS clicks, sum(bots)::bigint AS bots
    FROM raw_quarters
    GROUP BY 1, 2
), pairs AS (
    SELECT (bucket AT TIME ZONE 'UTC')::date AS day, e.clicks, e.bots, r.clicks AS rolled_clicks, r.bots AS rolled_bots
    FROM raw_quarters e FULL JOIN click_quarters r USING (url_id, bucket)
    UNION ALL
    SELECT day, e.clicks, e.bots, r.clicks, r.bots
    FROM raw_days e FULL JOIN click_days r USING (url_id, day)
)
SELECT
    (SELECT COALESCE(sum(clicks), 0) FROM raw_quarters)::bigint AS events,
    (SELECT COALESCE(sum(clicks), 0) FROM click_quarters)::bigint AS quarters,
    (SELECT COALESCE(sum(clicks), 0) FROM click_days)::bigint AS days,
    (
        SELECT count(*) FROM pairs p
        WHERE CASE WHEN EXISTS (SELECT FROM event_parts a WHERE a.month = date_trunc('month', p.day)::date)
            THEN p.clicks > COALESCE(p.rolled_clicks, 0) OR p.bots > COALESCE(p.rolled_bots, 0)
            ELSE (p.clicks, p.bots) IS DISTINCT FROM (p.rolled_clicks, p.rolled_bots)
        END
    )::bigint AS differ;
