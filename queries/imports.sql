-- name: CreateImport :one
INSERT INTO imports (kind, filename, layout, keep_ids, owner_id, actor_id, actor_name, on_conflict, dry_run)
VALUES (@kind, @filename, @layout, @keep_ids, @owner_id, @actor_id, @actor_name, @on_conflict, @dry_run)
RETURNING *;

-- name: GetImport :one
SELECT *
FROM imports
WHERE id = @id;

-- name: ShowImport :one
-- ShowImport returns an import in the form in which people look at it. It includes the
-- first rejected rows, the problems, and some rows that are not in the encoding of the
-- file. These are taken from the two hundred lines after the first such row.
SELECT sqlc.embed(imports), (
    SELECT COALESCE(jsonb_agg(jsonb_build_object('line', e.line, 'field', e.field, 'reason', e.reason,
        'record', encode(e.record, 'base64'), 'cut', e.cut) ORDER BY e.line), '[]')
    FROM (
        SELECT ie.line, ie.field, ie.reason, substring(ie.record FROM 1 FOR 500) AS record,
            octet_length(ie.record) > 500 AS cut
        FROM import_errors ie
        WHERE ie.import_id = imports.id
        ORDER BY ie.line
        LIMIT 10
    ) e
)::jsonb AS first_errors, (
    SELECT COALESCE(jsonb_agg(jsonb_build_object('outcome', p.outcome, 'field', p.field, 'kind', p.kind,
        'reason', p.reason, 'rows', p.rows, 'line', p.line) ORDER BY p.rows DESC, p.line, p.field), '[]')
    FROM import_problems p
    WHERE p.import_id = imports.id
)::jsonb AS problems, (
    SELECT COALESCE(jsonb_agg(encode(r.record, 'base64')), '[]')
    FROM (
        SELECT substring(e.record FROM 1 FOR 2000) AS record
        FROM import_errors e
        WHERE e.import_id = imports.id AND e.kind = 'encoding'
            -- These bounds are known before the scan, so that it goes no further.
            AND e.line >= (SELECT min(p.line) FROM import_problems p WHERE p.import_id = imports.id AND p.kind = 'encoding')
            AND e.line <= (SELECT min(p.line) + 200 FROM import_problems p WHERE p.import_id = imports.id AND p.kind = 'encoding')
        ORDER BY e.line
        LIMIT 20
    ) r
)::jsonb AS unreadable
FROM imports
WHERE imports.id = @id;

-- name: LockImport :one
SELECT *
FROM imports
WHERE id = @id
FOR UPDATE;

-- name: ListImports :many
-- ListImports returns the newest imports first. The layout is without the columns of
-- the file, because there may be thousands. Of the columns that are not read, it has as
-- many names as are shown (see csvimport.Layout.IgnoredColumns).
SELECT id, kind, state, filename,
    (layout - '{columns,header}'::text[] || jsonb_build_object(
        'ignored', jsonb_path_query_array(layout, '$.ignored[0 to 49]'),
        'ignored_total', GREATEST((layout ->> 'ignored_total')::integer, jsonb_array_length(jsonb_path_query_array(layout, '$.ignored[*]')))
    ))::jsonb AS layout,
    keep_ids, owner_id, actor_id, actor_name,
    bytes_received, chunks_total, chunks_done, rows_total, rows_imported, rows_updated, rows_skipped, rows_rejected,
    error, planned_to, job_id, created_at, heard_at, started_at, finished_at, on_conflict, dry_run,
    rows_removed, rows_kept, undo_step, undo_line, undo_since, undone_at
FROM imports
WHERE id < @before_id
ORDER BY id DESC
LIMIT @row_limit OFFSET @row_offset;

-- name: InsertImportChunk :exec
INSERT INTO import_chunks (import_id, seq, first_line, rows, data)
VALUES (@import_id, @seq, @first_line, @rows, @data);

-- name: HearImport :execrows
-- HearImport notes that the upload is alive. It returns 0 if the upload was given up
-- meanwhile.
UPDATE imports
SET heard_at = now(), bytes_received = @bytes_received
WHERE id = @id AND state = 'receiving';

-- name: QueueImport :one
-- QueueImport ends the upload, but only if it is still receiving and every chunk is
-- there.
UPDATE imports
SET state = 'queued', bytes_received = @bytes_received, rows_total = @rows_total, chunks_total = @chunks_total
WHERE imports.id = @id AND imports.state = 'receiving'
    AND @chunks_total = (SELECT count(*) FROM import_chunks c WHERE c.import_id = imports.id)
RETURNING *;

-- name: FailImport :execrows
-- FailImport gives up an upload.
UPDATE imports
SET state = 'failed', error = @error, finished_at = now()
WHERE id = @id AND state = 'receiving';

