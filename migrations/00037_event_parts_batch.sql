-- A part of a month says in columns what only the name of its table told (which
-- ids were noted for it in archived_event_ids), and when it could not be archived.
--
-- The previous release inserts parts without their batch, so a trigger takes it
-- from the name of the table until that release is gone. It also leaves parts in
-- the state 'archived' (written and not yet read back), which this release treats
-- like 'detached': it writes the file anew.

-- +goose Up
ALTER TABLE event_parts
    ADD COLUMN batch bigint,
    ADD COLUMN failed_at timestamptz;

UPDATE event_parts SET batch = split_part(table_name, '_part_', 2)::bigint WHERE table_name ~ '_part_[0-9]+$';
-- Not every name in old tests and restored dumps has a number: those parts have no
-- ids noted.
UPDATE event_parts SET batch = 0 WHERE batch IS NULL;
ALTER TABLE event_parts ALTER COLUMN batch SET NOT NULL;

-- +goose StatementBegin
CREATE FUNCTION event_parts_batch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.batch := COALESCE(NEW.batch, NULLIF(substring(NEW.table_name FROM '_part_([0-9]+)$'), '')::bigint, 0);
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER event_parts_batch BEFORE INSERT ON event_parts FOR EACH ROW EXECUTE FUNCTION event_parts_batch();

-- +goose Down
DROP TRIGGER event_parts_batch ON event_parts;
DROP FUNCTION event_parts_batch;
ALTER TABLE event_parts DROP COLUMN batch, DROP COLUMN failed_at;
