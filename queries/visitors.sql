-- name: ClaimVisitors :many
-- ClaimVisitors returns the rows that were not there yet. It waits for other
-- transactions that insert the same.
INSERT INTO visitors (day, url_id, visitor)
SELECT v.day, v.url_id, v.visitor
FROM (SELECT unnest(@days::date[]) AS day, unnest(@url_ids::bigint[]) AS url_id, unnest(@visitors::bigint[]) AS visitor) v
ORDER BY v.day, v.visitor, v.url_id
ON CONFLICT ON CONSTRAINT visitors_pkey DO NOTHING
RETURNING day, url_id, visitor;

-- name: ListSaltDays :many
SELECT day
FROM visitor_salts;
