package api

// This file bounds what requests may take: places and bytes, shared between tokens
// (quota); connections to the database (bulkheads); the memory of bodies that slow
// clients send or take (held); and how slow they may be (pace).

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/valyala/fasthttp"
)

// A quota is a bounded resource of which requests hold parts until they end: places, or
// bytes of memory. One token can hold at most half of it, and always at least one part,
// so that no client shuts out all others. It may be used concurrently.
type quota struct {
	total, perToken       int64
	errFull, errTokenFull *Error // if no part is left at all, and if none is left for this token
	held                  prometheus.Gauge

	mu      sync.Mutex
	taken   int64
	byToken map[int64]int64
}

func newQuota(total int64, held prometheus.Gauge, errFull, errTokenFull *Error) *quota {
	return &quota{
		total: total, perToken: max(1, total/2), errFull: errFull, errTokenFull: errTokenFull,
		held: held, byToken: map[int64]int64{},
	}
}

// take takes n parts for an actor, or returns an error if there are not enough. give
// gives them back; it may be called more than once.
func (s *quota) take(actor Actor, n int64) (give func(), err error) {
	token := actor.Token()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.taken+n > s.total:
		return nil, s.errFull
	case s.byToken[token]+n > s.perToken:
		return nil, s.errTokenFull
	}
	s.move(token, n)
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.move(token, -n)
	}), nil
}

// move changes the counts. The caller holds the lock.
func (s *quota) move(token, n int64) {
	s.taken += n
	s.held.Set(float64(s.taken))
	if s.byToken[token] += n; s.byToken[token] == 0 {
		delete(s.byToken, token)
	}
}

const (
	// maxRequests bounds the management requests that are being worked on, including
	// those that wait for a connection. It also bounds the memory of their answers.
	maxRequests = 128
	// writeConns is how many connections of the management pool are not available to
	// lists and exports, if the pool is large enough. They are for tokens, for reading
	// single things and for writes, however slow lists and exports are.
	writeConns = 2
	// maxWaitingLists bounds the lists that wait for their turn, and listWait how long each of
	// them waits.
	maxWaitingLists = 32
	listWait        = time.Second
	// listTimeout bounds the query of a list.
	listTimeout = 2 * time.Second
)

var errBusy = unavailable("too many requests of this kind are under way, try again shortly")

// bulkheads divide the management pool, so that one kind of work cannot take the
// connections that another kind waits for.
type bulkheads struct {
	// requests has a place for each request to the management API that is worked on.
	requests *bulkhead
	// lists has one for each query that reads a page of a list.
	lists *bulkhead
	// exports has one for each query that reads a piece of an export, and each piece of a
	// request about many links, which may wait for those who change the same links.
	exports *bulkhead
	// imports has one for each chunk of an upload, each look at an import for those who
	// watch it, and each look at the session of a feed. Such queries are short, and
	// a piece of an export may take longer than they may wait, so they do not wait for
	// exports.
	imports *bulkhead
}

// newBulkheads divides a pool of so many connections. writeConns are left for the rest;
// of the others, lists get half, exports and imports a quarter each, and each of the
// three at least one.
func newBulkheads(registry prometheus.Registerer, conns int) bulkheads {
	rest := conns - writeConns
	return bulkheads{
		requests: newBulkhead(registry, "requests", maxRequests, 0, 0),
		lists:    newBulkhead(registry, "lists", max(1, (rest+1)/2), maxWaitingLists, listWait),
		// The line needs no bound: whatever waits here has a place of exports, uploads or
		// watchers already, and the number of those is bounded; or it is a piece of many
		// links, which waits for a moment only.
		exports: newBulkhead(registry, "exports", max(1, rest/4), unbounded, 0),
		imports: newBulkhead(registry, "imports", max(1, rest/4), unbounded, 0),
	}
}

// unbounded is the length of a line that is never full.
const unbounded = -1

// A bulkhead bounds how much of one kind of work is under way at once. It may be
// used concurrently.
type bulkhead struct {
	places  chan struct{} // one element for each piece of work under way
	line    int64         // most that wait for a place, or unbounded
	wait    time.Duration // how long each waits at most; 0 leaves it to its context
	waiting atomic.Int64
	refused prometheus.Counter
}

func newBulkhead(registry prometheus.Registerer, name string, places int, line int64, wait time.Duration) *bulkhead {
	with := promauto.With(registry)
	kind := prometheus.Labels{"kind": name}
	b := &bulkhead{
		places: make(chan struct{}, places), line: line, wait: wait,
		refused: with.NewCounter(prometheus.CounterOpts{
			Name: "signpost_management_refused_total", ConstLabels: kind,
			Help: "Work that was answered 503 because its bulkhead was full.",
		}),
	}
	gauge := func(name, help string, value func() float64) {
		with.NewGaugeFunc(prometheus.GaugeOpts{Name: "signpost_management_" + name, Help: help, ConstLabels: kind}, value)
	}
	gauge("active", "Work of the management API that is under way, by its bulkhead: requests, and queries of lists, of exports and of imports (uploads, watchers).",
		func() float64 { return float64(len(b.places)) })
	gauge("max_active", "Most of a bulkhead that is under way at once.", func() float64 { return float64(cap(b.places)) })
	gauge("waiting", "Work that waits for a place of its bulkhead.", func() float64 { return float64(b.waiting.Load()) })
	return b
}

