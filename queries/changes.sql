-- name: FeedState :one
-- The reader's view of the change log; read in one snapshot with ListLinkChanges.
SELECT
    COALESCE((SELECT min(id) FROM link_changes), 0)::bigint AS oldest_id,
    COALESCE((SELECT max(id) FROM link_changes), 0)::bigint AS newest_id,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax;

-- name: ListLinkChanges :many
-- Changes after a position, and those of the gaps before it that have become
-- visible since, each with the link as it is now.
SELECT c.id, c.short_code, c.version, u.id AS url_id, u.user_id, u.original_url, u.is_active, u.expires_at,
    u.redirect_status, u.forward_query, u.version AS url_version
FROM link_changes c
LEFT JOIN urls u ON u.short_code = c.short_code
WHERE c.id > @after_id OR c.id = ANY(@gaps::bigint[])
ORDER BY c.id
LIMIT @row_limit;

-- name: PruneLinkChanges :execrows
DELETE FROM link_changes
WHERE changed_at < now() - @older_than::interval
    AND id < (SELECT max(id) FROM link_changes);
