-- Clicks for those who watch them as they are ingested. A worker adds them in the
-- transaction of their batch, but only while somebody has watched within the last
-- minutes. The clicks of some minutes are kept, so that a client that was cut off gets
-- those it missed. They are a copy, so the table need not survive a crash.

-- +goose Up
CREATE UNLOGGED TABLE live_clicks (
    id            bigint GENERATED ALWAYS AS IDENTITY,
    xid           xid8 NOT NULL DEFAULT pg_current_xact_id(),
    written_at    timestamptz NOT NULL DEFAULT now(),
    occurred_at   timestamptz NOT NULL,
    url_id        bigint NOT NULL,
    kind          text NOT NULL,
    country       text,
    referrer_host text,
    device        text,
    more          integer NOT NULL,
    CONSTRAINT live_clicks_pkey PRIMARY KEY (xid, id)
);

CREATE TABLE live_wanted (
    until timestamptz NOT NULL DEFAULT '-infinity',
    one   boolean NOT NULL DEFAULT true,
    CONSTRAINT live_wanted_pkey PRIMARY KEY (one),
    CONSTRAINT live_wanted_one CHECK (one)
);
INSERT INTO live_wanted DEFAULT VALUES;

-- +goose Down
DROP TABLE live_wanted, live_clicks;
