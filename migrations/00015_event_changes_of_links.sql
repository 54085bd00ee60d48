-- The changes of a link, without reading its clicks or the changes of all others.
-- On a database with events this makes the index of the parent alone, which takes
-- no time. `signpost migrate` then builds those of the partitions one by one,
-- while events are written. Partitions that are attached from here on have theirs.

-- +goose Up
-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_inherits WHERE inhparent = 'events'::regclass) THEN
        CREATE INDEX events_url_id_change_idx ON ONLY events (url_id, occurred_at, id) WHERE event_type <> 'clicked';
    ELSE
        CREATE INDEX events_url_id_change_idx ON events (url_id, occurred_at, id) WHERE event_type <> 'clicked';
    END IF;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP INDEX events_url_id_change_idx;
