-- name: ActAsImport :exec
-- ActAsImport sets, for the rest of the transaction, the import that changes rows, so
-- that rows which the import itself made are not marked as changed by somebody.
SELECT set_config('signpost.import_id', @import_id::text, true);

-- name: RequestImportUndo :one
-- RequestImportUndo also accepts an import that was undone already, if it kept rows or
-- if some of its events were missing. Those may have been in the archive and be back
-- since.
UPDATE imports
SET state = 'undoing', undo_step = 'stop', undo_line = 0, rows_kept = 0, undone_at = NULL
WHERE id = @id AND NOT dry_run
    AND (
        state IN ('completed', 'cancelled', 'failed')
        OR state = 'undone' AND (rows_kept > 0 OR kind = 'events' AND rows_removed < rows_imported)
    )
RETURNING *;

-- name: MoveUndo :exec
-- MoveUndo notes the progress of an undo: the line up to which a step is done, and the
-- next step, if that is another one.
UPDATE imports
SET undo_step = @step, undo_line = @line, rows_removed = rows_removed + @removed, rows_kept = rows_kept + @kept
WHERE id = @id;

-- name: FinishUndo :exec
UPDATE imports
SET state = 'undone', undone_at = now()
WHERE id = @id;

-- name: DropImportNotices :execrows
DELETE FROM import_notices
WHERE ctid = ANY(ARRAY(SELECT n.ctid FROM import_notices n WHERE n.import_id = @import_id LIMIT @row_limit));

-- name: DropNoticeCounts :exec
DELETE FROM import_problems
WHERE import_id = @import_id AND outcome = 'imported';

-- name: LockImportedURLs :many
SELECT id, import_line::bigint AS line, COALESCE(import_touched, false)::boolean AS touched
FROM urls
WHERE import_id = @import_id::bigint AND import_line > @after_line::bigint
ORDER BY import_line
LIMIT @row_limit
FOR UPDATE;

-- name: SwitchOnURLs :exec
-- SwitchOnURLs switches on links that an undo of the previous release had switched off
-- and that are kept.
UPDATE urls
SET is_active = true, undo_of = NULL
WHERE id = ANY(@ids::bigint[]) AND undo_of = import_id;

-- name: DeleteURLs :exec
DELETE FROM urls
WHERE id = ANY(@ids::bigint[]);

-- name: LockImportedUsers :many
SELECT id, import_line::bigint AS line, COALESCE(import_touched, false)::boolean AS touched
FROM users
WHERE import_id = @import_id::bigint AND import_line > @after_line::bigint
ORDER BY import_line
LIMIT @row_limit
FOR UPDATE;

-- name: FindUsersWithURLs :many
SELECT DISTINCT user_id
FROM urls
WHERE user_id = ANY(@ids::bigint[]);

-- name: DeleteUsers :exec
DELETE FROM users
WHERE id = ANY(@ids::bigint[]);

-- name: FindImportedEvents :one
-- FindImportedEvents returns the line of the last of the next events of an import, 0 if
-- there are none.
SELECT COALESCE(max(p.line), 0)::bigint AS last_line
FROM (
    SELECT e.import_line AS line
    FROM events e
    WHERE e.import_id = @import_id::bigint AND e.import_line > @after_line::bigint
    ORDER BY e.import_line
    LIMIT @row_limit
) p;

-- name: DeleteImportedEvents :many
DELETE FROM events
WHERE import_id = @import_id::bigint AND import_line > @after_line::bigint AND import_line <= @last_line::bigint
RETURNING COALESCE(url_id, 0)::bigint AS url_id, COALESCE(user_id, 0)::bigint AS user_id, occurred_at, event_type,
    COALESCE(kind, CASE WHEN bot THEN 'bot' ELSE 'person' END)::text AS kind, COALESCE(country, '')::text AS country,
    COALESCE(referrer_host, '')::text AS referrer_host, COALESCE(browser, '')::text AS browser, COALESCE(os, '')::text AS os,
    COALESCE(device, '')::text AS device, COALESCE(trigger, '')::text AS trigger, COALESCE(firsts, 0)::smallint AS firsts;

-- name: ListImportedURLs :many
SELECT id, COALESCE(import_touched, false)::boolean AS touched
FROM urls
WHERE import_id = @import_id::bigint
ORDER BY import_line
LIMIT @row_limit;

-- name: ListImportedUsers :many
SELECT id, COALESCE(import_touched, false)::boolean AS touched
FROM users
WHERE import_id = @import_id::bigint
ORDER BY import_line
LIMIT @row_limit;

-- name: CountImportedEvents :one
-- CountImportedEvents counts the events of an import, up to a limit.
SELECT count(*)
FROM (
    SELECT
    FROM events e
    WHERE e.import_id = @import_id::bigint
    LIMIT @row_limit
) c;

-- name: InsertImportKept :exec
INSERT INTO import_kept (import_id, line, row_id, reason)
SELECT @import_id, unnest(@lines::bigint[]), unnest(@row_ids::bigint[]), unnest(@reasons::text[])
ON CONFLICT DO NOTHING;

-- name: DropImportKept :exec
DELETE FROM import_kept
WHERE import_id = @import_id;

-- name: ListImportKept :many
-- ListImportKept returns the rows that are left of an import, in file order. These are
-- the rows that its undo kept, and rows that it only updated: they were there before
-- the import and still are.
SELECT k.line, k.reason, k.row_id::bigint AS row_id, k.before, u.short_code, d.host
FROM (
    SELECT ik.line, ik.reason, ik.row_id, NULL::jsonb AS before
    FROM import_kept ik
    WHERE ik.import_id = @import_id AND ik.line > @after_line
    UNION ALL
    SELECT o.line, 'updated', COALESCE(o.row_id, 0), o.before
    FROM import_outcomes o
    WHERE o.import_id = @import_id AND o.line > @after_line AND o.outcome = 'updated'
        AND CASE WHEN @of_urls::boolean
            THEN EXISTS (SELECT FROM urls w WHERE w.id = o.row_id AND w.import_id IS DISTINCT FROM o.import_id)
            ELSE EXISTS (SELECT FROM users w WHERE w.id = o.row_id AND w.import_id IS DISTINCT FROM o.import_id)
        END
) k
LEFT JOIN urls u ON u.id = k.row_id AND @of_urls::boolean
LEFT JOIN domains d ON d.id = u.domain_id
ORDER BY k.line
LIMIT @row_limit OFFSET @row_offset;
