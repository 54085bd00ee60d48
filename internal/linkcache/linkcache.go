// Package linkcache answers which link a short code leads to, from memory
// where it can.
//
// A cached link is served without waiting for anything (I3), and while Postgres
// answers it is right within a second of any change, whoever made it (I4):
//
//   - A feed polls the change log a few times a second on a connection of its
//     own and replaces what changed (feed.go). While it lives, everything it
//     followed is current.
//   - What the feed could not follow, because the connection was lost to a
//     server with another history, is stale: it is revalidated in batches, those
//     asked for first (refresh.go). For the first half second it is served
//     meanwhile. What is still stale then is not taken for cached any more: a
//     lookup waits until Postgres was asked, for 50 ms at most, and then serves
//     it as it is. So a huge cache brings no old link back, and a Postgres that
//     answers slowly holds nothing up.
//   - While Postgres cannot be reached, a link is served until StaleMax after it
//     was last known to be right; a link that is not cached is [ErrUnavailable].
//
// Which of two answers of the database is the newer one is decided by when
// their queries ran, and where the two overlapped by the version of the link.
// An older one never replaces a newer one.
package linkcache

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
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

	// errNeither is an ErrNotFound that says so of the other code too.
	errNeither = fmt.Errorf("%w, under neither code", ErrNotFound)
)

// A Link is what a redirect needs to know. A Link that [Cache.Lookup] returned
// is shared: nobody may change it.
type Link struct {
	ID, UserID int64
	// Target is where the link leads, as [links.Location] writes it.
	Target string
	Active bool
	// ExpiresAt is when the link ends; the zero time means never.
	ExpiresAt time.Time
	// Status is the HTTP status of the redirect: 301, 302, 307 or 308.
	Status       int
	ForwardQuery bool
	// Version grows with every change of this link; versions of two links that
	// had the same code one after the other say nothing about their order.
	Version int64
}

// Options of a [Cache]. Pool is required; zero values elsewhere mean the
// defaults named.
type Options struct {
	// Pool is where links are loaded from. The feed opens one more connection
	// with the pool's settings, so that a busy pool never delays it.
	Pool *pgxpool.Pool
	// Size is how many links are kept (100,000).
	Size int
	// TTL is the age at which a link that is asked for is validated again in
	// the background, even though the feed saw no change (5 min).
	TTL time.Duration
	// StaleMax is how long after it was last known to be right a link is
	// served while Postgres is unreachable (24 h).
	StaleMax time.Duration
	// SnapshotPath is the file that keeps the cache over a restart. No other
	// process may use it. Its folder must exist; while a snapshot is written,
	// another file is beside it. Empty: nothing is kept.
	SnapshotPath string
	// Redis is asked before Postgres for a link that is not cached; nil: there
	// is none. The caller runs it.
	Redis *redis.Client
	// Met is told which installation the database is, whenever the feed begins
	// anew; nil: nobody is. It must return soon.
	Met func(installation string)
	// Log gets what an operator should know (slog.Default).
	Log *slog.Logger
	// Registerer gets the metrics; nil: they are not registered.
	Registerer prometheus.Registerer
	// Now is the clock (time.Now).
	Now func() time.Time
}

const (
	// loadTimeout bounds how long a redirect that is not cached waits.
	loadTimeout = time.Second
	// complainEvery is how often it is logged that lookups fail.
	complainEvery = time.Minute
	// maxLoads and maxWaiting bound what a flood of unknown codes may occupy: of
	// the pool's connections it is half at most. Those that wait are asked for
	// together, up to maxTogether with one query, so that a link that is cached
	// nowhere waits for a few queries and not for one a code before it.
	maxLoads    = 8
	maxWaiting  = 16_384
	maxTogether = 256
	// missingFor is how long an unknown code is remembered, counted from before
	// it was looked up, so that a new link is found within a second.
	missingFor = 900 * time.Millisecond
	// liveFor is how long after a good poll everything it followed is taken to
	// be current.
	liveFor = time.Second
	// grace is how long stale links are served unasked once Postgres can be
	// reached again. With the pause between polls it stays within a second.
	grace = 500 * time.Millisecond
	// behindAfter is how long the feed may read on before what is cached is
	// confirmed instead. It leaves time for a lookup within the promised second.
	behindAfter = 300 * time.Millisecond
	// confirmTimeout bounds what a stale link costs after that.
	confirmTimeout = 50 * time.Millisecond
)

