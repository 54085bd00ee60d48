-- Counts the tags of the links that were there before the triggers. The statement sees
-- links and changes at one moment: a link is in both or in neither, so links may be
-- written meanwhile, and a second attempt adds nothing.

-- +goose Up
INSERT INTO tag_changes (name, links)
SELECT c.name, sum(c.links)
FROM (
    SELECT t.name, count(*) AS links FROM urls u, unnest(u.tags) AS t (name) GROUP BY t.name
    UNION ALL
    SELECT name, -links FROM tag_changes
    UNION ALL
    SELECT name, -links FROM tags
) c
GROUP BY c.name
HAVING sum(c.links) <> 0;

-- +goose Down
SELECT 1;
