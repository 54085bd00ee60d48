-- name: ActAsImport :exec
-- Says for the rest of the transaction which import changes rows, so that those
-- it made itself are not marked as changed by somebody.
SELECT set_config('signpost.import_id', @import_id::text, true);

-- name: RequestImportUndo :one
-- One that is undone is looked through again if it kept rows, or if events of it
-- were not there: they may have been in the archive, and be back since.
UPDATE imports
SET state = 'undoing', undo_step = 'stop', undo_line = 0, rows_kept = 0, undone_at = NULL
WHERE id = @id AND NOT dry_run
    AND (
        state IN ('completed', 'cancelled', 'failed')
        OR state = 'undone' AND (rows_kept > 0 OR kind = 'events' AND rows_removed < rows_imported)
    )
RETURNING *;

-- name: MoveUndo :exec
-- Notes how far an undo is: the line up to which a step is done, and the next
-- step, if it is another.
UPDATE imports
SET undo_step = @step, undo_line = @line, rows_removed = rows_removed + @removed, rows_kept = rows_kept + @kept,
    undo_since = CASE WHEN @step = 'wait' THEN clock_timestamp() ELSE undo_since END
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

-- name: SwitchOffImportedURLs :one
-- Switches off those of the next links of an import that nobody has changed or
-- clicked since. Answers the line of the last one that was looked at, 0 if
-- there was none.
WITH piece AS (
    SELECT u.id, u.import_line
    FROM urls u
    WHERE u.import_id = @import_id::bigint AND u.import_line > @after_line::bigint
    ORDER BY u.import_line
    LIMIT @row_limit
), off AS (
    UPDATE urls u
    SET is_active = false, undo_of = u.import_id
    FROM piece p
    WHERE u.id = p.id AND u.is_active AND u.import_touched IS NULL
        AND NOT EXISTS (SELECT FROM click_days d WHERE d.url_id = u.id AND d.clicks > 0)
)
SELECT COALESCE(max(piece.import_line), 0)::bigint AS last_line
FROM piece;

-- name: ClicksAreIn :one
-- Reports on the wait for clicks under way, all by the clock that undo_since is
-- of: whether so much time has passed since that they may have arrived (due),
-- and so much that they are waited for no longer (overdue); and whether all
-- batches that had arrived when they were due, and all with clicks from before
-- it was no longer fresh, are ingested. Those that cannot be are passed over.
WITH w AS (
    SELECT r.since + @shipping::interval AS due_at, r.since + @most::interval AS overdue_at,
        r.since + @fresh::interval AS fresh_until
    FROM (SELECT @since::timestamptz AS since) r
)
SELECT (clock_timestamp() >= w.due_at)::boolean AS due, (clock_timestamp() > w.overdue_at)::boolean AS overdue,
    NOT EXISTS (
        SELECT FROM click_batches b
        WHERE b.ingested_at IS NULL AND b.failed_at IS NULL
            AND (b.received_at < w.due_at OR b.oldest_at < w.fresh_until)
    ) AS arrived
FROM w;

-- name: LockImportedURLs :many
SELECT id, import_line::bigint AS line, COALESCE(import_touched, false)::boolean AS touched
FROM urls
WHERE import_id = @import_id::bigint AND import_line > @after_line::bigint
ORDER BY import_line
LIMIT @row_limit
FOR UPDATE;

-- name: FindClickedURLs :many
SELECT DISTINCT url_id
FROM click_days
WHERE url_id = ANY(@ids::bigint[]) AND clicks > 0;

-- name: SwitchOnURLs :exec
-- Gives back links that an undo had switched off and keeps.
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
-- The line of the last of the next events of an import, 0 if there is none.
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
RETURNING url_id, occurred_at, event_type, bot;

-- name: InsertImportKept :exec
INSERT INTO import_kept (import_id, line, row_id, reason)
SELECT @import_id, unnest(@lines::bigint[]), unnest(@row_ids::bigint[]), unnest(@reasons::text[])
ON CONFLICT DO NOTHING;

-- name: DropImportKept :exec
DELETE FROM import_kept
WHERE import_id = @import_id;

-- name: ListImportKept :many
-- Lists the rows that are left of an import, in file order: those that its undo kept, and rows
-- that were there before, still are, and that it updated.
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
