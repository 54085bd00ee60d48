-- A batch that can never be ingested as it is ends in a state of its own, with
-- its payload, for an operator to look at; and the ledger can be cut by age
-- without a replay of what was cut ever being counted again.

-- +goose Up
ALTER TABLE click_batches
    ADD COLUMN failed_at timestamptz,
    ADD COLUMN failure text,
    -- An operator said to ingest it although the ledger was cut since.
    ADD COLUMN forced boolean NOT NULL DEFAULT false;
CREATE INDEX click_batches_unconfirmed_idx ON click_batches (ingested_at)
    WHERE ingested_at IS NOT NULL AND removed_at IS NULL;

-- One row: batches whose oldest click is not after cut_at may have been in the
-- ledger once. Unknown ones among them are not ingested unasked.
CREATE TABLE click_ledger (
    singleton boolean NOT NULL DEFAULT true,
    cut_at    timestamptz NOT NULL DEFAULT '-infinity',
    CONSTRAINT click_ledger_pkey PRIMARY KEY (singleton),
    CONSTRAINT click_ledger_singleton CHECK (singleton)
);
INSERT INTO click_ledger DEFAULT VALUES;

-- +goose Down
DROP TABLE click_ledger;
DROP INDEX click_batches_unconfirmed_idx;
ALTER TABLE click_batches DROP COLUMN failed_at, DROP COLUMN failure, DROP COLUMN forced;
