package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signpost/signpost/internal/drive"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	faults := allFaults(nil, nil, false)
	for only, want := range map[string]int{"": len(faults), "api cut off": 2, "kill api": 2, "redis": 1, "Postgres": 0} {
		chosen, err := choose(faults, only)
		if len(chosen) != want || (err == nil) != (want > 0) {
			t.Errorf("%q chooses %d faults, %v, want %d", only, len(chosen), err, want)
		}
	}
}

// TestPromises holds what a phase is blamed for.
func TestPromises(t *testing.T) {
	t.Parallel()
	died := time.Now()
	at := func(status string, after time.Duration) drive.Answer {
		return drive.Answer{Status: status, Began: died.Add(after)}
	}
	well := drive.Tally{Attempted: 10, Answered: 10, Counted: 10}
	for _, test := range []struct {
		name   string
		phase  phase
		failed []drive.Answer
		tally  drive.Tally
		want   string // nothing is broken when it is empty
	}{
		{name: "a calm without failures", tally: well},
		{name: "one failure in a calm", failed: []drive.Answer{at("502", 0)}, tally: well, want: "cached link: 502"},
		{
			name: "what a dying api had in hand", phase: phase{interrupts: true, died: died}, tally: well,
			failed: []drive.Answer{at("502", -20*time.Millisecond), at(drive.NoAnswer, 0), at(drive.BrokenAnswer, inHand)},
		},
		{name: "a kill that was not noted yet", phase: phase{interrupts: true}, failed: []drive.Answer{at("502", 0)}, tally: well},
		{
			name: "a dead api that still gets requests", phase: phase{interrupts: true, died: died}, tally: well,
			failed: []drive.Answer{at("502", inHand+time.Millisecond)}, want: "after the kill: 502",
		},
		{
			name: "an error that no death explains", phase: phase{interrupts: true, died: died}, tally: well,
			failed: []drive.Answer{at("503", 0)}, want: "cached link: 503",
		},
		{name: "a late first redirect", phase: phase{first: never}, tally: well, want: "no redirect within"},
		{name: "never whole", phase: phase{whole: recovery + 1}, tally: well, want: "not whole within"},
		{name: "an answered click is missing", tally: drive.Tally{Attempted: 10, Answered: 10, Counted: 9, Missing: 1, Doubled: 0}, want: "1 answered clicks are missing"},
		{name: "drops with room on the disk", phase: phase{dropped: 1}, tally: drive.Tally{Attempted: 10, Answered: 10, Counted: 9, Missing: 1, Doubled: 0}, want: "with room on the disk"},
		{name: "drops of a full disk", phase: phase{drops: true, dropped: 1}, tally: drive.Tally{Attempted: 10, Answered: 10, Counted: 9, Missing: 1, Doubled: 0}},
		{name: "more missing than dropped", phase: phase{drops: true, dropped: 1}, tally: drive.Tally{Attempted: 10, Answered: 10, Counted: 8, Missing: 2, Doubled: 0}, want: "2 answered clicks are missing"},
		{name: "counted twice", tally: drive.Tally{Attempted: 10, Answered: 9, Counted: 10, Missing: 0, Doubled: 1}, want: "counted twice"},
		{name: "nothing answered", tally: drive.Tally{Attempted: 10}, want: "nothing was answered"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var l load
			p := l.begin(test.phase)
			p.first, p.whole = test.phase.first, test.phase.whole
			for _, got := range test.failed {
				p.fail("cached link", got)
			}
			broken := l.report(map[int]drive.Tally{0: test.tally})
			if test.want == "" && len(broken) > 0 {
				t.Errorf("it is blamed for %q", broken)
			}
			if test.want != "" && !slices.ContainsFunc(broken, func(s string) bool { return strings.Contains(s, test.want) }) {
				t.Errorf("it is blamed for %q, want %q", broken, test.want)
			}
			if len(test.failed) > 0 && len(p.failed) == 0 {
				t.Error("the table does not show the failures")
			}
		})
	}
}

// A replica may report the drop of a click in a later phase than that of its answer, but
// it has to report it.
func TestDropsOfTheRun(t *testing.T) {
	t.Parallel()
	for missing, want := range []int{0, 0, 1} {
		var l load
		l.begin(phase{name: "the answer", drops: true})
		l.begin(phase{name: "the report", drops: true}).dropped = 1
		tally := drive.Tally{Attempted: 10, Answered: 10, Counted: 10 - missing, Missing: missing}
		broken := l.report(map[int]drive.Tally{0: tally, 1: {Attempted: 1, Answered: 1, Counted: 1}})
		if len(broken) != want {
			t.Errorf("with %d missing clicks, it is blamed for %q", missing, broken)
		}
	}
}
