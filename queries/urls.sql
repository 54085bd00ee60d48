-- name: CreateURL :one
INSERT INTO urls (
    user_id, domain_id, short_code, original_url, title, tags, is_active, expires_at, redirect_status, forward_query
)
VALUES (
    @user_id, @domain_id, @short_code, @original_url, @title, @tags, @is_active, @expires_at, @redirect_status, @forward_query
)
RETURNING *;

-- name: GetURL :one
-- GetURL has the zero time for a link that was never clicked.
SELECT sqlc.embed(urls), domains.host, COALESCE(c.clicks, 0)::bigint AS clicks, COALESCE(c.people, 0)::bigint AS people,
    COALESCE(c.last_at, '0001-01-01 00:00:00+00')::timestamptz AS last_at
FROM urls
JOIN domains ON domains.id = urls.domain_id
LEFT JOIN (
    SELECT r.scope, sum(r.clicks) AS clicks, sum(r.people) AS people, max(r.last_at) AS last_at
    FROM rollups r
    WHERE r.scope = @id
    GROUP BY r.scope
) c ON c.scope = urls.id
WHERE urls.id = @id;

-- name: LockURL :one
SELECT sqlc.embed(urls), domains.host, COALESCE(c.clicks, 0)::bigint AS clicks, COALESCE(c.people, 0)::bigint AS people,
    COALESCE(c.last_at, '0001-01-01 00:00:00+00')::timestamptz AS last_at
FROM urls
JOIN domains ON domains.id = urls.domain_id
LEFT JOIN (
    SELECT r.scope, sum(r.clicks) AS clicks, sum(r.people) AS people, max(r.last_at) AS last_at
    FROM rollups r
    WHERE r.scope = @id
    GROUP BY r.scope
) c ON c.scope = urls.id
WHERE urls.id = @id
FOR UPDATE OF urls;

-- name: UpdateURL :one
-- UpdateURL forgets that an undo has switched the link off for now, if the request
-- itself says whether the link is active.
UPDATE urls
SET user_id = @user_id, domain_id = @domain_id, short_code = @short_code, original_url = @original_url, title = @title, tags = @tags,
    is_active = @is_active, expires_at = @expires_at, redirect_status = @redirect_status,
    forward_query = @forward_query, updated_at = clock_timestamp(),
    undo_of = CASE WHEN @decides_active::boolean THEN NULL ELSE undo_of END
WHERE id = @id
RETURNING *;

-- name: DeleteURL :execrows
DELETE FROM urls
WHERE id = @id;

-- name: WalkURLsUp :many
-- WalkURLsUp walks along one index through up to walk_limit links behind at_id, oldest
-- first, and returns those that pass the filters, in order. If edge_limit is 1, one
-- more row says where the walk ended, unless that was the end of the list. It is
-- planned anew for every call, so that a filter that is not set costs nothing. Because
-- of the limit of the inner query, the planner cannot move the filters into it.
WITH passed AS (
    SELECT u.id
    FROM (
        SELECT w.id, w.domain_id, w.is_active, w.tags, w.title, w.original_url
        FROM urls w
        WHERE w.id > @at_id
            AND (sqlc.narg(user_id)::bigint IS NULL OR w.user_id = sqlc.narg(user_id))
            AND (NOT sqlc.arg(inactive)::boolean OR NOT w.is_active)
            AND (sqlc.narg(custom_domain_id)::bigint IS NULL
                OR w.domain_id = sqlc.narg(custom_domain_id) AND w.domain_id <> 1)
        ORDER BY w.id
        LIMIT sqlc.arg(walk_limit)::bigint
    ) u
    WHERE (sqlc.narg(is_active)::boolean IS NULL OR u.is_active = sqlc.narg(is_active))
        AND (sqlc.narg(domain_id)::bigint IS NULL OR u.domain_id = sqlc.narg(domain_id))
        AND (sqlc.narg(tag)::text IS NULL OR u.tags @> ARRAY[sqlc.narg(tag)::text])
        AND (sqlc.narg(search)::text IS NULL
            OR u.title ILIKE sqlc.narg(search)
            OR u.original_url ILIKE sqlc.narg(search))
    ORDER BY u.id
    LIMIT @row_limit OFFSET @row_offset
), edge AS (
    SELECT w.id
    FROM urls w
    WHERE w.id > @at_id
        AND (sqlc.narg(user_id)::bigint IS NULL OR w.user_id = sqlc.narg(user_id))
        AND (NOT sqlc.arg(inactive)::boolean OR NOT w.is_active)
        AND (sqlc.narg(custom_domain_id)::bigint IS NULL
            OR w.domain_id = sqlc.narg(custom_domain_id) AND w.domain_id <> 1)
    ORDER BY w.id
    LIMIT @edge_limit OFFSET sqlc.arg(walk_limit)::bigint - 1
)
SELECT id, false AS is_edge FROM passed
UNION ALL
SELECT id, true FROM edge;

