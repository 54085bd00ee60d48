package linkcache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

const (
	// pollEvery and pollTimeout together bring a change within a second, even if a poll
	// hangs on a dead connection and has to be given up.
	pollEvery   = 200 * time.Millisecond
	pollTimeout = 500 * time.Millisecond
	dialTimeout = 2 * time.Second
	// The timeout doubles up to maxPollTimeout while polls time out: otherwise a slow
	// server, or one with many changes, could never answer.
	maxPollTimeout = 30 * time.Second
	// renewEvery is how long the feed uses one connection: after the database has moved
	// to another server, the old one may go on answering.
	renewEvery = 5 * time.Minute
	// maxChanges is how many changes one query brings; when there are more, the
	// next one follows at once.
	maxChanges = 1000
	// keptSeconds is how long changes are certain to be in the log. It is half of the
	// time after which the worker prunes them.
	keptSeconds = 3600
)

// A position says how far the feed has read a server's change log. It cannot be an id
// of the log, because ids are drawn by transactions that commit in any order. It is a
// moment: every change of the transactions that had ended then was read.
type position struct {
	History string `cbor:"1,keyasint"` // tells this log from every other
	// Installation stays the same after a restart, a failover and a restore, when the
	// history changes.
	Installation string `cbor:"2,keyasint"`
	// At that moment the transactions below Xmax had ended, except for those in the
	// list of running ones.
	Xmax    int64   `cbor:"3,keyasint"`
	Running []int64 `cbor:"4,keyasint,omitempty"`
	// At is that moment by the server's clock, in seconds. LowSince is when the current
	// lowest running transaction became the lowest.
	At       int64 `cbor:"5,keyasint"`
	LowSince int64 `cbor:"6,keyasint"`
}

// low returns the xid below which all transactions had ended.
func (p *position) low() int64 {
	if len(p.Running) == 0 {
		return p.Xmax
	}
	return min(p.Xmax, slices.Min(p.Running))
}

// next returns the position after all rows that a query at p returned were read. state
// is the first of those rows.
func (p *position) next(state queries.PollLinkChangesRow) position {
	next := position{
		History: state.History, Installation: state.Installation, Xmax: state.Xmax, Running: state.Running,
		At: state.NowSeconds, LowSince: state.NowSeconds,
	}
	if next.low() == p.low() {
		next.LowSince = p.LowSince
	}
	return next
}

// missed reports whether changes may have been pruned before they were read. That is so
// if they were in the log for longer than changes are kept: because nobody polled, or
// because their transaction took that long.
func (p *position) missed(next position) bool {
	return next.At-p.At > keptSeconds || next.low() != p.low() && next.At-p.LowSince > keptSeconds
}

// follow polls the change log until ctx ends, on a connection of its own.
func (c *Cache) follow(ctx context.Context) {
	f := &feed{cache: c, timeout: pollTimeout}
	if h := c.position.Load(); h != nil {
		f.position, f.begun = h.Position, true
	}
	defer f.hangUp()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		more, err := f.poll(ctx)
		if ctx.Err() != nil {
			return
		}
		timer.Reset(f.pause(more, err, time.Since(began)))
		f.report(ctx, err)
	}
}

// pause returns how long to wait before the next poll. After the first failure it is
// short, because the trouble may be only the connection. After more failures it is
// random, so that replicas do not come back all at once.
func (f *feed) pause(more bool, err error, took time.Duration) time.Duration {
	switch {
	case err != nil && f.failing:
		return pollEvery/2 + rand.N(pollEvery) //nolint:gosec // no secret
	case err != nil, more:
		return 0
	default:
		return max(pollEvery-took, pollEvery/4)
	}
}

// A feed reads the change log; it belongs to one goroutine.
type feed struct {
	cache    *Cache
	conn     *pgx.Conn
	dialed   time.Time
	queries  *queries.Queries
	begun    bool // position is known
	position position
	timeout  time.Duration // of the next poll
	// remembers says that the cache knows the changes before the position.
	remembers bool

	failing bool
	warned  time.Time
}

