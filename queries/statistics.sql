-- name: ReadRollups :many
-- ReadRollups returns the rows of a scope from one UTC day on and before another, with
-- all cells of some of the days, and the first bytes of the cells of some others. Recent
-- ones come beside them.
SELECT day, clicks, people, visitors,
    (CASE
        WHEN day = ANY(@cell_days::date[]) THEN cells
        WHEN day = ANY(@front_days::date[]) THEN substring(cells FROM 1 FOR @front::int)
        ELSE ''
    END)::bytea AS cells,
    recent
FROM rollups
WHERE scope = @scope AND day >= @from_day::date AND day < @to_day::date
ORDER BY day;

-- name: RollupExtent :one
-- RollupExtent returns the first and the last day of a scope, both 0001-01-01 if there
-- is none.
SELECT COALESCE(min(day), '0001-01-01')::date AS first_day, COALESCE(max(day), '0001-01-01')::date AS last_day
FROM rollups
WHERE scope = @scope;

-- name: CountRollupClicks :one
SELECT COALESCE(sum(clicks), 0)::bigint
FROM rollups
WHERE scope = @scope AND day >= @from_day::date AND day < @to_day::date;

-- name: FindRollupScope :one
SELECT id FROM rollup_scopes WHERE kind = @kind AND name = @name;

-- name: CountClicksOfUser :one
-- CountClicksOfUser counts clicks on links of a user, up to a number.
SELECT count(*)
FROM (
    SELECT
    FROM events e
    WHERE e.event_type = 'clicked' AND e.url_id IS NOT NULL AND e.user_id = @user_id
        AND e.occurred_at >= @from_time::timestamptz AND e.occurred_at < @to_time::timestamptz
    LIMIT @most::bigint
) c;

-- name: ReadEvents :many
-- ReadEvents counts clicks by the value of each of some dimensions, and for the empty
-- dimension by bucket. starts are the starts of the buckets, of which the first has
-- number 1. first_bit is the bit of firsts by which visitors are counted. A list of
-- values that is NULL is no filter. Of a dimension with more than most_values, the rest
-- is the value other; links are all told apart.
WITH groups AS (
    SELECT d.dimension,
        (CASE WHEN d.dimension = '' THEN width_bucket(c.occurred_at, @starts::timestamptz[]) ELSE 0 END)::int AS bucket,
        (CASE d.dimension
            WHEN 'kinds' THEN c.kind
            WHEN 'countries' THEN c.country
            WHEN 'referrers' THEN c.referrer
            WHEN 'browsers' THEN c.browser
            WHEN 'systems' THEN c.system
            WHEN 'devices' THEN c.device
            WHEN 'triggers' THEN c.trigger
            WHEN 'links' THEN c.url_id::text
            ELSE ''
        END)::text AS value,
        count(*) AS clicks,
        count(*) FILTER (WHERE c.kind = 'person') AS people,
        count(*) FILTER (WHERE c.firsts & sqlc.arg(first_bit)::int <> 0) AS visitors
    FROM (
        SELECT
            e.occurred_at, e.url_id, e.firsts::int AS firsts,
            COALESCE(e.kind, CASE WHEN e.bot THEN 'bot' ELSE 'person' END) AS kind,
            COALESCE(e.country, '') AS country,
            COALESCE(e.referrer_host, '') AS referrer,
            COALESCE(e.browser, '') AS browser,
            COALESCE(e.os, '') AS system,
            COALESCE(e.device, '') AS device,
            COALESCE(e.trigger, 'link') AS trigger
        FROM events e
        WHERE e.event_type = 'clicked' AND e.url_id IS NOT NULL
            AND e.occurred_at >= @from_time::timestamptz AND e.occurred_at < @to_time::timestamptz
            AND (sqlc.narg(url_id)::bigint IS NULL OR e.url_id = sqlc.narg(url_id))
            AND (sqlc.narg(user_id)::bigint IS NULL OR e.user_id = sqlc.narg(user_id))
    ) c, unnest(@dimensions::text[]) d(dimension)
    WHERE (sqlc.narg(kinds)::text[] IS NULL OR (c.kind = ANY(sqlc.narg(kinds))) <> @not_kinds::boolean)
        AND (sqlc.narg(countries)::text[] IS NULL OR (c.country = ANY(sqlc.narg(countries))) <> @not_countries::boolean)
        AND (sqlc.narg(referrers)::text[] IS NULL OR (c.referrer = ANY(sqlc.narg(referrers))) <> @not_referrers::boolean)
        AND (sqlc.narg(browsers)::text[] IS NULL OR (c.browser = ANY(sqlc.narg(browsers))) <> @not_browsers::boolean)
        AND (sqlc.narg(systems)::text[] IS NULL OR (c.system = ANY(sqlc.narg(systems))) <> @not_systems::boolean)
        AND (sqlc.narg(devices)::text[] IS NULL OR (c.device = ANY(sqlc.narg(devices))) <> @not_devices::boolean)
        AND (sqlc.narg(triggers)::text[] IS NULL OR (c.trigger = ANY(sqlc.narg(triggers))) <> @not_triggers::boolean)
    GROUP BY 1, 2, 3
), placed AS (
    SELECT g.*, CASE WHEN g.dimension IN ('', 'links') THEN 0 ELSE row_number() OVER (PARTITION BY g.dimension ORDER BY g.clicks DESC, g.value) END AS place
    FROM groups g
)
SELECT dimension::text AS dimension, bucket, (CASE WHEN place > @most_values::bigint THEN @other::text ELSE value END)::text AS value,
    sum(clicks)::bigint AS clicks, sum(people)::bigint AS people, sum(visitors)::bigint AS visitors
