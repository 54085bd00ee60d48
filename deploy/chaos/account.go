package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// spoolsEmpty waits until every replica has shipped all its clicks.
func (l *load) spoolsEmpty(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		last := l.unshipped(ctx)
		if last == nil {
			return nil
		}
		if pause(ctx, 500*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("the spools did not become empty: %w", last)
		}
	}
}

func (l *load) unshipped(ctx context.Context) error {
	ids, err := l.sys.containers(ctx, "api")
	if err != nil {
		return err
	}
	for _, id := range ids {
		for _, name := range []string{"signpost_spool_segments", "signpost_spool_bytes"} {
			n, err := l.sys.metric(ctx, id, name)
			if err != nil {
				return err
			}
			if n > 0 {
				return fmt.Errorf("%s of %.12s is %v", name, id, n)
			}
		}
	}
	return nil
}

// settle waits until nothing is under way any more.
func (l *load) settle(ctx context.Context, patience time.Duration) error {
	if err := l.spoolsEmpty(ctx, patience); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		left, err := l.sys.query(ctx, `
			SELECT (SELECT count(*) FROM click_batches WHERE ingested_at IS NULL)
				+ (SELECT count(*) FROM river_job WHERE kind = 'record_clicks' AND state NOT IN ('completed', 'cancelled', 'discarded'))`)
		if err == nil && left == "0" {
			return nil
		}
		if pause(ctx, 500*time.Millisecond); ctx.Err() != nil {
			return errors.Join(fmt.Errorf("%s batches and jobs are left", left), err)
		}
	}
}

// count returns how often each marker is among the events.
func (l *load) count(ctx context.Context) (map[string]int, error) {
	rows, err := l.sys.query(ctx, fmt.Sprintf(`
		SELECT referrer_host, count(*) FROM events
		WHERE event_type = 'clicked' AND occurred_at > to_timestamp(%d) AND referrer_host LIKE '%%.%s.example.org'
		GROUP BY 1`, l.began.Add(-time.Minute).Unix(), l.run))
	if err != nil {
		return nil, err
	}
	counted := map[string]int{}
	for line := range strings.Lines(rows) {
		host, n, _ := strings.Cut(strings.TrimSpace(line), "|")
		if counted[host], err = strconv.Atoi(n); err != nil {
			return nil, err
		}
	}
	return counted, nil
}

// rollups are what the rollups say about this run's links.
type rollups struct{ quarters, days, events, differ int }

func (r rollups) String() string {
	return fmt.Sprintf("rollups: %d clicks in the quarters of an hour, %d in the days, %d in the events; %d rows differ",
		r.quarters, r.days, r.events, r.differ)
}

// rollups compares the rollups of this run's links with their events, row by row.
func (l *load) rollups(ctx context.Context) (r rollups, err error) {
	row, err := l.sys.query(ctx, fmt.Sprintf(`
		WITH mine AS (
			SELECT id AS url_id FROM urls WHERE user_id = (SELECT id FROM users WHERE username = 'chaos-%s')
		), raw AS (
			SELECT url_id, date_bin('15 minutes', occurred_at, 'epoch') AS bucket, count(*) AS clicks
			FROM events JOIN mine USING (url_id) WHERE event_type = 'clicked' AND occurred_at > to_timestamp(%d) GROUP BY 1, 2
		), raw_days AS (
			SELECT url_id, (bucket AT TIME ZONE 'UTC')::date AS day, sum(clicks) AS clicks FROM raw GROUP BY 1, 2
		), quarters AS (SELECT q.* FROM click_quarters q JOIN mine USING (url_id)
		), days AS (SELECT d.* FROM click_days d JOIN mine USING (url_id))
		SELECT (SELECT coalesce(sum(clicks), 0) FROM quarters), (SELECT coalesce(sum(clicks), 0) FROM days), (SELECT coalesce(sum(clicks), 0) FROM raw),
			(SELECT count(*) FROM raw FULL JOIN quarters q USING (url_id, bucket) WHERE raw.clicks IS DISTINCT FROM q.clicks)
			+ (SELECT count(*) FROM raw_days FULL JOIN days d USING (url_id, day) WHERE raw_days.clicks IS DISTINCT FROM d.clicks)`,
		l.run, l.began.Add(-time.Minute).Unix()))
	if err != nil {
		return r, err
	}
	if _, err := fmt.Sscanf(row, "%d|%d|%d|%d", &r.quarters, &r.days, &r.events, &r.differ); err != nil {
		return r, fmt.Errorf("read the rollups in %q: %w", row, err)
	}
	return r, nil
}

