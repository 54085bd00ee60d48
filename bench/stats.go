package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/internal/drive"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/queries"
)

// statistics fills a database with a year of clicks and measures what statistics cost
// there: how long answers of the API take, beside plain SQL over the events; how large
// the statistics are; and how fast a worker ingests into it. A fifth of the clicks is on
// one link, and there is a fifth as many links as clicks. The goals are those of
// 10,000,000 clicks: of fewer, most days of links have one click only.
func (b *bench) statistics(ctx context.Context) error {
	s := &statsBench{bench: b, clicks: b.clicks, links: b.clicks / 5}
	defer s.leave(b.url, b.db)
	if err := s.enter(ctx, "statistics"); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"links", s.fillLinks}, {"clicks", s.fillClicks}, {"statistics of them", s.fillStatistics}, {"answers", s.answers}, {"size", s.size}, {"pages", s.pages}, {"ingestion", s.ingestion},
	} {
		start := time.Now()
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(os.Stderr, "bench:   %s took %s\n", step.name, time.Since(start).Round(time.Second))
	}
	return nil
}

// makeSearchIndexes makes the indexes that fillLinks drops.
const makeSearchIndexes = `
CREATE INDEX urls_title_idx ON urls USING gin (title gin_trgm_ops);
CREATE INDEX urls_original_url_idx ON urls USING gin (original_url gin_trgm_ops)`

type statsBench struct {
	*bench
	clicks, links int
	from, to      time.Time // of the clicks
}

// enter goes on with a new database.
func (s *statsBench) enter(ctx context.Context, name string) (err error) {
	if s.url, err = s.Database(ctx, name); err != nil {
		return err
	}
	s.db, err = pgxpool.New(ctx, s.url)
	return err
}

// leave goes back to another database.
func (s *statsBench) leave(url string, db *pgxpool.Pool) {
	if s.db != nil && s.db != db {
		s.db.Close()
	}
	s.url, s.db = url, db
}

// fillLinks makes links of 1,000 users. Indexes for searching are made when they are needed,
// since filling them link by link takes longer than everything else.
func (s *statsBench) fillLinks(ctx context.Context) error {
	return s.sql(ctx, fmt.Sprintf(`
		DROP INDEX urls_title_idx, urls_original_url_idx;
		INSERT INTO users (username, email) SELECT 'user' || n, 'user' || n || '@example.org' FROM generate_series(1, 1000) n;
		INSERT INTO urls (user_id, short_code, original_url, tags)
		SELECT 1 + n %% 1000, 'link' || n, 'https://example.org/a/page/' || n, CASE WHEN n %% 10 = 0 THEN ARRAY['tag' || n %% 200] ELSE '{}' END
		FROM generate_series(1, %d) n;
		VACUUM ANALYZE urls`, s.links))
}

// addClicks makes the clicks of a stretch of time, in the order of time as they would
// have come. The links other than the first follow a law of Zipf, and so do countries,
// referrers and browsers. Every person is another visitor.
const addClicks = `
INSERT INTO events (occurred_at, url_id, user_id, visitor, bot, event_type, country, browser, os, device, referrer_host, kind, rules, firsts)
SELECT at, url, 1 + url % 1000, CASE WHEN person THEN (v * 9e18)::bigint END, NOT person, 'clicked',
    chr(65 + c / 26) || chr(65 + c % 26), 'Browser ' || floor(power(12, b))::int, 'System ' || floor(power(8, o))::int,
    CASE WHEN NOT person THEN 'bot' WHEN v < 0.6 THEN 'mobile' WHEN v < 0.95 THEN 'desktop' ELSE 'tablet' END,
    CASE WHEN r > 0.3 THEN 'site' || floor(power(500, (r - 0.3) / 0.7))::int || '.example' END,
    CASE WHEN person THEN 'person' WHEN v < 0.5 THEN 'bot' WHEN v < 0.8 THEN 'preview' ELSE 'tool' END, 1,
    CASE WHEN person THEN 3 ELSE 0 END
FROM (
    SELECT $1::timestamptz + random() * ($2::timestamptz - $1::timestamptz) AS at,
        CASE WHEN random() < 0.2 THEN 1 ELSE 2 + floor(power($4::float8 - 2, random()))::bigint % ($4::bigint - 1) END AS url,
        random() < 0.8 AS person, floor(power(61, random()))::int - 1 AS c, random() AS b, random() AS o, random() AS r, random() AS v
    FROM generate_series(1, $3::int)
    ORDER BY 1
) click`

