package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

// StartTracing returns a provider that sends spans to an OTLP/HTTP collector. endpoint
// is its base URL, as in OTEL_EXPORTER_OTLP_ENDPOINT. The service is "signpost-" and
// the role, unless OTEL_SERVICE_NAME says otherwise. The other OTEL_ variables of the
// exporter, the sampler and the batches are read from the process's environment too. If
// the collector is away, only spans are lost: a bounded queue drops them. The caller
// calls Shutdown, which sends the spans that are left.
func StartTracing(ctx context.Context, endpoint, role, version string, log *slog.Logger) (*trace.TracerProvider, error) {
	traces, err := url.JoinPath(endpoint, "v1/traces")
	if err != nil {
		return nil, fmt.Errorf("read endpoint: %w", err)
	}
	otel.SetErrorHandler(&traceLog{log: log}) // there is one handler for the whole process
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(traces))
	if err != nil {
		return nil, fmt.Errorf("set up exporter: %w", err)
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "signpost-"+role), attribute.String("service.version", version)),
		resource.WithHost(), resource.WithProcessPID(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describe this process: %w", err)
	}
	return trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(about)), nil
}

// traceLog logs errors of tracing, at most once a minute.
type traceLog struct {
	log  *slog.Logger
	last atomic.Int64 // in nanoseconds since 1970
}

// Handle implements [otel.ErrorHandler].
func (l *traceLog) Handle(err error) {
	now, last := time.Now().UnixNano(), l.last.Load()
	if time.Duration(now-last) >= time.Minute && l.last.CompareAndSwap(last, now) {
		l.log.Warn("traces are incomplete", slog.Any("error", err))
	}
}
