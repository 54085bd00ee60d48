package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/signpost/signpost/internal/drive"
	"github.com/signpost/signpost/internal/rollup"
)

// account compares the attempts with the database, prints the table of phases, and
// returns the promises that were broken.
func (l *load) account(ctx context.Context) (broken []string, err error) {
	err = drive.With(ctx, l.sys, func(ctx context.Context, conn *pgx.Conn) error {
		tallies, unknown, err := l.clicks.Compare(ctx, conn)
		if err != nil {
			return err
		}
		rollups, err := rollup.Check(ctx, conn)
		if err != nil {
			return err
		}
		broken = l.report(tallies)
		if unknown > 0 {
			broken = append(broken, fmt.Sprintf("%d events that nobody attempted", unknown))
		}
		fmt.Println(rollups)
		if rollups.Differ > 0 {
			broken = append(broken, rollups.String())
		}
		return nil
	})
	return broken, err
}

// report prints the table and returns the promises that were broken.
func (l *load) report(tallies map[int]drive.Tally) (broken []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	row := func(cells ...any) { _, _ = fmt.Fprintln(w, strings.Join(texts(cells), "\t")) }
	fmt.Println()
	row("fault", "lasted", "first redirect", "whole again", "failed", "new links", "of them 503", "malformed", "attempted", "answered", "counted", "dropped")
	for i, p := range l.phases {
		t := tallies[i]
		row(p.name, blank(p.lasted), blank(p.first), blank(p.whole), outcomes(p.failed), p.uncached, p.refused, p.malformed,
			t.Attempted, t.Answered, t.Counted, p.dropped)
		broken = append(broken, p.faults(t)...)
	}
	_ = w.Flush()
	return broken
}

// faults lists the promises that a phase broke.
func (p *phase) faults(t drive.Tally) []string {
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
	fault(t.Mistaken > 0, "%d robots were taken for people, or the reverse", t.Mistaken)
	fault(t.Doubled > 0, "%d clicks were counted twice", t.Doubled)
	drops := p.drops || starved
	fault(!drops && p.dropped > 0, "%v clicks were dropped, with room on the disk", p.dropped)
	fault(!drops && t.Missing > 0, "%d answered clicks are missing", t.Missing)
	fault(drops && float64(t.Missing) > p.dropped, "%d answered clicks are missing, and %v were reported as dropped", t.Missing, p.dropped)
	fault(t.Counted > t.Attempted, "%d clicks were counted of %d attempts", t.Counted, t.Attempted)
	fault(t.Attempted > 0 && t.Answered == 0, "nothing was answered")
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
	for _, sql := range []string{
		"DELETE FROM urls WHERE user_id = (SELECT id FROM users WHERE username = $1)", "DELETE FROM users WHERE username = $1",
	} {
		if err := l.sys.exec(ctx, sql, "chaos-"+l.clicks.Run); err != nil {
			return fmt.Errorf("clean up: %w", err)
		}
	}
	return nil
}
