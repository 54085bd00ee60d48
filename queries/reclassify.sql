-- name: EndOlderReclassification :exec
-- EndOlderReclassification ends a run by rules that no worker has any more. The run that
-- follows it does the rest.
UPDATE reclassifications
SET finished_at = now()
WHERE finished_at IS NULL AND rules < @rules;

-- name: CreateReclassification :one
INSERT INTO reclassifications (from_at, to_at, dry_run, rules, position_at)
VALUES (@from_at, @to_at, @dry_run, @rules, @from_at)
RETURNING id;

-- name: GetReclassification :one
SELECT * FROM reclassifications
WHERE id = @id;

-- name: FindOpenReclassification :one
SELECT * FROM reclassifications
WHERE finished_at IS NULL;

-- name: LockReclassification :one
SELECT * FROM reclassifications
WHERE id = @id
FOR UPDATE;

-- name: SetReclassificationJob :exec
UPDATE reclassifications
SET job_id = @job_id
WHERE id = @id;

-- name: MoveReclassification :exec
UPDATE reclassifications
SET position_at = @position_at, position_id = @position_id, looked_at = looked_at + @looked_at, changes = @changes,
    finished_at = CASE WHEN @position_at::timestamptz >= to_at THEN now() END
WHERE id = @id;

-- name: ListStrandedReclassifications :many
-- ListStrandedReclassifications returns those whose job is gone.
SELECT r.id
FROM reclassifications r
WHERE r.finished_at IS NULL
    AND NOT EXISTS (
        SELECT FROM river_job j
        WHERE j.id = r.job_id
            AND (j.state NOT IN ('cancelled', 'completed', 'discarded')
                OR (j.state <> 'completed' AND j.finalized_at > now() - @left_alone::interval))
    )
ORDER BY r.id;

-- name: ListClicksToJudge :many
-- ListClicksToJudge returns clicks after a position, oldest first. What a file said of
-- imported ones stays.
SELECT occurred_at, id, url_id, user_id, visitor, kind, bot, rules, firsts, user_agent_id, trigger, country, browser, os, device, referrer_host
FROM events
WHERE occurred_at >= @at::timestamptz
    AND (occurred_at, id) > (@at, @at_id::bigint)
    AND occurred_at < @until::timestamptz
    AND event_type = 'clicked'
    AND import_id IS NULL
ORDER BY occurred_at, id
LIMIT @row_limit;

-- name: ListUserAgents :many
SELECT id, agent FROM user_agents
WHERE id = ANY(@ids::bigint[]);

-- name: Rejudge :execrows
-- Rejudge stores what clicks from one time to another are now. Firsts that are negative
-- are not known.
UPDATE events e
SET kind = r.kind, bot = r.kind <> 'person', rules = @rules::smallint, browser = NULLIF(r.browser, ''), os = NULLIF(r.os, ''),
    device = NULLIF(r.device, ''), firsts = CASE WHEN r.firsts >= 0 THEN r.firsts END
FROM (
    SELECT
        unnest(@occurred_ats::timestamptz[]) AS occurred_at,
        unnest(@ids::bigint[]) AS id,
        unnest(@kinds::text[]) AS kind,
        unnest(@browsers::text[]) AS browser,
        unnest(@oses::text[]) AS os,
        unnest(@devices::text[]) AS device,
        unnest(@firsts::smallint[]) AS firsts
) r
WHERE e.occurred_at BETWEEN @first_at::timestamptz AND @last_at::timestamptz AND e.occurred_at = r.occurred_at AND e.id = r.id;

-- name: ListFirstVisits :many
-- ListFirstVisits returns which of the visitors have a first click on a day, without
-- those of the given clicks. Both lists are hashed, which ANY and ALL of a parameter are
-- not; and statistics of firsts, which change as it goes, do not talk Postgres out of it.
SELECT COALESCE(url_id, 0)::bigint AS url_id, visitor::bigint AS visitor, firsts::smallint AS firsts
FROM events
WHERE occurred_at >= @from_at::timestamptz AND occurred_at < @to_at::timestamptz
    AND firsts & 3 <> 0
    AND visitor IN (SELECT unnest(@visitors::bigint[]))
    AND id NOT IN (SELECT unnest(@without_ids::bigint[]));

-- name: ReleaseVisitors :exec
-- ReleaseVisitors forgets visitors, so that their next click is a first one.
DELETE FROM visitors v
USING (SELECT unnest(@days::date[]) AS day, unnest(@url_ids::bigint[]) AS url_id, unnest(@visitors::bigint[]) AS visitor) r
WHERE v.day = r.day AND v.url_id = r.url_id AND v.visitor = r.visitor;

-- name: VisitorsOfDayAreKept :one
-- VisitorsOfDayAreKept reports whether the visitors of a day still have their partition.
SELECT (to_regclass(@partition::text) IS NOT NULL)::boolean AS kept;
