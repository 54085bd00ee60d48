package clicks

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Report says which accepted clicks are in a spool and not shipped.
type Report struct {
	// Folders are those whose clicks are in the report: the folder of this process, and
	// adopted ones that are not empty.
	Folders []string
	// TakenOver are adopted folders that no report before has named (see
	// [Spool.Reported]). Their clicks are in this report, or were shipped.
	TakenOver []string
	Clicks    int64
	// CompleteTo is a time before which no accepted click is left in the spool, and none
	// will come into it.
	CompleteTo time.Time
	// Complete is false while segments that were adopted or put back are not counted.
	// CompleteTo is right all the same.
	Complete bool

	underWay bool // clicks are being written
}

// Empty reports whether nothing is left in the spool.
func (r Report) Empty() bool { return r.Complete && r.Clicks == 0 && !r.underWay }

const (
	// countBytes bounds how much of adopted segments one report reads to count them.
	countBytes = 32 << 20
	// maxLift bounds by how much the time of a click is changed to keep the promise of a
	// report. A click that would need more comes from a clock that was set back.
	maxLift = 10 * time.Second
)

// Report says which clicks are not shipped, leaving out batches that are just being
// shipped: it is true as soon as they are committed.
//
// A report is a promise about clicks that come later: a click that is appended with a
// time before CompleteTo, because its redirect took long, is kept with the time
// CompleteTo. Only if the clock was set back by more than ten seconds it keeps its own.
func (s *Spool) Report(shipping []Batch) Report {
	s.countWaiting()
	var r Report
	r.Folders, r.TakenOver = s.store.reportable()
	except := make(map[string]bool, len(shipping))
	for _, b := range shipping {
		except[b.ID] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opt.Now().UnixMicro()
	oldest := now
	for _, g := range []*group{s.flight, s.next} { // not accepted yet, or just now
		if g != nil && g.clicks > 0 {
			oldest, r.underWay = min(oldest, g.oldest), true
		}
	}
	clicks, least, complete := s.store.waiting.sum(except)
	if least != 0 {
		oldest = min(oldest, least)
	}
	if s.told-now > maxLift.Microseconds() {
		s.told = 0 // the clock was set back
	}
	s.told = max(s.told, oldest)
	r.Clicks, r.CompleteTo, r.Complete = clicks, time.UnixMicro(oldest).UTC(), complete
	return r
}

// Reported says that a report is stored. After the first one no click comes any more
// that is older than now: until then, those who asked did not know of this spool.
func (s *Spool) Reported(r Report) {
	s.mu.Lock()
	if !s.known {
		s.known, s.told = true, max(s.told, s.opt.Now().UnixMicro())
	}
	s.mu.Unlock()
	s.store.reportStored(r)
}

// reportStored notes which folders are named in a report that was stored. Others, which
// were named before, are removed if they are empty.
func (h *store) reportStored(r Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := slices.Concat(slices.Collect(maps.Keys(h.named)), r.TakenOver)
	h.named = make(map[string]bool, len(r.Folders))
	for _, id := range r.Folders {
		h.named[id] = true
	}
	for _, id := range r.TakenOver {
		delete(h.taken, id)
	}
	for _, id := range before {
		if f := h.folders[id]; f != nil {
			h.removeDone(f)
		}
	}
}

// inTime returns c, or a copy with a later time if a report has promised that no click
// of its time will come. s.mu is held.
func (s *Spool) inTime(c *Click) *Click {
	at := c.At.UnixMicro()
	if at >= s.told || s.told-at > maxLift.Microseconds() {
		return c
	}
	later := *c
	later.At = time.UnixMicro(s.told).UTC()
	return &later
}

// countWaiting counts the clicks of segments that were adopted or put back.
func (s *Spool) countWaiting() {
	left := countBytes
	for _, id := range s.store.waiting.uncounted() {
		if left <= 0 {
			return
		}
		records, err := s.store.records(id)
		if err != nil {
			continue // shipped meanwhile, or it cannot be read now
		}
		left -= len(records)
		var l lot
		scan(id, records, func(c *Click) { l.add(1, c.At.UnixMicro()) })
		s.store.waiting.counted(id, l)
	}
}

// reportable returns the folders that a report covers, and those that it takes over.
func (h *store) reportable() (folders, taken []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	uncounted, filled := map[string]bool{}, map[string]bool{}
	h.waiting.mu.Lock()
	for id, l := range h.waiting.lots {
		filled[folderOf(id)] = true
		if l.clicks == notCounted {
			uncounted[folderOf(id)] = true
		}
	}
	h.waiting.mu.Unlock()
	for id, f := range h.folders {
		if f.own || filled[id] && !uncounted[id] && !f.unsealedLeft {
			folders = append(folders, id)
		}
	}
	for id := range h.taken {
		if f := h.folders[id]; !uncounted[id] && (f == nil || !f.unsealedLeft) {
			taken = append(taken, id)
		}
	}
	slices.Sort(folders)
	slices.Sort(taken)
	return folders, taken
}

// waiting is the account of accepted clicks that are not shipped, by segment. A segment
// is in it from the first write to its file until it is shipped, so that no click is
// missing in between.
type waiting struct {
	mu   sync.Mutex
	lots map[string]lot
}

// lot is the clicks of one segment.
type lot struct {
	clicks int   // notCounted if they were not counted yet
	oldest int64 // Unix microseconds
}

const notCounted = -1

func (l *lot) add(clicks int, oldest int64) {
	if l.clicks == 0 || oldest < l.oldest {
		l.oldest = oldest
	}
	l.clicks += clicks
}

// grow adds clicks to a segment.
func (w *waiting) grow(id string, clicks int, oldest int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.lots[id]
	l.add(clicks, oldest)
	w.lots[id] = l
}

// found enters a segment whose clicks are yet to be counted. Until then they are taken
// to be as old as their folder.
func (w *waiting) found(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.lots[id]; !known {
		w.lots[id] = lot{clicks: notCounted, oldest: folderAge(id).UnixMicro()}
	}
}

func (w *waiting) counted(id string, l lot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if was, known := w.lots[id]; known && was.clicks == notCounted {
		w.lots[id] = l
	}
}

func (w *waiting) remove(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.lots, id)
}

