package clicks

import (
	"cmp"
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

// shelf is the part of a spool that is at rest: the folders this process holds
// and the sealed segments in them.
type shelf struct {
	opt     Options
	disk    disk
	changed func() // called without locks after bytes, segments or kept moved

	bytes    atomic.Int64 // handed over or sealed, not shipped
	segments atomic.Int64 // sealed, not shipped
	kept     atomic.Int64 // bytes of shipped segments
	oldest   atomic.Int64 // Unix microseconds of the oldest click not shipped, 0 for none
	// lostSince is the time of the oldest click that may be in a folder out of
	// reach, as oldest; 0 where none is.
	lostSince     atomic.Int64
	quarantineDue time.Time // when to look for old ones; under mu

	// own is the folder that new segments go to, nil until there is one. It is
	// read without mu: a disk that takes its time under mu, to give back space
	// or to list a folder, must not keep the writer without a file.
	own atomic.Pointer[folder]

	mu      sync.Mutex // held while folders change; disk calls are made under it
	folders map[string]*folder

	pauses pauses

	// home is the installation that segments are shipped to, "" until that is
	// known; supposed is what the own folder is named until then.
	home      string
	supposed  atomic.Pointer[string]
	foreign   map[string]foreign // by folder id
	adoptions int                // calls of adopt

	quits    []*folder    // own folders that get no more files and are not all sealed
	quitting atomic.Int64 // how many
}

func (h *shelf) init(o Options, d disk, changed func()) {
	h.opt, h.disk, h.changed = o, d, changed
	h.folders = make(map[string]*folder)
	h.foreign = make(map[string]foreign)
	h.home = o.Installation
	h.pauses.most = maxPauses
}

func (h *shelf) stats() Stats {
	st := Stats{
		Segments:  int(h.segments.Load()),
		Bytes:     h.bytes.Load(),
		KeptBytes: h.kept.Load(),
	}
	at := h.oldest.Load()
	if lost := h.lostSince.Load(); lost != 0 && (at == 0 || lost < at) {
		at = lost
	}
	if at != 0 {
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

// ownFolder returns the folder new segments go to, made at the first call. Only
// the keeper calls it.
func (h *shelf) ownFolder(durable bool) (*folder, error) {
	if f := h.own.Load(); f != nil {
		return f, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	f, err := makeFolder(h.disk, h.opt.Dir, durable)
	for tries := 0; tries < 3 && (errors.Is(err, errLocked) || errors.Is(err, fs.ErrNotExist)); tries++ {
		// Between its making and its locking another process took the
		// folder for an orphan. Another name has better luck.
		f, err = makeFolder(h.disk, h.opt.Dir, durable)
	}
	if err != nil {
		return nil, err
	}
	if name := h.nameOf(); name != "" {
		h.nameFolder(f, name)
	}
	h.own.Store(f)
	h.folders[f.id] = f
	return f, nil
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
	h.adoptions++
	var errs []error
	for _, f := range h.folders {
		if !f.own {
			h.lookFor(f)
		}
		if h.home != "" && h.mine(f) {
			h.nameFolder(f, h.home)
		}
		if f.rest {
			n, err := h.sealRest(f)
			errs, segments = append(errs, err), segments+n
		}
	}
	err = h.disk.readDir(h.opt.Dir, func(e fs.DirEntry) {
		if !e.IsDir() || !folderName.MatchString(e.Name()) || h.folders[e.Name()] != nil {
			return
		}
		n, err := h.adoptOne(filepath.Join(h.opt.Dir, e.Name()))
		if err != nil {
			errs = append(errs, err)
		}
		segments += n
	})
	if err == nil {
		h.forgetForeign()
	}
	return segments, errors.Join(append(errs, err)...)
}

func (h *shelf) adoptOne(path string) (segments int, err error) {
	f, err := adoptFolder(h.disk, path)
	if errors.Is(err, errLocked) || errors.Is(err, fs.ErrNotExist) {
		return 0, nil // owned, or removed by another adopter
	}
	if err != nil {
		return 0, fmt.Errorf("adopt spool folder: %w", err)
	}
	if !h.mine(f) && !h.opt.AdoptForeign {
		h.holdFolder(f)
		return 0, f.unlock()
	}
	if h.home != "" {
		h.nameFolder(f, h.home)
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
	err = h.disk.readDir(f.dir(), func(e fs.DirEntry) {
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
		if _, err := h.sealLeft(f, id); err != nil {
			// The others are not kept waiting for it.
			f.rest = true
			h.opt.Log.Warn("a file of a dead process cannot be sealed now",
				slog.String("segment", id), slog.Any("error", err))
		}
	}
	err = h.disk.readDir(f.dir(), func(e fs.DirEntry) {
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
	err = h.disk.readDir(filepath.Join(f.dir(), keptName), func(e fs.DirEntry) { kept += entrySize(e) })
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
// died, and returns its size. Nobody writes to it anymore, so it may be renamed
// as it is.
func (h *shelf) sealLeft(f *folder, id string) (size int64, err error) {
	info, err := h.disk.stat(f.open(id))
	if err != nil {
		return 0, err
	}
	if info.Size() == 0 {
		return 0, h.disk.remove(f.open(id))
	}
	return info.Size(), h.disk.rename(f.open(id), f.sealed(id))
}

// sealRest seals what could not be sealed when the folder was adopted. h.mu is
// held.
func (h *shelf) sealRest(f *folder) (segments int, err error) {
	var unsealed []string
	err = h.disk.readDir(f.dir(), func(e fs.DirEntry) {
		if id, open := f.segmentOf(e, suffixOpen); open {
			unsealed = append(unsealed, id)
		}
	})
	for _, id := range unsealed {
		size, sealErr := h.sealLeft(f, id)
		if sealErr != nil {
			err = errors.Join(err, sealErr)
			continue
		}
		if size > 0 {
			segments++
			h.segments.Add(1)
			h.bytes.Add(size)
		}
	}
	f.rest = err != nil
	return segments, err
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
// older, and reports whether it could be read.
func (h *shelf) noteOldest(f *folder, id string) bool {
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

// list returns the oldest sealed segments after one, at most limit, without
// those that are passed over. A folder that cannot be listed does not keep back
// the others: its error comes beside their segments.
//
// BUG: sealed files that somebody deletes by hand stay in the counts of
// segments and bytes until the process restarts.
func (h *shelf) list(after string, limit int) ([]Segment, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now, held := h.opt.Now(), ""
	ready := func(id string) bool {
		if !h.pauses.passedOver(id, now) {
			return true
		}
		if held == "" || id < held {
			held = id
		}
		return false
	}
	var segs []Segment
	var errs []error
	for _, f := range h.folders {
		if f.id < folderOf(after) || !h.mine(f) {
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
		h.refreshOldest(segs, held)
	}
	return segs, errors.Join(errs...)
}

// refreshOldest reads the age of the backlog from its first segment that can
// be read. held is the first that is passed over, "" if none is: it waits like
// the others.
func (h *shelf) refreshOldest(segs []Segment, held string) {
	const tries = 4
	var ids []string
	if held != "" {
		ids = append(ids, held)
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
func (h *shelf) records(id string) ([]byte, error) {
	f, err := h.holder(id)
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
		err = nil // cut meanwhile; what is there counts
	}
	return records[:n], err
}

// errTooLarge is for files that have a segment's name but not its size.
var errTooLarge = errors.New("file is larger than any segment")

// holder returns the folder that a segment's id belongs to. One that belongs to
// another installation, and is about to be let go, is as good as gone.
func (h *shelf) holder(id string) (*folder, error) {
	name := folderOf(id)
	if name == "" {
		return nil, fmt.Errorf("%q is not the id of a segment", id)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.folders[name]
	if f == nil || !h.mine(f) {
		return nil, fmt.Errorf("segment %s: %w", id, fs.ErrNotExist)
	}
	return f, nil
}

// quarantine takes a segment without one whole record out of the line.
func (h *shelf) quarantine(id string, damaged map[string]int) error {
	f, err := h.holder(id)
	if err != nil {
		return err
	}
	size := h.disk.size(f.sealed(id))
	if size == 0 {
		err = h.disk.remove(f.sealed(id)) // nothing to look at later
	} else {
		_ = h.disk.setTime(f.sealed(id), h.opt.Now()) // from which quarantineKept counts
		err = h.disk.rename(f.sealed(id), f.bad(id))
	}
	if err != nil {
		return fmt.Errorf("quarantine segment: %w", err)
	}
	h.opt.Metrics.countDamage(damaged)
	h.opt.Metrics.quarantined.Inc()
	h.opt.Log.Error("segment without a whole record quarantined", slog.String("segment", id),
		slog.Int64("bytes", size), slog.Any("damaged", damaged))
	h.left(id, size)
	return nil
}

// left counts a segment less.
func (h *shelf) left(id string, size int64) {
	h.release(id)
	h.bytes.Add(-size)
	if h.segments.Add(-1) == 0 {
		h.oldest.Store(0)
	}
	h.changed()
}

// hold has a segment passed over for a while.
func (h *shelf) hold(id string) {
	h.pauses.add(id, h.opt.Now())
	h.opt.Metrics.held.Set(float64(h.pauses.count()))
}

// release ends what hold began.
func (h *shelf) release(id string) {
	h.pauses.remove(id)
	h.opt.Metrics.held.Set(float64(h.pauses.count()))
}

// ship puts a shipped segment among the kept ones, and reports whether it was not
// there before.
func (h *shelf) ship(id string) (news bool, err error) {
	f, err := h.holder(id)
	if err != nil {
		return false, err
	}
	info, err := h.disk.stat(f.sealed(id))
	if errors.Is(err, fs.ErrNotExist) && (h.disk.exists(f.kept(id)) || h.disk.exists(f.gone(id))) {
		return false, nil // shipped before
	}
	if err != nil {
		return false, err
	}
	// Its time becomes that of shipping, from which Keep counts.
	if err := h.disk.setTime(f.sealed(id), h.opt.Now()); err != nil {
		return false, err
	}
	if err := h.disk.rename(f.sealed(id), f.kept(id)); err != nil {
		return false, err
	}
	h.kept.Add(info.Size())
	h.left(id, info.Size())
	return true, nil
}

// reship puts back in line the segments shipped before a moment, oldest first,
// as long as the line has room for them: it must not be so long that new clicks
// are dropped. waiting counts those that found none.
func (h *shelf) reship(before time.Time, room func() int64) (put, waiting int, err error) {
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

// inLine counts a kept segment as one to ship.
func (h *shelf) inLine(size int64) {
	h.kept.Add(-size)
	h.bytes.Add(size)
	h.segments.Add(1)
	h.opt.Metrics.reshipped.Inc()
}

func (h *shelf) putBack(f *folder, ids []string, before time.Time, room func() int64) (put, waiting int, err error) {
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
		h.inLine(info.Size())
		put++
	}
	return put, waiting, err
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

// expire frees the bytes of kept segments, oldest first, as long as old says
// so, and moves what is left of them to the gone ones. A folder or file in
// trouble does not keep back the others.
func (h *shelf) expire(old func(path string, size int64) bool) error {
	h.mu.Lock()
	before := h.kept.Load()
	defer func() {
		moved := h.kept.Load() != before
		h.mu.Unlock()
		if moved {
			h.changed()
		}
	}()
	var errs []error
	for _, f := range h.byAge() {
		errs = append(errs, h.expireIn(f, old))
	}
	return errors.Join(errs...)
}

func (h *shelf) expireIn(f *folder, old func(path string, size int64) bool) (first error) {
	const atOnce = 1000
	for after := ""; ; {
		ids, err := f.firstIDs(filepath.Join(f.dir(), keptName), after, atOnce, nil)
		first = cmp.Or(first, err)
		for _, id := range ids {
			size := h.disk.size(f.kept(id))
			if size > 0 && !old(f.kept(id), size) { // an empty one is half removed
				return first
			}
			first = cmp.Or(first, h.remove(f, id, size))
		}
		if len(ids) < atOnce {
			return first
		}
		after = ids[len(ids)-1]
	}
}

// remove takes the bytes of a kept segment away and then its name. In this
// order, because on a full disk the rename may need what the cut gives back. A
// crash between the two leaves an empty file, which is neither shipped again
// nor reported as removed before the rename has happened.
func (h *shelf) remove(f *folder, id string, size int64) error {
	if size > 0 {
		if err := h.disk.truncate(f.kept(id)); err != nil {
			return err
		}
		h.kept.Add(-size)
	}
	return h.disk.rename(f.kept(id), f.gone(id))
}

// byAge returns the folders that may be shipped.
func (h *shelf) byAge() []*folder {
	folders := make([]*folder, 0, len(h.folders))
	for _, f := range h.folders {
		if h.mine(f) {
			folders = append(folders, f)
		}
	}
	slices.SortFunc(folders, func(a, b *folder) int { return strings.Compare(a.id, b.id) })
	return folders
}

// allGone returns how far the folders are empty in which segments were removed,
// where that is not confirmed.
func (h *shelf) allGone() (gone []Gone, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.byAge() {
		below, goneErr := h.goneBelow(f)
		there, placeErr := f.inPlace()
		switch {
		case goneErr != nil || placeErr != nil:
			err = errors.Join(err, goneErr, placeErr)
		case !there: // it was moved, and what was listed is not what is in it
		case below == "":
			h.removeDone(f)
		case below != f.confirmed:
			gone = append(gone, Gone{Folder: f.id, Below: below})
		}
	}
	return gone, err
}

// goneBelow returns the oldest id that may be left in a folder, "" if nothing was
// removed from it since that was confirmed. h.mu is held, so that segments move
// nowhere but from .open to .seg, and those are above f.unsealed.
func (h *shelf) goneBelow(f *folder) (below string, err error) {
	last, err := h.lastGone(f)
	if err != nil || last == "" {
		return "", err
	}
	below = nextID(last)
	if f.own {
		below = min(below, segmentID(f.id, int(f.unsealed.Load())))
	}
	lower := func(e fs.DirEntry) {
		for _, suffix := range []string{suffixOpen, suffixSealed} {
			if id, ok := f.segmentOf(e, suffix); ok && id < below {
				below = id
			}
		}
	}
	err = h.disk.readDir(f.dir(), lower)
	return below, cmp.Or(err, h.disk.readDir(filepath.Join(f.dir(), keptName), lower))
}

// lastGone returns the youngest segment that was removed, "" for none. The others
// need no trace of their own: below it, what is not there is gone.
func (h *shelf) lastGone(f *folder) (last string, err error) {
	var older []string
	dir := filepath.Join(f.dir(), goneName)
	err = h.disk.readDir(dir, func(e fs.DirEntry) {
		id, ok := f.segmentOf(e, suffixSealed)
		if !ok {
			return
		}
		if id < last {
			id, last = last, id
		}
		if last != "" {
			older = append(older, last)
		}
		last = id
	})
	for _, id := range older {
		err = cmp.Or(err, h.disk.remove(f.gone(id)))
	}
	return last, err
}

// confirmed notes what the ledger knows of folders, and removes the last traces
// of what it covers.
func (h *shelf) confirmed(gone []Gone) (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range gone {
		f := h.folders[g.Folder]
		if f == nil {
			continue // of a folder that was removed or never ours
		}
		f.confirmed = g.Below
		last, lastErr := h.lastGone(f)
		if lastErr == nil && last != "" && last < g.Below {
			lastErr = h.disk.remove(f.gone(last))
		}
		err = errors.Join(err, lastErr)
	}
	return err
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
			if filepath.Dir(f.dir()) != filepath.Clean(h.opt.Dir) && filepath.Clean(h.opt.Dir) != f.dir() {
				h.opt.Log.Warn("a spool folder was moved away: `signpost spool ship` ships what is left in it", slog.String("folder", f.dir()))
			}
			err = errors.Join(err, f.unlock())
		}
		errs = append(errs, err)
		delete(h.folders, id)
	}
	h.own.Store(nil)
	return errors.Join(errs...)
}