// A Cache holds links by their code. All methods may be called concurrently.
type Cache struct {
	pool     *pgxpool.Pool
	queries  *queries.Queries
	log      *slog.Logger
	now      func() time.Time
	ttl      int64 // nanoseconds, as all times here are unix nanoseconds
	staleMax int64

	seed   maphash.Seed
	shards []shard

	// tick orders queries and what they brought: a query takes one before it
	// starts, an entry takes one when it is stored.
	tick atomic.Int64
	// epoch counts the times when the feed lost the thread. Entries of an
	// earlier epoch are stale, since changes may have passed unseen.
	epoch atomic.Uint64
	// followed is when the last good poll began: each entry of this epoch is
	// known to be right as of then.
	followed atomic.Int64
	// regained is when Postgres was reached again after a while, or the feed
	// lost the thread: entries that became stale by then are asked for before
	// they are served once grace is over. Zero: it was never reached.
	regained atomic.Int64
	// behind says that the log has more than the feed has read for a while, or
	// is another one: Postgres answers, and anything cached may have changed.
	behind atomic.Bool

	domains atomic.Pointer[domainTable]

	slots chan struct{} // queries of loads under way
	line  chan *load    // loads that wait for one, in the order in which they came
	// complained is when it was last said why a lookup failed.
	complained atomic.Int64

	wanted chan string   // codes whose entry was found stale
	swept  chan struct{} // wakes the sweeper
	sweeps atomic.Int64  // sweeps asked for and not done

	// mark is how far the feed had come, nil before it first began. What is
	// cached is at least as new.
	mark atomic.Pointer[mark]
	// learning is held from before the journal learns of a change until the
	// change is applied, so that a snapshot is never begun between the two.
	learning sync.Mutex
	journal  *journal    // nil without SnapshotPath
	dirty    atomic.Bool // something was stored since the last snapshot

	metrics *metrics

	met func(installation string) // may be nil

	redis         *redis.Client // nil: there is none
	past          past          // not kept without Redis
	shares        chan share    // what Redis is to be told
	sharedMetrics *sharedMetrics
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
	size := orDefault(o.Size, 100_000)
	c := &Cache{
		pool:     o.Pool,
		queries:  queries.New(o.Pool),
		log:      o.Log,
		now:      o.Now,
		met:      o.Met,
		ttl:      int64(orDefault(o.TTL, 5*time.Minute)),
		staleMax: int64(orDefault(o.StaleMax, 24*time.Hour)),
		seed:     maphash.MakeSeed(),
		shards:   newShards(size),
		slots:    make(chan struct{}, max(1, min(maxLoads, int(o.Pool.Config().MaxConns)/2))),
		line:     make(chan *load, maxWaiting),
		wanted:   make(chan string, 4096),
		swept:    make(chan struct{}, 1),
	}
	c.epoch.Store(1)
	c.domains.Store(newDomainTable(0, nil))
	c.metrics = newMetrics(c, o.Registerer)
	if o.Redis != nil {
		c.redis, c.shares = o.Redis, make(chan share, maxShares)
		c.sharedMetrics = newSharedMetrics(o.Registerer)
	}
	if o.SnapshotPath != "" {
		c.restore(o.SnapshotPath, size)
	}
	return c, nil
}

