package api

import (
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

func BenchmarkTraceRedirect(b *testing.B) {
	provider := sdktrace.NewTracerProvider()
	route := &linkRoute{route: routeShort, method: "GET"}
	for name, a := range map[string]*API{
		"off":        {},
		"share 0":    {Options: Options{Traces: NewTraces(provider, 0)}},
		"share 0.01": {Options: Options{Traces: NewTraces(provider, 0.01)}},
		"share 1":    {Options: Options{Traces: NewTraces(provider, 1)}},
	} {
		b.Run(name, func(b *testing.B) {
			start := time.Now()
			for b.Loop() {
				if a.Traces != nil {
					a.Traces.redirect(route, start, time.Millisecond, 302)
				}
			}
		})
	}
}