-- name: FailImportWork :execrows
-- FailImportWork gives up an import whose job failed too often. The chunks stay, so
-- that they can be retried.
UPDATE imports
SET state = 'failed', error = @error, finished_at = now()
WHERE id = @id AND job_id = @job_id AND state IN ('queued', 'running');

-- name: ReopenImport :one
-- ReopenImport takes up an import that was given up, at the point where it stopped.
UPDATE imports
SET state = CASE WHEN chunks_done = chunks_total THEN 'running' ELSE 'queued' END, error = NULL, finished_at = NULL
WHERE id = @id AND state = 'failed' AND chunks_total > 0
RETURNING *;

-- name: ImportWaitsForNobody :one
-- ImportWaitsForNobody reports whether the job for which an import waits is gone, for
-- whatever reason.
SELECT NOT EXISTS (
    SELECT FROM river_job j
    WHERE j.id = i.job_id AND j.state NOT IN ('cancelled', 'completed', 'discarded')
)
FROM imports i
WHERE i.id = @id;

-- name: DropImportChunks :exec
DELETE FROM import_chunks
WHERE import_id = @import_id;

-- name: StopImportChunks :exec
-- StopImportChunks closes the chunks that were not applied, and waits for those that
-- are being applied now.
UPDATE import_chunks
SET data = NULL, keys = NULL, done_at = now()
WHERE import_id = @import_id AND done_at IS NULL;

-- name: DropImportWork :one
-- DropImportWork removes rows that only a running import needs, at most so many of each
-- sort, and returns how many it removed. Chunks stay as a record of those that ran.
WITH contended AS (
    DELETE FROM import_contended
    WHERE ctid = ANY(ARRAY(SELECT ic.ctid FROM import_contended ic WHERE ic.import_id = @import_id LIMIT @row_limit))
    RETURNING 1
), trial AS (
    DELETE FROM import_trial
    WHERE ctid = ANY(ARRAY(SELECT it.ctid FROM import_trial it WHERE it.import_id = @import_id LIMIT @row_limit))
    RETURNING 1
), deferred AS (
    DELETE FROM import_deferred
    WHERE ctid = ANY(ARRAY(SELECT d.ctid FROM import_deferred d WHERE d.import_id = @import_id LIMIT @row_limit))
    RETURNING 1
)
SELECT ((SELECT count(*) FROM contended) + (SELECT count(*) FROM trial) + (SELECT count(*) FROM deferred))::bigint AS removed;

-- name: SetImportJob :exec
UPDATE imports
SET job_id = @job_id
WHERE id = @id;

-- name: ReplaceImportJob :exec
-- ReplaceImportJob sets the next job of an import, unless the import has another job
-- than the last one by now.
UPDATE imports
SET job_id = @job_id
WHERE id = @id AND job_id = @last_job_id;

-- name: StartImport :exec
UPDATE imports
SET state = 'running', started_at = COALESCE(started_at, now())
WHERE id = @id AND state = 'queued';

-- name: RequestImportCancel :one
-- RequestImportCancel returns nothing if the import is being cancelled already or has
-- ended.
UPDATE imports
SET state = 'cancelling'
WHERE id = @id AND state IN ('receiving', 'queued', 'running')
RETURNING *;

-- name: FinishImport :one
UPDATE imports
SET state = @state, finished_at = now()
WHERE id = @id AND finished_at IS NULL
RETURNING *;

-- name: ReadNextImportChunk :one
-- ReadNextImportChunk reads a chunk before the transaction that locks it, which is safe
-- because the content of a chunk never changes.
SELECT seq, first_line, rows, data
FROM import_chunks
WHERE import_id = @import_id AND seq > @after_seq AND done_at IS NULL
ORDER BY seq
LIMIT 1;

-- name: LockImportChunk :one
-- LockImportChunk locks the row of a chunk, which alone decides whether the chunk still
-- has to be applied.
SELECT (c.done_at IS NOT NULL)::boolean AS done
FROM import_chunks c
WHERE c.import_id = @import_id AND c.seq = @seq
FOR UPDATE;

-- name: FinishImportChunk :exec
UPDATE import_chunks
SET data = NULL, keys = NULL, done_at = now()
WHERE import_id = @import_id AND seq = @seq;

-- name: RequeueDeferredRows :one
-- RequeueDeferredRows makes a chunk of each row that the previous release had set
-- aside. It puts them behind the other chunks, in file order, and returns how many
-- there are.
WITH import AS MATERIALIZED (
    SELECT i.id, i.chunks_total FROM imports i WHERE i.id = @import_id AND i.state = 'running' FOR UPDATE
), waited AS (
    DELETE FROM import_deferred d USING import WHERE d.import_id = import.id
    RETURNING d.line, d.record
), added AS (
    INSERT INTO import_chunks (import_id, seq, first_line, rows, data)
    SELECT import.id, import.chunks_total + row_number() OVER (ORDER BY waited.line) - 1, waited.line, 1, waited.record
    FROM import, waited
    RETURNING 1
), moved AS (
    UPDATE imports i SET chunks_total = i.chunks_total + (SELECT count(*) FROM added)
    FROM import WHERE i.id = import.id AND EXISTS (SELECT FROM added)
)
SELECT count(*) FROM added;

