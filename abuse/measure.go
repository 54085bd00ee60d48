package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/signpost/signpost/internal/drive"
)

// attack is one thing that strangers or holders of tokens do.
type attack struct {
	name string
	// prepare is done once, before all else.
	prepare func(context.Context) error
	// run attacks until its context ends, and leaves nothing behind.
	run func(context.Context, *findings) error
	// judge checks the redirects of this attack, besides the checks of every attack.
	judge func(*result)
	lasts time.Duration // 0 takes the time of the settings
	once  bool          // it has one round
	fresh bool          // it begins with a new api, whose memory nothing has filled yet
}

// findings are the results of an attack. Safe for concurrent use.
type findings struct {
	mu      sync.Mutex
	broken  []string
	notes   []string
	answers map[int]int // to the attackers, by status
}

func (f *findings) breaks(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if text := fmt.Sprintf(format, args...); !slices.Contains(f.broken, text) {
		f.broken = append(f.broken, text)
	}
}

func (f *findings) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notes = append(f.notes, fmt.Sprintf(format, args...))
}

func (f *findings) answered(status, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[status] += n
}

// result is the result of an attack and of the redirects meanwhile.
type result struct {
	findings
	name             string
	cached, uncached *drive.Latencies // under attack, of all rounds
	p99, calm        time.Duration    // of cached redirects, each the median of the rounds
	added            time.Duration    // the median of what the attack added to p99
	tooSlow          bool
	memory           int64         // most resident
	cpu              time.Duration // of the api during the attacks, beyond that of the calms
}

// through has all rounds of an attack.
func (s *system) through(ctx context.Context, a attack) (*result, error) {
	r := &result{name: a.name, cached: new(drive.Latencies), uncached: new(drive.Latencies)}
	r.answers = map[int]int{}
	if a.fresh {
		s.api.Stop()
		if err := s.startAPI(); err != nil {
			return r, err
		}
	}
	rounds, lasts := s.rounds, s.lasts
	if a.once {
		rounds = 1
	}
	if a.lasts > 0 {
		lasts = a.lasts
	}
	var calms, attacks, grown []time.Duration
	for range rounds {
		calm, attacked, err := s.round(ctx, a, r, lasts)
		if err != nil {
			return r, err
		}
		calms, attacks, grown = append(calms, calm), append(attacks, attacked), append(grown, attacked-calm)
	}
	r.calm, r.p99, r.added = drive.Median(calms), drive.Median(attacks), drive.Median(grown)
	if r.tooSlow = r.added > s.mayAdd; r.tooSlow {
		r.breaks("p99 of cached redirects grew by %s, more than %s", short(r.added), s.mayAdd)
	}
	if n := r.cached.Failed(); n > 0 {
		r.breaks("%d cached redirects failed: %s", n, failures(r.cached))
	}
	if n := r.uncached.Failed(); n > 0 {
		r.breaks("%d redirects that were not cached failed: %s", n, failures(r.uncached))
	}
	if r.memory > memoryLimit {
		r.breaks("%d MiB of memory, the container has %d", r.memory>>20, memoryLimit>>20)
	}
	if a.judge != nil {
		a.judge(r)
	}
	fmt.Printf("abuse: %s: p99 %s after %s in the calm, %d MiB\n", a.name, short(r.p99), short(r.calm), r.memory>>20)
	for _, what := range r.broken {
		fmt.Printf("abuse:   %s\n", what)
	}
	return r, ctx.Err()
}

// round has a calm and then an attack of the same length, and returns p99 of the
// cached redirects in each.
func (s *system) round(ctx context.Context, a attack, r *result, lasts time.Duration) (calm, attacked time.Duration, err error) {
	before, _ := drive.CPU(s.api.Pid)
	cached, uncached := s.follow(ctx, min(lasts, s.lasts))
	middle, _ := drive.CPU(s.api.Pid)
	if n := cached.Failed() + uncached.Failed(); n > 0 {
		r.breaks("%d redirects failed in the calm: %s, %s", n, failures(cached), failures(uncached))
	}
	calm = cached.Percentile(99)

	attacking, stop := context.WithTimeout(ctx, lasts)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := a.run(attacking, &r.findings); err != nil {
			r.breaks("the attack itself failed: %v", err)
		}
	})
	memory := drive.Watch(s.api.Resident)
	cached, uncached = s.follow(ctx, lasts)
	wg.Wait()
	r.memory = max(r.memory, memory().Most)
	r.cached.Add(cached)
	r.uncached.Add(uncached)
	if s.api.Ended() {
		r.breaks("the api ended: %s", lastLine(s.api.Log))
		if err := s.startAPI(); err != nil {
			return calm, 0, err
		}
		return calm, cached.Percentile(99), nil
	}
	after, _ := drive.CPU(s.api.Pid)
	r.cpu += after - middle - (middle - before)
	return calm, cached.Percentile(99), s.recover(ctx)
}

// follow has clients follow links for d.
func (s *system) follow(ctx context.Context, d time.Duration) (cached, uncached *drive.Latencies) {
	var wg sync.WaitGroup
	wg.Go(func() { cached = drive.OpenLoop(ctx, s.api.Addr, s.cached, 8, 200, d) })
	// Enough of them that those which wait do not keep others from being asked.
	wg.Go(func() { uncached = drive.OpenLoop(ctx, s.api.Addr, s.uncached, 32, 25, d) })
	wg.Wait()
	return cached, uncached
}

// recover waits until the api says that it is ready, so that one attack is not
// blamed for another.
func (s *system) recover(ctx context.Context) error {
	return drive.Until(ctx, 30*time.Second, time.Second, func(ctx context.Context) error { return drive.Ready(ctx, s.api.Addr) })
}

// failures shows the answers that came in place of redirects.
func failures(l *drive.Latencies) string {
	if l.Failed() == 0 {
		return "0"
	}
	var list []string
	for _, status := range slices.Sorted(maps.Keys(l.Failures)) {
		what := strconv.Itoa(status)
		if status == 0 {
			what = "no answer"
		}
		list = append(list, fmt.Sprintf("%d × %s", l.Failures[status], what))
	}
	return strings.Join(list, ", ") + fmt.Sprintf(" of %d", l.Failed()+len(l.All))
}
