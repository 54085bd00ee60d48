-- After they were written anew, indexes of statistics are read without their tables only
-- once these were vacuumed, which nothing else would do for months that have ended.

-- +goose NO TRANSACTION
-- +goose Up
VACUUM (ANALYZE) rollups;

-- +goose Down
SELECT 1;
