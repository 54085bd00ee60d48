-- A click into a row with many cells wrote all of them anew: 100 kB of log for a single
-- click on a busy day. Recent clicks now have cells of their own beside them, which join
-- the others now and then. Cells are read from their beginning, and mostly no further,
-- which takes half as long if they are not compressed.

-- +goose Up
ALTER TABLE rollups ADD COLUMN IF NOT EXISTS recent bytea NOT NULL DEFAULT '';
ALTER TABLE rollups ALTER COLUMN cells SET STORAGE EXTERNAL;

-- +goose Down
SELECT 1;
