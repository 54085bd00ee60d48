-- Facts that operators are shown: when a token was last used, which sessions began with the
-- present ADMIN_TOKEN, and which workers run.

-- +goose Up
ALTER TABLE api_tokens ADD COLUMN last_used_at timestamptz; -- to the minute

-- admin_key tells the sessions of one value of ADMIN_TOKEN from those of another. It is
-- made of the value as slowly as the hash of a password. NULL for sessions of tokens.
ALTER TABLE sessions ADD COLUMN admin_key bytea;

-- A worker writes its row every few seconds, and removes it when it stops.
CREATE TABLE workers (
    id         text NOT NULL,
    host       text NOT NULL,
    version    text NOT NULL,
    queues     text[] NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT workers_pkey PRIMARY KEY (id)
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE workers;
ALTER TABLE sessions DROP COLUMN admin_key;
ALTER TABLE api_tokens DROP COLUMN last_used_at;
