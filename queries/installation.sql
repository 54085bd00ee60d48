-- name: GetInstallation :one
-- GetInstallation returns the id of this database's installation. It never changes.
SELECT id::text AS id
FROM installation;
