-- The processes that take clicks, each with what it has accepted and not shipped. A
-- process writes its row about every second and in each transaction that ships, and
-- removes it when it stops with an empty spool. The row of a process that died stays
-- until another process has taken over all of its folders: it holds back the time up
-- to which statistics are complete.

-- +goose Up
CREATE TABLE replicas (
    id          text NOT NULL,
    host        text NOT NULL,
    folders     text[] NOT NULL,
    spooled     bigint NOT NULL,
    complete_to timestamptz NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT replicas_pkey PRIMARY KEY (id),
    CONSTRAINT replicas_spooled CHECK (spooled >= 0)
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE replicas;
