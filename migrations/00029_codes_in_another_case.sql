-- Finds the links whose code differs from a code in case only (ASCII: the column
-- has the collation C). The index is built while links are read and written. It
-- waits for transactions that began before it, however long they take. When it was
-- broken off, half of an index is left, so a second attempt begins by dropping it.
-- Without figures of the expression the planner would rather read the whole table.

-- +goose NO TRANSACTION
-- +goose Up
SET lock_timeout = 0;
DROP INDEX CONCURRENTLY IF EXISTS urls_short_code_lower_idx;
CREATE INDEX CONCURRENTLY urls_short_code_lower_idx ON urls (lower(short_code));
ANALYZE urls;
RESET lock_timeout;

-- +goose Down
DROP INDEX CONCURRENTLY urls_short_code_lower_idx;