-- name: WalkURLsDown :many
-- WalkURLsDown is like WalkURLsUp, with the newest links first.
WITH passed AS (
    SELECT u.id
    FROM (
        SELECT w.id, w.domain_id, w.is_active, w.tags, w.title, w.original_url
        FROM urls w
        WHERE w.id < @at_id
            AND (sqlc.narg(user_id)::bigint IS NULL OR w.user_id = sqlc.narg(user_id))
            AND (NOT sqlc.arg(inactive)::boolean OR NOT w.is_active)
            AND (sqlc.narg(custom_domain_id)::bigint IS NULL
                OR w.domain_id = sqlc.narg(custom_domain_id) AND w.domain_id <> 1)
        ORDER BY w.id DESC
        LIMIT sqlc.arg(walk_limit)::bigint
    ) u
    WHERE (sqlc.narg(is_active)::boolean IS NULL OR u.is_active = sqlc.narg(is_active))
        AND (sqlc.narg(domain_id)::bigint IS NULL OR u.domain_id = sqlc.narg(domain_id))
        AND (sqlc.narg(tag)::text IS NULL OR u.tags @> ARRAY[sqlc.narg(tag)::text])
        AND (sqlc.narg(search)::text IS NULL
            OR u.title ILIKE sqlc.narg(search)
            OR u.original_url ILIKE sqlc.narg(search))
    ORDER BY u.id DESC
    LIMIT @row_limit OFFSET @row_offset
), edge AS (
    SELECT w.id
    FROM urls w
    WHERE w.id < @at_id
        AND (sqlc.narg(user_id)::bigint IS NULL OR w.user_id = sqlc.narg(user_id))
        AND (NOT sqlc.arg(inactive)::boolean OR NOT w.is_active)
        AND (sqlc.narg(custom_domain_id)::bigint IS NULL
            OR w.domain_id = sqlc.narg(custom_domain_id) AND w.domain_id <> 1)
    ORDER BY w.id DESC
    LIMIT @edge_limit OFFSET sqlc.arg(walk_limit)::bigint - 1
)
SELECT id, false AS is_edge FROM passed
UNION ALL
SELECT id, true FROM edge;

-- name: FindURLs :many
-- FindURLs returns the ids of up to row_limit links with a tag and a text, in no
-- particular order, and whether each passes the other filters. If an order were
-- required, the planner would walk through all links by id if it expects matches to be
-- spread evenly.
SELECT f.id, ((sqlc.narg(user_id)::bigint IS NULL OR f.user_id = sqlc.narg(user_id))
    AND (sqlc.narg(domain_id)::bigint IS NULL OR f.domain_id = sqlc.narg(domain_id))
    AND (sqlc.narg(is_active)::boolean IS NULL OR f.is_active = sqlc.narg(is_active)))::boolean AS passes