-- name: InsertImportErrors :copyfrom
-- A trigger counts these rows in import_problems.
INSERT INTO import_errors (import_id, line, field, reason, record, kind)
VALUES (@import_id, @line, @field, @reason, @record, @kind);

-- name: InsertImportNotices :copyfrom
-- A trigger counts these rows in import_problems.
INSERT INTO import_notices (import_id, line, field, kind, reason)
VALUES (@import_id, @line, @field, @kind, @reason);

-- name: ListImportNotices :many
SELECT line, field, kind, reason
FROM import_notices
WHERE import_id = @import_id AND line > @after_line
ORDER BY line
LIMIT @row_limit OFFSET @row_offset;

-- name: InsertImportOutcomes :copyfrom
INSERT INTO import_outcomes (import_id, line, outcome, row_id, before)
VALUES (@import_id, @line, @outcome, @row_id, @before);

-- name: FindTrialOwners :many
-- FindTrialOwners returns the owners that these keys would have by now, for the keys
-- that a dry run has given to a row or freed.
SELECT t.field, t.key, COALESCE(t.holder, 0)::bigint AS owner
FROM import_trial t
JOIN (SELECT unnest(@fields::text[]) AS field, unnest(@keys::text[]) AS key) r USING (field, key)
WHERE t.import_id = @import_id;

-- name: ListTrialKeys :many
-- ListTrialKeys returns the keys that a dry run has given to these rows.
SELECT field, key, holder::bigint AS owner
FROM import_trial
WHERE import_id = @import_id AND holder = ANY(@owners::bigint[]);

-- name: SetTrialOwners :exec
INSERT INTO import_trial (import_id, field, key, holder)
SELECT @import_id, r.field, r.key, NULLIF(r.owner, 0)
FROM (
    SELECT
        unnest(@fields::text[]) AS field,
        unnest(@keys::text[]) AS key,
        unnest(@owners::bigint[]) AS owner
) r
ON CONFLICT ON CONSTRAINT import_trial_pkey DO UPDATE SET holder = EXCLUDED.holder;

-- name: ListImportErrors :many
-- ListImportErrors returns at most @record_bytes bytes of each record.
SELECT line, field, reason, substring(record FROM 1 FOR @record_bytes)::bytea AS record,
    (octet_length(record) > @record_bytes)::boolean AS cut
FROM import_errors
WHERE import_id = @import_id AND line > @after_line
ORDER BY line
LIMIT @row_limit OFFSET @row_offset;

-- name: MoveImport :exec
-- MoveImport adds the rows of one chunk to the counts. It is the last statement of its
-- transaction, so that the row is locked only briefly.
UPDATE imports
SET chunks_done = chunks_done + @chunks,
    rows_imported = rows_imported + @imported,
    rows_updated = rows_updated + @updated,
    rows_skipped = rows_skipped + @skipped,
    rows_rejected = rows_rejected + @rejected
WHERE id = @id;

-- name: ListStrandedImports :many
-- ListStrandedImports returns imports whose job is gone.
SELECT i.id, i.state
FROM imports i
WHERE i.state IN ('queued', 'running', 'cancelling', 'undoing')
    AND NOT EXISTS (
        SELECT FROM river_job j
        WHERE j.id = i.job_id
            AND (j.state NOT IN ('cancelled', 'completed', 'discarded')
                OR (j.state <> 'completed' AND j.finalized_at > now() - @left_alone::interval))
    )
ORDER BY i.id
LIMIT @row_limit;

-- name: LockStalledImports :many
-- LockStalledImports returns imports whose job seems to run for longer than its turn,
-- and which no transaction has locked now. Unless the next chunk is locked, the worker
-- of such an import is gone. tries_left says how often River would try its job again.
SELECT i.id, i.state, i.job_id, greatest(j.max_attempts - j.attempt, 0)::integer AS tries_left
FROM imports i
JOIN river_job j ON j.id = i.job_id
WHERE i.state IN ('queued', 'running', 'cancelling', 'undoing')
    AND j.state = 'running' AND j.attempted_at < now() - @older_than::interval
ORDER BY i.id
LIMIT @row_limit
FOR UPDATE OF i SKIP LOCKED;

