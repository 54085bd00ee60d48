-- Chunks of an import are applied in file order, by one job at a time. What only the
-- release before needs goes with a later migration: import_contended, import_deferred,
-- imports.planned_to, import_chunks.keys and import_chunks.job_id.

-- +goose Up
COMMENT ON TABLE import_contended IS 'Unused; kept for workers of the release before.';
COMMENT ON TABLE import_deferred IS 'Rows that workers of the release before set aside; applied last.';
COMMENT ON COLUMN imports.planned_to IS 'Unused; kept for workers of the release before.';
COMMENT ON COLUMN import_chunks.keys IS 'Unused; kept for workers of the release before.';
COMMENT ON COLUMN import_chunks.job_id IS 'Unused; kept for workers of the release before.';

-- +goose Down
COMMENT ON TABLE import_contended IS NULL;
COMMENT ON TABLE import_deferred IS NULL;
COMMENT ON COLUMN imports.planned_to IS NULL;
COMMENT ON COLUMN import_chunks.keys IS NULL;
COMMENT ON COLUMN import_chunks.job_id IS NULL;
