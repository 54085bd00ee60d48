package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"text/tabwriter"

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
	var run drive.Tally
	dropped := 0.0
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "\nFAULT\tLASTED\tFIRST REDIRECT\tWHOLE AGAIN\tFAILED\tNEW LINKS\tOF THEM 503\tMALFORMED\tATTEMPTED\tANSWERED\tCOUNTED\tDROPPED")
	for i, p := range l.phases {
		t := tallies[i]
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%v\t%d\t%d\t%d\t%d\t%d\t%d\t%v\n", p.name, short(p.lasted), short(p.first), short(p.whole),
			p.failed, p.uncached, p.refused, p.malformed, t.Attempted, t.Answered, t.Counted, p.dropped)
		broken = append(broken, p.faults(t)...)
		run.Add(t)
		dropped += p.dropped
	}
	_ = w.Flush()
	// Of all phases together: where the machine is starved, a drop may be reported after the
	// phase in which the click was answered.
	if float64(run.Missing) > dropped {
		broken = append(broken, fmt.Sprintf("%d answered clicks are missing, and %v were reported as dropped", run.Missing, dropped))
	}
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
	fault(t.Counted > t.Attempted, "%d clicks were counted of %d attempts", t.Counted, t.Attempted)
	fault(t.Attempted > 0 && t.Answered == 0, "nothing was answered")
	return broken
}

// cleanUp removes the links; their clicks stay, as with every deleted link.
func (l *load) cleanUp(ctx context.Context) error {
	name := "chaos-" + l.clicks.Run
	return errors.Join(
		l.sys.exec(ctx, "DELETE FROM urls WHERE user_id = (SELECT id FROM users WHERE username = $1)", name),
		l.sys.exec(ctx, "DELETE FROM users WHERE username = $1", name))
}
