package drive

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
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
`)
	for name, want := range map[string]float64{"clicks": 17, "clicks_late": 7, `clicks{reason="disk full"}`: 2} {
		if got, err := Metric(t.Context(), addr, name); got != want || err != nil {
			t.Errorf("%s is %v, %v, want %v", name, got, err, want)
		}
	}
	if got, err := Metric(t.Context(), addr, "click"); err == nil {
		t.Errorf("click is %v", got)
	}
}

func TestNoMetrics(t *testing.T) {
	t.Parallel()
	free, err := FreeAddr()
	require.NoError(t, err)
	for _, addr := range []string{free, serve(t, http.StatusServiceUnavailable, "clicks 1\n"), serve(t, http.StatusOK, "clicks x\n"), "not an address"} {
		if got, err := Metric(t.Context(), addr, "clicks"); err == nil {
			t.Errorf("%s says %v", addr, got)
		}
	}
}

// The clicks that a process dropped before it was killed count, and so do those it had not
// written by then.
func TestDrops(t *testing.T) {
	t.Parallel()
	text := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "signpost_clicks_dropped_total{reason=\"stuck\"} "+<-text)
	}))
	defer s.Close()
	var d Drops
	for _, step := range []struct {
		says        string
		more, total float64
	}{
		{"0\nsignpost_clicks_unwritten 0\nprocess_start_time_seconds 1", 0, 0},
		{"3\nsignpost_clicks_unwritten 5\nprocess_start_time_seconds 1", 3, 8},
		{"4\nsignpost_clicks_unwritten 2\nprocess_start_time_seconds 1", 1, 6},
		{"1\nsignpost_clicks_unwritten 0\nprocess_start_time_seconds 2", 1, 7},
		{"no answer", 0, 7},
	} {
		text <- step.says
		if more := d.Ask(t.Context(), strings.TrimPrefix(s.URL, "http://")); more != step.more || d.Total() != step.total {
			t.Errorf("%q: %v more, %v in all, want %v and %v", step.says, more, d.Total(), step.more, step.total)
		}
	}
	text <- "0\nsignpost_clicks_unwritten 9\nprocess_start_time_seconds 3"
	d.Ask(t.Context(), strings.TrimPrefix(s.URL, "http://"))
	d.Stopped(strings.TrimPrefix(s.URL, "http://"))
	if d.Total() != 7 {
		t.Errorf("after a stop: %v in all, want 7", d.Total())
	}
}
