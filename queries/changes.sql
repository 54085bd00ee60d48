-- name: PollLinkChanges :many
-- The changes that became visible since a snapshot, and the state of the database.
-- It is one statement, so one snapshot and one round trip; without a change it
-- answers one row whose id is 0.
--
-- A row that was not visible then was written by a transaction that was running,
-- or by one from the snapshot's xmax on. A page continues behind the last change of
-- the page before, (@after_xid, @after_id). Each arm has a limit of its own: a bulk
-- change leaves a backlog of which a page reads the beginning, not all. Rows are
-- compared, and ordered, by (xid, id) throughout: for one xid in the order of ids
-- the planner would read the whole log by its primary key. A row of an xid that this
-- server has not given, as a dump of another may bring, is not looked at again and
-- again. A standby does not list what is running: there all from xmin on may be.
--
-- The history is another one after each start of the server, and for each database
-- and each table that was ever made, filled again or emptied: also for one that was
-- filled again from a dump, whose rows may look the same. The postmaster's start
-- does not suffice, since it stays when the death of one backend makes all others
-- start again; the server's statistics begin anew then. Xids may be given twice
-- across such a crash: those whose end was not on disk yet.
WITH seen AS (
    (
        SELECT xid, id, domain_id, short_code FROM link_changes
        WHERE (xid, id) > (
                GREATEST(@xmax::bigint, @after_xid::bigint)::text::xid8,
                CASE WHEN @after_xid::bigint >= @xmax::bigint THEN @after_id::bigint ELSE 0 END
            )
            AND xid < pg_snapshot_xmax(pg_current_snapshot())
        ORDER BY xid, id
        LIMIT @row_limit
    )
    UNION ALL
    SELECT c.xid, c.id, c.domain_id, c.short_code
    FROM (SELECT unnest(@running::bigint[]) AS xid) r
    CROSS JOIN LATERAL (
        SELECT x.xid, x.id, x.domain_id, x.short_code FROM link_changes x
        WHERE (x.xid, x.id) > (
                r.xid::text::xid8, CASE WHEN r.xid = @after_xid::bigint THEN @after_id::bigint ELSE 0 END
            )
            AND x.xid <= r.xid::text::xid8
        ORDER BY x.xid, x.id
        LIMIT @row_limit
    ) c
    WHERE r.xid >= @after_xid::bigint
    ORDER BY xid, id
    LIMIT @row_limit
)
SELECT
    (extract(epoch FROM pg_postmaster_start_time())::text || '.'
        || COALESCE(extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()), 0)::text || '.'
        || (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())::text || '.'
        || 'link_changes'::regclass::oid::text || '.'
        || pg_relation_filenode('link_changes'::regclass)::text)::text AS history,
    (SELECT i.id FROM installation i)::text AS installation,
    (SELECT v.version FROM domain_version v)::bigint AS domain_version,
    extract(epoch FROM now())::bigint AS now_seconds,
    (CASE WHEN pg_is_in_recovery() THEN pg_snapshot_xmin(pg_current_snapshot())
        ELSE pg_snapshot_xmax(pg_current_snapshot()) END)::text::bigint AS xmax,
    ARRAY(SELECT x::text::bigint FROM pg_snapshot_xip(pg_current_snapshot()) x)::bigint[] AS running,
    COALESCE(seen.xid::text::bigint, 0)::bigint AS xid,
    COALESCE(seen.id, 0)::bigint AS id, COALESCE(seen.domain_id, 0)::bigint AS domain_id, seen.short_code
FROM (VALUES (1)) one
LEFT JOIN seen ON true
ORDER BY seen.xid, seen.id;

-- name: GetRecentLinkXid :one
-- The xid from which on the log holds a number of changes, at least those that were
-- written last; 0 if it holds no more than that.
SELECT COALESCE((
    SELECT xid FROM link_changes
    WHERE xid < pg_snapshot_xmax(pg_current_snapshot())
    ORDER BY xid DESC
    OFFSET @changes::int LIMIT 1
)::text::bigint, 0)::bigint AS xid;

-- name: ListLinkDomains :many
-- All that replicas keep of the domains. The version that goes with it was read
-- before: a change in between is read once more.
SELECT id, COALESCE(host, '')::text AS host, COALESCE(root_url, '')::text AS root_url,
    COALESCE(not_found_url, '')::text AS not_found_url, COALESCE(expired_url, '')::text AS expired_url
FROM domains
ORDER BY id;

-- name: PruneLinkChanges :execrows
-- The newest stay whatever their age, since the release before looks for them.
DELETE FROM link_changes
WHERE id IN (
    SELECT c.id FROM link_changes c
    WHERE c.changed_at < now() - @older_than::interval
        AND c.id <= (SELECT max(id) FROM link_changes) - 10000
    LIMIT @row_limit
);
