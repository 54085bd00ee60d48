package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/drive"
	"github.com/signpost/signpost/internal/rollup"
)

// finding is a line of the account.
type finding struct {
	what   string
	value  any
	broken bool // the promise
}

// report prints the findings and the kills. It is an error that a promise was broken.
func (h *harness) report(findings []finding) error {
	for _, name := range slices.Sorted(maps.Keys(h.killed)) {
		findings = append(findings, finding{name, h.killed[name], false})
	}
	odd := h.odd.all()
	findings = append(findings, finding{"ends that nobody asked for", odd, len(odd) > 0})
	var broken []string
	fmt.Println()
	for _, f := range findings {
		mark := ""
		if f.broken {
			mark = "BROKEN"
			broken = append(broken, fmt.Sprintf("%s: %v", f.what, f.value))
		}
		fmt.Printf("%-38s %v %s\n", f.what, f.value, mark)
	}
	if len(broken) > 0 {
		return errors.New("the promise is broken: " + strings.Join(broken, "; "))
	}
	return nil
}

// compare compares what the clients know with the events.
func (h *harness) compare(ctx context.Context) (t drive.Tally, unknown int, err error) {
	err = drive.With(ctx, h, func(ctx context.Context, conn *pgx.Conn) error {
		var phases map[int]drive.Tally
		phases, unknown, err = h.clicks.Compare(ctx, conn)
		t = phases[0] // there is only one
		return err
	})
	return t, unknown, err
}

// account compares what the clients know with the database, and prints it.
func (h *harness) account(ctx context.Context, took time.Duration) error {
	t, unknown, err := h.compare(ctx)
	if err != nil {
		return err
	}
	left, err := leftInSpool(h.spool())
	if err != nil {
		return fmt.Errorf("look at what is left in the spools: %w", err)
	}
	conn, err := h.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	rollups, err := rollup.Check(ctx, conn)
	if err != nil {
		return err
	}
	var stuck, rejected, batches int
	var again float64
	err = conn.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM river_job WHERE state IN ('discarded', 'running', 'retryable') AND kind = 'record_clicks'),
			(SELECT count(*) FROM click_rejects), (SELECT count(*) FROM click_batches), (`+longestWait+`)`).
		Scan(&stuck, &rejected, &batches, &again)
	if err != nil {
		return err
	}
	// A click that a process dropped and counted was answered, and is not in events.
	dropped := int(h.drops.Total())
	missing := max(0, t.Missing-dropped)
	statuses, gap := h.clicks.Saw()
	err = h.report([]finding{
		{"attempted", t.Attempted, false},
		{"answered (302)", t.Answered, t.Answered == 0},
		{"in events", t.Counted, t.Counted+dropped < t.Answered},
		{"of these by bots", t.Bots, t.Bots == 0},
		{"reported as dropped", dropped, dropped > 0 && !h.allowDrops},
		{"missing", missing, missing > 0},
		{"counted twice", t.Doubled, t.Doubled > 0},
		{"in events, never attempted", unknown, unknown > 0},
		{"bots taken for people or reverse", t.Mistaken, t.Mistaken > 0},
		{"rollup rows that differ", rollups.Differ, rollups.Differ > 0},
		{"stuck jobs", stuck, stuck > 0},
		{"rejected clicks", rejected, rejected > 0},
		{"files left in spools", left, len(left) > 0},
		{"batches", batches, false},
		{"segments shipped again", h.again.Load(), false},
		{"clients saw", statuses, statuses["500"]+statuses["404"] > 0},
		{"longest gap in service", gap.Round(time.Millisecond), false},
		{"seconds until a job ran again, at most", again, again > longestAgain.Seconds()},
		{"changes of a link", h.fresh.changes, false},
		{"longest that an old answer was given", h.fresh.stale.Round(time.Millisecond), h.fresh.stale > longestStale},
		{"took", took.Round(time.Second), false},
	})
	if err != nil {
		return err
	}
	fmt.Println("\nevery answered click was counted exactly once or reported as dropped")
	return nil
}

// leftInSpool lists the files that hold clicks, or might, and were not shipped.
// Shipped segments are in kept and gone, and caches of links are no clicks.
func leftInSpool(dir string) (left []string, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && strings.HasPrefix(e.Name(), "cache-"):
			return fs.SkipDir
		case e.IsDir() || e.Name() == "lock":
			return nil
		}
		folder := filepath.Base(filepath.Dir(path))
		if filepath.Ext(path) != ".seg" || folder != "kept" && folder != "gone" {
			left = append(left, path)
		}
		return nil
	})
	return left, err
}

// longestAgain is several times the promised two minutes.
const longestAgain = 5 * time.Minute

// longestWait tells how many seconds it took at most until a click job whose run ended
// without success ran again. A run that ended leaves an error with the time when that
// was found out. It began after the one before was found out, or after its batch
// arrived: the wait is counted from there, which is too long rather than too short. The
// last run began at attempted_at.
const longestWait = `
WITH waits AS (
	SELECT CASE WHEN n = cardinality(errors) THEN attempted_at ELSE found END -
		COALESCE(lag(found) OVER (PARTITION BY b.id ORDER BY n), received_at) AS wait
	FROM river_job j JOIN click_batches b ON b.job_id = j.id, unnest(j.errors) WITH ORDINALITY AS e (error, n),
		LATERAL (SELECT (e.error ->> 'at')::timestamptz) AS at (found)
	WHERE j.kind = 'record_clicks'
)
SELECT COALESCE(extract(epoch FROM max(wait)), 0)::float8 FROM waits`
