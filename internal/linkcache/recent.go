package linkcache

import (
	"sync"
	"sync/atomic"
)

const (
	// maxRecent is how many changes are remembered, in about 2 MB. Links that were
	// stored in Redis before the oldest of them are loaded from Postgres again.
	maxRecent = 32_768
	// startRecent is how many of the latest changes are read when the feed begins.
	startRecent = 10_000
	// maxOwn bounds the changes of this process that its feed has not brought yet.
	maxOwn = 4096
)

// A place says how far a feed has read a history: all transactions with an xid below
// low had ended, so that a query that begins later sees all their changes.
type place struct {
	history string
	low     int64
}

// recent remembers the latest changes of the feed. With it the cache decides whether a
// link that another process read at some place is still right: it is, unless this
// process knows of a change by a transaction that may not have ended by then. Later
// changes come with the feed, as for any cached link.
type recent struct {
	// here is how far this process's feed has come, nil while that is unknown.
	here atomic.Pointer[place]

	mu sync.RWMutex
	// last holds all changes that the feed has read whose xid is at least floor.
	floor int64
	last  map[uint64]int64 // the highest xid that changed a key, by the key's hash
	order []keyXid         // as they came, the oldest at next once it is full
	next  int
	// own holds the keys that this process changed, and when, until the feed reads
	// those changes.
	own map[uint64]int64
}

type keyXid struct {
	key uint64
	xid int64
}

// begin removes all. The caller then adds the changes from floor on.
func (r *recent) begin(floor int64) {
	r.here.Store(nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.floor, r.order, r.next, r.last = floor, nil, 0, make(map[uint64]int64)
}

// raise makes changes with an xid below floor count as unknown.
func (r *recent) raise(floor int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.floor = max(r.floor, floor)
}

// add remembers that a transaction changed a key. It is called before the change is
// applied.
func (r *recent) add(key uint64, xid int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last[key] >= xid {
		return
	}
	r.last[key] = xid
	if len(r.order) < maxRecent {
		r.order = append(r.order, keyXid{key, xid})
		return
	}
	old := r.order[r.next]
	if r.last[old.key] == old.xid {
		delete(r.last, old.key)
	}
	r.floor = max(r.floor, old.xid+1)
	r.order[r.next] = keyXid{key, xid}
	r.next = (r.next + 1) % maxRecent
}

// owns notes that this process has just changed keys: until the feed has read those
// changes, only Postgres is asked for the keys.
func (r *recent) owns(at int64, keys ...uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.own == nil {
		r.own = make(map[uint64]int64)
	}
	for _, key := range keys {
		r.own[key] = at
	}
	if len(r.own) > maxOwn { // until the next poll, Postgres alone is asked
		clear(r.own)
		r.here.Store(nil)
	}
}

// reach publishes how far the feed has come. It is called when all changes up to there
// are applied; began is when the poll began.
func (r *recent) reach(p place, began int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.here.Store(&p)
	for key, at := range r.own {
		if at < began {
			delete(r.own, key)
		}
	}
}

// confirms reports whether a link that was read at a place of this history is right.
func (r *recent) confirms(key uint64, low int64) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, own := r.own[key]
	return r.here.Load() != nil && !own && low >= r.floor && r.last[key] < low
}
