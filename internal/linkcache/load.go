package linkcache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/signpost/signpost/queries"
)

const (
	// loadTimeout bounds how long a redirect that is not cached waits.
	loadTimeout = time.Second
	// complainEvery is how often failing lookups are logged.
	complainEvery = time.Minute
	// maxQueries and maxWaiting bound the part of the pool that a flood of unknown
	// codes can occupy: at most half of its connections. Loads that wait are asked for
	// together, up to maxTogether with one query, so that a link that is cached nowhere
	// waits for a few queries, and not for one query for each key before it.
	maxQueries  = 8
	maxWaiting  = 16_384
	maxTogether = 256
	// maxTries is how often a load is repeated because its key changed while it ran.
	maxTries = 3
	// failedPause is how long no cached link is validated after a query failed.
	failedPause = 200 * time.Millisecond
)

// A load is a query to Postgres for one key that is under way. All lookups that need
// the key wait for the same load.
type load struct {
	key    Key
	since  time.Time
	renews bool // the key has an entry

	touched bool // the key changed since the load began; guarded by the shard
	tries   int

	done chan struct{} // closed when the rest is set
	link *Link
	err  error
}

// join returns the load of a key that is under way. If there is none, it begins one
// (own is true), and the caller has to make sure that it is answered. The shard is
// locked.
func (s *shard) join(key Key) (l *load, own bool) {
	if l := s.loads[key]; l != nil {
		return l, false
	}
	key = key.clone()
	l = &load{key: key, since: time.Now(), renews: s.entries[key] != nil, done: make(chan struct{})}
	s.loads[key] = l
	return l, true
}

