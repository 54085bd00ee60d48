-- The details of an event of a user without what is personal: the name and the
-- e-mail address, also as what they were before and after a change. Which fields
-- changed, when and by which token stays.

-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION forget_user(details jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT (details - 'username' - 'email') || CASE WHEN jsonb_typeof(details -> 'changes') = 'object' THEN
        jsonb_build_object('changes', (
            SELECT COALESCE(jsonb_object_agg(c.key, CASE
                WHEN c.key IN ('username', 'email') THEN '{"old": null, "new": null}'::jsonb ELSE c.value
            END), '{}')
            FROM jsonb_each(details -> 'changes') c
        ))
        ELSE '{}'
    END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION forget_user;
