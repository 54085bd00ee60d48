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

// compare compares what the clients know with the events.
func (h *harness) compare(ctx context.Context) (phases map[int]drive.Tally, unknown int, err error) {
	err = drive.With(ctx, h, func(ctx context.Context, conn *pgx.Conn) error {
		phases, unknown, err = h.clicks.Compare(ctx, conn)
		return err
	})
	return phases, unknown, err
}

// account compares what the clients know with the database, and prints it.
func (h *harness) account(ctx context.Context, took time.Duration) error {
	conn, err := h.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	phases, unknown, err := h.clicks.Compare(ctx, conn)
	if err != nil {
		return err
	}
	t := phases[0] // there is only one
	// A click that a process dropped and counted was answered, and is not in
	// events.
	dropped, late, reasons, err := h.drops.sum()
	if err != nil {
		return fmt.Errorf("read what was dropped: %w", err)
	}
	missing := max(0, t.Missing-dropped)
	left, err := leftInSpool(h.spool())
	if err != nil {
		return fmt.Errorf("look at what is left in the spools: %w", err)
	}
	odd, slowest := h.ends.all()
	rollups, err := rollup.Check(ctx, conn)
	if err != nil {
		return err
	}
	var stuck, rejected, batches, removed int
	err = conn.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM river_job WHERE state IN ('discarded', 'running', 'retryable') AND kind = 'record_clicks'),
			(SELECT count(*) FROM click_rejects), (SELECT count(*) FROM click_batches),
			(SELECT count(*) FROM click_batches b JOIN spool_folders f ON f.folder = left(b.id, 32) AND b.id < f.gone_below)`).
		Scan(&stuck, &rejected, &batches, &removed)
	if err != nil {
		return err
	}
	var interrupted int
	var again, shipped float64 // seconds
	if err := conn.QueryRow(ctx, longestWaits).Scan(&interrupted, &again, &shipped); err != nil {
		return fmt.Errorf("read how long jobs waited: %w", err)
	}

	fmt.Println()
	line("attempted", t.Attempted)
	line("answered (302)", t.Answered)
	line("in events", t.Counted)
	line("of these by bots", t.Bots)
	line("answered, not in events", t.Missing)
	line("reported as dropped", dropped)
	line("kept later than it was answered", late)
	line("missing", missing)
	line("counted twice", t.Doubled)
	line("in events, never attempted", unknown)
	line("bots taken for people or reverse", t.Mistaken)
	line("rollup rows that differ", rollups.Differ)
	line("stuck jobs", stuck)
	line("rejected clicks", rejected)
	line("files left in spools", len(left))
	line("batches", batches)
	line("of these removed from the spool", removed)
	line("segments shipped again", h.again.Load())
	if reasons != "" {
		line("dropped for", reasons)
	}
	for _, name := range slices.Sorted(maps.Keys(h.killed)) {
		line(name, h.killed[name])
	}
	line("ends that nobody asked for", len(odd))
	for _, name := range append(odd, left...) {
		fmt.Println("    " + name)
	}
	statuses, gap := h.clicks.Saw()
	for _, status := range slices.Sorted(maps.Keys(statuses)) {
		line("clients saw: "+status, statuses[status])
	}
	line("longest gap in service", gap.Round(time.Millisecond))
	line("runs of jobs cut short", interrupted)
	line("longest until a job ran again", seconds(again).Round(time.Millisecond))
	line("longest from shipped to counted", seconds(shipped).Round(time.Millisecond))
	line("slowest end after SIGTERM", slowest.Round(time.Millisecond))
	line("changes of a link", h.fresh.changes)
	line("longest that an old answer was given", h.fresh.stale.Round(time.Millisecond))
	line("most anonymous memory of an api", fmt.Sprintf("%.1f MiB", float64(max(h.apis[0].memory, h.apis[1].memory))/(1<<20)))
	line("took", took.Round(time.Second))

	var broken []string
	for what, is := range map[string]bool{
		"an answered click is missing": missing > 0, "a click was counted twice": t.Doubled > 0,
		"an event was never attempted": unknown > 0, "rollups differ from the events": rollups.Differ > 0,
		"jobs are stuck": stuck > 0, "clicks were rejected": rejected > 0, "nothing was answered": t.Answered == 0,
		"fewer events and drops than answers":                      t.Counted+dropped < t.Answered,
		"clicks were dropped on a healthy disk (-drops allows it)": dropped > 0 && !h.allowDrops, "a client got an error": statuses["500"]+statuses["404"] > 0,
		"files are left in the spools": len(left) > 0, "a process ended as nobody asked it to": len(odd) > 0,
		"a bot was taken for a person or the reverse": t.Mistaken > 0 || t.Bots == 0,
		"a job ran again too late":                    seconds(again) > longestAgain,
		"an old answer was given too long":            h.fresh.stale > longestStale,
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

// line prints one line of the account.
func line(what string, value any) { fmt.Printf("%-38s %v\n", what, value) }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

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

// longestWaits tells how many runs of click jobs ended without success, how long
// it took at most until one of them ran again, and how long a batch took at most
// from its arrival until it was counted. A run that ended leaves an error with
// the time when that was found out. It began after the one before was found out,
// or after its batch arrived: the wait is counted from there, which is too long
// rather than too short. The last run began at attempted_at.
const longestWaits = `
WITH ends AS (
	SELECT b.id, b.received_at, j.attempted_at, (e.error ->> 'at')::timestamptz AS found, e.n, cardinality(j.errors) AS errors
	FROM river_job j JOIN click_batches b ON b.job_id = j.id, unnest(j.errors) WITH ORDINALITY AS e (error, n)
	WHERE j.kind = 'record_clicks'
), waits AS (
	SELECT CASE WHEN n = errors THEN attempted_at ELSE found END - COALESCE(lag(found) OVER (PARTITION BY id ORDER BY n), received_at) AS wait
	FROM ends
)
SELECT (SELECT count(*) FROM ends), (SELECT COALESCE(extract(epoch FROM max(wait)), 0)::float8 FROM waits),
	(SELECT COALESCE(extract(epoch FROM max(ingested_at - received_at)), 0)::float8 FROM click_batches)`
