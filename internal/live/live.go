// Package live shows clicks as they are ingested. A process has one source, which reads
// new clicks from Postgres while somebody listens, and hands each of them to everyone.
package live

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/internal/pause"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

const (
	pollEvery   = 250 * time.Millisecond
	pollTimeout = 3 * time.Second
	retryAfter  = time.Second
	// lease is for how long workers write clicks after somebody has listened: a client
	// that was cut off for less gets all clicks when it comes back.
	lease      = 5 * time.Minute
	renewEvery = time.Minute
	// maxClicks is how many clicks one poll brings; of more only the newest are shown.
	maxClicks = 2000
	// maxPages is how many pages wait for a slow listener. Further ones are missed.
	maxPages = 32
)

// Kept is how long clicks are kept. It is longer than the lease, so that no click is
// removed that a client may still ask for.
const Kept = 10 * time.Minute

// Click is what listeners are told of a click.
type Click struct {
	At        time.Time `json:"timestamp"`
	URLID     int64     `json:"url_id"`
	ShortCode *string   `json:"short_code"`
	Domain    *string   `json:"domain"`
	Kind      string    `json:"kind"`
	Country   *string   `json:"country"`
	Referrer  *string   `json:"referrer"`
	Device    *string   `json:"device"`
	Trigger   string    `json:"trigger"`
	// More is how many further clicks of the same link came at the same moment, and are
	// not shown one by one.
	More int32 `json:"more,omitempty"`

	text []byte
}

// JSON returns the click in JSON.
func (c *Click) JSON() []byte { return c.text }

// Page is the clicks that one look at Postgres brought. Pages are shared: nothing in
// them may be changed.
type Page struct {
	ID     string // the position after these clicks, for Listen
	Clicks []Click
	Missed int64 // clicks before these that are not shown
}

// Source reads new clicks from Postgres while somebody listens. Make it with NewSource.
// It may be used concurrently.
type Source struct {
	pool *pgxpool.Pool
	log  *slog.Logger

	starting chan struct{} // has room while no other goroutine starts the reading

	mu        sync.Mutex
	at        string // everything up to this position was handed out
	listeners map[*Listener]bool
	stop      context.CancelFunc // ends the reading; nil while there is none
}

// NewSource returns a source that does nothing until somebody listens.
func NewSource(pool *pgxpool.Pool, log *slog.Logger) *Source {
	return &Source{pool: pool, log: log, starting: make(chan struct{}, 1), listeners: map[*Listener]bool{}}
}

// Listener gets clicks until it is closed. Its methods belong to one goroutine.
type Listener struct {
	source *Source
	urlID  int64
	first  *Page // what was missed before
	pages  chan *Page
	missed int64 // clicks that were lost because the listener was slow; under source.mu
}

// position is the form of a snapshot of Postgres, which positions are.
var position = regexp.MustCompile(`^\d{1,20}:\d{1,20}:[\d,]*$`)

// Listen begins to listen to the clicks of a link, or of all links (0), from now on. If
// since is the id of a page that a source of any process gave within the last minutes,
// the first page has the clicks that came after it. The caller closes the listener.
func (s *Source) Listen(ctx context.Context, urlID int64, since string) (*Listener, error) {
	l := &Listener{source: s, urlID: urlID, pages: make(chan *Page, maxPages)}
	at, err := s.add(ctx, l)
	if err != nil {
		return nil, err
	}
	l.first = &Page{ID: at}
	if !position.MatchString(since) {
		return l, nil
	}
	page, err := s.read(ctx, queries.PollLiveParams{Since: since, Till: at, URLID: urlID, RowLimit: maxClicks})
	switch {
	case postgres.DataFault(err): // it is not a snapshot after all
	case err != nil:
		l.Close()
		return nil, err
	default:
		l.first.Clicks, l.first.Missed = page.Clicks, page.Missed
	}
	return l, nil
}

