package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

func TestTracesGoThroughMetadata(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	tracing := NewTracing(provider)
	inserted := func(ctx context.Context, metadata string) string {
		t.Helper()
		p := &rivertype.JobInsertParams{Metadata: []byte(metadata)}
		_, err := tracing.InsertMany(ctx, []*rivertype.JobInsertParams{p}, func(context.Context) ([]*rivertype.JobInsertResult, error) {
			return nil, nil
		})
		require.NoError(t, err)
		return string(p.Metadata)
	}
	ctx, parent := provider.Tracer("test").Start(t.Context(), "request")
	for _, before := range []string{"", "{}", `{"periodic":true}`} {
		if got := inserted(t.Context(), before); got != before {
			t.Errorf("without a trace %q became %q", before, got)
		}
		var after map[string]any
		require.NoError(t, json.Unmarshal([]byte(inserted(ctx, before)), &after))
		if id, _ := after[traceKey].(string); !strings.Contains(id, parent.SpanContext().TraceID().String()) || (before == `{"periodic":true}`) != (after["periodic"] == true) {
			t.Errorf("%q became %v", before, after)
		}
	}
	for _, before := range []string{"[1]", "null"} {
		if got := inserted(ctx, before); got != before {
			t.Errorf("metadata %s, which is no object, became %s", before, got)
		}
	}

	work := func(metadata string, err error) sdktrace.ReadOnlySpan {
		t.Helper()
		var inner trace.SpanContext
		got := tracing.Work(t.Context(), &rivertype.JobRow{Kind: "plan_import", Queue: QueueImports, Metadata: []byte(metadata)},
			func(ctx context.Context) error {
				inner = trace.SpanContextFromContext(ctx)
				return err
			})
		span := spans.Ended()[len(spans.Ended())-1]
		if !errors.Is(got, err) || span.SpanContext().SpanID() != inner.SpanID() || span.Name() != "plan_import" {
			t.Errorf("worked with %v: %v, span %v", err, got, span)
		}
		return span
	}
	if span := work(inserted(ctx, "{}"), nil); span.Parent().SpanID() != parent.SpanContext().SpanID() {
		t.Errorf("the job's span has the parent %v", span.Parent())
	}
	for _, metadata := range []string{"", "{}", "[]", "null", `{"traceparent":7}`, `{"traceparent":"00-nonsense"}`} {
		if span := work(metadata, nil); span.Parent().IsValid() {
			t.Errorf("metadata %q gave the parent %v", metadata, span.Parent())
		}
	}
	if span := work("{}", errors.New("broken")); span.Status().Description != "broken" {
		t.Errorf("a failed job has the status %v", span.Status())
	}
	if span := work("{}", river.JobSnooze(1)); span.Status().Description != "" {
		t.Errorf("a job that is put off has the status %v", span.Status())
	}
}
