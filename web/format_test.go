package web

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestNumber(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0", 7: "7", 999: "999", 1000: "1\u202f000", 123456: "123\u202f456", 1234567: "1\u202f234\u202f567", -1000: "-1\u202f000", -123: "-123",
		math.MaxInt64: "9\u202f223\u202f372\u202f036\u202f854\u202f775\u202f807",
	} {
		assert.Equal(t, want, number(n))
	}
}

func TestChange(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		now, before int64
		want        string
	}{{5, 0, ""}, {0, 0, ""}, {150, 100, "+50 %"}, {50, 100, "−50 %"}, {100, 100, "±0 %"}, {0, 3, "−100 %"}} {
		assert.Equal(t, c.want, change(c.now, c.before))
	}
}

func TestBarIsAlwaysInItsPicture(t *testing.T) {
	t.Parallel()
	for share, width := range map[float64]string{0: "0.0", 0.5: "50.0", 1: "100.0", 7: "100.0", -1: "0.0", math.Inf(1): "100.0"} {
		assert.Contains(t, string(bar(share)), `width="`+width+`"`)
	}
	assert.Contains(t, string(bar(math.NaN())), `width="0.0"`)
}

func TestLabel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ dimension, value, want string }{
		{"country", "DE", "Germany"},
		{"country", "XX", "XX"},
		{"country", "(none)", "not known"},
		{"referrer", "(none)", "direct or not told"},
		{"browser", "(other)", "all others"},
		{"kind", "bot", "crawlers and robots"},
		{"trigger", "qr", "QR code"},
		{"browser", "Firefox", "Firefox"},
	} {
		assert.Equal(t, c.want, label(c.dimension, c.value))
	}
}

func TestMomentInWords(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 20, 12, 0, 0, 0, time.UTC)
	for ago, want := range map[time.Duration]string{
		0: "now", 4 * time.Second: "now", 59 * time.Second: "59 s ago", time.Minute: "1 min ago", 90 * time.Minute: "1 h ago",
		25 * time.Hour: "1 d ago", 8 * 24 * time.Hour: "12 Mar", 400 * 24 * time.Hour: "13 Feb 2025", -time.Hour: "20 Mar 2026",
	} {
		assert.Equal(t, want, moment{at.Add(-ago), at}.Text(), ago)
	}
	assert.Equal(t, "Fri 20 Mar 2026, 12:00:00 UTC", moment{at, at}.Exact())
}

func TestValues(t *testing.T) {
	t.Parallel()
	v, ok := ParseValues("range=7d&country=DE&empty=")
	assert.True(t, ok)
	assert.Equal(t, "/app?country=DE&range=7d", v.href("/app"))
	assert.Equal(t, "/app?range=24h", v.href("/app", "range", "24h", "country", ""))
	assert.Equal(t, "/app?range=7d", v.only("range", "from").href("/app"))
	assert.Equal(t, "7d", v.Get("range"), "v itself has not changed")
	for _, bad := range []string{"a=%zz", "a=%ff", "a=%00", "%00=a", "a=b&a=%ff"} {
		_, ok := ParseValues(bad)
		assert.False(t, ok, bad)
	}
}
