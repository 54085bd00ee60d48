-- Policies: how an import treats rows that are there already, what became of such
-- rows, and imports that only try.

-- +goose Up
ALTER TABLE imports
    ADD COLUMN on_conflict text NOT NULL DEFAULT 'reject',
    ADD COLUMN dry_run boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT imports_on_conflict_known CHECK (on_conflict IN ('reject', 'skip', 'update'));

-- Rows of a file that met a row which was there: nothing was done, or that row
-- was updated. row_id is that row, NULL if a dry run would have made it; before
-- holds the values that an update replaced, by column.
CREATE TABLE import_outcomes (
    import_id bigint NOT NULL,
    line      bigint NOT NULL,
    outcome   text NOT NULL,
    row_id    bigint,
    before    jsonb,
    CONSTRAINT import_outcomes_pkey PRIMARY KEY (import_id, line),
    CONSTRAINT import_outcomes_import_id_fkey FOREIGN KEY (import_id) REFERENCES imports (id) ON DELETE CASCADE,
    CONSTRAINT import_outcomes_outcome_known CHECK (outcome IN ('updated', 'skipped')),
    CONSTRAINT import_outcomes_before_of_updated CHECK (before IS NULL OR outcome = 'updated')
);

-- The holders that keys would have by now, while a dry run goes through the rows that claim
-- keys together. holder is the id of a row, minus the line of one that the run
-- would have made, or NULL for a key that would be free again. Emptied at the end.
CREATE TABLE import_trial (
    import_id bigint NOT NULL,
    field     text NOT NULL,
    key       text NOT NULL,
    holder    bigint,
    CONSTRAINT import_trial_pkey PRIMARY KEY (import_id, field, key),
    CONSTRAINT import_trial_import_id_fkey FOREIGN KEY (import_id) REFERENCES imports (id) ON DELETE CASCADE
);
CREATE INDEX import_trial_holder_idx ON import_trial (import_id, holder);

-- +goose Down
DROP TABLE import_trial, import_outcomes;
ALTER TABLE imports DROP COLUMN on_conflict, DROP COLUMN dry_run;
