package linkcache

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"hash/maphash"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost/signpost/internal/redis"
	"github.com/signpost/signpost/queries"
)

// The links that all replicas share in Redis.
//
// A miss asks Redis before Postgres. What a replica had to ask of Postgres it
// stores there, in the background; and each replica's feed puts a mark in the
// place of every link that changed.
//
// No replica believes Redis. It may have been flushed, restored or failed over,
// so that a mark is gone and the link from before it is back; a fill may have
// been on its way for any time. So every link in Redis carries the place in the
// change log at which it was read, and the reader takes it only if its own feed
// can tell that the link has not changed since (past.holds): then it is as
// right as what this process has cached itself, and from then on the feed
// follows it like any other. I4 rests on the feed alone, as without Redis. Links
// of another server, or from before a restart or failover of Postgres, have
// other keys.
//
// The marks are a second line, and what keeps links from being loaded from
// Redis only to be refused: a script stores a fill only if its place is not
// before that of the mark, so that a load from before the change cannot bring
// the old link back into Redis. A mark stays longer than any link (keepMark),
// thus until everything that was stored before it is gone; a fill is late by
// seconds at most, since it is sent with a deadline, and one that were later
// still would be refused by the readers.
//
// That no link has a code cannot be told by the feed, which does not see new
// links. It is believed until missingFor after somebody looked, by the one
// clock that all share: Redis's, read before that look at Postgres.
//
// While Postgres cannot be reached, a link in Redis is served like a cached one
// that became stale: if this process knows of no later change of it, or if it
// was read by somebody who has come further than this process, for up to
// StaleMax.
const (
	keepLink = time.Hour
	// keepMark outlives every link that was stored before it.
	keepMark = 2 * time.Hour
	// maxShares is how many fills and marks wait; more are dropped. They are
	// sent in batches.
	maxShares, shareBatch = 8192, 128
	// rememberTimeout bounds what reading the end of the log may cost the feed,
	// and rememberPause how often.
	rememberTimeout, rememberPause = 300 * time.Millisecond, 5 * time.Second
	// settleWait is how long fills wait for the feed to know for sure what it
	// has seen: right after its start most of the log may still be a gap.
	settleWait, settlePause = time.Second, 20 * time.Millisecond
)

// A share is something to be told to Redis.
type share struct {
	code string
	// at is the id of a change: the link from before it is to go. If it is zero,
	// what is cached of the code is stored.
	at int64
	// unknown, if set, stores instead until then that no link has the code, as
	// seen at place.
	unknown time.Time
	place   place
	history string // what place and at belong to
}

type sharedMetrics struct {
	lookups *prometheus.CounterVec
	dropped prometheus.Counter
}

func newSharedMetrics(r prometheus.Registerer) *sharedMetrics {
	m := &sharedMetrics{
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_link_cache_shared_total",
			Help: "Answers of Redis to lookups: used, negative, none, outdated (the link may have changed since), damaged.",
		}, []string{"result"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signpost_link_cache_shared_dropped_total", Help: "Links and changes not told to Redis, because too many waited.",
		}),
	}
	if r != nil {
		r.MustRegister(m.lookups, m.dropped)
	}
	return m
}

// hash is what past knows codes by. That two codes share one costs a query.
func (c *Cache) hash(code string) uint64 { return maphash.String(c.seed, code) }

func keyOf(history, code string) string { return "signpost:link:" + history + ":" + code }

// remember begins the past where the feed is, from the end of the log. The feed
// matters more: what takes too long is tried again later, with less.
func (f *feed) remember(ctx context.Context) {
	if f.cache.redis == nil || f.remembers || f.conn == nil || time.Now().Before(f.rememberAt) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rememberTimeout)
	defer cancel()
	rows, err := f.queries.ListRecentChanges(ctx, int32(maxRecent>>f.rememberFailed))
	if err != nil {
		f.rememberFailed = min(f.rememberFailed+1, 6)
		f.rememberAt = time.Now().Add(rememberPause)
		f.hangUp()
		return
	}
	if rows[0].History != f.position.history {
		return // the next poll will notice
	}
	f.cache.past.reset(f.position.history, rows, f.cache.hash)
	f.cache.past.reach(f.position, false, 0)
	f.remembers, f.rememberFailed = true, 0
}

// learns lets the past know of changes before they are applied, and Redis in
// the background.
func (f *feed) learns(rows []queries.PollLinkChangesRow) {
	if f.cache.redis == nil {
		return
	}
	f.cache.past.learn(rows, f.cache.hash)
	history, _, ok := f.cache.past.now()
	for _, row := range rows {
		if ok && row.ID != 0 && row.ShortCode != nil {
			f.cache.share(share{code: *row.ShortCode, at: row.ID, history: history})
		}
	}
}

// share has something told to Redis soon, if at all.
func (c *Cache) share(s share) {
	if c.redis == nil || !c.redis.Up() {
		return
	}
	select {
	case c.shares <- s:
	default:
		c.sharedMetrics.dropped.Inc()
	}
}

// tell tells Redis what there is to tell, until ctx ends.
func (c *Cache) tell(ctx context.Context) {
	for {
		var batch []share
		select {
		case <-ctx.Done():
			return
		case s := <-c.shares:
			batch = append(batch, s)
		}
		for began := time.Now(); !c.past.settled() && time.Since(began) < settleWait; {
			if !wait(ctx, settlePause) {
				return
			}
		}
		for more := true; more && len(batch) < shareBatch; {
			select {
			case s := <-c.shares:
				batch = append(batch, s)
			default:
				more = false
			}
		}
		c.redis.Put(ctx, c.putsOf(batch))
	}
}

