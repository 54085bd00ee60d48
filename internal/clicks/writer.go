package clicks

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"time"
)

// openSegment is a file on its way from spare to sealed. It belongs to one
// goroutine at a time: the sealer makes it, the writer fills it, the sealer
// seals it.
type openSegment struct {
	id     string
	folder *folder
	seq    int // in the folder
	file   *os.File
	seed   uint32
	size   int64 // up to here it holds acknowledged records
	clicks int
	oldest int64           // Unix microseconds
	done   []chan struct{} // closed once it is sealed
}

// writeGroups is the writer: the only goroutine that writes records. It makes
// no other system call while its file is in good order, so that nothing but
// the write itself delays an append.
func (s *Spool) writeGroups() {
	defer close(s.writerDone)
	defer close(s.filled)
	var seg *openSegment
	for {
		seals, more := s.awaitWork()
		if !more {
			s.handOver(seg)
			return
		}
		seg = s.rotate(seg, seals)
		if seg = s.writable(seg); seg == nil {
			continue
		}
		// Let the requests that are ready to run append first: they share
		// this write instead of each waiting for one of its own.
		runtime.Gosched()
		g, records := s.takeGroup()
		if g == nil {
			continue
		}
		drop, sound := s.write(seg, g, records)
		if !sound {
			// The records before are acknowledged. How much of the rest the failed call
			// wrote is unknown, and it is not written again.
			s.handOver(seg)
			seg = nil
		}
		s.finish(g, records, drop)
	}
}

// awaitWork waits until there is something to write or to seal. It returns more as
// false once the spool is closed and everything is written.
func (s *Spool) awaitWork() (seals []chan struct{}, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.next.clicks == 0 && len(s.seals) == 0 && !s.sealRequested {
		if s.closed {
			return nil, false
		}
		s.idle = true
		s.mu.Unlock()
		<-s.wake
		s.mu.Lock()
	}
	seals, s.seals, s.sealRequested = s.seals, nil, false
	return seals, true
}

// sealDue reports whether seg is as large or as old as a segment should be.
func (s *Spool) sealDue(seg *openSegment) bool {
	if seg.size == 0 {
		return false
	}
	bytes, _ := s.wanted()
	left, _ := s.ageDue()
	return seg.size >= bytes || seg.clicks >= maxBatchClicks/4 || left <= 0
}

// wanted returns the size and age at which to seal. Small, young segments make clicks
// visible early. Once segments queue up, they no longer do; fewer and larger ones then
// ship faster and keep the folder small.
func (s *Spool) wanted() (bytes int64, age time.Duration) {
	backlog := s.store.segments.Load()
	if backlog < smallBacklog {
		return int64(s.opt.SegmentBytes), s.opt.SegmentAge
	}
	age = min(s.opt.SegmentAge*time.Duration(min(backlog, 1000)), max(maxSealAge, s.opt.SegmentAge))
	return min(4*int64(s.opt.SegmentBytes), backlogSegmentBytes), age
}

// rotate hands seg to the sealer if it is due or somebody waits for the seal. It
// returns the file to go on with; nil if none is ready or the folder was quit. If seg
// is due only by size or age and there is no spare yet, rotate goes on with seg: a
// segment that grows is better than dropped clicks.
func (s *Spool) rotate(seg *openSegment, seals []chan struct{}) *openSegment {
	if seg != nil && seg.folder.quit.Load() {
		seg.done = seals
		s.handOver(seg)
		return nil
	}
	if seg == nil || seg.size == 0 {
		if len(seals) > 0 {
			s.filled <- &openSegment{done: seals} // this is queued behind earlier files
		}
		return seg
	}
	if len(seals) == 0 && !s.sealDue(seg) {
		return seg
	}
	var spare *openSegment
	select {
	case spare = <-s.spares:
	default:
		if len(seals) == 0 {
			return seg
		}
	}
	seg.done = seals
	s.handOver(seg)
	return spare
}

// handOver gives seg to the sealer to seal; nil is ignored.
func (s *Spool) handOver(seg *openSegment) {
	if seg == nil {
		return
	}
	s.store.bytes.Add(seg.size)
	s.active.Store(0)
	s.activeSince.Store(0)
	s.filled <- seg
}

// writable returns seg, or the next file if seg is nil or as large as a
// segment may be. It waits until there is one, and returns nil when the spool
// was closed meanwhile or there is nothing to write.
func (s *Spool) writable(seg *openSegment) *openSegment {
	if seg != nil && seg.size < maxSegmentBytes && seg.clicks < maxSegmentClicks {
		return seg
	}
	s.handOver(seg)
	select {
	case seg = <-s.spares:
		return seg
	default:
	}
	s.setNoFile(true)
	select {
	case seg = <-s.spares:
		s.setNoFile(false)
		return seg
	case <-s.quit:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.giveUp(errClosed)
		return nil
	}
}

func (s *Spool) setNoFile(none bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noFile = none
	if !none {
		s.unstick()
	}
	s.refuseWithoutFile()
}

// setNoSpare records why there is no spare file, nil if there is one, and reports
// whether that changed.
func (s *Spool) setNoSpare(drop *DropError) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := (s.noSpare == nil) != (drop == nil)
	s.noSpare = drop
	s.refuseWithoutFile()
	return news
}

