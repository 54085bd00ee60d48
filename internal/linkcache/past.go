package linkcache

import (
	"slices"
	"sync"

	"github.com/signpost/signpost/queries"
)

const (
	// maxPast is how many changes are remembered, in about 3 MB. Links that
	// Redis got before the oldest of them are asked of Postgres again.
	maxPast = 32_768
	// maxRecent is how many of them are read when the feed begins.
	maxRecent = 10_000
	// maxForgotten bounds what is remembered between two polls.
	maxForgotten = 4096
)

// A place is where in the change log a link was read.
type place struct {
	// low is the id up to which the reader had seen every change: what it read
	// is at least as new.
	low int64
	// id and anchor are the newest row that the reader had seen, and its
	// version. They tell two histories apart that share a server.
	id, anchor int64
}

// A past is what the feed remembers of the changes that it read. It tells
// whether a link that somebody else read some time ago is still right, so that
// nothing has to be believed of Redis: neither that it kept an invalidation,
// nor that it is the Redis that it was.
type past struct {
	mu sync.RWMutex
	// history is that of the feed's position. Empty: the feed has not begun, so
	// that nothing can be told.
	history string
	here    place // how far the feed has come
	polled  int64 // tick before the last poll that read all there was
	// Every change after floor that can be seen at here is in changes, by id.
	floor        int64
	floorVersion int64
	changes      []pastChange
	latest       map[uint64]int64 // newest id in changes, by the hash of the code
	// forgotten holds codes that this process changed, and the tick at which it
	// had: their changes may not have been polled yet.
	forgotten map[uint64]int64
	// forgotAll, if not zero, is the tick of one too many of them.
	forgotAll int64
}

type pastChange struct {
	id, version int64
	code        uint64
}

// reset begins with the end of a log.
func (p *past) reset(history string, rows []queries.ListRecentChangesRow, hash func(string) uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history = history
	p.here = place{}
	p.changes, p.latest = nil, make(map[uint64]int64)
	p.floor, p.floorVersion = rows[0].ID, rows[0].Version // the query answers at least one row
	if rows[0].ID == 1 {
		p.floor, p.floorVersion = 0, 0 // nothing was before it
	}
	for _, row := range rows {
		p.add(row.ID, row.Version, row.ShortCode, hash)
	}
}

// unknown says that the feed lost the thread.
func (p *past) unknown() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history = ""
}

// learn takes note of changes before they are applied.
func (p *past) learn(rows []queries.PollLinkChangesRow, hash func(string) uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.history == "" {
		return
	}
	for _, row := range rows {
		if row.ID != 0 {
			p.add(row.ID, row.Version, row.ShortCode, hash)
		}
	}
}

// add puts a change in its place; most belong at the end.
func (p *past) add(id, version int64, code *string, hash func(string) uint64) {
	if id <= p.floor {
		return
	}
	if code == nil { // everything may have changed
		p.raise(id, version)
		return
	}
	i, there := p.find(id)
	if there {
		return
	}
	ch := pastChange{id: id, version: version, code: hash(*code)}
	p.changes = slices.Insert(p.changes, i, ch)
	p.latest[ch.code] = max(p.latest[ch.code], id)
	if len(p.changes) > maxPast {
		half := p.changes[maxPast/2]
		p.raise(half.id, half.version)
	}
}

func (p *past) find(id int64) (int, bool) {
	return slices.BinarySearchFunc(p.changes, id, func(ch pastChange, id int64) int { return int(ch.id - id) })
}

// raise forgets the changes up to an id.
func (p *past) raise(id, version int64) {
	n, there := p.find(id)
	if there {
		n++
	}
	for _, ch := range p.changes[:n] {
		if p.latest[ch.code] == ch.id {
			delete(p.latest, ch.code)
		}
	}
	p.changes = slices.Clone(p.changes[n:])
	p.floor, p.floorVersion = id, version
}

// reach publishes how far the feed has come, once everything up to there was
// applied. lost says that changes may have passed unseen. complete is the tick
// before a poll that read all there was, or zero.
func (p *past) reach(at position, lost bool, complete int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.here = place{low: min(at.low, at.id), id: at.id, anchor: at.anchor}
	if lost && at.id > p.floor {
		p.raise(at.id, at.anchor)
	}
	if complete == 0 {
		return
	}
	p.polled = complete
	for code, tick := range p.forgotten {
		if tick < complete {
			delete(p.forgotten, code)
		}
	}
	if p.forgotAll < complete {
		p.forgotAll = 0
	}
}

// forget notes that this process just changed the link of a code: until the
// change was polled, only Postgres is asked for it.
func (p *past) forget(code uint64, tick int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.forgotten) >= maxForgotten {
		p.forgotAll = tick
		return
	}
	if p.forgotten == nil {
		p.forgotten = make(map[uint64]int64)
	}
	p.forgotten[code] = tick
}

// now returns the history and the place that the feed has come to. ok is false
// while nothing can be told.
func (p *past) now() (history string, here place, ok bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.history, p.here, p.history != ""
}

// settled reports whether somebody could believe what is read here.
func (p *past) settled() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.history != "" && p.here.low >= p.floor
}

// holds reports whether what was read of a code at a place of the same history
// still is right where the feed is. With ahead, it may also come from beyond
// that.
func (p *past) holds(code uint64, at place, ahead bool) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	switch _, mine := p.forgotten[code]; {
	case p.history == "" || p.forgotAll != 0 || mine:
		return false
	case at.low > at.id || at.low < p.floor || p.latest[code] > at.low:
		return false
	case at.id > p.here.id:
		return ahead
	case at.id == p.floor:
		return at.anchor == p.floorVersion
	}
	i, there := p.find(at.id)
	return there && p.changes[i].version == at.anchor
}
