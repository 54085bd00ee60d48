package clicks

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// shelf is the part of a spool that is at rest: the folders this process holds
// and the sealed segments in them.
type shelf struct {
	opt     Options
	disk    disk
	changed func() // called without locks after bytes, segments or kept moved
	memory  memorySegments

	bytes    atomic.Int64 // handed over or sealed, not shipped
	segments atomic.Int64 // sealed, not shipped
	kept     atomic.Int64 // bytes of shipped segments
	oldest   atomic.Int64 // Unix microseconds of the oldest click not shipped, 0 for none

	mu      sync.Mutex // held while folders change; disk calls are made under it
	folders map[string]*folder
	own     *folder
	told    map[string]bool // segments whose damage is counted, until they are shipped
}

func (h *shelf) init(o Options, d disk, changed func()) {
	h.opt, h.disk, h.changed = o, d, changed
	h.folders = make(map[string]*folder)
	h.told = make(map[string]bool)
}

func (h *shelf) stats() Stats {
	st := Stats{
		Segments:  int(h.segments.Load()),
		Bytes:     h.bytes.Load(),
		KeptBytes: h.kept.Load(),
	}
	if at := h.oldest.Load(); at != 0 {
		st.Oldest = time.UnixMicro(at).UTC()
	}
	return st
}

// added counts n sealed segments more, whose bytes are counted already.
func (h *shelf) added(n int64, oldest int64) {
	h.segments.Add(n)
	h.oldest.CompareAndSwap(0, oldest)
	h.changed()
}

// ownFolder returns the folder new segments go to, made at the first call.
func (h *shelf) ownFolder(durable bool) (*folder, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.own != nil {
		return h.own, nil
	}
	f, err := makeFolder(h.opt.Dir, durable)
	for tries := 0; tries < 3 && (errors.Is(err, errLocked) || errors.Is(err, fs.ErrNotExist)); tries++ {
		// Between its making and its locking another process took the
		// folder for an orphan. Another name has better luck.
		f, err = makeFolder(h.opt.Dir, durable)
	}
	if err != nil {
		return nil, err
	}
	h.own = f
	h.folders[f.id] = f
	return f, nil
}

// forgetOwn gives up a folder that somebody removed.
func (h *shelf) forgetOwn() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.own != nil {
		delete(h.folders, h.own.id)
		_ = h.own.unlock() // the file is gone, only the descriptor is left
		h.own = nil
	}
}

// adopt takes over every folder below the spool's that has no owner.
func (h *shelf) adopt() (segments int, err error) {
	defer func() {
		if segments > 0 {
			h.changed()
		}
	}()
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	err = eachFile(h.opt.Dir, func(e fs.DirEntry) {
		if !e.IsDir() || !folderName.MatchString(e.Name()) || h.folders[e.Name()] != nil {
			return
		}
		n, err := h.adoptOne(filepath.Join(h.opt.Dir, e.Name()))
		if err != nil {
			errs = append(errs, err)
		}
		segments += n
	})
	return segments, errors.Join(append(errs, err)...)
}

func (h *shelf) adoptOne(path string) (segments int, err error) {
	f, err := adoptFolder(path)
	if errors.Is(err, errLocked) || errors.Is(err, fs.ErrNotExist) {
		return 0, nil // owned, or removed by another adopter
	}
	if err != nil {
		return 0, fmt.Errorf("adopt spool folder: %w", err)
	}
	segments, err = h.takeIn(f)
	if err != nil {
		// Without its segments counted the bound would not hold.
		return 0, errors.Join(fmt.Errorf("adopt spool folder: %w", err), f.unlock())
	}
	h.folders[f.id] = f
	h.removeDone(f)
	return segments, nil
}