// add adds a listener, and starts the reading if nobody listened before. It returns the
// position from which on the listener gets all clicks.
func (s *Source) add(ctx context.Context, l *Listener) (at string, err error) {
	select {
	case s.starting <- struct{}{}:
		defer func() { <-s.starting }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if !s.reading() {
		if at, err = s.want(ctx); err != nil {
			return "", err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop == nil {
		if at == "" { // the last one left just now
			at = s.at
		}
		reading, stop := context.WithCancel(context.Background())
		s.at, s.stop = at, stop
		go s.run(reading)
	}
	s.listeners[l] = true
	return s.at, nil
}

func (s *Source) reading() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stop != nil
}

// Close ends the listening. The source stops reading when nobody listens any more.
func (l *Listener) Close() {
	s := l.source
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	if len(s.listeners) == 0 && s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// Pages returns a channel of what comes. Each page is passed to Only.
func (l *Listener) Pages() <-chan *Page { return l.pages }

// First returns what came between the position that Listen was given and now.
func (l *Listener) First() Page { return *l.first }

// Only returns the part of a page that this listener listens to.
func (l *Listener) Only(p *Page) Page {
	only := Page{ID: p.ID, Clicks: p.Clicks, Missed: p.Missed}
	if l.urlID != 0 {
		only.Missed, only.Clicks = 0, nil // nobody knows of which links they were
		for _, c := range p.Clicks {
			if c.URLID == l.urlID {
				only.Clicks = append(only.Clicks, c)
			}
		}
	}
	l.source.mu.Lock()
	defer l.source.mu.Unlock()
	only.Missed += l.missed
	l.missed = 0
	return only
}

// Position returns the position up to which the listener has been given everything, or
// "" if something waits for it.
func (l *Listener) Position() string {
	l.source.mu.Lock()
	defer l.source.mu.Unlock()
	if len(l.pages) > 0 || l.missed > 0 {
		return ""
	}
	return l.source.at
}

// run reads until ctx ends. After a failure it goes on where it was.
func (s *Source) run(ctx context.Context) {
	renewed, warned := time.Now(), time.Time{}
	for wait := pollEvery; pause.For(ctx, wait) == nil; {
		err := s.poll(ctx)
		if err == nil && time.Since(renewed) >= renewEvery {
			if err = s.renew(ctx); err == nil {
				renewed = time.Now()
			}
		}
		wait = pollEvery
		if err != nil && ctx.Err() == nil {
			wait = retryAfter
			if time.Since(warned) >= time.Minute {
				warned = time.Now()
				s.log.WarnContext(ctx, "live clicks cannot be read now", slog.Any("error", err))
			}
		}
	}
}

// poll hands out the clicks that became visible since the last poll.
func (s *Source) poll(ctx context.Context) error {
	s.mu.Lock()
	at := s.at
	s.mu.Unlock()
	page, err := s.read(ctx, queries.PollLiveParams{Since: at, RowLimit: maxClicks})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return nil // another reading may have begun
	}
	s.at = page.ID
	if len(page.Clicks) == 0 {
		return nil
	}
	for l := range s.listeners {
		select {
		case l.pages <- page:
		default:
			l.missed += page.of(l.urlID)
			if l.urlID == 0 {
				l.missed += page.Missed
			}
		}
	}
	return nil
}

// of returns how many clicks of a link, or of all links (0), a page stands for.
func (p *Page) of(urlID int64) (n int64) {
	for i := range p.Clicks {
		if urlID == 0 || p.Clicks[i].URLID == urlID {
			n += 1 + int64(p.Clicks[i].More)
		}
	}
	return n
}

func (s *Source) read(ctx context.Context, params queries.PollLiveParams) (*Page, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	rows, err := queries.New(s.pool).PollLive(ctx, params) // at least one
	if err != nil {
		return nil, err
	}
	page := &Page{ID: rows[0].At}
	for _, r := range rows {
		if r.URLID == 0 {
			continue
		}
		c := Click{
			At: r.OccurredAt.UTC(), URLID: r.URLID, ShortCode: r.ShortCode, Domain: r.Host, Kind: r.Kind,
			Country: r.Country, Referrer: r.ReferrerHost, Device: r.Device, Trigger: r.Trigger, More: r.More,
		}
		if c.text, err = json.Marshal(c); err != nil {
			return nil, err
		}
		page.Clicks = append(page.Clicks, c)
	}
	page.Missed = rows[0].Total - page.of(0)
	slices.SortStableFunc(page.Clicks, func(a, b Click) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.URLID, b.URLID))
	})
	return page, nil
}

// want has workers write clicks for a while.
func (s *Source) want(ctx context.Context) (at string, err error) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	return queries.New(s.pool).WantLive(ctx, interval(lease))
}

func (s *Source) renew(ctx context.Context) error {
	if _, err := s.want(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	_, err := queries.New(s.pool).PruneLiveClicks(ctx, interval(Kept))
	return err
}

func interval(d time.Duration) pgtype.Interval {
	return pgtype.Interval{Microseconds: d.Microseconds(), Valid: true}
}
