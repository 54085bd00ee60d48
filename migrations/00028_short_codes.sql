-- Codes of other shorteners: several segments, letters of any script, emoji. The
-- rules are those of the program; the schema keeps out what would break addresses
-- and logs. Codes under the old rule are under this one too, so they need not be
-- looked at, which would lock the table meanwhile.

-- +goose Up
ALTER TABLE urls
    DROP CONSTRAINT urls_short_code_format,
    ADD CONSTRAINT urls_short_code_format CHECK (
        octet_length(short_code) BETWEEN 1 AND 255 AND short_code !~ '[[:cntrl:][:space:]]'
    ) NOT VALID;

-- +goose Down
ALTER TABLE urls
    DROP CONSTRAINT urls_short_code_format,
    ADD CONSTRAINT urls_short_code_format CHECK (short_code ~ '^[A-Za-z0-9_-]{1,64}$') NOT VALID;
