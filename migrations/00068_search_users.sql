-- Finds users by a part of their name or address. One index of both takes half the room of
-- two, and half the time of an import; neither has the line end that is between them. The
-- index is built while users are read and written. It waits for transactions that began
-- before it, however long they take. When it was broken off, half of an index is left, so a
-- second attempt begins by dropping it.

-- +goose NO TRANSACTION
-- +goose Up
SET lock_timeout = 0;
DROP INDEX CONCURRENTLY IF EXISTS users_search_idx;
CREATE INDEX CONCURRENTLY users_search_idx ON users USING gin ((username || E'\n' || email) gin_trgm_ops);
ANALYZE users;
RESET lock_timeout;

-- +goose Down
DROP INDEX CONCURRENTLY users_search_idx;
