package worker

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/queries"
)

// Keys that do not fit into memory are found in several turns, none of which
// begins again from the start, and none of a cancelled import are noted.
func TestPlanTakesTurns(t *testing.T) {
	s := setup(t)
	var file strings.Builder
	file.WriteString("id,username,email\n")
	for i := range 6000 {
		fmt.Fprintf(&file, "%d,user%d,mail%d@example.com\n", i+1, i%5900, i)
	}
	id := s.upload(csvimport.KindUsers, file.String(), csvimport.SplitOptions{})
	w, err := New(Options{Pool: s.pool, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	plan := &planImport{deps: w.deps, memory: 1, turn: time.Nanosecond}
	row := func() queries.Import {
		imp, err := queries.New(s.pool).GetImport(s.ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		return imp
	}

	var snooze *river.JobSnoozeError
	turns, from := 1, row().PlannedTo
	for err = plan.findContended(s.ctx, row()); errors.As(err, &snooze); err = plan.findContended(s.ctx, row()) {
		now := row().PlannedTo
		if uint64(now) <= uint64(from) { //nolint:gosec // the same bits
			t.Fatalf("turn %d went from %d to %d", turns, from, now)
		}
		turns, from = turns+1, now
	}
	if err != nil || turns < 3 {
		t.Errorf("%d turns for 18,000 keys where 8,192 fit, %v", turns, err)
	}
	s.wantInt(100, "SELECT count(*) FROM import_contended WHERE import_id = $1", id)

	s.exec("DELETE FROM import_contended")
	s.exec("UPDATE imports SET state = 'cancelling'")
	if err := plan.findContended(s.ctx, row()); err != nil && !errors.As(err, &snooze) {
		t.Error(err)
	}
	s.wantInt(0, "SELECT count(*) FROM import_contended")
}
