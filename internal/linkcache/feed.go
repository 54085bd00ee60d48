package linkcache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

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
	// maxGaps bounds the gaps that are remembered one by one.
	maxGaps = 1000
)

// A gap is a run of ids in the change log that nobody can see yet: their
// writers are under way or were rolled back.
type gap struct {
	low, high int64
	// closes is an xid that was not drawn yet when the gap was seen. Once every
	// xid below it has ended, what is still missing was rolled back.
	closes int64
	// oldest was the oldest id in the log when the gap was seen.
	oldest int64
}

// A position is how far the feed has read a server's change log.
type position struct {
	history string // tells this log from every other
	// installation is the same after a restart, a failover and a restore, when
	// the history is another. It is "" where a release before this one read it.
	installation string
	id           int64
	anchor       int64 // version of the row at id
	gaps         []gap
	// blurred, if not zero, is an xid as in gap.closes: until then there are
	// more gaps than are remembered, so that any link may have changed.
	blurred int64
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
	rows, err := f.queries.ListChangeGaps(bounded, maxGaps+1)
	if err != nil {
		return fmt.Errorf("begin the link feed: %w", err)
	}
	was := f.position.installation
	f.position = startAt(rows)
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
	f.remember(ctx)
	return nil
}

// follows notes that the cache is right as of the view, apart from stale
// entries.
func (f *feed) follows(seen view) {
	p := f.position
	p.gaps = slices.Clone(p.gaps)
	f.cache.behind.Store(false)
	if last := f.cache.followed.Swap(seen.at); seen.at-last >= int64(liveFor) {
		f.cache.regained.Store(f.cache.now().UnixNano())
	}
	f.cache.mark.Store(&mark{position: p, followed: seen.at, epoch: f.cache.epoch.Load()})
}

func startAt(rows []queries.ListChangeGapsRow) position {
	state := rows[0] // the query answers at least one row
	p := position{history: state.History, installation: state.Installation, id: state.NewestID, anchor: state.Anchor}
	if state.OldestID > 1 {
		// A writer that began before the oldest row that is left.
		p.gaps = append(p.gaps, gap{low: 1, high: state.OldestID - 1, closes: state.NextXid, oldest: state.OldestID})
	}
	for _, row := range rows {
		if row.Low > 0 {
			p.gaps = append(p.gaps, gap{low: row.Low, high: row.High, closes: state.NextXid, oldest: state.OldestID})
		}
	}
	p.bound(state.NextXid)
	return p
}

// read brings what changed since the last poll.
func (f *feed) read(ctx context.Context) (more bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	seen := f.cache.look()
	params := queries.PollLinkChangesParams{AfterID: f.position.id, RowLimit: maxChanges}
	params.Lows, params.Highs = f.position.bounds()
	rows, err := f.queries.PollLinkChanges(bounded, params)
	if err != nil {
		f.cache.behind.Store(false)
		return false, fmt.Errorf("poll the link feed: %w", err)
	}
	state := rows[0] // the query answers at least one row
	if !f.position.continues(state) {
		f.begun, f.remembers = false, false
		f.cache.behind.Store(true)
		f.cache.past.unknown()
		return true, nil
	}
	f.learns(rows)
	changes, all := changesOf(rows)
	f.cache.apply(changes, seen)
	more = len(rows) >= maxChanges
	lost := f.position.advance(rows, more)
	if all || lost || f.position.blurred != 0 && f.cache.sweeps.Load() == 0 {
		f.cache.lose()
	}
	if f.position.blurred != 0 && state.Xmin >= f.position.blurred && !more {
		f.position.blurred = 0
		f.cache.lose()
	}
	complete := int64(0)
	if !more {
		f.follows(seen)
		complete = seen.tick
	} else if seen.at-f.cache.followed.Load() > int64(behindAfter) {
		f.cache.behind.Store(true)
	}
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

func (p *position) bounds() (lows, highs []int64) {
	lows, highs = make([]int64, len(p.gaps)), make([]int64, len(p.gaps))
	for i, g := range p.gaps {
		lows[i], highs[i] = g.low, g.high
	}
	return lows, highs
}

// advance takes note of what a poll showed. It reports whether changes may
// have been pruned before they were seen.
func (p *position) advance(rows []queries.PollLinkChangesRow, more bool) (lost bool) {
	state := rows[0]
	var shown []int64
	for _, row := range rows {
		switch {
		case row.ID == 0:
		case row.ID <= p.id:
			shown = append(shown, row.ID)
		default:
			if row.ID > p.id+1 {
				p.gaps = append(p.gaps, gap{low: p.id + 1, high: row.ID - 1, closes: state.NextXid, oldest: state.OldestID})
			}
			p.id, p.anchor = row.ID, row.Version
		}
	}
	p.fill(shown)
	if !more {
		lost = p.close(state)
	}
	p.bound(state.NextXid)
	return lost
}

// fill takes ids out of the gaps; ids and gaps ascend.
func (p *position) fill(ids []int64) {
	if len(ids) == 0 {
		return
	}
	left := make([]gap, 0, len(p.gaps)+len(ids))
	for _, g := range p.gaps {
		for len(ids) > 0 && ids[0] <= g.high {
			if ids[0] > g.low {
				before := g
				before.high = ids[0] - 1
				left = append(left, before)
			}
			g.low = max(g.low, ids[0]+1)
			ids = ids[1:]
		}
		if g.low <= g.high {
			left = append(left, g)
		}
	}
	p.gaps = left
}

// close drops the gaps whose writers have all ended: what this snapshot did
// not show will not come. Only if the log was pruned past a gap meanwhile,
// nobody can tell.
func (p *position) close(state queries.PollLinkChangesRow) (lost bool) {
	open := p.gaps[:0]
	for _, g := range p.gaps {
		if state.Xmin < g.closes {
			open = append(open, g)
		} else if g.low < state.OldestID && g.oldest < state.OldestID {
			lost = true
		}
	}
	p.gaps = open
	return lost
}

// bound gives up on single gaps when there are too many.
func (p *position) bound(nextXID int64) {
	if len(p.gaps) <= maxGaps {
		return
	}
	p.gaps, p.blurred = nil, nextXID
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
		ID: *row.URLID, UserID: *row.UserID, Target: *row.OriginalURL, Active: *row.IsActive,
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
			if !c.replace(e, ch.link, seen) {
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
func (c *Cache) replace(e *entry, link *Link, seen view) bool {
	after := e.stamp < seen.tick // the query began after the entry was stored
	switch {
	case seen.epoch < e.epoch:
		return true // what the query saw may belong to another history
	case link == nil, !after && link.ID != e.link.ID:
		return false
	case !after && link.Version < e.link.Version:
		return true
	}
	e.link = link
	e.stamp, e.validAt, e.epoch = c.tick.Add(1), seen.at, seen.epoch
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
