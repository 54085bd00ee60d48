//go:build linux

package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
)

type healthAnswer struct {
	Status   string        `json:"status"`
	DB       string        `json:"db"`
	Replicas int           `json:"replicas"`
	Gone     []goneReplica `json:"replicas_gone"`
	AsOf     time.Time     `json:"as_of"`
}

func (s *server) health() (h healthAnswer) {
	s.t.Helper()
	status, body := s.askAdmin("GET", "/health", "")
	require.Equal(s.t, http.StatusOK, status)
	require.NoError(s.t, json.Unmarshal([]byte(body), &h))
	return h
}

// TestGoneReplica kills an api. It is named as gone until the next one has its folder,
// or until an operator says that the disk is lost.
func TestGoneReplica(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool := pgtest.Open(t, url)
	environ := environment(url, t.TempDir())
	w := start(t, "worker", environ)
	s := start(t, "api", environ)
	s.untilReady()
	s.makeLink()
	s.redirect("/a")
	s.eventually("the click in the totals", func() bool { return s.clicks(1) == 1 })
	healthy := s.health()
	assert.Equal(t, 1, healthy.Replicas)
	assert.Empty(t, healthy.Gone)
	assert.Equal(t, "connected", healthy.DB)
	s.eventually("statistics complete to a later time", func() bool { return s.health().AsOf.After(healthy.AsOf) })

	const age = "UPDATE replicas SET seen_at = seen_at - interval '2 minutes'"
	s.kill()
	pgtest.Exec(t, pool, age)
	gone := w.health()
	require.Len(t, gone.Gone, 1)
	assert.False(t, gone.AsOf.After(gone.Gone[0].CompleteTo), "statistics are complete to %v beyond a gone process", gone.AsOf)

	// The next process on that disk has its clicks.
	s = start(t, "api", environ)
	s.untilReady()
	w.eventually("the folder to be taken over", func() bool { h := w.health(); return h.Replicas == 1 && len(h.Gone) == 0 })
	s.kill()
	pgtest.Exec(t, pool, age)

	id := w.health().Gone[0].ID
	out, err := program(t, environ, "spool", "replicas").CombinedOutput()
	require.NoError(t, err)
	assert.Contains(t, string(out), id)
	assert.Contains(t, string(out), "gone")
	out, err = program(t, environ, "spool", "forget", id).CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Zero(t, w.health().Replicas)
	out, err = program(t, environ, "spool", "forget", id).CombinedOutput()
	require.Error(t, err)
	assert.True(t, strings.Contains(string(out), "is gone"), string(out))

	// A process that stops as it should leaves nothing to be waited for.
	s = start(t, "api", environ)
	s.untilReady()
	require.Equal(t, 1, w.health().Replicas)
	s.stop()
	assert.Zero(t, w.health().Replicas)
	w.stop()
}
