package worker

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/queries"
)

const (
	samplePeriod  = 5 * time.Second
	sampleTimeout = 3 * time.Second
	// sizesEvery is how many samples there are for one in which sizes are asked for:
	// the server has to look at every file for them.
	sizesEvery = 12
)

// grows are the tables that can fill the database.
var grows = []string{
	"events", "urls", "users", "rollups", "rollup_digests", "visitors", "link_totals", "click_quarters", "click_days", "click_batches", "click_rejects",
	"import_chunks", "import_errors", "import_notices", "link_changes", "tag_changes", "river_job",
}

// figures are what a sample of the database found.
type figures struct {
	queues   []queries.QueueDepthsRow
	paused   []queries.PausedQueuesRow
	batches  queries.PendingBatchesRow
	rollups  queries.RollupFiguresRow
	months   []time.Time // with a partition
	due      []time.Time // to be archived
	parts    queries.EventPartFiguresRow
	imports  []queries.ImportStatesRow
	tags     queries.TagFiguresRow
	server   queries.ServerFiguresRow
	database int64
	tables   []queries.TableSizesRow
	fresh    rollup.Freshness
	replicas []queries.ListReplicasRow
}

// sample keeps the figures until ctx ends, and reports that this worker runs. While
// Postgres is away the last ones stay.
func (d *deps) sample(ctx context.Context) {
	ticker := time.NewTicker(samplePeriod)
	defer ticker.Stop()
	for n := 0; ; n++ {
		err := errors.Join(d.sampleOnce(ctx, n%sizesEvery == 0), d.report(ctx))
		if err != nil && ctx.Err() == nil {
			d.log.DebugContext(ctx, "queues could not be sampled", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// report says that this worker runs.
func (d *deps) report(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	return queries.New(d.pool).ReportWorker(ctx, d.self)
}

// sampleOnce samples the figures, with sizes or with the last ones. A figure that cannot
// be read stays as it was.
func (d *deps) sampleOnce(ctx context.Context, sizes bool) error {
	q, f := queries.New(d.pool), figures{}
	last := d.metrics.sampled.last.Load()
	if last != nil {
		f = *last
	}
	err := readAll(ctx,
		into(&f.queues, q.QueueDepths), into(&f.paused, q.PausedQueues), into(&f.batches, q.PendingBatches), into(&f.rollups, q.RollupFigures),
		into(&f.parts, q.EventPartFigures), into(&f.imports, q.ImportStates), into(&f.server, q.ServerFigures),
		into(&f.replicas, q.ListReplicas), into(&f.tags, q.TagFigures),
		into(&f.fresh, func(ctx context.Context) (rollup.Freshness, error) { return rollup.ReadFreshness(ctx, q) }),
		into(&f.months, func(ctx context.Context) ([]time.Time, error) { return postgres.Months(ctx, d.pool) }),
		into(&f.due, func(ctx context.Context) ([]time.Time, error) { return d.toArchive(ctx, f.months, time.Now()) }))
	if sizes {
		err = errors.Join(err, readAll(ctx, into(&f.database, q.DatabaseSize),
			into(&f.tables, func(ctx context.Context) ([]queries.TableSizesRow, error) { return q.TableSizes(ctx, grows) })))
	}
	if err == nil || last != nil { // the first figures have to be whole, since a zero would be an invention
		d.metrics.sampled.last.Store(&f)
	}
	return err
}

// readAll reads figures, each within sampleTimeout. One that cannot be read does not
// keep the others from being read.
func readAll(ctx context.Context, reads ...func(context.Context) error) error {
	var errs []error
	for _, read := range reads {
		limited, cancel := context.WithTimeout(ctx, sampleTimeout)
		errs = append(errs, read(limited))
		cancel()
	}
	return errors.Join(errs...)
}

// into returns a function that keeps what read returns, unless that failed.
func into[T any](to *T, read func(context.Context) (T, error)) func(context.Context) error {
	return func(ctx context.Context) error {
		found, err := read(ctx)
		if err == nil {
			*to = found
		}
		return err
	}
}

// sampled exports the figures of the last sample. Every worker does, so that they exist
// as long as one worker runs.
type sampled struct{ last atomic.Pointer[figures] }

// Describe implements [prometheus.Collector]. It describes nothing, because the labels
// of a figure are known only when there is one.
func (s *sampled) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (s *sampled) Collect(ch chan<- prometheus.Metric) {
	f := s.last.Load()
	if f == nil {
		return
	}
	e := export{ch}
	f.exportQueues(e)
	f.exportImports(e)
	f.exportServer(e)
	f.exportFreshness(e)
	e.gauge("click_batches_pending", "Click batches in Postgres that are not ingested.", float64(f.batches.Batches))
	e.gauge("clicks_pending", "Clicks in batches that are not ingested.", float64(f.batches.Clicks))
	e.gauge("clicks_pending_oldest_seconds", "Age of the oldest click in a batch that is not ingested.", f.batches.OldestSeconds)
	e.gauge("click_batches_failed", "Click batches that cannot be ingested as they are and wait for an operator.", float64(f.batches.FailedBatches))
	e.gauge("clicks_failed", "Clicks in batches that wait for an operator.", float64(f.batches.FailedClicks))
	e.gauge("rollup_digests_waiting", "Digests of clicks that are not merged into the statistics yet.", float64(f.rollups.Digests))
	e.gauge("rollup_clicks_waiting", "Clicks in these digests.", float64(f.rollups.Clicks))
	e.gauge("rollup_waiting_oldest_seconds", "Age of the oldest digest that is not merged.", f.rollups.OldestSeconds)
	e.gauge("rollup_recounts_waiting", "Days of links whose statistics are to be counted again from the events.", float64(f.rollups.Recounts))
	e.gauge("rollup_clicks_failed", "Clicks in digests that cannot be decoded. They are in no statistic until their days are counted again.", float64(f.rollups.FailedClicks))
	e.gauge("tag_changes_waiting", "Changes of the numbers of links of tags that are not added up yet.", float64(f.tags.Changes))
	e.gauge("tag_moves_oldest_seconds", "Age of the oldest tag that is being renamed, merged or deleted; 0 if there is none.", f.tags.OldestMoveSeconds)
	e.gauge("events_partitions", "Months of events that are in the database.", float64(len(f.months)))
	e.gauge("events_partition_months_ahead", "Whole months beyond the current one that have their partition of events, up to the first that has not; -1 if the current one has none.",
		float64(monthsAhead(f.months, time.Now())))
	e.gauge("events_months_due", "Months of events in the database that are older than the retention, restored ones included.", float64(len(f.due)))
	e.gauge("events_months_retired", "Months of events that were taken out of the database, restored ones included.", float64(f.parts.MonthsRetired))
	e.gauge("events_retired_rows", "Events that were taken out of the database, restored ones included.", float64(f.parts.RowsRetired))
	e.gauge("events_parts_open", "Detached parts of months that are not yet dropped.", float64(f.parts.PartsOpen))
	e.gauge("events_parts_open_oldest_seconds", "Age of the oldest detached part that is not yet dropped.", f.parts.OldestOpenSeconds)
}

// export sends figures as metrics. Labels come as names and values in turn.
type export struct{ ch chan<- prometheus.Metric }

// ofDatabase ends the help text of every figure.
const ofDatabase = " The same on every worker: take the max, not the sum."

func (e export) gauge(name, help string, value float64, labels ...string) {
	e.send(prometheus.GaugeValue, name, help, value, labels)
}

func (e export) counter(name, help string, value int64, labels ...string) {
	e.send(prometheus.CounterValue, name, help, float64(value), labels)
}

func (e export) send(kind prometheus.ValueType, name, help string, value float64, labels []string) {
	constant := prometheus.Labels{}
	for i := 0; i < len(labels); i += 2 {
		constant[labels[i]] = labels[i+1]
	}
	e.ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("signpost_"+name, help+ofDatabase, nil, constant), kind, value)
}

// queueStates are the states that always have a gauge for every queue.
var queueStates = []string{"available", "retryable", "running", "scheduled", "discarded"}

func (f *figures) exportQueues(e export) {
	depths, oldest, paused := map[[2]string]float64{}, map[string]float64{}, map[string]float64{}
	for queue := range DefaultQueues() {
		oldest[queue], paused[queue] = 0, 0
		for _, state := range queueStates {
			depths[[2]string{queue, state}] = 0
		}
	}
	for _, d := range f.queues {
		queue := boundedQueue(d.Queue)
		depths[[2]string{queue, d.State}] += float64(d.Jobs)
		if d.State == "available" || d.State == "retryable" {
			oldest[queue] = max(oldest[queue], d.OldestSeconds)
		}
	}
	for _, r := range f.paused {
		if r.Paused {
			paused[boundedQueue(r.Name)] = 1
		}
	}
	for k, n := range depths {
		e.gauge("queue_jobs", "Jobs that are not finished, by queue and state; discarded ones wait for an operator.", n, "queue", k[0], "state", k[1])
	}
	for queue, age := range oldest {
		e.gauge("queue_oldest_seconds", "Age of the oldest job that waits to be worked, by queue.", age, "queue", queue)
	}
	for queue, is := range paused {
		e.gauge("queue_paused", "1 if an operator paused the queue, else 0.", is, "queue", queue)
	}
}

// exportImports has a gauge for every kind and state: the table allows no others.
func (f *figures) exportImports(e export) {
	imports, left := map[[2]string]int64{}, map[string]int64{}
	for _, r := range f.imports {
		imports[[2]string{r.Kind, r.State}] += r.Imports
		if !r.Ended {
			left[r.Kind] += r.RowsLeft
		}
	}
	for _, kind := range importKinds {
		for _, state := range openStates {
			e.gauge("imports_open", "Imports under way, by kind and state.", float64(imports[[2]string{kind, state}]), "kind", kind, "state", state)
		}
		for _, state := range slices.Concat(endStates, []string{jobs.ImportUndoing, jobs.ImportUndone}) {
			e.gauge("imports_ended_last_hour", "Imports that ended within the last hour, by kind and state.", float64(imports[[2]string{kind, state}]), "kind", kind, "state", state)
		}
		e.gauge("import_rows_left", "Rows of uploaded imports that wait to be applied, by kind.", float64(left[kind]), "kind", kind)
	}
}

func (f *figures) exportServer(e export) {
	e.gauge("postgres_database_bytes", "Size of the database.", float64(f.database))
	for _, t := range f.tables {
		e.gauge("postgres_table_bytes", "Size of the tables that grow, with indexes and partitions.", float64(t.Bytes), "table", t.Name)
	}
	e.gauge("postgres_server_connections", "Clients connected to the server, of all databases.", float64(f.server.Connections))
	e.gauge("postgres_server_max_connections", "Most connections the server takes (max_connections).", float64(f.server.MaxConnections))
	e.gauge("postgres_oldest_transaction_seconds", "Age of the oldest open transaction in the database.", f.server.OldestTransactionSeconds)
	const transactions = "Transactions of the database since the server's statistics began, by how they ended."
	e.counter("postgres_transactions_total", transactions, f.server.Commits, "result", "commit")
	e.counter("postgres_transactions_total", transactions, f.server.Rollbacks, "result", "rollback")
	e.counter("postgres_deadlocks_total", "Deadlocks in the database since the server's statistics began.", f.server.Deadlocks)
	const blocks = "Blocks of the database that were needed, by where they were found."
	e.counter("postgres_blocks_total", blocks, f.server.BlocksHit, "from", "memory")
	e.counter("postgres_blocks_total", blocks, f.server.BlocksRead, "from", "disk")
}

func (f *figures) exportFreshness(e export) {
	gone, clicks := 0, int64(0)
	for _, r := range f.replicas {
		if r.Gone {
			gone, clicks = gone+1, clicks+r.Spooled
		}
	}
	e.gauge("statistics_complete_to_seconds", "Time up to which every accepted click is in the statistics, as a Unix time.", float64(f.fresh.AsOf.UnixMicro())/1e6)
	e.gauge("statistics_pending_clicks", "Accepted clicks that are not in the statistics.", float64(f.fresh.Pending))
	e.gauge("replicas", "Processes that take clicks, gone ones included.", float64(len(f.replicas)))
	e.gauge("replicas_gone", "Processes that have not reported for a minute and whose spool nobody has taken over.", float64(gone))
	e.gauge("replicas_gone_clicks", "Clicks that such processes had in their spool when they last reported.", float64(clicks))
}

func boundedQueue(name string) string {
	if _, known := DefaultQueues()[name]; known {
		return name
	}
	return "other"
}

// monthsAhead returns how many months after now's are in the list without a
// gap, and -1 if now's is not.
func monthsAhead(months []time.Time, now time.Time) int {
	n := 0
	for slices.ContainsFunc(months, postgres.MonthOf(now).AddDate(0, n, 0).Equal) {
		n++
	}
	return n - 1
}
