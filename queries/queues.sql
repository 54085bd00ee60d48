-- name: QueueDepths :many
-- QueueDepths returns one row for each queue and state of unfinished jobs.
SELECT queue, state::text AS state, count(*) AS jobs,
    GREATEST(COALESCE(EXTRACT(epoch FROM now() - min(scheduled_at)), 0), 0)::float8 AS oldest_seconds
FROM river_job
WHERE state IN ('available', 'pending', 'retryable', 'running', 'scheduled', 'discarded')
GROUP BY queue, state;

-- name: PausedQueues :many
-- PausedQueues returns, for each queue that a worker ever worked on, whether an
-- operator paused it.
SELECT name, (paused_at IS NOT NULL)::boolean AS paused
FROM river_queue;

-- name: ImportStates :many
-- ImportStates counts imports that are under way, and those that ended within the last
-- hour.
SELECT kind, state, (finished_at IS NOT NULL)::boolean AS ended, count(*) AS imports,
    sum(rows_total - rows_imported - rows_updated - rows_skipped - rows_rejected)::bigint AS rows_left
FROM imports
WHERE finished_at IS NULL OR finished_at > now() - interval '1 hour'
GROUP BY kind, state, (finished_at IS NOT NULL);

-- name: ServerFigures :one
SELECT (SELECT count(*) FROM pg_stat_activity a WHERE a.backend_type = 'client backend') AS connections,
    current_setting('max_connections')::bigint AS max_connections,
    COALESCE((
        SELECT EXTRACT(epoch FROM now() - min(a.xact_start))
        FROM pg_stat_activity a
        WHERE a.datname = current_database()), 0)::float8 AS oldest_transaction_seconds,
    d.xact_commit::bigint AS commits,
    d.xact_rollback::bigint AS rollbacks,
    d.deadlocks::bigint AS deadlocks,
    d.blks_hit::bigint AS blocks_hit,
    d.blks_read::bigint AS blocks_read
FROM pg_stat_database d
WHERE d.datname = current_database();

-- name: DatabaseSize :one
SELECT pg_database_size(current_database());

-- name: ListTableSizes :many
-- ListTableSizes returns the largest tables, each with its indexes and partitions.
SELECT COALESCE(pg_partition_root(c.oid), c.oid)::regclass::text AS name, sum(pg_total_relation_size(c.oid))::bigint AS bytes
FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
GROUP BY 1
ORDER BY bytes DESC, name
LIMIT @row_limit;

-- name: ListMonthSizes :many
-- ListMonthSizes returns the months that have partitions, the newest first. The name of a
-- partition ends in its month.
SELECT to_date(right(c.relname, 7), 'YYYY_MM') AS month, sum(pg_total_relation_size(c.oid))::bigint AS bytes
FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relispartition AND c.relname ~ '_[0-9]{4}_[0-9]{2}$'
GROUP BY 1
ORDER BY month DESC
LIMIT @row_limit;

-- name: TableSizes :many
-- TableSizes includes indexes and, for a partitioned table, all its partitions.
SELECT t.name::text AS name,
    (COALESCE(pg_total_relation_size(to_regclass(t.name)), 0)
        + COALESCE((
            SELECT sum(pg_total_relation_size(p.relid))
            FROM pg_partition_tree(to_regclass(t.name)) p
            WHERE p.level > 0), 0))::bigint AS bytes
FROM unnest(@names::text[]) AS t (name);
