package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
)

func TestSparkline(t *testing.T) {
	t.Parallel()
	tests := []struct {
		counts []int64
		want   string
	}{
		{nil, ""},
		{[]int64{0, 0}, "  "},
		{[]int64{1, 0, 8, 4}, "▁ █▄"},
		{[]int64{1_000_000, 1}, "█▁"},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, sparkline(tt.counts), "%v", tt.counts)
	}
	long := make([]int64, 200)
	long[199] = 5
	assert.Equal(t, strings.Repeat(" ", 66)+"█", sparkline(long), "three buckets share a sign")
}

func TestReadLink(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"spring": " spring", "/spring": " spring", "a/b": " a/b", "17": " 17", "https://sho.rt/spring": "sho.rt spring",
		"https://sho.rt:8443/r/docs": "sho.rt docs", "http://go.example/%E2%98%95/x": "go.example ☕/x",
	} {
		host, code, err := readLink(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, host+" "+code, text)
	}
	for _, text := range []string{"https://sho.rt", "https://sho.rt/", "://x", "https:///x"} {
		_, _, err := readLink(text)
		assert.ErrorContains(t, err, "not a short URL", text)
	}
}

// statsServer answers for the link with the code spring and the one with the id 17.
func statsServer(t *testing.T) (url string, asked *[]string) {
	t.Helper()
	asked = &[]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		*asked = append(*asked, fmt.Sprint(r.URL.Path, " ", q.Get("short_code"), " ", q.Get("domain"), " ", q.Get("tz"), " ", q.Get("kind"), " ", q.Get("top")))
		if q.Get("short_code") != "spring" && r.URL.Path != "/urls/17/stats" {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"error": "there is no such link", "code": 404}`))
			return
		}
		_, _ = w.Write([]byte(`{
			"range": {"from": "2025-03-29T00:00:00+01:00", "to": "2025-04-01T00:00:00+02:00", "tz": "Europe/Berlin", "interval": "day"},
			"totals": {"clicks": 1812, "people": 1640, "robots": 172, "visitors": 512}, "previous": null,
			"series": [{"start": "2025-03-29T00:00:00+01:00", "clicks": 12}, {"start": "2025-03-30T00:00:00+01:00", "clicks": 1800}, {"start": "2025-03-31T00:00:00+02:00", "clicks": 0}],
			"breakdowns": {"countries": [{"value": "DE", "clicks": 1300, "share": 0.717}, {"value": "e\u001b[31mvil", "clicks": 512, "share": 0.283}], "kinds": []},
			"as_of": "2025-04-02T09:00:03Z", "pending": 4, "source": "statistics"}`))
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

func TestStatsCommand(t *testing.T) {
	t.Parallel()
	server, asked := statsServer(t)
	run := func(args ...string) (code int, out string) {
		var stdout, stderr bytes.Buffer
		code = Run(t.Context(), append([]string{"stats", "--server", server, "--token", "x"}, args...), nil, &stdout, &stderr)
		return code, stdout.String() + stderr.String()
	}
	code, out := run("spring", "--tz", "Europe/Berlin", "--filter", "kind=person")
	assert.Zero(t, code)
	assert.Equal(t, `2025-03-29 00:00 to 2025-04-01 00:00 (Europe/Berlin)

clicks  1,812
people  1,640  512 visitors, by day
robots  172

▁█ 
each day, at most 1,800

countries
  DE        1,300  71.7 %
  e[31mvil  512    28.3 %

as of 2025-04-02 11:00:03 CEST; 4 clicks are not in it yet
`, out)
	code, _ = run("https://go.example/spring")
	assert.Zero(t, code)
	code, _ = run("17")
	assert.Zero(t, code)
	assert.Equal(t, []string{"/stats spring  Europe/Berlin person 5", "/stats spring go.example   5", "/stats 17    5", "/urls/17/stats     5"}, *asked)

	code, out = run("autumn")
	assert.Equal(t, 1, code)
	assert.Contains(t, out, "statistics of autumn: there is no such link")
	for _, args := range [][]string{{}, {"https://sho.rt"}, {"spring", "--filter", "person"}} {
		code, _ = run(args...)
		assert.Equal(t, 1, code, args)
	}
}

// A click on a link of the real program is in its statistics, and "signpost stats" shows
// it.
func TestStatsOfRealClicks(t *testing.T) {
	t.Parallel()
	s := startDevOn(t, pgtest.URL(t))
	s.makeLink()
	s.redirect("/a")
	s.redirect("/a")
	s.eventually("the clicks to be in the statistics", func() bool {
		totals := s.getJSON("/stats?range=today&short_code=a", http.StatusOK)["totals"]
		return totals.(map[string]any)["clicks"] == 2.0
	})
	var stdout, stderr bytes.Buffer
	args := []string{"stats", "https://sho.rt/a", "--range", "today"}
	require.Zero(t, Run(t.Context(), args, s.client(), &stdout, &stderr), stderr.String())
	assert.Regexp(t, `(?m)^clicks +2$`, stdout.String())
	assert.Regexp(t, `(?m)^kinds$`, stdout.String())
	body := s.getJSON("/stats/links?range=today", http.StatusOK)
	assert.Equal(t, 1.0, body["count"])
	assert.Equal(t, 0.0, body["pending"])
}
