package clicks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxGroupBytes bounds the records that wait for the writer.
	maxGroupBytes = 1 << 20
	// maxSegmentBytes and maxSegmentClicks are the size at which a segment stops
	// growing even if there is no next file: a segment is read back in one piece, which
	// must not become too large.
	maxSegmentBytes  = 8 << 20
	maxSegmentClicks = maxBatchClicks - maxGroupBytes/(recordHead+minBody)
	// backlogSegmentBytes is the largest size at which segments are sealed while
	// shipping is behind.
	backlogSegmentBytes = 4 << 20

	openWait     = 2 * time.Second        // Open waits so long for the disk
	retryPause   = 100 * time.Millisecond // between tries to write after an error
	maxSealAge   = 30 * time.Second       // a segment is sealed at this age, whatever the backlog
	smallBacklog = 4                      // segments; below it shipping keeps pace
)

// Options configure a spool. Except for Keep, a field with its zero value has its
// default.
type Options struct {
	// Dir is the folder in which each process makes a folder of its own. Required.
	Dir string
	// MaxBytes bounds the bytes that are not shipped yet; when they reach it, further
	// clicks are dropped. Kept segments are removed first to make room. Default 4 GiB.
	MaxBytes int64
	// Durability is the durability that Append promises. Default Process.
	Durability Durability
	// A segment is sealed when it has SegmentBytes (4 KiB to 4 MiB, default 1 MiB), or
	// SegmentAge after its first click (default 250 ms). Larger and older ones are made
	// while there is a backlog.
	SegmentBytes int
	SegmentAge   time.Duration
	// Keep is how long a shipped segment stays on disk. With 0 the next RemoveExpired
	// removes it.
	Keep time.Duration
	// Installation is the installation that segments are shipped to, if it is known at
	// the start; see ShipTo. With AdoptForeign, folders that name another one are
	// shipped to it too.
	Installation string
	AdoptForeign bool
	// Supposed is the installation that clicks belong to until the other is known: the
	// one whose cached links are served in that time.
	Supposed string
	// AppendTimeout is about how long Append waits for the disk. Default 40 ms, since a
	// redirect waits for it. A test for which a loaded machine is no slow disk waits longer.
	AppendTimeout time.Duration
	// Log defaults to slog.Default().
	Log *slog.Logger
	// Metrics defaults to metrics that are not exported.
	Metrics *Metrics
	// Now is the clock that dates shipped segments. It defaults to time.Now.
	Now func() time.Time
}

func (o Options) withDefaults() (Options, error) {
	o.MaxBytes = cmp.Or(o.MaxBytes, 4<<30)
	o.Durability = cmp.Or(o.Durability, Process)
	o.SegmentBytes = cmp.Or(o.SegmentBytes, 1<<20)
	o.SegmentAge = cmp.Or(o.SegmentAge, 250*time.Millisecond)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	switch {
	case o.Durability != Process && o.Durability != Disk:
		return o, fmt.Errorf("spool: unknown durability %q", o.Durability)
	case o.Dir == "":
		return o, errors.New("spool: no folder given")
	case o.SegmentBytes < 4<<10 || o.SegmentBytes > backlogSegmentBytes:
		return o, fmt.Errorf("spool: segment of %d bytes is not between 4 KiB and 4 MiB", o.SegmentBytes)
	case min(o.MaxBytes, int64(o.SegmentAge), int64(o.Keep)) < 0:
		return o, errors.New("spool: a bound or duration is negative")
	}
	return o, nil
}

