package clicks

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// store is the part of a spool that is at rest: the folders this process holds
// and the sealed segments in them.
type store struct {
	opt     Options
	disk    disk
	changed func() // called without locks after bytes, segments or kept moved

	bytes         atomic.Int64 // handed over or sealed, not shipped
	segments      atomic.Int64 // sealed, not shipped
	kept          atomic.Int64 // bytes of shipped segments
	oldest        atomic.Int64 // Unix microseconds of the oldest click not shipped, 0 for none
	quarantineDue time.Time    // when to look for old ones; under mu

	// own is the folder that new segments go to, nil until there is one. It is read
	// without mu: a slow disk call made under mu, to free space or to list a folder,
	// must not leave the writer without a file.
	own atomic.Pointer[folder]

	mu      sync.Mutex // held while folders change; disk calls are made under it
	folders map[string]*folder

	waiting waiting
	taken   map[string]bool // adopted folders that no report has named; under mu
	named   map[string]bool // folders that the last stored report names; under mu

	pauses pauses

	home    string             // the installation that segments are shipped to, "" until it is known
	foreign map[string]foreign // by folder id
	// foreignLogged has the ids of folders that were ever in foreign, which is logged once.
	foreignLogged map[string]bool

	quits    []*folder    // own folders that get no more files and are not all sealed
	quitting atomic.Int64 // how many
}

func (h *store) stats() Stats {
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

// added counts one more sealed segment, whose bytes are counted already.
func (h *store) added(oldest int64) {
	h.segments.Add(1)
	h.oldest.CompareAndSwap(0, oldest)
	h.changed()
}

// noteOldest reads the time of a segment's first click and sets h.oldest to it if it is
// earlier. It reports whether the segment could be read.
func (h *store) noteOldest(f *folder, id string) bool {
	file, err := h.disk.open(f.sealed(id))
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }() // only read
	head := make([]byte, 2*maxRecord)
	n, _ := h.disk.readAt(file, head, 0)
	at := int64(0)
	scan(id, head[:n], func(c *Click) {
		if at == 0 {
			at = c.At.UnixMicro()
		}
	})
	if at == 0 {
		return false
	}
	if now := h.oldest.Load(); now == 0 || at < now {
		h.oldest.Store(at)
	}
	return true
}

// list returns the oldest sealed segments after the given one, at most limit, without
// those that are left out for a while. If a folder cannot be listed, the segments of
// the others are returned together with its error.
//
// BUG: sealed files that somebody deletes by hand stay in the counts of
// segments and bytes until the process restarts.
func (h *store) list(after string, limit int) ([]Segment, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now, passedOver := h.opt.Now(), ""
	ready := func(id string) bool {
		if !h.pauses.passedOver(id, now) {
			return true
		}
		if passedOver == "" || id < passedOver {
			passedOver = id
		}
		return false
	}
	var segs []Segment
	var errs []error
	for _, f := range h.folders {
		if f.id < folderOf(after) || !h.shippable(f) {
			continue
		}
		ids, err := f.firstIDs(f.dir(), after, limit, ready)
		if err != nil {
			errs = append(errs, fmt.Errorf("list segments: %w", err))
		}
		for _, id := range ids {
			segs = append(segs, Segment{ID: id})
		}
	}
	slices.SortFunc(segs, compareSegments)
	segs = segs[:min(len(segs), limit)]
	for i := range segs {
		if f := h.folders[folderOf(segs[i].ID)]; f != nil {
			segs[i].Bytes = h.disk.size(f.sealed(segs[i].ID))
		}
	}
	if after == "" || h.pauses.count() == 0 { // otherwise some may wait before after
		h.refreshOldest(segs, passedOver)
	}
	return segs, errors.Join(errs...)
}

// refreshOldest sets h.oldest from the first segment that can be read. passedOver is
// the first segment that is left out for a while, "" if none is: its clicks are part of
// the backlog too.
func (h *store) refreshOldest(segs []Segment, passedOver string) {
	const tries = 4
	var ids []string
	if passedOver != "" {
		ids = append(ids, passedOver)
	}
	for _, seg := range segs[:min(len(segs), tries)] {
		ids = append(ids, seg.ID)
	}
	slices.Sort(ids)
	if len(ids) == 0 || h.folders[folderOf(ids[0])] == nil {
		return // a segment may be on its way: added decides
	}
	h.oldest.Store(0)
	for _, id := range ids {
		if f := h.folders[folderOf(id)]; f != nil && h.noteOldest(f, id) {
			return
		}
	}
}

func compareSegments(a, b Segment) int { return strings.Compare(a.ID, b.ID) }

// records returns the bytes of a sealed segment.
func (h *store) records(id string) ([]byte, error) {
	f, err := h.folderFor(id)
	if err != nil {
		return nil, err
	}
	file, err := h.disk.open(f.sealed(id))
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
	n, err := h.disk.readAt(file, records, 0)
	if errors.Is(err, io.EOF) {
		err = nil // cut meanwhile; the bytes that are there count
	}
	return records[:n], err
}

// errTooLarge is returned for a file that has a segment's name but is larger than a
// segment can be.
var errTooLarge = errors.New("file is larger than any segment")

