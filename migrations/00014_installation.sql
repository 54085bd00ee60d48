-- The identity of this database. A spool, a cache snapshot and an archive carry it,
-- so that what belongs to another installation is held rather than counted here. A
-- dump that is brought back keeps it: it is the same installation.

-- +goose Up
CREATE TABLE installation (
    id         uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now(),
    one        boolean NOT NULL DEFAULT true,
    CONSTRAINT installation_pkey PRIMARY KEY (one),
    CONSTRAINT installation_one CHECK (one)
);
INSERT INTO installation DEFAULT VALUES;

-- +goose Down
DROP TABLE installation;
