package api

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
func newBulkheads(conns int) bulkheads {
	rest := conns - writeConns
	return bulkheads{
		requests: newBulkhead("requests", maxRequests, 0, 0),
		lists:    newBulkhead("lists", max(1, (rest+1)/2), listLine, listWait),
		// The only work that waits here has a place of exports, uploads or watchers,
		// and the number of those places is bounded.
		exports: newBulkhead("exports", max(1, rest/4), unbounded, 0),
		imports: newBulkhead("imports", max(1, rest/4), unbounded, 0),
	}
}

// register makes the metrics of the bulkheads known to registry, if there is one.
func (b bulkheads) register(registry prometheus.Registerer) error {
	if registry == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{b.requests, b.lists, b.exports, b.imports} {
		if err := registry.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
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
	refused atomic.Int64

	active, limit, queued, refusals *prometheus.Desc
}

func newBulkhead(name string, places int, line int64, wait time.Duration) *bulkhead {
	desc := func(metric, help string) *prometheus.Desc {
		return prometheus.NewDesc("signpost_management_"+metric, help, nil, prometheus.Labels{"kind": name})
	}
	return &bulkhead{
		places: make(chan struct{}, places), line: line, wait: wait,
		active:   desc("active", "Work of the management API that is under way, by its bulkhead: requests, and queries of lists, of exports and of imports (uploads, watchers)."),
		limit:    desc("max_active", "Most of a bulkhead that is under way at once."),
		queued:   desc("waiting", "Work that waits for a place of its bulkhead."),
		refusals: desc("refused_total", "Work that was answered 503 because its bulkhead was full."),
	}
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
		b.refused.Add(1)
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
			b.refused.Add(1)
		}
		return nil, err
	}
}

func (b *bulkhead) leave() { <-b.places }

// Describe implements [prometheus.Collector].
func (b *bulkhead) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{b.active, b.limit, b.queued, b.refusals} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (b *bulkhead) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(b.active, prometheus.GaugeValue, float64(len(b.places)))
	ch <- prometheus.MustNewConstMetric(b.limit, prometheus.GaugeValue, float64(cap(b.places)))
	ch <- prometheus.MustNewConstMetric(b.queued, prometheus.GaugeValue, float64(b.waiting.Load()))
	ch <- prometheus.MustNewConstMetric(b.refusals, prometheus.CounterValue, float64(b.refused.Load()))
}

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
