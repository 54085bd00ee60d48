-- name: CreateEventPart :one
INSERT INTO event_parts (month, part, table_name, batch, replaces)
SELECT @month::date, COALESCE(max(part), 0) + 1, @table_name, @batch, sqlc.narg(replaces)::integer
FROM event_parts
WHERE month = @month::date
RETURNING *;

-- name: ListEventParts :many
SELECT *
FROM event_parts
ORDER BY month, part;

-- name: ListOpenEventParts :many
SELECT *
FROM event_parts
WHERE state <> 'dropped'
ORDER BY month, part;

-- name: ClaimEventPart :execrows
-- ClaimEventPart sets the file of a new attempt. If an earlier attempt is still at
-- work, on a worker that seemed dead, it cannot note its end any more.
UPDATE event_parts
SET part = @new_part, archive = @archive, file = @file, state = 'detached'
WHERE month = @month AND part = @part AND state IN ('detached', 'archived') AND file IS NOT DISTINCT FROM sqlc.narg(old_file);

-- name: SetEventPartVerified :execrows
UPDATE event_parts
SET state = 'verified', rows = @rows, bytes = @bytes, sha256 = @sha256, archived_at = now(), verified_at = now(), failed_at = NULL
WHERE month = @month AND part = @part AND state = 'detached' AND file = @file;

-- name: SetEventPartDropped :execrows
-- SetEventPartDropped compares the state with the one that the worker saw, so that the
-- worker drops only rows that may be dropped.
UPDATE event_parts
SET state = 'dropped', dropped_at = now(), rows = COALESCE(rows, sqlc.narg(rows))
WHERE month = @month AND part = @part AND state = @state AND file IS NOT DISTINCT FROM sqlc.narg(file);

-- name: ListMonthsToLeave :many
-- ListMonthsToLeave returns months that must not be archived now: they are on their way
-- to the archive, were archived a short while ago, are held after a restore, or have
-- days that are still to be counted from their events.
SELECT month FROM event_parts WHERE state <> 'dropped' OR dropped_at > now() - @pause::interval
UNION
SELECT month FROM event_holds WHERE until > now()
UNION
SELECT date_trunc('month', day)::date FROM rollup_recounts
UNION
SELECT generate_series(date_trunc('month', oldest_at, 'UTC'), created_at, '1 month')::date FROM failed_rollup_digests;

-- name: HoldMonth :exec
-- HoldMonth keeps a month from being archived for a while. If the month was restored
-- from parts of its own, it has the rows of all parts up to @parts.
INSERT INTO event_holds (month, until, parts)
VALUES (@month, now() + @duration::interval, sqlc.narg(parts)::integer)
ON CONFLICT ON CONSTRAINT event_holds_pkey DO UPDATE
SET until = GREATEST(event_holds.until, excluded.until), parts = GREATEST(event_holds.parts, excluded.parts);

-- name: RestoredParts :one
-- RestoredParts returns, for a month, the last part whose rows are in the database
-- again, 0 if there is none.
SELECT COALESCE(max(parts), 0)::integer AS parts
FROM event_holds
WHERE month = @month;

-- name: TakeHold :many
-- TakeHold ends a hold because the month leaves the database. It returns at most one
-- row.
DELETE FROM event_holds
WHERE month = @month
RETURNING parts;

-- name: PruneEventHolds :exec
-- PruneEventHolds leaves holds that have parts, because they are needed until their
-- month leaves the database.
DELETE FROM event_holds
WHERE until < now() AND parts IS NULL;

-- name: EventImportsSince :one
-- EventImportsSince reports whether events are being imported, or were imported since a
-- time. It also does so if an import is being undone, because the undo looks for the
-- import's events to remove them.
SELECT EXISTS (
    SELECT FROM imports
    WHERE kind = 'events'
        AND (finished_at IS NULL OR state = 'undoing' OR finished_at >= @since::timestamptz OR undone_at >= @since)
);

-- name: NoteArchivedEventIDs :exec
-- NoteArchivedEventIDs is called before the month is detached, so that no lock is held
-- meanwhile.
INSERT INTO archived_event_ids (occurred_at, source_id, id, batch)
SELECT e.occurred_at, e.source_id, e.id, @batch
FROM events e
WHERE e.occurred_at >= @from_at AND e.occurred_at < @to_at AND e.source_id IS NOT NULL
ON CONFLICT DO NOTHING;

-- name: ForgetUnusedEventIDs :exec
-- ForgetUnusedEventIDs removes ids that were noted for a detach that did not happen.
DELETE FROM archived_event_ids a
WHERE a.occurred_at >= @from_at AND a.occurred_at < @to_at
    AND a.batch NOT IN (SELECT p.batch FROM event_parts p);

-- name: ForgetArchivedEventIDs :exec
DELETE FROM archived_event_ids
WHERE occurred_at >= @from_at AND occurred_at < @to_at;

-- name: ForgetIDsOfChanges :exec
-- ForgetIDsOfChanges removes the ids of change events that stayed in the database when
-- their month was archived.
DELETE FROM archived_event_ids a
USING events e
WHERE e.occurred_at >= @from_at AND e.occurred_at < @to_at AND e.event_type <> 'clicked'
    AND a.occurred_at = e.occurred_at AND a.source_id = e.source_id;

-- name: OnlyChangesLeft :one
-- OnlyChangesLeft reports whether a month has change events and nothing else to
-- archive. The fact that a restored month has no clicks any more would also have to be
-- archived.
SELECT (
    EXISTS (SELECT FROM events c WHERE c.occurred_at >= @from_at AND c.occurred_at < @to_at AND c.event_type <> 'clicked')
    AND NOT EXISTS (SELECT FROM events e WHERE e.occurred_at >= @from_at AND e.occurred_at < @to_at AND e.event_type = 'clicked')
    AND NOT EXISTS (SELECT FROM event_holds h WHERE h.month = @month AND h.parts IS NOT NULL)
)::boolean AS only_changes;

-- name: EventPartFigures :one
SELECT
    count(DISTINCT month) FILTER (WHERE state = 'dropped') AS months_retired,
    count(*) FILTER (WHERE state <> 'dropped') AS parts_open,
    COALESCE(EXTRACT(epoch FROM now() - min(detached_at) FILTER (WHERE state <> 'dropped')), 0)::float8 AS oldest_open_seconds,
    COALESCE(sum(rows) FILTER (WHERE state = 'dropped'), 0)::bigint AS rows_retired
FROM event_parts;
