-- The visitors of a day, so that each is counted once: at the first click for a link
-- (url_id), and at the first one for all links (url_id 0). Both rows of a new visitor are
-- on the same page of the key. The partition of a day is
-- dropped together with the salt of that day.

-- +goose Up
CREATE TABLE visitors (
    day     date NOT NULL,
    url_id  bigint NOT NULL,
    visitor bigint NOT NULL,
    CONSTRAINT visitors_pkey PRIMARY KEY (day, visitor, url_id)
) PARTITION BY RANGE (day);

-- +goose Down
DROP TABLE visitors;
