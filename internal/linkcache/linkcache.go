// Package linkcache answers which link a key leads to, from memory where it can.
//
// A cached link is served without waiting for anything (I3), and while Postgres
// answers it is right within a second of any change, whoever made it (I4):
//
// A feed polls the change log a few times a second on a connection of its own and
// replaces the links that changed (feed.go). As long as it works, the entries that it
// follows are current.
//   - Links that the feed could not follow, because the connection was lost to a
//     server with another history, are stale: they are revalidated in batches, those
//     asked for first (sweep.go). For the first half second they are served
//     meanwhile. Then a lookup of a link that is still stale waits until Postgres was
//     asked, for 50 ms at most, and after that serves it as it is. So a huge cache
//     brings no old link back, and a Postgres that answers slowly holds nothing up.
//   - While Postgres cannot be reached, a link is served until StaleMax after it
//     was last known to be right; a link that is not cached is [ErrUnavailable].
//
// Of two answers of the database for one link, the one of the later epoch wins, and
// within an epoch the one with the higher version. Where that says nothing, because
// one of them is of another link or of none, the entry is dropped and asked for
// again. docs/design.md has a table of an entry's states.
package linkcache

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost/signpost/internal/redis"
	"github.com/signpost/signpost/queries"
)

var (
	// ErrNotFound says that no link has the code.
	ErrNotFound = errors.New("no such link")
	// ErrUnavailable says that the link is not cached and Postgres did not
	// answer in time. Errors that wrap it also wrap the cause.
	ErrUnavailable = errors.New("link lookup is unavailable")
)

// Options of a [Cache]. Pool is required. Other fields with their zero value have the
// default in their comment.
type Options struct {
	// Pool is where links are loaded from. The feed opens one more connection
	// with the pool's settings, so that a busy pool never delays it.
	Pool *pgxpool.Pool
	// Size is how many links are kept (100,000).
	Size int
	// TTL is the age at which a link is validated again in the background when it is
	// asked for, even if the feed saw no change (5 min).
	TTL time.Duration
	// StaleMax bounds how long a link is served while Postgres is unreachable, counted
	// from when it was last known to be right (24 h).
	StaleMax time.Duration
	// SnapshotPath is the file in which the cache survives a restart. No other process
	// may use it. Its folder must exist; while a snapshot is written, there is a second
	// file beside it. Empty: no snapshot.
	SnapshotPath string
	// Redis is asked before Postgres for a link that is not cached; nil: Redis is not
	// used. The caller runs it.
	Redis *redis.Client
	// Met is called with the installation of the database whenever the feed begins
	// anew; it may be nil. It must return soon.
	Met func(installation string)
	// Log gets messages for the operator (slog.Default).
	Log *slog.Logger
	// Registerer gets the metrics; nil: they are not registered.
	Registerer prometheus.Registerer
	// Now is the clock (time.Now).
	Now func() time.Time
}

const (
	// liveFor is how long after a good poll the entries that the feed follows count as
	// current.
	liveFor = time.Second
	// grace is how long stale links are served without asking Postgres once it can be
	// reached again. Together with the pause between polls it stays below a second.
	grace = 500 * time.Millisecond
	// confirmTimeout bounds how long a lookup of a stale link then waits for Postgres.
	confirmTimeout = 50 * time.Millisecond
	// missingFor is how long an unknown key is remembered. It is counted from before
	// the key was looked up, so that a new link is found within a second.
	missingFor = 900 * time.Millisecond
)