func (s *statsBench) fillClicks(ctx context.Context) error {
	s.to = time.Now().UTC().Truncate(time.Hour).Add(-2 * time.Hour)
	s.from = s.to.AddDate(-1, 0, 1)
	var months []time.Time
	for month := postgres.MonthOf(s.from); month.Before(s.to); month = month.AddDate(0, 1, 0) {
		months = append(months, month)
	}
	if err := postgres.EnsurePartitions(ctx, s.db, months); err != nil {
		return err
	}
	const pieces = 50
	long := s.to.Sub(s.from) / pieces
	for i := range pieces {
		from := s.from.Add(time.Duration(i) * long)
		if _, err := s.db.Exec(ctx, addClicks, from, from.Add(long), s.clicks/pieces, s.links); err != nil {
			return err
		}
	}
	return s.sql(ctx, "VACUUM ANALYZE events")
}

// fillStatistics leaves a digest of each day and merges it, as workers do.
func (s *statsBench) fillStatistics(ctx context.Context) error {
	for day := s.from.Truncate(24 * time.Hour); day.Before(s.to); day = day.AddDate(0, 0, 1) {
		if err := s.digestDay(ctx, day); err != nil {
			return err
		}
		if err := rollup.Fold(ctx, s.db); err != nil {
			return err
		}
	}
	if err := rollup.AddUpTotals(ctx, s.db); err != nil { // a worker would do so later, while it is measured
		return err
	}
	return s.sql(ctx, "VACUUM ANALYZE rollups; VACUUM ANALYZE link_totals; CHECKPOINT")
}

const clicksOfDay = `
SELECT url_id, user_id, occurred_at, kind, country, COALESCE(referrer_host, ''), browser, os, device, firsts
FROM events WHERE occurred_at >= $1 AND occurred_at < $2`

func (s *statsBench) digestDay(ctx context.Context, day time.Time) error {
	rows, err := s.db.Query(ctx, clicksOfDay, day, day.AddDate(0, 0, 1))
	if err != nil {
		return err
	}
	var clicks rollup.Changes
	var e rollup.Event
	var firsts int16
	fields := []any{&e.URLID, &e.UserID, &e.At, &e.Kind, &e.Country, &e.Referrer, &e.Browser, &e.System, &e.Device, &firsts}
	_, err = pgx.ForEachRow(rows, fields, func() error {
		e.First, e.FirstOfAll = firsts != 0, firsts != 0
		clicks.Add(e)
		return nil
	})
	if err != nil {
		return err
	}
	return clicks.Apply(ctx, queries.New(s.db))
}

const (
	year       = "range=12mo&interval=day"
	breakdowns = "&breakdowns=kinds,countries,referrers,browsers,systems,devices,triggers"
)

func (s *statsBench) answers(ctx context.Context) error {
	api, err := s.launch(s.environ("ADMIN_TOKEN="+benchToken), "api")
	if err != nil {
		return err
	}
	defer api.Stop()
	client := drive.Client{Addr: api.Addr, Token: benchToken}
	hundredth, err := s.linkWith(ctx, s.clicks/500)
	if err != nil {
		return err
	}
	ordinary, err := s.linkWith(ctx, 100)
	if err != nil {
		return err
	}
	link := func(id int64) string { return fmt.Sprintf("/urls/%d/stats?%s%s", id, year, breakdowns) }
	hot, err := s.answer(ctx, client, fmt.Sprintf("a link with %d clicks, 12 months, series and all breakdowns", s.clicks/5), link(1), s.plain(1), 50, 100)
	if err != nil {
		return err
	}
	few, err := s.answer(ctx, client, fmt.Sprintf("a link with %d clicks, the same", s.clicks/500), link(hundredth), s.plain(hundredth), 50, 100)
	if err != nil {
		return err
	}
	s.ratio("the same at 100 times fewer clicks: p50 (ms)", ms(hot), ms(few), "%.1f", 1.5)
	for _, q := range []struct {
		what, path string
		sql        []string
		p50, p95   float64
	}{
		{"a link with 100 clicks, the same", link(ordinary), s.plain(ordinary), 5, 0},
		{"all links, 12 months, series", "/stats?" + year, s.plain(0)[:1], 100, 0},
		{"all links, 12 months, series and all breakdowns", "/stats?" + year + breakdowns, s.plain(0), 100, 0},
		{"top 100 links of 30 days", "/stats/links?range=30d&limit=100", []string{
			"SELECT url_id, count(*) FROM events WHERE event_type = 'clicked' AND occurred_at >= now() - interval '30 days' GROUP BY 1 ORDER BY 2 DESC LIMIT 100",
		}, 100, 0},
	} {
		if _, err := s.answer(ctx, client, q.what, q.path, q.sql, q.p50, q.p95); err != nil {
			return err
		}
	}
	return nil
}

