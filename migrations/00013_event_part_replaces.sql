-- A restored month is whole in the database, so what is archived of it next
-- takes the place of the parts that it was restored from: events that were
-- removed meanwhile, as by the undo of an import, are not to come back with them.

-- +goose Up
ALTER TABLE event_holds ADD COLUMN parts integer; -- the last part that was restored
ALTER TABLE event_parts ADD COLUMN replaces integer; -- the last part whose rows this one had

-- +goose Down
ALTER TABLE event_parts DROP COLUMN replaces;
ALTER TABLE event_holds DROP COLUMN parts;
