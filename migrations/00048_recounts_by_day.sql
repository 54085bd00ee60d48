-- Statistics are complete only up to the first day that waits to be counted again, and
-- every answer says up to when. While an upgrade counts all of history, that is the
-- first of millions of rows.

-- +goose Up
CREATE INDEX rollup_recounts_day_idx ON rollup_recounts (day);

-- +goose Down
DROP INDEX rollup_recounts_day_idx;
