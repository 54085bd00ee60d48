-- Short links of several host names. A link's key is its domain and its code. Domain
-- 1 is the main one: its host is that of PUBLIC_URL, and every link that says
-- nothing else belongs to it, also those that the release before writes. That
-- release knows codes alone, so no domain should get links before it has gone.

-- +goose Up
CREATE TABLE domains (
    id            bigint GENERATED ALWAYS AS IDENTITY (START 2),
    host          text COLLATE "C",
    root_url      text,
    not_found_url text,
    expired_url   text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT domains_pkey PRIMARY KEY (id),
    CONSTRAINT domains_host_key UNIQUE (host),
    CONSTRAINT domains_main_has_no_host CHECK ((id = 1) = (host IS NULL)),
    CONSTRAINT domains_host_format CHECK (octet_length(host) BETWEEN 1 AND 253 AND host !~ '[^a-z0-9.-]'),
    CONSTRAINT domains_root_url_format CHECK (root_url ~* '^https?://[^/]'),
    CONSTRAINT domains_root_url_length CHECK (octet_length(root_url) <= 8192),
    CONSTRAINT domains_not_found_url_format CHECK (not_found_url ~* '^https?://[^/]'),
    CONSTRAINT domains_not_found_url_length CHECK (octet_length(not_found_url) <= 8192),
    CONSTRAINT domains_expired_url_format CHECK (expired_url ~* '^https?://[^/]'),
    CONSTRAINT domains_expired_url_length CHECK (octet_length(expired_url) <= 8192)
);
INSERT INTO domains (id) OVERRIDING SYSTEM VALUE VALUES (1);

-- Every replica keeps all domains in memory and reads them again when this number
-- has moved. The row's lock lets one change after the other commit, so that no
-- reader sees the number without the change.
CREATE TABLE domain_version (
    version bigint NOT NULL,
    one     boolean NOT NULL DEFAULT true,
    CONSTRAINT domain_version_pkey PRIMARY KEY (one),
    CONSTRAINT domain_version_one CHECK (one)
);
INSERT INTO domain_version (version) VALUES (1);

-- +goose StatementBegin
CREATE FUNCTION domains_count_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE domain_version SET version = version + 1;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER domains_count_change AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON domains
    FOR EACH STATEMENT EXECUTE FUNCTION domains_count_change();

-- The constraint is checked for new rows from here on, and for those that are there
-- by a later migration, which locks out nobody.
ALTER TABLE urls
    ADD COLUMN domain_id bigint NOT NULL DEFAULT 1,
    ADD CONSTRAINT urls_domain_id_fkey FOREIGN KEY (domain_id) REFERENCES domains (id) NOT VALID;
ALTER TABLE link_changes ADD COLUMN domain_id bigint NOT NULL DEFAULT 1;

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION urls_log_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO link_changes (domain_id, short_code, version)
    SELECT domain_id, short_code, version FROM new_rows;
    -- A link that got another key is gone under its old one.
    INSERT INTO link_changes (domain_id, short_code, version)
    SELECT o.domain_id, o.short_code, n.version
    FROM old_rows o
    JOIN new_rows n USING (id)
    WHERE o.short_code <> n.short_code OR o.domain_id <> n.domain_id;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION urls_log_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO link_changes (domain_id, short_code, version)
    SELECT domain_id, short_code, nextval('urls_version_seq') FROM old_rows;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION urls_log_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO link_changes (short_code, version)
    SELECT short_code, version FROM new_rows;
    -- A link that got another code is gone under its old one.
    INSERT INTO link_changes (short_code, version)
    SELECT o.short_code, n.version
    FROM old_rows o
    JOIN new_rows n USING (id)
    WHERE o.short_code <> n.short_code;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION urls_log_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO link_changes (short_code, version)
    SELECT short_code, nextval('urls_version_seq') FROM old_rows;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
ALTER TABLE link_changes DROP COLUMN domain_id;
ALTER TABLE urls DROP COLUMN domain_id;
DROP TABLE domain_version, domains;
DROP FUNCTION domains_count_change;
