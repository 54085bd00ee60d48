package linkcache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

const (
	// pollEvery and pollTimeout together keep a change within a second, also
	// when the poll under way hangs on a dead connection and has to be given up.
	pollEvery   = 200 * time.Millisecond
	pollTimeout = 500 * time.Millisecond
	dialTimeout = 2 * time.Second
	// maxPollTimeout is what the timeout doubles to while polls time out: a
	// server that is slow, or has much to tell, must be heard out some time.
	maxPollTimeout = 30 * time.Second
	// renewEvery is how long the feed uses one connection: a server that the
	// database moved away from may go on answering.
	renewEvery = 5 * time.Minute
	// maxChanges is how many changes one poll brings; when there are more, the
	// next one follows at once.
	maxChanges = 1000
	// maxAhead bounds the ids that are remembered one by one because others before
	// them are still to come.
	maxAhead = 10_000
	// neverPruned is how many of the newest ids PruneLinkChanges leaves alone.
	neverPruned = 10_000
)

// A moment is which transactions had ended at some time: those below xmax, but
// for those that were running.
type moment struct {
	xmax    int64
	running []int64
}

// A position is how far the feed has read a server's change log. Ids are drawn by
// transactions that commit in any order, so that what was read is not told by the
// newest id: it is every change of a transaction that had ended at a moment.
type position struct {
	history string // tells this log from every other
	// installation is the same after a restart, a failover and a restore, when
	// the history is another. It is "" where a release before this one read it.
	installation string
	id           int64  // the newest that was read
	anchor       int64  // version of the row at id
	seen         moment // when all had been read that was there
	oldest       int64  // the oldest id in the log, then
	// low is an id up to which every change has been read, or will never come.
	low int64
	// sure is an id that low reaches once every xid below closes has ended, which
	// those of all writers with an id up to it are.
	sure, closes int64
	// ahead are ids beyond low that were read. They are for low to get on quickly,
	// and may be missing.
	ahead map[int64]struct{}
}

// A round is one reading of all that came since a position, in several polls if
// it is much. What it has read is what was there at the first of them, at least.
type round struct {
	began    view // right before the first poll
	at       moment
	xmin     int64 // every xid below it had ended
	nextXID  int64 // was not drawn yet
	newest   int64 // the newest id of a change that could be seen
	xid, lid int64 // the last change that was read; changes come in this order
}

// A change is what the feed knows of a code: its link now, nil if it has none.
type change struct {
	code string
	link *Link
}

