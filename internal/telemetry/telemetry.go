// Package telemetry makes a process visible to its operator: it holds the logger, the
// metrics registry and the admin server. Only main uses it; the parts get a logger and
// a registerer.
package telemetry

import (
	"io"
	"log/slog"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// NewLogger returns a logger that writes messages of at least the given level to w, as
// text if format is "text" and as JSON otherwise. In both, times are in UTC and
// durations are text such as "1.5s".
func NewLogger(w io.Writer, level slog.Leveler, format string) *slog.Logger {
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: readable}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

func readable(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindTime:
		a.Value = slog.TimeValue(a.Value.Time().UTC())
	case slog.KindDuration:
		a.Value = slog.StringValue(a.Value.Duration().String()) // JSON would have a bare number of nanoseconds
	}
	return a
}

// NewRegistry returns a registry with the metrics that every process has: those of the
// Go runtime, those of the process itself, and signpost_build_info, which is always 1
// and has version and commit as labels. The parts register their own metrics.
func NewRegistry(version, commit string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "signpost_build_info",
		Help:        "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "commit": commit, "go_version": runtime.Version()},
	})
	build.Set(1)
	r.MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Limit registers a gauge that never changes. It shows a bound of the configuration
// next to the metric that is bounded.
func Limit(r prometheus.Registerer, name, help string, value float64) {
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	gauge.Set(value)
	r.MustRegister(gauge)
}
