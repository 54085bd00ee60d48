package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/client"
)

func TestParseEnd(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2030-01-31T12:00:00+01:00": time.Date(2030, 1, 31, 11, 0, 0, 0, time.UTC),
		"2030-01-31":                time.Date(2030, 1, 31, 0, 0, 0, 0, time.Local),
		"90d":                       now.Add(90 * 24 * time.Hour),
		"36h":                       now.Add(36 * time.Hour),
	} {
		at, err := parseEnd(text, now)
		require.NoError(t, err, text)
		assert.True(t, want.Equal(*at), "%s: %v", text, at)
	}
	at, err := parseEnd("never", now)
	require.NoError(t, err)
	assert.Nil(t, at)
	for _, text := range []string{"soon", "-1h", "2030-13-01", "0d", "12:00"} {
		_, err := parseEnd(text, now)
		assert.ErrorContains(t, err, "--expires", text)
	}
}

// On a terminal, a list has a header and columns, and nothing in it can act on the
// terminal.
func TestLinksTable(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	over, title := now.Add(-time.Hour), "A\ttitle \x1b[31mof red"
	list := []client.Link{
		{ShortURL: "https://sho.rt/a", OriginalURL: "https://example.org/" + strings.Repeat("x", 60), Clicks: 1234, People: 1000, IsActive: true, Tags: []string{"a", "b"}, Title: &title},
		{ShortURL: "https://sho.rt/spring", OriginalURL: "https://example.org/", IsActive: true, ExpiresAt: &over, CreatedAt: now},
		{ShortURL: "https://sho.rt/off", OriginalURL: "https://example.org/"},
	}
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	terminal := &table{w, w.Flush, true}
	terminal.header("SHORT URL", "TARGET")
	for _, l := range list {
		require.NoError(t, listLink(terminal, l, now))
	}
	require.NoError(t, terminal.flush())
	lines := strings.Split(out.String(), "\n")
	assert.Regexp(t, `^SHORT URL +TARGET`, lines[0])
	assert.Regexp(t, `^https://sho\.rt/a +https://example\.org/x{29}… +1,234 +1,000 +on +0001-01-01 .*a,b +A title \[31mof red$`, lines[1])
	assert.Contains(t, lines[2], "ended")
	assert.Contains(t, lines[3], "off")
	assert.Equal(t, strings.Index(lines[1], "https://example"), strings.Index(lines[2], "https://example"))

	out.Reset()
	pipe := newTable(&out)
	pipe.header("SHORT URL", "TARGET")
	require.NoError(t, listLink(pipe, list[0], now))
	require.NoError(t, pipe.flush())
	assert.Equal(t, "https://sho.rt/a\t"+list[0].OriginalURL+"\t1234\t1000\ton\t0001-01-01T00:00:00Z\ta,b\tA title [31mof red\n", out.String())
}

// A server of an earlier release, which ignores the code and lists other links, has none
// of them changed.
func TestLinksOfAnOlderServer(t *testing.T) {
	t.Parallel()
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.Path)
		_, _ = fmt.Fprint(w, `{"data": [{"id": 1, "short_code": "other"}], "count": 1, "next_cursor": null}`)
	}))
	t.Cleanup(server.Close)
	environ := []string{"SIGNPOST_URL=" + server.URL, "SIGNPOST_TOKEN=x"}
	runs(t, environ, exitNoLink, "no such link", "links", "delete", "spring", "--yes")
	assert.Equal(t, []string{"GET /urls"}, asked)
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"bash", "zsh", "fish"} {
		runs(t, nil, 0, "signpost", "completion", name)
	}
	runs(t, nil, 0, "create", "__complete", "links", "")
}

func TestLinksOfWhom(t *testing.T) {
	t.Parallel()
	runs(t, []string{"SIGNPOST_USER=ada"}, 1, "SIGNPOST_USER must be", "links", "create", "https://example.org/", "--server", "http://127.0.0.1:1", "--token", "x")
	runs(t, []string{"SIGNPOST_USER=7"}, 1, "cannot be reached", "links", "create", "https://example.org/", "--server", "http://127.0.0.1:1", "--token", "x")
}

func TestCopyWithoutClipboard(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	assert.ErrorContains(t, copyText(t.Context(), nil, &out, "x"), "--copy needs")
	assert.Empty(t, out.String())
}
