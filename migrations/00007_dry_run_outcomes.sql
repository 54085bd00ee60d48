-- A dry run makes no rows by which its imported lines could be found, so their
-- outcome is noted like that of the others.

-- +goose Up
ALTER TABLE import_outcomes
    DROP CONSTRAINT import_outcomes_outcome_known,
    ADD CONSTRAINT import_outcomes_outcome_known CHECK (outcome IN ('imported', 'updated', 'skipped'));

-- +goose Down
DELETE FROM import_outcomes WHERE outcome = 'imported';
ALTER TABLE import_outcomes
    DROP CONSTRAINT import_outcomes_outcome_known,
    ADD CONSTRAINT import_outcomes_outcome_known CHECK (outcome IN ('updated', 'skipped'));
