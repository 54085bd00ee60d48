-- Digests that cannot be decoded. Nobody can tell which links and days they are of, so
-- the statistics lack their clicks until the days from oldest_at on are counted again
-- from the events, which removes them. So a month of these days is not archived.

-- +goose Up
CREATE TABLE failed_rollup_digests (
    id         bigint NOT NULL,
    clicks     integer NOT NULL,
    oldest_at  timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    failed_at  timestamptz NOT NULL DEFAULT now(),
    payload    bytea NOT NULL,
    CONSTRAINT failed_rollup_digests_pkey PRIMARY KEY (id)
);
ALTER TABLE failed_rollup_digests ALTER COLUMN payload SET STORAGE EXTERNAL; -- it is compressed

-- +goose Down
DROP TABLE failed_rollup_digests;
