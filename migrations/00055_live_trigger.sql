-- How the links of live clicks were reached. Workers of the previous release write
-- none, which is a link.

-- +goose Up
ALTER TABLE live_clicks ADD COLUMN trigger text;

-- +goose Down
ALTER TABLE live_clicks DROP COLUMN trigger;
