-- The part of the server's own views that our queries read, so that sqlc knows
-- its types. Nothing applies this file.
CREATE TABLE pg_stat_activity (
    datname      name,
    backend_type text,
    xact_start   timestamptz
);

CREATE TABLE pg_stat_database (
    datname       name,
    xact_commit   bigint,
    xact_rollback bigint,
    deadlocks     bigint,
    blks_hit      bigint,
    blks_read     bigint
);

CREATE TABLE pg_class (
    oid            oid,
    relname        name,
    relnamespace   oid,
    relkind        "char",
    relispartition boolean
);
