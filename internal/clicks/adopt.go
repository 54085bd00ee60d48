package clicks

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"

	"github.com/signpost/signpost/internal/files"
)

// ownFolder returns the folder that new segments go to. The first call makes it. Only
// the sealer calls it.
func (h *store) ownFolder(durable bool) (*folder, error) {
	if f := h.own.Load(); f != nil {
		return f, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	f, err := makeFolder(h.disk, h.opt.Dir, durable)
	for tries := 0; tries < 3 && (errors.Is(err, files.ErrLocked) || errors.Is(err, fs.ErrNotExist)); tries++ {
		// After this process had made the folder and before it had locked it, another
		// process took it for an orphan. The next try uses another name.
		f, err = makeFolder(h.disk, h.opt.Dir, durable)
	}
	if err != nil {
		return nil, err
	}
	if name := cmp.Or(h.home, h.opt.Supposed); name != "" {
		h.nameFolder(f, name)
	}
	h.own.Store(f)
	h.folders[f.id] = f
	return f, nil
}

// adopt takes over every folder below the spool's that has no owner.
func (h *store) adopt() (segments int, err error) {
	defer func() {
		if segments > 0 {
			h.changed()
		}
	}()
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, f := range h.folders {
		if !f.own {
			h.lookFor(f)
		}
		if h.home != "" && h.shippable(f) {
			h.nameFolder(f, h.home)
		}
		if f.unsealedLeft {
			n, bytes, err := h.sealOpen(f)
			h.segments.Add(int64(n))
			h.bytes.Add(bytes)
			errs, segments = append(errs, err), segments+n
		}
	}
	held := h.foreign
	h.foreign = make(map[string]foreign)
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
	if err != nil {
		h.foreign = held
	}
	h.countForeign()
	return segments, errors.Join(append(errs, err)...)
}

func (h *store) adoptOne(path string) (segments int, err error) {
	f, err := adoptFolder(h.disk, path)
	if errors.Is(err, files.ErrLocked) || errors.Is(err, fs.ErrNotExist) {
		return 0, nil // owned, or removed by another adopter
	}
	if err != nil {
		return 0, fmt.Errorf("adopt spool folder: %w", err)
	}
	if !h.shippable(f) && !h.opt.AdoptForeign {
		h.holdFolder(f)
		return 0, f.unlock()
	}
	if h.home != "" {
		h.nameFolder(f, h.home)
	}
	segments, err = h.takeIn(f)
	if err != nil {
		// If its segments were not counted, Options.MaxBytes would not hold.
		h.waiting.removeFolder(f)
		return 0, errors.Join(fmt.Errorf("adopt spool folder: %w", err), f.unlock())
	}
	h.folders[f.id] = f
	h.taken[f.id] = true
	h.removeDone(f)
	return segments, nil
}

// takeIn seals the files that a crash left open and counts the segments in a folder.
func (h *store) takeIn(f *folder) (segments int, err error) {
	if _, _, err := h.sealOpen(f); err != nil {
		h.opt.Log.Warn("a file of a dead process cannot be sealed now", slog.String("folder", f.id), slog.Any("error", err))
	}
	bytes, kept, oldest := int64(0), int64(0), ""
	err = h.disk.readDir(f.dir(), func(e fs.DirEntry) {
		if id, ok := f.segmentOf(e, suffixSealed); ok {
			segments++
			bytes += entrySize(e)
			h.waiting.found(id)
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
	h.opt.Log.Info("spool folder adopted", slog.String("folder", f.id), slog.Int("segments", segments), slog.Int64("bytes", bytes))
	return segments, nil
}

// sealOpen seals the files that the owner of a folder was writing, or kept as a spare,
// when it died. It returns how many they are and their size. No process writes to them
// anymore, so they are renamed as they are. If one cannot be sealed, the others are
// sealed all the same, and the next adoption tries it again.
func (h *store) sealOpen(f *folder) (segments int, bytes int64, err error) {
	var open []string
	err = h.disk.readDir(f.dir(), func(e fs.DirEntry) {
		if id, ok := f.segmentOf(e, suffixOpen); ok {
			open = append(open, id)
		}
	})
	for _, id := range open {
		info, sealErr := h.disk.stat(f.open(id))
		switch {
		case sealErr != nil:
		case info.Size() == 0:
			sealErr = h.disk.remove(f.open(id))
		default:
			if sealErr = h.disk.rename(f.open(id), f.sealed(id)); sealErr == nil {
				segments++
				bytes += info.Size()
				h.waiting.found(id)
			}
		}
		err = errors.Join(err, sealErr)
	}
	f.unsealedLeft = err != nil
	return segments, bytes, err
}

func entrySize(e fs.DirEntry) int64 {
	info, err := e.Info()
	if err != nil {
		return 0 // gone meanwhile
	}
	return info.Size()
}
