package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A server that goes away makes requests fail. It does not end the measure.
func TestOpenLoopWithoutServer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusFound)
	}))
	defer server.Close()
	gone := server.Listener.Addr().String()
	some := traffic{codes: []string{"a", "b"}, agents: []string{"test"}}
	if l := openLoop(t.Context(), gone, some, 4, 200, 200*time.Millisecond); l.failed > 0 || len(l.all) == 0 {
		t.Fatalf("%d answered, %d failed", len(l.all), l.failed)
	}
	leaves := time.AfterFunc(100*time.Millisecond, server.CloseClientConnections)
	defer leaves.Stop()
	server.Listener.Close() //nolint:errcheck // it goes away
	if l := openLoop(t.Context(), gone, some, 4, 2000, 2*time.Second); l.failed < 3000 {
		t.Errorf("%d answered, %d failed by a server that is not there", len(l.all), l.failed)
	}
}
