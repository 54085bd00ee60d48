package worker

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
)

// metrics are the metrics of a worker. Labels are bounded: kinds and queues are
// constants of package jobs, or "other".
type metrics struct {
	jobs            *prometheus.CounterVec
	jobSeconds      *prometheus.HistogramVec
	archiveFailures prometheus.Counter
	clicksIngested  prometheus.Counter
	clicksRejected  *prometheus.CounterVec
	importRows      *prometheus.CounterVec
	importUndone    *prometheus.CounterVec
	importsFinished *prometheus.CounterVec
	reenqueued      *prometheus.CounterVec
	foldSeconds     prometheus.Histogram
	foldClicks      prometheus.Counter
	foldFailures    prometheus.Counter
	rollupsDiffer   prometheus.Counter
	sampled         *sampled
}

func newMetrics(registry prometheus.Registerer) *metrics {
	f := promauto.With(registry)
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		jobs: counters("signpost_jobs_total", "Job runs that ended, by kind and result.", "kind", "result"),
		jobSeconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "signpost_job_duration_seconds",
			Help:    "How long job runs took, by kind.",
			Buckets: []float64{.005, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"kind"}),
		foldSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "signpost_rollup_merge_duration_seconds",
			Help:    "How long merges of clicks into the statistics took. One worker at a time merges.",
			Buckets: []float64{.005, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
		foldClicks:      f.NewCounter(prometheus.CounterOpts{Name: "signpost_rollup_clicks_merged_total", Help: "Clicks that were merged into the statistics or taken out of them."}),
		foldFailures:    f.NewCounter(prometheus.CounterOpts{Name: "signpost_rollup_merge_failures_total", Help: "Merges that failed. Their clicks wait for the next one."}),
		rollupsDiffer:   f.NewCounter(prometheus.CounterOpts{Name: "signpost_rollup_rows_differ_total", Help: "Rows of statistics that did not agree with the events when a sample was compared. They are counted again."}),
		archiveFailures: f.NewCounter(prometheus.CounterOpts{Name: "signpost_events_retire_failures_total", Help: "Attempts to take a month out of the database that failed."}),
		clicksIngested:  f.NewCounter(prometheus.CounterOpts{Name: "signpost_clicks_ingested_total", Help: "Clicks that became events."}),
		clicksRejected:  counters("signpost_clicks_rejected_total", "Clicks that were rejected: they could not become events. By reason.", "reason"),
		importUndone: counters("signpost_import_rows_undone_total",
			"Rows of imports that an undo removed or kept, by kind and outcome.", "kind", "outcome"),
		importRows: counters("signpost_import_rows_total", "Rows of imports, by kind and outcome.", "kind", "outcome"),
		importsFinished: counters("signpost_imports_finished_total",
			"Imports that ended, by kind and final state.", "kind", "state"),
		sampled:    new(sampled),
		reenqueued: counters("signpost_rescued_total", "Batches and imports that got a new job because theirs was gone, and uploads given up.", "what"),
	}
	if registry != nil {
		registry.MustRegister(m.sampled)
	}
	m.prepare()
	return m
}

var (
	importKinds = []string{string(csvimport.KindUsers), string(csvimport.KindLinks), string(csvimport.KindEvents)}
	openStates  = []string{jobs.ImportReceiving, jobs.ImportQueued, jobs.ImportRunning, jobs.ImportCancelling}
	endStates   = []string{jobs.ImportCompleted, jobs.ImportFailed, jobs.ImportCancelled}
)

// prepare creates the counters that alerts and totals use, because a counter that
// starts at 1 hides its first increase.
func (m *metrics) prepare() {
	for _, kind := range importKinds {
		for _, o := range []outcome{outcomeImported, outcomeUpdated, outcomeSkipped, outcomeRejected} {
			m.importRows.WithLabelValues(kind, string(o))
		}
		for _, state := range endStates {
			m.importsFinished.WithLabelValues(kind, state)
		}
	}
	for _, reason := range []string{rejectedTime, rejectedMonth, rejectedRefused, rejectedPanic} {
		m.clicksRejected.WithLabelValues(reason)
	}
	for _, what := range []string{"batches", "imports", "uploads", "reclassifications"} {
		m.reenqueued.WithLabelValues(what)
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
