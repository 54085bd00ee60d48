package worker

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/signpost/signpost/queries"
)

const (
	samplePeriod  = 5 * time.Second
	sampleTimeout = 3 * time.Second
)

// metrics is what a worker tells Prometheus. Labels are bounded: kinds and
// queues are those of package jobs, or "other".
type metrics struct {
	jobs            *prometheus.CounterVec
	jobSeconds      *prometheus.HistogramVec
	queueJobs       *prometheus.GaugeVec
	queueOldest     *prometheus.GaugeVec
	batchesPending  prometheus.Gauge
	clicksPending   prometheus.Gauge
	oldestPending   prometheus.Gauge
	clicksIngested  prometheus.Counter
	clicksRejected  *prometheus.CounterVec
	importRows      *prometheus.CounterVec
	importsFinished *prometheus.CounterVec
	rescued         *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	f := promauto.With(registry)
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	return &metrics{
		jobs: counters("signpost_jobs_total", "Job runs that ended, by kind and result.", "kind", "result"),
		jobSeconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "signpost_job_duration_seconds",
			Help:    "How long job runs took, by kind.",
			Buckets: []float64{.005, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"kind"}),
		queueJobs:      gauges("signpost_queue_jobs", "Jobs that are not finished, by queue and state; discarded ones wait for an operator.", "queue", "state"),
		queueOldest:    gauges("signpost_queue_oldest_seconds", "Age of the oldest job that waits to be worked, by queue.", "queue"),
		batchesPending: gauge("signpost_click_batches_pending", "Click batches in Postgres that are not ingested."),
		clicksPending:  gauge("signpost_clicks_pending", "Clicks in batches that are not ingested."),
		oldestPending:  gauge("signpost_clicks_pending_oldest_seconds", "Age of the oldest click in a batch that is not ingested."),
		clicksIngested: f.NewCounter(prometheus.CounterOpts{Name: "signpost_clicks_ingested_total", Help: "Clicks that became events."}),
		clicksRejected: counters("signpost_clicks_rejected_total", "Clicks that could not become events and were set aside, by reason.", "reason"),
		importRows:     counters("signpost_import_rows_total", "Rows of imports, by kind and outcome.", "kind", "outcome"),
		importsFinished: counters("signpost_imports_finished_total",
			"Imports that ended, by kind and final state.", "kind", "state"),
		rescued: counters("signpost_rescued_total", "Batches, chunks and imports that got a new job because theirs was gone, and uploads given up.", "what"),
	}
}

// jobMeter counts and times every job.
type jobMeter struct {
	river.MiddlewareDefaults
	metrics *metrics
}

// Work implements [rivertype.WorkerMiddleware].
func (m *jobMeter) Work(ctx context.Context, job *rivertype.JobRow, doInner func(context.Context) error) error {
	start, result := time.Now(), "panicked"
	defer func() {
		m.metrics.jobs.WithLabelValues(job.Kind, result).Inc()
		m.metrics.jobSeconds.WithLabelValues(job.Kind).Observe(time.Since(start).Seconds())
	}()
	err := doInner(ctx)
	result = jobResult(err)
	return err
}

func jobResult(err error) string {
	var cancel *river.JobCancelError
	var snooze *river.JobSnoozeError
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &cancel):
		return "cancelled"
	case errors.As(err, &snooze):
		return "snoozed"
	case errors.Is(err, context.Canceled):
		return "interrupted"
	default:
		return "failed"
	}
}

// sample keeps the gauges until ctx ends. While Postgres is away they keep
// their last values.
func (d *deps) sample(ctx context.Context) {
	ticker := time.NewTicker(samplePeriod)
	defer ticker.Stop()
	for {
		if err := d.sampleOnce(ctx); err != nil && ctx.Err() == nil {
			d.log.DebugContext(ctx, "queues could not be sampled", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (d *deps) sampleOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	q := queries.New(d.pool)
	depths, err := q.QueueDepths(ctx)
	if err != nil {
		return err
	}
	pending, err := q.PendingBatches(ctx)
	if err != nil {
		return err
	}
	d.metrics.setQueues(depths)
	d.metrics.batchesPending.Set(float64(pending.Batches))
	d.metrics.clicksPending.Set(float64(pending.Clicks))
	d.metrics.oldestPending.Set(pending.OldestSeconds)
	return nil
}

// queueStates are those a queue always has a gauge for, so that an empty one
// reads zero rather than its last value.
var queueStates = []string{"available", "retryable", "running", "scheduled", "discarded"}

func (m *metrics) setQueues(depths []queries.QueueDepthsRow) {
	jobs, oldest := map[[2]string]float64{}, map[string]float64{}
	for queue := range DefaultQueues() {
		oldest[queue] = 0
		for _, state := range queueStates {
			jobs[[2]string{queue, state}] = 0
		}
	}
	for _, d := range depths {
		queue := boundedQueue(d.Queue)
		jobs[[2]string{queue, d.State}] += float64(d.Jobs)
		if d.State == "available" || d.State == "retryable" {
			oldest[queue] = max(oldest[queue], d.OldestSeconds)
		}
	}
	for k, n := range jobs {
		m.queueJobs.WithLabelValues(k[0], k[1]).Set(n)
	}
	for queue, age := range oldest {
		m.queueOldest.WithLabelValues(queue).Set(age)
	}
}

func boundedQueue(name string) string {
	if _, known := DefaultQueues()[name]; known {
		return name
	}
	return "other"
}
