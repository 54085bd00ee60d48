package api

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts requests by the pattern of their route, never by their path,
// so that the labels are bounded by the program.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	// routes holds the series of each route, found once: the lookup by labels
	// would cost more than the measurement. Read-only after prepare.
	routes map[*fiber.Route]*routeSeries
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

type series struct {
	requests prometheus.Counter
	duration prometheus.Observer
}

var statusClasses = [6]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	labels := []string{"route", "method", "status"}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_http_requests_total",
			Help: "Requests answered, by route pattern, method and class of status.",
		}, labels),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "signpost_http_request_duration_seconds",
			Help:    "Time from the first handler to the answer, by route pattern, method and class of status.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, labels),
	}
	if registry == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.duration} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// prepare makes room for every route of app. The first of each method is
// observe itself, which is what remains matched when no route was.
func (m *metrics) prepare(app *fiber.App) {
	m.other = &routeSeries{route: "none", method: "any"}
	m.routes = map[*fiber.Route]*routeSeries{}
	for _, stack := range app.Stack() {
		for _, r := range stack[1:] {
			m.routes[r] = &routeSeries{route: r.Path, method: r.Method}
		}
	}
	for i, method := range []string{fiber.MethodGet, fiber.MethodHead} {
		m.short[i], m.long[i] = m.named(method, routeShort), m.named(method, routeLong)
	}
}

func (m *metrics) named(method, path string) *routeSeries {
	for _, r := range m.routes {
		if r.method == method && r.route == path {
			return r
		}
	}
	return m.other
}

// of returns the series of the last route that matched.
func (m *metrics) of(r *fiber.Route) *routeSeries {
	if routeSeries := m.routes[r]; routeSeries != nil {
		return routeSeries
	}
	return m.other
}

// observe counts one answer.
func (m *metrics) observe(routeSeries *routeSeries, status int, elapsed time.Duration) {
	class := status / 100
	if class < 1 || class >= len(statusClasses) {
		class = 0
	}
	s := routeSeries.classes[class].Load()
	if s == nil {
		labels := []string{routeSeries.route, routeSeries.method, statusClasses[class]}
		s = &series{m.requests.WithLabelValues(labels...), m.duration.WithLabelValues(labels...)}
		routeSeries.classes[class].Store(s)
	}
	s.requests.Inc()
	s.duration.Observe(elapsed.Seconds())
}
