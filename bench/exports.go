package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// exports has a million users, links and events written in one request each, as CSV
// and as NDJSON, and measures how much memory that adds to an api that has just
// started. Each answer is counted and has to be whole.
func (b *bench) exports(ctx context.Context) error {
	n := b.scale(1_000_000)
	if err := b.fillLists(ctx, n); err != nil {
		return err
	}
	for _, list := range []string{"users", "urls", "events"} {
		for _, format := range []string{"csv", "ndjson"} {
			if err := b.exportOf(ctx, list, format, n); err != nil {
				return fmt.Errorf("%s as %s: %w", list, format, err)
			}
		}
	}
	return b.sql(ctx, emptyLists)
}

const emptyLists = "TRUNCATE users, urls, events, click_days, link_changes CASCADE"

// fillLists makes n users, as many links with clicks, and as many events, in
// the month that always has a partition.
func (b *bench) fillLists(ctx context.Context, n int) error {
	return b.sql(ctx, fmt.Sprintf(emptyLists+`;
		INSERT INTO users (id, username, email)
			SELECT n, 'user' || n, 'user' || n || '@example.org' FROM generate_series(1, %[1]d) n;
		INSERT INTO urls (id, user_id, short_code, original_url, title, tags)
			SELECT n, n, 'code' || n, 'https://example.org/articles/' || n || '?utm_source=export', 'Article ' || n, '{sale,spring}'
			FROM generate_series(1, %[1]d) n;
		INSERT INTO click_days (url_id, day, clicks, bots) SELECT n, current_date, n, 0 FROM generate_series(1, %[1]d) n;
		INSERT INTO events (occurred_at, url_id, user_id, event_type, bot, country, browser, os, device, referrer_host)
			SELECT date_trunc('month', now()) + n * interval '1 millisecond', n, n, 'clicked', false, 'DE', 'Firefox', 'Linux', 'desktop', 'example.com'
			FROM generate_series(1, %[1]d) n;
		VACUUM ANALYZE users; VACUUM ANALYZE urls; VACUUM ANALYZE click_days; VACUUM ANALYZE events; CHECKPOINT`, n))
}

func (b *bench) exportOf(ctx context.Context, list, format string, n int) error {
	api, err := b.launch("signpost", b.environ("ADMIN_TOKEN="+benchToken), "api")
	if err != nil {
		return err
	}
	defer api.Stop()
	peaks, err := watchPeaks(api)
	if err != nil {
		return err
	}
	start := time.Now()
	size, lines, err := download(ctx, "http://"+api.Addr+"/"+list+"?format="+format)
	took := time.Since(start)
	memory := peaks()[0]
	if err != nil {
		return err
	}
	if format == "csv" {
		lines-- // the header
	}
	if lines != n {
		return fmt.Errorf("%d rows came of %d", lines, n)
	}
	b.limit(fmt.Sprintf("%d %s exported as %s, %d MB in %s (%.0f rows/s), API memory gained (MiB; %.1f before, %.1f at most)",
		n, list, format, size/1_000_000, took.Round(100*time.Millisecond), float64(n)/took.Seconds(),
		float64(memory.before)/(1<<20), float64(memory.most)/(1<<20)), memory.gain(), 32)
	return nil
}

// download reads an answer to its end and counts its lines.
func download(ctx context.Context, url string) (size int64, lines int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("Authorization", "Bearer "+benchToken)
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	if resp.StatusCode != http.StatusOK {
		return 0, 0, errors.New(resp.Status)
	}
	piece := make([]byte, 1<<20)
	for {
		n, err := resp.Body.Read(piece)
		size += int64(n)
		lines += bytes.Count(piece[:n], []byte("\n"))
		if errors.Is(err, io.EOF) {
			return size, lines, nil
		}
		if err != nil {
			return 0, 0, err // an export that breaks off is one
		}
	}
}
