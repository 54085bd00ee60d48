package worker

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/signpost/signpost/internal/rollup"
)

// A pace that was too much becomes less and less, and then as much as before.
func TestPaceOfMerging(t *testing.T) {
	t.Parallel()
	now, tooSlow := time.Now(), errors.New("too slow")
	p := firstPace()
	for range 40 {
		p = p.after(nil, now)
	}
	assert.Equal(t, pace{clicks: rollup.MaxClicks, recounts: rollup.MaxRecounts}, p)
	assert.False(t, p.resting(now))

	p = p.after(tooSlow, now)
	assert.Equal(t, pace{rollup.MaxClicks / 2, rollup.MaxRecounts / 2, now.Add(recountRest)}, p)
	assert.True(t, p.resting(now))
	assert.Equal(t, pace{rollup.MaxClicks, rollup.MaxRecounts / 2, p.rest}, p.after(nil, now), "nothing was counted again")
	for range 40 {
		p = p.after(tooSlow, now)
	}
	assert.Equal(t, pace{1, 1, now.Add(recountRest)}, p)
	now = now.Add(recountRest)
	assert.False(t, p.resting(now))
	assert.Equal(t, pace{2, 2, now}, p.after(nil, now))
}

// A worker adds up the totals by which lists are sorted as soon as it has started.
func TestFirstTotals(t *testing.T) {
	s := setup(t)
	s.wantInt(0, "SELECT count(*) FROM installation WHERE totals_at > '2000-01-01'")
	s.start(nil)
	s.eventually("totals are added up", func() bool { return s.int("SELECT count(*) FROM installation WHERE totals_at > '2000-01-01'") == 1 })
}