func (c *Cache) putsOf(batch []share) []redis.Put {
	// The place comes before the entries: each is at least as new (reach
	// publishes what was applied).
	history, here, ok := c.past.now()
	at := c.followed.Load()
	if !ok {
		return nil
	}
	var puts []redis.Put
	for _, s := range batch {
		p := redis.Put{Key: keyOf(history, s.code), Keep: keepLink}
		switch {
		case s.history != "" && s.history != history:
			continue
		case s.at != 0:
			p.Position, p.Mark, p.Keep = s.at, true, keepMark
		case !s.unknown.IsZero():
			p.Position, p.Until = s.place.low, s.unknown
			p.Body = encodeShared(sharedLink{place: s.place, until: s.unknown, savedLink: savedLink{code: s.code}})
		default:
			link, validAt, cached := c.currentLink(s.code)
			if !cached {
				continue
			}
			p.Position, p.Subject, p.Version = here.low, link.ID, link.Version
			p.Body = encodeShared(sharedLink{place: here, at: at, savedLink: savedLink{code: s.code, link: link, validAt: validAt}})
		}
		puts = append(puts, p)
	}
	return puts
}

// currentLink is what is cached of a code, if the feed has followed it.
func (c *Cache) currentLink(code string) (link *Link, validAt int64, ok bool) {
	s := c.shardOf(code)
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.entries[code]
	if e == nil || e.epoch != c.epoch.Load() {
		return nil, 0, false
	}
	return e.link, e.validAt, true
}

// A sharedLink is what Redis keeps of a code.
type sharedLink struct {
	place
	at    int64     // when the link was known to be right, by the writer's clock
	until time.Time // for how long there is none, by Redis's clock
	savedLink
}

// encodeShared returns what decodeShared reads: the place, the times, the link
// as in a snapshot, and a checksum of it all.
func encodeShared(l sharedLink) string {
	b := binary.AppendVarint(nil, l.low)
	b = binary.AppendVarint(b, l.id)
	b = binary.AppendVarint(b, l.anchor)
	b = binary.AppendVarint(b, l.at)
	b = binary.AppendVarint(b, l.until.UnixMilli())
	b = appendLink(b, l.savedLink)
	return string(binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)))
}

func decodeShared(body string) (l sharedLink, ok bool) {
	b := []byte(body)
	if len(b) < 4 || crc32.Checksum(b[:len(b)-4], castagnoli) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return l, false
	}
	d := &decoder{b: b[:len(b)-4]}
	l.low, l.id, l.anchor, l.at = d.varint(), d.varint(), d.varint(), d.varint()
	l.until = time.UnixMilli(d.varint())
	l.savedLink = d.link()
	return l, !d.bad && len(d.b) == 0
}

// An asked is how a lookup in Redis ended.
type asked struct {
	link    *Link
	validAt int64
	// missing is how long there is no link of the code, from before it was
	// looked up; only if link is nil.
	missing time.Duration
	// began is the time of Redis's clock, zero if it is not known.
	began time.Time
}

// ask looks a code up in Redis.
func (c *Cache) ask(ctx context.Context, code string) asked {
	history, _, ok := c.past.now()
	if !ok {
		return asked{}
	}
	found, ok := c.redis.Get(ctx, keyOf(history, code))
	if !ok {
		return asked{}
	}
	a := asked{began: found.Now}
	result := c.judge(code, found, &a)
	c.sharedMetrics.lookups.WithLabelValues(result).Inc()
	return a
}

// judge fills in what of an answer can be believed.
func (c *Cache) judge(code string, found redis.Found, a *asked) (result string) {
	body, _, ok := redis.Body(found.Value)
	if found.Value == "" || ok && body == "" {
		return "none" // or a mark
	}
	l, whole := decodeShared(body)
	if !ok || !whole || l.code != code {
		return "damaged"
	}
	now := c.now().UnixNano()
	live := now-c.followed.Load() < int64(liveFor)
	if !c.past.holds(c.hash(code), l.place, !live) {
		return "outdated"
	}
	if l.link == nil {
		left := l.until.Sub(found.Now)
		if left <= 0 || left > missingFor { // over, or Redis's clock was set back
			return "none"
		}
		a.missing = left
		return "negative"
	}
	known := max(c.followed.Load(), min(l.at, now))
	if now-known > c.staleMax {
		return "outdated"
	}
	a.link, a.validAt = l.link, min(l.validAt, now)
	if !live {
		a.validAt = max(a.validAt, min(l.at, now))
	}
	return "used"
}

// lookupShared ends a call with what Redis knows. It reports whether it did;
// began is the time of Redis's clock before it was asked.
func (c *Cache) lookupShared(ctx context.Context, s *shard, code string, own *call) (ended bool, began time.Time) {
	seen := c.look()
	a := c.ask(ctx, code)
	if a.link == nil && a.missing == 0 {
		return false, a.began
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if own.touched || s.entries[code] != nil || seen.epoch != c.epoch.Load() {
		own.touched = false // Postgres is asked next
		return false, a.began
	}
	if a.link == nil {
		own.err = ErrNotFound
		s.miss(code, seen.at+int64(a.missing))
	} else {
		own.link = a.link
		s.add(&entry{code: code, link: a.link, stamp: c.tick.Add(1), validAt: a.validAt, epoch: seen.epoch})
		c.dirty.Store(true)
	}
	delete(s.calls, code)
	close(own.done)
	return true, a.began
}
