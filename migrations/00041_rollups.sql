-- Statistics: a row for each scope and UTC day, by month, so that clicks of today touch
-- few pages however long the history is. A scope is a link (its id), all links (0), or
-- an owner, a domain or a tag (the negative of its id in rollup_scopes).

-- +goose Up
CREATE TABLE rollups (
    scope    bigint NOT NULL,
    day      date NOT NULL,
    clicks   bigint NOT NULL,
    people   bigint NOT NULL,
    visitors bigint NOT NULL,
    last_at  timestamptz, -- the last click; of links only
    scopes   bytea,       -- the other scopes that the clicks of a link count for
    cells    bytea NOT NULL,
    CONSTRAINT rollups_pkey PRIMARY KEY (scope, day)
) PARTITION BY RANGE (day);

CREATE TABLE rollup_scopes (
    id   bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,
    name text NOT NULL,
    CONSTRAINT rollup_scopes_pkey PRIMARY KEY (id),
    CONSTRAINT rollup_scopes_name_key UNIQUE (kind, name),
    CONSTRAINT rollup_scopes_kind_known CHECK (kind IN ('owner', 'domain', 'tag'))
);

-- A transaction that writes or removes clicks leaves a digest of them. One process at a
-- time merges digests into rollups.
CREATE TABLE rollup_digests (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    clicks     integer NOT NULL,
    oldest_at  timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    payload    bytea NOT NULL,
    CONSTRAINT rollup_digests_pkey PRIMARY KEY (id)
);
ALTER TABLE rollup_digests ALTER COLUMN payload SET STORAGE EXTERNAL; -- it is compressed

-- The days of links that have to be counted again from the events. The link 0 stands
-- for everything else about a day. A pair may be in it several times: a transaction that
-- counted on the row of another, which is just being removed, would be forgotten.
CREATE TABLE rollup_recounts (
    id     bigint GENERATED ALWAYS AS IDENTITY,
    day    date NOT NULL,
    url_id bigint NOT NULL,
    CONSTRAINT rollup_recounts_pkey PRIMARY KEY (id)
);
-- The newest days are counted first, and statistics are complete up to the oldest.
CREATE INDEX rollup_recounts_day_idx ON rollup_recounts (day, id);

-- The totals of each link that has clicks, for sorting. They are brought up to date
-- about once a minute, from the changes that merges leave.
CREATE TABLE link_totals (
    url_id          bigint NOT NULL,
    clicks          bigint NOT NULL,
    people          bigint NOT NULL,
    last_clicked_at timestamptz NOT NULL,
    CONSTRAINT link_totals_pkey PRIMARY KEY (url_id)
) WITH (fillfactor = 70);
CREATE INDEX link_totals_clicks_idx ON link_totals (clicks, url_id);
CREATE INDEX link_totals_people_idx ON link_totals (people, url_id);
CREATE INDEX link_totals_last_clicked_at_idx ON link_totals (last_clicked_at, url_id);

CREATE TABLE link_total_changes (
    id       bigint GENERATED ALWAYS AS IDENTITY,
    url_ids  bigint[] NOT NULL,
    clicks   bigint[] NOT NULL,
    people   bigint[] NOT NULL,
    last_ats timestamptz[] NOT NULL,
    CONSTRAINT link_total_changes_pkey PRIMARY KEY (id)
);

-- The previous release counts in click_quarters and click_days. Where it has been in
-- use, both are kept in step for it until the next release.
ALTER TABLE installation ADD COLUMN keeps_quarters boolean NOT NULL DEFAULT false;
UPDATE installation SET keeps_quarters = EXISTS (SELECT FROM users);

-- Clicks that workers of the previous release count beside this one are counted again
-- from the events.
-- +goose StatementBegin
CREATE FUNCTION click_quarters_recount() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('signpost.keeps_quarters', true) = 'on' THEN
        RETURN NULL; -- it is this release, which has counted the clicks
    END IF;
    INSERT INTO rollup_recounts (day, url_id)
    SELECT DISTINCT (r.bucket AT TIME ZONE 'UTC')::date, r.url_id FROM changed_rows r;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER click_quarters_recount_inserted AFTER INSERT ON click_quarters
    REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION click_quarters_recount();
CREATE TRIGGER click_quarters_recount_updated AFTER UPDATE ON click_quarters
    REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION click_quarters_recount();
CREATE TRIGGER click_quarters_recount_deleted AFTER DELETE ON click_quarters
    REFERENCING OLD TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION click_quarters_recount();

-- +goose Down
DROP TRIGGER click_quarters_recount_inserted ON click_quarters;
DROP TRIGGER click_quarters_recount_updated ON click_quarters;
DROP TRIGGER click_quarters_recount_deleted ON click_quarters;
DROP FUNCTION click_quarters_recount;
ALTER TABLE installation DROP COLUMN keeps_quarters;
DROP TABLE link_total_changes, link_totals, rollup_recounts, rollup_digests, rollup_scopes, rollups;
