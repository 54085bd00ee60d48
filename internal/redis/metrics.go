package redis

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/rueidis"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(c *Client, r prometheus.Registerer) *metrics {
	with := promauto.With(r)
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "signpost_redis_up", Help: "1 while Redis is used, 0 while it is not connected or the breaker is open.",
	}, func() float64 {
		if c.Up() {
			return 1
		}
		return 0
	})
	return &metrics{
		requests: with.NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_redis_requests_total",
			Help: "Requests to Redis by operation (get, put, probe) and result: hit, miss, stored, done, " +
				"error (Redis refused), timeout, failed (no connection), skipped (the breaker is open) or busy.",
		}, []string{"op", "result"}),
		seconds: with.NewHistogramVec(prometheus.HistogramOpts{
			Name: "signpost_redis_request_seconds", Help: "Time until Redis answered or was given up.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .5},
		}, []string{"op"}),
	}
}

// observe counts a request and its duration. Hits and misses of a successful get are
// counted by the caller.
func (m *metrics) observe(op string, err error, took time.Duration) {
	m.seconds.WithLabelValues(op).Observe(took.Seconds())
	switch {
	case err != nil:
		m.requests.WithLabelValues(op, fault(err)).Inc()
	case op == "probe":
		m.requests.WithLabelValues(op, "done").Inc()
	}
}

func fault(err error) string {
	if _, refused := rueidis.IsRedisErr(err); refused {
		return "error"
	}
	if errors.Is(err, errTimeout) {
		return "timeout"
	}
	return "failed"
}
