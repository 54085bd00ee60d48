package linkcache

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signpost/signpost/internal/pause"
)

const (
	// sweepBatch is how many links a sweep validates with one query at first. While
	// Postgres is too slow for that, as after a failover to a server with nothing in
	// memory, the number is lowered step by step to leastBatch.
	sweepBatch, leastBatch = 1000, 50
	// maxSweeps bounds the queries of a sweep that are under way. It is a quarter of
	// the pool's connections, so that some are left for loads and shipping.
	maxSweeps    = 4
	sweepTimeout = 2 * time.Second
)

// beginEpoch begins a new epoch: all entries become stale and are validated again.
func (c *Cache) beginEpoch() {
	c.epoch.Store(&epoch{number: c.epoch.Load().number + 1})
	c.confirmAfter.Store(c.now().Add(grace).UnixNano())
	c.metrics.resyncs.Inc()
	c.wakeSweep()
}

func (c *Cache) wakeSweep() {
	c.dirty.Store(true)
	c.sweeps.Add(1)
	select {
	case c.swept <- struct{}{}:
	default:
	}
}

// sweep validates all stale entries whenever a new epoch has begun, until ctx ends.
func (c *Cache) sweep(ctx context.Context) {
	size := sweepBatch
	for {
		asked := c.sweeps.Load()
		if asked == 0 {
			select {
			case <-ctx.Done():
				return
			case <-c.swept:
			}
			continue
		}
		if c.sweepAll(ctx, size) {
			c.sweeps.Add(-asked)
			size = sweepBatch
			c.snapshotDue()
			continue
		}
		size = max(size/4, leastBatch)
		if pause.For(ctx, failedPause) != nil {
			return
		}
	}
}

// sweepAll validates stale entries, the recently used ones first. It repeats until it
// finds no more, because entries move while it looks. It reports whether all queries
// succeeded.
func (c *Cache) sweepAll(ctx context.Context, size int) bool {
	lately := true
	for {
		found, ok := c.sweepPass(ctx, size, lately)
		if !ok {
			return false
		}
		if !found && !lately {
			return true
		}
		lately = false
	}
}

// sweepPass goes over all entries once, with a few queries under way at a time.
func (c *Cache) sweepPass(ctx context.Context, size int, lately bool) (found, ok bool) {
	var failed atomic.Bool
	var all sync.WaitGroup
	slots := make(chan struct{}, min(maxSweeps, max(1, int(c.pool.Config().MaxConns)/4)))
	for batch := range c.staleKeys(size, lately) {
		found = true
		slots <- struct{}{}
		all.Go(func() {
			if !c.revalidate(ctx, batch) {
				failed.Store(true)
			}
			<-slots
		})
		if failed.Load() {
			break
		}
	}
	all.Wait()
	return found, !failed.Load()
}

// staleKeys yields the keys of stale entries that no load is about to validate, up to
// size at a time; with lately only those that were recently asked for.
func (c *Cache) staleKeys(size int, lately bool) func(yield func([]Key) bool) {
	return func(yield func([]Key) bool) {
		epoch := c.epoch.Load()
		var batch []Key
		for i := range c.shards {
			s := &c.shards[i]
			for at := 0; ; {
				s.mu.RLock()
				for ; at < len(s.ring) && len(batch) < size; at++ {
					e := s.ring[at]
					if e.epoch != epoch && (!lately || e.used.Load() > 0) && e.wanted.CompareAndSwap(false, true) {
						batch = append(batch, e.key)
					}
				}
				s.mu.RUnlock()
				if len(batch) < size {
					break
				}
				if !yield(batch) {
					return
				}
				batch = nil
			}
		}
		if len(batch) > 0 {
			yield(batch)
		}
	}
}

// revalidate asks Postgres for links that are cached.
func (c *Cache) revalidate(ctx context.Context, keys []Key) bool {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	seen := c.look()
	found, err := c.resolve(ctx, c.queries, keys)
	if err != nil {
		c.metrics.refreshes.WithLabelValues("unavailable").Add(float64(len(keys)))
		c.log.DebugContext(ctx, "validate cached links", slog.Any("error", err))
		c.unwant(keys)
		return false
	}
	c.apply(changesOf(keys, found), seen, false)
	c.metrics.refreshes.WithLabelValues("done").Add(float64(len(keys)))
	return true
}

func changesOf(keys []Key, found map[Key]*Link) []change {
	changes := make([]change, len(keys))
	for i, key := range keys {
		changes[i] = change{key, found[key]}
	}
	return changes
}

func (c *Cache) unwant(keys []Key) {
	for _, key := range keys {
		s := c.shardOf(key)
		s.mu.RLock()
		if e := s.entries[key]; e != nil {
			e.wanted.Store(false)
		}
		s.mu.RUnlock()
	}
}
