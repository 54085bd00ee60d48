package api

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/signpost/signpost/internal/clicks"
)

// maxFollowed bounds the traced redirects that wait for their clicks to be
// shipped. Older ones are forgotten: their spans are there, without a link.
const maxFollowed = 1024

// Traces makes the spans of the API. A nil *Traces makes none and costs nothing.
// It may be used concurrently.
//
// A request that was authenticated is a span, and the parent of the jobs it
// inserts. Of redirects a share is traced. Their clicks travel by the thousand:
// a batch cannot be the child of them all, so the span of the shipping links to
// each traced redirect whose click it ships, and is the parent of the job.
type Traces struct {
	tracer trace.Tracer
	share  uint64 // of 2^32 redirects

	mu       sync.Mutex
	followed []followed // in the order in which they were answered
}

// followed is a traced redirect whose click has not been shipped.
type followed struct {
	at   int64 // the click's time, in microseconds since 1970
	span trace.SpanContext
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
func (t *Traces) redirect(ctx *fasthttp.RequestCtx, s *routeSeries, start time.Time, elapsed time.Duration, status int) {
	if uint64(rand.Uint32()) >= t.share {
		return
	}
	_, span := t.tracer.Start(context.Background(), s.method+" "+s.route,
		trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(start))
	describe(span, s.method, s.route, status)
	if status/100 == 3 && !ctx.IsHead() {
		t.follow(start, span.SpanContext())
	}
	span.End(trace.WithTimestamp(start.Add(elapsed)))
}

// follow remembers a redirect until its click is shipped.
func (t *Traces) follow(at time.Time, span trace.SpanContext) {
	if !span.IsSampled() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.followed) == maxFollowed {
		t.followed = append(t.followed[:0], t.followed[maxFollowed/2:]...)
	}
	t.followed = append(t.followed, followed{at.UnixMicro(), span})
}

// ship starts the span under which batches are brought to Postgres, if there
// are traced redirects among their clicks. done ends it; the redirects are
// forgotten if it went well.
func (t *Traces) ship(ctx context.Context, batches []clicks.Batch) (_ context.Context, done func(error)) {
	redirects := t.among(batches)
	if len(redirects) == 0 {
		return ctx, func(error) {}
	}
	var links []trace.Link
	var ids []string
	for _, r := range redirects {
		links = append(links, trace.Link{SpanContext: r.span})
	}
	for _, b := range batches {
		ids = append(ids, b.ID)
	}
	ctx, span := t.tracer.Start(ctx, "ship clicks", trace.WithSpanKind(trace.SpanKindProducer), trace.WithLinks(links...),
		trace.WithAttributes(attribute.StringSlice("signpost.batches", ids)))
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		} else {
			t.forget(redirects)
		}
		span.End()
	}
}

// among returns the traced redirects whose clicks are in batches. A click is
// known by its time: two of one microsecond are in one batch, or next to it.
func (t *Traces) among(batches []clicks.Batch) (found []followed) {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	waiting := append([]followed(nil), t.followed...)
	t.mu.Unlock()
	if len(waiting) == 0 {
		return nil
	}
	times := map[int64]bool{}
	for _, b := range batches {
		list, err := clicks.DecodeBatch(b.Payload)
		if err != nil {
			continue // the worker tells
		}
		for i := range list {
			times[list[i].At.UnixMicro()] = true
		}
	}
	for _, f := range waiting {
		if times[f.at] {
			found = append(found, f)
		}
	}
	return found
}

func (t *Traces) forget(shipped []followed) {
	gone := map[trace.SpanID]bool{}
	for _, f := range shipped {
		gone[f.span.SpanID()] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var left []followed
	for _, f := range t.followed {
		if !gone[f.span.SpanID()] {
			left = append(left, f)
		}
	}
	t.followed = left
}
