-- Undoing an import: how far it is, what it kept, and which of an import's rows
-- somebody else has changed since.

-- +goose Up
ALTER TABLE imports
    ADD COLUMN rows_removed bigint NOT NULL DEFAULT 0,
    ADD COLUMN rows_kept bigint NOT NULL DEFAULT 0,
    ADD COLUMN undo_step text,
    ADD COLUMN undo_line bigint NOT NULL DEFAULT 0,
    ADD COLUMN undo_since timestamptz,
    ADD COLUMN undone_at timestamptz,
    DROP CONSTRAINT imports_state_known,
    ADD CONSTRAINT imports_state_known CHECK (state IN
        ('receiving', 'queued', 'running', 'completed', 'failed', 'cancelling', 'cancelled', 'undoing', 'undone')),
    ADD CONSTRAINT imports_undo_step_known CHECK (undo_step IN ('stop', 'switch_off', 'wait', 'remove')),
    ADD CONSTRAINT imports_undo_adds_up CHECK (rows_removed + rows_kept <= rows_imported);

-- Rows that an undo left where they are, and why.
CREATE TABLE import_kept (
    import_id bigint NOT NULL,
    line      bigint NOT NULL,
    row_id    bigint NOT NULL,
    reason    text NOT NULL,
    CONSTRAINT import_kept_pkey PRIMARY KEY (import_id, line),
    CONSTRAINT import_kept_import_id_fkey FOREIGN KEY (import_id) REFERENCES imports (id) ON DELETE CASCADE,
    CONSTRAINT import_kept_reason_known CHECK (reason IN ('changed', 'clicked', 'owns_links'))
);

-- import_touched: somebody changed the row after its import; NULL for no. The
-- import itself, and its undo, say who they are and leave no mark. undo_of: the
-- import whose undo has switched the link off for now.
ALTER TABLE users ADD COLUMN import_touched boolean;
ALTER TABLE urls
    ADD COLUMN import_touched boolean,
    ADD COLUMN undo_of bigint;

-- +goose StatementBegin
CREATE FUNCTION users_before_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.import_id::text IS DISTINCT FROM current_setting('signpost.import_id', true) THEN
        NEW.import_touched := true;
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER users_before_update BEFORE UPDATE ON users
    FOR EACH ROW WHEN (OLD.import_id IS NOT NULL) EXECUTE FUNCTION users_before_update();

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION urls_before_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := nextval('urls_version_seq');
    -- A link that an undo switches off and on again is as it was.
    IF NEW.updated_at = OLD.updated_at AND NEW.undo_of IS NOT DISTINCT FROM OLD.undo_of THEN
        NEW.updated_at := now();
    END IF;
    IF OLD.import_id IS NOT NULL
        AND OLD.import_id::text IS DISTINCT FROM current_setting('signpost.import_id', true)
    THEN
        NEW.import_touched := true;
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION urls_before_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := nextval('urls_version_seq');
    IF NEW.updated_at = OLD.updated_at THEN
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
DROP TRIGGER users_before_update ON users;
DROP FUNCTION users_before_update;
ALTER TABLE urls DROP COLUMN import_touched, DROP COLUMN undo_of;
ALTER TABLE users DROP COLUMN import_touched;
DROP TABLE import_kept;
UPDATE imports SET state = 'cancelled' WHERE state IN ('undoing', 'undone');
ALTER TABLE imports
    DROP COLUMN rows_removed, DROP COLUMN rows_kept, DROP COLUMN undo_step, DROP COLUMN undo_line,
    DROP COLUMN undo_since, DROP COLUMN undone_at,
    DROP CONSTRAINT imports_state_known,
    ADD CONSTRAINT imports_state_known CHECK (state IN
        ('receiving', 'queued', 'running', 'completed', 'failed', 'cancelling', 'cancelled'));
