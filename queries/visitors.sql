-- name: FindVisitors :many
-- FindVisitors returns the places of rows of a day that are there. Each is looked up by its
-- key: the planner knows nothing of today's visitors.
SELECT v.place::int AS place
FROM (SELECT unnest(@places::int[]) AS place, unnest(@url_ids::bigint[]) AS url_id, unnest(@visitors::bigint[]) AS visitor) v
CROSS JOIN LATERAL (
    SELECT FROM visitors w
    WHERE w.day = @day AND w.visitor = v.visitor AND w.url_id = v.url_id
    OFFSET 0
) k;

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
