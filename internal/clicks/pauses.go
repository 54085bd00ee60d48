package clicks

import (
	"sync"
	"time"
)

const (
	// pauseLeast is how long a segment is left out after its first failure. Each
	// further failure doubles that, up to pauseMost.
	pauseLeast, pauseMost = time.Second, 5 * time.Minute
	// maxPauses bounds the segments that are remembered. Further ones are tried on
	// every pass: they do not hold back other segments, but each try costs time.
	maxPauses = 4096
)

// pauses remembers the segments that failed for a reason of their own. They are left
// out for a while, so that the segments after them are shipped.
type pauses struct {
	mu   sync.Mutex
	most int // of them are remembered
	byID map[string]pause
}

type pause struct {
	until time.Time // when the next try is due
	wait  time.Duration
}

// add notes one more failure of a segment.
func (h *pauses) add(id string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, known := h.byID[id]
	if !known && len(h.byID) >= h.most {
		return
	}
	if !known {
		e = pause{wait: pauseLeast / 2}
	}
	e.wait = min(2*e.wait, pauseMost)
	e.until = now.Add(e.wait)
	if h.byID == nil {
		h.byID = make(map[string]pause)
	}
	h.byID[id] = e
}

// passedOver reports whether a segment is still left out, because its next try is not
// due yet.
func (h *pauses) passedOver(id string, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, known := h.byID[id]
	return known && now.Before(e.until)
}

func (h *pauses) remove(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.byID, id)
}

func (h *pauses) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.byID)
}
