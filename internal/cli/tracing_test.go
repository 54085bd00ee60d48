package cli

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/signpost/signpost/internal/pgtest"
)

// receiver is a collector that keeps the spans which it receives.
type receiver struct {
	t   *testing.T
	url string

	mu       sync.Mutex
	spans    []*otlp.Span
	services map[string]bool
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{t: t, services: map[string]bool{}}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var sent collector.ExportTraceServiceRequest
	if err != nil || req.URL.Path != "/v1/traces" || proto.Unmarshal(body, &sent) != nil {
		r.t.Errorf("%s %s: %v: not what a collector takes", req.Method, req.URL, err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, resource := range sent.GetResourceSpans() {
		for _, a := range resource.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				r.services[a.GetValue().GetStringValue()] = true
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			r.spans = append(r.spans, scope.GetSpans()...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// find returns a span with that name for which is returns true, nil if there is none.
func (r *receiver) find(name string, is func(*otlp.Span) bool) *otlp.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if s.GetName() == name && is(s) {
			return s
		}
	}
	return nil
}

// wait returns such a span once it has arrived.
func (r *receiver) wait(s *server, name string, is func(*otlp.Span) bool) (span *otlp.Span) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); span == nil; span = r.find(name, is) {
		if time.Now().After(deadline) {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, got := range r.spans {
				r.t.Logf("%s %x in %x of %x, %d links", got.GetName(), got.GetSpanId(), got.GetParentSpanId(), got.GetTraceId(), len(got.GetLinks()))
			}
			s.t.Fatalf("waited in vain for the span %s", name)
		}
		<-time.After(20 * time.Millisecond)
	}
	return span
}

func childOf(parent *otlp.Span) func(*otlp.Span) bool {
	return func(s *otlp.Span) bool {
		return string(s.GetTraceId()) == string(parent.GetTraceId()) && string(s.GetParentSpanId()) == string(parent.GetSpanId())
	}
}

// TestTraces follows an import and a redirect from the request to the last job, in the
// spans that a collector receives.
func TestTraces(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	s := startTraced(t, r.url)

	// The client began a trace, and everything is part of it, down to the last job.
	const traceID, clientSpan = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	s.call(http.MethodPost, "/imports?kind=users", "text/csv", strings.NewReader("username,email\nada,ada@example.org\n"), s.token, http.StatusAccepted,
		func(r *http.Request) { r.Header.Set("Traceparent", "00-"+traceID+"-"+clientSpan+"-01") })
	upload := r.wait(s, "POST /imports", func(*otlp.Span) bool { return true })
	if hex.EncodeToString(upload.GetTraceId()) != traceID || hex.EncodeToString(upload.GetParentSpanId()) != clientSpan {
		t.Errorf("the upload does not continue the client's trace: %v", upload)
	}
	r.wait(s, "apply_chunk", childOf(upload))

	// A redirect is a trace. The shipping of its click is another one, which continues
	// in the worker.
	s.post("/urls", `{"user_id":1,"short_code":"a","original_url":"https://example.org/a"}`, http.StatusCreated)
	s.redirect("/a")
	redirect := r.wait(s, "GET /:code", func(*otlp.Span) bool { return true })
	ship := r.wait(s, "ship clicks", func(*otlp.Span) bool { return true })
	if len(redirect.GetParentSpanId()) != 0 || len(ship.GetParentSpanId()) != 0 {
		t.Error("the redirect or the shipping has a parent")
	}
	r.wait(s, "record_clicks", childOf(ship))

	// A request that is not authenticated is not traced, whatever its headers say.
	s.get("/urls", "", http.StatusUnauthorized)
	s.stop()
	if got := r.find("GET /urls", func(*otlp.Span) bool { return true }); got != nil {
		t.Errorf("a request without a token was traced: %v", got)
	}
	if !r.services["signpost-dev"] {
		t.Errorf("services: %v", r.services)
	}
}

// TestTracesWithoutACollector checks that only spans are lost if the collector is away.
func TestTracesWithoutACollector(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	s := startTraced(t, gone.URL)
	s.makeLink()
	s.redirect("/a")
	s.within(2*time.Second, "a click is in the totals", func() bool { return s.clicks(1) == 1 })
	s.stop()
}

// startTraced runs everything in one process that sends its spans to a collector.
func startTraced(t *testing.T, collector string) *server {
	t.Helper()
	return startDev(t, filepath.Join(pgtest.Dir(t), "data"),
		"OTEL_EXPORTER_OTLP_ENDPOINT="+collector, "OTEL_BSP_SCHEDULE_DELAY=50", "TRACE_REDIRECTS=1")
}
