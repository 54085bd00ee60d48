package clicks

import "time"

// The watchdog gives appends up after patience.strikes ticks. It counts ticks of
// its own rather than time, because a process that was paused as a whole has
// missed ticks too, and its disk is not stuck.
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

// strike gives up what has waited too long, and reports whether anything
// waits.
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
		// The next group stays the next: its records, and the records of appends
		// that come from now on, are written when the disk comes back.
		s.giveUpWaiting(s.flight)
		s.giveUpWaiting(s.next)
		s.chooseRefusal()
	}
	return waiting
}

// giveUpWaiting lets the appends of g go. What becomes of their clicks is not
// known: they are counted when it is. s.mu is held.
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

// stopWatching lets the next append wake the watchdog, unless one waits.
func (s *Spool) stopWatching() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next.clicks > 0 || s.flight != nil {
		return false
	}
	s.watching = false
	return true
}
