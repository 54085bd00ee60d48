package clicks

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// appendMemory is Append for Memory: the record is encoded and that is all.
func (s *Spool) appendMemory(c *Click, agent, referrer string) error {
	s.mu.Lock()
	if s.refusal == nil && s.shelf.bytes.Load()+int64(len(s.buf)) >= s.opt.MaxBytes {
		s.full = true
		s.settleRefusal()
	}
	if drop := s.refusal; drop != nil {
		s.mu.Unlock()
		s.dropped(drop, 1)
		return drop
	}
	s.buf = appendRecord(s.buf, c, agent, referrer)
	s.next.add(c.At.UnixMicro())
	first := s.next.clicks == 1
	if first {
		s.activeSince.Store(int64(s.clock()))
	}
	s.activeOldest.Store(s.next.oldest)
	s.active.Store(int64(len(s.buf)))
	bytes, _ := s.wanted()
	due := int64(len(s.buf)) >= bytes || s.next.clicks >= maxBatchClicks/4
	s.mu.Unlock()
	s.opt.Metrics.appended.Inc()
	if due {
		s.sealMemory()
	} else if first {
		notify(s.nudge)
	}
	return nil
}

// keepMemory seals by age, in the place of the keeper.
func (s *Spool) keepMemory() {
	defer close(s.keeperDone)
	if s.opt.Dir != "" {
		s.adoptAtStart()
	}
	close(s.ready)
	timer := time.NewTimer(keeperIdle)
	defer timer.Stop()
	for {
		pause := keeperIdle
		if left, open := s.ageDue(); open {
			if pause = left; left <= 0 {
				s.sealMemory()
				pause = keeperIdle
			}
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-s.nudge:
		case <-s.quit:
			s.sealMemory()
			return
		}
	}
}

// sealMemory makes a segment of what is in the buffer.
func (s *Spool) sealMemory() {
	s.mu.Lock()
	g, records := s.next, s.buf
	if g.clicks == 0 {
		s.mu.Unlock()
		return
	}
	s.next, s.buf = newGroup(), nil
	s.shelf.memory.put(records)
	s.shelf.bytes.Add(int64(len(records)))
	s.active.Store(0)
	s.activeSince.Store(0)
	s.mu.Unlock()
	s.opt.Metrics.sealed.Inc()
	s.shelf.added(1, g.oldest)
	notify(s.sealed)
}

// memorySegments are the sealed segments of a spool that keeps its clicks in
// memory.
type memorySegments struct {
	mu        sync.Mutex
	id        string // of the folder that does not exist
	seq       int
	records   map[string][]byte
	confirmed string // the ledger knows that nothing is left below
}

func (m *memorySegments) put(records []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records == nil {
		m.id, m.records = newFolderID(), make(map[string][]byte)
	}
	id := segmentID(m.id, m.seq)
	m.seq++
	stamp(records, seedFor(id), 0)
	m.records[id] = records
}

func (m *memorySegments) list(after string, limit int) []Segment {
	m.mu.Lock()
	defer m.mu.Unlock()
	segs := make([]Segment, 0, len(m.records))
	for id, records := range m.records {
		if id <= after {
			continue
		}
		segs = append(segs, Segment{ID: id, Bytes: int64(len(records))})
	}
	slices.SortFunc(segs, compareSegments)
	return segs[:min(len(segs), limit)]
}

func (m *memorySegments) read(id string) (records []byte, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	records, ok = m.records[id]
	return records, ok
}

// remove drops a segment that was shipped. It is gone for good at once.
func (m *memorySegments) remove(id string) (size int, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	records, ok := m.records[id]
	delete(m.records, id)
	return len(records), ok
}

// gone returns how far the segments are gone, and whether that is news.
func (m *memorySegments) gone() (g Gone, news bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records == nil {
		return Gone{}, false
	}
	g = Gone{Folder: m.id, Below: segmentID(m.id, m.seq)}
	for id := range m.records {
		g.Below = min(g.Below, id)
	}
	return g, g.Below > max(m.confirmed, segmentID(m.id, 0))
}

func (m *memorySegments) confirm(g Gone) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if g.Folder == m.id {
		m.confirmed = g.Below
	}
}

func segmentID(folder string, seq int) string { return fmt.Sprintf("%s-%010d", folder, seq) }
