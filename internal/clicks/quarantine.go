package clicks

import (
	"errors"
	"io/fs"
	"log/slog"
	"time"
)

const (
	// quarantineKept is the time to look at what was damaged: it may hold clients'
	// addresses, which nobody ingests and so nobody else takes away.
	quarantineKept = 30 * 24 * time.Hour
	// quarantineLook is the time between two looks for what is older.
	quarantineLook = time.Hour
)

// emptyQuarantine removes what was set aside or put aside more than quarantineKept before
// now, if it was not done of late.
func (h *shelf) emptyQuarantine(now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Before(h.quarantineDue) {
		return nil
	}
	h.quarantineDue = now.Add(quarantineLook)
	var errs []error
	for _, f := range h.byAge() {
		var old []string
		err := h.disk.readDir(f.dir(), func(e fs.DirEntry) {
			if id, ok := f.segmentOf(e, suffixBad); ok && h.outlived(f.bad(id), now) {
				old = append(old, id)
			}
		})
		errs = append(errs, err)
		for _, id := range old {
			err := h.disk.remove(f.bad(id))
			errs = append(errs, err)
			if err == nil {
				h.opt.Log.Info("damaged clicks removed: they were set aside long ago", slog.String("segment", id))
			}
		}
		if len(old) > 0 {
			h.removeDone(f)
		}
	}
	return errors.Join(errs...)
}

func (h *shelf) outlived(path string, now time.Time) bool {
	info, err := h.disk.stat(path)
	return err == nil && info.ModTime().Before(now.Add(-quarantineKept))
}
