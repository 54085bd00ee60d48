package clicks

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
)

// foreign is a folder without an owner that belongs to another installation. Its
// segments are neither shipped nor removed.
type foreign struct {
	path         string
	installation string
	segments     int // not shipped
}

// ShipTo sets the installation that segments are shipped to from now on. Folders that
// name no installation get its name. Folders that name another one are released and
// held back, until an operator ships them all the same ([Options].AdoptForeign) or
// drops them ([DropFolder]). If the folder of this process is one of those, new clicks
// go to another folder.
//
// BUG: a click can be answered from links that were cached of one installation, and
// appended just after the database of another one took its place. The click is then in
// a folder of the second installation. The feed and the shipper each notice the change
// by themselves, within about a second.
func (s *Spool) ShipTo(installation string) {
	s.store.shipTo(installation)
	s.changed()
}

// Installation returns the installation that ShipTo was last called with, "" before the
// first call.
func (s *Spool) Installation() string {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return s.store.home
}

// Foreign returns the folders that are held because they belong to another
// installation, oldest first.
func (s *Spool) Foreign() (paths []string) {
	h := &s.store
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.foreign {
		paths = append(paths, f.path)
	}
	slices.SortFunc(paths, func(a, b string) int { return cmp.Compare(filepath.Base(a), filepath.Base(b)) })
	return paths
}

func (h *store) shipTo(installation string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.home == installation {
		return
	}
	h.home = installation
	for _, f := range h.folders {
		switch {
		case f.installation == "":
			h.nameFolder(f, installation)
		case h.shippable(f):
		case f.own:
			h.quitNow(f) // releaseQuit lets it go
		default:
			h.letGo(f)
		}
	}
}

// shippable reports whether a folder may be shipped. h.mu is held.
func (h *store) shippable(f *folder) bool {
	return f.installation == "" || h.home == "" || f.installation == h.home
}

// nameFolder writes the name of an installation into a folder. If the disk does not
// allow that, the clicks are not held back: this process remembers the name and tries
// again.
func (h *store) nameFolder(f *folder, installation string) {
	news := f.installation != installation
	if err := f.name(installation); err != nil && news {
		h.opt.Log.Warn("a spool folder cannot be named after its installation now", slog.String("folder", f.dir()), slog.Any("error", err))
	}
}

// letGo releases a folder of another installation and no longer counts its segments. An
// empty one, as a process makes before it knows its installation, is removed.
func (h *store) letGo(f *folder) {
	h.uncount(f)
	h.setLost(f, false)
	delete(h.folders, f.id)
	if removed, err := f.removeIfEmpty(); removed && err == nil {
		return
	}
	h.holdFolder(f)
	if err := f.unlock(); err != nil {
		h.opt.Log.Warn("spool folder not released", slog.String("folder", f.dir()), slog.Any("error", err))
	}
}

// uncount takes the segments of a folder out of the counts.
func (h *store) uncount(f *folder) {
	err := h.disk.readDir(f.dir(), func(e fs.DirEntry) {
		id, ok := f.segmentOf(e, suffixSealed)
		if !ok {
			return
		}
		h.release(id)
		h.waiting.remove(id)
		h.bytes.Add(-entrySize(e))
		h.segments.Add(-1)
	})
	err = errors.Join(err, h.disk.readDir(filepath.Join(f.dir(), keptName), func(e fs.DirEntry) { h.kept.Add(-entrySize(e)) }))
	if err != nil {
		h.opt.Log.Warn("a spool folder that is let go cannot be counted", slog.String("folder", f.dir()), slog.Any("error", err))
	}
	h.oldest.Store(0) // the next listing finds it
}

// holdFolder notes a folder of another installation, and logs it the first time.
func (h *store) holdFolder(f *folder) {
	held := foreign{path: f.dir(), installation: f.installation}
	err := h.disk.readDir(f.dir(), func(e fs.DirEntry) {
		_, sealed := f.segmentOf(e, suffixSealed)
		if _, open := f.segmentOf(e, suffixOpen); sealed || open && entrySize(e) > 0 {
			held.segments++
		}
	})
	if !h.foreignLogged[f.id] {
		h.foreignLogged[f.id] = true
		h.opt.Log.Error("a spool folder belongs to another installation and is held: "+
			"`signpost spool ship --adopt` counts its clicks here all the same, `signpost spool drop` throws them away",
			slog.String("folder", held.path), slog.String("installation", held.installation),
			slog.String("ships_to", h.home), slog.Int("segments", held.segments), slog.Any("error", err))
	}
	h.foreign[f.id] = held
	h.countForeign()
}

func (h *store) countForeign() {
	n := 0
	for _, f := range h.foreign {
		n += f.segments
	}
	h.opt.Metrics.foreign.Set(float64(n))
}

// DropFolder deletes the clicks in the folder of a process that is gone, of whichever
// installation. It returns how many segments had not been shipped. Files that the spool
// did not make are left there.
func DropFolder(dir string) (segments int, err error) {
	if !folderName.MatchString(filepath.Base(dir)) {
		return 0, fmt.Errorf("drop spool folder: %s is not the folder of a process; one is named like 20260131t090507-0f1e2d3c4b5a6978", dir)
	}
	d := realDisk()
	if !d.exists(dir) {
		return 0, fmt.Errorf("drop spool folder: %s: %w", dir, fs.ErrNotExist)
	}
	f, err := adoptFolder(d, dir)
	if err != nil {
		return 0, fmt.Errorf("drop spool folder: %w", err)
	}
	segments, err = f.drop()
	if removed, removeErr := f.removeIfEmpty(); !removed {
		err = errors.Join(err, removeErr, f.unlock())
	}
	return segments, wrap("drop spool folder", err)
}

// drop removes every file that the spool made.
func (f *folder) drop() (segments int, err error) {
	for _, dir := range []string{f.dir(), filepath.Join(f.dir(), keptName), filepath.Join(f.dir(), goneName)} {
		listErr := f.disk.readDir(dir, func(e fs.DirEntry) {
			for _, suffix := range []string{suffixOpen, suffixSealed, suffixBad} {
				if _, ok := f.segmentOf(e, suffix); !ok {
					continue
				}
				if dir == f.dir() && suffix != suffixBad && entrySize(e) > 0 {
					segments++
				}
				err = errors.Join(err, f.disk.remove(filepath.Join(dir, e.Name())))
			}
		})
		err = errors.Join(err, listErr)
	}
	return segments, err
}

// ForeignError says that the folders to be shipped belong to another installation.
type ForeignError struct{ Folders []string }

func (e *ForeignError) Error() string {
	return "these spool folders belong to another installation: " + strings.Join(e.Folders, ", ")
}
