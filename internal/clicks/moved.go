package clicks

import (
	"errors"
	"log/slog"
)

// quit makes new segments go to another folder. The last files of this one are
// sealed as soon as the writer has left it. The folder of a process is quit when
// somebody moved or removed it, or when it turns out to belong to another
// installation.
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

// releaseQuit ends what quit began, for the folders whose last file is sealed.
// Only the sealer calls it. It reports whether there is news.
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
			f.own = false // one like those adopted
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

// lookFor finds a folder that is not in its place: it goes on being used where it
// was moved to. It returns false for one that was removed, which is forgotten.
// h.mu is held.
func (h *store) lookFor(f *folder) (there, news bool) {
	if in, err := f.inPlace(); err != nil || in {
		return true, err == nil && h.setLost(f, false)
	}
	from := f.dir()
	dir, err := f.find()
	switch {
	case errors.Is(err, errRemoved):
		h.opt.Log.Error("spool folder was removed while in use", slog.String("folder", from))
		h.setLost(f, false)
		delete(h.folders, f.id)
		_ = f.unlock() // the file is gone, only the descriptor is left
		return false, true
	case err != nil:
		if news = h.setLost(f, true); news {
			h.opt.Log.Error("spool folder was moved out of reach while in use; its clicks wait where it is",
				slog.String("folder", from), slog.Any("error", err))
		}
		return true, news
	}
	f.path.Store(&dir)
	h.setLost(f, false)
	h.opt.Log.Error("spool folder was moved while in use; its clicks are shipped from where it is",
		slog.String("folder", from), slog.String("moved_to", dir))
	return true, true
}

// setLost notes whether a folder is out of reach, and reports whether it was not
// so before. Until it is back, the oldest click of the backlog may be in it.
func (h *store) setLost(f *folder, lost bool) (news bool) {
	if f.lost == lost {
		return false
	}
	f.lost = lost
	n := 0
	for _, f := range h.folders {
		if f.lost {
			n++
		}
	}
	switch {
	case n == 0:
		h.lostSince.Store(0)
	case h.lostSince.Load() == 0:
		since := h.oldest.Load()
		if since == 0 {
			since = h.opt.Now().UnixMicro()
		}
		h.lostSince.Store(since)
	}
	h.opt.Metrics.outOfReach.Set(float64(n))
	return true
}
