-- name: PollLinkChanges :many
-- PollLinkChanges returns the changes that became visible since a snapshot, and the
-- state of the database. It is one statement, so it takes one snapshot and one round
-- trip. If there is no change, it returns one row whose id is 0.
--
-- A change that was not visible in that snapshot was written by a transaction that was
-- running then, or by one whose xid is the snapshot's xmax or higher. A page continues
-- behind the last change of the page before, (@after_xid, @after_id). Each arm has a
-- limit of its own: a bulk change leaves a backlog, of which a page reads only the
-- beginning. Rows are compared, and ordered, by (xid, id) throughout. If the rows of
-- one xid were ordered by id alone, the planner would read the whole log by its primary
-- key. A row may have an xid that this server has not given yet, for example from the
-- dump of another; such a row is not read again and again. A standby does not list
-- running transactions: there, every transaction from xmin on may be running.
--
-- The history has another value after each start of the server, and for each database
-- and each table that was ever made, filled again or emptied. This includes a table
-- that was filled again from a dump, although its rows may look the same. The time of
-- the postmaster's start is not enough: it stays the same when one backend dies and all
-- others start again, but the server's statistics begin anew then. After such a crash,
-- xids whose end was not on disk yet may be given a second time.
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
-- GetRecentLinkXid returns an xid such that the log has at least @changes changes from
-- that xid on, namely the last ones; 0 if the log has no more changes than that.
SELECT COALESCE((
    SELECT xid FROM link_changes
    WHERE xid < pg_snapshot_xmax(pg_current_snapshot())
    ORDER BY xid DESC
    OFFSET @changes::int LIMIT 1
)::text::bigint, 0)::bigint AS xid;

-- name: ListLinkDomains :many
-- ListLinkDomains returns everything that replicas keep in memory about domains. The
-- version that belongs to it was read before this: if there is a change in between, the
-- domains are read once more.
SELECT id, COALESCE(host, '')::text AS host, COALESCE(root_url, '')::text AS root_url,
    COALESCE(not_found_url, '')::text AS not_found_url, COALESCE(expired_url, '')::text AS expired_url
FROM domains
ORDER BY id;

-- name: PruneLinkChanges :execrows
-- PruneLinkChanges keeps the newest changes whatever their age, since the previous
-- release looks for them.
DELETE FROM link_changes
WHERE id IN (
    SELECT c.id FROM link_changes c
    WHERE c.changed_at < now() - @older_than::interval
        AND c.id <= (SELECT max(id) FROM link_changes) - 10000
    LIMIT @row_limit
);