-- name: NextImportChunkIsFree :one
-- NextImportChunkIsFree reports whether no transaction has locked the next chunk of an
-- import. It also does so if no chunk is left.
WITH next AS (
    SELECT min(n.seq) AS seq FROM import_chunks n WHERE n.import_id = @import_id AND n.done_at IS NULL
), free AS (
    SELECT c.seq
    FROM import_chunks c
    WHERE c.import_id = @import_id AND c.seq = (SELECT next.seq FROM next) AND c.done_at IS NULL
    FOR UPDATE SKIP LOCKED
)
SELECT (next.seq IS NULL OR EXISTS (SELECT FROM free))::boolean AS free
FROM next;

-- name: ListSilentUploads :many
-- ListSilentUploads returns uploads that were not heard of for a while, because their
-- API process is gone.
SELECT id
FROM imports
WHERE state = 'receiving' AND heard_at < now() - @older_than::interval
ORDER BY id
LIMIT @row_limit;

-- name: ListUserResults :many
-- ListUserResults returns the outcome of each row of an import, in file order. Rows
-- that were made are found by their line, and all other outcomes were noted. It holds
-- only one piece of each of the three lists at a time.
SELECT r.line::bigint AS line, r.outcome, r.field, r.reason, r.row_id::bigint AS row_id, ''::text AS short_code,
    ''::text AS host
FROM (
    (SELECT u.import_line AS line, 'imported' AS outcome, '' AS field, '' AS reason, u.id AS row_id
    FROM users u
    WHERE u.import_id = @import_id AND u.import_line > @after_line::bigint
    ORDER BY u.import_line
    LIMIT @row_limit)
    UNION ALL
    (SELECT o.line, o.outcome, '', '', COALESCE(o.row_id, 0)
    FROM import_outcomes o
    WHERE o.import_id = @import_id AND o.line > @after_line::bigint
    ORDER BY o.line
    LIMIT @row_limit)
    UNION ALL
    (SELECT e.line, 'rejected', e.field, e.reason, 0
    FROM import_errors e
    WHERE e.import_id = @import_id AND e.line > @after_line::bigint
    ORDER BY e.line
    LIMIT @row_limit)
) r
ORDER BY r.line
LIMIT @row_limit;

-- name: ListURLResults :many
-- ListURLResults is like ListUserResults, and adds the notices about imported rows.
SELECT r.line::bigint AS line, r.outcome, COALESCE(n.field, r.field) AS field, COALESCE(n.reason, r.reason) AS reason,
    r.row_id::bigint AS row_id, COALESCE(l.short_code, '')::text AS short_code,
    COALESCE(d.host, '')::text AS host
FROM (
    (SELECT u.import_line AS line, 'imported' AS outcome, '' AS field, '' AS reason, u.id AS row_id
    FROM urls u
    WHERE u.import_id = @import_id AND u.import_line > @after_line::bigint
    ORDER BY u.import_line
    LIMIT @row_limit)
    UNION ALL
    (SELECT o.line, o.outcome, '', '', COALESCE(o.row_id, 0)
    FROM import_outcomes o
    WHERE o.import_id = @import_id AND o.line > @after_line::bigint
    ORDER BY o.line
    LIMIT @row_limit)
    UNION ALL
    (SELECT e.line, 'rejected', e.field, e.reason, 0
    FROM import_errors e
    WHERE e.import_id = @import_id AND e.line > @after_line::bigint
    ORDER BY e.line
    LIMIT @row_limit)
) r
LEFT JOIN urls l ON l.id = r.row_id
LEFT JOIN domains d ON d.id = l.domain_id
LEFT JOIN import_notices n ON n.import_id = @import_id AND n.line = r.line
ORDER BY r.line
LIMIT @row_limit;

-- name: ListEventResults :many
-- ListEventResults is like ListUserResults.
SELECT r.line::bigint AS line, r.outcome, r.field, r.reason, r.row_id::bigint AS row_id, ''::text AS short_code,
    ''::text AS host
FROM (
    (SELECT u.import_line AS line, 'imported' AS outcome, '' AS field, '' AS reason, u.id AS row_id
    FROM events u
    WHERE u.import_id = @import_id AND u.import_line > @after_line::bigint
    ORDER BY u.import_line
    LIMIT @row_limit)
    UNION ALL
    (SELECT o.line, o.outcome, '', '', COALESCE(o.row_id, 0)
    FROM import_outcomes o
    WHERE o.import_id = @import_id AND o.line > @after_line::bigint
    ORDER BY o.line
    LIMIT @row_limit)
    UNION ALL
    (SELECT e.line, 'rejected', e.field, e.reason, 0
    FROM import_errors e
    WHERE e.import_id = @import_id AND e.line > @after_line::bigint
    ORDER BY e.line
    LIMIT @row_limit)
) r
ORDER BY r.line
LIMIT @row_limit;
