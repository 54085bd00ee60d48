-- Sessions of the dashboard: a browser that was signed in with a token.

-- +goose Up
-- hash is that of a random reference, which only the browser has. token_id is NULL for
-- ADMIN_TOKEN; the hash of such a session depends on the value of ADMIN_TOKEN, so that
-- its sessions end when it changes.
CREATE TABLE sessions (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    hash       bytea NOT NULL,
    token_id   bigint,
    agent      text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    used_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT sessions_pkey PRIMARY KEY (id),
    CONSTRAINT sessions_hash_key UNIQUE (hash),
    CONSTRAINT sessions_hash_length CHECK (octet_length(hash) = 32),
    CONSTRAINT sessions_agent_length CHECK (char_length(agent) <= 100),
    CONSTRAINT sessions_token_id_fkey FOREIGN KEY (token_id) REFERENCES api_tokens (id) ON DELETE CASCADE
);
CREATE INDEX sessions_token_id_idx ON sessions (token_id);
CREATE INDEX sessions_used_at_idx ON sessions (used_at);

-- +goose Down
DROP TABLE sessions;
