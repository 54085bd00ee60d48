-- Every link has a domain. Links are read and written meanwhile.

-- +goose Up
ALTER TABLE urls VALIDATE CONSTRAINT urls_domain_id_fkey;

-- +goose Down
SELECT 1;
