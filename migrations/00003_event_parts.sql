-- Months that were taken out of events, and the steps on the way there.

-- +goose Up
-- One part of a month: what was in the month's partition when it was detached.
-- Late rows make a new partition and with it the next part. The row says which
-- step comes next, so that whoever goes on after a crash knows:
--   detached: its rows are in table_name, which is no partition any more
--   archived: and in the archive, in file
--   verified: and were read back from there
--   dropped:  and are only there
CREATE TABLE event_parts (
    month       date NOT NULL,
    part        integer NOT NULL,
    state       text NOT NULL DEFAULT 'detached',
    table_name  text NOT NULL,
    archive     text,
    file        text,
    rows        bigint,
    bytes       bigint,
    sha256      text,
    detached_at timestamptz NOT NULL DEFAULT now(),
    archived_at timestamptz,
    verified_at timestamptz,
    dropped_at  timestamptz,
    CONSTRAINT event_parts_pkey PRIMARY KEY (month, part),
    CONSTRAINT event_parts_month_start CHECK (EXTRACT(day FROM month) = 1),
    CONSTRAINT event_parts_part_range CHECK (part >= 1),
    CONSTRAINT event_parts_state_known CHECK (state IN ('detached', 'archived', 'verified', 'dropped'))
);

-- Months that were restored, and until when they stay.
CREATE TABLE event_holds (
    month date NOT NULL,
    until timestamptz NOT NULL,
    CONSTRAINT event_holds_pkey PRIMARY KEY (month)
);

-- +goose Down
DROP TABLE event_parts, event_holds;
