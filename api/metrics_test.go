package api

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func BenchmarkObserve(b *testing.B) {
	m := newMetrics(prometheus.NewRegistry())
	observe := func() { m.seriesOf(m.short[0], 3).observe(23 * time.Microsecond) }
	b.Run("serial", func(b *testing.B) {
		for b.Loop() {
			observe()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				observe()
			}
		})
	})
}
