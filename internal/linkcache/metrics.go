package linkcache

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	loads     *prometheus.CounterVec
	refreshes *prometheus.CounterVec
	changes   prometheus.Counter
	resyncs   prometheus.Counter
	polls     *prometheus.CounterVec
	snapshots *prometheus.CounterVec

	// These are nil without Redis.
	shared        *prometheus.CounterVec
	sharedDropped prometheus.Counter
}

func newMetrics(c *Cache, r prometheus.Registerer) *metrics {
	with := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return with.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	byResult := func(name, help string) *prometheus.CounterVec {
		return with.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"result"})
	}
	// These figures are only worked out when they are collected, so that a lookup costs
	// no more than a counter in its own shard.
	lookups := func(result string, figure func(*shard) *atomic.Uint64) {
		with.NewCounterFunc(prometheus.CounterOpts{
			Name: "signpost_link_cache_lookups_total", Help: "Lookups of redirects, by how they were answered.",
			ConstLabels: prometheus.Labels{"result": result},
		}, func() float64 { return c.count(figure) })
	}
	lookups("hit", func(s *shard) *atomic.Uint64 { return &s.hits })
	lookups("stale", func(s *shard) *atomic.Uint64 { return &s.stales })
	lookups("confirmed", func(s *shard) *atomic.Uint64 { return &s.confirms })
	lookups("negative", func(s *shard) *atomic.Uint64 { return &s.negatives })
	lookups("miss", func(s *shard) *atomic.Uint64 { return &s.misses })
	with.NewCounterFunc(prometheus.CounterOpts{
		Name: "signpost_link_cache_evictions_total", Help: "Links pushed out of the full cache.",
	}, func() float64 { return c.count(func(s *shard) *atomic.Uint64 { return &s.evictions }) })
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "signpost_link_cache_entries", Help: "Links in the cache.",
	}, func() float64 { return float64(c.Len()) })
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "signpost_link_feed_lag_seconds", Help: "Time since the last good poll of the change log; -1 before the first.",
	}, c.lag)
	m := &metrics{
		loads:     byResult("signpost_link_cache_loads_total", "Links asked of Postgres because they were not cached."),
		refreshes: byResult("signpost_link_cache_refreshes_total", "Cached links that were validated in the background."),
		changes:   counter("signpost_link_feed_changes_total", "Changes of links that the feed brought."),
		resyncs:   counter("signpost_link_feed_resyncs_total", "Times when all cached links had to be validated again."),
		polls:     byResult("signpost_link_feed_polls_total", "Polls of the change log."),
		snapshots: byResult("signpost_link_cache_snapshots_total", "Snapshots of the cache written to disk."),
	}
	if c.redis != nil {
		m.shared = byResult("signpost_link_cache_shared_total",
			"Answers of Redis to lookups: used, none, outdated (the link may have changed since), damaged.")
		m.sharedDropped = counter("signpost_link_cache_shared_dropped_total", "Links not told to Redis, because too many waited.")
	}
	return m
}

// Figures tell what a cache holds, and what it has done since it was opened.
type Figures struct {
	Links, Size int   // in it, and at most
	Hits        int64 // lookups that were answered from memory
	Misses      int64
	Redis       string // none, up or down
}

// Figures returns the figures of the cache.
func (c *Cache) Figures() Figures {
	f := Figures{Links: c.Len(), Size: c.size, Redis: "none"}
	for i := range c.shards {
		s := &c.shards[i]
		f.Hits += int64(s.hits.Load() + s.stales.Load() + s.confirms.Load() + s.negatives.Load())
		f.Misses += int64(s.misses.Load())
	}
	if c.redis != nil {
		f.Redis = "down"
		if c.redis.Up() {
			f.Redis = "up"
		}
	}
	return f
}

func (c *Cache) lag() float64 {
	followed := c.epoch.Load().followed.Load()
	if followed == 0 {
		return -1
	}
	return time.Duration(c.now().UnixNano() - followed).Seconds()
}
