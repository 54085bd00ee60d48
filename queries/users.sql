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
RETURNING import_line;

-- name: FindUserConflicts :many
-- Says for each line which of its keys is taken, and what its names are to the
-- unique indexes.
SELECT
    r.line::bigint AS line,
    lower(r.username)::text AS username_key,
    lower(r.email)::text AS email_key,
    EXISTS (SELECT FROM users u WHERE u.id = r.id) AS id_taken,
    EXISTS (SELECT FROM users u WHERE lower(u.username) = lower(r.username)) AS username_taken,
    EXISTS (SELECT FROM users u WHERE lower(u.email) = lower(r.email)) AS email_taken
FROM (
    SELECT
        unnest(@lines::bigint[]) AS line,
        unnest(@ids::bigint[]) AS id,
        unnest(@usernames::text[]) AS username,
        unnest(@emails::text[]) AS email
) r;

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