FROM placed
GROUP BY 1, 2, 3;

-- name: ListMonthsOfRollups :many
-- ListMonthsOfRollups returns the months from one day on and before another that have
-- clicks.
SELECT DISTINCT date_trunc('month', day)::date AS month
FROM rollups
WHERE scope = 0 AND day >= @from_day::date AND day < @to_day::date
ORDER BY month;

-- name: ListRollupScopes :many
SELECT id FROM rollup_scopes WHERE kind = @kind;

-- name: ReadRaggedRollups :many
-- ReadRaggedRollups returns rows of links, or of the given scopes, on the days that a
-- range begins or ends in, with the first bytes of their cells and the recent ones, behind
-- a place in their order. Rows of links whose last click is before the range are left
-- out, and those that RankScopes counts as a whole: with a single click, or with the last
-- click of last_day in the range.
SELECT r.scope, r.day, substring(r.cells FROM 1 FOR @front::int)::bytea AS cells, r.recent
FROM rollups r
WHERE r.day = ANY(@days::date[])
    AND (r.last_at IS NULL OR r.clicks > 1 AND r.last_at >= @from_time::timestamptz
        AND (r.day IS DISTINCT FROM sqlc.narg(last_day)::date OR r.last_at >= @to_time::timestamptz))
    AND (r.scope, r.day) > (@after_scope::bigint, @after_day::date)
    AND (sqlc.narg(scopes)::bigint[] IS NOT NULL OR r.scope > 0)
    AND (sqlc.narg(scopes)::bigint[] IS NULL OR r.scope = ANY(sqlc.narg(scopes)))
    AND (sqlc.narg(user_id)::bigint IS NULL OR r.scope IN (SELECT u.id FROM urls u WHERE u.user_id = sqlc.narg(user_id)))
    AND (sqlc.narg(domain_id)::bigint IS NULL OR r.scope IN (SELECT u.id FROM urls u WHERE u.domain_id = sqlc.narg(domain_id)))
    AND (sqlc.narg(tag)::text IS NULL OR r.scope IN (SELECT u.id FROM urls u WHERE u.tags @> ARRAY[sqlc.narg(tag)::text]))
ORDER BY r.scope, r.day
LIMIT @row_limit;

