package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/drive"
)

// settle waits until nothing is under way any more: spools shipped, batches
// ingested, no click job left.
func (h *harness) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.patience)
	defer cancel()
	var last string
	for {
		if last = h.underWay(ctx); last == "" {
			return nil
		}
		if pause(ctx, 500*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("the pipeline did not become empty: %s", last)
		}
	}
}

func (h *harness) underWay(ctx context.Context) string {
	for _, p := range h.procs[:2] {
		n, err := drive.Metric(ctx, p.admin, "signpost_spool_segments")
		if err != nil {
			return err.Error()
		}
		bytes, err := drive.Metric(ctx, p.admin, "signpost_spool_bytes")
		if err != nil {
			return err.Error()
		}
		if n > 0 || bytes > 0 {
			return fmt.Sprintf("%s has %v segments, %v bytes to ship", p.name, n, bytes)
		}
	}
	conn, err := pgx.Connect(ctx, h.url)
	if err != nil {
		return err.Error()
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	var batches, jobs int
	err = conn.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM click_batches WHERE ingested_at IS NULL),
			(SELECT count(*) FROM river_job WHERE kind = 'record_clicks' AND state NOT IN ('completed', 'cancelled', 'discarded'))`).Scan(&batches, &jobs)
	switch {
	case err != nil:
		return err.Error()
	case batches > 0 || jobs > 0:
		return fmt.Sprintf("%d batches and %d jobs", batches, jobs)
	}
	return ""
}

// account compares what the clients know with what the database says.
func (h *harness) account(ctx context.Context, took time.Duration) error {
	conn, err := pgx.Connect(ctx, h.url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it

	counted := map[string]int{}
	rows, err := conn.Query(ctx, `SELECT referrer_host, count(*) FROM events WHERE event_type = 'clicked' GROUP BY 1`)
	if err != nil {
		return err
	}
	var host string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&host, &n}, func() error { counted[host] = n; return nil }); err != nil {
		return err
	}
	lost, doubled, events, answered := 0, 0, 0, 0
	for marker, ok := range h.ledger.answered {
		n := counted[markerHost(marker)]
		delete(counted, markerHost(marker))
		events += n
		if ok {
			answered++
		}
		if ok && n == 0 {
			lost++
		}
		if n > 1 {
			doubled++
		}
	}
	// A click that a process dropped and counted was answered, and is not in
	// events unless the disk came back in time.
	dropped, late, reasons, err := h.drops.sum()
	if err != nil {
		return fmt.Errorf("read what was dropped: %w", err)
	}
	missing := max(0, lost-dropped)
	var wrong, stuck, rejected, batches int
	if err := conn.QueryRow(ctx, rollupsDiffer).Scan(&wrong); err != nil {
		return fmt.Errorf("compare rollups: %w", err)
	}
	err = conn.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM river_job WHERE state IN ('discarded', 'running', 'retryable') AND kind = 'record_clicks'),
			(SELECT count(*) FROM click_rejects), (SELECT count(*) FROM click_batches)`).Scan(&stuck, &rejected, &batches)
	if err != nil {
		return err
	}

	fmt.Printf("\n%-34s %d\n%-34s %d\n%-34s %d\n", "attempted", len(h.ledger.answered), "answered (302)", answered, "in events", events)
	fmt.Printf(strings.Repeat("%-34s %d\n", 6), "answered, not in events", lost, "reported as dropped", dropped, "of these kept late", late, "missing", missing, "counted twice", doubled, "in events, never attempted", len(counted))
	fmt.Printf("%-34s %d\n%-34s %d\n%-34s %d\n%-34s %d\n", "rollup rows that differ", wrong, "stuck jobs", stuck, "rejected clicks", rejected, "batches", batches)
	if reasons != "" {
		fmt.Printf("%-34s %s\n", "dropped for", reasons)
	}
	for _, what := range slices.Sorted(maps.Keys(h.killed)) {
		fmt.Printf("%-34s %d\n", what, h.killed[what])
	}
	for _, status := range slices.Sorted(maps.Keys(h.ledger.statuses)) {
		fmt.Printf("%-34s %d\n", "clients saw: "+status, h.ledger.statuses[status])
	}
	fmt.Printf("%-34s %s\n%-34s %s\n", "longest gap in service", h.ledger.gap.Round(time.Millisecond), "took", took.Round(time.Second))

	var broken []string
	for what, is := range map[string]bool{
		"an answered click is missing": missing > 0, "a click was counted twice": doubled > 0,
		"an event was never attempted": len(counted) > 0, "rollups differ from the events": wrong > 0,
		"jobs are stuck": stuck > 0, "clicks were rejected": rejected > 0, "nothing was answered": answered == 0,
		"fewer events and drops than answers":                      events+dropped < answered,
		"clicks were dropped on a healthy disk (-drops allows it)": dropped > 0 && !h.allowDrops, "a client got an error": h.ledger.statuses["500"]+h.ledger.statuses["404"] > 0,
	} {
		if is {
			broken = append(broken, what)
		}
	}
	if len(broken) > 0 {
		return errors.New("the promise is broken: " + strings.Join(broken, "; "))
	}
	if dropped > 0 {
		fmt.Println("\nevery answered click was counted exactly once or reported as dropped")
		return nil
	}
	fmt.Println("\nevery answered click was counted exactly once")
	return nil
}

// rollupsDiffer counts the rollup rows that disagree with the raw events, and
// the events that have no rollup row.
const rollupsDiffer = `
WITH raw AS (
	SELECT url_id, date_bin('15 minutes', occurred_at, 'epoch') AS bucket, count(*) AS clicks, count(*) FILTER (WHERE bot) AS bots
	FROM events WHERE event_type = 'clicked' GROUP BY 1, 2
), days AS (
	SELECT url_id, (bucket AT TIME ZONE 'UTC')::date AS day, sum(clicks) AS clicks, sum(bots) AS bots FROM raw GROUP BY 1, 2
)
SELECT (SELECT count(*) FROM raw FULL JOIN click_quarters q USING (url_id, bucket)
		WHERE raw.clicks IS DISTINCT FROM q.clicks OR raw.bots IS DISTINCT FROM q.bots)
	+ (SELECT count(*) FROM days FULL JOIN click_days d USING (url_id, day)
		WHERE days.clicks IS DISTINCT FROM d.clicks OR days.bots IS DISTINCT FROM d.bots)`
