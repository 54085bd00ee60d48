package cli

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
	require.NoError(t, err)
	url := pgtest.URL(t)
	cmd := exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" api`, files), path)
	cmd.Env = environment(url, t.TempDir())
	s := launch(t, "api", cmd)
	if !strings.Contains(s.logs.String(), "the limit on open files bounds the connections of clients") {
		t.Error("a low limit on open files is not in the log")
	}
	s.makeLink()
	const code = "/a"
	s.redirect(code)
	answered := 1

	address := strings.TrimPrefix(s.url, "http://")
	var flood []net.Conn
	leave := func() {
		for _, conn := range flood {
			_ = conn.Close()
		}
	}
	t.Cleanup(leave)
	for _, clients := range []int{2, 8} { // too many for each client, and in total
		for i := range 2 * files {
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(10+i%clients))}, Timeout: time.Minute}
			if conn, err := dialer.DialContext(t.Context(), "tcp", address); err == nil { // it may be refused
				flood = append(flood, conn)
			}
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
		require.NoError(t, err, "a new client during the flood")
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusFound {
			t.Fatalf("a new client during the flood: %d", resp.StatusCode)
		}
		answered++
	}
	if kept := int(s.metric("signpost_clicks_appended_total")); kept != answered {
		t.Errorf("%d clicks were kept of %d", kept, answered)
	}
	for _, refused := range []string{
		`signpost_http_connections_refused_total{listener="public",reason="client"}`,
		`signpost_http_connections_evicted_total{listener="public"}`,
	} {
		if s.metric(refused) == 0 {
			t.Errorf("after the flood %s is 0", refused)
		}
	}
	leave()
	s.eventually("clicks to reach Postgres", func() bool { return countEvents(t, url, "clicked") == answered })
	s.getJSON("/urls", http.StatusOK)
	s.stop()
}