// poll reads the log to its end. It reports whether to poll again at once.
func (f *feed) poll(ctx context.Context) (more bool, err error) {
	more, err = f.tryPoll(ctx)
	if err != nil {
		if f.conn != nil && errors.Is(err, context.DeadlineExceeded) {
			f.timeout = min(2*f.timeout, maxPollTimeout)
		}
		f.hangUp() // whatever state it is in, a new one is soon there
		f.cache.confirmAfter.Store(0)
		f.cache.metrics.polls.WithLabelValues("failed").Inc()
		return false, err
	}
	f.timeout = pollTimeout
	f.cache.metrics.polls.WithLabelValues("good").Inc()
	return more, nil
}

func (f *feed) tryPoll(ctx context.Context) (more bool, err error) {
	if f.conn != nil && time.Since(f.dialed) > renewEvery {
		f.hangUp()
	}
	if f.conn == nil {
		if err := f.dial(ctx); err != nil {
			return false, err
		}
	}
	if !f.begun {
		return true, f.begin(ctx)
	}
	if f.cache.redis != nil && !f.remembers {
		if err := f.goBack(ctx); err != nil {
			return false, err
		}
	}
	return f.read(ctx)
}

func (f *feed) dial(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := postgres.Connect(ctx, f.cache.pool)
	if err != nil {
		return fmt.Errorf("connect for the link feed: %w", err)
	}
	f.conn, f.queries, f.dialed = conn, queries.New(conn), time.Now()
	return nil
}

func (f *feed) hangUp() {
	if f.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = f.conn.Close(ctx) // the server may be gone; nothing is lost with it
	f.conn, f.queries = nil, nil
}

// begin starts at the end of the log. The changes before it are unknown, so everything
// that is cached has to be validated again.
func (f *feed) begin(ctx context.Context) error {
	c := f.cache
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	seen := c.look()
	rows, err := f.queries.PollLinkChanges(ctx, queries.PollLinkChangesParams{Xmax: math.MaxInt64, RowLimit: 1})
	if err != nil {
		return fmt.Errorf("begin the link feed: %w", err)
	}
	if err := c.readDomains(ctx, f.queries, rows[0].DomainVersion); err != nil {
		return err
	}
	// From here on nothing fails: a second attempt would no longer know which
	// installation the links are of.
	was, is := f.position.Installation, rows[0].Installation
	f.position = new(position).next(rows[0])
	if was != "" && was != is {
		c.log.WarnContext(ctx, "the database is another installation than the cached links are of; they are forgotten",
			slog.String("were_of", was), slog.String("installation", is))
		c.forgetAll()
	}
	f.begun, f.remembers = true, false
	c.beginEpoch()
	if c.met != nil {
		c.met(is)
	}
	f.follows(f.position, seen)
	return nil
}

// goBack has the latest changes read once more, so that links which were stored in
// Redis before those changes can be trusted.
func (f *feed) goBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	from, err := f.queries.GetRecentLinkXid(ctx, startRecent)
	if err != nil {
		return fmt.Errorf("begin the link feed: %w", err)
	}
	if from < f.position.low() {
		f.position.Xmax, f.position.Running = from, nil
	}
	f.cache.recent.begin(f.position.low())
	f.remembers = true
	return nil
}

// follows notes that the cache was right as of the view, apart from stale entries.
func (f *feed) follows(p position, seen view) {
	c := f.cache
	f.position = p
	epoch := c.epoch.Load()
	epoch.followed.Store(seen.at)
	c.confirmAfter.CompareAndSwap(0, c.now().Add(grace).UnixNano())
	c.position.Store(&head{Position: p, Followed: seen.at, epoch: epoch})
}

