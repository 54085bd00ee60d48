package api

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

const (
	// maxRequests bounds the management requests that are being worked on, including
	// those that wait for a connection. It also bounds the memory of their answers.
	maxRequests = 128
	// writeConns is how many connections of the management pool are not available to
	// lists and exports, if the pool is large enough. They are for tokens, for reading
	// single things and for writes, however slow lists and exports are.
	writeConns = 2
	// listLine bounds the lists that wait for their turn, and listWait how long each of
	// them waits.
	listLine = 32
	listWait = time.Second
	// listTimeout bounds the query of a list.
	listTimeout = 2 * time.Second
)

var errBusy = unavailable("as much of this is under way as may be at once, try again shortly")

// bulkheads divide the management pool, so that one kind of work cannot take the
// connections that another kind waits for.
type bulkheads struct {
	// requests has a place for each request to the management API that is worked on.
	requests *bulkhead
	// lists has one for each query that reads a page of a list.
	lists *bulkhead
	// exports has one for each query that reads a piece of an export.
	exports *bulkhead
	// imports has one for each chunk of an upload and each look at an import for
	// those who watch it. Such queries are short, and a piece of an export may take
	// longer than they may wait, so they do not wait for exports.
	imports *bulkhead
}

// newBulkheads divides a pool of so many connections. writeConns are left for the rest;
// of the others, lists get half, exports and imports a quarter each, and each of the
// three at least one.
func newBulkheads(registry prometheus.Registerer, conns int) bulkheads {
	rest := conns - writeConns
	return bulkheads{
		requests: newBulkhead(registry, "requests", maxRequests, 0, 0),
		lists:    newBulkhead(registry, "lists", max(1, (rest+1)/2), listLine, listWait),
		// The only work that waits here has a place of exports, uploads or watchers,
		// and the number of those places is bounded.
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

// listing returns the handler of a list: it runs list with a place among the lists and
// with the time limit of list queries.
func listing[I, O any](a *API, list func(context.Context, *I) (*O, error)) func(context.Context, *I) (*O, error) {
	return func(ctx context.Context, in *I) (*O, error) {
		leave, err := a.bulkheads.lists.enter(ctx)
		if err != nil {
			return nil, err
		}
		defer leave()
		ctx, cancel := context.WithTimeout(ctx, listTimeout)
		defer cancel()
		return list(ctx, in)
	}
}
