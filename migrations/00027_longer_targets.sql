-- Targets may have 8,192 bytes. The releases before write shorter ones and read
-- any. Each row keeps the wider rule that kept the narrower one, so none is read
-- for it.

-- +goose Up
ALTER TABLE urls
    DROP CONSTRAINT urls_original_url_length,
    ADD CONSTRAINT urls_original_url_length CHECK (octet_length(original_url) <= 8192) NOT VALID;

-- +goose Down
ALTER TABLE urls
    DROP CONSTRAINT urls_original_url_length,
    ADD CONSTRAINT urls_original_url_length CHECK (octet_length(original_url) <= 2048) NOT VALID;
