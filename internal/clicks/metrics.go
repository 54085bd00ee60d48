package clicks

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the numbers of a spool. Every label is bounded.
type Metrics struct {
	appended    prometheus.Counter
	dropped     map[string]prometheus.Counter // by DropReasons
	damaged     map[string]prometheus.Counter // by damageReasons
	late        prometheus.Counter
	unwritten   prometheus.Gauge
	sealed      prometheus.Counter
	quarantined prometheus.Counter
	bytes       prometheus.Gauge
	kept        prometheus.Gauge
	segments    prometheus.Gauge
	held        prometheus.Gauge
	reshipped   prometheus.Counter
	foreign     prometheus.Gauge
	// outOfReach counts folders.
	outOfReach prometheus.Gauge
	oldest     atomic.Int64 // microseconds since 1970 of the oldest unshipped click, 0 for none
}

// NewMetrics registers the metrics with reg, once per registry. A nil reg
// gives metrics that are not exported.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		appended: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signpost_clicks_appended_total",
			Help: "Clicks kept in the spool.",
		}),
		late: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signpost_clicks_late_total",
			Help: "Clicks that were kept only after their redirect was answered, because the disk did not answer in time. They count as appended too.",
		}),
		unwritten: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_clicks_unwritten",
			Help: "Clicks whose redirect was answered and that wait in memory for a disk that does not answer. They are kept late, or dropped.",
		}),
		sealed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signpost_spool_segments_sealed_total",
			Help: "Segments sealed, ready to be shipped.",
		}),
		quarantined: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signpost_spool_segments_set_aside_total",
			Help: "Segments without one whole record, quarantined as .bad.",
		}),
		bytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_spool_bytes",
			Help: "Bytes of clicks not yet shipped.",
		}),
		kept: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_spool_kept_bytes",
			Help: "Bytes of shipped segments that are kept for a while.",
		}),
		segments: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_spool_segments",
			Help: "Sealed segments not yet shipped.",
		}),
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_spool_segments_passed_over",
			Help: "Segments that cannot be read or that Postgres refuses, tried again from time to time.",
		}),
		reshipped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signpost_spool_segments_reshipped_total",
			Help: "Kept segments put back in line to be shipped again.",
		}),
		foreign: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_spool_foreign_segments",
			Help: "Segments not shipped, in folders below SPOOL_DIR that belong to another installation and are held.",
		}),
		outOfReach: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_spool_folders_out_of_reach",
			Help: "Folders of this process that were moved where it cannot reach them. Their clicks are not shipped.",
		}),
	}
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "signpost_clicks_dropped_total",
		Help: "Clicks that are lost, by reason. Their redirects were answered.",
	}, []string{"reason"})
	damaged := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "signpost_spool_records_damaged_total",
		Help: "Damaged stretches of records skipped in segments, by reason.",
	}, []string{"reason"})
	// Created now: a counter that starts at 1 hides its first increase.
	m.dropped = countersFor(dropped, DropReasons())
	m.damaged = countersFor(damaged, damageReasons())
	oldest := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "signpost_spool_oldest_unshipped_seconds",
		Help: "Age of the oldest click not yet shipped, 0 when there is none.",
	}, m.oldestSeconds)
	if reg != nil {
		reg.MustRegister(m.appended, m.late, m.unwritten, dropped, damaged, m.sealed, m.quarantined, m.bytes, m.kept, m.segments, m.held, m.reshipped, m.foreign, m.outOfReach, oldest)
	}
	return m
}

func countersFor(vec *prometheus.CounterVec, reasons []string) map[string]prometheus.Counter {
	counters := make(map[string]prometheus.Counter, len(reasons))
	for _, reason := range reasons {
		counters[reason] = vec.WithLabelValues(reason)
	}
	return counters
}

func (m *Metrics) countDamage(damaged map[string]int) {
	for reason, n := range damaged {
		m.damaged[reason].Add(float64(n))
	}
}

func (m *Metrics) oldestSeconds() float64 {
	at := m.oldest.Load()
	if at == 0 {
		return 0
	}
	return max(0, time.Since(time.UnixMicro(at)).Seconds())
}
