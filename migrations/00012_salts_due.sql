-- A visitor salt is destroyed a while after it was found to be due, so that what
-- an outage of days kept in the spools arrives before.

-- +goose Up
ALTER TABLE visitor_salts ADD COLUMN due_at timestamptz;

-- +goose Down
ALTER TABLE visitor_salts DROP COLUMN due_at;