// A Cache holds links by their keys. All methods may be called concurrently.
type Cache struct {
	pool     *pgxpool.Pool
	queries  *queries.Queries
	log      *slog.Logger
	now      func() time.Time
	ttl      int64 // nanoseconds, as all times here are unix nanoseconds
	staleMax int64

	seed    maphash.Seed
	shards  []shard
	size    int // as it was configured
	domains atomic.Pointer[domainTable]

	// epoch is replaced when the feed may have missed changes. Entries of an earlier
	// epoch are stale.
	epoch atomic.Pointer[epoch]
	// confirmAfter is the time from which on a lookup of a stale entry asks Postgres
	// before it serves the entry. Zero: Postgres cannot be reached.
	confirmAfter atomic.Int64
	// position is how far the feed has come, nil before its first start. All cached
	// links are at least as new.
	position atomic.Pointer[head]

	slots chan struct{} // one for each query of loads under way
	line  chan []*load  // loads that wait for a query, in the order in which they came
	// pausedUntil is the time before which nothing is validated, because a query
	// failed.
	pausedUntil atomic.Int64
	// complained is when a failed lookup was last logged.
	complained atomic.Int64

	swept  chan struct{} // wakes the sweeper
	sweeps atomic.Int64  // sweeps asked for and not done

	// applying is held from before the journal learns of a change until the
	// change is applied, so that a snapshot is never begun between the two.
	applying sync.Mutex
	saving   sync.Mutex  // held while a snapshot is written, as the last one may overlap another
	journal  *journal    // nil without SnapshotPath
	dirty    atomic.Bool // something was stored since the last snapshot

	metrics *metrics

	met func(installation string) // may be nil

	redis  *redis.Client // nil: Redis is not used
	recent recent        // not kept without Redis
	fills  chan fill     // links that are to be stored in Redis
}

// An epoch is a period in which the feed misses no change.
type epoch struct {
	number int64
	// followed is when the last good poll began: each entry of this epoch was right at
	// that time.
	followed atomic.Int64
}

// Open makes a cache and fills it from the snapshot, if there is one. A
// snapshot that cannot be used is logged and ignored. The cache answers at
// once; it follows changes while [Cache.Run] runs.
func Open(o Options) (*Cache, error) {
	if o.Pool == nil {
		return nil, errors.New("open link cache: no pool")
	}
	if o.Size < 0 || o.TTL < 0 || o.StaleMax < 0 {
		return nil, errors.New("open link cache: size, TTL and stale maximum must not be negative")
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	size := cmp.Or(o.Size, 100_000)
	c := &Cache{
		pool:     o.Pool,
		queries:  queries.New(o.Pool),
		log:      o.Log,
		now:      o.Now,
		met:      o.Met,
		ttl:      int64(cmp.Or(o.TTL, 5*time.Minute)),
		staleMax: int64(cmp.Or(o.StaleMax, 24*time.Hour)),
		seed:     maphash.MakeSeed(),
		shards:   newShards(size),
		size:     size,
		slots:    make(chan struct{}, max(1, min(maxQueries, int(o.Pool.Config().MaxConns)/2))),
		line:     make(chan []*load, maxWaiting),
		swept:    make(chan struct{}, 1),
	}
	c.epoch.Store(&epoch{number: 1})
	c.domains.Store(newDomainTable(0, nil))
	if o.Redis != nil {
		c.redis, c.fills = o.Redis, make(chan fill, maxFills)
	}
	c.metrics = newMetrics(c, o.Registerer)
	if o.SnapshotPath != "" {
		c.restore(o.SnapshotPath, size)
	}
	return c, nil
}

// Run follows changes and keeps the snapshot until ctx ends; it then writes
// the snapshot a last time and returns nil. Call it once.
func (c *Cache) Run(ctx context.Context) error {
	var all sync.WaitGroup
	all.Go(func() { c.follow(ctx) })
	all.Go(func() { c.sweep(ctx) })
	if c.redis != nil {
		all.Go(func() { c.fillRedis(ctx) })
	}
	if c.journal != nil {
		all.Go(func() { c.keepSnapshot(ctx) })
	}
	all.Wait()
	if c.journal != nil {
		c.saveLast(context.WithoutCancel(ctx))
	}
	return nil
}

// Lookup returns the link of a key, [ErrNotFound] or an error that wraps
// [ErrUnavailable]. A cached link is returned without waiting or allocating; otherwise
// Lookup waits for Postgres for at most about a second. The key may alias a buffer that
// is reused after the call. at is the current time: reading it costs as much as all the
// rest of a hit, and the caller needs it too.
func (c *Cache) Lookup(ctx context.Context, key Key, at time.Time) (*Link, error) {
	return c.lookup(ctx, key, Key{}, at)
}

// LookupEither is Lookup for a code that may be another code with something glued to
// it. It returns the link of key, or if there is none, the link of other. If neither is
// cached, Postgres is asked for both at once. While Postgres cannot be asked for key, a
// cached link of other is returned.
func (c *Cache) LookupEither(ctx context.Context, key, other Key, at time.Time) (*Link, error) {
	link, err := c.lookup(ctx, key, other, at)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnavailable) && c.has(other) {
		return c.Lookup(ctx, other, at)
	}
	return link, err
}

