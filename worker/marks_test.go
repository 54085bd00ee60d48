package worker

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/signpost/signpost/internal/visits"
	"github.com/signpost/signpost/queries"
)

// The next batch follows the marks of an operator, and no marks that are gone.
func TestMarksAreFollowed(t *testing.T) {
	s := setup(t)
	s.exec("INSERT INTO marks (network, kind) VALUES ('8.8.8.0/24', 'monitor')")
	s.exec("INSERT INTO marks (user_agent, kind) VALUES ('CURL/*', 'person')")
	batch := many(3, time.Now().Add(-time.Minute))
	batch[0].UserAgent = chrome
	batch[1].UserAgent, batch[1].IP = "curl/8.5.0", netip.MustParseAddr("192.0.2.1")
	batch[2].IP = netip.MustParseAddr("192.0.2.1")
	s.ship("a-1", batch)
	s.start(nil)
	s.eventually("batch is ingested", s.allIngested)
	assert.Equal(t, "monitor 0 t Chrome, person 1 f curl, person 1 f Chrome",
		s.text("SELECT string_agg(concat_ws(' ', kind, rules, bot, browser), ', ' ORDER BY occurred_at) FROM events"))
	s.wantCounted(3)
}

func TestMarksAreReadAgain(t *testing.T) {
	s := setup(t)
	j, err := newJudge()
	s.ok(err)
	q, now := queries.New(s.pool), time.Now()
	kindAt := func(now time.Time) visits.Kind {
		_, agents, err := j.current(s.ctx, q, now)
		s.ok(err)
		return agents.get("curl/8.5.0").Kind
	}
	assert.Equal(t, visits.Tool, kindAt(now))
	s.exec("INSERT INTO marks (user_agent, kind) VALUES ('curl*', 'monitor')")
	assert.Equal(t, visits.Tool, kindAt(now.Add(marksAge-1)), "they are not read for each batch")
	assert.Equal(t, visits.Monitor, kindAt(now.Add(marksAge)))
	read := j.agents
	assert.Equal(t, visits.Monitor, kindAt(now.Add(2*marksAge)))
	assert.Same(t, read, j.agents, "what was read is kept while the marks are the same")
	s.exec("DELETE FROM marks")
	assert.Equal(t, visits.Tool, kindAt(now.Add(3*marksAge)))
}
