package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// showClick adds a click as a worker does.
func (b *bundle) showClick(urlID int64, country string) {
	b.t.Helper()
	b.exec(`INSERT INTO live_clicks (occurred_at, url_id, kind, country, referrer_host, device, more)
		VALUES ('2026-02-03 04:05:06Z', $1, 'person', $2, NULL, 'phone', 0)`, urlID, country)
}

func TestLive(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.api.listeners.life, b.api.listeners.beat = time.Minute, 300*time.Millisecond
	first, _ := b.insertLink(testLink{code: "one", target: "https://example.org/"})
	second, _ := b.insertLink(testLink{code: "two", target: "https://example.org/"})
	all, one := b.watch(t, "/live"), b.watch(t, fmt.Sprintf("/urls/%d/live", first))
	assert.Equal(t, "text/event-stream", all.resp.Header.Get("Content-Type"))
	ready, ofOne := all.event(), one.event()
	assert.Equal(t, "ready", ready.name)
	assert.NotEmpty(t, ready.id)
	assert.Equal(t, "ready", ofOne.name)

	b.showClick(second, "DE")
	e := all.click()
	assert.JSONEq(t, fmt.Sprintf(`{"timestamp":"2026-02-03T04:05:06Z","url_id":%d,"short_code":"two","domain":null,"kind":"person",
		"country":"DE","referrer":null,"device":"phone","trigger":"link"}`, second), e.data)
	assert.NotEqual(t, ready.id, e.id)
	b.showClick(first, "AT")
	assert.Contains(t, all.click().data, `"AT"`)
	assert.Contains(t, one.click().data, `"AT"`, "the first click of the other link is not for this listener")

	// While nothing comes, the id moves on.
	beat, ok := one.next()
	for ok && beat.id == "" {
		beat, ok = one.next()
	}
	assert.Empty(t, beat.name)

	// A client that comes back gets what came meanwhile.
	_ = all.resp.Body.Close()
	b.showClick(second, "CH")
	again := b.watch(t, "/live", "Last-Event-ID", e.id)
	assert.Contains(t, again.click().data, `"AT"`)
	assert.Contains(t, again.click().data, `"CH"`)

	b.want(http.StatusNotFound, RoleReader, "GET", "/urls/99/live", nil)
	b.want(http.StatusNotFound, RoleReader, "GET", "/urls/x/live", nil)
	b.want(http.StatusUnauthorized, 0, "GET", "/live", nil)

	_ = one.resp.Body.Close()
	_ = again.resp.Body.Close()
	b.until("nobody listens", func() bool { return b.api.listeners.places.count() == 0 })
}

// click returns the next event that is not ready and no comment.
func (s *sse) click() sseEvent {
	s.t.Helper()
	for {
		if e := s.event(); e.name != "" && e.name != "ready" {
			require.Equal(s.t, "click", e.name, e.data)
			return e
		}
	}
}

// The number of listeners is bounded, and a shutdown ends them.
func TestLiveIsBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.api.listeners.life, b.api.listeners.places.total = time.Minute, 2
	first := b.watch(t, "/live")
	second := b.watch(t, "/live")
	a := b.want(503, RoleAdmin, "GET", "/live", nil)
	assert.True(t, strings.Contains(string(a.raw), "too many"), string(a.raw))
	_ = first.resp.Body.Close()
	b.until("a place is free", func() bool { return b.api.listeners.places.count() == 1 })
	third := b.watch(t, "/live")
	for _, s := range []*sse{second, third} {
		assert.Equal(t, "ready", s.event().name)
	}
	b.api.stop()
	for _, s := range []*sse{second, third} {
		_, ok := s.next()
		assert.False(t, ok, "a stream goes on after the shutdown")
	}
}
