package linkcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/promise"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// bundle is a cache on a database of its own.
type bundle struct {
	*Cache
	pool *pgxpool.Pool
	user int64
}

func setup(tb testing.TB, o Options) *bundle {
	tb.Helper()
	if o.Pool == nil {
		o.Pool = pgtest.Pool(tb)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	c, err := Open(o)
	require.NoError(tb, err)
	return &bundle{Cache: c, pool: o.Pool}
}

// run runs the cache until the test ends, or until stop is called. stop returns when
// the cache has ended.
func (b *bundle) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return stop
}

// k is the key of a code on the main domain.
func k(code string) Key { return NewKey(MainDomain, code) }

func (c *Cache) followedAt() int64 { return c.epoch.Load().followed.Load() }

// following waits until the feed has caught up with the log at least once from now on.
func (b *bundle) following(t *testing.T) {
	t.Helper()
	since := b.now().UnixNano()
	eventually(t, "feed follows", func() bool { return b.followedAt() > since && b.sweeps.Load() == 0 })
}

func (b *bundle) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := b.pool.Exec(context.Background(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// begin begins a transaction with these statements. At the end of the test it is rolled
// back if it has not ended.
func (b *bundle) begin(t *testing.T, statements ...string) pgx.Tx {
	t.Helper()
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	for _, s := range statements {
		pgtest.Exec(t, tx, s)
	}
	return tx
}

// link makes a link with this code to https://example.com/ and the code.
func (b *bundle) link(t *testing.T, code string) {
	t.Helper()
	if b.user == 0 {
		err := b.pool.QueryRow(context.Background(),
			"INSERT INTO users (username, email) VALUES ('ada', 'ada@example.com') RETURNING id").Scan(&b.user)
		require.NoError(t, err)
	}
	b.exec(t, "INSERT INTO urls (user_id, short_code, original_url) VALUES ($1, $2, 'https://example.com/' || $2)", b.user, code)
}

// cached returns a running cache in which the links with these codes are cached.
func cached(t *testing.T, o Options, codes ...string) *bundle {
	t.Helper()
	b := setup(t, o)
	for _, code := range codes {
		b.link(t, code)
	}
	b.run(t)
	b.following(t)
	for _, code := range codes {
		b.target(t, code)
	}
	return b
}

func (b *bundle) target(t *testing.T, code string) string {
	t.Helper()
	link, err := b.Lookup(context.Background(), k(code), b.now())
	if errors.Is(err, ErrNotFound) {
		return "not found"
	}
	if errors.Is(err, ErrUnavailable) {
		return "unavailable"
	}
	require.NoError(t, err)
	if !link.Active {
		return "inactive"
	}
	return link.Target
}

// becomes waits until the code leads to target.
func (b *bundle) becomes(t *testing.T, code, target string) {
	t.Helper()
	began := time.Now()
	got := ""
	defer func() {
		if t.Failed() {
			t.Logf("%s leads to %s", code, got)
		}
	}()
	eventually(t, code+" leads to "+target, func() bool {
		got = b.target(t, code)
		return got == target
	})
	t.Logf("%s leads to %s after %s", code, target, time.Since(began))
}

// fresh waits until the code leads to target, and compares the time that this took with
// the promise (I4).
func (b *bundle) fresh(t *testing.T, code, target string) {
	t.Helper()
	began := time.Now()
	b.becomes(t, code, target)
	promise.Kept(t, "a change reaches a cache", time.Second, 5*time.Second, time.Since(began))
}

// afterLoads returns a pool to a new database. It calls hook whenever the answer to the
// load of one link was read, before the loader gets it.
func afterLoads(t *testing.T, hook func()) *pgxpool.Pool {
	t.Helper()
	return afterQueries(t, "ResolveLinks", hook)
}

// afterQueries is like afterLoads, for the queries with a given name.
func afterQueries(t *testing.T, name string, hook func()) *pgxpool.Pool {
	t.Helper()
	config := pgtest.Pool(t).Config()
	config.ConnConfig.Tracer = queryTracer{"-- name: " + name + " ", hook}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

type queryTracer struct {
	prefix string
	hook   func()
}

type isTraced struct{}

func (q queryTracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.HasPrefix(data.SQL, q.prefix) {
		return context.WithValue(ctx, isTraced{}, true)
	}
	return ctx
}

func (q queryTracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	if ctx.Value(isTraced{}) != nil {
		q.hook()
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	eventuallyIn(t, 20*time.Second, what, ok)
}

func eventuallyIn(tb testing.TB, limit time.Duration, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("waited too long until: %s", what)
		}
		<-tick.C
	}
}

// isCached reports whether a code is in memory, without asking for it.
func (b *bundle) isCached(code string) bool { return b.has(k(code)) }

func TestLookup(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	b.link(t, "here")
	expires := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	b.exec(t, `UPDATE urls SET expires_at = $1, redirect_status = 308, forward_query = true WHERE short_code = 'here'`, expires)

	for range 2 { // from Postgres, then from memory
		link, err := b.Lookup(t.Context(), k("here"), b.now())
		require.NoError(t, err)
		if link.ID == 0 || link.UserID != b.user || link.Target != "https://example.com/here" || !link.Active ||
			!link.ExpiresAt.Equal(expires) || link.Status != 308 || !link.ForwardQuery || link.Version == 0 {
			t.Fatalf("got %+v", *link)
		}
	}
	for range 2 {
		if _, err := b.Lookup(t.Context(), k("HERE"), b.now()); !errors.Is(err, ErrNotFound) {
			t.Fatalf("error is %v, want ErrNotFound", err)
		}
	}
	if loads := b.count(func(s *shard) *atomic.Uint64 { return &s.misses }); loads != 2 {
		t.Errorf("%v misses, want 2", loads)
	}
}

func TestLookupAllocatesNothingOnAHit(t *testing.T) {
	b := cached(t, Options{}, "hot")
	key := k(string([]byte("hot")))
	allocs := testing.AllocsPerRun(1000, func() {
		if _, err := b.Lookup(context.Background(), key, b.now()); err != nil {
			t.Fatal(err)
		}
	})
	if allocs >= 1 {
		t.Errorf("%v allocations a hit", allocs)
	}
}

func TestLookupKeepsNoBuffer(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	b.link(t, "aaaa")
	buffer := []byte("aaaa")
	b.target(t, aliasOf(buffer))
	copy(buffer, "zzzz") // the next request reuses the buffer
	if !b.isCached("aaaa") {
		t.Error("the cached key changed with the buffer")
	}
}

func TestMissesShareOneLoad(t *testing.T) {
	t.Parallel()
	hold, loads := make(chan struct{}), atomic.Int64{}
	b := setup(t, Options{Pool: afterLoads(t, func() { loads.Add(1); <-hold })})
	b.link(t, "new")
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			wantTarget(t, b, "new", "https://example.com/new")
		})
	}
	eventually(t, "all wait", func() bool {
		return b.count(func(s *shard) *atomic.Uint64 { return &s.misses }) == 50
	})
	close(hold)
	all.Wait()
	if loads.Load() != 1 {
		t.Errorf("%d loads, want 1", loads.Load())
	}
}

