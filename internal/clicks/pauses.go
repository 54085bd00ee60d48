package clicks

import (
	"sync"
	"time"
)

const (
	// pauseLeast and pauseMost bound how long a segment that failed is passed
	// over: as long as at first, then twice as long each time.
	pauseLeast, pauseMost = time.Second, 5 * time.Minute
	// maxPauses bounds the segments that are remembered. More are tried at every
	// pass; they keep none back, they only cost.
	maxPauses = 4096
)

// pauses remembers the segments that failed for a reason of their own and are
// passed over for a while, so that those behind them go on.
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

// passedOver reports whether the next try of a segment is not due yet.
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
