package api

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// However many connections count at once, no count is lost. A time that is equal to a
// bound belongs to the bucket of that bound.
func TestRequestsAreCountedOnAllConnections(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	m, err := newMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	route := m.named("GET", routeShort)
	if m.named("GET", routeShort) != route {
		t.Error("a route has two series")
	}
	var wg sync.WaitGroup
	for connection := range uint64(3 * meters) {
		wg.Go(func() {
			for range 100 {
				m.observe(route, connection, 302, time.Millisecond)
				m.observe(route, connection, 302, time.Millisecond+1)
				m.observe(route, connection, 302, 11*time.Second)
			}
			m.observe(route, connection, 700, -1)
		})
	}
	wg.Wait()
	want := `
# HELP signpost_http_requests_total Requests answered, by route pattern, method and class of status.
# TYPE signpost_http_requests_total counter
signpost_http_requests_total{method="GET",route="/:code",status="3xx"} 7200
signpost_http_requests_total{method="GET",route="/:code",status="other"} 24
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "signpost_http_requests_total"); err != nil {
		t.Error(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for families[at].GetName() != "signpost_http_request_duration_seconds" {
		at++
	}
	h := families[at].GetMetric()[0].GetHistogram()
	if h.GetSampleCount() != 7200 || h.GetSampleSum() < 26404.8 || h.GetSampleSum() > 26404.81 {
		t.Errorf("%d answers took %v s", h.GetSampleCount(), h.GetSampleSum())
	}
	for _, b := range h.GetBucket() {
		want := map[bool]uint64{true: 4800, false: 0}[b.GetUpperBound() > .001]
		if b.GetUpperBound() == .001 {
			want = 2400
		}
		if b.GetCumulativeCount() != want {
			t.Errorf("%d answers took at most %v s, want %d", b.GetCumulativeCount(), b.GetUpperBound(), want)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	s := &routeSeries{route: routeShort, method: "GET"}
	b.Run("serial", func(b *testing.B) {
		id := uint64(1)
		for b.Loop() {
			m.observe(s, id, 302, 23*time.Microsecond)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		var connections atomic.Uint64
		b.RunParallel(func(pb *testing.PB) {
			id := connections.Add(1)
			for pb.Next() {
				m.observe(s, id, 302, 23*time.Microsecond)
			}
		})
	})
}
