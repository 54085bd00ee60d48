-- Why rows of an import were rejected, grouped and counted as they are, and what
-- is to be known of rows that were imported. Imports that ended before this
-- migration have no groups.

-- +goose Up
-- Why a row was rejected, in a word; NULL from the release before.
ALTER TABLE import_errors ADD COLUMN kind text;

-- A notice says something of a row that was imported. The columns are those of
-- import_errors, so that both are counted by the same trigger.
CREATE TABLE import_notices (
    import_id bigint NOT NULL,
    line      bigint NOT NULL,
    field     text NOT NULL,
    kind      text NOT NULL,
    reason    text NOT NULL,
    CONSTRAINT import_notices_pkey PRIMARY KEY (import_id, line),
    CONSTRAINT import_notices_import_id_fkey FOREIGN KEY (import_id) REFERENCES imports (id) ON DELETE CASCADE
);

-- One row for each outcome, column, kind and shape of reason. line is that of the
-- first row, and reason is its.
CREATE TABLE import_problems (
    import_id bigint NOT NULL,
    outcome   text NOT NULL,
    field     text NOT NULL,
    kind      text NOT NULL,
    shape     text NOT NULL,
    rows      bigint NOT NULL,
    line      bigint NOT NULL,
    reason    text NOT NULL,
    CONSTRAINT import_problems_pkey PRIMARY KEY (import_id, outcome, field, kind, shape),
    CONSTRAINT import_problems_import_id_fkey FOREIGN KEY (import_id) REFERENCES imports (id) ON DELETE CASCADE,
    CONSTRAINT import_problems_outcome_known CHECK (outcome IN ('rejected', 'imported'))
);

-- The beginning of a reason, before what differs from row to row: a quoted word, a
-- number, a URL or path, the name of a host.
CREATE FUNCTION import_reason_shape(reason text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT left(substring(reason FROM '^[^0-9/."]*'), 200)
$$;

-- Counts rows that were added, with the outcome TG_ARGV[0]. All that one statement
-- adds is of one import. A chunk calls this once for its rejected rows and then
-- once for its notices, and the groups are locked in the order of their key, so
-- that chunks of one import wait for one another but never in a circle.
--
-- A file whose every row has a reason of its own must not make a group of each:
-- past the hundredth, new ones are counted together under the kind 'other'.
-- Chunks that run at once may each add that many.
-- +goose StatementBegin
CREATE FUNCTION import_problems_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO import_problems AS p (import_id, outcome, field, kind, shape, rows, line, reason)
    WITH said AS (
        SELECT import_id, field, COALESCE(kind, 'other') AS kind, reason, count(*) AS rows, min(line) AS line
        FROM added
        GROUP BY 1, 2, 3, 4
    ), shaped AS (
        SELECT import_id, left(field, 200) AS field, kind, rows, line, reason, import_reason_shape(reason) AS shape
        FROM said
    ), grouped AS (
        SELECT import_id, field, kind, shape, sum(rows) AS rows, min(line) AS line,
            (array_agg(reason ORDER BY line))[1] AS reason
        FROM shaped
        GROUP BY 1, 2, 3, 4
    ), there AS (
        SELECT q.field, q.kind, q.shape
        FROM import_problems q
        WHERE q.import_id = (SELECT import_id FROM grouped LIMIT 1) AND q.outcome = TG_ARGV[0]
    ), ranked AS (
        SELECT g.*, t.kind IS NOT NULL OR (SELECT count(*) FROM there)
            + row_number() OVER (PARTITION BY t.kind IS NOT NULL ORDER BY g.rows DESC, g.line, g.field) <= 100 AS apart
        FROM grouped g
        LEFT JOIN there t USING (field, kind, shape)
    ), bounded AS (
        SELECT import_id, CASE WHEN apart THEN field ELSE '' END AS field, CASE WHEN apart THEN kind ELSE 'other' END AS kind,
            CASE WHEN apart THEN shape ELSE '' END AS shape, rows, line, CASE WHEN apart THEN reason ELSE 'other reasons' END AS reason
        FROM ranked
    )
    SELECT import_id, TG_ARGV[0], field, kind, shape, sum(rows), min(line), (array_agg(reason ORDER BY line))[1]
    FROM bounded
    GROUP BY 1, 2, 3, 4, 5
    ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT ON CONSTRAINT import_problems_pkey DO UPDATE SET
        rows = p.rows + EXCLUDED.rows,
        line = LEAST(p.line, EXCLUDED.line),
        reason = CASE WHEN EXCLUDED.line < p.line THEN EXCLUDED.reason ELSE p.reason END;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER import_errors_count AFTER INSERT ON import_errors
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION import_problems_count('rejected');
CREATE TRIGGER import_notices_count AFTER INSERT ON import_notices
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION import_problems_count('imported');

-- Those that go on, or may be taken up again, have all.
INSERT INTO import_problems (import_id, outcome, field, kind, shape, rows, line, reason)
SELECT e.import_id, 'rejected', left(e.field, 200), 'other', import_reason_shape(e.reason), count(*), min(e.line),
    (array_agg(e.reason ORDER BY e.line))[1]
FROM import_errors e
JOIN imports i ON i.id = e.import_id
WHERE i.finished_at IS NULL OR i.state = 'failed'
GROUP BY 1, 3, 5;

-- +goose Down
DROP TRIGGER import_errors_count ON import_errors;
DROP TABLE import_problems, import_notices;
DROP FUNCTION import_problems_count, import_reason_shape;
ALTER TABLE import_errors DROP COLUMN kind;