FROM (
    SELECT id, user_id, domain_id, is_active
    FROM urls
    WHERE (sqlc.narg(tag)::text IS NULL OR tags @> ARRAY[sqlc.narg(tag)::text])
        AND (sqlc.narg(search)::text IS NULL
            OR title ILIKE sqlc.narg(search)
            OR original_url ILIKE sqlc.narg(search))
    LIMIT @row_limit
) f;

-- name: SortLinksDown :many
-- SortLinksDown walks through up to walk_limit links behind a place, those with the most
-- first, and says which pass the filters. sort_by is a column of link_totals, or
-- unclicked for the links without clicks, by id. It is planned anew for every call, so
-- that only one of the walks is made.
SELECT w.id::bigint AS id, w.key::bigint AS key, (u.id IS NOT NULL AND NOT w.skip
        AND (sqlc.narg(user_id)::bigint IS NULL OR u.user_id = sqlc.narg(user_id))
        AND (sqlc.narg(is_active)::boolean IS NULL OR u.is_active = sqlc.narg(is_active))
        AND (sqlc.narg(domain_id)::bigint IS NULL OR u.domain_id = sqlc.narg(domain_id))
        AND (sqlc.narg(tag)::text IS NULL OR u.tags @> ARRAY[sqlc.narg(tag)::text])
        AND (sqlc.narg(search)::text IS NULL OR u.title ILIKE sqlc.narg(search) OR u.original_url ILIKE sqlc.narg(search)))::boolean AS passes
FROM (
    (SELECT t.url_id AS id, t.clicks AS key, false AS skip
    FROM link_totals t
    WHERE @sort_by::text = 'clicks' AND (t.clicks, t.url_id) < (@at_key::bigint, @at_id::bigint)
    ORDER BY t.clicks DESC, t.url_id DESC
    LIMIT @walk_limit::bigint)
    UNION ALL
    (SELECT t.url_id AS id, t.people AS key, false AS skip
    FROM link_totals t
    WHERE @sort_by::text = 'people' AND (t.people, t.url_id) < (@at_key::bigint, @at_id::bigint)
    ORDER BY t.people DESC, t.url_id DESC
    LIMIT @walk_limit::bigint)
    UNION ALL
    (SELECT t.url_id AS id, (extract(epoch FROM t.last_clicked_at) * 1000000)::bigint AS key, false AS skip
    FROM link_totals t
    WHERE @sort_by::text = 'last_clicked_at' AND (t.last_clicked_at, t.url_id) < (@at_time::timestamptz, @at_id::bigint)
    ORDER BY t.last_clicked_at DESC, t.url_id DESC
    LIMIT @walk_limit::bigint)
    UNION ALL
    (SELECT l.id, -1, EXISTS (SELECT FROM link_totals t WHERE t.url_id = l.id)
    FROM urls l
    WHERE @sort_by::text = 'unclicked' AND l.id < @at_id::bigint
    ORDER BY l.id DESC
    LIMIT @walk_limit::bigint)
) w
LEFT JOIN urls u ON u.id = w.id
ORDER BY w.key DESC, w.id DESC;

-- name: SortLinksUp :many
-- SortLinksUp is like SortLinksDown, the other way round.
SELECT w.id::bigint AS id, w.key::bigint AS key, (u.id IS NOT NULL AND NOT w.skip
        AND (sqlc.narg(user_id)::bigint IS NULL OR u.user_id = sqlc.narg(user_id))
        AND (sqlc.narg(is_active)::boolean IS NULL OR u.is_active = sqlc.narg(is_active))
        AND (sqlc.narg(domain_id)::bigint IS NULL OR u.domain_id = sqlc.narg(domain_id))
        AND (sqlc.narg(tag)::text IS NULL OR u.tags @> ARRAY[sqlc.narg(tag)::text])
        AND (sqlc.narg(search)::text IS NULL OR u.title ILIKE sqlc.narg(search) OR u.original_url ILIKE sqlc.narg(search)))::boolean AS passes
