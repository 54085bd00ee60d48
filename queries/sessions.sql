-- name: CreateSession :one
INSERT INTO sessions (hash, token_id, admin_key, agent)
VALUES (@hash, @token_id, @admin_key, @agent)
RETURNING id;

-- name: FindSession :one
-- FindSession finds a session that has not ended, and its token. Of the two hashes of its
-- reference, one is for sessions of tokens and one for those of ADMIN_TOKEN.
SELECT s.id, (s.used_at < now() - interval '1 minute')::boolean AS idle, t.id AS token_id, COALESCE(t.name, '') AS name, COALESCE(t.role, '') AS role
FROM sessions s
LEFT JOIN api_tokens t ON t.id = s.token_id
WHERE s.hash IN (@hash::bytea, @admin_hash::bytea)
    AND s.used_at > now() - @idle_for::interval
    AND s.created_at > now() - @lives_for::interval
    AND (s.token_id IS NULL AND s.hash = @admin_hash
        OR s.hash = @hash AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now()));

-- name: SessionHolds :one
-- SessionHolds checks again a session that was found before.
SELECT EXISTS (
    SELECT FROM sessions s
    LEFT JOIN api_tokens t ON t.id = s.token_id
    WHERE s.id = @id AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
);

-- name: UseSession :exec
-- UseSession also gives its key to a session of ADMIN_TOKEN that the release before began.
-- It waits for nobody, as UseToken.
UPDATE sessions
SET used_at = now(), admin_key = COALESCE(admin_key, @admin_key)
WHERE id IN (SELECT s.id FROM sessions s WHERE s.id = @id FOR NO KEY UPDATE SKIP LOCKED);

-- name: ListSessions :many
-- ListSessions returns the sessions of a token; NULL stands for ADMIN_TOKEN, whose sessions
-- have its key.
SELECT id, agent, created_at, used_at
FROM sessions
WHERE token_id IS NOT DISTINCT FROM sqlc.narg(token_id)::bigint
    AND (token_id IS NOT NULL OR admin_key = @admin_key)
    AND used_at > now() - @idle_for::interval
    AND created_at > now() - @lives_for::interval
ORDER BY used_at DESC, id DESC
LIMIT 100;

-- name: EndSession :exec
DELETE FROM sessions
WHERE id = @id;

-- name: EndSessions :exec
-- EndSessions ends all sessions of a token; NULL stands for ADMIN_TOKEN.
DELETE FROM sessions
WHERE token_id IS NOT DISTINCT FROM sqlc.narg(token_id)::bigint;

-- name: PruneSessions :execrows
DELETE FROM sessions
WHERE id IN (
    SELECT s.id FROM sessions s
    WHERE s.used_at < now() - @older_than::interval
    LIMIT @row_limit
);
