package api

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// shares is a bounded resource of which requests hold parts until they end: places, or
// bytes of memory. One token can hold at most half of it, and always at least one part,
// so that no client shuts out all others. It may be used concurrently.
type shares struct {
	all, each    int64  // in all, and of one token
	full, greedy *Error // the errors if no part is left at all, and if none is left for this token
	held         prometheus.Gauge

	mu      sync.Mutex
	taken   int64
	byToken map[int64]int64
}

func newShares(all int64, held prometheus.Gauge, full, greedy *Error) *shares {
	return &shares{all: all, each: max(1, all/2), full: full, greedy: greedy, held: held, byToken: map[int64]int64{}}
}

// take takes n parts for an actor, or returns an error if there are not enough. give
// gives them back; it may be called more than once.
func (s *shares) take(actor Actor, n int64) (give func(), err error) {
	token := actor.Token()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.taken+n > s.all:
		return nil, s.full
	case s.byToken[token]+n > s.each:
		return nil, s.greedy
	}
	s.move(token, n)
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.move(token, -n)
	}), nil
}

// move changes the counts. The caller holds the lock.
func (s *shares) move(token, n int64) {
	s.taken += n
	s.held.Set(float64(s.taken))
	if s.byToken[token] += n; s.byToken[token] == 0 {
		delete(s.byToken, token)
	}
}
