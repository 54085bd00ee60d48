-- name: CreateToken :one
INSERT INTO api_tokens (name, role, hash, expires_at)
VALUES (@name, @role, @hash, @expires_at)
RETURNING id, name, role, created_at, expires_at, revoked_at, last_used_at;

-- name: FindToken :one
-- FindToken decides about expiry and revocation, by the clock of the database.
SELECT id, name, role, (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')::boolean AS idle
FROM api_tokens
WHERE hash = @hash AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: UseToken :exec
-- UseToken notes that a token is used. It waits for nobody: the token may be held, and
-- others may note the same.
UPDATE api_tokens
SET last_used_at = now()
WHERE id IN (SELECT t.id FROM api_tokens t WHERE t.id = @id FOR NO KEY UPDATE SKIP LOCKED);

-- name: TokenHolds :one
-- TokenHolds checks again a token that was found before.
SELECT EXISTS (
    SELECT FROM api_tokens
    WHERE id = @id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
);

-- name: HoldToken :execrows
-- HoldToken locks a valid token until the transaction ends, so that it cannot be
-- revoked meanwhile. It returns 0 if the token is not valid.
SELECT FROM api_tokens
WHERE id = @id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
FOR SHARE;

-- name: ListTokens :many
SELECT id, name, role, created_at, expires_at, revoked_at, last_used_at
FROM api_tokens
WHERE id > @after_id
ORDER BY id
LIMIT @row_limit OFFSET @row_offset;

-- name: RevokeToken :execrows
UPDATE api_tokens
SET revoked_at = COALESCE(revoked_at, now())
WHERE id = @id;