func TestMissingIsForgottenInTime(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := setup(t, Options{Now: clock.now})
	wantTarget(t, b, "soon", "not found")
	b.link(t, "soon")
	wantTarget(t, b, "soon", "not found")
	clock.add(missingFor)
	wantTarget(t, b, "soon", "https://example.com/soon")
}

func TestUnknownCodesPushNothingOut(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{Size: 16})
	b.link(t, "hot")
	b.target(t, "hot")
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 100 {
				b.target(t, fmt.Sprintf("flood-%d-%d", w, i))
			}
		})
	}
	all.Wait()
	if !b.isCached("hot") {
		t.Error("a flood of unknown codes pushed a link out")
	}
	s := b.shardOf(k("hot"))
	if len(s.missing) > maxMissing {
		t.Errorf("%d unknown codes are remembered, want at most %d", len(s.missing), maxMissing)
	}
}

func TestSizeIsBoundedAndHotLinksStay(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{Size: 10})
	b.link(t, "hot")
	for i := range 50 {
		b.link(t, fmt.Sprint("cold", i))
	}
	b.target(t, "hot")
	for i := range 50 {
		b.target(t, fmt.Sprint("cold", i))
		b.target(t, "hot")
	}
	if n := b.Len(); n != 10 {
		t.Errorf("%d entries, want 10", n)
	}
	if misses := b.count(func(s *shard) *atomic.Uint64 { return &s.misses }); misses != 51 {
		t.Errorf("%v misses, want 51: the hot link fell out", misses)
	}
}

