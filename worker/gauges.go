package worker

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost/signpost/internal/postgres"
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
	"events", "urls", "users", "click_quarters", "click_days", "click_batches", "click_rejects",
	"import_chunks", "import_errors", "import_notices", "link_changes", "river_job",
}

// sample keeps the gauges until ctx ends. While Postgres is away they keep
// their last values.
func (d *deps) sample(ctx context.Context) {
	ticker := time.NewTicker(samplePeriod)
	defer ticker.Stop()
	for n := 0; ; n++ {
		err := d.sampleOnce(ctx)
		if n%sizesEvery == 0 && err == nil {
			err = d.sampleSizes(ctx)
		}
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

// sampleOnce samples the figures that cost Postgres little.
func (d *deps) sampleOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	q := queries.New(d.pool)
	depths, err := q.QueueDepths(ctx)
	if err != nil {
		return err
	}
	d.metrics.setQueues(depths)
	paused, err := q.PausedQueues(ctx)
	if err != nil {
		return err
	}
	d.metrics.setPaused(paused)
	pending, err := q.PendingBatches(ctx)
	if err != nil {
		return err
	}
	d.metrics.batchesPending.Set(float64(pending.Batches))
	d.metrics.clicksPending.Set(float64(pending.Clicks))
	d.metrics.oldestPending.Set(pending.OldestSeconds)
	d.metrics.batchesFailed.Set(float64(pending.FailedBatches))
	d.metrics.clicksFailed.Set(float64(pending.FailedClicks))
	if err := d.samplePartitions(ctx, q); err != nil {
		return err
	}
	imports, err := q.ImportStates(ctx)
	if err != nil {
		return err
	}
	d.metrics.setImports(imports)
	figures, err := q.ServerFigures(ctx)
	if err != nil {
		return err
	}
	d.metrics.server.last.Store(&figures)
	return nil
}

func (d *deps) sampleSizes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	q := queries.New(d.pool)
	database, err := q.DatabaseSize(ctx)
	if err != nil {
		return err
	}
	d.metrics.databaseBytes.Set(float64(database))
	tables, err := q.TableSizes(ctx, grows)
	if err != nil {
		return err
	}
	for _, t := range tables {
		d.metrics.tableBytes.WithLabelValues(t.Name).Set(float64(t.Bytes))
	}
	return nil
}

// queueStates are the states that always have a gauge for every queue, so that an
// empty state reads zero rather than its last value.
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

func (m *metrics) setPaused(rows []queries.PausedQueuesRow) {
	paused := map[string]float64{}
	for queue := range DefaultQueues() {
		paused[queue] = 0
	}
	for _, r := range rows {
		if r.Paused {
			paused[boundedQueue(r.Name)] = 1
		}
	}
	for queue, value := range paused {
		m.queuePaused.WithLabelValues(queue).Set(value)
	}
}

// setImports sets a gauge for every kind and state: the table allows no others.
func (m *metrics) setImports(rows []queries.ImportStatesRow) {
	open, ended, left := map[[2]string]float64{}, map[[2]string]float64{}, map[string]float64{}
	for _, kind := range importKinds {
		left[kind] = 0
		for _, state := range openStates {
			open[[2]string{kind, state}] = 0
		}
		for _, state := range endStates {
			ended[[2]string{kind, state}] = 0
		}
	}
	for _, r := range rows {
		key := [2]string{r.Kind, r.State}
		if r.Ended {
			ended[key] += float64(r.Imports)
			continue
		}
		open[key] += float64(r.Imports)
		left[r.Kind] += float64(r.RowsLeft)
	}
	for k, n := range open {
		m.importsOpen.WithLabelValues(k[0], k[1]).Set(n)
	}
	for k, n := range ended {
		m.importsEnded.WithLabelValues(k[0], k[1]).Set(n)
	}
	for kind, n := range left {
		m.importRowsLeft.WithLabelValues(kind).Set(n)
	}
}

func boundedQueue(name string) string {
	if _, known := DefaultQueues()[name]; known {
		return name
	}
	return "other"
}

// serverMetrics are the server's own figures, as they were last sampled.
type serverMetrics struct {
	last atomic.Pointer[queries.ServerFiguresRow]

	connections, limit, oldest       *prometheus.Desc
	transactions, deadlocks, touched *prometheus.Desc
}

func newServerMetrics() *serverMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("signpost_postgres_"+name, help+ofDatabase, labels, nil)
	}
	return &serverMetrics{
		connections:  desc("server_connections", "Clients connected to the server, of all databases."),
		limit:        desc("server_max_connections", "Most connections the server takes (max_connections)."),
		oldest:       desc("oldest_transaction_seconds", "Age of the oldest open transaction in the database."),
		transactions: desc("transactions_total", "Transactions of the database since the server's statistics began, by how they ended.", "result"),
		deadlocks:    desc("deadlocks_total", "Deadlocks in the database since the server's statistics began."),
		touched:      desc("blocks_total", "Blocks of the database that were needed, by where they were found.", "from"),
	}
}

// Describe implements [prometheus.Collector].
func (m *serverMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.connections, m.limit, m.oldest, m.transactions, m.deadlocks, m.touched} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (m *serverMetrics) Collect(ch chan<- prometheus.Metric) {
	f := m.last.Load()
	if f == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(m.connections, float64(f.Connections))
	gauge(m.limit, float64(f.MaxConnections))
	gauge(m.oldest, f.OldestTransactionSeconds)
	counter(m.transactions, f.Commits, "commit")
	counter(m.transactions, f.Rollbacks, "rollback")
	counter(m.deadlocks, f.Deadlocks)
	counter(m.touched, f.BlocksHit, "memory")
	counter(m.touched, f.BlocksRead, "disk")
}

func (d *deps) samplePartitions(ctx context.Context, q *queries.Queries) error {
	months, err := postgres.Months(ctx, d.pool)
	if err != nil {
		return err
	}
	parts, err := q.EventPartFigures(ctx)
	if err != nil {
		return err
	}
	due, err := d.toArchive(ctx, months, time.Now())
	if err != nil {
		return err
	}
	d.metrics.partitions.Set(float64(len(months)))
	d.metrics.monthsAhead.Set(float64(monthsAhead(months, time.Now())))
	d.metrics.monthsDue.Set(float64(len(due)))
	d.metrics.monthsRetired.Set(float64(parts.MonthsRetired))
	d.metrics.rowsRetired.Set(float64(parts.RowsRetired))
	d.metrics.partsOpen.Set(float64(parts.PartsOpen))
	d.metrics.oldestPart.Set(parts.OldestOpenSeconds)
	return nil
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