// Spool keeps clicks on disk until they are shipped. All methods may be called
// concurrently.
type Spool struct {
	opt      Options
	born     time.Time
	disk     disk
	patience patience
	store    store

	mu            sync.Mutex
	buf           []byte          // records of next, unstamped
	spareBuf      []byte          // the writer's other buffer, when it is not writing
	next          *group          // collects appends
	flight        *group          // is being written; nil when none is
	idle          bool            // the writer waits for wake
	watching      bool            // the watchdog runs
	seals         []chan struct{} // somebody waits for these
	sealRequested bool            // the open segment may be old enough
	refusal       *DropError      // the reason to drop clicks now; nil while they are accepted
	closed        bool
	stuck         bool
	full          bool
	noFile        bool       // the writer has nothing to write into
	noSpare       *DropError // why the sealer has no file for the writer
	failed        *DropError // the error of the last write
	retryAt       time.Time  // when the next write is due after failed
	known         bool       // a report was stored
	told          int64      // a report says that no click before this time will come, Unix microseconds

	wake       chan struct{} // to the writer: end of idle
	watch      chan struct{} // to the watchdog: start of watching
	wakeSealer chan struct{} // to the sealer: check again when to seal
	report     chan struct{} // to the reporter: something was dropped
	sealed     chan struct{} // to the shipper
	spares     chan *openSegment
	filled     chan *openSegment
	quit       chan struct{} // closed by Close: no more appends

	active       atomic.Int64 // bytes in the file being written
	activeSince  atomic.Int64 // when its first click was written, by s.clock, 0 when empty
	activeOldest atomic.Int64 // time of its oldest click, Unix microseconds

	unreported [6]atomic.Int64       // dropped since the last log line, by DropError.number
	news       atomic.Bool           // appends were given up, and that is not logged yet
	trouble    atomic.Pointer[error] // the last error, for the log
	needRoom   atomic.Bool           // the disk is full: kept segments must go
	evictFails bool                  // used by the sealer: removing them failed, and that is logged
	looked     time.Duration         // used by the sealer: when, by clock, it last checked its folder's place

	ready      chan struct{} // closed when the first file is there or could not be made
	writerDone chan struct{}
	sealerDone chan struct{}
	others     sync.WaitGroup // watchdog and reporter
	stopOnce   sync.Once
	stopErr    error
	closeOnce  sync.Once
	closeErr   error
}

// group is the appends that one write makes durable together.
type group struct {
	done     chan struct{} // closed once drop is final
	drop     *DropError
	answered bool // no append waits anymore; drop is final
	counted  bool // its clicks are counted as kept or as dropped
	clicks   int
	oldest   int64 // Unix microseconds
	strikes  int   // ticks of the watchdog it has waited
}

func newGroup() *group { return &group{done: make(chan struct{})} }

// Open starts a spool. It fails only for invalid options. If the disk is in trouble the
// spool starts all the same: it drops clicks, gives the reason in metrics and log, and
// goes on trying. The caller has to close it.
func Open(o Options) (*Spool, error) {
	p := usualPatience
	if o.AppendTimeout > 0 {
		p.strikes = max(1, int(o.AppendTimeout/watchTick))
	}
	return open(o, realDisk(), p)
}

// patience is how long the spool waits for the disk.
type patience struct {
	strikes int           // ticks of the watchdog until an append is given up
	idle    int           // ticks without an append until the watchdog sleeps
	close   time.Duration // until Close gives up
}

// usualPatience gives up an append after 32 to 40 ms (I3).
var usualPatience = patience{strikes: 5, idle: 125, close: 5 * time.Second}

func open(o Options, d disk, p patience) (*Spool, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := newSpool(o, d, p)
	o.Metrics.spool.Store(s)
	go s.writeGroups()
	go s.sealSegments()
	s.others.Go(s.watchGroups)
	s.others.Go(s.reportDrops)
	select {
	case <-s.ready:
	case <-time.After(openWait):
		o.Log.Warn("spool does not answer yet; clicks are dropped until it does", slog.String("dir", o.Dir))
	}
	return s, nil
}

func newSpool(o Options, d disk, p patience) *Spool {
	s := &Spool{
		opt:        o,
		born:       time.Now(),
		patience:   p,
		disk:       d,
		next:       newGroup(),
		wake:       make(chan struct{}, 1),
		watch:      make(chan struct{}, 1),
		wakeSealer: make(chan struct{}, 1),
		report:     make(chan struct{}, 1),
		sealed:     make(chan struct{}, 1),
		spares:     make(chan *openSegment, 1),
		filled:     make(chan *openSegment, 4),
		quit:       make(chan struct{}),
		ready:      make(chan struct{}),
		writerDone: make(chan struct{}),
		sealerDone: make(chan struct{}),
		store: store{
			opt: o, disk: d, home: o.Installation, pauses: pauses{most: maxPauses},
			folders: make(map[string]*folder), taken: make(map[string]bool), waiting: waiting{lots: make(map[string]lot)}, foreign: make(map[string]foreign), foreignLogged: make(map[string]bool),
		},
	}
	s.store.changed = s.changed
	return s
}

