-- name: InsertChangeEvent :exec
-- InsertChangeEvent records that a user or link was created, updated or deleted, in the
-- transaction of the change. The time of the event is not the start of the transaction,
-- so that changes which waited for each other's lock are listed in the order in which
-- they were made.
INSERT INTO events (occurred_at, url_id, user_id, event_type, details)
VALUES (clock_timestamp(), @url_id, @user_id, @event_type, @details);

-- name: InsertChangeEvents :exec
-- InsertChangeEvents is InsertChangeEvent for many links. The details are JSON.
INSERT INTO events (occurred_at, url_id, user_id, event_type, details)
SELECT clock_timestamp(), r.url_id, r.user_id, @event_type::text, r.details::jsonb
FROM (
    SELECT unnest(@url_ids::bigint[]) AS url_id, unnest(@user_ids::bigint[]) AS user_id, unnest(@details::text[]) AS details
) r;

-- name: ForgetUser :exec
-- ForgetUser removes the name and the e-mail address of a deleted user from events that
-- are changes of the user. It looks only at the newest @row_limit events of the user,
-- among which clicks of the user's links count too, since there may be millions of
-- them. ForgetDeletedUsers does the rest.
UPDATE events e
SET details = forget_user(e.details)
FROM (
    SELECT c.occurred_at, c.id, c.url_id, c.event_type FROM events c
    WHERE c.user_id = @user_id
    ORDER BY c.occurred_at DESC, c.id DESC
    LIMIT @row_limit
) f
WHERE e.occurred_at = f.occurred_at AND e.id = f.id AND f.url_id IS NULL AND f.event_type <> 'clicked';

-- name: ForgetDeletedUsers :execrows
-- ForgetDeletedUsers does the same as ForgetUser for all users that do not exist any
-- more. This includes events that came back from an archive, and users that an undo
-- removed.
UPDATE events e
SET details = forget_user(e.details)
FROM (
    SELECT c.occurred_at, c.id FROM events c
    WHERE c.url_id IS NULL AND c.event_type <> 'clicked'
        AND c.details ->> 'entity' = 'user' AND c.details ?| ARRAY['username', 'email']
        AND NOT EXISTS (SELECT FROM users u WHERE u.id = c.user_id)
    LIMIT @row_limit
) f
WHERE e.occurred_at = f.occurred_at AND e.id = f.id;

-- name: ListEventsDown :many
-- ListEventsDown returns the newest events first. It is planned anew for every call, so
-- that only the partitions and indexes that the filters need are touched. Postgres
-- skips no partitions because of a comparison of rows, so the time of the position is
-- also compared by itself. There is no other upper bound: an index scan begins at the
-- comparison of rows, even if a second bound would exclude more. If there is a link,
-- the type of its events is compared in a way that no index serves: otherwise the
-- planner would use an index by type and read the changes of all links. The type changed
-- stands for all changes of the link.
SELECT id, occurred_at, url_id, user_id, event_type, bot, kind, trigger, country, browser, os, device, referrer_host, details
FROM events
WHERE occurred_at <= @at::timestamptz
    AND (occurred_at, id) < (@at, @at_id::bigint)
    AND occurred_at >= @until::timestamptz
    AND (sqlc.narg(url_id)::bigint IS NULL OR url_id = sqlc.narg(url_id))
    AND (sqlc.narg(user_id)::bigint IS NULL OR user_id = sqlc.narg(user_id))
    AND (sqlc.narg(event_type)::text IS NULL OR sqlc.narg(url_id) IS NOT NULL OR event_type = sqlc.narg(event_type))
    AND (sqlc.narg(event_type) IS NULL OR sqlc.narg(url_id) IS NULL OR sqlc.narg(event_type) = 'changed'
        OR event_type || '' = sqlc.narg(event_type))
    AND (sqlc.narg(event_type) IS NULL OR sqlc.narg(event_type) = 'clicked' OR event_type <> 'clicked')
ORDER BY occurred_at DESC, id DESC
LIMIT @row_limit OFFSET @row_offset;

