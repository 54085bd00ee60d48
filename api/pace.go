package api

import "time"

// patience bounds how slow clients may be, and how long a token may be used after it
// has ended.
type patience struct {
	// least is the number of bytes that a client has to send of an upload, or take of
	// an export, per second. It is measured as the mean over each spell, a time of this
	// length that is spent waiting for the client.
	least int64
	spell time.Duration
	// look is how often the token of a long request is checked again.
	look time.Duration
}

func usualPatience() patience {
	return patience{least: 1 << 10, spell: time.Minute, look: 15 * time.Second}
}

// pace measures how fast a client sends or takes bytes. Time in which the client waits
// for us does not count. It must not be used concurrently.
type pace struct {
	patience patience
	bytes    int64
	waited   time.Duration
}

// slow adds n bytes and the time that was spent waiting for them. It reports whether a
// spell has ended in which there were too few bytes.
func (p *pace) slow(n int, waited time.Duration) bool {
	p.bytes += int64(n)
	if p.waited += waited; p.waited < p.patience.spell {
		return false
	}
	slow := float64(p.bytes) < float64(p.patience.least)*p.waited.Seconds()
	p.bytes, p.waited = 0, 0
	return slow
}
