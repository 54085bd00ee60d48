package clicks

import (
	"errors"
	"sync"
	"syscall"
	"time"
)

const (
	// holdLeast and holdMost bound how long a segment that failed is passed
	// over: as long as at first, then twice as long each time.
	holdLeast, holdMost = time.Second, 5 * time.Minute
	// salvageAfter is how long the disk may refuse to read a segment until
	// what it does give of it is taken for all there is.
	salvageAfter = 5 * time.Minute
	// maxHolds bounds the segments that are remembered to be in trouble. More
	// of them are tried at every pass; they keep nobody back, they only cost.
	maxHolds = 4096
)

// holds remembers the segments that failed for a reason of their own and are
// passed over for a while, so that those behind them go on.
type holds struct {
	mu   sync.Mutex
	most int // of them are remembered
	byID map[string]hold
}

type hold struct {
	since time.Time // of the first failure
	until time.Time // when the next try is due
	wait  time.Duration
}

// add notes one more failure of a segment.
func (h *holds) add(id string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, known := h.byID[id]
	if !known && len(h.byID) >= h.most {
		return
	}
	if !known {
		e = hold{since: now, wait: holdLeast / 2}
	}
	e.wait = min(2*e.wait, holdMost)
	e.until = now.Add(e.wait)
	if h.byID == nil {
		h.byID = make(map[string]hold)
	}
	h.byID[id] = e
}

// failingSince returns when a segment failed first, now if it does not fail.
func (h *holds) failingSince(id string, now time.Time) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e, known := h.byID[id]; known {
		return e.since
	}
	return now
}

// passedOver reports whether the next try of a segment is not due yet.
func (h *holds) passedOver(id string, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, known := h.byID[id]
	return known && now.Before(e.until)
}

func (h *holds) remove(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.byID, id)
}

func (h *holds) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.byID)
}

// lostOnDisk reports whether err says that the device cannot give the bytes of
// a file. Other errors of reading say nothing about the file: a process that
// is out of descriptors, or not permitted, may read it whole later.
func lostOnDisk(err error) bool {
	for _, lost := range []error{syscall.EIO, errCorrupted, syscall.EBADMSG, syscall.ENODATA} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}