// enter takes a place; leave gives it back. If all places and the line for them are
// full, it returns errBusy at once. It also returns errBusy if it waited too long, and
// the error of ctx if that ended first.
func (b *bulkhead) enter(ctx context.Context) (leave func(), err error) {
	select {
	case b.places <- struct{}{}:
		return b.leave, nil
	default:
	}
	defer b.waiting.Add(-1)
	if n := b.waiting.Add(1); b.line != unbounded && n > b.line {
		b.refused.Inc()
		return nil, errBusy
	}
	limited, cancel := ctx, context.CancelFunc(func() {})
	if b.wait > 0 {
		limited, cancel = context.WithTimeoutCause(ctx, b.wait, errBusy)
	}
	defer cancel()
	select {
	case b.places <- struct{}{}:
		return b.leave, nil
	case <-limited.Done():
		err = context.Cause(limited)
		if errors.Is(err, errBusy) {
			b.refused.Inc()
		}
		return nil, err
	}
}

func (b *bulkhead) leave() { <-b.places }

// listing returns the handler of a list or of statistics: it runs list with a place among
// the lists and with the time limit of list queries.
func listing[I, O any](a *API, list func(context.Context, *I) (O, error)) func(context.Context, *I) (O, error) {
	return func(ctx context.Context, in *I) (none O, err error) {
		leave, err := a.bulkheads.lists.enter(ctx)
		if err != nil {
			return none, err
		}
		defer leave()
		ctx, cancel := context.WithTimeout(ctx, listTimeout)
		defer cancel()
		return list(ctx, in)
	}
}

const (
	// heldBytes bounds the memory of all request bodies that are being received and all
	// answers that are being sent. It applies to the management API; uploads, exports
	// and watchers have their own bounds.
	heldBytes = 32 << 20
	// heldLeast is the smallest size of a body that counts. Smaller ones take less
	// memory than the connection itself.
	heldLeast = 8 << 10
	// heldWait is the Retry-After of a request that is refused because heldBytes are in use.
	heldWait = 2 * time.Second
)

var (
	errHeld     = &Error{Status: 503, Message: "the memory for slow clients is in use, try again shortly", RetryAfter: heldWait}
	errHeldHalf = tooMany("the clients of this token are too slow: send and read faster, or ask for less at once", heldWait)
)

// holdAnswer counts an answer until it is sent or its connection is gone, however long
// the client takes. Only a GET can be refused: after a write it is too late for that,
// and the answers of writes that were carried out are small.
func (a *API) holdAnswer(c *fiber.Ctx) error {
	if c.Method() == fiber.MethodGet {
		return a.hold(c)
	}
	r := &c.Context().Response
	if !r.IsBodyStream() && len(r.Body()) > heldLeast {
		r.SetBodyRaw(takeBody(r))
	}
	return nil
}

// hold is holdAnswer for an answer that can be refused.
func (a *API) hold(c *fiber.Ctx) error {
	r := &c.Context().Response
	if r.IsBodyStream() || len(r.Body()) <= heldLeast {
		return nil
	}
	body := takeBody(r)
	give, err := a.held.take(actorOf(c), int64(len(body)))
	if err != nil {
		return err
	}
	boundSendBuffer(c.Context().Conn(), len(body))
	r.SetBodyStream(&heldBody{bytes.NewReader(body), give}, len(body))
	return nil
}

// takeBody takes the body out of an answer, with its buffer, or fasthttp would keep that
// with the connection, even while it is idle.
func takeBody(r *fasthttp.Response) []byte {
	body := r.Body()
	r.SwapBody(nil) // which returns no body that was set raw
	return body
}

// heldBody is an answer that is counted until fasthttp closes it.
type heldBody struct {
	*bytes.Reader
	give func()
}

// Close implements io.Closer.
func (b *heldBody) Close() error {
	b.give()
	return nil
}

// sendBuffer is how many bytes of a large answer the kernel may buffer. By default it
// buffers megabytes for a client that does not read.
const sendBuffer = 64 << 10

// boundSendBuffer bounds the bytes of an answer that wait in the kernel.
func boundSendBuffer(conn net.Conn, size int) {
	if size > sendBuffer {
		setSendBuffer(conn, sendBuffer)
	}
}

func setSendBuffer(conn net.Conn, size int) {
	if tcp, ok := conn.(interface{ SetWriteBuffer(bytes int) error }); ok {
		_ = tcp.SetWriteBuffer(size) // on an error it stays as large as before
	}
}

// clientLimits bound how slow clients may be, and how long a token may be used after it
// has ended.
type clientLimits struct {
	// minRate is how many bytes a second a client has to send of an upload, or take of
	// an export. It is measured as a mean over each window; only time that is spent
	// waiting for the client counts.
	minRate int64
	window  time.Duration
	// recheckToken is how often the token of a long request is checked again.
	recheckToken time.Duration
}

func defaultClientLimits() clientLimits {
	return clientLimits{minRate: 1 << 10, window: time.Minute, recheckToken: 15 * time.Second}
}

// pace measures how fast a client sends or takes bytes. Time in which the client waits
// for us does not count. It must not be used concurrently.
type pace struct {
	limits clientLimits
	bytes  int64
	waited time.Duration
}

// slow adds n bytes and the time that was spent waiting for them. It reports whether a
// window has ended in which there were too few bytes.
func (p *pace) slow(n int, waited time.Duration) bool {
	p.bytes += int64(n)
	if p.waited += waited; p.waited < p.limits.window {
		return false
	}
	slow := float64(p.bytes) < float64(p.limits.minRate)*p.waited.Seconds()
	p.bytes, p.waited = 0, 0
	return slow
}