// Append keeps the click. The texts of c may share a buffer with the request; they are
// copied before Append returns. If the error is nil, the click is as durable as
// configured. Otherwise the error is a *DropError, and the redirect has to be answered
// all the same. The click is then counted as dropped: at once, or, if the disk did not
// take it in time ("stuck"), when the disk has answered. Until then it is counted as
// unwritten.
func (s *Spool) Append(c *Click) error {
	agent, referrer := Clean(c.UserAgent, MaxUserAgent), Clean(c.Referrer, MaxReferrer)
	s.mu.Lock()
	c = s.inTime(c)
	if drop := s.refuse(); drop != nil {
		if drop == errStuck && s.next.answered && s.room() {
			// No append waits for this group, but the writer still writes it when the
			// disk works again: a late click is better than a lost one.
			s.buf = appendRecord(s.buf, c, agent, referrer)
			s.next.add(c.At.UnixMicro())
			s.opt.Metrics.unwritten.Inc()
			s.mu.Unlock()
			return drop
		}
		s.mu.Unlock()
		s.dropped(drop, 1)
		return drop
	}
	s.buf = appendRecord(s.buf, c, agent, referrer)
	g := s.next
	g.add(c.At.UnixMicro())
	wake, watch := s.idle, !s.watching
	s.idle, s.watching = false, true
	s.mu.Unlock()
	if wake {
		s.wake <- struct{}{} // has room: idle was true, so no other goroutine sent
	}
	if watch {
		s.watch <- struct{}{} // likewise
	}
	<-g.done
	if g.drop != nil {
		return g.drop
	}
	return nil
}

func (g *group) add(at int64) {
	if g.clicks == 0 || at < g.oldest {
		g.oldest = at
	}
	g.clicks++
}

// refuse returns the reason to drop a click now, nil if there is none. s.mu is held.
func (s *Spool) refuse() *DropError {
	if s.refusal != nil && s.refusal == s.failed && !time.Now().Before(s.retryAt) {
		s.failed = nil // let one group try
		s.chooseRefusal()
	}
	if s.refusal == nil && !s.room() {
		return errStuck
	}
	return s.refusal
}

// room reports whether the buffer for the writer has room for another record. s.mu is
// held.
func (s *Spool) room() bool { return len(s.buf) <= maxGroupBytes-maxRecord }

// chooseRefusal sets the refusal from the troubles that there are. s.mu is held.
func (s *Spool) chooseRefusal() {
	switch {
	case s.closed:
		s.refusal = errClosed
	case s.noFile && s.noSpare != nil:
		s.refusal = s.noSpare
	case s.stuck:
		s.refusal = errStuck
	case s.failed != nil:
		s.refusal = s.failed
	case s.full:
		s.refusal = errSpoolFull
	default:
		s.refusal = nil
	}
}

// clock returns the time since the spool was opened. The wall clock cannot serve for
// that: when it is set back, segments would be sealed late.
func (s *Spool) clock() time.Duration { return time.Since(s.born) }

// ageDue returns how long it takes until the open segment is old enough to be sealed,
// and whether there is an open segment.
func (s *Spool) ageDue() (left time.Duration, open bool) {
	since := s.activeSince.Load()
	if since == 0 {
		return 0, false
	}
	_, age := s.wanted()
	return age - (s.clock() - time.Duration(since)), true
}

// dropped counts n dropped clicks and has them logged.
func (s *Spool) dropped(drop *DropError, n int) {
	s.opt.Metrics.dropped[drop.Reason].Add(float64(n))
	s.unreported[drop.number].Add(int64(n))
	notify(s.report)
}

// notify sends to c unless a notification is already waiting there.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// reportDrops logs dropped clicks, at most once in reportPause. It runs in its own
// goroutine, so that a log that blocks blocks nothing else.
func (s *Spool) reportDrops() {
	const reportPause = 5 * time.Second
	for {
		select {
		case <-s.report:
		case <-s.quit:
			s.logDrops()
			return
		}
		s.logDrops()
		select {
		case <-time.After(reportPause):
		case <-s.quit:
		}
	}
}

func (s *Spool) logDrops() {
	if s.news.Swap(false) {
		s.opt.Log.Error("the disk does not answer; clicks wait to be written", slog.Int("clicks", s.unwritten()))
	}
	for i, reason := range DropReasons() {
		n := s.unreported[i].Swap(0)
		if n == 0 {
			continue
		}
		attrs := []any{slog.String("reason", reason), slog.Int64("clicks", n)}
		if err := s.trouble.Load(); err != nil {
			attrs = append(attrs, slog.Any("last_error", *err))
		}
		s.opt.Log.Error("clicks dropped", attrs...)
	}
}

