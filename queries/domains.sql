-- name: CreateDomain :one
-- CreateDomain returns nothing if there are already as many domains as are allowed.
INSERT INTO domains (host, root_url, not_found_url, expired_url)
SELECT sqlc.arg(host)::text, sqlc.narg(root_url), sqlc.narg(not_found_url), sqlc.narg(expired_url)
WHERE (SELECT count(*) FROM domains) <= sqlc.arg(most)::bigint
RETURNING *;

-- name: GetDomain :one
SELECT * FROM domains
WHERE id = @id;

-- name: LockDomain :one
SELECT * FROM domains
WHERE id = @id
FOR NO KEY UPDATE;

-- name: ListDomains :many
SELECT * FROM domains
WHERE id > @after_id
ORDER BY id
LIMIT @row_limit OFFSET @row_offset;

-- name: FindDomain :one
SELECT id FROM domains
WHERE host = @host::text;

-- name: ListHosts :many
SELECT id, host::text AS host FROM domains
WHERE host IS NOT NULL;

-- name: UpdateDomain :one
UPDATE domains
SET host = @host, root_url = @root_url, not_found_url = @not_found_url, expired_url = @expired_url,
    updated_at = clock_timestamp()
WHERE id = @id
RETURNING *;

-- name: DeleteDomain :execrows
DELETE FROM domains
WHERE id = @id;
