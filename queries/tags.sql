-- name: ListTags :many
-- ListTags returns a page of the tags that begin with a prefix, in the order of bytes. A
-- tag whose last link has just gone is in it with no links, so that a page ends where the
-- next one begins.
WITH candidates AS (
    (SELECT a.name
    FROM tags a
    WHERE a.name > sqlc.arg(after)::text AND a.name >= sqlc.arg(prefix)::text AND a.name < sqlc.arg(prefix)::text || chr(1114111)
    ORDER BY a.name
    LIMIT sqlc.arg(row_limit)::bigint + sqlc.arg(row_offset)::bigint)
    UNION
    (SELECT DISTINCT b.name
    FROM tag_changes b
    WHERE b.name > sqlc.arg(after)::text AND b.name >= sqlc.arg(prefix)::text AND b.name < sqlc.arg(prefix)::text || chr(1114111)
    ORDER BY b.name
    LIMIT sqlc.arg(row_limit)::bigint + sqlc.arg(row_offset)::bigint)
), page AS (
    SELECT d.name
    FROM candidates d
    ORDER BY d.name
    LIMIT sqlc.arg(row_limit)::bigint OFFSET sqlc.arg(row_offset)::bigint
)
SELECT p.name, COALESCE(t.color, '') AS color, (COALESCE(t.links, 0) + COALESCE(c.links, 0))::bigint AS links, m.target AS becomes
FROM page p
LEFT JOIN tags t ON t.name = p.name
LEFT JOIN LATERAL (SELECT sum(s.links) AS links FROM tag_changes s WHERE s.name = p.name) c ON true
LEFT JOIN tag_moves m ON m.name = p.name
ORDER BY p.name;

-- name: GetTag :one
-- GetTag returns a tag also if there is none, with no links and no color.
SELECT COALESCE(t.color, '')::text AS color,
    (COALESCE(t.links, 0) + (SELECT COALESCE(sum(s.links), 0) FROM tag_changes s WHERE s.name = sqlc.arg(name)::text))::bigint AS links, m.target AS becomes
FROM (SELECT sqlc.arg(name)::text COLLATE "C" AS name) p
LEFT JOIN tags t ON t.name = p.name
LEFT JOIN tag_moves m ON m.name = p.name;

-- name: TagColors :many
SELECT name, color
FROM tags
WHERE name = ANY(@names::text[]) AND color <> '';

-- name: SetTagColor :exec
INSERT INTO tags (name, color)
VALUES (@name, @color)
ON CONFLICT (name) DO UPDATE SET color = EXCLUDED.color;

-- name: FindTagMove :one
-- FindTagMove returns a move that a tag is part of.
SELECT name, target
FROM tag_moves
WHERE name = ANY(@names::text[]) OR target = ANY(@names::text[])
LIMIT 1;

-- name: StartTagMove :exec
INSERT INTO tag_moves (name, target, actor)
VALUES (@name, @target, @actor);

-- name: ListTagMoves :many
SELECT name
FROM tag_moves
ORDER BY started_at;

-- name: HasTag :one
-- HasTag says whether a link has a tag.
SELECT EXISTS (SELECT FROM urls WHERE tags @> ARRAY[@name::text]);

-- name: GetTagMove :one
SELECT * FROM tag_moves WHERE name = @name;

-- name: LockTagMove :one
SELECT * FROM tag_moves WHERE name = @name FOR UPDATE;

-- name: MoveTag :execrows
-- MoveTag takes a tag off links, for the target if there is one, and records each change
-- as the update of a link does. A link that has the target already loses the tag only.
WITH piece AS (
    SELECT u.id, u.tags, d.host
    FROM urls u
    JOIN domains d ON d.id = u.domain_id
    WHERE u.id = ANY(@ids::bigint[]) AND u.tags @> ARRAY[@name::text]
    ORDER BY u.id
    FOR UPDATE OF u
), changed AS (
    UPDATE urls u
    SET tags = CASE WHEN @target::text = '' OR p.tags @> ARRAY[@target]
            THEN array_remove(p.tags, @name) ELSE array_replace(p.tags, @name, @target) END,
        updated_at = clock_timestamp()
    FROM piece p
    WHERE u.id = p.id
    RETURNING u.id, u.user_id, u.short_code, u.original_url, u.tags AS new_tags, p.tags AS old_tags, p.host
)
INSERT INTO events (occurred_at, url_id, user_id, event_type, details)
SELECT clock_timestamp(), c.id, c.user_id, 'updated', jsonb_strip_nulls(jsonb_build_object(
    'entity', 'url', 'domain', c.host, 'short_code', c.short_code, 'original_url', c.original_url,
    'changes', jsonb_build_object('tags', jsonb_build_object('old', c.old_tags, 'new', c.new_tags)))) || jsonb_build_object('by', @actor::jsonb)
FROM changed c;

-- name: AdvanceTagMove :exec
UPDATE tag_moves
SET at_id = @at_id
WHERE name = @name;

-- name: EndTagMove :exec
-- EndTagMove ends the move of a tag. The target takes its color over, unless it has one.
WITH gone AS (
    DELETE FROM tag_moves m WHERE m.name = @name RETURNING m.name, m.target
), old AS (
    UPDATE tags t SET color = '' FROM gone g WHERE t.name = g.name RETURNING g.target, (SELECT s.color FROM tags s WHERE s.name = g.name) AS color
)
INSERT INTO tags (name, color)
SELECT o.target, o.color FROM old o WHERE o.target <> '' AND o.color <> ''
ON CONFLICT (name) DO UPDATE SET color = CASE WHEN tags.color = '' THEN EXCLUDED.color ELSE tags.color END;

-- name: AddUpTags :one
-- AddUpTags adds up to row_limit changes to the numbers of tags. It returns how many.
WITH taken AS (
    DELETE FROM tag_changes
    WHERE id IN (SELECT id FROM tag_changes ORDER BY id LIMIT @row_limit FOR UPDATE SKIP LOCKED)
    RETURNING name, links
), added AS (
    INSERT INTO tags (name, links)
    SELECT name, sum(links) FROM taken GROUP BY name ORDER BY name
    ON CONFLICT (name) DO UPDATE SET links = tags.links + EXCLUDED.links
)
SELECT count(*) FROM taken;

-- name: DropEmptyTags :exec
DELETE FROM tags WHERE links = 0 AND color = '';

-- name: LockTagMoves :exec
-- LockTagMoves lets one transaction at a time start a move.
LOCK TABLE tag_moves IN SHARE ROW EXCLUSIVE MODE;

-- name: TagFigures :one
SELECT (SELECT count(*) FROM tag_changes) AS changes,
    COALESCE((SELECT extract(epoch FROM now() - min(started_at)) FROM tag_moves), 0)::double precision AS oldest_move_seconds;
