-- name: AddRollupDigest :exec
INSERT INTO rollup_digests (clicks, oldest_at, payload)
VALUES (@clicks, @oldest_at, @payload);

-- name: RollupWork :one
-- RollupWork says whether there is something to merge, and something to count again.
SELECT EXISTS (SELECT FROM rollup_digests) AS digests, EXISTS (SELECT FROM rollup_recounts) AS recounts;

-- name: TakeRollupDigests :many
-- TakeRollupDigests removes the oldest digests, up to about most_clicks, and returns
-- them.
DELETE FROM rollup_digests
WHERE id IN (
    SELECT d.id
    FROM (SELECT w.id, sum(w.clicks) OVER (ORDER BY w.id) - w.clicks AS before FROM rollup_digests w) d
    WHERE d.before < @most_clicks::bigint
)
RETURNING id, clicks, payload;

-- name: FailRollupDigest :one
-- FailRollupDigest sets a digest aside that cannot be decoded, so that the others are
-- merged. At first it waits, since a worker of a newer release may understand it.
WITH failed AS (
    DELETE FROM rollup_digests d
    WHERE d.id = @id AND d.created_at < now() - interval '5 minutes'
    RETURNING d.id, d.clicks, d.oldest_at, d.created_at, d.payload
)
INSERT INTO failed_rollup_digests AS set_aside (id, clicks, oldest_at, created_at, payload)
SELECT f.id, f.clicks, f.oldest_at, f.created_at, f.payload
FROM failed f
RETURNING set_aside.id, set_aside.clicks, set_aside.oldest_at;

-- name: DropFailedRollupDigests :exec
-- DropFailedRollupDigests removes those whose clicks are all of days from a time on.
DELETE FROM failed_rollup_digests
WHERE oldest_at >= @from_time;

-- name: AreRollupDigestsLeft :one
SELECT EXISTS (SELECT FROM rollup_digests) AS left;

-- name: SumClicksOfLinks :many
-- SumClicksOfLinks returns the clicks of links in the statistics, all digests that wait
-- to be merged, and the links that wait to be counted again, all as of one moment. While
-- there are digests that failed, all links count as such that have a click they may hold.
SELECT scope::bigint AS url_id, sum(clicks)::bigint AS clicks, false AS recount, NULL::bytea AS payload
FROM rollups
WHERE scope = ANY(@ids::bigint[])
GROUP BY scope
UNION ALL
SELECT 0, 0, false, payload
FROM rollup_digests
UNION ALL
SELECT url_id, 0, true, NULL
FROM rollup_recounts
WHERE url_id = ANY(@ids::bigint[])
UNION ALL
SELECT url_id, 0, true, NULL
FROM events
WHERE event_type = 'clicked' AND url_id = ANY(@ids::bigint[]) AND occurred_at >= (SELECT min(oldest_at) FROM failed_rollup_digests);

-- name: RollupFigures :one
SELECT count(*) AS digests, COALESCE(sum(clicks), 0)::bigint AS clicks,
    COALESCE(EXTRACT(epoch FROM now() - min(created_at)), 0)::float8 AS oldest_seconds,
    (SELECT count(*) FROM rollup_recounts) AS recounts,
    (SELECT COALESCE(sum(clicks), 0)::bigint FROM failed_rollup_digests) AS failed_clicks
FROM rollup_digests;

-- name: ListRollupDigests :many
SELECT payload
FROM rollup_digests;

-- name: TakeRollupRecounts :many
-- TakeRollupRecounts removes the rows of the newest days and returns them. The same day
-- and link may be in several.
DELETE FROM rollup_recounts
WHERE id IN (SELECT r.id FROM rollup_recounts r ORDER BY r.day DESC, r.id LIMIT @row_limit)
RETURNING day, url_id;

-- name: AreLinksToRecount :one
SELECT EXISTS (SELECT FROM rollup_recounts WHERE day = @day AND url_id <> 0) AS links;

-- name: AddRollupRecounts :exec
INSERT INTO rollup_recounts (day, url_id)
SELECT unnest(@days::date[]), unnest(@url_ids::bigint[]);

-- name: RecountDay :execrows
-- RecountDay has every row of a day counted again: first those of links, and then, as
-- the link 0, the others.
INSERT INTO rollup_recounts (day, url_id)
SELECT @day::date, r.url_id
FROM (
    SELECT scope AS url_id FROM rollups WHERE day = @day::date AND scope > 0
    UNION
    SELECT e.url_id FROM events e
    WHERE e.event_type = 'clicked' AND e.occurred_at >= @from_time AND e.occurred_at < @to_time AND e.url_id IS NOT NULL
    UNION
    SELECT 0
) r
ORDER BY r.url_id = 0, r.url_id;

-- name: ListRollupsOfDay :many
-- ListRollupsOfDay returns the scopes of all rows of a day.
SELECT scope
FROM rollups
WHERE day = @day
ORDER BY scope;

-- name: ListRollupRecounts :many
SELECT DISTINCT day, url_id
FROM rollup_recounts;