// unwritten counts the clicks that were given up and may still be written.
func (s *Spool) unwritten() (clicks int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range []*group{s.flight, s.next} {
		if g != nil && g.answered && !g.counted {
			clicks += g.clicks
		}
	}
	return clicks
}

// Sealed receives a value when at least one segment has become ready since the
// last receive.
func (s *Spool) Sealed() <-chan struct{} { return s.sealed }

// SealNow seals the clicks appended so far without waiting for size or age. It returns
// when the segment is ready or ctx is done.
func (s *Spool) SealNow(ctx context.Context) error {
	done := make(chan struct{})
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.New("seal spool: it is closed")
	}
	s.seals = append(s.seals, done)
	s.wakeWriter()
	s.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("seal spool: %w", ctx.Err())
	}
}

// wakeWriter wakes the writer if it waits. s.mu is held.
func (s *Spool) wakeWriter() {
	if s.idle {
		s.idle = false
		s.wake <- struct{}{}
	}
}

// Stop finishes waiting appends, seals the open file and stops the goroutines. Later
// appends are dropped with "closed", so that a report is the last word on the spool. If
// the disk hangs, Stop gives up after a few seconds. Later calls return the same result as
// the first.
func (s *Spool) Stop() error {
	s.stopOnce.Do(func() { s.stopErr = s.stop() })
	return s.stopErr
}

func (s *Spool) stop() error {
	s.mu.Lock()
	s.closed = true
	s.chooseRefusal()
	s.wakeWriter()
	s.mu.Unlock()
	close(s.quit)
	err := s.patiently(func() error { return nil })
	if err != nil {
		s.mu.Lock()
		s.lose(s.flight, errStuck)
		s.lose(s.next, errStuck)
		s.mu.Unlock()
		s.logDrops()
	}
	return err
}

// Close stops the spool and releases the folders. If the disk hangs, Close gives up after
// a few seconds. The lock is then held until the disk answers or the process ends,
// because a late write must not happen while another process owns the folder. Later calls
// return the same result as the first.
func (s *Spool) Close() error {
	s.closeOnce.Do(func() {
		if s.closeErr = s.Stop(); s.closeErr == nil {
			s.closeErr = s.patiently(s.store.close)
		} else {
			go s.afterStop(s.store.close) //nolint:errcheck // nobody waits for it
		}
		s.logDrops() // of appends after Stop
	})
	return s.closeErr
}

// afterStop calls do when the goroutines have stopped.
func (s *Spool) afterStop(do func() error) error {
	<-s.writerDone
	<-s.sealerDone
	s.others.Wait()
	return do()
}

// patiently is afterStop, but gives up if the disk hangs. do is then called when it
// answers, if it ever does.
func (s *Spool) patiently(do func() error) error {
	done := make(chan error, 1)
	go func() { done <- s.afterStop(do) }()
	select {
	case err := <-done:
		return err
	case <-time.After(s.patience.close):
		return errors.New("close spool: the disk does not answer")
	}
}

// Stats describes the clicks in a spool.
type Stats struct {
	Segments  int       // sealed, not yet shipped
	Bytes     int64     // not yet shipped, sealed or not
	KeptBytes int64     // shipped, kept for Options.Keep
	Oldest    time.Time // time of the oldest click not yet shipped; zero when there is none
	Refusing  string    // the reason appends are dropped for at this moment, or ""
}

// Stats returns the numbers of the spool. It does not touch the disk.
func (s *Spool) Stats() Stats {
	// The file being written is looked at first: it may join the sealed ones meanwhile,
	// and is then counted twice rather than not at all.
	active := s.active.Load()
	st := s.store.stats()
	st.Bytes += active
	if since := s.activeSince.Load(); since != 0 {
		if at := time.UnixMicro(s.activeOldest.Load()).UTC(); st.Oldest.IsZero() || at.Before(st.Oldest) {
			st.Oldest = at
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refusal != nil {
		st.Refusing = s.refusal.Reason
	}
	return st
}

// changed compares the backlog with its bound after it changed.
func (s *Spool) changed() {
	s.mu.Lock()
	s.checkFull()
	s.mu.Unlock()
	notify(s.wakeSealer)
}

// checkFull compares the backlog with its bound. s.mu is held, so that of two
// concurrent changes the later check sees both.
func (s *Spool) checkFull() {
	s.full = s.store.bytes.Load()+s.active.Load() >= s.opt.MaxBytes
	s.chooseRefusal()
}
