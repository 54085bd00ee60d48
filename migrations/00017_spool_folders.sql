-- How far each spool folder is empty. The ledger need not remember the batches
-- below that: one of them that turns up again comes from a copy of the folder (a
-- snapshot of its volume, a backup) and was counted, so that it is not ingested
-- unasked. One row for each life of an api process that took clicks, kept for
-- ever: a copy may be brought back at any time.
--
-- click_batches.removed_at and its index are written and read by the release
-- before only, and go with a later one.

-- +goose Up
CREATE TABLE spool_folders (
    folder       text COLLATE "C" NOT NULL,
    gone_below   text COLLATE "C" NOT NULL,
    confirmed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT spool_folders_pkey PRIMARY KEY (folder),
    CONSTRAINT spool_folders_name CHECK (octet_length(folder) = 32),
    CONSTRAINT spool_folders_gone_below CHECK (starts_with(gone_below, folder || '-') AND octet_length(gone_below) <= 128)
);
CREATE INDEX click_batches_ingested_idx ON click_batches (ingested_at) WHERE ingested_at IS NOT NULL;

-- +goose Down
DROP INDEX click_batches_ingested_idx;
DROP TABLE spool_folders;
