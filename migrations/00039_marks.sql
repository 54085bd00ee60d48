-- An operator's marks: visits from a network, or with a User-Agent that fits a pattern,
-- are of a kind, whatever the rules say.

-- +goose Up
CREATE TABLE marks (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    network    cidr,
    user_agent text,
    kind       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT marks_pkey PRIMARY KEY (id),
    CONSTRAINT marks_network_key UNIQUE (network),
    CONSTRAINT marks_user_agent_key UNIQUE (user_agent),
    CONSTRAINT marks_of_one_thing CHECK (num_nonnulls(network, user_agent) = 1),
    CONSTRAINT marks_kind_known CHECK (kind IN ('person', 'bot', 'preview', 'monitor', 'tool'))
);

-- +goose Down
DROP TABLE marks;
