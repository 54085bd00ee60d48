-- When statistics were last compared with events: one worker does so now and then.

-- +goose Up
ALTER TABLE installation ADD COLUMN statistics_checked_at timestamptz NOT NULL DEFAULT now();

-- +goose Down
ALTER TABLE installation DROP COLUMN statistics_checked_at;
