package clicks

import (
	"cmp"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
)

// evict removes kept segments, oldest first, until need bytes are free or no kept
// segment is left.
func (h *store) evict(need int64) error {
	return h.expire(func(_ string, size int64) bool {
		if need <= 0 {
			return false
		}
		need -= size
		return true
	})
}

// expire frees the bytes of kept segments, oldest first, in each folder until old
// returns false for one. It moves the empty files to the folder "gone". Trouble with
// one folder or file does not stop it from going on with the others.
func (h *store) expire(old func(path string, size int64) bool) error {
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

func (h *store) expireIn(f *folder, old func(path string, size int64) bool) (first error) {
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

// remove cuts a kept segment to nothing and then moves it to "gone". It cuts first
// because on a full disk the rename may need the space. A crash between the two leaves
// an empty file in "kept": such a file is not shipped again, and is not reported as
// removed before the rename is done.
func (h *store) remove(f *folder, id string, size int64) error {
	if size > 0 {
		if err := h.disk.truncate(f.kept(id)); err != nil {
			return err
		}
		h.kept.Add(-size)
	}
	return h.disk.rename(f.kept(id), f.gone(id))
}

// allGone returns, for each folder in which segments were removed, the number below
// which it is empty, unless the ledger has confirmed that number.
func (h *store) allGone() (gone []Gone, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.byAge() {
		below, goneErr := h.goneBelow(f)
		there, movedErr := f.inPlace()
		switch {
		case goneErr != nil || movedErr != nil:
			err = errors.Join(err, goneErr, movedErr)
		case !there: // it was moved: another folder was listed
		case below == "":
			h.removeDone(f)
		case below != f.confirmed:
			gone = append(gone, Gone{Folder: f.id, Below: below})
		}
	}
	return gone, err
}

// goneBelow returns the oldest id that may still be in a folder, or "" if nothing was
// removed since the last confirmation. h.mu is held, so that the only segments that
// move are those from .open to .seg, which are above f.unsealed.
func (h *store) goneBelow(f *folder) (below string, err error) {
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

// lastGone returns the youngest segment that was removed, "" if there is none. It is
// enough to keep a trace of that one: an older id that is not in the folder must have
// been removed.
func (h *store) lastGone(f *folder) (last string, err error) {
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

// confirmed notes the numbers that the ledger knows for the folders, and removes the
// empty files in "gone" that they cover.
func (h *store) confirmed(gone []Gone) (err error) {
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

// reported says that a stored report of this process, or of the one that had the folder
// before, names a folder. It has to stay until a later report is stored without it: who
// adopts it after a crash says in its own report that nothing of it is left. h.mu is held.
func (h *store) reported(f *folder) bool { return h.named[f.id] || h.taken[f.id] }

// removeDone removes an adopted folder once nothing is left in it. h.mu is
// held.
func (h *store) removeDone(f *folder) {
	if f.own || h.reported(f) {
		return
	}
	removed, err := f.removeIfEmpty()
	if err != nil {
		h.opt.Log.Warn("empty spool folder not removed", slog.String("folder", f.id), slog.Any("error", err))
	}
	if removed {
		h.setLost(f, false)
		delete(h.folders, f.id)
	}
}
