package cli

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/redistest"
)

// TestRedisBesideTheRealProgram uses Redis and then kills it: only the metrics show it.
func TestRedisBesideTheRealProgram(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := startDev(t, filepath.Join(pgtest.Dir(t), "data"), "REDIS_URL="+server.URL(), "REDIS_TIMEOUT=1s")
	user := s.post("/users", `{"username":"ada","email":"ada@example.org"}`, http.StatusCreated)
	var links []map[string]any
	for i := range 4 {
		links = append(links, s.post("/urls", fmt.Sprintf(`{"user_id":%v,"original_url":"https://example.org/%d"}`, user["id"], i), http.StatusCreated))
	}
	follow := func(i int) {
		t.Helper()
		if got := s.redirect("/" + links[i]["short_code"].(string)); got != links[i]["original_url"] {
			t.Errorf("link %d leads to %s", i, got)
		}
	}
	s.eventually("Redis is used", func() bool { return strings.Contains(s.metrics(), "\nsignpost_redis_up 1\n") })
	follow(0)
	s.eventually("the link is in Redis", func() bool {
		return strings.Contains(s.metrics(), `signpost_redis_requests_total{op="put",result="stored"}`)
	})
	server.Kill()
	follow(0)
	follow(1)
	s.eventually("the breaker opens", func() bool { return strings.Contains(s.metrics(), "\nsignpost_redis_up 0\n") })
	follow(2)
	if got := s.status("/ready"); got != http.StatusOK {
		t.Errorf("/ready without Redis: %d", got)
	}
	if health := s.getJSON("/health", http.StatusOK); health["db"] != "connected" {
		t.Errorf("/health without Redis: %v", health)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	s.eventually("Redis is used again", func() bool { return strings.Contains(s.metrics(), "\nsignpost_redis_up 1\n") })
	follow(3)
	s.patch(fmt.Sprintf("/urls/%v", links[3]["id"]), `{"is_active":false}`, http.StatusOK)
	if got := s.status("/" + links[3]["short_code"].(string)); got != http.StatusGone {
		t.Errorf("deactivated: %d, want 410", got)
	}
	s.stop()
}

func (s *server) metrics() string {
	s.t.Helper()
	resp, err := http.Get(s.admin + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}
