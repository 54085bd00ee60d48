-- name: CreateUser :one
INSERT INTO users (username, email)
VALUES (@username, @email)
RETURNING id, username, email, created_at;

-- name: GetUser :one
SELECT id, username, email, created_at
FROM users
WHERE id = @id;

-- name: GetUserByName :one
SELECT id, username, email, created_at
FROM users
WHERE lower(username) = lower(@username);

-- name: LockUser :one
SELECT id, username, email, created_at
FROM users
WHERE id = @id
FOR UPDATE;

-- name: UpdateUser :one
UPDATE users
SET username = @username, email = @email
WHERE id = @id
RETURNING id, username, email, created_at;

-- name: DeleteUser :execrows
DELETE FROM users
WHERE id = @id;

-- name: ListUsers :many
SELECT id, username, email, created_at
FROM users
WHERE id > @after_id
ORDER BY id
LIMIT @row_limit OFFSET @row_offset;

-- name: WalkUsers :many
-- WalkUsers walks through up to walk_limit users behind after_id, and returns those with a
-- text in their name or address, in order. Unless the list ended before, the last user of
-- the walk is there in any case, as its edge. It is planned anew for every call, like the
-- walks along links.
SELECT w.id, w.username, w.email, w.created_at, w.passes, (w.place = sqlc.arg(walk_limit)::bigint)::boolean AS is_edge
FROM (
    SELECT u.id, u.username, u.email, u.created_at, row_number() OVER (ORDER BY u.id) AS place,
        ((u.username || E'\n' || u.email) ILIKE sqlc.arg(search)::text)::boolean AS passes
    FROM users u
    WHERE u.id > @after_id
    ORDER BY u.id
    LIMIT sqlc.arg(walk_limit)::bigint
) w
WHERE w.passes OR w.place = sqlc.arg(walk_limit)::bigint
ORDER BY w.id
LIMIT @row_limit;

-- name: FindUsers :one
-- FindUsers returns how many users have a text in their name or address, up to
-- found_limit, and the ids of a page of them. These are right only if all were found. If
-- the page were read along the ids, the planner would walk through all users for a text
-- that it takes to be common.
SELECT count(*) AS found,
    COALESCE((array_agg(f.id ORDER BY f.id) FILTER (WHERE f.id > @after_id::bigint))
        [sqlc.arg(row_offset)::integer + 1 : sqlc.arg(row_offset)::integer + sqlc.arg(row_limit)::integer], '{}')::bigint[] AS ids
FROM (
    SELECT u.id
    FROM users u
    WHERE (u.username || E'\n' || u.email) ILIKE sqlc.arg(search)::text
    LIMIT sqlc.arg(found_limit)::bigint
) f;

-- name: GetUsers :many
SELECT id, username, email, created_at
FROM users
WHERE id = ANY(@ids::bigint[])
ORDER BY id;

-- name: ImportUsers :many
-- ImportUsers inserts the rows that conflict with nothing and returns their lines. A
-- row that is missing from the result conflicts with a row that was there before it.
-- Arrays hold no NULLs: id 0 means that an id is drawn, and the zero time means now.
INSERT INTO users (id, username, email, created_at, import_id, import_line)
SELECT COALESCE(NULLIF(r.id, 0), nextval('users_id_seq')), r.username, r.email,
    COALESCE(NULLIF(r.created_at, '0001-01-01 00:00:00+00'), now()), @import_id, r.line
FROM (
    SELECT
        unnest(@lines::bigint[]) AS line,
        unnest(@ids::bigint[]) AS id,
        unnest(@usernames::text[]) AS username,
        unnest(@emails::text[]) AS email,
        unnest(@created_ats::timestamptz[]) AS created_at
) r
ORDER BY r.line
ON CONFLICT DO NOTHING
RETURNING import_line, id;

