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
	queueJobs       *prometheus.GaugeVec
	queueOldest     *prometheus.GaugeVec
	queuePaused     *prometheus.GaugeVec
	batchesPending  prometheus.Gauge
	clicksPending   prometheus.Gauge
	oldestPending   prometheus.Gauge
	batchesFailed   prometheus.Gauge
	clicksFailed    prometheus.Gauge
	partitions      prometheus.Gauge
	monthsAhead     prometheus.Gauge
	monthsRetired   prometheus.Gauge
	rowsRetired     prometheus.Gauge
	monthsDue       prometheus.Gauge
	partsOpen       prometheus.Gauge
	oldestPart      prometheus.Gauge
	archiveFailures prometheus.Counter
	clicksIngested  prometheus.Counter
	clicksRejected  *prometheus.CounterVec
	importRows      *prometheus.CounterVec
	importUndone    *prometheus.CounterVec
	importsFinished *prometheus.CounterVec
	importsOpen     *prometheus.GaugeVec
	importsEnded    *prometheus.GaugeVec
	importRowsLeft  *prometheus.GaugeVec
	reenqueued      *prometheus.CounterVec
	databaseBytes   prometheus.Gauge
	tableBytes      *prometheus.GaugeVec
	server          *serverMetrics
}

// ofDatabase ends the help text of figures about the database. Every worker exports
// them, so that they exist as long as one worker runs.
const ofDatabase = " The same on every worker: take the max, not the sum."

func newMetrics(registry prometheus.Registerer) *metrics {
	f := promauto.With(registry)
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help + ofDatabase})
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help + ofDatabase}, labels)
	}
	m := &metrics{
		jobs: counters("signpost_jobs_total", "Job runs that ended, by kind and result.", "kind", "result"),
		jobSeconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "signpost_job_duration_seconds",
			Help:    "How long job runs took, by kind.",
			Buckets: []float64{.005, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"kind"}),
		queueJobs:       gauges("signpost_queue_jobs", "Jobs that are not finished, by queue and state; discarded ones wait for an operator.", "queue", "state"),
		queueOldest:     gauges("signpost_queue_oldest_seconds", "Age of the oldest job that waits to be worked, by queue.", "queue"),
		queuePaused:     gauges("signpost_queue_paused", "1 if an operator paused the queue, else 0.", "queue"),
		batchesPending:  gauge("signpost_click_batches_pending", "Click batches in Postgres that are not ingested."),
		clicksPending:   gauge("signpost_clicks_pending", "Clicks in batches that are not ingested."),
		oldestPending:   gauge("signpost_clicks_pending_oldest_seconds", "Age of the oldest click in a batch that is not ingested."),
		batchesFailed:   gauge("signpost_click_batches_failed", "Click batches that cannot be ingested as they are and wait for an operator."),
		clicksFailed:    gauge("signpost_clicks_failed", "Clicks in batches that wait for an operator."),
		partitions:      gauge("signpost_events_partitions", "Months of events that are in the database."),
		monthsAhead:     gauge("signpost_events_partition_months_ahead", "Whole months beyond the current one that have their partition of events, up to the first that has not; -1 if the current one has none."),
		monthsRetired:   gauge("signpost_events_months_retired", "Months of events that were taken out of the database, restored ones included."),
		rowsRetired:     gauge("signpost_events_retired_rows", "Events that were taken out of the database, restored ones included."),
		monthsDue:       gauge("signpost_events_months_due", "Months of events in the database that are older than the retention, restored ones included."),
		partsOpen:       gauge("signpost_events_parts_open", "Detached parts of months that are not yet dropped."),
		oldestPart:      gauge("signpost_events_parts_open_oldest_seconds", "Age of the oldest detached part that is not yet dropped."),
		archiveFailures: f.NewCounter(prometheus.CounterOpts{Name: "signpost_events_retire_failures_total", Help: "Attempts to take a month out of the database that failed."}),
		clicksIngested:  f.NewCounter(prometheus.CounterOpts{Name: "signpost_clicks_ingested_total", Help: "Clicks that became events."}),
		clicksRejected:  counters("signpost_clicks_rejected_total", "Clicks that were rejected: they could not become events. By reason.", "reason"),
		importUndone: counters("signpost_import_rows_undone_total",
			"Rows of imports that an undo removed or kept, by kind and outcome.", "kind", "outcome"),
		importRows: counters("signpost_import_rows_total", "Rows of imports, by kind and outcome.", "kind", "outcome"),
		importsFinished: counters("signpost_imports_finished_total",
			"Imports that ended, by kind and final state.", "kind", "state"),
		importsOpen:    gauges("signpost_imports_open", "Imports under way, by kind and state.", "kind", "state"),
		importsEnded:   gauges("signpost_imports_ended_last_hour", "Imports that ended within the last hour, by kind and state.", "kind", "state"),
		importRowsLeft: gauges("signpost_import_rows_left", "Rows of uploaded imports that wait to be applied, by kind.", "kind"),
		databaseBytes:  gauge("signpost_postgres_database_bytes", "Size of the database."),
		tableBytes:     gauges("signpost_postgres_table_bytes", "Size of the tables that grow, with indexes and partitions.", "table"),
		server:         newServerMetrics(),
		reenqueued:     counters("signpost_rescued_total", "Batches and imports that got a new job because theirs was gone, and uploads given up.", "what"),
	}
	if registry != nil {
		registry.MustRegister(m.server)
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
	for _, what := range []string{"batches", "imports", "uploads"} {
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