func (c *Cache) lookup(ctx context.Context, key, other Key, at time.Time) (*Link, error) {
	s := c.shardOf(key)
	now := at.UnixNano()
	s.mu.RLock()
	e := s.entries[key]
	if e == nil {
		until := s.missing[key]
		s.mu.RUnlock()
		if unknown(now, until) {
			s.negatives.Add(1)
			return nil, ErrNotFound
		}
		return c.miss(ctx, s, key, other)
	}
	link, validAt, known := e.link, e.validAt, e.knownAt()
	s.mu.RUnlock()
	if e.used.Load() < maxUsed {
		e.used.Add(1)
	}
	if current(now, known) {
		s.hits.Add(1)
		if now-validAt > c.ttl {
			c.want(s, e)
		}
		return link, nil
	}
	if now-known > c.staleMax {
		return c.miss(ctx, s, key, other)
	}
	if after := c.confirmAfter.Load(); after != 0 && now > after {
		return c.confirm(ctx, s, key)
	}
	c.want(s, e)
	s.stales.Add(1)
	return link, nil
}

// current reports whether an entry that was right at the time known counts as right
// now. If known is in the future, the clock was set back.
func current(now, known int64) bool {
	ago := now - known
	return -int64(liveFor) < ago && ago < int64(liveFor)
}

// unknown reports whether a key that was found to have no link still counts as unknown;
// until is when that ends. If the clock was set back, that must not take longer,
// because nothing else ends it: the feed does not report new links.
func unknown(now, until int64) bool { return now < until && until-now <= int64(missingFor) }

// Forget removes keys from the cache whose links this process has just changed, so that
// the next lookup here sees the change at once. Call it after the commit.
func (c *Cache) Forget(keys ...Key) {
	changes := make([]change, len(keys))
	for i, key := range keys {
		changes[i] = change{key: key.clone()}
	}
	seen := c.look()
	if c.redis != nil {
		for _, key := range keys {
			c.recent.owns(seen.at, c.hash(key))
		}
	}
	c.apply(changes, seen, true)
}

// A view says when a query looked at the database, and how far the feed had come before
// it.
type view struct {
	at    int64
	epoch *epoch
	place *place // nil if that is unknown
}

// look begins a view: call it right before the query starts.
func (c *Cache) look() view {
	return view{place: c.recent.here.Load(), epoch: c.epoch.Load(), at: c.now().UnixNano()}
}

// A change is a key and its new link, nil if it has none.
type change struct {
	key  Key
	link *Link
}

// apply makes changes in the cache. A cached link is replaced in place, so that a hot
// one stays cached. told says that the change log named the keys: then the links of
// those keys in the snapshot are outdated, and a load under way may have missed the
// change. Changes are written to the journal before they are applied.
func (c *Cache) apply(changes []change, seen view, told bool) {
	c.applying.Lock()
	defer c.applying.Unlock()
	c.record(changes, seen, told)
	for _, ch := range changes {
		s := c.shardOf(ch.key)
		s.mu.Lock()
		if told {
			s.touch(ch.key)
		}
		if e := s.entries[ch.key]; e != nil {
			e.wanted.Store(false)
			if !replace(s, e, ch.link, seen) {
				s.remove(e)
			}
		}
		s.mu.Unlock()
	}
	c.dirty.Store(true)
}

// replace gives an entry the link that a query returned, unless the entry is newer. It
// returns false if the two are different links, because then nothing tells which is
// newer. The shard is locked.
func replace(s *shard, e *entry, link *Link, seen view) bool {
	switch {
	case seen.epoch.number < e.epoch.number:
		return true // the query may have seen another history
	case link == nil || link.ID != e.link.ID:
		return false
	case seen.epoch == e.epoch && link.Version < e.link.Version:
		return true
	}
	s.set(e, link, seen)
	return true
}
