package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
)

// TestSlowQueriesDoNotStopRedirects makes as many lists wait for a lock as the process
// has connections. Links that are not cached are looked up all the same, the process
// stays ready, and clicks are shipped.
func TestSlowQueriesDoNotStopRedirects(t *testing.T) {
	t.Parallel()
	const conns = 6
	url := pgtest.URL(t)
	s := launch(t, "api", program(t, environment(url, t.TempDir(), fmt.Sprintf("DB_MAX_CONNS=%d", conns)), "api"))
	pool := pgtest.Open(t, url)
	const links = 50
	pgtest.Exec(t, pool, `
		WITH u AS (INSERT INTO users (username, email) VALUES ('ada', 'ada@example.org') RETURNING id)
		INSERT INTO urls (user_id, short_code, original_url)
		SELECT id, 'unseen' || n, 'https://example.org/' || n FROM u, generate_series(1, $1::int) n`, links)
	lock, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer lock.Rollback(context.Background()) //nolint:errcheck // it gives the lock back
	pgtest.Exec(t, lock, "LOCK TABLE users IN ACCESS EXCLUSIVE MODE")

	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	var refused atomic.Int64
	for range 2 * conns {
		readers.Go(func() {
			for ctx.Err() == nil {
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/users", nil)
				req.Header.Set("Authorization", "Bearer "+s.token)
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					continue // it failed because the test is over
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
					t.Errorf("a list of a locked table: %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
				}
				refused.Add(1)
			}
		})
	}
	defer readers.Wait()
	defer cancel()
	s.eventually("the lists to be in each other's way", func() bool { return refused.Load() > conns })
	for n := range links {
		if got := s.status(fmt.Sprintf("/unseen%d", n+1)); got != http.StatusFound {
			t.Fatalf("link %d, which nobody has asked for yet, while lists hang: %d", n+1, got)
		}
		if got := s.status("/ready"); got != http.StatusOK {
			t.Fatalf("/ready while lists hang: %d", got)
		}
	}
	s.eventually("the clicks to reach Postgres", func() bool { return countEvents(t, url, "clicked") == links })
	cancel()
	readers.Wait()
	require.NoError(t, lock.Rollback(t.Context()))
	s.eventually("lists to work again", func() bool {
		resp, _ := s.do(http.MethodGet, "/users", "", nil, s.token)
		return resp.StatusCode == http.StatusOK
	})
	s.stop()
}