// rename moves the clicks of a segment to another one.
func (w *waiting) rename(from, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l, known := w.lots[from]; known {
		w.lots[to] = l
		delete(w.lots, from)
	}
}

// removeFolder removes the sealed segments of a folder. Files that are not sealed are
// still open, and can be copied if the folder is gone.
func (w *waiting) removeFolder(f *folder) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.lots, func(id string, _ lot) bool { return folderOf(id) == f.id && !f.unsealedSeqs[seqOf(id)] })
}

// sum returns the number of counted clicks, the time of the oldest click (0 if there is
// none), and whether all are counted.
func (w *waiting) sum(except map[string]bool) (clicks int64, oldest int64, complete bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	complete = true
	for id, l := range w.lots {
		switch {
		case except[id] || l.clicks == 0:
			continue
		case l.clicks == notCounted:
			complete = false
		default:
			clicks += int64(l.clicks)
		}
		if oldest == 0 || l.oldest < oldest {
			oldest = l.oldest
		}
	}
	return clicks, oldest, complete
}

// uncounted returns the segments that are to be counted, oldest first.
func (w *waiting) uncounted() (ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, l := range w.lots {
		if l.clicks == notCounted {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// folderAge returns when the folder of a segment was made, which its name says.
func folderAge(id string) time.Time {
	at, err := time.Parse("20060102t150405", id[:min(len(id), len("20060102t150405"))])
	if err != nil { // never happens: it is the name of a folder
		return time.Unix(0, 0)
	}
	return at
}