func (s *Spool) refuseWithoutFile() {
	if s.noFile && s.noSpare != nil {
		s.giveUp(s.noSpare)
	}
	s.chooseRefusal()
}

// takeGroup takes the waiting records for writing. It returns none if the watchdog has
// given them up in the meantime.
func (s *Spool) takeGroup() (*group, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next.clicks == 0 {
		return nil, nil
	}
	g, records := s.next, s.buf
	s.next, s.buf, s.spareBuf = newGroup(), s.spareBuf[:0], nil
	s.flight = g
	if s.stuck {
		s.stuck = false
		s.chooseRefusal()
	}
	return g, records
}

// write appends the records to seg, and reports whether seg can still be used.
func (s *Spool) write(seg *openSegment, g *group, records []byte) (drop *DropError, sound bool) {
	stamp(records, seg.seed, seg.size)
	if _, err := s.disk.writeAt(seg.file, records, seg.size); err != nil {
		drop := s.writeFailed(seg, err)
		return drop, drop == errDiskFull
	}
	if s.opt.Durability == Disk {
		if err := s.disk.sync(seg.file); err != nil {
			// After a failed fsync the kernel may have marked the pages clean, and a
			// second fsync would then succeed without having written them. So the file
			// is given up. That is so for a full disk too, which some file systems
			// report only at this point.
			s.trouble.Store(&err)
			return dropFor(err), false
		}
	}
	if seg.size == 0 {
		seg.oldest = g.oldest
		s.activeOldest.Store(seg.oldest)
		s.activeSince.Store(int64(s.clock()))
		notify(s.wakeSealer) // it is time to think of sealing
	} else if g.oldest < seg.oldest {
		seg.oldest = g.oldest
		s.activeOldest.Store(seg.oldest)
	}
	seg.size += int64(len(records))
	seg.clicks += g.clicks
	s.store.waiting.grow(seg.id, g.clicks, g.oldest)
	s.active.Store(seg.size)
	return nil, true
}

// writeFailed classifies the error. If the disk is full the file stays in use,
// cut back to the acknowledged records: the space may return.
func (s *Spool) writeFailed(seg *openSegment, err error) *DropError {
	s.trouble.Store(&err)
	drop := dropFor(err)
	if drop == errDiskFull {
		// An error here does no harm: the next write overwrites the remains of this
		// one, and the scan skips what is left.
		if err := s.disk.cut(seg.file, seg.size); err != nil && !errors.Is(err, syscall.ENOSPC) {
			s.trouble.Store(&err)
		}
	}
	return drop
}

// finish ends a group after its write and takes its buffer back.
func (s *Spool) finish(g *group, records []byte, drop *DropError) {
	s.mu.Lock()
	s.spareBuf = records[:0]
	s.flight = nil
	s.unstick()
	s.failed = drop
	if drop != nil {
		s.retryAt = time.Now().Add(retryPause)
	}
	s.checkFull()
	if drop == nil {
		s.kept(g)
	} else {
		s.lose(g, drop)
	}
	s.mu.Unlock()
	if drop == errDiskFull {
		s.needRoom.Store(true)
		notify(s.wakeSealer)
	}
}

// unstick ends the state "stuck" after the disk has answered. If the buffer has records
// that no append waits for, the state ends only when the writer takes them, because no
// append may join them. s.mu is held.
func (s *Spool) unstick() {
	if s.next.answered && s.next.clicks == 0 {
		s.next = newGroup()
	}
	s.stuck = s.stuck && s.next.answered
}

// answer wakes the appends of g with their result, unless they were given up. s.mu is
// held.
func (s *Spool) answer(g *group, drop *DropError) {
	if g.answered {
		return
	}
	g.answered, g.drop = true, drop
	close(g.done)
}

// kept counts the clicks of g, which was written. s.mu is held.
func (s *Spool) kept(g *group) {
	if g.counted {
		return // Close gave it up
	}
	if s.account(g) {
		s.opt.Metrics.late.Add(float64(g.clicks))
	}
	s.opt.Metrics.appended.Add(float64(g.clicks))
	s.answer(g, nil)
}

// lose counts the clicks of g as dropped: they will not be written, or no goroutine is
// left to find out. s.mu is held.
func (s *Spool) lose(g *group, drop *DropError) {
	if g == nil || g.counted {
		return
	}
	s.account(g)
	if g.clicks > 0 {
		s.dropped(drop, g.clicks)
	}
	s.answer(g, drop)
}

// account stops counting the clicks of g as unwritten, and reports whether they were.
func (s *Spool) account(g *group) (late bool) {
	late = g.answered && !g.counted
	if late {
		s.opt.Metrics.unwritten.Sub(float64(g.clicks))
	}
	g.counted = true
	return late
}

// giveUp drops the clicks that wait for the writer, with their records. s.mu is held.
func (s *Spool) giveUp(drop *DropError) {
	if s.next.clicks > 0 {
		s.lose(s.next, drop)
		s.next, s.buf = newGroup(), s.buf[:0]
	}
}
