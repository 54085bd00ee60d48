-- name: CreateUser :one
INSERT INTO users (username, email)
VALUES (@username, @email)
RETURNING id, username, email, created_at;

-- name: GetUser :one
SELECT id, username, email, created_at
FROM users
WHERE id = @id;

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

-- name: ImportUsers :many
-- Inserts what conflicts with nothing and says which lines went in. A row that
-- is missing from the answer lost to a row that was there before. Arrays hold no
-- NULLs: id 0 draws one, the zero time means now.
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
-- Says for each line who has its keys, 0 for nobody, and what its names are to
-- the unique indexes.
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
-- Locks users in the order of their ids, so that two imports never wait for
-- each other, and says what their keys are to the unique indexes.
SELECT id, lower(username)::text AS username_key, lower(email)::text AS email_key
FROM users
WHERE id = ANY(@ids::bigint[])
ORDER BY id
FOR NO KEY UPDATE;

-- name: UpdateImportedUsers :many
-- Gives users what a file says of them, and returns the values that were
-- replaced. The zero time leaves created_at as it is. The users are locked.
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
-- Moves the sequence past an imported id before rows with such ids are written.
-- The lock keeps two imports apart. Ids that others draw between the reading and
-- the setting may be drawn again; whoever meets one that is taken draws another.
WITH locked AS MATERIALIZED (
    SELECT pg_advisory_xact_lock(hashtextextended('users_id_seq', 0))
)
SELECT setval('users_id_seq', @past_id::bigint)
FROM locked
WHERE COALESCE(pg_sequence_last_value('users_id_seq'), 0) < @past_id::bigint;

-- name: LastTakenUserID :one
-- The last id before the next @wanted free ones in a row, if one of the next
-- @wanted that the sequence gives is taken, else 0. Imported ids that were too
-- high to move the sequence are taken when it comes to them; moved to this one
-- (MoveUsersSequence), it gives none that a row of this snapshot has.
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