// folderFor returns the folder of the segment with this id. A folder of another
// installation, which is about to be released, counts as gone.
func (h *store) folderFor(id string) (*folder, error) {
	name := folderOf(id)
	if name == "" {
		return nil, fmt.Errorf("%q is not the id of a segment", id)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.folders[name]
	if f == nil || !h.shippable(f) {
		return nil, fmt.Errorf("segment %s: %w", id, fs.ErrNotExist)
	}
	return f, nil
}

// leaveLine counts one segment less in line.
func (h *store) leaveLine(id string, size int64) {
	h.release(id)
	h.waiting.remove(id)
	h.bytes.Add(-size)
	if h.segments.Add(-1) == 0 {
		h.oldest.Store(0)
	}
	h.changed()
}

// passOver leaves a segment out for a while.
func (h *store) passOver(id string) {
	h.pauses.add(id, h.opt.Now())
	h.opt.Metrics.held.Set(float64(h.pauses.count()))
}

// release ends the time for which a segment is left out.
func (h *store) release(id string) {
	h.pauses.remove(id)
	h.opt.Metrics.held.Set(float64(h.pauses.count()))
}

// ship moves a shipped segment to the kept ones, and reports whether it was in line
// before.
func (h *store) ship(id string) (news bool, err error) {
	f, err := h.folderFor(id)
	if err != nil {
		return false, err
	}
	size, err := h.moveToKept(f, id)
	if errors.Is(err, fs.ErrNotExist) && (h.disk.exists(f.kept(id)) || h.disk.exists(f.gone(id))) {
		return false, nil // shipped before
	}
	if err != nil {
		return false, err
	}
	h.leaveLine(id, size)
	return true, nil
}

// moveToKept holds h.mu, because goneBelow relies on segments not being moved.
func (h *store) moveToKept(f *folder, id string) (size int64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	info, err := h.disk.stat(f.sealed(id))
	if err != nil {
		return 0, err
	}
	// The file gets the time of shipping, from which Keep counts.
	if err := h.disk.setTime(f.sealed(id), h.opt.Now()); err != nil {
		return 0, err
	}
	if err := h.disk.rename(f.sealed(id), f.kept(id)); err != nil {
		return 0, err
	}
	h.kept.Add(info.Size())
	return info.Size(), nil
}

// reship puts segments that were shipped before the given moment back in line, oldest
// first, as long as there is room: the line must not get so long that new clicks are
// dropped. waiting is the number of segments for which there was no room.
func (h *store) reship(before time.Time, room func() int64) (put, waiting int, err error) {
	h.mu.Lock()
	folders := h.byAge()
	h.mu.Unlock()
	for _, f := range folders {
		for after := ""; ; {
			// Page by page, since appends may wait for a new file meanwhile.
			ids, listErr := f.firstIDs(filepath.Join(f.dir(), keptName), after, maxListed, nil)
			err = errors.Join(err, listErr)
			p, w, putErr := h.putBack(f, ids, before, room)
			put, waiting, err = put+p, waiting+w, errors.Join(err, putErr)
			if len(ids) < maxListed {
				break
			}
			after = ids[len(ids)-1]
		}
	}
	h.changed()
	return put, waiting, err
}

// inLine counts a kept segment as one that is waiting to be shipped.
func (h *store) inLine(id string, size int64) {
	h.waiting.found(id)
	h.kept.Add(-size)
	h.bytes.Add(size)
	h.segments.Add(1)
	h.opt.Metrics.reshipped.Inc()
}

func (h *store) putBack(f *folder, ids []string, before time.Time, room func() int64) (put, waiting int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		info, statErr := h.disk.stat(f.kept(id))
		if statErr != nil || info.Size() == 0 || !info.ModTime().Before(before) {
			continue // gone, being removed, or shipped since
		}
		if info.Size() > room() {
			waiting++
			continue
		}
		if e := h.disk.rename(f.kept(id), f.sealed(id)); e != nil {
			err = errors.Join(err, e)
			continue
		}
		h.inLine(id, info.Size())
		put++
	}
	return put, waiting, err
}

// byAge returns the folders that may be shipped.
func (h *store) byAge() []*folder {
	folders := make([]*folder, 0, len(h.folders))
	for _, f := range h.folders {
		if h.shippable(f) {
			folders = append(folders, f)
		}
	}
	slices.SortFunc(folders, func(a, b *folder) int { return strings.Compare(a.id, b.id) })
	return folders
}

// close releases every folder.
func (h *store) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for id, f := range h.folders {
		removed, err := false, error(nil)
		if !h.reported(f) {
			removed, err = f.removeIfEmpty()
		}
		if !removed {
			if filepath.Dir(f.dir()) != filepath.Clean(h.opt.Dir) && filepath.Clean(h.opt.Dir) != f.dir() {
				h.opt.Log.Warn("a spool folder was moved away: `signpost spool ship` ships the segments left in it", slog.String("folder", f.dir()))
			}
			err = errors.Join(err, f.unlock())
		}
		errs = append(errs, err)
		delete(h.folders, id)
	}
	h.own.Store(nil)
	return errors.Join(errs...)
}
