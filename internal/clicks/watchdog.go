package clicks

import "time"

// The watchdog gives up appends after patience.strikes ticks. It counts its own ticks
// instead of time: if the whole process was paused, the watchdog missed ticks too, and
// the disk is not stuck.
const watchTick = 8 * time.Millisecond

// watchGroups is the watchdog. It never touches the disk or the log.
func (s *Spool) watchGroups() {
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	for {
		tick.Stop()
		select {
		case <-s.watch:
		case <-s.writerDone:
			return
		}
		tick.Reset(watchTick)
		for quiet := 0; quiet < s.patience.idle || !s.stopWatching(); {
			select {
			case <-tick.C:
			case <-s.writerDone:
				return
			}
			if s.strike() {
				quiet = 0
			} else {
				quiet++
			}
		}
	}
}

// strike gives up the appends that have waited too long, and reports whether any append
// is waiting.
func (s *Spool) strike() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := false
	for _, g := range []*group{s.flight, s.next} {
		if g == nil || g.clicks == 0 || g.answered {
			continue
		}
		waiting = true
		if g.strikes++; g.strikes >= s.patience.strikes {
			s.stuck = true
		}
	}
	if s.stuck && waiting {
		// The next group is not replaced: its records, and those of appends from now
		// on, are written when the disk works again.
		s.giveUpWaiting(s.flight)
		s.giveUpWaiting(s.next)
		s.chooseRefusal()
	}
	return waiting
}

// giveUpWaiting wakes the appends of g with an error. Whether their clicks will be
// written is not known yet; they are counted when it is. s.mu is held.
func (s *Spool) giveUpWaiting(g *group) {
	if g == nil || g.answered {
		return
	}
	s.answer(g, errStuck)
	if g.clicks > 0 {
		s.opt.Metrics.unwritten.Add(float64(g.clicks))
		s.news.Store(true)
		notify(s.report)
	}
}

// stopWatching lets the next append wake the watchdog. If an append is waiting, it does
// nothing and returns false.
func (s *Spool) stopWatching() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next.clicks > 0 || s.flight != nil {
		return false
	}
	s.watching = false
	return true
}