-- name: ListEventsUp :many
-- ListEventsUp is like ListEventsDown, with the oldest events first.
SELECT id, occurred_at, url_id, user_id, event_type, bot, kind, trigger, country, browser, os, device, referrer_host, details
FROM events
WHERE occurred_at >= @at::timestamptz
    AND (occurred_at, id) > (@at, @at_id::bigint)
    AND occurred_at < @until::timestamptz
    AND (sqlc.narg(url_id)::bigint IS NULL OR url_id = sqlc.narg(url_id))
    AND (sqlc.narg(user_id)::bigint IS NULL OR user_id = sqlc.narg(user_id))
    AND (sqlc.narg(event_type)::text IS NULL OR sqlc.narg(url_id) IS NOT NULL OR event_type = sqlc.narg(event_type))
    AND (sqlc.narg(event_type) IS NULL OR sqlc.narg(url_id) IS NULL OR sqlc.narg(event_type) = 'changed'
        OR event_type || '' = sqlc.narg(event_type))
    AND (sqlc.narg(event_type) IS NULL OR sqlc.narg(event_type) = 'clicked' OR event_type <> 'clicked')
ORDER BY occurred_at, id
LIMIT @row_limit OFFSET @row_offset;

-- name: CountEvents :one
-- CountEvents returns how many events a list would show from a position to another. The
-- events at the positions themselves do not count.
SELECT count(*)
FROM events
WHERE occurred_at >= @since::timestamptz
    AND (occurred_at, id) > (@since, @since_id::bigint)
    AND occurred_at <= @until::timestamptz
    AND (occurred_at, id) < (@until, @until_id::bigint)
    AND (sqlc.narg(url_id)::bigint IS NULL OR url_id = sqlc.narg(url_id))
    AND (sqlc.narg(user_id)::bigint IS NULL OR user_id = sqlc.narg(user_id))
    AND (sqlc.narg(event_type)::text IS NULL OR event_type = sqlc.narg(event_type)
        OR sqlc.narg(event_type) = 'changed' AND event_type <> 'clicked');

-- name: ImportEvents :many
-- ImportEvents is like ImportUsers. Ids that are 0 and empty texts mean that there is no
-- value.
INSERT INTO events (
    occurred_at, url_id, user_id, source_id, event_type, details, bot, kind, trigger, country, browser, os, device, referrer_host,
    import_id, import_line
)
SELECT r.occurred_at, NULLIF(r.url_id, 0), NULLIF(r.user_id, 0), NULLIF(r.source_id, 0), r.event_type,
    NULLIF(r.details, '')::jsonb, NULLIF(r.kind, '') <> 'person', NULLIF(r.kind, ''), NULLIF(r.trigger, ''), NULLIF(r.country, ''),
    NULLIF(r.browser, ''), NULLIF(r.os, ''), NULLIF(r.device, ''), NULLIF(r.referrer_host, ''), @import_id, r.line
FROM (
    SELECT
        unnest(@lines::bigint[]) AS line,
        unnest(@source_ids::bigint[]) AS source_id,
        unnest(@url_ids::bigint[]) AS url_id,
        unnest(@user_ids::bigint[]) AS user_id,
        unnest(@event_types::text[]) AS event_type,
        unnest(@occurred_ats::timestamptz[]) AS occurred_at,
        unnest(@details::text[]) AS details,
        unnest(@kinds::text[]) AS kind,
        unnest(@triggers::text[]) AS trigger,
        unnest(@countries::text[]) AS country,
        unnest(@browsers::text[]) AS browser,
        unnest(@oses::text[]) AS os,
        unnest(@devices::text[]) AS device,
        unnest(@referrer_hosts::text[]) AS referrer_host
) r
WHERE NOT EXISTS (
    SELECT FROM archived_event_ids a
    JOIN event_parts p USING (batch)
    WHERE a.occurred_at = r.occurred_at AND a.source_id = r.source_id
)
ORDER BY r.line
ON CONFLICT DO NOTHING
RETURNING import_line, id;

-- name: FindEventKeyOwners :many
-- FindEventKeyOwners returns for each line the event that has the id of the line at its
-- time, 0 if there is none. The event may have been archived. Ids that were noted for a
-- detach which did not happen are ignored: their events are still in the database, or
-- were removed since.
SELECT
    r.line::bigint AS line,
    COALESCE((
        SELECT e.id FROM events e WHERE e.source_id = r.source_id AND e.occurred_at = r.occurred_at
    ), (
        SELECT a.id FROM archived_event_ids a
        JOIN event_parts p USING (batch)
        WHERE a.source_id = r.source_id AND a.occurred_at = r.occurred_at
    ), 0)::bigint AS source_id_owner
FROM (
    SELECT
        unnest(@lines::bigint[]) AS line,
        unnest(@source_ids::bigint[]) AS source_id,
        unnest(@occurred_ats::timestamptz[]) AS occurred_at
) r;
