package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signpost/signpost/internal/pgtest"
)

// TestRedirectsOutliveAFloodOfConnections holds more silent connections than the
// process may have files open, from more clients than one. The process goes on.
// Meanwhile others are redirected, over old connections and new ones, and their clicks
// are kept and shipped. Afterwards all is as before.
func TestRedirectsOutliveAFloodOfConnections(t *testing.T) {
	t.Parallel()
	const files = 256
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	url := pgtest.URL(t)
	cmd := exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" api`, files), path)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+url, "SPOOL_DIR="+t.TempDir(), "LISTEN_ADDR=127.0.0.1:0",
		"ADMIN_ADDR=127.0.0.1:0", "ADMIN_TOKEN=the-token-of-the-tests", "LOG_FORMAT=json")
	s := launch(t, "api", cmd)
	s.token = "the-token-of-the-tests"
	if !strings.Contains(s.logs.String(), "the limit on open files bounds the connections of clients") {
		t.Error("a low limit on open files is not in the log")
	}
	user := s.post("/users", `{"username":"ada","email":"ada@example.org"}`, http.StatusCreated)
	link := s.post("/urls", fmt.Sprintf(`{"user_id":%v,"original_url":"https://example.org/a"}`, user["id"]), http.StatusCreated)
	code := "/" + link["short_code"].(string)
	s.redirect(code)
	answered := 1

	address := strings.TrimPrefix(s.url, "http://")
	flood := &flood{}
	t.Cleanup(flood.leave)
	for _, clients := range []int{2, 8} { // too many for each client, and in total
		for i := range 2 * files {
			flood.dial(t.Context(), fmt.Sprintf("127.0.0.%d", 10+i%clients), address)
			if i%16 == 0 {
				s.redirect(code)
				answered++
			}
		}
	}
	once := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       time.Minute,
	}
	for range 50 {
		resp, err := once.Get(s.url + code)
		if err != nil {
			t.Fatalf("a new client during the flood: %v", err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusFound {
			t.Fatalf("a new client during the flood: %d", resp.StatusCode)
		}
		answered++
	}
	figures := s.metrics()
	if !strings.Contains(figures, `signpost_clicks_dropped_total{reason="unwritable"} 0`) {
		t.Error("clicks were dropped, or are not counted")
	}
	for _, refused := range []string{
		`signpost_http_connections_refused_total{listener="public",reason="client"} 0`,
		`signpost_http_connections_evicted_total{listener="public"} 0`,
	} {
		if strings.Contains(figures, refused+"\n") {
			t.Errorf("after the flood %s", refused)
		}
	}
	flood.leave()
	s.eventually("clicks to reach Postgres", func() bool { return countEvents(t, url, "clicked") == answered })
	s.getJSON("/urls", http.StatusOK)
	s.stop()
}

// flood is a large number of connections whose clients send nothing.
type flood struct {
	mu    sync.Mutex
	conns []net.Conn
}

// dial opens one more connection. It is no failure if it is refused.
func (f *flood) dial(ctx context.Context, from, to string) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: time.Minute}
	conn, err := dialer.DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, conn)
}

func (f *flood) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, conn := range f.conns {
		_ = conn.Close()
	}
	f.conns = nil
}