// A flood of unknown codes takes a bounded part of the pool and of memory, and cached
// links are served all the time.
func TestFloodIsBounded(t *testing.T) {
	t.Parallel()
	pool, err := postgres.Open(t.Context(), pgtest.URL(t), postgres.Options{Role: "test", MaxConns: 4 * maxQueries})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	b := setup(t, Options{Pool: pool})
	b.link(t, "hot")
	b.target(t, "hot")
	lock := b.begin(t, "LOCK TABLE urls")
	var all sync.WaitGroup
	refused := atomic.Int64{}
	flood := cap(b.slots) + 2000
	for i := range flood {
		all.Go(func() {
			if b.target(t, fmt.Sprint("unknown", i)) == "unavailable" {
				refused.Add(1)
			}
		})
	}
	eventually(t, "the flood is there", func() bool {
		return b.count(func(s *shard) *atomic.Uint64 { return &s.misses }) == float64(flood+1)
	})
	wantTarget(t, b, "hot", "https://example.com/hot")
	b.exec(t, "SELECT 1") // the pool still has a connection for this
	// One connection has the lock. The connection of a query that was given up counts
	// until it is closed.
	if n := b.pool.Stat().AcquiredConns(); n > 2*maxQueries+1 {
		t.Errorf("%d connections are taken, want at most %d for loads", n, maxQueries)
	}
	all.Wait() // each has a deadline
	if int(refused.Load()) != flood {
		t.Errorf("%d of %d lookups were given up", refused.Load(), flood)
	}
	require.NoError(t, lock.Rollback(t.Context()))
	wantTarget(t, b, "later", "not found")
}

// occupy takes all slots, so that nobody can query Postgres until release is called.
func (b *bundle) occupy() (release func()) {
	for range cap(b.slots) {
		b.slots <- struct{}{}
	}
	return func() {
		for range cap(b.slots) {
			<-b.slots
		}
	}
}

// Links that are not cached wait for only a few queries of those before them in the
// line, and not for one query each. So even if unknown codes come faster than Postgres
// could answer them one by one, no lookup exceeds its deadline.
func TestLoadsThatWaitAreAskedForTogether(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	b.link(t, "existing")
	release := b.occupy()
	loads := make([]*load, 1000)
	for i := range loads {
		key := k(fmt.Sprint("unknown", i))
		if i == len(loads)/2 {
			key = k("existing")
		}
		loads[i], _ = b.shardOf(key).join(key)
		b.ask(loads[i])
	}
	before := b.pool.Stat().AcquireCount()
	release()
	wantTarget(t, b, "one-more", "not found")
	for i, l := range loads {
		link, err := l.wait(t.Context(), 20*time.Second)
		if i == len(loads)/2 {
			if err != nil || link.Target != "https://example.com/existing" {
				t.Fatalf("answer %d: %v, %v", i, link, err)
			}
		} else if !errors.Is(err, ErrNotFound) {
			t.Fatalf("answer %d: %v, %v", i, link, err)
		}
	}
	if n := b.pool.Stat().AcquireCount() - before; n > 20 {
		t.Errorf("%d queries for %d codes that waited", n, len(loads))
	}
}

// A load is not queried any more if it has waited longer than any client waits.
func TestLoadsThatWaitedTooLongAreNotAsked(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	release := b.occupy()
	key := k("old")
	old, _ := b.shardOf(key).join(key)
	old.since = time.Now().Add(-2 * loadTimeout)
	b.ask(old)
	release()
	before := b.pool.Stat().AcquireCount()
	b.target(t, "new")
	if _, err := old.wait(t.Context(), 20*time.Second); !errors.Is(err, ErrUnavailable) {
		t.Errorf("after its time: %v", err)
	}
	if n := b.pool.Stat().AcquireCount() - before; n != 1 {
		t.Errorf("%d queries, want 1", n)
	}
}

// If as many loads wait as are allowed, a further lookup is refused at once.
func TestTheLineIsBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	b.occupy()
	for range cap(b.line) {
		b.line <- nil
	}
	wantTarget(t, b, "one-more", "unavailable")
}

func TestForgetShowsAChangeAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	b.link(t, "mine")
	b.target(t, "mine")
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'mine'")
	b.target(t, "next")
	b.link(t, "next")
	b.Forget(k("mine"), k("next"))
	wantTarget(t, b, "mine", "inactive")
	wantTarget(t, b, "next", "https://example.com/next")
}

func TestALoadThatBeganBeforeForgetIsNotKept(t *testing.T) {
	t.Parallel()
	loaded, hold := make(chan struct{}, 8), make(chan struct{})
	b := setup(t, Options{Pool: afterLoads(t, func() { loaded <- struct{}{}; <-hold })})
	b.link(t, "race")
	got := make(chan string)
	go func() { got <- b.target(t, "race") }()
	<-loaded // the load has read the old link
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'race'")
	b.Forget(k("race"))
	close(hold)
	if answer := <-got; answer != "inactive" {
		t.Errorf("the load answered %s, want inactive", answer)
	}
	if answer := b.target(t, "race"); answer != "inactive" {
		t.Errorf("cached is %s, want inactive", answer)
	}
}

