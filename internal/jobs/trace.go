package jobs

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traceKey is the key in a job's metadata of the trace that inserted the job, in the
// form of the W3C. It holds only ids, because River indexes metadata.
const traceKey = "traceparent"

// Tracing carries traces through River: a job stores the trace that inserted it, and
// its run continues that trace. It is a middleware both for clients that insert and for
// clients that work. Make it with NewTracing.
type Tracing struct {
	river.MiddlewareDefaults
	tracer trace.Tracer
}

var (
	_ rivertype.JobInsertMiddleware = (*Tracing)(nil)
	_ rivertype.WorkerMiddleware    = (*Tracing)(nil)
)

// NewTracing returns the middleware. Its spans go to provider.
func NewTracing(provider trace.TracerProvider) *Tracing {
	return &Tracing{tracer: provider.Tracer("github.com/signpost/signpost/internal/jobs")}
}

// InsertMany implements [rivertype.JobInsertMiddleware].
func (t *Tracing) InsertMany(ctx context.Context, params []*rivertype.JobInsertParams,
	doInner func(context.Context) ([]*rivertype.JobInsertResult, error),
) ([]*rivertype.JobInsertResult, error) {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	if parent := carrier[traceKey]; parent != "" {
		for _, p := range params {
			p.Metadata = withTrace(p.Metadata, parent)
		}
	}
	return doInner(ctx)
}

// withTrace adds parent to metadata, which is a JSON object. Anything else is returned
// as it is.
func withTrace(metadata []byte, parent string) []byte {
	object := map[string]json.RawMessage{}
	if len(metadata) > 0 && json.Unmarshal(metadata, &object) != nil || object == nil { // nil of null
		return metadata
	}
	quoted, err := json.Marshal(parent)
	if err != nil { // cannot happen
		return metadata
	}
	object[traceKey] = quoted
	if with, err := json.Marshal(object); err == nil {
		return with
	}
	return metadata
}

// Work implements [rivertype.WorkerMiddleware].
func (t *Tracing) Work(ctx context.Context, job *rivertype.JobRow, doInner func(context.Context) error) error {
	var metadata map[string]any
	_ = json.Unmarshal(job.Metadata, &metadata) // a job without a trace starts a new one
	parent, _ := metadata[traceKey].(string)
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceKey: parent})
	ctx, span := t.tracer.Start(ctx, job.Kind, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("messaging.system", "river"),
		attribute.String("messaging.operation.type", "process"),
		attribute.String("messaging.destination.name", job.Queue),
		attribute.Int64("messaging.message.id", job.ID),
		attribute.Int("signpost.job.attempt", job.Attempt),
	))
	defer span.End() // also when the job panics
	err := doInner(ctx)
	var snooze *river.JobSnoozeError
	if err != nil && !errors.As(err, &snooze) {
		span.SetStatus(codes.Error, err.Error())
	}
	return err
}
