-- Rankings of links read all rows of some days. The rows of a month come day by day, but
-- for late clicks, so that a summary of each few pages suffices; it costs next to nothing
-- to keep.

-- +goose Up
CREATE INDEX rollups_day_idx ON rollups USING brin (day) WITH (pages_per_range = 32, autosummarize = on);

-- +goose Down
DROP INDEX rollups_day_idx;
