package worker

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/clicks"
)

// Clicks are written for listeners only while somebody listens, and no more of one link
// than anybody can read.
func TestShowLive(t *testing.T) {
	s := setup(t)
	s.start(nil)
	ingested := func(n int64) {
		s.eventually("the batch is ingested", func() bool {
			return s.int("SELECT count(*) FROM click_batches WHERE ingested_at IS NOT NULL") == n
		})
	}
	at := time.Now().UTC().Truncate(time.Microsecond)
	hot := make([]clicks.Click, livePerLink+5)
	for i := range hot {
		hot[i] = clicks.Click{At: at, URLID: 7, UserID: 1, UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", Referrer: "https://news.example/a"}
	}
	list := slices.Concat(hot, []clicks.Click{{At: at, URLID: 8, UserID: 1, Trigger: clicks.TriggerQR}})
	s.ship("a-1", list)
	ingested(1)
	assert.Zero(t, s.int("SELECT count(*) FROM live_clicks"), "nobody listens")

	s.exec("UPDATE live_wanted SET until = now() + interval '1 minute'")
	s.ship("a-2", list)
	ingested(2)
	var shown, more int
	var kind, host, device string
	require.NoError(t, s.pool.QueryRow(s.ctx, `SELECT count(*), sum(more), min(kind), min(referrer_host), min(device)
		FROM live_clicks WHERE url_id = 7 AND occurred_at = $1`, at).Scan(&shown, &more, &kind, &host, &device))
	assert.Equal(t, livePerLink, shown)
	assert.Equal(t, 5, more)
	assert.Equal(t, []string{"person", "news.example", "desktop"}, []string{kind, host, device})
	require.NoError(t, s.pool.QueryRow(s.ctx, "SELECT kind || ' ' || trigger FROM live_clicks WHERE url_id = 8").Scan(&kind))
	assert.Equal(t, "empty qr", kind)
	assert.Zero(t, s.int("SELECT count(*) FROM live_clicks WHERE url_id = 7 AND trigger IS NOT NULL"))
}