-- name: ListDaysWithClicks :many
-- ListDaysWithClicks returns the days of a range that have rollups or clicks.
SELECT day
FROM rollups
WHERE day >= @from_day AND day < @to_day
UNION
SELECT (occurred_at AT TIME ZONE 'UTC')::date
FROM events
WHERE event_type = 'clicked' AND url_id IS NOT NULL AND occurred_at >= @from_time AND occurred_at < @to_time
ORDER BY day;

-- name: ListLinksClicked :many
SELECT DISTINCT url_id::bigint AS url_id
FROM events
WHERE event_type = 'clicked' AND url_id IS NOT NULL AND occurred_at >= @from_time AND occurred_at < @to_time;

-- name: ClaimStatisticsCheck :execrows
-- ClaimStatisticsCheck changes a row in one process only, once in each period.
UPDATE installation
SET statistics_checked_at = now()
WHERE statistics_checked_at < now() - @period::interval;

-- name: ListDaysOfRollups :many
SELECT DISTINCT day
FROM rollups
WHERE scope = 0
ORDER BY day;

-- name: ListBusiestLinks :many
SELECT scope
FROM rollups
WHERE day = @day AND scope > 0
ORDER BY clicks DESC, scope
LIMIT @row_limit;

-- name: MissingRollupMonths :many
-- MissingRollupMonths returns those of the months that have no partition.
SELECT m.month::date AS month
FROM (SELECT unnest(@months::date[]) AS month) m
WHERE NOT EXISTS (
    SELECT FROM pg_catalog.pg_inherits i
    WHERE i.inhrelid = to_regclass('rollups_' || to_char(m.month, 'YYYY_MM')) AND i.inhparent = 'rollups'::regclass AND NOT i.inhdetachpending
);

-- name: LoadRollups :many
-- LoadRollups returns rows by their keys, which are all within from_day and to_day, so
-- that only the partitions of these days are looked at. It leaves out cells that are
-- many, unless they are asked for as a whole, or the recent ones are to join them.
--
-- Each row is looked up by its key, since OFFSET makes the planner take the keys first.
-- For days that are newer than its statistics it expects no rows: it would compare every
-- row of such a day with every key.
SELECT r.scope, r.day, r.clicks, r.people, r.visitors, r.last_at, r.scopes, r.recent, w.whole::boolean AS whole,
    (CASE WHEN w.whole THEN r.cells ELSE '' END)::bytea AS cells
FROM (
    SELECT unnest(@scopes::bigint[]) AS scope, unnest(@days::date[]) AS day, unnest(@whole::boolean[]) AS whole
) k
CROSS JOIN LATERAL (
    SELECT * FROM rollups l
    WHERE l.scope = k.scope AND l.day = k.day AND l.day >= @from_day AND l.day <= @to_day
    OFFSET 0
) r
CROSS JOIN LATERAL (
    SELECT k.whole OR octet_length(r.cells) < @many::int OR octet_length(r.recent) > @most_recent::int
        OR substring(r.cells FROM 1 FOR 1) <> @version::bytea AS whole
) w;

-- name: SaveRollups :exec
-- SaveRollups has an empty text for a row without other scopes. Empty cells leave those of
-- a row that is there as they are, and are not written again: they may be large.
INSERT INTO rollups (scope, day, clicks, people, visitors, last_at, scopes, cells, recent)
SELECT r.scope, r.day, r.clicks, r.people, r.visitors, NULLIF(r.last_at, '0001-01-01 00:00:00+00'), NULLIF(r.scopes, ''), r.cells, r.recent
FROM (
    SELECT
        unnest(@scopes::bigint[]) AS scope,
        unnest(@days::date[]) AS day,
        unnest(@clicks::bigint[]) AS clicks,
        unnest(@people::bigint[]) AS people,
        unnest(@visitors::bigint[]) AS visitors,
        unnest(@last_ats::timestamptz[]) AS last_at,
        unnest(@other_scopes::bytea[]) AS scopes,
        unnest(@cells::bytea[]) AS cells,
        unnest(@recent::bytea[]) AS recent
) r
ON CONFLICT ON CONSTRAINT rollups_pkey DO UPDATE
SET clicks = excluded.clicks, people = excluded.people, visitors = excluded.visitors, last_at = excluded.last_at,
    scopes = excluded.scopes, recent = excluded.recent,
    cells = CASE WHEN excluded.cells = '' THEN rollups.cells ELSE excluded.cells END;

-- name: DropRollups :exec
-- DropRollups names the scopes once more, so that few rows are compared with the keys.
DELETE FROM rollups r
USING (SELECT unnest(@scopes::bigint[]) AS scope, unnest(@days::date[]) AS day) k
WHERE r.scope = k.scope AND r.day = k.day AND r.day >= @from_day AND r.day <= @to_day AND r.scope = ANY(@scopes);

-- name: FindLinksOfRollups :many
SELECT id, user_id, domain_id, tags
FROM urls
WHERE id = ANY(@ids::bigint[]);

-- name: MakeRollupScopes :exec
INSERT INTO rollup_scopes (kind, name)
SELECT unnest(@kinds::text[]), unnest(@names::text[])
ON CONFLICT ON CONSTRAINT rollup_scopes_name_key DO NOTHING;

