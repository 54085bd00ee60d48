-- Each change of a link says which transaction wrote it. A reader that remembers
-- which transactions had ended at its last look finds by that exactly what became
-- visible since, in whatever order ids were drawn. A row that was there before has
-- the id of this migration. Triggers need not know: the default is for all who
-- write, also those of the release before.

-- +goose Up
ALTER TABLE link_changes ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX link_changes_xid_idx ON link_changes (xid, id);

-- +goose Down
DROP INDEX link_changes_xid_idx;
ALTER TABLE link_changes DROP COLUMN xid;
