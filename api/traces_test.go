package api

import (
	"errors"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/signpost/signpost/internal/clicks"
)

// What is shipped in vain stays to be linked, what is shipped is not linked
// twice, and other batches link to nothing.
func TestShippingLinksToItsRedirects(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	traces := NewTraces(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)), 1)
	now := time.Now()
	batch := func(id string, times ...time.Time) clicks.Batch {
		var list []clicks.Click
		for _, at := range times {
			list = append(list, clicks.Click{At: at, URLID: 1})
		}
		return clicks.Batch{ID: id, Clicks: len(list), Payload: clicks.EncodeBatch(list)}
	}
	ctx := &fasthttp.RequestCtx{}
	route := &routeSeries{route: routeShort, method: "GET"}
	for i := range 3 {
		traces.redirect(ctx, route, now.Add(time.Duration(i)*time.Second), time.Millisecond, 302)
	}
	traces.redirect(ctx, route, now.Add(time.Minute), time.Millisecond, 404) // has no click

	ship := func(batches []clicks.Batch, err error) (links int) {
		before := len(spans.Ended())
		_, done := traces.ship(t.Context(), batches)
		done(err)
		for _, s := range spans.Ended()[before:] {
			links += len(s.Links())
		}
		return links
	}
	first := []clicks.Batch{batch("a", now.Add(-time.Hour), now), batch("b", now.Add(time.Second))}
	for _, tt := range []struct {
		batches []clicks.Batch
		err     error
		want    int
	}{
		{first, errors.New("Postgres is away"), 2},
		{first, nil, 2},
		{first, nil, 0},
		{[]clicks.Batch{batch("c", now.Add(time.Hour)), {ID: "d", Payload: []byte("no batch")}}, nil, 0},
		{[]clicks.Batch{batch("e", now.Add(2*time.Second), now.Add(time.Minute))}, nil, 1},
	} {
		if got := ship(tt.batches, tt.err); got != tt.want {
			t.Errorf("shipping %s and what follows: %d links, want %d", tt.batches[0].ID, got, tt.want)
		}
	}
	if len(traces.followed) != 0 {
		t.Errorf("%d redirects wait for clicks that were shipped", len(traces.followed))
	}
	for i := range 3 * maxFollowed {
		traces.redirect(ctx, route, now.Add(time.Duration(i)), 0, 302)
		if len(traces.followed) > maxFollowed {
			t.Fatalf("%d redirects wait", len(traces.followed))
		}
	}
}

func BenchmarkTraceRedirect(b *testing.B) {
	provider := sdktrace.NewTracerProvider()
	ctx := &fasthttp.RequestCtx{}
	route := &routeSeries{route: routeShort, method: "GET"}
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
					a.Traces.redirect(ctx, route, start, time.Millisecond, 302)
				}
			}
		})
	}
}