// linkWith returns the link whose number of clicks is closest to n.
func (s *statsBench) linkWith(ctx context.Context, n int) (int64, error) {
	return s.value(ctx, `SELECT scope FROM (SELECT scope, sum(clicks) AS clicks FROM rollups WHERE scope > 0 GROUP BY 1) r ORDER BY abs(clicks - $1), scope LIMIT 1`, n)
}

// plain is the SQL for the series and each breakdown of a link, or of all (0).
func (s *statsBench) plain(link int64) (all []string) {
	where := " FROM events WHERE event_type = 'clicked' AND occurred_at >= now() - interval '12 months'"
	if link != 0 {
		where += fmt.Sprintf(" AND url_id = %d", link)
	}
	for _, value := range []string{
		"date_trunc('day', occurred_at, 'Europe/Berlin')", "kind", "country", "referrer_host", "browser", "os", "device", "trigger",
	} {
		all = append(all, "SELECT "+value+", count(*), count(*) FILTER (WHERE NOT bot)"+where+" GROUP BY 1")
	}
	return all
}

// zones are asked for in turns.
var zones = []string{"Europe/Berlin", "UTC", "America/Santiago", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"}

// answer measures requests, and the plain SQL beside them. It returns the median.
func (s *statsBench) answer(ctx context.Context, client drive.Client, what, path string, plain []string, p50, p95 float64) (time.Duration, error) {
	var took []time.Duration
	for i := range 60 {
		start := time.Now()
		status, text, err := client.Send(ctx, http.MethodGet, path+"&tz="+zones[i%len(zones)], "", nil)
		if i >= len(zones) { // before that, caches are cold
			took = append(took, time.Since(start))
		}
		if err == nil && (status != http.StatusOK || !bytes.Contains(text, []byte(`"source":"statistics"`))) {
			err = fmt.Errorf("%d %.200s", status, text)
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", what, err)
		}
	}
	theirs, err := s.plainly(ctx, plain)
	if err != nil {
		return 0, err
	}
	slices.Sort(took)
	median, most := took[len(took)/2], took[len(took)*95/100]
	l := row{
		what: what + " (p50, p95, ms)", ours: fmt.Sprintf("%.1f, %.1f", ms(median), ms(most)), theirs: fmt.Sprintf("%.0f", ms(theirs)),
		ratio: fmt.Sprintf("%.3f", ms(median)/ms(theirs)), goal: fmt.Sprintf("p50 <= %.0f", p50), ok: ms(median) <= p50,
	}
	if p95 > 0 {
		l.goal, l.ok = fmt.Sprintf("%s, p95 <= %.0f", l.goal, p95), l.ok && ms(most) <= p95
	}
	s.add(l)
	return median, nil
}

// plainly runs statements and returns how long all of them took: the median of three
// times.
func (s *statsBench) plainly(ctx context.Context, statements []string) (time.Duration, error) {
	var times []time.Duration
	for range 3 {
		start := time.Now()
		for _, statement := range statements {
			rows, err := s.db.Query(ctx, statement)
			if err != nil {
				return 0, err
			}
			for rows.Next() { // as an API would
				if _, err := rows.Values(); err != nil {
					return 0, err
				}
			}
			if rows.Err() != nil {
				return 0, rows.Err()
			}
		}
		times = append(times, time.Since(start))
	}
	return drive.Median(times), nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// bytesOf is the size of tables by name and of their partitions, with indexes.
const bytesOf = `
SELECT COALESCE(sum(pg_total_relation_size(c.oid)), 0)::bigint
FROM pg_catalog.pg_class c
LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
WHERE COALESCE(i.inhparent, c.oid) = ANY($1::text[]::regclass[]) AND c.relkind = 'r'`

func (s *statsBench) size(ctx context.Context) error {
	statistics, err := s.value(ctx, bytesOf, []string{"rollups", "rollup_scopes"})
	if err != nil {
		return err
	}
	events, err := s.value(ctx, bytesOf, []string{"events"})
	if err != nil {
		return err
	}
	n := float64(s.clicks)
	s.ratio("bytes of statistics per click, all scopes, against those of its event", float64(statistics)/n, float64(events)/n, "%.0f", 0.5)
	return nil
}

// ingestion compares a worker that ingests into the filled database with COPY of the
// same rows there: with popular links, and with a long tail, which is also compared
// with an empty database.
func (s *statsBench) ingestion(ctx context.Context) error {
	n := min(1_000_000, s.clicks/10) // so many that the last second, in which they are merged, is no matter
	filled, filledDB := s.url, s.db
	rate, err := s.ingestOf(ctx, "popular links", n, popular(), 0.5, 2)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "bench:   popular links: %.0f clicks/s\n", rate)
	tail, err := s.ingestOf(ctx, "long tail", n, s.tail(), 0, 3)
	if err != nil {
		return err
	}
	s.url, s.db = "", nil
	defer s.leave(filled, filledDB)
	if err := s.enter(ctx, "empty"); err != nil {
		return err
	}
	if err := s.sql(ctx, "INSERT INTO users (username, email) VALUES ('user', 'user@example.org')"); err != nil {
		return err
	}
	empty, _, err := s.ingestInto(ctx, n, s.tail())
	if err != nil {
		return err
	}
	s.ratio("long tail: clicks ingested per second, against an empty database", tail, empty, "%.0f", -0.7)
	return nil
}

// tail picks one of 100,000 links, or of all if there are fewer, that are spread over
// all.
func (s *statsBench) tail() func(*rand.Rand) int64 {
	of := min(100_000, s.links)
	return func(r *rand.Rand) int64 { return 1 + int64(r.IntN(of)*(s.links/of)) }
}

// ingestOf ships clicks to a worker and copies the same rows. A goal of 0 is none.
func (s *statsBench) ingestOf(ctx context.Context, what string, n int, link func(*rand.Rand) int64, least, wal float64) (rate float64, err error) {
	rate, walBytes, err := s.ingestInto(ctx, n, link)
	if err != nil {
		return 0, err
	}
	copied, copiedWAL, err := s.copyAgain(ctx, n)
	if err != nil {
		return 0, err
	}
	if least > 0 {
		s.ratio(what+": clicks ingested and merged per second into the filled database, against COPY", rate, copied, "%.0f", -least)
	}
	s.ratio(what+": bytes of WAL per click, merging included, against COPY", walBytes, copiedWAL, "%.0f", wal)
	return rate, nil
}

func (s *statsBench) ingestInto(ctx context.Context, n int, link func(*rand.Rand) int64) (rate, walBytes float64, err error) {
	spool, err := os.MkdirTemp(s.Dir, "ingest-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(spool) //nolint:errcheck // the folder goes anyway
	if err := fillSpool(ctx, spool, n, link); err != nil {
		return 0, 0, err
	}
	if err := s.sql(ctx, "TRUNCATE click_batches; CHECKPOINT"); err != nil {
		return 0, 0, err
	}
	w, err := s.launch(s.environ("DB_MAX_CONNS=8"), "worker")
	if err != nil {
		return 0, 0, err
	}
	defer w.Stop()
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	return s.timed(ctx, n, func() error {
		ship := exec.CommandContext(ctx, s.Binary, "spool", "ship", spool)
		ship.Env = append(append(os.Environ(), s.environ()...), "LOG_LEVEL=warn")
		if out, err := ship.CombinedOutput(); err != nil {
			return fmt.Errorf("ship: %w: %s", err, out)
		}
		return untilIngested(ctx, conn, n)
	})
}

// copyAgain copies the latest n events once more, and then removes the copies.
func (s *statsBench) copyAgain(ctx context.Context, n int) (rate, walBytes float64, err error) {
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	var rows bytes.Buffer
	_, err = conn.PgConn().CopyTo(ctx, &rows, fmt.Sprintf("COPY (SELECT %s FROM events WHERE occurred_at > now() - interval '2 hours' ORDER BY id DESC LIMIT %d) TO STDOUT (FORMAT binary)", eventColumns, n))
	if err != nil {
		return 0, 0, err
	}
	last, err := s.value(ctx, "SELECT max(id) FROM events WHERE occurred_at > now() - interval '2 hours'")
	if err != nil {
		return 0, 0, err
	}
	if err := s.sql(ctx, "CHECKPOINT"); err != nil {
		return 0, 0, err
	}
	rate, walBytes, err = s.timed(ctx, n, func() error {
		done, err := conn.PgConn().CopyFrom(ctx, &rows, "COPY events ("+eventColumns+") FROM STDIN (FORMAT binary)")
		if err == nil && done.RowsAffected() != int64(n) {
			err = fmt.Errorf("%d of %d clicks were in the table", done.RowsAffected(), n)
		}
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	_, err = s.db.Exec(ctx, "DELETE FROM events WHERE occurred_at > now() - interval '2 hours' AND id > $1", last)
	return rate, walBytes, err
}
