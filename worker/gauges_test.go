package worker

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost/signpost/internal/jobs"
)

// figure returns a figure of the last sample, -1 if there is none. Labels come as names
// and values in turn.
func (w *Worker) figure(name string, labels ...string) float64 {
	registry := prometheus.NewRegistry()
	registry.MustRegister(w.deps.metrics.sampled)
	families, _ := registry.Gather() // a broken one is missing
	for _, family := range families {
		for _, m := range family.GetMetric() {
			has := make([]string, 0, len(labels))
			for _, l := range m.GetLabel() {
				has = append(has, l.GetName(), l.GetValue())
			}
			if family.GetName() == "signpost_"+name && slices.Equal(has, labels) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

func TestSample(t *testing.T) {
	s := setup(t)
	w := s.start(nil)
	s.exec(`INSERT INTO imports (kind, state, layout, keep_ids, actor_name, rows_total, rows_imported, rows_rejected, finished_at) VALUES
		('urls', 'running', '{}', false, 'ann', 100, 30, 10, NULL),
		('urls', 'running', '{}', false, 'ann', 5, 0, 0, NULL),
		('events', 'receiving', '{}', false, 'ann', 0, 0, 0, NULL),
		('users', 'failed', '{}', false, 'ann', 0, 0, 0, now() - interval '59 minutes'),
		('users', 'failed', '{}', false, 'ann', 0, 0, 0, now() - interval '61 minutes')`)
	s.exec(`INSERT INTO replicas (id, host, folders, spooled, complete_to, seen_at) VALUES
		('a', 'here', '{f}', 2, '2026-01-02 03:04:05Z', now()),
		('b', 'gone', '{g}', 3, '2026-01-02 03:04:06Z', now() - interval '61 seconds')`)
	s.exec(`INSERT INTO rollup_digests (clicks, oldest_at, created_at, payload) VALUES (7, '2026-01-03', now() - interval '10 minutes', '\x09')`)
	_, err := w.deps.foldOnce(s.ctx, firstPace())
	s.ok(err)
	s.ok(w.client.QueuePause(s.ctx, jobs.QueueImports, nil))
	s.run(jobs.MakePartitions{})
	check := func(what string, got, want float64) {
		t.Helper()
		if got != want {
			t.Errorf("%s = %v, want %v", what, got, want)
		}
	}
	sample := func() {
		t.Helper()
		s.ok(w.deps.sampleOnce(s.ctx, true))
	}
	sample()
	check("clicks in digests that were set aside", w.figure("rollup_clicks_failed"), 7)
	check("running imports", w.figure("imports_open", "kind", "urls", "state", "running"), 2)
	check("imports being received", w.figure("imports_open", "kind", "events", "state", "receiving"), 1)
	check("rows left", w.figure("import_rows_left", "kind", "urls"), 65)
	check("imports that failed", w.figure("imports_ended_last_hour", "kind", "users", "state", "failed"), 1)
	check("a paused queue", w.figure("queue_paused", "queue", jobs.QueueImports), 1)
	check("a queue that is not paused", w.figure("queue_paused", "queue", jobs.QueueClicks), 0)
	check("deadlocks", w.figure("postgres_deadlocks_total"), 0)
	check("the time up to which statistics are complete", w.figure("statistics_complete_to_seconds"), 1767323045)
	check("pending clicks", w.figure("statistics_pending_clicks"), 12)
	check("replicas", w.figure("replicas"), 2)
	check("replicas that are gone", w.figure("replicas_gone"), 1)
	check("clicks in their spools", w.figure("replicas_gone_clicks"), 3)
	for _, table := range grows {
		if w.figure("postgres_table_bytes", "table", table) <= 0 {
			t.Errorf("%s has no size", table)
		}
	}
	if w.figure("postgres_database_bytes") < w.figure("postgres_table_bytes", "table", "events") {
		t.Error("the database is smaller than its events")
	}

	// A figure whose rows are gone becomes zero and does not keep its last value.
	s.exec("DELETE FROM imports")
	s.ok(w.client.QueueResume(s.ctx, jobs.QueueImports, nil))
	sample()
	check("running imports", w.figure("imports_open", "kind", "urls", "state", "running"), 0)
	check("rows left", w.figure("import_rows_left", "kind", "urls"), 0)
	check("imports that failed", w.figure("imports_ended_last_hour", "kind", "users", "state", "failed"), 0)
	check("a queue that goes on", w.figure("queue_paused", "queue", jobs.QueueImports), 0)
}