FROM (
    (SELECT t.url_id AS id, t.clicks AS key, false AS skip
    FROM link_totals t
    WHERE @sort_by::text = 'clicks' AND (t.clicks, t.url_id) > (@at_key::bigint, @at_id::bigint)
    ORDER BY t.clicks, t.url_id
    LIMIT @walk_limit::bigint)
    UNION ALL
    (SELECT t.url_id AS id, t.people AS key, false AS skip
    FROM link_totals t
    WHERE @sort_by::text = 'people' AND (t.people, t.url_id) > (@at_key::bigint, @at_id::bigint)
    ORDER BY t.people, t.url_id
    LIMIT @walk_limit::bigint)
    UNION ALL
    (SELECT t.url_id AS id, (extract(epoch FROM t.last_clicked_at) * 1000000)::bigint AS key, false AS skip
    FROM link_totals t
    WHERE @sort_by::text = 'last_clicked_at' AND (t.last_clicked_at, t.url_id) > (@at_time::timestamptz, @at_id::bigint)
    ORDER BY t.last_clicked_at, t.url_id
    LIMIT @walk_limit::bigint)
    UNION ALL
    (SELECT l.id, -1, EXISTS (SELECT FROM link_totals t WHERE t.url_id = l.id)
    FROM urls l
    WHERE @sort_by::text = 'unclicked' AND l.id > @at_id::bigint
    ORDER BY l.id
    LIMIT @walk_limit::bigint)
) w
LEFT JOIN urls u ON u.id = w.id
ORDER BY w.key, w.id;

-- name: SortFewLinks :many
-- SortFewLinks returns up to row_limit links of a user, a domain or a tag, in no order.
WITH few AS MATERIALIZED (
    SELECT u.id, u.is_active, u.title, u.original_url
    FROM urls u
    WHERE (sqlc.narg(user_id)::bigint IS NULL OR u.user_id = sqlc.narg(user_id))
        AND (sqlc.narg(domain_id)::bigint IS NULL OR u.domain_id = sqlc.narg(domain_id))
        AND (sqlc.narg(tag)::text IS NULL OR u.tags @> ARRAY[sqlc.narg(tag)::text])
    LIMIT @row_limit
)
SELECT f.id, COALESCE(CASE @sort_by::text
        WHEN 'clicks' THEN t.clicks
        WHEN 'people' THEN t.people
        ELSE (extract(epoch FROM t.last_clicked_at) * 1000000)::bigint
    END, -1)::bigint AS key,
    ((sqlc.narg(is_active)::boolean IS NULL OR f.is_active = sqlc.narg(is_active))
        AND (sqlc.narg(search)::text IS NULL OR f.title ILIKE sqlc.narg(search) OR f.original_url ILIKE sqlc.narg(search)))::boolean AS passes
FROM few f
LEFT JOIN link_totals t ON t.url_id = f.id;

-- name: SampleURLs :one
-- SampleURLs draws about 64 pages at random and returns how many of them have links
-- with a tag and a text. These are many if such links are spread over the table, and
-- few or none if there are few links or all are in one place.
SELECT count(DISTINCT (ctid::text::point)[0])
FROM urls TABLESAMPLE SYSTEM (least(100, 6400 * 8192.0 / greatest(pg_relation_size('urls'), 1)))
WHERE (sqlc.narg(tag)::text IS NULL OR tags @> ARRAY[sqlc.narg(tag)::text])
    AND (sqlc.narg(search)::text IS NULL
        OR title ILIKE sqlc.narg(search)
        OR original_url ILIKE sqlc.narg(search));

-- name: PreferBitmaps :exec
-- PreferBitmaps makes the rest of the transaction read all matches of an index before
-- any row, however many matches the planner expects. It also limits how long a
-- statement takes.
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_indexscan', 'off', true),
    set_config('statement_timeout', sqlc.arg(milliseconds)::bigint::text, true);

-- name: GetURLs :many
-- GetURLs returns links and their numbers, in no particular order. A list first finds
-- the ids of a page and then calls this once to sum up their clicks, so links that are
-- skipped cost nothing.
SELECT sqlc.embed(urls), domains.host, COALESCE(c.clicks, 0)::bigint AS clicks, COALESCE(c.people, 0)::bigint AS people,
    COALESCE(c.last_at, '0001-01-01 00:00:00+00')::timestamptz AS last_at
