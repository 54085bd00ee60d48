package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// upTimeout is how long a scrape waits for the server, and for a connection to it.
const upTimeout = time.Second

// poolMetrics reads the metrics of a pool at each scrape.
type poolMetrics struct {
	pool *pgxpool.Pool

	connections, limit                   *prometheus.Desc
	acquires, waits, waited, interrupted *prometheus.Desc
	opened                               *prometheus.Desc
}

// NewPoolMetrics returns the metrics of one pool of a process, for a registry. Their
// label pool has the name of the pool.
func NewPoolMetrics(name string, pool *pgxpool.Pool) prometheus.Collector {
	desc := func(metric, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("signpost_postgres_"+metric, help, labels, prometheus.Labels{"pool": name})
	}
	return &poolMetrics{
		pool:        pool,
		connections: desc("pool_connections", "Connections of this process to Postgres, by pool and state.", "state"),
		limit:       desc("pool_max_connections", "Most connections to Postgres that a pool of this process holds (its part of DB_MAX_CONNS)."),
		acquires:    desc("pool_acquires_total", "Connections taken from the pool."),
		waits:       desc("pool_waits_total", "Connections taken that had to be waited for, because all were in use or none was open."),
		waited:      desc("pool_acquire_seconds_total", "Time spent on taking connections."),
		interrupted: desc("pool_interrupted_total", "Waits for a connection that were given up."),
		opened:      desc("pool_connects_total", "Connections opened."),
	}
}

// Describe implements [prometheus.Collector].
func (m *poolMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.connections, m.limit, m.acquires, m.waits, m.waited, m.interrupted, m.opened} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (m *poolMetrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	s := m.pool.Stat()
	gauge(m.connections, float64(s.AcquiredConns()), "in_use")
	gauge(m.connections, float64(s.IdleConns()), "idle")
	gauge(m.connections, float64(s.ConstructingConns()), "opening")
	gauge(m.limit, float64(s.MaxConns()))
	counter(m.acquires, float64(s.AcquireCount()))
	counter(m.waits, float64(s.EmptyAcquireCount()))
	counter(m.waited, s.AcquireDuration().Seconds())
	counter(m.interrupted, float64(s.CanceledAcquireCount()))
	counter(m.opened, float64(s.NewConnsCount()))
}

// NewUpMetric returns a metric that says whether a pool reaches its server. Every
// scrape asks the server for a sign of life and waits at most a second for it. The
// metric is also 0 if all connections of the pool are in use for that long.
func NewUpMetric(pool *pgxpool.Pool) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "signpost_postgres_up",
		Help: "1 if this process reached Postgres within a second when it was asked for its metrics, else 0.",
	}, func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), upTimeout)
		defer cancel()
		if pool.Ping(ctx) != nil {
			return 0
		}
		return 1
	})
}