-- name: FindRollupScopes :many
SELECT s.id, s.kind, s.name
FROM rollup_scopes s
JOIN (SELECT unnest(@kinds::text[]) AS kind, unnest(@names::text[]) AS name) k ON k.kind = s.kind AND k.name = s.name;

-- name: FindLastClicks :many
-- FindLastClicks returns the last clicks of links on days, which are all between
-- from_time and to_time.
SELECT k.url_id::bigint AS url_id, k.day::date AS day, l.occurred_at
FROM (SELECT unnest(@url_ids::bigint[]) AS url_id, unnest(@days::date[]) AS day) k
CROSS JOIN LATERAL (
    SELECT e.occurred_at
    FROM events e
    WHERE e.url_id = k.url_id AND e.event_type = 'clicked' AND e.occurred_at >= @from_time AND e.occurred_at < @to_time
        AND e.occurred_at >= k.day::timestamp AT TIME ZONE 'UTC' AND e.occurred_at < (k.day + 1)::timestamp AT TIME ZONE 'UTC'
    ORDER BY e.occurred_at DESC
    LIMIT 1
) l;

-- name: KeepsQuarters :one
-- KeepsQuarters says whether the previous release may still read click_quarters and
-- click_days.
SELECT keeps_quarters
FROM installation;

-- name: CountForPrevious :exec
-- CountForPrevious says that the transaction changes click_quarters for the previous
-- release only, so that nothing has to be counted again for it.
SELECT set_config('signpost.keeps_quarters', 'on', true);

-- name: ListWholeMonths :many
-- ListWholeMonths returns the months whose events are all in the database, as far as
-- Signpost knows: they are within attached partitions, whatever these are called, and no
-- part of them was archived.
SELECT m.month::date AS month
FROM (
    SELECT range_agg(tstzrange(COALESCE(b.bounds[1], '-infinity')::timestamptz, COALESCE(b.bounds[2], 'infinity')::timestamptz)) AS held
    FROM (
        SELECT regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \((?:''(.*)''|MINVALUE)\) TO \((?:''(.*)''|MAXVALUE)\)') AS bounds
        FROM pg_catalog.pg_inherits i
        JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'events'::regclass AND NOT i.inhdetachpending
    ) b
    WHERE b.bounds IS NOT NULL
) h, generate_series('2000-01-01'::timestamp, now() AT TIME ZONE 'UTC' + '1 year', '1 month') AS m (month)
WHERE h.held @> tstzrange(m.month AT TIME ZONE 'UTC', (m.month + '1 month') AT TIME ZONE 'UTC')
    AND NOT EXISTS (SELECT FROM event_parts p WHERE p.month = m.month::date);

-- name: ListQuartersOfDay :many
SELECT url_id, bucket, clicks, bots
FROM click_quarters
WHERE url_id = ANY(@url_ids::bigint[]) AND bucket >= @from_time AND bucket < @to_time;

-- name: AddLinkTotalChanges :exec
INSERT INTO link_total_changes (url_ids, clicks, people, last_ats)
VALUES (@url_ids, @clicks, @people, @last_ats);

-- name: AddUpLinkTotals :execrows
-- AddUpLinkTotals adds some of the changes to the totals, and returns how many links
-- these were of. When clicks of a link were taken away, its last one is looked up.
WITH taken AS (
    DELETE FROM link_total_changes
    WHERE id IN (SELECT c.id FROM link_total_changes c ORDER BY c.id LIMIT 20)
    RETURNING url_ids, clicks, people, last_ats
), changes AS (
    SELECT unnest(url_ids) AS url_id, unnest(clicks) AS clicks, unnest(people) AS people, unnest(last_ats) AS last_at
    FROM taken
), summed AS (
    SELECT url_id, sum(clicks) AS clicks, sum(people) AS people, max(last_at) AS last_at, bool_or(clicks < 0) AS lowered
    FROM changes
    GROUP BY url_id
)
INSERT INTO link_totals (url_id, clicks, people, last_clicked_at)
SELECT s.url_id, (COALESCE(t.clicks, 0) + s.clicks)::bigint, (COALESCE(t.people, 0) + s.people)::bigint,
    CASE
        WHEN s.lowered THEN COALESCE((SELECT max(r.last_at) FROM rollups r WHERE r.scope = s.url_id), s.last_at)
        ELSE GREATEST(t.last_clicked_at, s.last_at)
    END
FROM summed s
LEFT JOIN link_totals t ON t.url_id = s.url_id
ORDER BY s.url_id
ON CONFLICT ON CONSTRAINT link_totals_pkey DO UPDATE
SET clicks = excluded.clicks, people = excluded.people, last_clicked_at = excluded.last_clicked_at;

-- name: DropEmptyLinkTotals :exec
DELETE FROM link_totals
WHERE clicks <= 0;

-- name: SetTotalsAt :exec
-- SetTotalsAt says that no change of totals waits.
UPDATE installation
SET totals_at = now();

-- name: GetTotalsAt :one
SELECT totals_at
FROM installation;

-- name: AddClickQuarters :exec
-- AddClickQuarters and the queries below it count for the previous release.
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
