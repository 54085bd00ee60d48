package clicks

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
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
	held        prometheus.Gauge
	reshipped   prometheus.Counter
	foreign     prometheus.Gauge
	outOfReach  prometheus.Gauge // folders
	// spool is asked for its backlog whenever the metrics are read, so that they are
	// never older than that. It is nil until there is one.
	spool atomic.Pointer[Spool]
}

// NewMetrics registers the metrics with reg, once per registry. A nil reg
// gives metrics that are not exported.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	with := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return with.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return with.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	byReason := func(name, help string, reasons []string) map[string]prometheus.Counter {
		vec := with.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"reason"})
		counters := make(map[string]prometheus.Counter, len(reasons))
		for _, reason := range reasons { // created now: a counter that starts at 1 hides its first increase
			counters[reason] = vec.WithLabelValues(reason)
		}
		return counters
	}
	m := &Metrics{
		appended: counter("signpost_clicks_appended_total", "Clicks kept in the spool."),
		dropped: byReason("signpost_clicks_dropped_total",
			"Clicks that are lost, by reason. Their redirects were answered.", DropReasons()),
		damaged: byReason("signpost_spool_records_damaged_total",
			"Damaged stretches of records skipped in segments, by reason.", damageReasons()),
		late: counter("signpost_clicks_late_total",
			"Clicks that were kept only after their redirect was answered, because the disk did not answer in time. They count as appended too."),
		unwritten: gauge("signpost_clicks_unwritten",
			"Clicks whose redirect was answered and that wait in memory for a disk that does not answer. They are kept late, or dropped."),
		sealed: counter("signpost_spool_segments_sealed_total", "Segments sealed, ready to be shipped."),
		quarantined: counter("signpost_spool_segments_set_aside_total",
			"Segments without one whole record, quarantined as .bad."),
		held: gauge("signpost_spool_segments_passed_over",
			"Segments that cannot be read or that Postgres refuses, tried again from time to time."),
		reshipped: counter("signpost_spool_segments_reshipped_total", "Kept segments put back in line to be shipped again."),
		foreign: gauge("signpost_spool_foreign_segments",
			"Segments not shipped, in folders below SPOOL_DIR that belong to another installation and are held."),
		outOfReach: gauge("signpost_spool_folders_out_of_reach",
			"Folders of this process that were moved where it cannot reach them. Their clicks are not shipped."),
	}
	for name, gauge := range map[string]struct {
		help  string
		value func(Stats) float64
	}{
		"signpost_spool_bytes":                    {"Bytes of clicks not yet shipped.", func(st Stats) float64 { return float64(st.Bytes) }},
		"signpost_spool_kept_bytes":               {"Bytes of shipped segments that are kept for a while.", func(st Stats) float64 { return float64(st.KeptBytes) }},
		"signpost_spool_segments":                 {"Sealed segments not yet shipped.", func(st Stats) float64 { return float64(st.Segments) }},
		"signpost_spool_oldest_unshipped_seconds": {"Age of the oldest click not yet shipped, 0 when there is none.", Stats.age},
	} {
		with.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: gauge.help}, func() float64 { return gauge.value(m.stats()) })
	}
	return m
}

func (m *Metrics) countDamage(damaged map[string]int) {
	for reason, n := range damaged {
		m.damaged[reason].Add(float64(n))
	}
}

func (m *Metrics) stats() Stats {
	if s := m.spool.Load(); s != nil {
		return s.Stats()
	}
	return Stats{}
}

// age returns the age of the oldest click in seconds.
func (st Stats) age() float64 {
	if st.Oldest.IsZero() {
		return 0
	}
	return max(0, time.Since(st.Oldest).Seconds())
}
