package api

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// count returns how many parts are held.
func (s *quota) count() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

func actorNumber(id int64) Actor { return Actor{TokenID: &id} }

func TestShares(t *testing.T) {
	t.Parallel()
	full, greedy := unavailable("full"), tooMany("greedy", 1)
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "held"})
	s := newQuota(4, gauge, full, greedy)
	take := func(actor Actor, n int64, want error) func() {
		t.Helper()
		give, err := s.take(actor, n)
		if !errors.Is(err, want) || (err == nil) != (give != nil) {
			t.Fatalf("took %d, %v; want the error %v", n, err, want)
		}
		return give
	}
	give := take(Actor{}, 1, nil)
	take(Actor{}, 1, nil)
	take(Actor{}, 1, greedy)
	take(actorNumber(1), 2, nil)
	take(actorNumber(1), 1, full)
	take(actorNumber(2), 1, full)
	if got := testutil.ToFloat64(gauge); got != 4 {
		t.Errorf("the gauge says %v", got)
	}
	give()
	give()
	if n := s.count(); n != 3 {
		t.Errorf("%d parts are held after one was given back twice", n)
	}
	take(actorNumber(1), 1, greedy)
	take(actorNumber(2), 1, nil)

	one := newQuota(1, gauge, full, greedy)
	if _, err := one.take(Actor{}, 1); err != nil {
		t.Errorf("the only part cannot be had: %v", err)
	}
}
