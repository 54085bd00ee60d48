-- name: PruneImportRows :one
-- PruneImportRows removes rows that belong to imports which ended long ago. They are
-- removed before the import, so that its own removal removes few further rows.
WITH old AS (
    SELECT id FROM imports
    WHERE finished_at < now() - @older_than::interval AND state <> 'undoing'
    ORDER BY finished_at
    LIMIT 100
),
errors AS (
    DELETE FROM import_errors
    WHERE (import_id, line) IN (
        SELECT e.import_id, e.line FROM import_errors e
        WHERE e.import_id IN (SELECT id FROM old)
        LIMIT @row_limit
    )
    RETURNING 1
),
outcomes AS (
    DELETE FROM import_outcomes
    WHERE (import_id, line) IN (
        SELECT o.import_id, o.line FROM import_outcomes o
        WHERE o.import_id IN (SELECT id FROM old)
        LIMIT @row_limit
    )
    RETURNING 1
),
notices AS (
    DELETE FROM import_notices
    WHERE (import_id, line) IN (
        SELECT n.import_id, n.line FROM import_notices n
        WHERE n.import_id IN (SELECT id FROM old)
        LIMIT @row_limit
    )
    RETURNING 1
)
SELECT GREATEST((SELECT count(*) FROM errors), (SELECT count(*) FROM outcomes), (SELECT count(*) FROM notices))::bigint AS most;

-- name: PruneImports :execrows
-- PruneImports removes imports. Their remaining rows are removed with them.
DELETE FROM imports
WHERE id IN (
    SELECT i.id FROM imports i
    WHERE i.finished_at < now() - @older_than::interval AND i.state <> 'undoing'
        AND NOT EXISTS (SELECT FROM import_errors e WHERE e.import_id = i.id)
        AND NOT EXISTS (SELECT FROM import_outcomes o WHERE o.import_id = i.id)
        AND NOT EXISTS (SELECT FROM import_notices n WHERE n.import_id = i.id)
    LIMIT @row_limit
);
