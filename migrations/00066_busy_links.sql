-- The links with the most clicks of a range are found without adding up the days of every
-- link: they have a busy day. The class of a row is 0 below 4 clicks, 1 from 4 on, 2 from 8
-- on, and so on. It rarely changes, unlike clicks, so that its index costs writing little.
-- The table is written anew, which takes about ten seconds for each gigabyte of statistics:
-- these cannot be asked for and clicks wait to be merged meanwhile.

-- +goose Up
ALTER TABLE rollups ADD COLUMN busy integer NOT NULL GENERATED ALWAYS AS (
    width_bucket(clicks, ARRAY[4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072]::bigint[])
) STORED;
CREATE INDEX rollups_busy_idx ON rollups (day, scope, busy) WHERE busy > 0 AND scope > 0;

-- +goose Down
ALTER TABLE rollups DROP COLUMN busy;
