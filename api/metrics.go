package api

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts and times requests by the pattern of their route, never by their path,
// so that the program bounds the labels. It is a collector of its own because every
// redirect pays for it: an answer costs two additions to counters that few cores share.
// Everything else is computed when the metrics are collected.
type metrics struct {
	requests, duration *prometheus.Desc
	exports, exported  *prometheus.CounterVec
	exporting          prometheus.Gauge
	held               prometheus.Gauge
	uploading          prometheus.Gauge
	repeating          prometheus.Gauge
	watching           prometheus.Gauge
	oversized          *prometheus.CounterVec
	// routes has the series of each route; several routes may share one. all has each
	// series once. Both are read-only after prepare.
	routes map[*fiber.Route]*routeSeries
	all    []*routeSeries
	other  *routeSeries
	// short and long are the routes of short links, for GET and HEAD.
	short, long [2]*routeSeries
}

// routeSeries are the series of one route by the first digit of the status,
// each made when it is first needed, so that an idle process exports few.
type routeSeries struct {
	route, method string
	classes       [len(statusClasses)]atomic.Pointer[series]
}

var statusClasses = [6]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

// bounds are the upper bounds of all buckets but the last, which has none.
var bounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// meters is how many parts a series has: a power of two.
const meters = 8

// series counts the answers of one route with one class of status. Connections
// are spread over its parts, so that cores seldom wait for each other.
type series [meters]meter

type meter struct {
	buckets     [len(bounds) + 1]atomic.Uint64
	nanoseconds atomic.Uint64
	_           [48]byte // keeps the next part off this one's cache lines
}

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	labels := []string{"route", "method", "status"}
	m := &metrics{
		requests: prometheus.NewDesc("signpost_http_requests_total",
			"Requests answered, by route pattern, method and class of status.", labels, nil),
		duration: prometheus.NewDesc("signpost_http_request_duration_seconds",
			"Time from the first handler to the answer, by route pattern, method and class of status.", labels, nil),
		other: &routeSeries{route: "none", method: "any"},
		exports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_exports_total",
			Help: "Exports that ended, by kind and outcome: completed, left (by the client), cut (the client too slow, or its token ended) or failed.",
		}, []string{"kind", "outcome"}),
		exported: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_export_rows_total",
			Help: "Rows written to exports, by kind.",
		}, []string{"kind"}),
		exporting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_exports_active",
			Help: "Exports that are running.",
		}),
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_management_held_bytes",
			Help: "Bodies above 8 KiB of requests to the management API that are being received and of answers that are being sent; at most 32 MiB a process.",
		}),
		uploading: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_uploads_active",
			Help: "Files to be imported that are being received.",
		}),
		repeating: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_upload_repeats_active",
			Help: "Files that came before and are being received again, under the same Idempotency-Key.",
		}),
		watching: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_import_streams_active",
			Help: "Clients that follow the progress of an import; at most 100 a process.",
		}),
	}
	m.oversized = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "signpost_oversized_requests_total",
		Help: "Requests whose address and headers are longer than 16 KiB, by the part that is long (address or headers) and who sent it (browser or other).",
	}, []string{"part", "client"})
	for _, part := range []string{partAddress, partHeaders} { // from the start, so that the first one shows
		m.oversized.WithLabelValues(part, "browser")
		m.oversized.WithLabelValues(part, "other")
	}
	m.all = []*routeSeries{m.other}
	if registry == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m, m.exports, m.exported, m.exporting, m.held, m.uploading, m.repeating, m.watching, m.oversized} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// prepare adds every route of app. The first route of each method is observe itself; it
// is the last match of a request that no other route matches.
func (m *metrics) prepare(app *fiber.App) {
	m.routes = map[*fiber.Route]*routeSeries{}
	for _, stack := range app.Stack() {
		for _, r := range stack[1:] {
			m.routes[r] = m.named(r.Method, r.Path)
		}
	}
	for i, method := range []string{fiber.MethodGet, fiber.MethodHead} {
		m.short[i], m.long[i] = m.named(method, routeShort), m.named(method, routeLong)
	}
	// The counters exist from the start, because one that begins at 1 hides its first
	// increase, and there is an objective for the share of failed redirects.
	for _, r := range []*routeSeries{m.short[0], m.long[0]} {
		for _, status := range []int{302, 404, 500} {
			r.classes[status/100].Store(new(series))
		}
	}
}

// named returns the series of a route, made when it is first asked for.
func (m *metrics) named(method, path string) *routeSeries {
	for _, r := range m.all {
		if r.method == method && r.route == path {
			return r
		}
	}
	r := &routeSeries{route: path, method: method}
	m.all = append(m.all, r)
	return r
}

// of returns the series of the last route that matched.
func (m *metrics) of(r *fiber.Route) *routeSeries {
	if routeSeries := m.routes[r]; routeSeries != nil {
		return routeSeries
	}
	return m.other
}

// observe counts one answer on a connection.
func (m *metrics) observe(routeSeries *routeSeries, connection uint64, status int, elapsed time.Duration) {
	class := status / 100
	if class < 1 || class >= len(statusClasses) {
		class = 0
	}
	s := routeSeries.classes[class].Load()
	if s == nil {
		s = new(series)
		if !routeSeries.classes[class].CompareAndSwap(nil, s) {
			s = routeSeries.classes[class].Load()
		}
	}
	part := &s[connection%meters]
	bucket := 0
	for bucket < len(bounds) && elapsed > bounds[bucket] {
		bucket++
	}
	part.nanoseconds.Add(uint64(max(0, elapsed)))
	part.buckets[bucket].Add(1)
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.requests
	ch <- m.duration
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, r := range m.all {
		for class := range r.classes {
			if s := r.classes[class].Load(); s != nil {
				s.collect(ch, m, r.route, r.method, statusClasses[class])
			}
		}
	}
}

func (s *series) collect(ch chan<- prometheus.Metric, m *metrics, labels ...string) {
	var counts [len(bounds) + 1]uint64
	var nanoseconds uint64
	for i := range s {
		nanoseconds += s[i].nanoseconds.Load()
		for b := range counts {
			counts[b] += s[i].buckets[b].Load()
		}
	}
	var total uint64
	cumulative := make(map[float64]uint64, len(bounds))
	for b, n := range counts {
		total += n
		if b < len(bounds) {
			cumulative[bounds[b].Seconds()] = total
		}
	}
	seconds := time.Duration(nanoseconds).Seconds()
	ch <- prometheus.MustNewConstMetric(m.requests, prometheus.CounterValue, float64(total), labels...)
	ch <- prometheus.MustNewConstHistogram(m.duration, total, seconds, cumulative, labels...)
}
