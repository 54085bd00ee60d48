package linkcache

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	loads     *prometheus.CounterVec
	refreshes *prometheus.CounterVec
	changes   prometheus.Counter
	resyncs   prometheus.Counter
	polls     *prometheus.CounterVec
	snapshots *prometheus.CounterVec
}

func newMetrics(c *Cache, r prometheus.Registerer) *metrics {
	m := &metrics{
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_link_cache_loads_total", Help: "Links asked of Postgres because they were not cached.",
		}, []string{"result"}),
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_link_cache_refreshes_total", Help: "Cached links that were validated in the background.",
		}, []string{"result"}),
		changes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signpost_link_feed_changes_total", Help: "Changes of links that the feed brought.",
		}),
		resyncs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signpost_link_feed_resyncs_total", Help: "Times when all cached links had to be validated again.",
		}),
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_link_feed_polls_total", Help: "Polls of the change log.",
		}, []string{"result"}),
		snapshots: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_link_cache_snapshots_total", Help: "Snapshots of the cache written to disk.",
		}, []string{"result"}),
	}
	if r != nil {
		r.MustRegister(m.loads, m.refreshes, m.changes, m.resyncs, m.polls, m.snapshots)
		c.registerFigures(r)
	}
	return m
}

// registerFigures registers figures that are only worked out when they are collected,
// so that a lookup costs no more than a counter in its own shard.
func (c *Cache) registerFigures(r prometheus.Registerer) {
	lookups := func(result string, figure func(*shard) *atomic.Uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "signpost_link_cache_lookups_total", Help: "Lookups of redirects, by how they were answered.",
			ConstLabels: prometheus.Labels{"result": result},
		}, func() float64 { return c.count(figure) })
	}
	r.MustRegister(
		lookups("hit", func(s *shard) *atomic.Uint64 { return &s.hits }),
		lookups("stale", func(s *shard) *atomic.Uint64 { return &s.stales }),
		lookups("confirmed", func(s *shard) *atomic.Uint64 { return &s.confirms }),
		lookups("negative", func(s *shard) *atomic.Uint64 { return &s.negatives }),
		lookups("miss", func(s *shard) *atomic.Uint64 { return &s.misses }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "signpost_link_cache_evictions_total", Help: "Links pushed out of the full cache.",
		}, func() float64 { return c.count(func(s *shard) *atomic.Uint64 { return &s.evictions }) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "signpost_link_cache_entries", Help: "Links in the cache.",
		}, func() float64 { return float64(c.Len()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "signpost_link_feed_lag_seconds", Help: "Time since the last good poll of the change log; -1 before the first.",
		}, c.lag),
	)
}

func (c *Cache) lag() float64 {
	followed := c.epoch.Load().followed.Load()
	if followed == 0 {
		return -1
	}
	return time.Duration(c.now().UnixNano() - followed).Seconds()
}
