package clicks

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"
)

const (
	sealerRetry = 250 * time.Millisecond // after trouble with the disk
	lookEvery   = time.Second            // whether the folder is still in its place
	sealRetry   = 10 * time.Millisecond  // when the writer could not rotate yet
	maxUnsealed = 64                     // files held open because they cannot be sealed
)

// sealSegments is the sealer: it makes the spare file ahead of need, seals files that
// the writer hands over, and asks for a seal when the open segment is old enough.
func (s *Spool) sealSegments() {
	defer close(s.sealerDone)
	var unsealed []*openSegment
	s.makeSpare()
	if _, err := s.Adopt(); err != nil {
		s.opt.Log.Warn("spool folders not adopted", slog.Any("error", err))
	}
	close(s.ready)
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	for {
		timer.Reset(s.sealerPause(len(unsealed) > 0))
		select {
		case seg, more := <-s.filled:
			if !more {
				s.lastSeals(unsealed)
				return
			}
			unsealed = append(unsealed, seg)
		case <-s.wakeSealer:
		case <-timer.C:
		}
		// The spare comes first: without one the writer may have no file to write to.
		if len(unsealed) < maxUnsealed {
			s.makeSpare()
		}
		unsealed = s.sealAll(unsealed)
		s.lookAfterFolders()
		s.makeRoom()
		s.requestSeal()
	}
}

func (s *Spool) sealerPause(unsealed bool) time.Duration {
	if unsealed || len(s.spares) == 0 || s.store.quitting.Load() > 0 {
		return sealerRetry
	}
	if left, open := s.ageDue(); open {
		return min(max(left, sealRetry), lookEvery)
	}
	return lookEvery
}

// requestSeal wakes the writer if its segment is old enough to be sealed. The writer
// decides whether it is.
func (s *Spool) requestSeal() {
	if left, open := s.ageDue(); open && left <= 0 {
		s.mu.Lock()
		s.sealRequested = true
		s.wakeWriter()
		s.mu.Unlock()
	}
}

// makeSpare puts a new file in line for the writer if there is none.
func (s *Spool) makeSpare() {
	if len(s.spares) > 0 {
		return
	}
	spare, err := s.newSegment()
	if err != nil {
		err = fmt.Errorf("make segment: %w", err)
		s.trouble.Store(&err)
		if s.setNoSpare(dropFor(err)) {
			s.opt.Log.Error("spool cannot make files", slog.Any("error", err))
		}
		return
	}
	s.spares <- spare
	if s.setNoSpare(nil) {
		s.opt.Log.Info("spool can make files again")
	}
}

func (s *Spool) newSegment() (*openSegment, error) {
	folder, err := s.store.ownFolder(s.opt.Durability == Disk)
	if err != nil {
		return nil, err
	}
	seg, err := s.newSegmentIn(folder)
	if errors.Is(err, fs.ErrNotExist) && s.quitIfMoved(folder) {
		if folder, err = s.store.ownFolder(s.opt.Durability == Disk); err == nil {
			seg, err = s.newSegmentIn(folder)
		}
	}
	return seg, err
}

func (s *Spool) newSegmentIn(folder *folder) (*openSegment, error) {
	seq := folder.begin()
	id := segmentID(folder.id, seq)
	path := folder.open(id)
	file, err := s.disk.create(path)
	if err == nil && s.opt.Durability == Disk {
		if err = s.disk.syncDir(folder.dir()); err != nil {
			err = errors.Join(err, file.Close(), s.disk.remove(path))
		}
	}
	if err != nil {
		folder.end(seq)
		return nil, err
	}
	return &openSegment{id: id, folder: folder, seq: seq, file: file, seed: seedFor(id)}, nil
}

// quitIfMoved quits the own folder if it is no longer at its path, because somebody
// moved or removed it, and reports whether it did. If the disk gives no answer, the
// folder is taken to be in its place.
func (s *Spool) quitIfMoved(f *folder) bool {
	there, err := f.inPlace()
	if err != nil || there {
		return false
	}
	s.store.quit(f)
	return true
}

// lookAfterFolders notices within about a second that the own folder was moved, and
// makes the writer leave folders that were quit.
func (s *Spool) lookAfterFolders() {
	if own := s.store.own.Load(); own != nil && s.clock()-s.looked >= lookEvery {
		s.looked = s.clock()
		s.quitIfMoved(own)
	}
	if s.store.quitting.Load() == 0 {
		return
	}
	select {
	case spare := <-s.spares:
		if spare.folder.quit.Load() {
			s.discard(spare)
		} else {
			s.spares <- spare // there is room: only the sealer puts any in
		}
	default:
	}
	s.makeSpare()
	s.mu.Lock()
	s.sealRequested = true
	s.wakeWriter()
	s.mu.Unlock()
	if s.store.releaseQuit() {
		s.changed()
	}
}

