package api

import "time"

// patience is how long slow clients, and tokens that have ended, are borne with.
type patience struct {
	// least is the mean of bytes a second that a client has to send of an upload,
	// or to take of an export, over each spell of this length that is spent
	// waiting for it.
	least int64
	spell time.Duration
	// look is how often the token of a request that lasts is looked at again.
	look time.Duration
}

func usualPatience() patience {
	return patience{least: 1 << 10, spell: time.Minute, look: 15 * time.Second}
}

// pace measures how fast a client sends or takes bytes. The time in which it
// waits for us does not count. Not to be used concurrently.
type pace struct {
	patience patience
	bytes    int64
	waited   time.Duration
}

// slow notes that n bytes were waited for, and reports whether a spell has ended
// in which there were too few.
func (p *pace) slow(n int, waited time.Duration) bool {
	p.bytes += int64(n)
	if p.waited += waited; p.waited < p.patience.spell {
		return false
	}
	slow := float64(p.bytes) < float64(p.patience.least)*p.waited.Seconds()
	p.bytes, p.waited = 0, 0
	return slow
}
