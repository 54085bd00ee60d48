package cli

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
)

// A scan of a QR code is told from a click in the events, in the statistics and live,
// and the target does not see how it was reached.
func TestScanIsCounted(t *testing.T) {
	t.Parallel()
	s := startDevOn(t, pgtest.URL(t))
	s.makeLink()
	s.patch("/urls/1", `{"forward_query": true}`, http.StatusOK)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/live", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+s.token)
	live, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	defer live.Body.Close() //nolint:errcheck // read-only
	lines := bufio.NewScanner(live.Body)
	next := func(text string) bool {
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return true
			}
		}
		return false
	}
	require.True(t, next("event: ready"))

	assert.Equal(t, "https://example.org/a", s.redirect("/a?qr"))
	assert.True(t, next(`"trigger":"qr"`), "live")
	assert.Equal(t, "https://example.org/a?a=1", s.redirect("/a?a=1"))
	assert.Equal(t, "https://example.org/a?a=1", s.redirect("/a?qr&a=1"))
	s.eventually("the clicks to be in the statistics", func() bool {
		return s.getJSON("/urls/1/stats?range=today", http.StatusOK)["totals"].(map[string]any)["clicks"] == 3.0
	})
	rows := map[any]any{}
	for _, row := range s.getJSON("/urls/1/stats/triggers?range=today", http.StatusOK)["data"].([]any) {
		rows[row.(map[string]any)["value"]] = row.(map[string]any)["clicks"]
	}
	assert.Equal(t, map[any]any{"qr": 2.0, "link": 1.0}, rows)
	var triggers []any
	for _, event := range s.getJSON("/events?event_type=clicked&order=oldest", http.StatusOK)["data"].([]any) {
		triggers = append(triggers, event.(map[string]any)["details"].(map[string]any)["trigger"])
	}
	assert.Equal(t, []any{"qr", "link", "qr"}, triggers)
	live.Body.Close() //nolint:errcheck // read-only
	s.stop()
}