// takeIn seals what a crash left open and counts what is there.
func (h *shelf) takeIn(f *folder) (segments int, err error) {
	var unsealed, foreign []string
	bytes, kept, oldest := int64(0), int64(0), ""
	err = eachFile(f.path, func(e fs.DirEntry) {
		switch id, open := f.segmentOf(e, suffixOpen); {
		case open:
			unsealed = append(unsealed, id)
		case f.isOurs(e):
		case len(foreign) < 10:
			foreign = append(foreign, e.Name())
		}
	})
	if err != nil {
		return 0, err
	}
	for _, id := range unsealed {
		if err := h.sealLeft(f, id); err != nil {
			return 0, err
		}
	}
	err = eachFile(f.path, func(e fs.DirEntry) {
		if id, ok := f.segmentOf(e, suffixSealed); ok {
			segments++
			bytes += entrySize(e)
			if oldest == "" || id < oldest {
				oldest = id
			}
		}
	})
	if err != nil {
		return 0, err
	}
	err = eachFile(filepath.Join(f.path, keptName), func(e fs.DirEntry) { kept += entrySize(e) })
	if err != nil {
		return 0, err
	}
	h.bytes.Add(bytes)
	h.kept.Add(kept)
	h.segments.Add(int64(segments))
	if segments > 0 {
		h.noteOldest(f, oldest)
	}
	h.opt.Log.Info("spool folder adopted", slog.String("folder", f.id),
		slog.Int("segments", segments), slog.Int64("bytes", bytes), slog.Any("foreign_files", foreign))
	return segments, nil
}

// sealLeft seals a file that its owner was writing, or had as a spare, when it
// died. Nobody writes to it anymore, so it may be renamed as it is.
func (h *shelf) sealLeft(f *folder, id string) error {
	info, err := os.Lstat(f.open(id))
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return os.Remove(f.open(id))
	}
	return h.disk.rename(f.open(id), f.sealed(id))
}

// isOurs reports whether an entry of the folder is one the spool makes.
func (f *folder) isOurs(e fs.DirEntry) bool {
	for _, suffix := range []string{suffixSealed, suffixBad} {
		if _, ok := f.segmentOf(e, suffix); ok {
			return true
		}
	}
	return e.Name() == lockName || e.Name() == keptName || e.Name() == goneName
}

func entrySize(e fs.DirEntry) int64 {
	info, err := e.Info()
	if err != nil {
		return 0 // gone meanwhile
	}
	return info.Size()
}

// noteOldest makes the age of a segment's first click the backlog's if it is
// older. What cannot be read is no worse than unknown.
func (h *shelf) noteOldest(f *folder, id string) {
	file, err := os.Open(f.sealed(id))
	if err != nil {
		return
	}
	defer func() { _ = file.Close() }() // only read
	head := make([]byte, 2*maxRecord)
	n, _ := io.ReadFull(file, head)
	found, _ := scan(id, head[:n])
	if len(found) == 0 {
		return
	}
	at := found[0].At.UnixMicro()
	if now := h.oldest.Load(); now == 0 || at < now {
		h.oldest.Store(at)
	}
}

// list returns the oldest sealed segments, at most limit.
//
// BUG: sealed files that somebody deletes by hand stay in the counts of
// segments and bytes until the process restarts.
func (h *shelf) list(limit int) ([]Segment, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	segs := h.memory.list(limit)
	for _, f := range h.folders {
		ids, err := f.firstIDs(f.path, limit)
		if err != nil {
			return nil, fmt.Errorf("list segments: %w", err)
		}
		for _, id := range ids {
			segs = append(segs, Segment{ID: id})
		}
	}
	slices.SortFunc(segs, compareSegments)
	segs = segs[:min(len(segs), limit)]
	for i := range segs {
		if f := h.folders[folderOf(segs[i].ID)]; f != nil {
			if info, err := os.Lstat(f.sealed(segs[i].ID)); err == nil {
				segs[i].Bytes = info.Size()
			}
		}
	}
	h.refreshOldest(segs)
	return segs, nil
}

