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
// Each authenticated request is a span, and the parent of the jobs that it inserts. Of
// the redirects only a share is traced, each in a trace of its own: a batch has the
// clicks of thousands of them and cannot be the child of any.
type Traces struct {
	tracer trace.Tracer
	share  uint64 // of 2^32 redirects
}

// NewTraces returns traces that go to provider: of the authenticated requests that its
// sampler selects, and of the given share of redirects, 0 to 1.
func NewTraces(provider trace.TracerProvider, share float64) *Traces {
	return &Traces{
		tracer: provider.Tracer("github.com/signpost/signpost/api"),
		share:  uint64(share * (1 << 32)),
	}
}

type spanKey struct{}

// begin starts the span of an authenticated request, in the trace that its client
// began, if there is one.
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

// redirect makes the span of an answered redirect, if it is selected. The span is never
// part of a trace of the client, because anybody could send one.
func (t *Traces) redirect(r *linkRoute, start time.Time, elapsed time.Duration, status int) {
	if uint64(rand.Uint32()) >= t.share {
		return
	}
	_, span := t.tracer.Start(context.Background(), r.method+" "+r.route,
		trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(start))
	describe(span, r.method, r.route, status)
	span.End(trace.WithTimestamp(start.Add(elapsed)))
}
