-- Tags: how many links have each, its color, and which are being moved to another.

-- +goose Up
-- The number of links of a tag is the one here and the changes that are still to be added
-- to it. Whoever writes links adds only a change, so that nobody waits for the row of a
-- tag that many links have.
CREATE TABLE tags (
    name  text COLLATE "C" NOT NULL,
    links bigint NOT NULL DEFAULT 0,
    color text NOT NULL DEFAULT '',
    CONSTRAINT tags_pkey PRIMARY KEY (name),
    CONSTRAINT tags_color_known CHECK (color IN ('', 'red', 'orange', 'yellow', 'green', 'teal', 'blue', 'purple', 'pink'))
);
CREATE INDEX tags_empty_idx ON tags (name) WHERE links = 0 AND color = '';

CREATE TABLE tag_changes (
    id    bigint GENERATED ALWAYS AS IDENTITY,
    name  text COLLATE "C" NOT NULL,
    links bigint NOT NULL,
    CONSTRAINT tag_changes_pkey PRIMARY KEY (id)
);
CREATE INDEX tag_changes_name_idx ON tag_changes (name);

-- A tag that is being taken off its links, for another or, if target is empty, for none.
-- Links up to at_id have been looked at.
CREATE TABLE tag_moves (
    name       text COLLATE "C" NOT NULL,
    target     text COLLATE "C" NOT NULL,
    actor      jsonb NOT NULL,
    at_id      bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tag_moves_pkey PRIMARY KEY (name)
);

-- +goose StatementBegin
CREATE FUNCTION urls_count_tags() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO tag_changes (name, links)
        SELECT t.name, count(*) FROM new_rows n, unnest(n.tags) AS t (name) GROUP BY t.name;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO tag_changes (name, links)
        SELECT t.name, -count(*) FROM old_rows o, unnest(o.tags) AS t (name) GROUP BY t.name;
    ELSE
        INSERT INTO tag_changes (name, links)
        SELECT t.name, sum(t.links)
        FROM old_rows o
        JOIN new_rows n USING (id)
        CROSS JOIN LATERAL (
            SELECT unnest(o.tags) AS name, -1 AS links
            UNION ALL
            SELECT unnest(n.tags), 1
        ) t
        WHERE o.tags <> n.tags
        GROUP BY t.name
        HAVING sum(t.links) <> 0;
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER urls_count_tags_inserted AFTER INSERT ON urls
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION urls_count_tags();
CREATE TRIGGER urls_count_tags_updated AFTER UPDATE ON urls
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION urls_count_tags();
CREATE TRIGGER urls_count_tags_deleted AFTER DELETE ON urls
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION urls_count_tags();

-- +goose Down
DROP TRIGGER urls_count_tags_inserted ON urls;
DROP TRIGGER urls_count_tags_updated ON urls;
DROP TRIGGER urls_count_tags_deleted ON urls;
DROP FUNCTION urls_count_tags;
DROP TABLE tag_moves, tag_changes, tags;
