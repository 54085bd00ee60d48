package api

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Traces makes the spans of the API. A nil *Traces makes none and costs nothing.
// It may be used concurrently.
//
// A request that was authenticated is a span, and the parent of the jobs it
// inserts. Of redirects a share is traced, each by itself: a batch holds the clicks
// of thousands and can be the child of none.
type Traces struct {
	tracer trace.Tracer
	share  uint64 // of 2^32 redirects
}

// NewTraces returns traces that go to provider, of all authenticated requests
// that its sampler takes and of the given share of redirects, 0 to 1.
func NewTraces(provider trace.TracerProvider, share float64) *Traces {
	return &Traces{
		tracer: provider.Tracer("github.com/signpost/signpost/api"),
		share:  uint64(share * (1 << 32)),
	}
}

type spanKey struct{}

// begin starts the span of a request that was authenticated, in the trace that
// its client began, if any.
func (t *Traces) begin(ctx context.Context, c *fiber.Ctx) context.Context {
	if t == nil {
		return ctx
	}
	if header := c.Context().Request.Header.Peek("Traceparent"); len(header) > 0 {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": string(header)})
	}
	ctx, span := t.tracer.Start(ctx, strings.Clone(c.Method()), trace.WithSpanKind(trace.SpanKindServer))
	c.Context().SetUserValue(spanKey{}, span)
	return ctx
}

// end ends the span of a request, if it has one.
func (t *Traces) end(c *fiber.Ctx, status int) {
	if t == nil {
		return
	}
	span, ok := c.Context().UserValue(spanKey{}).(trace.Span)
	if !ok {
		return
	}
	route := strings.Clone(c.Route().Path)
	span.SetName(strings.Clone(c.Method()) + " " + route)
	describe(span, strings.Clone(c.Method()), route, status)
	span.SetAttributes(attribute.String("signpost.request_id", responseID(c)))
	span.End()
}

func describe(span trace.Span, method, route string, status int) {
	span.SetAttributes(
		attribute.String("http.request.method", method),
		attribute.String("http.route", route),
		attribute.Int("http.response.status_code", status),
	)
	if status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, http.StatusText(status))
	}
}

// redirect makes the span of a redirect that has been answered, if it is one of
// the share. It is in no trace of the client's: anybody may send one.
func (t *Traces) redirect(s *routeSeries, start time.Time, elapsed time.Duration, status int) {
	if uint64(rand.Uint32()) >= t.share {
		return
	}
	_, span := t.tracer.Start(context.Background(), s.method+" "+s.route,
		trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(start))
	describe(span, s.method, s.route, status)
	span.End(trace.WithTimestamp(start.Add(elapsed)))
}
