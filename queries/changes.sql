-- name: PollLinkChanges :many
-- The changes after a position and those of the gaps before it that became
-- visible since, each with the link as it is now, and the state of the log. It
-- is one statement, so one snapshot and one round trip; without a change it
-- answers one row whose id is 0. The anchor is the row at the position: another
-- version there, or none, means another history. @lows and @highs are the
-- first and last ids of the gaps.
--
-- The history is another one after each start of the server, and for each
-- database and each table that was ever made: also for one that was dropped and
-- filled again from a dump, whose rows may look the same.
--
-- Each arm has a limit of its own: a bulk change leaves a backlog of which a
-- poll reads the beginning, not all.
--
-- Every writer whose id is missing had its xid before it drew the id, so below
-- next_xid. The snapshot's own xmax would not do: it is one past the highest
-- xid that *completed*, and a writer with a higher one may still be under way.
-- Only age() tells the next xid without drawing one.
WITH seen AS (
    (SELECT id FROM link_changes WHERE id > @after_id::bigint ORDER BY id LIMIT @row_limit)
    UNION ALL
    SELECT c.id
    FROM (SELECT unnest(@lows::bigint[]) AS low, unnest(@highs::bigint[]) AS high) g
    CROSS JOIN LATERAL (
        SELECT x.id FROM link_changes x WHERE x.id BETWEEN g.low AND g.high ORDER BY x.id LIMIT @row_limit
    ) c
    ORDER BY id
    LIMIT @row_limit
)
SELECT
    COALESCE((SELECT min(id) FROM link_changes), 0)::bigint AS oldest_id,
    COALESCE((SELECT max(id) FROM link_changes), 0)::bigint AS newest_id,
    COALESCE((SELECT version FROM link_changes WHERE id = @after_id::bigint), 0)::bigint AS anchor,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
    (pg_snapshot_xmax(pg_current_snapshot())::text::bigint
        + age(pg_snapshot_xmax(pg_current_snapshot())::xid))::bigint AS next_xid,
    (extract(epoch FROM pg_postmaster_start_time())::text || '.'
        || (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())::text || '.'
        || 'link_changes'::regclass::oid::text)::text AS history,
    COALESCE(c.id, 0)::bigint AS id, COALESCE(c.version, 0)::bigint AS version, c.short_code,
    u.id AS url_id, u.user_id, u.original_url, u.is_active, u.expires_at,
    u.redirect_status, u.forward_query, u.version AS url_version
FROM (VALUES (1)) one
LEFT JOIN seen ON true
LEFT JOIN link_changes c ON c.id = seen.id
LEFT JOIN urls u ON u.short_code = c.short_code
ORDER BY c.id;

-- name: ListChangeGaps :many
-- The ids that a reader who starts now does not see: rolled back, or still to
-- be committed. With the state of the log, in one snapshot, as PollLinkChanges,
-- and the installation that the log belongs to.
WITH gaps AS (
    SELECT n.previous + 1 AS low, n.id - 1 AS high
    FROM (SELECT id, lag(id) OVER (ORDER BY id) AS previous FROM link_changes) n
    WHERE n.id > n.previous + 1
    ORDER BY n.id DESC
    LIMIT @row_limit
)
SELECT
    COALESCE((SELECT max(id) FROM link_changes), 0)::bigint AS newest_id,
    COALESCE((SELECT version FROM link_changes ORDER BY id DESC LIMIT 1), 0)::bigint AS anchor,
    COALESCE((SELECT min(id) FROM link_changes), 0)::bigint AS oldest_id,
    (pg_snapshot_xmax(pg_current_snapshot())::text::bigint
        + age(pg_snapshot_xmax(pg_current_snapshot())::xid))::bigint AS next_xid,
    (extract(epoch FROM pg_postmaster_start_time())::text || '.'
        || (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())::text || '.'
        || 'link_changes'::regclass::oid::text)::text AS history,
    (SELECT i.id FROM installation i)::text AS installation,
    COALESCE(gaps.low, 0)::bigint AS low, COALESCE(gaps.high, 0)::bigint AS high
FROM (VALUES (1)) one
LEFT JOIN gaps ON true
ORDER BY low;

-- name: ListRecentChanges :many
-- The end of the change log, without the links, and its history. An empty log
-- answers one row whose id is 0. What it shows has no holes but those of
-- transactions that are under way or were rolled back, since nothing of the
-- last 10,000 ids is ever pruned.
SELECT
    (extract(epoch FROM pg_postmaster_start_time())::text || '.'
        || (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())::text || '.'
        || 'link_changes'::regclass::oid::text)::text AS history,
    COALESCE(c.id, 0)::bigint AS id, COALESCE(c.version, 0)::bigint AS version, c.short_code
FROM (VALUES (1)) one
LEFT JOIN (
    SELECT id, version, short_code FROM link_changes
    WHERE id > (SELECT max(id) FROM link_changes) - 10000
    ORDER BY id DESC
    LIMIT @row_limit
) c ON true
ORDER BY id;

-- name: PruneLinkChanges :execrows
-- The newest stay whatever their age: see ListRecentChanges.
DELETE FROM link_changes
WHERE id IN (
    SELECT c.id FROM link_changes c
    WHERE c.changed_at < now() - @older_than::interval
        AND c.id <= (SELECT max(id) FROM link_changes) - 10000
    LIMIT @row_limit
);
