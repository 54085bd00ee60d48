-- A code is unique within its domain. The index is built while links are read and
-- written, and then takes over the name of the one it stands for: the release before
-- knows the constraint by it, and looks links up by the code, with which the index
-- begins. When the migration was broken off, half of an index is left, so a second
-- attempt begins by dropping it.
--
-- Almost all links are of the main domain, so the index by domain leaves those out.

-- +goose NO TRANSACTION
-- +goose Up
SET lock_timeout = 0;
DROP INDEX CONCURRENTLY IF EXISTS urls_short_code_domain_id_idx;
DROP INDEX CONCURRENTLY IF EXISTS urls_domain_id_idx;
CREATE UNIQUE INDEX CONCURRENTLY urls_short_code_domain_id_idx ON urls (short_code, domain_id);
CREATE INDEX CONCURRENTLY urls_domain_id_idx ON urls (domain_id, id) WHERE domain_id <> 1;
RESET lock_timeout;
ALTER TABLE urls
    DROP CONSTRAINT urls_short_code_key,
    ADD CONSTRAINT urls_short_code_key UNIQUE USING INDEX urls_short_code_domain_id_idx;

-- +goose Down
DROP INDEX CONCURRENTLY urls_domain_id_idx;
DROP INDEX CONCURRENTLY IF EXISTS urls_short_code_idx;
CREATE UNIQUE INDEX CONCURRENTLY urls_short_code_idx ON urls (short_code);
ALTER TABLE urls
    DROP CONSTRAINT urls_short_code_key,
    ADD CONSTRAINT urls_short_code_key UNIQUE USING INDEX urls_short_code_idx;