// sealAll seals the segments that it can, and returns the others, to be tried again.
func (s *Spool) sealAll(segs []*openSegment) (rest []*openSegment) {
	for _, seg := range segs {
		if err := s.seal(seg); err != nil {
			s.trouble.Store(&err)
			rest = append(rest, seg)
			continue
		}
		for _, done := range seg.done {
			close(done)
		}
	}
	return rest
}

// seal cuts the segment to its acknowledged records and gives it the name of a sealed
// one. After the cut no goroutine writes to it, and before the rename none reads it. So
// a crash at any point leaves an .open file with the same records, which the next owner
// of the folder seals as it is.
func (s *Spool) seal(seg *openSegment) error {
	if seg.file == nil {
		return nil
	}
	if seg.size == 0 {
		s.discard(seg)
		return nil
	}
	if info, err := seg.file.Stat(); err == nil && info.Size() > seg.size {
		if err := s.disk.cut(seg.file, seg.size); err != nil {
			return fmt.Errorf("cut segment: %w", err)
		}
	}
	err := s.disk.rename(seg.folder.open(seg.id), seg.folder.sealed(seg.id))
	if errors.Is(err, fs.ErrNotExist) {
		if info, statErr := seg.file.Stat(); statErr != nil || !isUnlinked(info) {
			return fmt.Errorf("seal segment: %w", err)
		}
		if err = s.copyDeleted(seg); err == nil {
			err = s.disk.rename(seg.folder.open(seg.id), seg.folder.sealed(seg.id))
		}
	}
	if err != nil {
		return fmt.Errorf("seal segment: %w", err)
	}
	s.closeFile(seg)
	s.opt.Metrics.sealed.Inc()
	s.store.added(seg.oldest)
	notify(s.sealed)
	return nil
}

// copyDeleted copies a segment to a new file if somebody deleted its file, so that only
// the open descriptor still reaches it. If the file was moved instead, it is not
// copied, because its records would count twice.
func (s *Spool) copyDeleted(seg *openSegment) error {
	select {
	case spare := <-s.spares: // the spare may just as well be in a folder that was deleted
		s.discard(spare)
	default:
	}
	records := make([]byte, seg.size)
	if _, err := s.disk.readAt(seg.file, records, 0); err != nil {
		return err
	}
	to, err := s.newSegment()
	if err != nil {
		return err
	}
	var whole []Click
	scan(seg.id, records, func(c *Click) { whole = append(whole, *c) })
	records = encodeRecords(to.id, whole)
	_, err = s.disk.writeAt(to.file, records, 0)
	if err == nil && s.opt.Durability == Disk {
		err = s.disk.sync(to.file)
	}
	if err != nil {
		s.closeFile(to)
		return errors.Join(err, s.disk.remove(to.folder.open(to.id)))
	}
	s.closeFile(seg)
	s.store.waiting.rename(seg.id, to.id)
	to.size, to.clicks, to.oldest, to.done = seg.size, seg.clicks, seg.oldest, seg.done
	*seg = *to
	return nil
}

// discard removes a file that nothing was written to.
func (s *Spool) discard(seg *openSegment) {
	s.closeFile(seg)
	if err := s.disk.remove(seg.folder.open(seg.id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.opt.Log.Warn("empty segment not removed", slog.Any("error", err))
	}
}

// closeFile forgets an open segment that was sealed, or whose file does not exist.
func (s *Spool) closeFile(seg *openSegment) {
	seg.folder.end(seg.seq)
	if err := seg.file.Close(); err != nil {
		s.opt.Log.Warn("segment not closed", slog.Any("error", err))
	}
}

// lastSeals seals the files that are left when the spool closes. A file that cannot
// be sealed now is sealed by the next owner of the folder.
func (s *Spool) lastSeals(unsealed []*openSegment) {
	for _, seg := range s.sealAll(unsealed) {
		_ = seg.file.Close() // its records are in the file
		s.opt.Log.Warn("segment left unsealed", slog.String("segment", seg.id))
	}
	select {
	case spare := <-s.spares:
		s.sealAll([]*openSegment{spare})
	default:
	}
}

// makeRoom removes kept segments before their time if the spool has reached its bound
// or the disk is full: the space is needed for clicks that were not shipped yet.
func (s *Spool) makeRoom() {
	over := s.store.bytes.Load() + s.active.Load() + s.store.kept.Load() - s.opt.MaxBytes
	if s.needRoom.Swap(false) {
		over = max(over, backlogSegmentBytes)
	}
	if over <= 0 {
		return
	}
	err := s.store.evict(over)
	if err != nil && !s.evictFails { // a full disk asks many times a second
		s.opt.Log.Warn("kept segments not removed", slog.Any("error", err))
	}
	s.evictFails = err != nil
}
