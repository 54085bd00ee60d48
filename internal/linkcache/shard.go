package linkcache

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

// maxUsed is how many rounds of the clock an entry that was asked for often
// survives without being asked for again.
const maxUsed = 3

// maxMissing bounds the unknown codes that one shard remembers. They are kept
// apart from the links, so that a flood of them pushes no link out.
const maxMissing = 256

// usualTarget is how many bytes of targets a cache has room for, for each of its
// links. Where longer ones are many, fewer links fit, so that whoever makes links
// does not decide how much memory a process takes.
const usualTarget = 2048

// An entry is one cached link. Its plain fields are guarded by its shard.
type entry struct {
	code    string
	link    *Link
	stamp   int64  // tick at which link was stored
	validAt int64  // when link was last asked of the database
	epoch   uint64 // epoch in which that was
	slot    int    // place in the shard's ring

	used   atomic.Int32
	wanted atomic.Bool // waits for the refresher
}

// A call is a load under way.
type call struct {
	touched bool // a change of the code was seen meanwhile; guarded by the shard
	renews  bool // there is an entry that is too old
	done    chan struct{}
	link    *Link // valid once done is closed
	err     error
}

// A shard holds the entries of some codes. When it is full, the clock hand
// goes round the ring and evicts the first entry that was not asked for since:
// a crawl over many links that are each asked for once leaves the hot ones be.
type shard struct {
	mu      sync.RWMutex
	entries map[string]*entry
	ring    []*entry
	hand    int
	size    int
	held    int              // bytes of targets; at most size times usualTarget
	missing map[string]int64 // unknown codes, and until when they are
	calls   map[string]*call
	asked   map[string]chan struct{} // stale codes that lookups wait for

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
		shards[i].entries = make(map[string]*entry)
		shards[i].missing = make(map[string]int64)
		shards[i].calls = make(map[string]*call)
		shards[i].asked = make(map[string]chan struct{})
	}
	return shards
}

func (c *Cache) shardOf(code string) *shard {
	return &c.shards[maphash.String(c.seed, code)&uint64(len(c.shards)-1)]
}

func cloneString(s string) string { return strings.Clone(s) }

// add puts a new entry in; there must be none of its code.
func (s *shard) add(e *entry) {
	delete(s.missing, e.code)
	s.entries[e.code] = e
	s.held += len(e.link.Target)
	if len(s.ring) < s.size {
		e.slot = len(s.ring)
		s.ring = append(s.ring, e)
	} else {
		old := s.coldest()
		delete(s.entries, old.code)
		s.held -= len(old.link.Target)
		s.evictions.Add(1)
		e.slot = s.hand
		s.ring[s.hand] = e
		s.hand = (s.hand + 1) % len(s.ring)
	}
	s.shrink()
}

// coldest moves the hand to the first entry that was not asked for since it
// came by; there must be one entry at least.
func (s *shard) coldest() *entry {
	for s.ring[s.hand].used.Load() > 0 {
		s.ring[s.hand].used.Add(-1)
		s.hand = (s.hand + 1) % len(s.ring)
	}
	return s.ring[s.hand]
}

// shrink evicts entries until there is room for the targets of the others.
func (s *shard) shrink() {
	for s.held > s.size*usualTarget && len(s.ring) > 1 {
		s.remove(s.coldest())
		s.evictions.Add(1)
	}
}

func (s *shard) remove(e *entry) {
	delete(s.entries, e.code)
	s.held -= len(e.link.Target)
	last := len(s.ring) - 1
	s.ring[e.slot] = s.ring[last]
	s.ring[e.slot].slot = e.slot
	s.ring[last] = nil
	s.ring = s.ring[:last]
	if s.hand >= len(s.ring) {
		s.hand = 0
	}
}

// miss remembers that there is no link of a code.
func (s *shard) miss(code string, until int64) {
	if len(s.missing) >= maxMissing {
		clear(s.missing) // each lives for less than a second anyway
	}
	s.missing[code] = until
}

// touch notes that the link of a code changed: what a load under way brings
// may be older, and an unknown code may be known now.
func (s *shard) touch(code string) {
	delete(s.missing, code)
	if running := s.calls[code]; running != nil {
		running.touched = true
	}
}

// ask returns what is closed when the entry of a code was validated, or could
// not be.
func (s *shard) ask(code string) <-chan struct{} {
	answered := s.asked[code]
	if answered == nil {
		answered = make(chan struct{})
		s.asked[code] = answered
	}
	return answered
}

// answer wakes those who wait for the entry of a code.
func (s *shard) answer(code string) {
	if answered := s.asked[code]; answered != nil {
		close(answered)
		delete(s.asked, code)
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
