-- A click says of which kind it is, by which version of the rules, and whether it is its
-- visitor's first of the day. All columns may be NULL: the previous release goes on
-- writing clicks without them, and earlier clicks have none. Without a kind, a click is
-- a bot's if bot is true, and a person's otherwise.

-- +goose Up
ALTER TABLE events
    ADD COLUMN kind text,
    ADD COLUMN rules smallint,
    -- Bit 1: the first click of its visitor for its link on the salt's day. Bit 2: the
    -- first one for all links. NULL: not known.
    ADD COLUMN firsts smallint,
    ADD COLUMN user_agent_id bigint,
    ADD COLUMN trigger text; -- NULL: a link that was followed

-- The User-Agent headers of clicks, so that later rules can be applied to them. An id is
-- the first 8 bytes of the header's SHA-256.
CREATE TABLE user_agents (
    id      bigint NOT NULL,
    agent   text NOT NULL,
    seen_on date NOT NULL,
    CONSTRAINT user_agents_pkey PRIMARY KEY (id)
);
CREATE INDEX user_agents_seen_on_idx ON user_agents (seen_on);

-- +goose Down
DROP TABLE user_agents;
ALTER TABLE events
    DROP COLUMN kind, DROP COLUMN rules, DROP COLUMN firsts, DROP COLUMN user_agent_id, DROP COLUMN trigger;