// A load brings the answer for an entry that was too old to be served, after a sweep
// has already brought the entry up to date.
func TestALateLoadReplacesNothingNewer(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	seen := b.look()
	s := b.shardOf(k("a"))
	s.add(&entry{key: k("a"), link: &Link{ID: 1, Version: 6}, epoch: seen.epoch})
	b.keep(s, k("a"), &Link{ID: 1, Version: 5}, seen)
	if version := s.entries[k("a")].link.Version; version != 6 {
		t.Errorf("version %d replaced a newer one", version)
	}
}

// The feed lost the thread while a load was under way. The sweep may be over when the
// load ends.
func TestALoadFromBeforeAResyncIsValidated(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	b.occupy()
	l, _ := b.shardOf(k("a")).join(k("a"))
	seen := b.look()
	b.beginEpoch()
	b.end(l, &Link{ID: 1}, nil, seen)
	select {
	case loads := <-b.line:
		if loads[0].key != k("a") {
			t.Errorf("%v is validated, want a", loads[0].key)
		}
	default:
		t.Error("it is not validated")
	}
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	pool := pgtest.Open(t, "postgres://nobody@127.0.0.1:1/none")
	var log bytes.Buffer
	// The cache is not run, because the feed would log too.
	b := setup(t, Options{Pool: pool, Log: slog.New(slog.NewTextHandler(&log, nil))})
	for _, code := range []string{"any", "other", "more"} {
		if _, err := b.Lookup(t.Context(), k(code), b.now()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("error is %v, want ErrUnavailable", err)
		}
	}
	if said := log.String(); strings.Count(said, "could not be looked up") != 1 || !strings.Contains(said, "127.0.0.1") {
		t.Errorf("three failed lookups are logged as %q, want the first, with its reason", said)
	}
}

func TestOpenRefusesWhatCannotBeMeant(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {Pool: &pgxpool.Pool{}, Size: -1}, {Pool: &pgxpool.Pool{}, TTL: -1}} {
		if _, err := Open(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	bun := setup(b, Options{})
	keys := make([]Key, 1000)
	epoch := bun.epoch.Load()
	epoch.followed.Store(time.Now().UnixNano())
	for i := range keys {
		keys[i] = k(fmt.Sprint("code", i))
		s := bun.shardOf(keys[i])
		s.add(&entry{key: keys[i], link: &Link{ID: int64(i)}, validAt: time.Now().UnixNano(), epoch: epoch})
	}
	now := time.Now()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := bun.Lookup(context.Background(), keys[i%len(keys)], now); err != nil {
				b.Error(err)
			}
		}
	})
}

// clock is a clock that moves only when told.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Now().UnixNano())
	return c
}

func (c *clock) now() time.Time      { return time.Unix(0, c.at.Load()) }
func (c *clock) add(d time.Duration) { c.at.Add(int64(d)) }

// A clock that is set back does not keep a code unknown for longer. Only time ends that
// state, and a link may have been made meanwhile.
func TestClockSetBackKeepsNoCodeUnknown(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := setup(t, Options{Now: clock.now})
	wantTarget(t, b, "new", "not found")
	b.link(t, "new")
	wantTarget(t, b, "new", "not found")
	clock.add(-time.Minute)
	wantTarget(t, b, "new", "https://example.com/new")
}

// A long target takes the places of more than one link.
func TestTargetsAreBounded(t *testing.T) {
	t.Parallel()
	s := &newShards(16)[0]
	check := func() {
		t.Helper()
		held := 0
		for _, e := range s.ring {
			held += len(e.link.Target)
		}
		if held != s.bytes || held > 16*usualTarget || len(s.ring) != len(s.entries) {
			t.Fatalf("%d bytes are held by %d of %d links, %d are counted", held, len(s.ring), len(s.entries), s.bytes)
		}
	}
	add := func(i, length int) *entry {
		e := &entry{key: k(strconv.Itoa(i)), epoch: new(epoch), link: &Link{ID: int64(i), Target: strings.Repeat("x", length)}}
		s.add(e)
		check()
		return e
	}
	short := make([]*entry, 16)
	for i := range short {
		short[i] = add(i, 60)
	}
	if len(s.ring) != 16 {
		t.Fatalf("%d links are cached", len(s.ring))
	}
	for _, e := range short {
		if s.entries[e.key] == nil {
			continue // it was removed to make room
		}
		e.used.Store(maxUsed)
		replace(s, e, &Link{ID: e.link.ID, Version: 1, Target: strings.Repeat("x", links.MaxTarget)}, view{epoch: e.epoch})
		check()
	}
	if len(s.ring) >= 8 || s.evictions.Load() == 0 {
		t.Errorf("%d links are cached", len(s.ring))
	}
	for i := range 100 {
		add(100+i, (i*911)%links.MaxTarget)
	}
	for len(s.ring) > 0 {
		s.remove(s.ring[0])
		check()
	}
}