// wait returns the result of a load, or an error that wraps [ErrUnavailable] if it
// takes too long.
func (l *load) wait(ctx context.Context, d time.Duration) (*Link, error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-l.done:
		return l.link, l.err
	case <-timer.C:
		return nil, fmt.Errorf("%w: no answer within %s", ErrUnavailable, d)
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

// miss loads a link that is not cached. Concurrent misses of one key share one load.
// The other key, if it is not empty, is loaded with the same query.
func (c *Cache) miss(ctx context.Context, s *shard, key, other Key) (*Link, error) {
	s.misses.Add(1)
	s.mu.Lock()
	if link, err, known := c.recheck(s, key); known {
		s.mu.Unlock()
		return link, err
	}
	l, own := s.join(key)
	s.mu.Unlock()
	if own && !c.lookupShared(ctx, s, l) {
		c.ask(append(c.alongside(other), l)...)
	}
	link, err := l.wait(ctx, loadTimeout)
	if errors.Is(err, ErrUnavailable) {
		c.complain(ctx, err)
	}
	return link, err
}

// recheck looks again under the shard's lock: another miss may have just ended.
func (c *Cache) recheck(s *shard, key Key) (link *Link, err error, known bool) {
	now := c.now().UnixNano()
	if e := s.entries[key]; e != nil {
		return e.link, nil, now-e.knownAt() <= c.staleMax
	}
	return nil, ErrNotFound, unknown(now, s.missing[key])
}

// alongside begins a load of a second key, unless it is cached or known to have no
// link.
func (c *Cache) alongside(key Key) []*load {
	if key.code == "" {
		return nil
	}
	s := c.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[key] != nil || unknown(c.now().UnixNano(), s.missing[key]) {
		return nil
	}
	l, own := s.join(key)
	if !own {
		return nil
	}
	return []*load{l}
}

// want has a stale entry validated soon, unless a load is already going to do so.
func (c *Cache) want(s *shard, e *entry) {
	if e.wanted.Load() || c.now().UnixNano() < c.pausedUntil.Load() || !e.wanted.CompareAndSwap(false, true) {
		return
	}
	s.mu.Lock()
	l, own := s.join(e.key)
	s.mu.Unlock()
	if own {
		c.ask(l)
	}
}

// confirm waits for a stale entry to be validated. If that takes too long or fails, it
// returns the entry's link as it is.
func (c *Cache) confirm(ctx context.Context, s *shard, key Key) (*Link, error) {
	s.mu.Lock()
	e := s.entries[key]
	if e == nil {
		s.mu.Unlock()
		return c.miss(ctx, s, key, Key{})
	}
	stale := e.link
	now := c.now().UnixNano()
	if current(now, e.knownAt()) || now < c.pausedUntil.Load() {
		s.mu.Unlock()
		s.stales.Add(1)
		return stale, nil
	}
	l, own := s.join(key)
	s.mu.Unlock()
	if own {
		c.ask(l)
	}
	link, err := l.wait(ctx, confirmTimeout)
	if errors.Is(err, ErrUnavailable) {
		s.stales.Add(1)
		return stale, nil
	}
	s.confirms.Add(1)
	return link, err
}

// complain logs why a lookup failed, once in complainEvery. The client is only told to
// come back, so without the log the operator would not learn of lookups that took too
// long.
func (c *Cache) complain(ctx context.Context, err error) {
	now, last := time.Now().UnixNano(), c.complained.Load()
	if now-last < int64(complainEvery) || !c.complained.CompareAndSwap(last, now) {
		return
	}
	c.log.WarnContext(ctx, "a link that is not cached could not be looked up", slog.Any("error", err))
}

// ask puts loads into the line, together, and makes sure that a goroutine serves the
// line.
func (c *Cache) ask(loads ...*load) {
	select {
	case c.line <- loads:
	default:
		c.refuse(loads, "too many lookups are waiting")
		return
	}
	select {
	case c.slots <- struct{}{}:
		go c.serve()
	default:
	}
}

// serve asks Postgres for the loads in the line, and ends when the line is empty.
func (c *Cache) serve() {
	for {
		for batch := c.together(); len(batch) > 0; batch = c.together() {
			c.loadAll(batch)
		}
		<-c.slots
		if len(c.line) == 0 {
			return
		}
		select { // a load that came just now found no slot
		case c.slots <- struct{}{}:
		default:
			return
		}
	}
}

// together takes the loads at the front of the line. It gives up loads that have been
// there so long that no lookup waits for them anymore.
func (c *Cache) together() []*load {
	var batch []*load
	for len(batch) < maxTogether {
		select {
		case loads := <-c.line:
			if time.Since(loads[0].since) > loadTimeout {
				c.refuse(loads, "it waited for too long")
				continue
			}
			batch = append(batch, loads...)
		default:
			return batch
		}
	}
	return batch
}

func (c *Cache) refuse(loads []*load, reason string) {
	for _, l := range loads {
		c.counter(l, "refused")
		c.end(l, nil, fmt.Errorf("%w: %s", ErrUnavailable, reason), view{})
	}
}

// counter returns the counter for the result of a load.
func (c *Cache) counter(l *load, result string) {
	switch {
	case !l.renews:
		c.metrics.loads.WithLabelValues(result).Inc()
	case result == "found" || result == "not_found":
		c.metrics.refreshes.WithLabelValues("done").Inc()
	default:
		c.metrics.refreshes.WithLabelValues("unavailable").Inc()
	}
}

// loadAll asks Postgres for links with one query.
func (c *Cache) loadAll(loads []*load) {
	ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	keys := make([]Key, len(loads))
	for i, l := range loads {
		keys[i] = l.key
	}
	seen := c.look()
	found, err := c.resolve(ctx, c.queries, keys)
	if err != nil {
		c.pausedUntil.Store(c.now().Add(failedPause).UnixNano())
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for _, l := range loads {
		link := found[l.key]
		switch {
		case err != nil:
			c.counter(l, "unavailable")
		case link == nil:
			c.counter(l, "not_found")
		default:
			c.counter(l, "found")
		}
		c.end(l, link, err, seen)
	}
}

// resolve asks Postgres for the links of keys.
func (c *Cache) resolve(ctx context.Context, q *queries.Queries, keys []Key) (map[Key]*Link, error) {
	domains, codes := make([]int64, len(keys)), make([]string, len(keys))
	for i, key := range keys {
		domains[i], codes[i] = key.domain, key.code
	}
	rows, err := q.ResolveLinks(ctx, domains, codes)
	if err != nil {
		return nil, fmt.Errorf("resolve links: %w", err)
	}
	found := make(map[Key]*Link, len(rows))
	for _, row := range rows {
		key, link := linkOf(row)
		found[key] = link
	}
	return found, nil
}

// end stores the result of a load and gives it to the lookups that wait. If the feed
// reported a change of the key while the load ran, the result may lack that change:
// then the load is repeated, and after maxTries the result is given without being
// stored.
func (c *Cache) end(l *load, link *Link, err error, seen view) {
	s := c.shardOf(l.key)
	s.mu.Lock()
	if err == nil && l.touched && l.tries < maxTries {
		l.touched = false
		l.tries++
		s.mu.Unlock()
		c.ask(l)
		return
	}
	var kept *entry
	if err == nil && !l.touched {
		kept = c.keep(s, l.key, link, seen)
	}
	if e := s.entries[l.key]; e != nil {
		e.wanted.Store(false)
	}
	delete(s.loads, l.key)
	s.mu.Unlock()
	if err == nil && link == nil {
		err = ErrNotFound
	}
	l.link, l.err = link, err
	close(l.done)
	if kept == nil {
		return
	}
	c.dirty.Store(true)
	c.fill(fill{key: l.key, link: link, seen: seen})
	if seen.epoch != c.epoch.Load() {
		c.want(s, kept) // the feed may have missed changes, and a sweep may have passed this entry by
	}
}

// keep stores the result of a load, nil if there is no link, and returns the entry that
// now has it. The shard is locked. An existing entry was stored before the load began.
// So if the result is another link, or none, it is the newer one.
func (c *Cache) keep(s *shard, key Key, link *Link, seen view) *entry {
	if e := s.entries[key]; e != nil {
		c.dirty.Store(true)
		if replace(s, e, link, seen) {
			return e
		}
		s.remove(e)
	}
	if link == nil {
		s.miss(key, seen.at+int64(missingFor))
		return nil
	}
	e := &entry{key: key, link: link, validAt: seen.at, epoch: seen.epoch}
	s.add(e)
	return e
}