FROM urls
JOIN domains ON domains.id = urls.domain_id
LEFT JOIN (
    SELECT r.scope, sum(r.clicks) AS clicks, sum(r.people) AS people, max(r.last_at) AS last_at
    FROM rollups r
    WHERE r.scope = ANY(@ids::bigint[])
    GROUP BY r.scope
) c ON c.scope = urls.id
WHERE urls.id = ANY(@ids::bigint[]);

-- name: ResolveLinks :many
-- ResolveLinks returns everything that redirects need of links, by their keys. A new
-- attribute of redirects has to be a column here and a field in linkcache.
SELECT u.domain_id, u.short_code, u.id, u.user_id, u.original_url, u.is_active, u.expires_at, u.redirect_status,
    u.forward_query, u.version
FROM (SELECT unnest(@domain_ids::bigint[]) AS domain_id, unnest(@short_codes::text[]) AS short_code) k
JOIN urls u ON u.short_code = k.short_code AND u.domain_id = k.domain_id;

-- name: FindCodesInAnotherCase :many
-- FindCodesInAnotherCase returns up to two codes of a domain that differ from a code
-- only in case, and whose links lead somewhere. All matches are read before any is
-- taken: with a limit on them, the planner would read the table instead if it expects
-- many.
WITH alike AS MATERIALIZED (
    SELECT domain_id, short_code, is_active, expires_at
    FROM urls
    WHERE lower(short_code) = lower(sqlc.arg(short_code)::text COLLATE "C")
)
SELECT short_code
FROM alike
WHERE short_code <> sqlc.arg(short_code)::text AND domain_id = @domain_id::bigint AND is_active AND (expires_at IS NULL OR expires_at > now())
LIMIT 2;

-- name: ImportURLs :many
-- ImportURLs is like ImportUsers. Tags are joined by '|', and an empty title means that
-- there is none.
INSERT INTO urls (
    id, user_id, domain_id, short_code, original_url, title, tags, is_active, expires_at, redirect_status, forward_query,
    imported_clicks, created_at, updated_at, import_id, import_line
)
SELECT COALESCE(NULLIF(r.id, 0), nextval('urls_id_seq')), r.user_id, r.domain_id, r.short_code, r.original_url,
    NULLIF(r.title, ''), string_to_array(r.tags, '|'), r.is_active,
    NULLIF(r.expires_at, '0001-01-01 00:00:00+00'), r.redirect_status, r.forward_query,
    r.imported_clicks, COALESCE(NULLIF(r.created_at, '0001-01-01 00:00:00+00'), now()),
    COALESCE(NULLIF(r.updated_at, '0001-01-01 00:00:00+00'), NULLIF(r.created_at, '0001-01-01 00:00:00+00'), now()),
    @import_id, r.line
FROM (
    SELECT
        unnest(@lines::bigint[]) AS line,
        unnest(@ids::bigint[]) AS id,
        unnest(@user_ids::bigint[]) AS user_id,
        unnest(@domain_ids::bigint[]) AS domain_id,
        unnest(@short_codes::text[]) AS short_code,
        unnest(@original_urls::text[]) AS original_url,
        unnest(@titles::text[]) AS title,
        unnest(@tags::text[]) AS tags,
        unnest(@is_actives::boolean[]) AS is_active,
        unnest(@expires_ats::timestamptz[]) AS expires_at,
        unnest(@redirect_statuses::smallint[]) AS redirect_status,
        unnest(@forward_queries::boolean[]) AS forward_query,
        unnest(@imported_clicks::bigint[]) AS imported_clicks,
        unnest(@created_ats::timestamptz[]) AS created_at,
        unnest(@updated_ats::timestamptz[]) AS updated_at
) r
ORDER BY r.line
ON CONFLICT DO NOTHING
RETURNING import_line, id;