-- name: FindUserKeyOwners :many
-- FindUserKeyOwners returns for each line the users that have its keys, 0 for nobody,
-- and the names of the line in the form of the unique indexes.
SELECT
    r.line::bigint AS line,
    lower(r.username)::text AS username_key,
    lower(r.email)::text AS email_key,
    COALESCE((SELECT u.id FROM users u WHERE u.id = r.id), 0)::bigint AS id_owner,
    COALESCE((SELECT u.id FROM users u WHERE lower(u.username) = lower(r.username)), 0)::bigint AS username_owner,
    COALESCE((SELECT u.id FROM users u WHERE lower(u.email) = lower(r.email)), 0)::bigint AS email_owner
FROM (
    SELECT
        unnest(@lines::bigint[]) AS line,
        unnest(@ids::bigint[]) AS id,
        unnest(@usernames::text[]) AS username,
        unnest(@emails::text[]) AS email
) r;

-- name: LockUserKeys :many
-- LockUserKeys locks users in the order of their ids, so that two imports never wait
-- for each other in a circle. It returns their keys in the form of the unique indexes.
SELECT id, lower(username)::text AS username_key, lower(email)::text AS email_key
FROM users
WHERE id = ANY(@ids::bigint[])
ORDER BY id
FOR NO KEY UPDATE;

-- name: UpdateImportedUsers :many
-- UpdateImportedUsers sets the fields of users to those of a file, and returns the
-- values that were replaced. The zero time leaves created_at as it is. The users must
-- be locked already.
UPDATE users u
SET email = r.email,
    created_at = COALESCE(NULLIF(r.created_at, '0001-01-01 00:00:00+00'), u.created_at)
FROM (
    SELECT
        unnest(@lines::bigint[]) AS line,
        unnest(@ids::bigint[]) AS id,
        unnest(@emails::text[]) AS email,
        unnest(@created_ats::timestamptz[]) AS created_at
) r
JOIN users o ON o.id = r.id
WHERE u.id = o.id
RETURNING r.line::bigint AS line, (
    SELECT COALESCE(jsonb_object_agg(b.key, b.value), '{}')
    FROM jsonb_each(to_jsonb(o)) b
    WHERE b.key <> 'import_touched' AND b.value IS DISTINCT FROM to_jsonb(u) -> b.key
)::jsonb AS before;

-- name: FindMissingUsers :many
SELECT r.id::bigint AS id
FROM (SELECT DISTINCT unnest(@ids::bigint[]) AS id) r
WHERE NOT EXISTS (SELECT FROM users u WHERE u.id = r.id);

-- name: MoveUsersSequence :exec
-- MoveUsersSequence moves the sequence past an imported id, before rows with such ids
-- are written. The lock keeps two imports from doing this at the same time. Ids that
-- others draw between the reading and the setting of the sequence may be drawn again. A
-- transaction that draws an id that is taken draws another one.
WITH locked AS MATERIALIZED (
    SELECT pg_advisory_xact_lock(hashtextextended('users_id_seq', 0))
)
SELECT setval('users_id_seq', @past_id::bigint)
FROM locked
WHERE COALESCE(pg_sequence_last_value('users_id_seq'), 0) < @past_id::bigint;

-- name: LastTakenUserID :one
-- LastTakenUserID is for a sequence that comes to imported ids, which were too high to
-- move it when they were imported. If one of the next @wanted ids of the sequence is
-- taken, it returns the last id before the next @wanted free ones in a row, else 0. If
-- the sequence is moved to this id (MoveUsersSequence), it gives no id that a row of
-- this snapshot has.
WITH drawn AS (
    SELECT COALESCE(pg_sequence_last_value('users_id_seq'), 0) AS last_id
)
SELECT CASE
    WHEN EXISTS (SELECT FROM users t, drawn WHERE t.id > last_id AND t.id <= last_id + @wanted::bigint) THEN (
        SELECT r.id
        FROM (
            SELECT t.id, lead(t.id) OVER (ORDER BY t.id) AS next_id
            FROM users t, drawn
            WHERE t.id > last_id
        ) r
        WHERE r.next_id IS NULL OR r.next_id > r.id + @wanted::bigint
        ORDER BY r.id
        LIMIT 1
    )
    ELSE 0
END::bigint AS id;
