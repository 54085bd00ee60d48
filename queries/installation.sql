-- name: GetInstallation :one
-- Which installation this database is. It never changes.
SELECT id::text AS id
FROM installation;
