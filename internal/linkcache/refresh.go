package linkcache

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/queries"
)

const (
	// refreshBatch is how many links that were asked for are validated with one
	// query.
	refreshBatch = 500
	// sweepBatch is the same for those that nobody asked for, at first. While
	// Postgres is too slow for it, as after a failover with nothing in memory,
	// it is divided down to leastBatch.
	sweepBatch, leastBatch = 1000, 50
	// maxSweeps is how many queries of a sweep are under way at most. Of the
	// pool's connections it is a quarter, so that loads and shipping find some.
	maxSweeps      = 4
	refreshTimeout = 2 * time.Second
	// refreshPause follows a batch that failed.
	refreshPause = 200 * time.Millisecond
)

// refresh validates entries that were found stale by a lookup, until ctx ends.
// It has a goroutine of its own, so that none of them waits for a sweep.
func (c *Cache) refresh(ctx context.Context) {
	for {
		batch := c.takeWanted(ctx)
		if ctx.Err() != nil {
			return
		}
		if !c.revalidate(ctx, batch) && !wait(ctx, refreshPause) {
			return
		}
	}
}

// takeWanted waits for a code that was asked for and takes what waits with it.
func (c *Cache) takeWanted(ctx context.Context) []string {
	var batch []string
	select {
	case <-ctx.Done():
		return nil
	case code := <-c.wanted:
		batch = append(batch, code)
	}
	for len(batch) < refreshBatch {
		select {
		case code := <-c.wanted:
			batch = append(batch, code)
		default:
			return batch
		}
	}
	return batch
}

// sweep validates all stale entries whenever the feed lost the thread, until
// ctx ends.
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
			continue
		}
		size = max(size/4, leastBatch)
		if !wait(ctx, refreshPause) {
			return
		}
	}
}

// sweepAll validates what is stale, the links that were asked for lately first.
// It goes on until it finds no more: entries move while it looks. It reports
// whether all went well.
func (c *Cache) sweepAll(ctx context.Context, size int) bool {
	if _, ok := c.sweepPass(ctx, size, true); !ok {
		return false
	}
	for {
		found, ok := c.sweepPass(ctx, size, false)
		if !ok {
			return false
		}
		if !found {
			return true
		}
	}
}

// sweepPass goes over all entries once, with a few queries under way.
func (c *Cache) sweepPass(ctx context.Context, size int, lately bool) (found, ok bool) {
	var failed atomic.Bool
	var all sync.WaitGroup
	slots := make(chan struct{}, min(maxSweeps, max(1, int(c.pool.Config().MaxConns)/4)))
	at := cursor{lately: lately}
	for !failed.Load() {
		slots <- struct{}{}
		batch := c.takeStale(&at, size)
		if len(batch) == 0 {
			break
		}
		found = true
		all.Go(func() {
			if !c.revalidate(ctx, batch) {
				failed.Store(true)
			}
			<-slots
		})
	}
	all.Wait()
	return found, !failed.Load()
}

// A cursor is how far a pass has come.
type cursor struct {
	lately      bool // take only what was asked for lately
	shard, slot int
}

// takeStale takes up to size stale entries that nobody has taken yet, from the
// cursor on; none means that the pass is over.
func (c *Cache) takeStale(at *cursor, size int) []string {
	epoch := c.epoch.Load()
	batch := make([]string, 0, size)
	for ; at.shard < len(c.shards); at.shard, at.slot = at.shard+1, 0 {
		s := &c.shards[at.shard]
		s.mu.RLock()
		for ; at.slot < len(s.ring) && len(batch) < size; at.slot++ {
			e := s.ring[at.slot]
			if e.epoch != epoch && (!at.lately || e.used.Load() > 0) && e.wanted.CompareAndSwap(false, true) {
				batch = append(batch, e.code)
			}
		}
		s.mu.RUnlock()
		if len(batch) >= size {
			break
		}
	}
	return batch
}

// revalidate asks Postgres for links that are cached.
func (c *Cache) revalidate(ctx context.Context, codes []string) bool {
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	seen := c.look()
	rows, err := c.queries.ResolveLinks(ctx, codes)
	if err != nil {
		c.metrics.refreshes.WithLabelValues("unavailable").Add(float64(len(codes)))
		c.log.DebugContext(ctx, "validate cached links", slog.Any("error", err))
		c.unwant(codes)
		return false
	}
	found := make(map[string]*Link, len(rows))
	for _, row := range rows {
		found[row.ShortCode] = resolved(row)
	}
	c.learning.Lock()
	defer c.learning.Unlock()
	c.record(c.changedIn(codes, found), seen)
	for _, code := range codes {
		c.settle(code, found[code], seen)
	}
	c.metrics.refreshes.WithLabelValues("done").Add(float64(len(codes)))
	return true
}

func resolved(row queries.ResolveLinksRow) *Link {
	return &Link{
		ID: row.ID, UserID: row.UserID, Target: links.Location(row.OriginalURL), Active: row.IsActive,
		ExpiresAt: timeOf(row.ExpiresAt), Status: int(row.RedirectStatus), ForwardQuery: row.ForwardQuery,
		Version: row.Version,
	}
}

// settle gives an entry what its validation saw, unless something newer came
// first.
func (c *Cache) settle(code string, link *Link, seen view) {
	s := c.shardOf(code)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer(code)
	e := s.entries[code]
	if e == nil {
		return
	}
	e.wanted.Store(false)
	if link == nil || link.Version != e.link.Version {
		c.dirty.Store(true)
	}
	if !c.replace(s, e, link, seen) && e.stamp < seen.tick {
		s.remove(e) // it is gone, or another link by now
	}
}

// changedIn is what a validation may change, for the journal.
func (c *Cache) changedIn(codes []string, found map[string]*Link) []change {
	if c.journal == nil {
		return nil
	}
	var changes []change
	for _, code := range codes {
		s := c.shardOf(code)
		s.mu.RLock()
		e := s.entries[code]
		link := found[code]
		if e != nil && (link == nil || link.ID != e.link.ID || link.Version != e.link.Version) {
			changes = append(changes, change{code: code, link: link})
		}
		s.mu.RUnlock()
	}
	return changes
}

func (c *Cache) unwant(codes []string) {
	for _, code := range codes {
		s := c.shardOf(code)
		s.mu.Lock()
		s.answer(code)
		if e := s.entries[code]; e != nil {
			e.wanted.Store(false)
		}
		s.mu.Unlock()
	}
}

// wait reports whether it waited to the end.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
