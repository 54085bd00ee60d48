package cli

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/redistest"
)

// TestRestartDuringAnOutage kills an api that has just learned of deactivated links,
// together with Postgres (and Redis), and starts it again without them.
func TestRestartDuringAnOutage(t *testing.T) {
	t.Parallel()
	t.Run("of Postgres", func(t *testing.T) {
		t.Parallel()
		restartDuringAnOutage(t)
	})
	t.Run("of Postgres and Redis", func(t *testing.T) {
		t.Parallel()
		shared := redistest.Start(t)
		restartDuringAnOutage(t, shared)
	})
}

func restartDuringAnOutage(t *testing.T, shared ...*redistest.Server) {
	t.Helper()
	cluster, spool := pgtest.Cluster(t), t.TempDir()
	url := pgtest.Migrated(t, cluster)
	environ := environment(url, spool)
	for _, r := range shared {
		environ = append(environ, "REDIS_URL="+r.URL())
	}
	s := start(t, "api", environ)
	s.untilReady()
	s.post("/users", `{"username":"ada","email":"ada@example.org"}`, http.StatusCreated)
	for _, code := range []string{"kept", "off-elsewhere", "off-here", "uncached"} {
		s.post("/urls", `{"user_id":1,"short_code":"`+code+`","original_url":"https://example.org/`+code+`"}`, http.StatusCreated)
	}
	answered := 0
	follow := func(paths ...string) {
		for _, path := range paths {
			s.redirect(path)
			answered++
		}
	}
	follow("/kept", "/off-elsewhere", "/off-here")
	s.eventually("the cache is on disk", func() bool {
		file, err := os.ReadFile(filepath.Join(spool, "cache-0", "links.snapshot"))
		return err == nil && bytes.Contains(file, []byte("https://example.org/off-here")) &&
			bytes.Contains(file, []byte("https://example.org/kept"))
	})

	db := pgtest.Open(t, url)
	pgtest.Exec(t, db, "UPDATE urls SET is_active = false WHERE short_code = 'off-elsewhere'")
	s.eventually("410 for the link that was deactivated elsewhere", func() bool {
		if s.status("/off-elsewhere") == http.StatusGone {
			return true
		}
		answered++
		return false
	})
	if _, err := db.Exec(t.Context(), "CHECKPOINT"); err != nil { // tests do not wait for the disk
		t.Fatal(err)
	}
	s.patch("/urls/3", `{"is_active":false}`, http.StatusOK)
	s.kill() // at once
	cluster.Kill()
	for _, r := range shared {
		r.Kill()
	}

	s = start(t, "api", environ)
	for range 2 { // the second time with clicks of the outage in the spool
		follow("/kept", "/kept", "/kept")
		if got := s.status("/off-elsewhere"); got != http.StatusGone {
			t.Errorf("the link that was deactivated elsewhere: %d, want 410", got)
		}
		for _, path := range []string{"/off-here", "/uncached"} { // its new state was not loaded
			resp, body := s.do(http.MethodGet, path, "", nil, "")
			if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
				t.Errorf("%s: %d, Retry-After %q: %s", path, resp.StatusCode, resp.Header.Get("Retry-After"), body)
			}
		}
		s.kill()
		s = start(t, "api", environ)
	}

	require.NoError(t, cluster.Start(t.Context()))
	began := time.Now()
	s.untilReady()
	s.eventually("the uncached link", func() bool { return s.status("/uncached") == http.StatusFound })
	answered++
	s.eventually("the clicks are in Postgres", func() bool { return countEvents(t, url, "clicked") >= answered })
	t.Logf("all is shipped %s after Postgres is back", time.Since(began).Round(time.Millisecond))
	if got := s.status("/off-here"); got != http.StatusGone {
		t.Errorf("the link that was deactivated here: %d, want 410", got)
	}
	s.stop()
	if n := countEvents(t, url, "clicked"); n != answered {
		t.Errorf("%d clicks in the end, want the %d that were answered", n, answered)
	}
}
