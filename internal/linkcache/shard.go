package linkcache

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// maxUsed is how many rounds of the clock hand an entry that was often asked for
// survives without being asked for again.
const maxUsed = 3

// maxMissing bounds the unknown keys that one shard remembers. They are kept
// apart from the links, so that a flood of them pushes no link out.
const maxMissing = 256

// usualTarget is how many bytes of targets a cache has room for, multiplied by the
// number of its links. If there are many longer targets, fewer links fit, so that the
// people who make links do not decide how much memory a process takes.
const usualTarget = 2048

// An entry is one cached link. Its fields are guarded by its shard, except for the
// atomic ones.
type entry struct {
	key     Key
	link    *Link
	validAt int64  // when link was last asked of the database
	epoch   *epoch // the epoch at validAt
	index   int    // in the shard's ring

	used   atomic.Int32
	wanted atomic.Bool // a load is going to validate it
}

// knownAt is when an entry was last known to be right.
func (e *entry) knownAt() int64 { return max(e.validAt, e.epoch.followed.Load()) }

// A shard holds the entries of some keys. When it is full, the clock hand goes round
// the ring and evicts the first entry that was not asked for since the last round. So a
// crawl that asks for many links once does not evict the hot ones.
type shard struct {
	mu      sync.RWMutex
	entries map[Key]*entry
	ring    []*entry
	hand    int
	size    int
	bytes   int           // of targets; at most size times usualTarget
	missing map[Key]int64 // unknown keys, and when each is forgotten
	loads   map[Key]*load // under way

	hits, stales, confirms, negatives, misses, evictions atomic.Uint64

	_ [64]byte // keeps neighbors off this shard's last cache line
}

func newShards(size int) []shard {
	n := 1
	for n < 64 && size/(2*n) >= 16 {
		n *= 2
	}
	shards := make([]shard, n)
	for i := range shards {
		shards[i].size = max((size+n-1)/n, 1)
		shards[i].entries = make(map[Key]*entry)
		shards[i].missing = make(map[Key]int64)
		shards[i].loads = make(map[Key]*load)
	}
	return shards
}

// shardOf spreads keys by their codes alone: few codes exist in many domains.
func (c *Cache) shardOf(key Key) *shard {
	return &c.shards[maphash.String(c.seed, key.code)&uint64(len(c.shards)-1)]
}

// add puts a new entry in. There must be no entry for its key.
func (s *shard) add(e *entry) {
	delete(s.missing, e.key)
	s.entries[e.key] = e
	s.bytes += len(e.link.Target)
	if len(s.ring) < s.size {
		e.index = len(s.ring)
		s.ring = append(s.ring, e)
	} else {
		old := s.coldest()
		delete(s.entries, old.key)
		s.bytes -= len(old.link.Target)
		s.evictions.Add(1)
		e.index = s.hand
		s.ring[s.hand] = e
		s.hand = (s.hand + 1) % len(s.ring)
	}
	s.shrink()
}

// set gives an entry the link that a query returned.
func (s *shard) set(e *entry, link *Link, seen view) {
	s.bytes += len(link.Target) - len(e.link.Target)
	e.link, e.validAt, e.epoch = link, seen.at, seen.epoch
	s.shrink()
}

// coldest moves the hand to the first entry that was not asked for since the last
// round. There must be at least one entry.
func (s *shard) coldest() *entry {
	for s.ring[s.hand].used.Load() > 0 {
		s.ring[s.hand].used.Add(-1)
		s.hand = (s.hand + 1) % len(s.ring)
	}
	return s.ring[s.hand]
}

// shrink evicts entries until the targets fit.
func (s *shard) shrink() {
	for s.bytes > s.size*usualTarget && len(s.ring) > 1 {
		s.remove(s.coldest())
		s.evictions.Add(1)
	}
}

func (s *shard) remove(e *entry) {
	delete(s.entries, e.key)
	s.bytes -= len(e.link.Target)
	last := len(s.ring) - 1
	s.ring[e.index] = s.ring[last]
	s.ring[e.index].index = e.index
	s.ring[last] = nil
	s.ring = s.ring[:last]
	if s.hand >= len(s.ring) {
		s.hand = 0
	}
}

// miss remembers that a key has no link.
func (s *shard) miss(key Key, until int64) {
	if len(s.missing) >= maxMissing {
		clear(s.missing) // each lives for less than a second anyway
	}
	s.missing[key] = until
}

// touch notes that the link of a key changed: the result of a load under way may be
// older, and an unknown key may have a link now.
func (s *shard) touch(key Key) {
	delete(s.missing, key)
	if running := s.loads[key]; running != nil {
		running.touched = true
	}
}

// count sums a figure over all shards.
func (c *Cache) count(figure func(*shard) *atomic.Uint64) float64 {
	var sum uint64
	for i := range c.shards {
		sum += figure(&c.shards[i]).Load()
	}
	return float64(sum)
}

// Len is how many links are cached.
func (c *Cache) Len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += len(s.entries)
		s.mu.RUnlock()
	}
	return n
}

// has reports whether a link of a key is cached.
func (c *Cache) has(key Key) bool {
	s := c.shardOf(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.entries[key] != nil
}