-- name: RankScopes :many
-- RankScopes returns the links, or those of the given scopes, with the most clicks, or
-- whatever they are ranked by, behind a place in that order. The sums consist of whole
-- UTC days; of the single clicks that a link has on one of ragged_days, which are only
-- partly in the range; of last_day where its last click is before to_time; and of counts
-- that the caller brings. part is people, robots, or empty for all clicks. The totals are
-- those of all scopes, and the same in each row.
WITH counts AS (
    SELECT r.scope, r.clicks, r.people, r.visitors
    FROM rollups r
    WHERE (r.day >= @from_day::date AND r.day < @to_day::date OR r.day = sqlc.narg(last_day)::date AND r.last_at < @to_time::timestamptz
            OR r.day = ANY(@ragged_days::date[]) AND r.clicks = 1 AND r.last_at >= @from_time::timestamptz AND r.last_at < @to_time)
        AND (sqlc.narg(scopes)::bigint[] IS NOT NULL OR r.scope > 0)
        AND (sqlc.narg(scopes)::bigint[] IS NULL OR r.scope = ANY(sqlc.narg(scopes)))
        AND (sqlc.narg(user_id)::bigint IS NULL OR r.scope IN (SELECT u.id FROM urls u WHERE u.user_id = sqlc.narg(user_id)))
        AND (sqlc.narg(domain_id)::bigint IS NULL OR r.scope IN (SELECT u.id FROM urls u WHERE u.domain_id = sqlc.narg(domain_id)))
        AND (sqlc.narg(tag)::text IS NULL OR r.scope IN (SELECT u.id FROM urls u WHERE u.tags @> ARRAY[sqlc.narg(tag)::text]))
    UNION ALL
    SELECT unnest(@ragged_scopes::bigint[]), unnest(@ragged_clicks::bigint[]), unnest(@ragged_people::bigint[]),
        unnest(@ragged_visitors::bigint[])
), parts AS (
    SELECT scope,
        CASE WHEN @part::text = 'people' THEN people WHEN @part = 'robots' THEN clicks - people ELSE clicks END AS clicks,
        CASE WHEN @part = 'robots' THEN 0 ELSE people END AS people,
        CASE WHEN @part = 'robots' THEN 0 ELSE visitors END AS visitors
    FROM counts
), sums AS (
    SELECT scope, sum(clicks)::bigint AS clicks, sum(people)::bigint AS people, sum(visitors)::bigint AS visitors
    FROM parts
    GROUP BY scope
    HAVING sum(clicks) > 0
), ranked AS (
    SELECT scope, clicks, people, visitors, (
        sqlc.arg(sign)::int * CASE WHEN @rank_by::text = 'people' THEN people WHEN @rank_by = 'visitors' THEN visitors WHEN @rank_by = 'value' THEN scope ELSE clicks END
    )::bigint AS rank
    FROM sums
)
SELECT s.scope, s.clicks, s.people, s.visitors, s.rank, t.total_clicks, t.total_people, t.total_visitors
FROM ranked s, (
    SELECT COALESCE(sum(clicks), 0)::bigint AS total_clicks, COALESCE(sum(people), 0)::bigint AS total_people,
        COALESCE(sum(visitors), 0)::bigint AS total_visitors
    FROM sums
) t
WHERE s.rank < @after_rank::bigint OR s.rank = @after_rank AND s.scope > @after_scope::bigint
ORDER BY s.rank DESC, s.scope
LIMIT @row_limit;

-- name: HasStatistics :one
-- HasStatistics reports whether there is a link with the id, or clicks of one that was
-- deleted; and how many clicks the link was imported with.
SELECT (EXISTS (SELECT FROM urls u WHERE u.id = @id) OR EXISTS (SELECT FROM rollups r WHERE r.scope = @id))::boolean AS known,
    COALESCE((SELECT u.imported_clicks FROM urls u WHERE u.id = @id), 0)::bigint AS imported_clicks;

-- name: NameLinks :many
SELECT urls.id, urls.short_code, urls.title, domains.host
FROM urls
JOIN domains ON domains.id = urls.domain_id
WHERE urls.id = ANY(@ids::bigint[]);

-- name: NameScopes :many
-- NameScopes returns the names of scopes; that of a domain is its host, NULL for the
-- main one. A domain that was deleted is left out.
SELECT s.id, s.name, d.host
FROM rollup_scopes s
LEFT JOIN domains d ON s.kind = 'domain' AND d.id::text = s.name
WHERE s.id = ANY(@ids::bigint[]) AND (s.kind <> 'domain' OR d.id IS NOT NULL);

-- name: FindLink :one
SELECT id FROM urls WHERE domain_id = @domain_id AND short_code = @short_code;

-- name: ListBusyLinks :many
-- ListBusyLinks returns the links that have a busy day from one day on and before another,
-- those first that may have the most clicks. beyond says how many these are at most, without
-- the 3 that any day may have: a day of the last class has no bound, and counts as a billion.
SELECT scope, sum(CASE WHEN busy = @last_class::int THEN 1 << 30 ELSE (4 << busy) - 4 END)::bigint AS beyond
FROM rollups
WHERE day >= @from_day::date AND day < @to_day::date AND busy > 0 AND scope > 0
GROUP BY scope
ORDER BY beyond DESC
LIMIT @row_limit;
