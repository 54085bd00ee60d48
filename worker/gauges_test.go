package worker

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signpost/signpost/internal/jobs"
)

func TestSample(t *testing.T) {
	s := setup(t)
	w := s.start(nil)
	s.exec(`INSERT INTO imports (kind, state, layout, keep_ids, actor_name, rows_total, rows_imported, rows_rejected, finished_at) VALUES
		('urls', 'running', '{}', false, 'ann', 100, 30, 10, NULL),
		('urls', 'running', '{}', false, 'ann', 5, 0, 0, NULL),
		('events', 'receiving', '{}', false, 'ann', 0, 0, 0, NULL),
		('users', 'failed', '{}', false, 'ann', 0, 0, 0, now() - interval '59 minutes'),
		('users', 'failed', '{}', false, 'ann', 0, 0, 0, now() - interval '61 minutes')`)
	s.ok(w.client.QueuePause(s.ctx, jobs.QueueImports, nil))
	m := w.deps.metrics
	check := func(what string, got, want float64) {
		t.Helper()
		if got != want {
			t.Errorf("%s = %v, want %v", what, got, want)
		}
	}
	sample := func() {
		t.Helper()
		s.ok(w.deps.sampleOnce(s.ctx))
		s.ok(w.deps.sampleSizes(s.ctx))
	}
	sample()
	check("running imports", testutil.ToFloat64(m.importsOpen.WithLabelValues("urls", "running")), 2)
	check("imports being received", testutil.ToFloat64(m.importsOpen.WithLabelValues("events", "receiving")), 1)
	check("rows left", testutil.ToFloat64(m.importRowsLeft.WithLabelValues("urls")), 65)
	check("imports that failed", testutil.ToFloat64(m.importsEnded.WithLabelValues("users", "failed")), 1)
	check("a paused queue", testutil.ToFloat64(m.queuePaused.WithLabelValues(jobs.QueueImports)), 1)
	check("a queue that is not paused", testutil.ToFloat64(m.queuePaused.WithLabelValues(jobs.QueueClicks)), 0)
	check("figures of the server", float64(testutil.CollectAndCount(m.server)), 8)
	for _, table := range grows {
		if testutil.ToFloat64(m.tableBytes.WithLabelValues(table)) <= 0 {
			t.Errorf("%s has no size", table)
		}
	}
	if testutil.ToFloat64(m.databaseBytes) < testutil.ToFloat64(m.tableBytes.WithLabelValues("events")) {
		t.Error("the database is smaller than its events")
	}

	// A figure whose rows are gone becomes zero and does not keep its last value.
	s.exec("DELETE FROM imports")
	s.ok(w.client.QueueResume(s.ctx, jobs.QueueImports, nil))
	sample()
	check("running imports", testutil.ToFloat64(m.importsOpen.WithLabelValues("urls", "running")), 0)
	check("rows left", testutil.ToFloat64(m.importRowsLeft.WithLabelValues("urls")), 0)
	check("imports that failed", testutil.ToFloat64(m.importsEnded.WithLabelValues("users", "failed")), 0)
	check("a queue that goes on", testutil.ToFloat64(m.queuePaused.WithLabelValues(jobs.QueueImports)), 0)
}
