package clicks

import (
	"errors"
	"log/slog"
)

// quit makes new segments go to another folder. The last files of this one are sealed
// as soon as the writer no longer uses it. A process quits its own folder when somebody
// moved or removed it, or when the folder turns out to belong to another installation.
func (h *store) quit(f *folder) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.quitNow(f)
}

// quitNow is quit with h.mu held.
func (h *store) quitNow(f *folder) {
	if !h.own.CompareAndSwap(f, nil) {
		return // it was quit before
	}
	f.quit.Store(true)
	h.quits = append(h.quits, f)
	h.quitting.Store(int64(len(h.quits)))
}

// releaseQuit completes quit for the folders whose last file is sealed. Only the sealer
// calls it. It reports whether anything changed.
func (h *store) releaseQuit() (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	open := h.quits[:0]
	for _, f := range h.quits {
		there, changed := h.lookFor(f)
		news = news || changed
		switch {
		case !there:
		case len(f.unsealedSeqs) > 0:
			open = append(open, f)
		case h.shippable(f):
			f.own = false // from here on it is treated like an adopted folder
			news = true
		default:
			h.letGo(f)
			news = true
		}
	}
	h.quits = open
	h.quitting.Store(int64(len(open)))
	return news
}

// lookFor looks for a folder that is no longer at its path. If it was moved, it is used
// at its new path. If it was removed, lookFor drops it and returns false. A folder that
// was moved out of reach stays in use: its clicks wait until it is back. h.mu is held.
func (h *store) lookFor(f *folder) (there, news bool) {
	in, err := f.inPlace()
	if in {
		h.setLost(f, false)
	}
	if err != nil || in {
		return true, false
	}
	from := f.dir()
	dir, err := f.find()
	switch {
	case errors.Is(err, errRemoved):
		h.opt.Log.Error("spool folder was removed while in use", slog.String("folder", from))
		h.setLost(f, false)
		h.waiting.removeFolder(f)
		delete(h.folders, f.id)
		_ = f.unlock() // the file is gone, only the descriptor is left
		return false, true
	case err != nil:
		if h.setLost(f, true) {
			h.opt.Log.Error("spool folder was moved out of reach while in use; its clicks wait where it is",
				slog.String("folder", from), slog.Any("error", err))
		}
		return true, false
	}
	f.path.Store(&dir)
	h.setLost(f, false)
	h.opt.Log.Error("spool folder was moved while in use; its clicks are shipped from where it is",
		slog.String("folder", from), slog.String("moved_to", dir))
	return true, true
}

// setLost notes whether a folder is out of reach, and reports whether that changed.
func (h *store) setLost(f *folder, lost bool) (changed bool) {
	if f.lost == lost {
		return false
	}
	f.lost = lost
	if lost {
		h.opt.Metrics.outOfReach.Inc()
	} else {
		h.opt.Metrics.outOfReach.Dec()
	}
	return true
}