// read reads all changes since the last poll and applies them.
func (f *feed) read(ctx context.Context) (again bool, err error) {
	c := f.cache
	began := c.look()
	var next position
	var domains int64
	var lost bool
	params := queries.PollLinkChangesParams{Xmax: f.position.Xmax, Running: f.position.Running, RowLimit: maxChanges}
	for more := true; more; {
		rows, err := f.page(ctx, params)
		if err != nil {
			return false, err
		}
		if rows[0].History != f.position.History {
			f.begun = false
			c.recent.here.Store(nil)
			return true, nil
		}
		if params.AfterXid == 0 { // later pages may show more: the next poll reads that
			next, domains = f.position.next(rows[0]), rows[0].DomainVersion
		}
		keys, all := c.changedKeys(rows)
		lost = lost || all
		if err := f.bring(ctx, keys, place{next.History, next.low()}); err != nil {
			return false, err
		}
		last := rows[len(rows)-1]
		params.AfterXid, params.AfterID = last.Xid, last.ID
		more = len(rows) >= maxChanges
		again = again || more
	}
	if domains != c.domains.Load().Version {
		ctx, cancel := context.WithTimeout(ctx, f.timeout)
		defer cancel()
		if err := c.readDomains(ctx, f.queries, domains); err != nil {
			return false, err
		}
	}
	if f.position.missed(next) {
		lost = true
		c.recent.raise(next.low())
	}
	if lost {
		c.beginEpoch()
	}
	f.follows(next, began)
	if c.redis != nil {
		c.recent.reach(place{next.History, next.low()}, began.at)
	}
	return again, nil
}

func (f *feed) page(ctx context.Context, params queries.PollLinkChangesParams) ([]queries.PollLinkChangesRow, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	rows, err := f.queries.PollLinkChanges(ctx, params) // answers at least one row
	if err != nil {
		return nil, fmt.Errorf("poll the link feed: %w", err)
	}
	return rows, nil
}

// changedKeys returns the keys of changes, each once. It returns all as true if one of
// the changes may concern any key.
func (c *Cache) changedKeys(rows []queries.PollLinkChangesRow) (keys []Key, all bool) {
	seen := make(map[Key]bool, len(rows))
	for _, row := range rows {
		if row.ID == 0 {
			continue
		}
		if row.ShortCode == nil {
			all = true
			c.recent.raise(row.Xid + 1)
			continue
		}
		key := NewKey(row.DomainID, *row.ShortCode)
		if c.redis != nil {
			c.recent.add(c.hash(key), row.Xid)
		}
		if !seen[key] {
			seen[key] = true
			keys = append(keys, key)
		}
	}
	return keys, all
}

// bring asks for the links of those changed keys that are cached, on the feed's own
// connection, and applies them. A key that was cached only after it had asked is
// dropped.
func (f *feed) bring(ctx context.Context, keys []Key, at place) error {
	if len(keys) == 0 {
		return nil
	}
	c := f.cache
	var cached []Key
	for _, key := range keys {
		if c.has(key) {
			cached = append(cached, key)
		}
	}
	seen := c.look()
	seen.place = &at
	var found map[Key]*Link
	if len(cached) > 0 {
		ctx, cancel := context.WithTimeout(ctx, f.timeout)
		defer cancel()
		var err error
		if found, err = c.resolve(ctx, f.queries, cached); err != nil {
			return err
		}
	}
	c.apply(changesOf(keys, found), seen, true)
	c.metrics.changes.Add(float64(len(keys)))
	for key, link := range found {
		c.fill(fill{key, link, seen})
	}
	return nil
}

// forgetAll empties the cache. Loads under way go on; they belong to an epoch that is
// about to end.
func (c *Cache) forgetAll() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for len(s.ring) > 0 {
			s.remove(s.ring[0])
		}
		clear(s.missing)
		s.mu.Unlock()
	}
}

// Installation returns the installation that the cached links belong to, "" if neither
// the snapshot nor the feed has told it yet.
func (c *Cache) Installation() string {
	h := c.position.Load()
	if h == nil {
		return ""
	}
	return h.Position.Installation
}

// report logs trouble when it begins, once a minute while it lasts, and when it is
// over.
func (f *feed) report(ctx context.Context, err error) {
	log := f.cache.log
	switch {
	case err == nil && f.failing:
		f.failing = false
		log.InfoContext(ctx, "link feed works again")
	case err == nil:
	case !f.failing, time.Since(f.warned) >= time.Minute:
		f.failing, f.warned = true, time.Now()
		if errors.Is(err, context.DeadlineExceeded) {
			err = context.DeadlineExceeded // pgx adds host and user, which say no more
		}
		log.WarnContext(ctx, "link feed cannot reach postgres; cached links are still served", slog.Any("error", err))
	}
}