// refreshOldest reads the age of the backlog from its first segment.
func (h *shelf) refreshOldest(segs []Segment) {
	if len(segs) == 0 {
		return // a segment may be on its way: added decides
	}
	if f := h.folders[folderOf(segs[0].ID)]; f != nil {
		h.oldest.Store(0)
		h.noteOldest(f, segs[0].ID)
	}
}

func compareSegments(a, b Segment) int { return strings.Compare(a.ID, b.ID) }

// records returns the bytes of a sealed segment.
func (h *shelf) records(id string) ([]byte, error) {
	if records, ok := h.memory.read(id); ok {
		return records, nil
	}
	f, err := h.holder(id)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(f.sealed(id))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSegmentBytes+maxGroupBytes {
		return nil, errTooLarge
	}
	records := make([]byte, info.Size())
	n, err := io.ReadFull(file, records)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // cut meanwhile; what is there counts
	}
	return records[:n], err
}

// errTooLarge is for files that have a segment's name but not its size.
var errTooLarge = errors.New("file is larger than any segment")

// holder returns the folder that a segment's id belongs to.
func (h *shelf) holder(id string) (*folder, error) {
	name := folderOf(id)
	if name == "" {
		return nil, fmt.Errorf("%q is not the id of a segment", id)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.folders[name]
	if f == nil {
		return nil, fmt.Errorf("segment %s: %w", id, fs.ErrNotExist)
	}
	return f, nil
}

// tellDamage counts and logs the damage of a segment once, however often it is
// read until it is shipped.
func (h *shelf) tellDamage(id string, damaged map[string]int, whole int) {
	h.mu.Lock()
	told := h.told[id]
	if len(damaged) > 0 {
		h.told[id] = true
	}
	h.mu.Unlock()
	if told || len(damaged) == 0 {
		return
	}
	for reason, n := range damaged {
		h.opt.Metrics.damaged[reason].Add(float64(n))
	}
	h.opt.Log.Error("damaged records skipped", slog.String("segment", id),
		slog.Any("damaged", damaged), slog.Int("whole", whole))
}

// setAside takes a segment without one whole record out of the line.
func (h *shelf) setAside(id string) error {
	f, err := h.holder(id)
	if err != nil {
		return err
	}
	size := fileSize(f.sealed(id))
	if size == 0 {
		err = os.Remove(f.sealed(id)) // nothing to look at later
	} else {
		err = h.disk.rename(f.sealed(id), f.bad(id))
	}
	if err != nil {
		return fmt.Errorf("set segment aside: %w", err)
	}
	h.opt.Metrics.setAside.Inc()
	h.opt.Log.Error("segment set aside", slog.String("segment", id), slog.Int64("bytes", size))
	h.left(id, size)
	return nil
}

func fileSize(path string) int64 {
	info, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// left counts a segment less.
func (h *shelf) left(id string, size int64) {
	h.mu.Lock()
	delete(h.told, id)
	h.mu.Unlock()
	h.bytes.Add(-size)
	if h.segments.Add(-1) == 0 {
		h.oldest.Store(0)
	}
	h.changed()
}

// ship puts a shipped segment among the kept ones.
func (h *shelf) ship(id string) error {
	if size, ok := h.memory.remove(id); ok {
		h.left(id, int64(size))
		return nil
	}
	f, err := h.holder(id)
	if err != nil {
		return err
	}
	info, err := os.Lstat(f.sealed(id))
	if errors.Is(err, fs.ErrNotExist) && (exists(f.kept(id)) || exists(f.gone(id))) {
		return nil // shipped before
	}
	if err != nil {
		return err
	}
	// Its time becomes that of shipping, from which Keep counts.
	now := h.opt.Now()
	if err := os.Chtimes(f.sealed(id), now, now); err != nil {
		return err
	}
	if err := h.disk.rename(f.sealed(id), f.kept(id)); err != nil {
		return err
	}
	h.kept.Add(info.Size())
	h.left(id, info.Size())
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// reship puts the kept segments back in line.
func (h *shelf) reship() (n int, err error) {
	h.mu.Lock()
	for _, f := range h.folders {
		var ids []string
		err = errors.Join(err, eachFile(filepath.Join(f.path, keptName), func(e fs.DirEntry) {
			if id, ok := f.segmentOf(e, suffixSealed); ok {
				ids = append(ids, id)
			}
		}))
		for _, id := range ids {
			size := fileSize(f.kept(id))
			if size == 0 {
				continue // being removed
			}
			if e := h.disk.rename(f.kept(id), f.sealed(id)); e != nil {
				err = errors.Join(err, e)
				continue
			}
			h.kept.Add(-size)
			h.bytes.Add(size)
			h.segments.Add(1)
			n++
		}
	}
	h.mu.Unlock()
	h.changed()
	return n, err
}

// evict removes kept segments, oldest first, until need bytes are free or none
// is left.
func (h *shelf) evict(need int64) error {
	return h.expire(func(_ string, size int64) bool {
		if need <= 0 {
			return false
		}
		need -= size
		return true
	})
}

// expire moves kept segments, oldest first, to the gone ones as long as old
// says so, and frees their bytes.
func (h *shelf) expire(old func(path string, size int64) bool) error {
	const atOnce = 1000
	moved := false
	h.mu.Lock()
	defer func() {
		h.mu.Unlock()
		if moved {
			h.changed()
		}
	}()
	for _, f := range h.byAge() {
		ids, err := f.firstIDs(filepath.Join(f.path, keptName), atOnce)
		if err != nil {
			return err
		}
		for _, id := range ids {
			size := fileSize(f.kept(id))
			if !old(f.kept(id), size) {
				break
			}
			if err := h.disk.rename(f.kept(id), f.gone(id)); err != nil {
				return err
			}
			moved = true
			h.kept.Add(-size)
			if err := os.Truncate(f.gone(id), 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *shelf) byAge() []*folder {
	folders := make([]*folder, 0, len(h.folders))
	for _, f := range h.folders {
		folders = append(folders, f)
	}
	slices.SortFunc(folders, func(a, b *folder) int { return strings.Compare(a.id, b.id) })
	return folders
}

// removed returns segments that cannot come back, not even by a power cut, and
// whose removal is not confirmed.
func (h *shelf) removed(limit int) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ids []string
	for _, f := range h.byAge() {
		gone, err := f.firstIDs(filepath.Join(f.path, goneName), limit-len(ids))
		if err != nil {
			return nil, err
		}
		if len(gone) == 0 {
			h.removeDone(f)
			continue
		}
		// Along the way of the segment: it may be found in neither of the
		// places it came from.
		for _, dir := range []string{goneName, keptName, ""} {
			if err := syncDir(filepath.Join(f.path, dir)); err != nil {
				return nil, err
			}
		}
		if ids = append(ids, gone...); len(ids) >= limit {
			break
		}
	}
	return ids, nil
}

// forget removes the last trace of segments.
func (h *shelf) forget(ids []string) error {
	var errs []error
	for _, id := range ids {
		f, err := h.holder(id)
		if err != nil {
			continue // of a folder that was removed or never ours
		}
		if err := os.Remove(f.gone(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeDone removes an adopted folder once nothing is left in it. h.mu is
// held.
func (h *shelf) removeDone(f *folder) {
	if f.own {
		return
	}
	removed, err := f.removeIfEmpty()
	if err != nil {
		h.opt.Log.Warn("empty spool folder not removed", slog.String("folder", f.id), slog.Any("error", err))
	}
	if removed {
		delete(h.folders, f.id)
	}
}

// close releases every folder.
func (h *shelf) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for id, f := range h.folders {
		removed, err := f.removeIfEmpty()
		if !removed {
			err = errors.Join(err, f.unlock())
		}
		errs = append(errs, err)
		delete(h.folders, id)
	}
	h.own = nil
	return errors.Join(errs...)
}
