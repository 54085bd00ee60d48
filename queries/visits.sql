-- name: StoreUserAgents :exec
-- StoreUserAgents stores headers, or notes that they were seen on a day. The rows are
-- written in the order of their ids, so that two statements never wait for each other in
-- a circle.
INSERT INTO user_agents (id, agent, seen_on)
SELECT DISTINCT ON (r.id) r.id, r.agent, @seen_on::date
FROM (SELECT unnest(@ids::bigint[]) AS id, unnest(@agents::text[]) AS agent) r
ORDER BY r.id
ON CONFLICT ON CONSTRAINT user_agents_pkey DO UPDATE
SET seen_on = excluded.seen_on
WHERE user_agents.seen_on < excluded.seen_on;

-- name: PruneUserAgents :execrows
-- PruneUserAgents removes headers that were last seen before a day, so that no event has
-- them any more.
DELETE FROM user_agents
WHERE id IN (SELECT a.id FROM user_agents a WHERE a.seen_on < @before::date LIMIT @row_limit);

-- name: ListMarks :many
SELECT * FROM marks
WHERE id > @after_id
ORDER BY id
LIMIT @row_limit OFFSET @row_offset;

-- name: CreateMark :one
-- CreateMark returns nothing if there are already as many marks as are allowed.
INSERT INTO marks (network, user_agent, kind)
SELECT sqlc.narg(network)::cidr, sqlc.narg(user_agent)::text, @kind::text
WHERE (SELECT count(*) FROM marks) < @most::bigint
RETURNING *;

-- name: DeleteMark :one
DELETE FROM marks
WHERE id = @id
RETURNING *;