-- name: FindURLKeyOwners :many
-- FindURLKeyOwners is like FindUserKeyOwners.
SELECT
    r.line::bigint AS line,
    COALESCE((SELECT u.id FROM urls u WHERE u.id = r.id), 0)::bigint AS id_owner,
    COALESCE((SELECT u.id FROM urls u WHERE u.short_code = r.short_code AND u.domain_id = r.domain_id), 0)::bigint AS short_code_owner
FROM (
    SELECT
        unnest(@lines::bigint[]) AS line,
        unnest(@ids::bigint[]) AS id,
        unnest(@domain_ids::bigint[]) AS domain_id,
        unnest(@short_codes::text[]) AS short_code
) r;

-- name: LockURLKeys :many
-- LockURLKeys is like LockUserKeys.
SELECT id, domain_id, short_code
FROM urls
WHERE id = ANY(@ids::bigint[])
ORDER BY id
FOR NO KEY UPDATE;

-- name: UpdateImportedURLs :many
-- UpdateImportedURLs is like UpdateImportedUsers. Fields that the file does not have
-- stay as they are: their value here is an empty text, the zero time, 0, or -1 for
-- imported_clicks.
UPDATE urls u
SET user_id = COALESCE(NULLIF(r.user_id, 0), u.user_id),
    original_url = r.original_url,
    title = COALESCE(NULLIF(r.title, ''), u.title),
    tags = CASE WHEN r.tags = '' THEN u.tags ELSE string_to_array(r.tags, '|') END,
    is_active = COALESCE(NULLIF(r.is_active, '')::boolean, u.is_active),
    undo_of = CASE WHEN r.is_active = '' THEN u.undo_of END,
    expires_at = COALESCE(NULLIF(r.expires_at, '0001-01-01 00:00:00+00'), u.expires_at),
    redirect_status = COALESCE(NULLIF(r.redirect_status, 0), u.redirect_status),
    forward_query = COALESCE(NULLIF(r.forward_query, '')::boolean, u.forward_query),
    imported_clicks = COALESCE(NULLIF(r.imported_clicks, -1), u.imported_clicks),
    created_at = COALESCE(NULLIF(r.created_at, '0001-01-01 00:00:00+00'), u.created_at),
    updated_at = clock_timestamp()
FROM (
    SELECT
        unnest(@lines::bigint[]) AS line,
        unnest(@ids::bigint[]) AS id,
        unnest(@user_ids::bigint[]) AS user_id,
        unnest(@original_urls::text[]) AS original_url,
        unnest(@titles::text[]) AS title,
        unnest(@tags::text[]) AS tags,
        unnest(@is_actives::text[]) AS is_active,
        unnest(@expires_ats::timestamptz[]) AS expires_at,
        unnest(@redirect_statuses::smallint[]) AS redirect_status,
        unnest(@forward_queries::text[]) AS forward_query,
        unnest(@imported_clicks::bigint[]) AS imported_clicks,
        unnest(@created_ats::timestamptz[]) AS created_at
) r
JOIN urls o ON o.id = r.id
WHERE u.id = o.id
RETURNING r.line::bigint AS line, (
    SELECT COALESCE(jsonb_object_agg(b.key, b.value), '{}')
    FROM jsonb_each(to_jsonb(o)) b
    WHERE b.key NOT IN ('version', 'updated_at', 'import_touched', 'undo_of') AND b.value IS DISTINCT FROM to_jsonb(u) -> b.key
)::jsonb AS before;

-- name: FindURLOwners :many
SELECT id, user_id
FROM urls
WHERE id = ANY(@ids::bigint[]);

-- name: MoveURLsSequence :exec
-- MoveURLsSequence is like MoveUsersSequence.
WITH locked AS MATERIALIZED (
    SELECT pg_advisory_xact_lock(hashtextextended('urls_id_seq', 0))
)
SELECT setval('urls_id_seq', @past_id::bigint)
FROM locked
WHERE COALESCE(pg_sequence_last_value('urls_id_seq'), 0) < @past_id::bigint;

