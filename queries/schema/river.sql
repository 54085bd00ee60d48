-- The part of River's own schema that our queries read, so that sqlc knows its
-- types. River's migrations make the real tables; nothing applies this file.
CREATE TYPE river_job_state AS ENUM (
    'available', 'cancelled', 'completed', 'discarded', 'pending', 'retryable', 'running', 'scheduled'
);

CREATE TABLE river_job (
    id           bigint PRIMARY KEY,
    state        river_job_state NOT NULL,
    kind         text NOT NULL,
    queue        text NOT NULL,
    args         jsonb NOT NULL,
    attempt      smallint NOT NULL,
    created_at   timestamptz NOT NULL,
    scheduled_at timestamptz NOT NULL,
    finalized_at timestamptz
);

CREATE TABLE river_queue (
    name      text PRIMARY KEY,
    paused_at timestamptz
);
