-- name: InsertLiveClicks :copyfrom
INSERT INTO live_clicks (occurred_at, url_id, kind, country, referrer_host, device, trigger, more)
VALUES (@occurred_at, @url_id, @kind, @country, @referrer_host, @device, @trigger, @more);

-- name: WantLive :one
-- WantLive has workers write live clicks for a while, and returns a snapshot: clicks
-- that are not visible in it are new.
UPDATE live_wanted
SET until = GREATEST(until, now() + @lease::interval)
RETURNING pg_current_snapshot()::text AS at;

-- name: PruneLiveClicks :execrows
DELETE FROM live_clicks
WHERE written_at < now() - @older_than::interval;

-- name: PollLive :many
-- PollLive returns the clicks that are not visible in the snapshot @since, newest first,
-- together with a new snapshot and the number of clicks, of which there may be more than
-- it returns. With @till it returns those only that are visible in that snapshot. If
-- there is no click, it returns one row whose url_id is 0.
--
-- Not visible are the xids that were under way then, and those from its end on. Each of
-- the two is a range of the index: a transaction that goes on for long, because of which
-- all xids since its start might be looked through, costs nothing.
--
-- A click may have an xid that this server has not given yet, for example from the dump
-- of another. Such a click is not returned, or it would be new for ever.
SELECT pg_current_snapshot()::text AS at, COALESCE(c.total, 0)::bigint AS total, COALESCE(c.url_id, 0)::bigint AS url_id,
    COALESCE(c.occurred_at, now())::timestamptz AS occurred_at, COALESCE(c.kind, '')::text AS kind,
    c.country, c.referrer_host, c.device, COALESCE(c.trigger, 'link')::text AS trigger, COALESCE(c.more, 0)::integer AS more, u.short_code, d.host AS host
FROM (SELECT 1) one
LEFT JOIN LATERAL (
    SELECT l.xid, l.id, l.occurred_at, l.url_id, l.kind, l.country, l.referrer_host, l.device, l.trigger, l.more, sum(1 + l.more) OVER () AS total
    FROM (
        SELECT * FROM live_clicks WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip((@since::text)::pg_snapshot)))
        UNION ALL
        SELECT * FROM live_clicks
        WHERE xid >= pg_snapshot_xmax((@since::text)::pg_snapshot) AND xid < pg_snapshot_xmax(pg_current_snapshot())
    ) l
    WHERE COALESCE(pg_visible_in_snapshot(l.xid, NULLIF(@till::text, '')::pg_snapshot), true)
        AND (@url_id::bigint = 0 OR l.url_id = @url_id)
    ORDER BY l.xid DESC, l.id DESC
    LIMIT @row_limit
) c ON true
LEFT JOIN urls u ON u.id = c.url_id
LEFT JOIN domains d ON d.id = u.domain_id
ORDER BY c.xid DESC, c.id DESC;
