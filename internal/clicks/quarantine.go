package clicks

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"
)

const (
	// quarantineKept is how long people have to look at a quarantined segment. It ends,
	// because the segment may hold clients' addresses, which no worker ever clears.
	quarantineKept = 30 * 24 * time.Hour
	// quarantineLook is the time between two searches for segments that are too old.
	quarantineLook = time.Hour
)

// quarantine takes a segment without one whole record out of the line.
func (h *store) quarantine(id string, damaged map[string]int) error {
	f, err := h.folderFor(id)
	if err != nil {
		return err
	}
	info, err := h.disk.stat(f.sealed(id))
	switch {
	case err != nil:
	case info.Size() == 0:
		err = h.disk.remove(f.sealed(id)) // there is nothing to look at later
	default:
		_ = h.disk.setTime(f.sealed(id), h.opt.Now()) // from which quarantineKept counts
		err = h.disk.rename(f.sealed(id), f.bad(id))
	}
	if err != nil {
		return fmt.Errorf("quarantine segment: %w", err)
	}
	h.opt.Metrics.countDamage(damaged)
	h.opt.Metrics.quarantined.Inc()
	h.opt.Log.Error("segment without a whole record quarantined", slog.String("segment", id),
		slog.Int64("bytes", info.Size()), slog.Any("damaged", damaged))
	h.leaveLine(id, info.Size())
	return nil
}

// emptyQuarantine removes the segments that were quarantined longer than quarantineKept
// before now. It searches at most once in quarantineLook.
func (h *store) emptyQuarantine(now time.Time) error {
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
			id, ok := f.segmentOf(e, suffixBad)
			if info, err := e.Info(); ok && err == nil && info.ModTime().Before(now.Add(-quarantineKept)) {
				old = append(old, id)
			}
		})
		errs = append(errs, err)
		for _, id := range old {
			errs = append(errs, h.disk.remove(f.bad(id)))
			h.opt.Log.Info("a segment quarantined long ago is removed", slog.String("segment", id))
		}
		if len(old) > 0 {
			h.removeDone(f)
		}
	}
	return errors.Join(errs...)
}
