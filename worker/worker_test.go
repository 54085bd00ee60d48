package worker

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
)

// heard is a log that records when it got a message.
type heard struct {
	slog.Handler
	message string
	once    chan struct{}
}

func (h *heard) Enabled(context.Context, slog.Level) bool { return true }

func (h *heard) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.message {
		select {
		case h.once <- struct{}{}:
		default:
		}
	}
	return nil
}

// A worker that starts before Postgres does waits for it. If Postgres is killed while
// it works, it continues with the same batch when Postgres is back.
func TestWorkerOutlivesPostgres(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	url := pgtest.Migrated(t, cluster)
	require.NoError(t, cluster.Stop(t.Context()), "stop postgres")
	log := &heard{slog.DiscardHandler, "worker waits for Postgres", make(chan struct{}, 1)}
	w, err := New(Options{Pool: pgtest.Open(t, url), Log: slog.New(log), Registry: prometheus.NewRegistry()})
	require.NoError(t, err, "new worker")
	started := make(chan error, 1)
	go func() { started <- w.Start(t.Context()) }()
	<-log.once
	require.NoError(t, cluster.Start(t.Context()), "start postgres")
	require.NoError(t, <-started, "start worker")
	s := &site{T: t, ctx: t.Context()}
	s.Cleanup(func() { s.stop(w) })

	s.use(pgtest.Open(t, url).Config())
	lock := s.lock("LOCK TABLE rollup_digests IN SHARE MODE")
	s.ship("a-1", many(50, time.Now()))
	s.eventually("job waits to leave its digest", s.someoneWaits)
	s.exec("CHECKPOINT") // tests do not wait for the disk, and this much has to be there
	cluster.Kill()
	if err := lock.Rollback(s.ctx); err == nil {
		t.Error("the server did not die")
	}
	s.ok(cluster.Start(s.ctx))
	back := time.Now()
	s.use(pgtest.Open(t, url).Config())
	s.eventually("batch is ingested", s.allIngested)
	s.wantCounted(50)
	t.Logf("ingested %v after Postgres was back", time.Since(back).Round(100*time.Millisecond))
}

// Stop waits for running jobs, and may be called twice, or without a start.
func TestStop(t *testing.T) {
	s := setup(t)
	s.ship("a-1", many(50, time.Now()))
	lock := s.lock("LOCK TABLE rollup_digests IN SHARE MODE")
	w := s.start(nil)
	s.eventually("job waits to leave its digest", s.someoneWaits)
	stopped := make(chan error, 1)
	go func() { stopped <- w.Stop(s.ctx) }()
	s.eventually("sampler stops", func() bool {
		select {
		case <-w.sampled:
			return true
		default:
			return false
		}
	})
	s.rollback(lock)
	assert.NoError(t, <-stopped, "stop")
	s.wantCounted(50)
	s.stop(w)
	idle, err := New(Options{Pool: s.pool, Registry: prometheus.NewRegistry()})
	s.ok(err)
	s.stop(idle)
}

// Metrics that alerts and totals use exist before their events happen for the first
// time.
func TestCountersAreThereFromTheStart(t *testing.T) {
	t.Parallel()
	m := newMetrics(nil)
	for _, reason := range []string{rejectedTime, rejectedMonth, rejectedRefused, rejectedPanic} {
		if !m.clicksRejected.DeleteLabelValues(reason) {
			t.Errorf("signpost_clicks_rejected_total: no series for %s", reason)
		}
	}
	for _, what := range []string{"batches", "imports", "uploads"} {
		if !m.reenqueued.DeleteLabelValues(what) {
			t.Errorf("signpost_rescued_total: no series for %s", what)
		}
	}
}
