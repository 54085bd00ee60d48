-- The totals of links, by which lists are sorted, were last brought up to date at this
-- time. A sorted list says so.

-- +goose Up
ALTER TABLE installation ADD COLUMN totals_at timestamptz NOT NULL DEFAULT 'epoch';

-- +goose Down
ALTER TABLE installation DROP COLUMN totals_at;
