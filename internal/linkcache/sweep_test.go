package linkcache

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// gap makes all cached entries stale, as after a failover. It lets so much time pass
// that they may not be served any longer without a check.
func (b *bundle) gap(clock *clock) {
	b.beginEpoch()
	clock.add(2 * grace)
	b.epoch.Load().followed.Store(clock.at.Load()) // Postgres is there
}

// A link that changed unseen is not served in its old state, not even once, however
// long the sweep takes; here it does not even begin.
func TestAStaleLinkIsConfirmedBeforeItIsServed(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := setup(t, Options{Now: clock.now})
	for _, code := range []string{"same", "stopped", "gone"} {
		b.link(t, code)
		b.target(t, code)
	}
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'stopped'")
	b.exec(t, "DELETE FROM urls WHERE short_code = 'gone'")
	b.beginEpoch()
	b.epoch.Load().followed.Store(clock.at.Load())
	wantTarget(t, b, "stopped", "https://example.com/stopped")
	b.gap(clock)
	for code, want := range map[string]string{
		"same": "https://example.com/same", "stopped": "inactive", "gone": "not found",
	} {
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				wantTarget(t, b, code, want)
			})
		}
		all.Wait()
	}
	if n := b.count(func(s *shard) *atomic.Uint64 { return &s.confirms }); n == 0 {
		t.Error("no lookup was counted as confirmed")
	}
}

// A bulk change keeps the feed reading for longer than a second. A link that changed
// right after it is not served in its old state meanwhile.
func TestAFeedThatIsBehindServesNothingOld(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	b.link(t, "last")
	f := &feed{cache: b.Cache, timeout: pollTimeout}
	defer f.hangUp()
	poll := func() (more bool) {
		t.Helper()
		more, err := f.poll(t.Context())
		require.NoError(t, err)
		return more
	}
	poll() // the poll begins
	poll()
	wantTarget(t, b, "last", "https://example.com/last")
	b.exec(t, "INSERT INTO link_changes (version, short_code) SELECT n, 'bulk' || n FROM generate_series(1, 2 * $1::int) n", maxChanges)
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'last'")
	b.epoch.Load().followed.Add(-2 * int64(liveFor)) // the feed has been reading for so long
	b.confirmAfter.Store(1)
	confirms := func() float64 { return b.count(func(s *shard) *atomic.Uint64 { return &s.confirms }) }
	eventually(t, "it is confirmed", func() bool { // a busy machine may need more than confirmTimeout
		return b.target(t, "last") == "inactive" && confirms() > 0
	})
	for more := true; more; {
		more = poll()
	}
	wantTarget(t, b, "last", "inactive")
}

// If the clock is set back, stale entries do not count as current.
func TestTimesToComeAreNotCurrent(t *testing.T) {
	t.Parallel()
	now := time.Now().UnixNano()
	if current(now, now+int64(time.Minute)) {
		t.Error("an entry from a minute ahead is current")
	}
	if !current(now, now-int64(liveFor/2)) {
		t.Error("an entry from half a second ago is not current")
	}
}

// A stale link is served as it is if nobody answers in time.
func TestAStaleLinkIsNotHeldUp(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := setup(t, Options{Now: clock.now})
	b.link(t, "kept")
	b.target(t, "kept")
	b.exec(t, "UPDATE urls SET is_active = false")
	b.gap(clock)
	release := b.occupy() // keeps everything from being validated
	began := time.Now()
	wantTarget(t, b, "kept", "https://example.com/kept")
	t.Logf("served after %s", time.Since(began))
	release()

	// Postgres is away, so there is no query.
	clock.add(2 * liveFor)
	b.confirmAfter.Store(0)
	before := b.count(func(s *shard) *atomic.Uint64 { return &s.stales })
	wantTarget(t, b, "kept", "https://example.com/kept")
	if n := b.count(func(s *shard) *atomic.Uint64 { return &s.stales }); n != before+1 {
		t.Errorf("%v more were served stale, want 1", n-before)
	}
}

// A sweep validates links first that were asked for lately. It misses no entry although
// entries move, and goes on after errors of Postgres.
func TestSweep(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{Size: 5000})
	b.link(t, "any")
	for i := range 3000 {
		b.restoreLink(&entry{key: k(fmt.Sprint("old", i)), link: &Link{ID: 1 << 40}, validAt: 1, epoch: new(epoch)}, false)
	}
	for i := range 100 {
		b.shardOf(k(fmt.Sprint("old", i))).entries[k(fmt.Sprint("old", i))].used.Store(1)
	}
	lately := 0
	for batch := range b.staleKeys(sweepBatch, true) {
		lately += len(batch)
		b.unwant(batch)
	}
	if lately != 100 {
		t.Errorf("%d links were asked for lately, want 100", lately)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if b.sweepAll(ended, sweepBatch) {
		t.Error("a sweep that could ask nothing reports success")
	}
	if n := b.Len(); n != 3000 {
		t.Fatalf("%d links, want 3000", n)
	}
	b.background(t, b.sweep)
	b.beginEpoch()
	eventually(t, "the sweep ends", func() bool { return b.sweeps.Load() == 0 })
	if n := b.Len(); n != 0 {
		t.Errorf("%d links are left, want 0: none of them exists", n)
	}
}

// background runs a part of the cache until the test ends.
func (b *bundle) background(t *testing.T, part func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { part(ctx) })
	t.Cleanup(func() { cancel(); all.Wait() })
}

// BenchmarkSweep measures how long it takes to validate a million cached links after
// the feed lost the thread.
func BenchmarkSweep(b *testing.B) {
	const links = 1_000_000
	bun := setup(b, Options{Size: 2 * links})
	ctx := context.Background()
	if _, err := bun.pool.Exec(ctx, `INSERT INTO users (id, username, email) VALUES (1, 'ada', 'ada@example.com')`); err != nil {
		b.Fatal(err)
	}
	if _, err := bun.pool.Exec(ctx, `INSERT INTO urls (user_id, short_code, original_url)
		SELECT 1, 'c' || n, 'https://example.com/a/page/of/some/length/' || n FROM generate_series(1, $1::int) n`, links); err != nil {
		b.Fatal(err)
	}
	if _, err := bun.pool.Exec(ctx, "VACUUM ANALYZE urls"); err != nil {
		b.Fatal(err)
	}
	for i := 1; i <= links; i++ {
		bun.restoreLink(&entry{key: k(fmt.Sprint("c", i)), link: &Link{ID: int64(i), Version: int64(i)}, validAt: 1, epoch: new(epoch)}, false)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go bun.sweep(ctx)
	b.ResetTimer()
	for range b.N {
		bun.beginEpoch()
		eventuallyIn(b, 10*time.Minute, "the sweep ends", func() bool { return bun.sweeps.Load() == 0 })
	}
	for i := range bun.shards {
		for _, e := range bun.shards[i].ring {
			if e.epoch != bun.epoch.Load() {
				b.Fatalf("%v is stale after the sweep", e.key)
			}
		}
	}
}
