package api

import (
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics counts and times requests by the pattern of their route, never by their path,
// so that the program bounds the labels.
type metrics struct {
	requests          *prometheus.CounterVec
	duration          *prometheus.HistogramVec
	exports, exported *prometheus.CounterVec
	exporting         prometheus.Gauge
	held              prometheus.Gauge
	uploading         prometheus.Gauge
	repeating         prometheus.Gauge
	watching          prometheus.Gauge
	listening         prometheus.Gauge
	oversized         *prometheus.CounterVec
	// short and long are the routes of short links, for GET and HEAD.
	short, long [2]*linkRoute
}

// linkRoute is a route of short links. It keeps its series by the first digit of the
// status, each made when it is first needed, because every redirect pays for them.
type linkRoute struct {
	route, method string
	classes       [len(statusClasses)]atomic.Pointer[series]
}

// series counts and times the answers of one route with one class of status.
type series struct {
	requests prometheus.Counter
	duration prometheus.Observer
}

var statusClasses = [6]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

func classOf(status int) int {
	if class := status / 100; class >= 1 && class < len(statusClasses) {
		return class
	}
	return 0
}

// noRoute is the route of a request that no route matches, of any method.
const noRoute, anyMethod = "none", "any"

func newMetrics(registry prometheus.Registerer) *metrics {
	with := promauto.With(registry)
	labels := []string{"route", "method", "status"}
	m := &metrics{
		requests: with.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_http_requests_total",
			Help: "Requests answered, by route pattern, method and class of status.",
		}, labels),
		duration: with.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "signpost_http_request_duration_seconds",
			Help:    "Time from the first handler to the answer, by route pattern, method and class of status.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, labels),
		exports: with.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_exports_total",
			Help: "Exports that ended, by kind and outcome: completed, left (by the client), cut (the client too slow, or its token ended) or failed.",
		}, []string{"kind", "outcome"}),
		exported: with.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_export_rows_total",
			Help: "Rows written to exports, by kind.",
		}, []string{"kind"}),
		exporting: with.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_exports_active",
			Help: "Exports that are running.",
		}),
		held: with.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_management_held_bytes",
			Help: "Bodies above 8 KiB of requests to the management API that are being received and of answers that are being sent; at most 32 MiB a process.",
		}),
		uploading: with.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_uploads_active",
			Help: "Files to be imported that are being received.",
		}),
		repeating: with.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_upload_repeats_active",
			Help: "Files that came before and are being received again, under the same Idempotency-Key.",
		}),
		watching: with.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_import_streams_active",
			Help: "Clients that follow the progress of an import; at most 100 a process.",
		}),
		listening: with.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_live_streams_active",
			Help: "Clients that listen to clicks; at most 100 a process.",
		}),
		oversized: with.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_oversized_requests_total",
			Help: "Requests whose address and headers are longer than 16 KiB, by the part that is long (address or headers) and who sent it (browser or other).",
		}, []string{"part", "client"}),
	}
	for _, part := range []string{partAddress, partHeaders} { // from the start, so that the first one shows
		m.oversized.WithLabelValues(part, "browser")
		m.oversized.WithLabelValues(part, "other")
	}
	for i, method := range []string{fiber.MethodGet, fiber.MethodHead} {
		m.short[i] = &linkRoute{route: routeShort, method: method}
		m.long[i] = &linkRoute{route: routeLong, method: method}
	}
	// The counters exist from the start, because one that begins at 1 hides its first
	// increase, and there is an objective for the share of failed redirects.
	for _, r := range []*linkRoute{m.short[0], m.long[0]} {
		for _, status := range []int{302, 404, 500} {
			m.seriesOf(r, classOf(status))
		}
	}
	return m
}

func (m *metrics) series(route, method string, class int) *series {
	labels := []string{route, method, statusClasses[class]}
	return &series{m.requests.WithLabelValues(labels...), m.duration.WithLabelValues(labels...)}
}

func (m *metrics) seriesOf(r *linkRoute, class int) *series {
	s := r.classes[class].Load()
	if s == nil {
		s = m.series(r.route, r.method, class)
		r.classes[class].Store(s) // two at once store the same counters
	}
	return s
}

// observe counts one answer.
func (s *series) observe(elapsed time.Duration) {
	s.requests.Inc()
	s.duration.Observe(elapsed.Seconds())
}

// observeRequest counts the answer to a request that came through the router.
func (m *metrics) observeRequest(c *fiber.Ctx, elapsed time.Duration) {
	route, method := noRoute, anyMethod
	if r := c.Route(); r.Name != noRoute {
		route, method = r.Path, r.Method
	}
	m.series(route, method, classOf(c.Context().Response.StatusCode())).observe(elapsed)
}
