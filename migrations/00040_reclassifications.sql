-- Runs of `signpost clicks reclassify`, each with how far it came, so that it goes on
-- after a worker was killed.

-- +goose Up
CREATE TABLE reclassifications (
    id          bigint GENERATED ALWAYS AS IDENTITY,
    from_at     timestamptz NOT NULL,
    to_at       timestamptz NOT NULL,
    dry_run     boolean NOT NULL,
    rules       smallint NOT NULL,    -- a worker with other rules leaves it alone
    position_at timestamptz NOT NULL, -- clicks up to here were looked at
    position_id bigint NOT NULL DEFAULT 0,
    looked_at   bigint NOT NULL DEFAULT 0,
    changes     jsonb NOT NULL DEFAULT '{}', -- {"person": {"bot": 12}}
    job_id      bigint,
    created_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CONSTRAINT reclassifications_pkey PRIMARY KEY (id),
    CONSTRAINT reclassifications_range CHECK (from_at < to_at)
);
CREATE UNIQUE INDEX reclassifications_one_at_a_time ON reclassifications ((true)) WHERE finished_at IS NULL;

-- +goose Down
DROP TABLE reclassifications;
