-- name: PollLinkChanges :many
-- The changes that became visible since a snapshot, each with the link as it is
-- now, and the state of the log. It is one statement, so one snapshot and one
-- round trip; without a change it answers one row whose id is 0.
--
-- A row that was not visible then was written by a transaction that was under way,
-- which are @running, or by one from the snapshot's xmax on. Of each, rows up to
-- an id have been read: @after_ids, and (@from_xid, @from_id). Each arm has a
-- limit of its own: a bulk change leaves a backlog of which a poll reads the
-- beginning, not all. Rows are compared, and ordered, by (xid, id) throughout: for
-- one xid in the order of ids the planner would read the whole log by its primary
-- key. A row of an xid that this server has not given, as a dump of another may
-- bring, is not looked at again and again.
--
-- The anchor is the row at a position: another version there, or none, means
-- another history.
WITH seen AS (
    (
        SELECT xid, id, version, short_code FROM link_changes
        WHERE (xid, id) > ((@from_xid::bigint)::text::xid8, @from_id::bigint)
            AND xid < pg_snapshot_xmax(pg_current_snapshot())
        ORDER BY xid, id
        LIMIT @row_limit
    )
    UNION ALL
    SELECT c.xid, c.id, c.version, c.short_code
    FROM (SELECT unnest(@running::bigint[]) AS xid, unnest(@after_ids::bigint[]) AS after_id) r
    CROSS JOIN LATERAL (
        SELECT x.xid, x.id, x.version, x.short_code FROM link_changes x
        WHERE (x.xid, x.id) > (r.xid::text::xid8, r.after_id) AND x.xid <= r.xid::text::xid8
        ORDER BY x.xid, x.id
        LIMIT @row_limit
    ) c
    ORDER BY xid, id
    LIMIT @row_limit
)
SELECT
    COALESCE((SELECT min(id) FROM link_changes), 0)::bigint AS oldest_id,
    COALESCE((SELECT max(id) FROM link_changes), 0)::bigint AS newest_id,
    COALESCE((SELECT version FROM link_changes WHERE id = @position_id::bigint), 0)::bigint AS anchor,
    (extract(epoch FROM pg_postmaster_start_time())::text || '.'
        || COALESCE(extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()), 0)::text || '.'
        || (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())::text || '.'
        || 'link_changes'::regclass::oid::text)::text AS history,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
    (CASE WHEN pg_is_in_recovery() THEN pg_snapshot_xmin(pg_current_snapshot())
        ELSE pg_snapshot_xmax(pg_current_snapshot()) END)::text::bigint AS xmax,
    ARRAY(SELECT x::text::bigint FROM pg_snapshot_xip(pg_current_snapshot()) x)::bigint[] AS running,
    (pg_snapshot_xmax(pg_current_snapshot())::text::bigint
        + age(pg_snapshot_xmax(pg_current_snapshot())::xid))::bigint AS next_xid,
    COALESCE(seen.xid::text::bigint, 0)::bigint AS xid,
    COALESCE(seen.id, 0)::bigint AS id, COALESCE(seen.version, 0)::bigint AS version, seen.short_code,
    u.id AS url_id, u.user_id, u.original_url, u.is_active, u.expires_at,
    u.redirect_status, u.forward_query, u.version AS url_version
FROM (VALUES (1)) one
LEFT JOIN seen ON true
LEFT JOIN urls u ON u.short_code = seen.short_code
ORDER BY seen.xid, seen.id;

-- name: GetLinkLog :one
-- The state of the log: its newest and oldest row, its history, the installation
-- it belongs to, and which transactions have ended, all in one snapshot.
--
-- The history is another one after each start of the server, and for each
-- database and each table that was ever made: also for one that was dropped and
-- filled again from a dump, whose rows may look the same. The start is not told by
-- that of the postmaster alone, which stays when the death of one backend makes
-- all others start again; the server's statistics begin anew then. Xids may be
-- given twice across it: those whose end was not on disk yet.
--
-- Every writer whose id is missing had its xid before it drew the id, so below
-- next_xid. The snapshot's own xmax would not do: it is one past the highest
-- xid that *completed*, and a writer with a higher one may still be under way.
-- Only age() tells the next xid without drawing one. A standby does not list what
-- is under way: there all from xmin on may be.
SELECT
    COALESCE((SELECT max(id) FROM link_changes), 0)::bigint AS newest_id,
    COALESCE((SELECT version FROM link_changes ORDER BY id DESC LIMIT 1), 0)::bigint AS anchor,
    COALESCE((SELECT min(id) FROM link_changes), 0)::bigint AS oldest_id,
    (extract(epoch FROM pg_postmaster_start_time())::text || '.'
        || COALESCE(extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()), 0)::text || '.'
        || (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())::text || '.'
        || 'link_changes'::regclass::oid::text)::text AS history,
    (SELECT i.id FROM installation i)::text AS installation,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
    (CASE WHEN pg_is_in_recovery() THEN pg_snapshot_xmin(pg_current_snapshot())
        ELSE pg_snapshot_xmax(pg_current_snapshot()) END)::text::bigint AS xmax,
    ARRAY(SELECT x::text::bigint FROM pg_snapshot_xip(pg_current_snapshot()) x)::bigint[] AS running,
    (pg_snapshot_xmax(pg_current_snapshot())::text::bigint
        + age(pg_snapshot_xmax(pg_current_snapshot())::xid))::bigint AS next_xid;

-- name: ListRecentChanges :many
-- The end of the change log, without the links, and its history. An empty log
-- answers one row whose id is 0. What it shows has no holes but those of
-- transactions that are under way or were rolled back, since nothing of the
-- last 10,000 ids is ever pruned.
SELECT
    (extract(epoch FROM pg_postmaster_start_time())::text || '.'
        || COALESCE(extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()), 0)::text || '.'
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