// follow polls the change log until ctx ends, on a connection of its own.
func (c *Cache) follow(ctx context.Context) {
	f := &feed{cache: c, timeout: pollTimeout}
	if m := c.mark.Load(); m != nil {
		f.position, f.begun = m.position, true
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

// pause is how long to wait before the next poll. After the first failure
// there is no time to lose: the connection alone may be bad. After more the
// pause is spread, so that replicas do not return in step.
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
	round    *round        // nil between two
	timeout  time.Duration // of the next poll
	// remembers says that the cache's past is of this position's history.
	remembers      bool
	rememberAt     time.Time // not before
	rememberFailed int

	failing bool
	warned  time.Time
}

// poll reads the log once. It reports whether there is more to read at once.
func (f *feed) poll(ctx context.Context) (more bool, err error) {
	more, err = f.tryPoll(ctx)
	if err != nil {
		if f.conn != nil && errors.Is(err, context.DeadlineExceeded) {
			f.timeout = min(2*f.timeout, maxPollTimeout)
		}
		f.hangUp() // whatever state it is in, a new one is soon there
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
			f.cache.behind.Store(false) // nobody there to confirm anything
			return false, err
		}
	}
	if !f.begun {
		return false, f.begin(ctx)
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

// begin starts at the end of the log. Nothing is known of what happened
// before, so that everything cached has to be validated again.
func (f *feed) begin(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	seen := f.cache.look()
	log, err := f.queries.GetLinkLog(bounded)
	if err != nil {
		return fmt.Errorf("begin the link feed: %w", err)
	}
	was := f.position.installation
	f.position, f.round = startAt(log), nil
	f.begun = true
	if is := f.position.installation; was != "" && was != is {
		f.cache.log.WarnContext(ctx, "the database is another installation than the cached links are of; they are forgotten",
			slog.String("were_of", was), slog.String("installation", is))
		f.cache.forgetAll()
	}
	f.cache.lose()
	if f.cache.met != nil {
		f.cache.met(f.position.installation)
	}
	f.follows(seen)
	f.cache.behind.Store(false)
	f.remember(ctx)
	return nil
}

// follows notes that the cache is right as of the view, apart from stale
// entries.
func (f *feed) follows(seen view) {
	p := f.position
	p.ahead = nil
	if last := f.cache.followed.Swap(seen.at); seen.at-last >= int64(liveFor) {
		f.cache.regained.Store(f.cache.now().UnixNano())
	}
	f.cache.mark.Store(&mark{position: p, followed: seen.at, epoch: f.cache.epoch.Load()})
}

func startAt(log queries.GetLinkLogRow) position {
	p := position{
		history: log.History, installation: log.Installation, id: log.NewestID, anchor: log.Anchor, oldest: log.OldestID,
		seen: moment{log.Xmax, log.Running},
	}
	p.settle(round{xmin: log.Xmin, nextXID: log.NextXid, newest: log.NewestID})
	return p
}

// read brings what changed since the last poll.
func (f *feed) read(ctx context.Context) (more bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	seen := f.cache.look()
	rows, err := f.queries.PollLinkChanges(bounded, f.position.unread(f.round))
	if err != nil {
		f.cache.behind.Store(false)
		return false, fmt.Errorf("poll the link feed: %w", err)
	}
	state := rows[0] // the query answers at least one row
	if !f.position.continues(state) {
		f.begun, f.remembers, f.round = false, false, nil
		f.cache.behind.Store(true)
		f.cache.past.unknown()
		return true, nil
	}
	f.learns(rows)
	changes, all := changesOf(rows)
	f.cache.apply(changes, seen)
	if f.round == nil {
		f.round = &round{
			began: seen,
			at:    moment{state.Xmax, state.Running}, xmin: state.Xmin, nextXID: state.NextXid, newest: state.NewestID,
		}
	}
	f.position.advance(f.round, rows)
	more = len(rows) >= maxChanges
	lost, began := false, f.round.began
	if !more {
		lost = f.position.complete(*f.round, state.OldestID)
		f.round = nil
	}
	if all || lost {
		f.cache.lose()
	}
	complete := int64(0)
	if !more {
		f.follows(began)
		complete = began.tick
		more = began != seen // what became visible in between is for the next round
	}
	f.cache.behind.Store(more && seen.at-f.cache.followed.Load() > int64(behindAfter))
	f.cache.past.reach(f.position, lost, complete)
	f.remember(ctx)
	return more, nil
}

// continues reports whether the log still is the one that was read up to here:
// the same table and server since its start, and the row at the position
// unchanged. What was restored, failed over or restarted may have another past.
func (p *position) continues(state queries.PollLinkChangesRow) bool {
	if p.history != state.History || state.NewestID < p.id {
		return false
	}
	return p.id == 0 || p.anchor == state.Anchor
}

// unread asks for the changes that were not there at the position's moment, and
// that the round, if there is one under way, has not come to.
func (p *position) unread(r *round) queries.PollLinkChangesParams {
	if r == nil {
		r = &round{}
	}
	params := queries.PollLinkChangesParams{PositionID: p.id, RowLimit: maxChanges, FromXid: p.seen.xmax}
	if r.xid >= p.seen.xmax {
		params.FromXid, params.FromID = r.xid, r.lid
	}
	for _, xid := range p.seen.running {
		if xid < r.xid {
			continue
		}
		after := int64(0)
		if xid == r.xid {
			after = r.lid
		}
		params.Running, params.AfterIds = append(params.Running, xid), append(params.AfterIds, after)
	}
	return params
}

// advance takes note of what a poll showed.
func (p *position) advance(r *round, rows []queries.PollLinkChangesRow) {
	for _, row := range rows {
		if row.ID == 0 {
			continue
		}
		r.xid, r.lid = row.Xid, row.ID
		if row.ID > p.id {
			p.id, p.anchor = row.ID, row.Version
		}
		if row.ID > p.low && len(p.ahead) < maxAhead {
			if p.ahead == nil {
				p.ahead = make(map[int64]struct{})
			}
			p.ahead[row.ID] = struct{}{}
		}
	}
}

// complete ends a round. It reports whether changes may have been pruned before
// they were read. What became visible while the round went on is read by the
// next, some of it once more.
func (p *position) complete(r round, oldest int64) (lost bool) {
	p.seen = r.at
	lost = oldest > p.oldest && oldest > p.low+1 && r.newest-neverPruned > p.low
	p.oldest = oldest
	if lost {
		p.low = oldest - 1
	}
	p.settle(r)
	return lost
}

// settle moves low after a round. An id that is missing holds it up until all
// transactions that may have drawn the id have ended.
func (p *position) settle(r round) {
	if p.closes == 0 {
		p.sure, p.closes = r.newest, r.nextXID
	}
	if r.xmin >= p.closes {
		p.low = max(p.low, p.sure)
		p.sure, p.closes = r.newest, r.nextXID
	}
	if r.xmin >= p.closes { // nobody writes
		p.low = max(p.low, p.sure)
		p.closes = 0
	}
	for id := range p.ahead {
		if id <= p.low {
			delete(p.ahead, id)
		}
	}
	for {
		if _, read := p.ahead[p.low+1]; !read {
			return
		}
		p.low++
		delete(p.ahead, p.low)
	}
}

// changesOf translates rows. Of several changes of one code one remains, since
// all bring the link as it is now. all reports a change of unknown extent.
func changesOf(rows []queries.PollLinkChangesRow) (changes []change, all bool) {
	seen := make(map[string]bool, len(rows))
	for _, row := range rows {
		switch {
		case row.ID == 0:
		case row.ShortCode == nil:
			all = true
		case !seen[*row.ShortCode]:
			seen[*row.ShortCode] = true
			changes = append(changes, change{code: *row.ShortCode, link: linkOf(row)})
		}
	}
	return changes, all
}

func linkOf(row queries.PollLinkChangesRow) *Link {
	if row.URLID == nil {
		return nil
	}
	return &Link{
		ID: *row.URLID, UserID: *row.UserID, Target: links.Location(*row.OriginalURL), Active: *row.IsActive,
		ExpiresAt: timeOf(row.ExpiresAt), Status: int(*row.RedirectStatus), ForwardQuery: *row.ForwardQuery,
		Version: *row.URLVersion,
	}
}

// apply brings changes into the cache: what is cached is replaced in place, so
// that a hot link never falls out. The journal learns of them first.
func (c *Cache) apply(changes []change, seen view) {
	if len(changes) == 0 {
		return
	}
	c.learning.Lock()
	defer c.learning.Unlock()
	c.record(changes, seen)
	for _, ch := range changes {
		s := c.shardOf(ch.code)
		s.mu.Lock()
		s.touch(ch.code)
		if e := s.entries[ch.code]; e != nil {
			if !c.replace(s, e, ch.link, seen) {
				s.remove(e) // which is newer cannot be told: ask again when it is wanted
			}
		}
		s.mu.Unlock()
	}
	c.metrics.changes.Add(float64(len(changes)))
	c.dirty.Store(true)
}

// replace gives an entry what a query saw, unless the entry is newer. It
// reports whether the entry is right afterwards, as far as can be told. The
// shard is locked.
func (c *Cache) replace(s *shard, e *entry, link *Link, seen view) bool {
	after := e.stamp < seen.tick // the query began after the entry was stored
	switch {
	case seen.epoch < e.epoch:
		return true // what the query saw may belong to another history
	case link == nil, !after && link.ID != e.link.ID:
		return false
	case !after && link.Version < e.link.Version:
		return true
	}
	s.held += len(link.Target) - len(e.link.Target)
	e.link = link
	e.stamp, e.validAt, e.epoch = c.tick.Add(1), seen.at, seen.epoch
	s.shrink()
	return true
}

// lose begins a new epoch: all entries become stale and are validated again.
func (c *Cache) lose() {
	epoch, followed := c.epoch.Load(), c.followed.Load()
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for _, e := range s.ring {
			if e.epoch == epoch {
				e.validAt = max(e.validAt, followed)
			}
		}
		s.mu.Unlock()
	}
	c.regained.Store(c.now().UnixNano())
	c.epoch.Add(1)
	c.metrics.resyncs.Inc()
	c.sweeps.Add(1)
	c.dirty.Store(true)
	select {
	case c.swept <- struct{}{}:
	default:
	}
}

// forgetAll empties the cache. Loads under way go on, and are of an epoch that is
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

// Installation returns the installation that the cached links are of, as far as
// the snapshot or the feed says it, "" otherwise.
func (c *Cache) Installation() string {
	m := c.mark.Load()
	if m == nil {
		return ""
	}
	return m.position.installation
}

// report logs trouble when it begins, once a minute while it lasts, and when
// it has passed.
func (f *feed) report(ctx context.Context, err error) {
	log := f.cache.log
	switch {
	case err == nil && f.failing:
		f.failing = false
		log.InfoContext(ctx, "link feed works again")
	case err == nil:
	case !f.failing, time.Since(f.warned) >= time.Minute:
		f.failing, f.warned = true, time.Now()
		log.WarnContext(ctx, "link feed cannot reach postgres; cached links are still served",
			slog.Any("error", plain(err)))
	}
}

// plain strips what pgx adds about the connection (host, user) where a cause
// says enough.
func plain(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return context.DeadlineExceeded
	}
	return err
}
