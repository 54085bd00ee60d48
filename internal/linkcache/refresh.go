package linkcache

import (
	"context"
	"log/slog"
	"time"

	"github.com/signpost/signpost/queries"
)

const (
	// refreshBatch is how many links are validated with one query.
	refreshBatch   = 500
	refreshTimeout = time.Second
	// refreshPause follows a batch that failed.
	refreshPause = 200 * time.Millisecond
)

// refresh validates stale entries until ctx ends: first those that were asked
// for, then, after the feed lost the thread, all others.
func (c *Cache) refresh(ctx context.Context) {
	serving := int64(0) // sweeps that the one under way serves
	cursor := 0         // the shard it has come to
	for {
		batch := c.takeWanted(ctx, serving == 0)
		if ctx.Err() != nil {
			return
		}
		if n := c.sweeps.Load(); n > serving {
			serving, cursor = n, 0 // an entry may be stale again: start over
		}
		if serving > 0 {
			batch, cursor = c.takeStale(batch, cursor)
		}
		if len(batch) > 0 && !c.revalidate(ctx, batch) {
			cursor = 0 // the batch is still stale
			if !wait(ctx, refreshPause) {
				return
			}
			continue
		}
		if serving > 0 && cursor == len(c.shards) {
			c.sweeps.Add(-serving)
			serving = 0
		}
	}
}

// takeWanted collects codes that were asked for; with block it waits for one
// or for a sweep.
func (c *Cache) takeWanted(ctx context.Context, block bool) []string {
	var batch []string
	if block {
		select {
		case <-ctx.Done():
			return nil
		case <-c.swept:
		case code := <-c.wanted:
			batch = append(batch, code)
		}
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

// takeStale fills a batch with stale entries of the shards from cursor on. It
// leaves the cursor on a shard that has more.
func (c *Cache) takeStale(batch []string, cursor int) ([]string, int) {
	epoch := c.epoch.Load()
	for ; cursor < len(c.shards); cursor++ {
		s := &c.shards[cursor]
		s.mu.RLock()
		for _, e := range s.ring {
			if e.epoch == epoch {
				continue
			}
			if len(batch) >= refreshBatch {
				s.mu.RUnlock()
				return batch, cursor
			}
			batch = append(batch, e.code)
		}
		s.mu.RUnlock()
	}
	return batch, cursor
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
		ID: row.ID, UserID: row.UserID, Target: row.OriginalURL, Active: row.IsActive,
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
	e := s.entries[code]
	if e == nil {
		return
	}
	e.wanted.Store(false)
	if link == nil || link.Version != e.link.Version {
		c.dirty.Store(true)
	}
	if !c.replace(e, link, seen) && e.stamp < seen.tick {
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
		s.mu.RLock()
		if e := s.entries[code]; e != nil {
			e.wanted.Store(false)
		}
		s.mu.RUnlock()
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
