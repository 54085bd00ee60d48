-- name: FindIdempotencyKey :one
SELECT request, COALESCE(status, 0)::smallint AS status, COALESCE(location, '')::text AS location, body
FROM idempotency_keys
WHERE token_id = @token_id AND route = @route AND key = @key;

-- name: FreeIdempotencyKey :exec
-- FreeIdempotencyKey frees the key of an upload that failed, and that of a request about
-- many links that is over without an answer: its process was killed.
DELETE FROM idempotency_keys k
WHERE k.token_id = @token_id AND k.route = @route AND k.key = @key AND k.status IS NULL
    AND CASE
        WHEN k.import_id IS NULL THEN k.kept_since < now() - interval '1 minute'
        ELSE EXISTS (SELECT FROM imports i WHERE i.id = k.import_id AND i.state <> 'receiving')
    END;

-- name: DropIdempotencyKey :exec
-- DropIdempotencyKey frees the key of a request about many links that was not finished.
DELETE FROM idempotency_keys
WHERE token_id = @token_id AND route = @route AND key = @key AND status IS NULL AND import_id IS NULL;

-- name: WaitForLocks :exec
-- WaitForLocks sets how long the rest of the transaction waits for a lock; NULL means
-- as long as usual.
SELECT set_config('lock_timeout', sqlc.narg(timeout)::text, true);

-- name: ClaimIdempotencyKey :execrows
-- ClaimIdempotencyKey waits for another transaction that is about to write the same
-- key.
INSERT INTO idempotency_keys (token_id, route, key, import_id, request)
VALUES (@token_id, @route, @key, @import_id, @request)
ON CONFLICT ON CONSTRAINT idempotency_keys_pkey DO NOTHING;

-- name: KeepAnswer :exec
UPDATE idempotency_keys
SET request = @request, status = @status::smallint, location = @location::text, body = @body, kept_since = clock_timestamp()
WHERE token_id = @token_id AND route = @route AND key = @key;

-- name: PruneIdempotencyKeys :execrows
-- PruneIdempotencyKeys keeps the keys of uploads that are under way.
DELETE FROM idempotency_keys
WHERE (token_id, route, key) IN (
    SELECT k.token_id, k.route, k.key
    FROM idempotency_keys k
    WHERE k.kept_since < now() - @older_than::interval
        AND (k.status IS NOT NULL OR NOT EXISTS (
            SELECT FROM imports i WHERE i.id = k.import_id AND i.state = 'receiving'))
    ORDER BY k.kept_since
    LIMIT @row_limit
);
