package drive

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func serve(t *testing.T, status int, body string) (addr string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestMetric(t *testing.T) {
	t.Parallel()
	addr := serve(t, http.StatusOK, `# HELP clicks of people
# TYPE clicks counter
clicks{reason="disk full"} 2
clicks{reason="stuck"} 1.5e+1
clicks_late 7
broken x
`)
	for name, want := range map[string]float64{"clicks": 17, "clicks_late": 7} {
		if got, err := Metric(t.Context(), addr, name); got != want || err != nil {
			t.Errorf("%s is %v, %v, want %v", name, got, err, want)
		}
	}
	for _, name := range []string{"click", "broken", "none"} {
		if got, err := Metric(t.Context(), addr, name); err == nil {
			t.Errorf("%s is %v", name, got)
		}
	}
	samples, err := Samples(t.Context(), addr, "clicks")
	if err != nil || len(samples) != 2 || samples[`{reason="disk full"}`] != 2 {
		t.Errorf("samples %v, %v", samples, err)
	}
}

func TestNoMetrics(t *testing.T) {
	t.Parallel()
	free, err := FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{free, serve(t, http.StatusServiceUnavailable, "clicks 1\n"), "not an address"} {
		if got, err := Metric(t.Context(), addr, "clicks"); err == nil {
			t.Errorf("%s says %v", addr, got)
		}
	}
}

func TestFreeAddr(t *testing.T) {
	t.Parallel()
	addr, err := FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	if host, _, err := net.SplitHostPort(addr); err != nil || host != "127.0.0.1" {
		t.Errorf("address %q, %v", addr, err)
	}
}