func orDefault[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// Run follows changes and keeps the snapshot until ctx ends; it then writes
// the snapshot a last time and returns nil. Call it once.
func (c *Cache) Run(ctx context.Context) error {
	var all sync.WaitGroup
	all.Go(func() { c.follow(ctx) })
	all.Go(func() { c.refresh(ctx) })
	all.Go(func() { c.sweep(ctx) })
	if c.redis != nil {
		all.Go(func() { c.tell(ctx) })
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

// Lookup returns the link of a code, [ErrNotFound] or an error that wraps
// [ErrUnavailable]. A cached link is returned without waiting or allocating; a
// miss waits for Postgres for at most about a second. code may alias a buffer
// that is reused after the call. at is the current time, which costs as much
// to read as all the rest of a hit and which the caller needs too.
func (c *Cache) Lookup(ctx context.Context, code string, at time.Time) (*Link, error) {
	return c.lookup(ctx, code, "", at)
}

// LookupEither is Lookup, for a code that may be another one to which something
// was glued: it returns the link of code, or if there is none, that of other.
// Where neither is known here, Postgres is asked for both at once; that there is
// no link is remembered of code alone. While Postgres cannot be asked for code, a
// cached link of other is taken for the one that is meant.
func (c *Cache) LookupEither(ctx context.Context, code, other string, at time.Time) (*Link, error) {
	link, err := c.lookup(ctx, code, other, at)
	if errors.Is(err, ErrNotFound) && !errors.Is(err, errNeither) || errors.Is(err, ErrUnavailable) && c.has(other) {
		return c.Lookup(ctx, other, at)
	}
	return link, err
}

func (c *Cache) lookup(ctx context.Context, code, other string, at time.Time) (*Link, error) {
	s := c.shardOf(code)
	now := at.UnixNano()
	s.mu.RLock()
	e := s.entries[code]
	if e == nil {
		until := s.missing[code]
		s.mu.RUnlock()
		if unknown(now, until) {
			s.negatives.Add(1)
			return nil, ErrNotFound
		}
		return c.miss(ctx, s, code, other)
	}
	link, validAt, epoch := e.link, e.validAt, e.epoch
	s.mu.RUnlock()
	if e.used.Load() < maxUsed {
		e.used.Add(1)
	}
	if c.current(now, validAt, epoch) {
		s.hits.Add(1)
		if now-validAt > c.ttl {
			c.want(e)
		}
		return link, nil
	}
	if now-c.knownAt(validAt, epoch) > c.staleMax {
		c.want(e)
		return c.miss(ctx, s, code, other)
	}
	if c.doubtful(now, epoch) {
		return c.confirm(ctx, s, code, other)
	}
	c.want(e)
	s.stales.Add(1)
	return link, nil
}

// doubtful reports whether a stale entry of an epoch has to be confirmed before
// it is served: Postgres is there, and was for long enough, or tells more than
// the feed has heard.
func (c *Cache) doubtful(now int64, epoch uint64) bool {
	if c.behind.Load() {
		return true
	}
	since := c.regained.Load()
	return epoch != c.epoch.Load() && since != 0 && now-since > int64(grace) && now-c.followed.Load() < int64(liveFor)
}

// confirm waits for a stale entry to be validated with others that are asked
// for, and serves it as it is when that takes too long or fails.
func (c *Cache) confirm(ctx context.Context, s *shard, code, other string) (*Link, error) {
	s.mu.Lock()
	e := s.entries[code]
	if e == nil {
		s.mu.Unlock()
		return c.miss(ctx, s, code, other)
	}
	stale := e.link
	answered := s.ask(e.code)
	if c.current(c.now().UnixNano(), e.validAt, e.epoch) || !c.want(e) {
		s.answer(e.code) // it is confirmed by now, or the queue is full
	}
	s.mu.Unlock()
	timer := time.NewTimer(confirmTimeout)
	defer timer.Stop()
	select {
	case <-answered:
	case <-timer.C:
		s.stales.Add(1)
		return stale, nil
	case <-ctx.Done():
		s.stales.Add(1)
		return stale, nil
	}
	s.mu.RLock()
	e = s.entries[code]
	if e == nil {
		s.mu.RUnlock()
		return c.miss(ctx, s, code, other)
	}
	link := e.link
	s.mu.RUnlock()
	s.confirms.Add(1)
	return link, nil
}

// current reports whether an entry is known to be right now. What is known of
// a time to come was noted before the clock was set back.
func (c *Cache) current(now, validAt int64, epoch uint64) bool {
	ago := now - c.knownAt(validAt, epoch)
	return -int64(liveFor) < ago && ago < int64(liveFor)
}

// knownAt is when an entry was last known to be right.
func (c *Cache) knownAt(validAt int64, epoch uint64) int64 {
	if epoch != c.epoch.Load() {
		return validAt
	}
	return max(validAt, c.followed.Load())
}

// want asks the refresher to validate an entry, once until it did. It reports
// whether that is going to happen.
func (c *Cache) want(e *entry) bool {
	if e.wanted.Load() || !e.wanted.CompareAndSwap(false, true) {
		return true
	}
	select {
	case c.wanted <- e.code:
		return true
	default:
		e.wanted.Store(false) // the queue is full: the next lookup asks again
		return false
	}
}

// Forget drops what is known of codes whose links this process has just
// changed, so that the next lookup here sees the change at once. Call it after
// the commit.
func (c *Cache) Forget(codes ...string) {
	changes := make([]change, len(codes))
	for i, code := range codes {
		changes[i] = change{code: code}
	}
	c.learning.Lock()
	defer c.learning.Unlock()
	c.record(changes, view{})
	for _, code := range codes {
		if c.redis != nil {
			c.past.forget(c.hash(code), c.tick.Add(1))
		}
		s := c.shardOf(code)
		s.mu.Lock()
		s.touch(code)
		if e := s.entries[code]; e != nil {
			s.remove(e)
		}
		s.mu.Unlock()
	}
	c.dirty.Store(true)
}

// A view says when a query looked at the database.
type view struct {
	tick  int64  // before it started
	at    int64  // likewise, by the clock
	epoch uint64 // likewise
}

// look begins a view: call it right before the query starts.
func (c *Cache) look() view {
	return view{tick: c.tick.Add(1), at: c.now().UnixNano(), epoch: c.epoch.Load()}
}

// miss loads a link that is not cached. Concurrent misses of one code share
// one load. Of other, if it is not empty, it finds out whether there is a link, if
// that costs no query more.
func (c *Cache) miss(ctx context.Context, s *shard, code, other string) (*Link, error) {
	s.misses.Add(1)
	s.mu.Lock()
	if link, err, known := c.recheck(s, code); known {
		s.mu.Unlock()
		return link, err
	}
	if running := s.calls[code]; running != nil {
		s.mu.Unlock()
		select {
		case <-running.done:
			return running.link, running.err
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
	}
	// An entry that is too old to be served is asked of Postgres.
	own := &call{done: make(chan struct{}), renews: s.entries[code] != nil}
	code, other = cloneString(code), cloneString(other)
	s.calls[code] = own
	s.mu.Unlock()

	// The load outlives a caller that gives up: others wait for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
	defer cancel()
	c.run(ctx, s, code, other, own)
	if errors.Is(own.err, ErrUnavailable) {
		c.complain(ctx, own.err)
	}
	return own.link, own.err
}

// complain says why a lookup failed, once in a while: its client is told to come
// back, and nothing else tells the operator about one that took too long.
func (c *Cache) complain(ctx context.Context, err error) {
	now, last := time.Now().UnixNano(), c.complained.Load()
	if now-last < int64(complainEvery) || !c.complained.CompareAndSwap(last, now) {
		return
	}
	c.log.WarnContext(ctx, "a link that is not cached could not be looked up", slog.Any("error", err))
}

// recheck looks again under the shard's lock: another miss may have ended.
func (c *Cache) recheck(s *shard, code string) (link *Link, err error, known bool) {
	now := c.now().UnixNano()
	if e := s.entries[code]; e != nil {
		return e.link, nil, now-c.knownAt(e.validAt, e.epoch) <= c.staleMax
	}
	return nil, ErrNotFound, unknown(now, s.missing[code])
}

// unknown reports whether a code that was found to be unknown until then is
// taken to be so now. A clock that was set back must not make that longer: only
// time ends it, since the feed does not tell of new links.
func unknown(now, until int64) bool { return now < until && until-now <= int64(missingFor) }

// run performs a load and ends its call. What the feed changed while the load
// was under way may be missing from its answer: then it loads again, and when
// that goes on, it answers without storing.
func (c *Cache) run(ctx context.Context, s *shard, code, other string, own *call) {
	const tries = 3
	var asked time.Time // by Redis's clock
	if c.redis != nil && !own.renews {
		var ended bool
		if ended, asked = c.lookupShared(ctx, s, code, own); ended {
			return
		}
	}
	for try := 1; ; try++ {
		history, here, followed := c.past.now() // before the look: what it sees is at least as new
		seen := c.look()
		link, err := c.limitedLoad(ctx, code, other)
		s.mu.Lock()
		if own.touched && try < tries && !errors.Is(err, ErrUnavailable) {
			own.touched = false
			s.mu.Unlock()
			continue
		}
		if !own.touched && !errors.Is(err, ErrUnavailable) {
			c.keep(s, code, link, seen)
			switch {
			case !followed:
			case link != nil:
				c.share(share{code: code})
			case !asked.IsZero():
				c.share(share{code: code, history: history, unknown: asked.Add(missingFor), place: here})
			}
		}
		delete(s.calls, code)
		s.mu.Unlock()
		own.link, own.err = link, err
		close(own.done)
		return
	}
}

// keep stores the answer of a load, nil if there is no link; the shard is
// locked.
func (c *Cache) keep(s *shard, code string, link *Link, seen view) {
	if e := s.entries[code]; e != nil { // it was too old to be served
		c.dirty.Store(true)
		if c.replace(s, e, link, seen) {
			return
		}
		s.remove(e)
		if e.stamp > seen.tick {
			return // which is newer cannot be told
		}
	}
	if link == nil {
		s.miss(code, seen.at+int64(missingFor))
		return
	}
	e := &entry{code: code, link: link, stamp: c.tick.Add(1), validAt: seen.at, epoch: seen.epoch}
	s.add(e)
	c.dirty.Store(true)
	if seen.epoch != c.epoch.Load() {
		c.want(e) // the feed lost the thread, and a sweep may have passed by
	}
}

// load is one code that is asked of Postgres, and another, if it is not empty,
// that is only asked for.
type load struct {
	code, other string

	left atomic.Bool   // nobody waits for it any more
	done chan struct{} // closed when the rest is set
	link *Link
	err  error
}

func (l *load) end(link *Link, err error) {
	l.link, l.err = link, err
	close(l.done)
}

// limitedLoad asks Postgres for one link, with a bound on how many queries are
// under way. Each code waits in one line, and who gets to ask asks for all that are
// in front, until its own has been.
func (c *Cache) limitedLoad(ctx context.Context, code, other string) (*Link, error) {
	own := &load{code: code, other: other, done: make(chan struct{})}
	select {
	case c.line <- own:
	default:
		c.metrics.loads.WithLabelValues("refused").Inc()
		return nil, fmt.Errorf("%w: too many lookups are waiting", ErrUnavailable)
	}
	for {
		// A lookup that has an answer, or waited long enough, asks no more for others.
		select {
		case <-own.done:
			return own.link, own.err
		default:
		}
		if err := ctx.Err(); err != nil {
			own.left.Store(true)
			c.metrics.loads.WithLabelValues("refused").Inc()
			return nil, fmt.Errorf("%w: wait for a lookup: %w", ErrUnavailable, err)
		}
		select {
		case c.slots <- struct{}{}:
			c.loadAll(ctx, c.together())
			<-c.slots
		case <-own.done:
		case <-ctx.Done():
		}
	}
}

// together takes those in front of the line.
func (c *Cache) together() []*load {
	var loads []*load
	for len(loads) < maxTogether {
		select {
		case l := <-c.line:
			if !l.left.Load() {
				loads = append(loads, l)
			}
		default:
			return loads
		}
	}
	return loads
}

// loadAll asks Postgres for links. The query outlives the deadline of whoever came
// to ask it: others wait for the answer.
func (c *Cache) loadAll(ctx context.Context, loads []*load) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
	defer cancel()
	if len(loads) == 1 && loads[0].other == "" {
		loads[0].end(c.load(ctx, loads[0].code))
		return
	}
	if len(loads) == 0 {
		return
	}
	codes := make([]string, 0, 2*len(loads))
	for _, l := range loads {
		codes = append(codes, l.code)
		if l.other != "" {
			codes = append(codes, l.other)
		}
	}
	rows, err := c.queries.ResolveLinks(ctx, codes)
	found := make(map[string]*Link, len(rows))
	for _, row := range rows {
		found[row.ShortCode] = resolved(row)
	}
	for _, l := range loads {
		link := found[l.code]
		switch {
		case err != nil:
			c.metrics.loads.WithLabelValues("unavailable").Inc()
			l.end(nil, fmt.Errorf("%w: load links: %w", ErrUnavailable, err))
		case link == nil:
			c.metrics.loads.WithLabelValues("not_found").Inc()
			if l.other != "" && found[l.other] == nil {
				l.end(nil, errNeither)
			} else {
				l.end(nil, ErrNotFound)
			}
		default:
			c.metrics.loads.WithLabelValues("found").Inc()
			l.end(link, nil)
		}
	}
}

// load asks Postgres for one link.
func (c *Cache) load(ctx context.Context, code string) (*Link, error) {
	row, err := c.queries.ResolveLink(ctx, code)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		c.metrics.loads.WithLabelValues("not_found").Inc()
		return nil, ErrNotFound
	case err != nil:
		c.metrics.loads.WithLabelValues("unavailable").Inc()
		return nil, fmt.Errorf("%w: load link: %w", ErrUnavailable, err)
	}
	c.metrics.loads.WithLabelValues("found").Inc()
	return resolved(queries.ResolveLinksRow{
		ShortCode: code, ID: row.ID, UserID: row.UserID, OriginalURL: row.OriginalURL, IsActive: row.IsActive,
		ExpiresAt: row.ExpiresAt, RedirectStatus: row.RedirectStatus, ForwardQuery: row.ForwardQuery, Version: row.Version,
	}), nil
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
