package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/listen"
)

func TestNewLogger(t *testing.T) {
	t.Parallel()
	east := time.FixedZone("east", 3600)
	for format, want := range map[string][]string{
		"json": {`"msg":"hello"`, `"took":"1.5s"`, `"at":"2026-01-02T02:04:05Z"`, `"level":"INFO"`},
		"text": {`msg=hello`, `took=1.5s`, `at=2026-01-02T02:04:05.000Z`, `level=INFO`},
	} {
		var out bytes.Buffer
		log := NewLogger(&out, slog.LevelInfo, format)
		log.Debug("quiet")
		log.Info("hello", "took", 1500*time.Millisecond, "at", time.Date(2026, 1, 2, 3, 4, 5, 0, east))
		for _, part := range want {
			if !strings.Contains(out.String(), part) {
				t.Errorf("%s log lacks %s: %s", format, part, out.String())
			}
		}
		if strings.Contains(out.String(), "quiet") {
			t.Errorf("%s log holds a message below its level: %s", format, out.String())
		}
		if format == "json" && !json.Valid(out.Bytes()) {
			t.Errorf("not JSON: %s", out.String())
		}
	}
}

type brokenCollector struct{}

func (brokenCollector) Describe(chan<- *prometheus.Desc) {}
func (brokenCollector) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(prometheus.NewDesc("signpost_broken", "Broken.", nil, nil), errors.New("database is away"))
}

func startAdmin(t *testing.T, ready Ready) *Admin {
	t.Helper()
	registry := NewRegistry("v1.2.3", "abc")
	registry.MustRegister(brokenCollector{})
	log := slog.New(slog.DiscardHandler)
	// In this test, operators send ?token=right.
	operators := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.FormValue("token") != "right" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	mux := http.NewServeMux()
	mux.Handle("GET /health", Health(func(context.Context) map[string]any { return map[string]any{"replicas": 2} }))
	mux.Handle("GET /ready", ready)
	mux.Handle("GET /metrics", Metrics(registry, log))
	mux.Handle("/debug/pprof/", operators(Profiles()))
	a, err := StartAdmin(t.Context(), "127.0.0.1:0", mux, listen.Options{Log: log})
	require.NoError(t, err)
	return a
}

func get(t *testing.T, a *Admin, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.Addr()+path, nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	missing := errors.New("the database is away")
	for _, tt := range []struct {
		name       string
		ready      error
		path       string
		wantStatus int
		want       []string
	}{
		{"health", missing, "/health", 200, []string{`{"replicas":2,"status":"ok"}`}},
		{"ready", nil, "/ready", 200, []string{`{"status":"ready"}`}},
		{"not ready", missing, "/ready", 503, []string{`"error":"not ready: the database is away"`, `"code":503`}},
		{"metrics despite a broken collector", nil, "/metrics", 200, []string{
			`signpost_build_info{commit="abc",go_version="go`, `version="v1.2.3"} 1`, "go_goroutines", "promhttp_metric_handler_errors_total",
		}},
		{"profiles", nil, "/debug/pprof/?token=right", 200, []string{"goroutine"}},
		{"one profile", nil, "/debug/pprof/goroutine?debug=1&token=right", 200, []string{"goroutine profile: total"}},
		{"profiles for anyone", nil, "/debug/pprof/", 401, nil},
		{"one profile for anyone", nil, "/debug/pprof/goroutine?debug=1", 401, nil},
		{"a CPU profile for anyone", nil, "/debug/pprof/profile?seconds=1", 401, nil},
		{"a trace for anyone", nil, "/debug/pprof/trace", 401, nil},
		{"the command line for anyone", nil, "/debug/pprof/cmdline", 401, nil},
		{"symbols for anyone", nil, "/debug/pprof/symbol", 401, nil},
		{"unknown", nil, "/nothing", 404, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := startAdmin(t, func(context.Context) error { return tt.ready })
			status, body := get(t, a, tt.path)
			if status != tt.wantStatus {
				t.Errorf("status = %d, want %d", status, tt.wantStatus)
			}
			for _, want := range tt.want {
				if !strings.Contains(body, want) {
					t.Errorf("body lacks %q: %s", want, body)
				}
			}
			assert.NoError(t, a.Stop(t.Context()), "stop")
		})
	}
}

func TestReadyHasADeadline(t *testing.T) {
	t.Parallel()
	a := startAdmin(t, func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok {
			return errors.New("no deadline")
		}
		return nil
	})
	if status, body := get(t, a, "/ready"); status != http.StatusOK {
		t.Errorf("status = %d: %s", status, body)
	}
	assert.NoError(t, a.Stop(t.Context()))
}

func TestStopWaitsForRequestsAndThenCutsThemOff(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	a := startAdmin(t, func(context.Context) error {
		close(entered)
		<-release
		return nil
	})
	answered := make(chan int, 1)
	go func() {
		resp, err := http.Get("http://" + a.Addr() + "/ready")
		if err != nil {
			answered <- 0
			return
		}
		_ = resp.Body.Close()
		answered <- resp.StatusCode
	}()
	<-entered
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Stop(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("stop with a request under way and no time left: %v", err)
	}
	close(release)
	if status := <-answered; status != 0 {
		t.Errorf("the request was answered with %d after it was cut off", status)
	}
	if conn, err := net.DialTimeout("tcp", a.Addr(), time.Second); err == nil {
		_ = conn.Close()
		t.Error("the port is still open")
	}
}

func TestStartAdminOnATakenPort(t *testing.T) {
	t.Parallel()
	a := startAdmin(t, func(context.Context) error { return nil })
	if status, _ := get(t, a, "/ready"); status != http.StatusOK {
		t.Errorf("ready without a check: status = %d", status)
	}
	if _, err := StartAdmin(t.Context(), a.Addr(), http.NotFoundHandler(), listen.Options{Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a taken port: %v; want that it is in use", err)
	}
	assert.NoError(t, a.Stop(t.Context()))
}

func TestDiskAndLimits(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	Limit(registry, "signpost_bound", "A bound.", 7)
	registry.MustRegister(NewDiskMetrics(t.TempDir()))
	values := gauges(t, registry)
	size, free := values["signpost_spool_disk_size_bytes"], values["signpost_spool_disk_free_bytes"]
	if values["signpost_bound"] != 7 || size <= 0 || free < 0 || free > size {
		t.Errorf("got %v", values)
	}
	gone := prometheus.NewPedanticRegistry()
	gone.MustRegister(NewDiskMetrics("/no/such/folder"))
	if values := gauges(t, gone); len(values) != 0 {
		t.Errorf("a folder that is not there has %v", values)
	}
}

// A file system that hangs holds up no scrape, and takes no second goroutine.
func TestDiskThatHangs(t *testing.T) {
	t.Parallel()
	d := NewDiskMetrics(t.TempDir()).(*disk)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(d)
	before := gauges(t, registry)
	hanging := make(chan struct{})
	d.mu.Lock()
	d.asking = hanging
	d.mu.Unlock()
	if after := gauges(t, registry); after["signpost_spool_disk_size_bytes"] != before["signpost_spool_disk_size_bytes"] {
		t.Errorf("got %v, want the last answer, %v", after, before)
	}
	if d.ask() != hanging {
		t.Error("a file system that hangs was asked again")
	}
}

func gauges(t *testing.T, registry prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, f := range families {
		values[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
	}
	return values
}
