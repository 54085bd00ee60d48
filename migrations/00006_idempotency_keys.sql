-- Requests that may be repeated: what was answered to the first one.

-- +goose Up
-- token_id is 0 for ADMIN_TOKEN. A row without a status is a request under way:
-- of an upload, whose import tells whether it still is; all others are seen by
-- nobody before they are done. request is the hash of what was asked.
CREATE TABLE idempotency_keys (
    token_id   bigint NOT NULL,
    route      text NOT NULL,
    key        text COLLATE "C" NOT NULL,
    import_id  bigint,
    request    bytea,
    status     smallint,
    location   text,
    body       bytea,
    kept_since timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (token_id, route, key),
    CONSTRAINT idempotency_keys_import_id_fkey FOREIGN KEY (import_id) REFERENCES imports (id) ON DELETE CASCADE,
    CONSTRAINT idempotency_keys_key_length CHECK (octet_length(key) BETWEEN 1 AND 255),
    CONSTRAINT idempotency_keys_request_length CHECK (octet_length(request) = 32),
    CONSTRAINT idempotency_keys_answer_whole CHECK (
        num_nonnulls(status, location, body) = 0 OR num_nonnulls(request, status, location, body) = 4)
);
CREATE INDEX idempotency_keys_kept_since_idx ON idempotency_keys (kept_since);
CREATE INDEX idempotency_keys_import_id_idx ON idempotency_keys (import_id) WHERE import_id IS NOT NULL;

-- +goose Down
DROP TABLE idempotency_keys;
