package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// upTimeout is how long a scrape waits for the server, and for a connection to it.
const upTimeout = time.Second

// RegisterPool registers the metrics of one pool of a process. Their label pool has the
// name of the pool.
func RegisterPool(registry prometheus.Registerer, name string, pool *pgxpool.Pool) {
	with := promauto.With(prometheus.WrapRegistererWith(prometheus.Labels{"pool": name}, registry))
	counter := func(metric, help string, value func(*pgxpool.Stat) float64) {
		with.NewCounterFunc(prometheus.CounterOpts{Name: "signpost_postgres_pool_" + metric, Help: help},
			func() float64 { return value(pool.Stat()) })
	}
	connections := func(state string, value func(*pgxpool.Stat) int32) {
		with.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "signpost_postgres_pool_connections", Help: "Connections of this process to Postgres, by pool and state.",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 { return float64(value(pool.Stat())) })
	}
	connections("in_use", (*pgxpool.Stat).AcquiredConns)
	connections("idle", (*pgxpool.Stat).IdleConns)
	connections("opening", (*pgxpool.Stat).ConstructingConns)
	with.NewGauge(prometheus.GaugeOpts{
		Name: "signpost_postgres_pool_max_connections",
		Help: "Most connections to Postgres that a pool of this process holds (its part of DB_MAX_CONNS).",
	}).Set(float64(pool.Stat().MaxConns()))
	counter("acquires_total", "Connections taken from the pool.",
		func(s *pgxpool.Stat) float64 { return float64(s.AcquireCount()) })
	counter("waits_total", "Connections taken that had to be waited for, because all were in use or none was open.",
		func(s *pgxpool.Stat) float64 { return float64(s.EmptyAcquireCount()) })
	counter("acquire_seconds_total", "Time spent on taking connections.",
		func(s *pgxpool.Stat) float64 { return s.AcquireDuration().Seconds() })
	counter("interrupted_total", "Waits for a connection that were given up.",
		func(s *pgxpool.Stat) float64 { return float64(s.CanceledAcquireCount()) })
	counter("connects_total", "Connections opened.",
		func(s *pgxpool.Stat) float64 { return float64(s.NewConnsCount()) })
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