-- name: LastTakenURLID :one
-- LastTakenURLID is like LastTakenUserID.
WITH drawn AS (
    SELECT COALESCE(pg_sequence_last_value('urls_id_seq'), 0) AS last_id
)
SELECT CASE
    WHEN EXISTS (SELECT FROM urls t, drawn WHERE t.id > last_id AND t.id <= last_id + @wanted::bigint) THEN (
        SELECT r.id
        FROM (
            SELECT t.id, lead(t.id) OVER (ORDER BY t.id) AS next_id
            FROM urls t, drawn
            WHERE t.id > last_id
        ) r
        WHERE r.next_id IS NULL OR r.next_id > r.id + @wanted::bigint
        ORDER BY r.id
        LIMIT 1
    )
    ELSE 0
END::bigint AS id;

-- name: ReadURLs :many
-- ReadURLs returns those of the links with some ids that pass the filters.
SELECT sqlc.embed(u), d.host
FROM urls u
JOIN domains d ON d.id = u.domain_id
WHERE u.id = ANY(@ids::bigint[])
    AND (sqlc.narg(user_id)::bigint IS NULL OR u.user_id = sqlc.narg(user_id))
    AND (sqlc.narg(domain_id)::bigint IS NULL OR u.domain_id = sqlc.narg(domain_id))
    AND (sqlc.narg(is_active)::boolean IS NULL OR u.is_active = sqlc.narg(is_active))
    AND (sqlc.narg(tag)::text IS NULL OR u.tags @> ARRAY[sqlc.narg(tag)::text])
    AND (sqlc.narg(search)::text IS NULL OR u.title ILIKE sqlc.narg(search) OR u.original_url ILIKE sqlc.narg(search))
ORDER BY u.id;

-- name: ChangeURLs :exec
-- ChangeURLs is UpdateURL for many links and for the fields that many can be given at
-- once. Tags are joined by '|'.
UPDATE urls u
SET tags = string_to_array(r.tags, '|'), is_active = r.is_active, updated_at = clock_timestamp(),
    undo_of = CASE WHEN @decides_active::boolean THEN NULL ELSE u.undo_of END
FROM (
    SELECT unnest(@ids::bigint[]) AS id, unnest(@tags::text[]) AS tags, unnest(@is_actives::boolean[]) AS is_active
) r
WHERE u.id = r.id;

-- name: CreateURLs :many
-- CreateURLs is CreateURL for many links: those whose code is free. Of two with one code
-- the first is made. They are in the order of their codes, so that two requests do not wait
-- for each other. Tags are joined by '|', an empty title means that there is none, and the
-- zero time that the link does not end.
INSERT INTO urls (
    user_id, domain_id, short_code, original_url, title, tags, is_active, expires_at, redirect_status, forward_query
)
SELECT r.user_id, r.domain_id, r.short_code, r.original_url, NULLIF(r.title, ''), string_to_array(r.tags, '|'), r.is_active,
    NULLIF(r.expires_at, '0001-01-01 00:00:00+00'), r.redirect_status, r.forward_query
FROM (
    SELECT
        unnest(@places::bigint[]) AS place,
        unnest(@user_ids::bigint[]) AS user_id,
        unnest(@domain_ids::bigint[]) AS domain_id,
        unnest(@short_codes::text[]) AS short_code,
        unnest(@original_urls::text[]) AS original_url,
        unnest(@titles::text[]) AS title,
        unnest(@tags::text[]) AS tags,
        unnest(@is_actives::boolean[]) AS is_active,
        unnest(@expires_ats::timestamptz[]) AS expires_at,
        unnest(@redirect_statuses::smallint[]) AS redirect_status,
        unnest(@forward_queries::boolean[]) AS forward_query
) r
ORDER BY r.domain_id, r.short_code, r.place
ON CONFLICT (short_code, domain_id) DO NOTHING
RETURNING *;
