-- The names that imports gave to events that were taken out of the database since, so
-- that importing a file again brings none of them twice.

-- +goose Up
CREATE TABLE archived_event_ids (
    occurred_at timestamptz NOT NULL,
    source_id   bigint NOT NULL,
    id          bigint NOT NULL,
    batch       bigint NOT NULL, -- the end of the table_name in event_parts
    CONSTRAINT archived_event_ids_pkey PRIMARY KEY (occurred_at, source_id)
);

-- +goose Down
DROP TABLE archived_event_ids;
