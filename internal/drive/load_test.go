package drive

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A server that goes away makes requests fail, but the measurement goes on.
func TestOpenLoopWithoutServer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusFound)
	}))
	defer server.Close()
	gone := server.Listener.Addr().String()
	some := Traffic{Codes: []string{"a", "b"}, Agents: []string{"test"}}
	if l := OpenLoop(t.Context(), gone, some, 4, 200, 200*time.Millisecond); l.Failed() > 0 || len(l.All) == 0 {
		t.Fatalf("%d answered, %d failed", len(l.All), l.Failed())
	}
	leaves := time.AfterFunc(100*time.Millisecond, server.CloseClientConnections)
	defer leaves.Stop()
	server.Listener.Close() //nolint:errcheck // it goes away
	if l := OpenLoop(t.Context(), gone, some, 4, 2000, 2*time.Second); l.Failed() < 3000 {
		t.Errorf("%d answered, %d failed by a server that is not there", len(l.All), l.Failed())
	}
}

// A connection goes on after answers of every kind, and codes in turn are requested
// once each.
func TestOpenLoopKeepsConnections(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	asked, conns := map[string]int{}, map[string]bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked[r.URL.Path]++
		conns[r.RemoteAddr] = true
		if r.Header.Get("X-Test") != "yes" {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = io.WriteString(w, "some text")
		if len(asked)%2 == 0 {
			w.(http.Flusher).Flush() // makes the answer come in chunks
		}
	}))
	defer server.Close()
	some := Traffic{
		Path: "/files/", Agents: []string{"test"}, Turn: new(atomic.Int64), Headers: "X-Test: yes\r\n",
		Status: http.StatusOK, From: "127.0.0.1", PerConn: 10,
	}
	for n := range 1000 {
		some.Codes = append(some.Codes, strconv.Itoa(n))
	}
	l := OpenLoop(t.Context(), server.Listener.Addr().String(), some, 2, 200, 300*time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	if l.Failed() > 0 || len(l.All) != len(asked) || len(l.All) < 10 {
		t.Errorf("%d answered, failed %v, %d paths asked for", len(l.All), l.Failures, len(asked))
	}
	if most := len(l.All)/some.PerConn + 2; len(conns) > most {
		t.Errorf("%d connections for %d requests, want at most %d", len(conns), len(l.All), most)
	}
	if l.Percentile(50) <= 0 || l.Percentile(99) < l.Percentile(50) {
		t.Errorf("p50 %s, p99 %s", l.Percentile(50), l.Percentile(99))
	}
}
