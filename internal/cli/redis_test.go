package cli

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

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
	s.eventually("Redis is used", func() bool { return s.metric("signpost_redis_up") == 1 })
	follow(0)
	s.eventually("the link is in Redis", func() bool { return s.metric(`signpost_redis_requests_total{op="put",result="stored"}`) > 0 })
	server.Kill()
	follow(0)
	follow(1)
	s.eventually("the breaker opens", func() bool { return s.metric("signpost_redis_up") == 0 })
	follow(2)
	if got := s.status("/ready"); got != http.StatusOK {
		t.Errorf("/ready without Redis: %d", got)
	}
	if health := s.getJSON("/health", http.StatusOK); health["db"] != "connected" {
		t.Errorf("/health without Redis: %v", health)
	}
	require.NoError(t, server.Start())
	s.eventually("Redis is used again", func() bool { return s.metric("signpost_redis_up") == 1 })
	follow(3)
	s.patch(fmt.Sprintf("/urls/%v", links[3]["id"]), `{"is_active":false}`, http.StatusOK)
	if got := s.status("/" + links[3]["short_code"].(string)); got != http.StatusGone {
		t.Errorf("deactivated: %d, want 410", got)
	}
	s.stop()
}