// tally is the account of one phase.
type tally struct{ attempted, answered, counted, missing, doubled int }

// report prints the table and returns what was broken.
func (l *load) report(counted map[string]int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	tallies := make([]tally, len(l.phases))
	for marker, a := range l.attempts {
		t, n := &tallies[a.phase], counted[l.host(marker)]
		delete(counted, l.host(marker))
		t.attempted++
		t.counted += n
		if a.answered {
			t.answered++
			if n == 0 {
				t.missing++
			}
		}
		if n > 1 {
			t.doubled++
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	row := func(cells ...any) { _, _ = fmt.Fprintln(w, strings.Join(texts(cells), "\t")) }
	fmt.Println()
	row("fault", "lasted", "first redirect", "whole again", "failed", "new links", "of them 503", "malformed", "attempted", "answered", "counted", "dropped")
	var broken []string
	for i, p := range l.phases {
		t := tallies[i]
		row(p.name, blank(p.lasted), blank(p.first), blank(p.whole), outcomes(p.failed), p.uncached, p.refused, p.malformed,
			t.attempted, t.answered, t.counted, p.dropped)
		broken = append(broken, p.faults(t)...)
	}
	_ = w.Flush()
	for _, line := range l.left {
		fmt.Println("left out: " + line)
	}
	if len(counted) > 0 {
		broken = append(broken, fmt.Sprintf("%d events that nobody attempted", len(counted)))
	}
	return broken
}

// faults lists the promises that a phase broke.
func (p *phase) faults(t tally) []string {
	var broken []string
	fault := func(is bool, format string, args ...any) {
		if is {
			broken = append(broken, p.name+": "+fmt.Sprintf(format, args...))
		}
	}
	fault(p.first > recovery, "no redirect within %s after it: %s", recovery, short(p.first))
	fault(p.whole > recovery, "not whole within %s after it: %s", recovery, short(p.whole))
	for _, what := range slices.Sorted(maps.Keys(p.wrong)) {
		fault(true, "%s (%d times)", what, p.wrong[what])
	}
	fault(t.doubled > 0, "%d clicks were counted twice", t.doubled)
	drops := p.drops || starved
	fault(!drops && p.dropped > 0, "%v clicks were dropped, with room on the disk", p.dropped)
	fault(!drops && t.missing > 0, "%d answered clicks are missing", t.missing)
	fault(drops && float64(t.missing) > p.dropped, "%d answered clicks are missing, and %v were reported as dropped", t.missing, p.dropped)
	fault(t.counted > t.attempted, "%d clicks were counted of %d attempts", t.counted, t.attempted)
	fault(t.attempted > 0 && t.answered == 0, "nothing was answered")
	return broken
}

func texts(cells []any) []string {
	var list []string
	for _, c := range cells {
		list = append(list, fmt.Sprint(c))
	}
	return list
}

// blank shows a duration; none where there is nothing to measure.
func blank(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return short(d)
}

func outcomes(failed map[string]int) string {
	if len(failed) == 0 {
		return "0"
	}
	var list []string
	for _, what := range slices.Sorted(maps.Keys(failed)) {
		list = append(list, fmt.Sprintf("%d × %s", failed[what], what))
	}
	return strings.Join(list, ", ")
}

// cleanUp removes the links; their clicks stay, as with every deleted link.
func (l *load) cleanUp(ctx context.Context) error {
	_, err := l.sys.query(ctx, fmt.Sprintf(`
		DELETE FROM urls WHERE user_id = (SELECT id FROM users WHERE username = 'chaos-%[1]s');
		DELETE FROM users WHERE username = 'chaos-%[1]s'`, l.run))
	return err
}
