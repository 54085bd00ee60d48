package worker

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/visits"
	"github.com/signpost/signpost/queries"
)

// reclassify judges all clicks anew and returns what became of it.
func (s *site) reclassify(dryRun bool) queries.Reclassification {
	s.Helper()
	id, err := StartReclassification(s.ctx, s.pool, s.river, Reclassification{From: time.Unix(0, 0), To: time.Now(), DryRun: dryRun})
	s.ok(err)
	return s.reclassified(id)
}

func (s *site) reclassified(id int64) queries.Reclassification {
	s.Helper()
	var run queries.Reclassification
	s.eventually("the clicks are judged", func() bool {
		var err error
		run, err = queries.New(s.pool).GetReclassification(s.ctx, id)
		s.ok(err)
		return run.FinishedAt != nil
	})
	return run
}

// kinds lists the events by time.
func (s *site) kinds() string {
	s.Helper()
	return s.text(`SELECT string_agg(concat_ws(' ', coalesce(kind, '-'), bot, coalesce(browser, '-'), coalesce(device, '-'),
		coalesce(firsts::text, '-')), ', ' ORDER BY occurred_at, id) FROM events`)
}

// The clicks that an operator's marks or newer rules judge otherwise change, with their
// statistics and visitors. Clicks of which too little is known stay, and so does what a
// file or a marked network says.
func TestReclassify(t *testing.T) {
	for name, day := range map[string]int{"a day whose visitors are known": -1, "a day whose visitors are forgotten": -40} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			at := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, day).Add(12 * time.Hour)
			s.exec("INSERT INTO marks (network, kind) VALUES ('203.0.113.0/24', 'monitor')")
			var batch []clicks.Click
			for i, agent := range []string{chrome, iphone, "curl/8.5.0", "curl/8.5.0", "curl/8.5.0", chrome, chrome, chrome, ""} {
				c := by(1, int64(1+i%2), at.Add(time.Duration(i)*time.Second))
				c.UserAgent = agent
				batch = append(batch, c)
			}
			batch[5].Prefetch = true
			batch[6].Private = true
			batch[7].IP = netip.MustParseAddr("203.0.113.7")
			s.ship("a-1", batch)
			w := s.start(nil, func(d *deps) { d.judgePiece = 2 })
			s.eventually("batch is ingested", s.allIngested)
			// Two of the previous release, and two that were imported.
			s.exec(`INSERT INTO events (occurred_at, url_id, user_id, event_type, bot, browser, device, import_id, kind) VALUES
				($1, 1, 7, 'clicked', true, 'WhatsApp', 'bot', NULL, NULL), ($1, 1, 7, 'clicked', false, 'Chrome', 'desktop', NULL, NULL),
				($1, 1, 7, 'clicked', true, 'WhatsApp', 'bot', 1, NULL), ($1, 1, 7, 'clicked', true, 'curl', 'bot', 1, 'bot')`, at.Add(time.Minute))
			s.exec("INSERT INTO rollup_recounts (day, url_id) VALUES ($1::timestamptz AT TIME ZONE 'UTC', 1), ($1::timestamptz AT TIME ZONE 'UTC', 0)", at)
			if day < -30 {
				s.exec("DROP TABLE visitors_" + at.Format("2006_01_02"))
				w.deps.visitors.forget()
			}
			s.fold()
			first := s.kinds()
			assert.NotContains(t, first, "preview")
			s.exec("INSERT INTO marks (user_agent, kind) VALUES ('curl/*', 'person'), ('*iPhone*', 'bot')")

			dry := s.reclassify(true)
			assert.Equal(t, first, s.kinds(), "a dry run changes nothing")
			assert.JSONEq(t, `{"person": {"bot": 1}, "tool": {"person": 3}, "bot": {"preview": 1}}`, string(dry.Changes))
			assert.Equal(t, int64(11), dry.LookedAt)
			run := s.reclassify(false)
			assert.JSONEq(t, string(dry.Changes), string(run.Changes))
			s.wantRollups()
			s.wantInt(0, "SELECT count(*) FROM events WHERE firsts > 0 AND kind <> 'person'")
			s.fold()
			// The first clicks are those of Chrome and of curl on each link.
			assert.Equal(t, "person 3, bot 0, person 3, person 1, person 0", s.text(`SELECT string_agg(kind || ' ' || firsts, ', ' ORDER BY occurred_at)
				FROM (SELECT * FROM events ORDER BY occurred_at LIMIT 5) e`))
			s.wantInt(3, "SELECT sum(visitors) FROM rollups WHERE scope > 0")
			s.wantInt(2, "SELECT sum(visitors) FROM rollups WHERE scope = 0")
			s.wantInt(1, "SELECT count(*) FROM events WHERE kind = 'preview' AND bot AND rules = $1 AND import_id IS NULL", visits.Rules)
			s.wantInt(1, "SELECT count(*) FROM events WHERE kind = 'monitor' AND rules = 0")
			s.wantInt(1, "SELECT count(*) FROM events WHERE kind = 'prefetch'")
			s.wantInt(1, "SELECT count(*) FROM events WHERE kind IS NULL AND import_id = 1")

			// Without the marks everything is as it was, but for the robot of the previous release.
			s.exec("DELETE FROM marks WHERE user_agent IS NOT NULL")
			back := s.reclassify(false)
			assert.JSONEq(t, `{"person": {"tool": 3}, "bot": {"person": 1}}`, string(back.Changes))
			s.wantRollups()
			s.fold()
			s.wantInt(2, "SELECT sum(visitors) FROM rollups WHERE scope > 0")
			s.wantInt(2, "SELECT sum(visitors) FROM rollups WHERE scope = 0")
			assert.JSONEq(t, `{}`, string(s.reclassify(false).Changes))
		})
	}
}

// While clicks come in and workers stop and start, each click is judged once.
func TestReclassifyWhileClicksComeIn(t *testing.T) {
	s := setup(t)
	at := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -1).Add(12 * time.Hour)
	for n := range 6 {
		s.ship(fmt.Sprintf("old-%d", n), many(50, at.Add(time.Duration(n)*time.Minute)))
	}
	w := s.start(nil)
	s.eventually("batches are ingested", s.allIngested)
	s.stop(w)
	s.exec("INSERT INTO marks (user_agent, kind) VALUES ('curl/*', 'person'), ('*Chrome*', 'bot')")
	id, err := StartReclassification(s.ctx, s.pool, s.river, Reclassification{From: at.Add(-time.Hour), To: time.Now()})
	s.ok(err)
	for n := range 6 {
		s.ship(fmt.Sprintf("new-%d", n), many(50, at.Add(time.Duration(n)*time.Minute)))
		w := s.start(nil, func(d *deps) { d.judgePiece, d.importTurn = 7, 0 })
		before := s.int("SELECT looked_at FROM reclassifications")
		s.eventually("some clicks are judged", func() bool {
			return s.int("SELECT count(*) FROM reclassifications WHERE finished_at IS NOT NULL OR looked_at > $1", before) == 1
		})
		s.stop(w)
	}
	s.start(nil)
	s.start(nil)
	s.reclassified(id)
	s.eventually("batches are ingested", s.allIngested)
	s.wantInt(600, "SELECT count(*) FROM events")
	s.wantInt(0, "SELECT count(*) FROM events WHERE (browser = 'curl') <> (kind = 'person') OR bot <> (kind <> 'person')")
	s.wantInt(7+1, "SELECT count(*) FILTER (WHERE firsts & 1 = 1) + count(*) FILTER (WHERE firsts & 2 = 2) FROM events")
	s.wantRollups()
}

// There is one reclassification at a time, and its job is replaced when it is gone.
func TestReclassificationsOneAtATime(t *testing.T) {
	s := setup(t)
	from := time.Now().Add(-time.Hour)
	start := func(from time.Time, dryRun bool) (int64, error) {
		return StartReclassification(s.ctx, s.pool, s.river, Reclassification{From: from, To: time.Now(), DryRun: dryRun})
	}
	id, err := start(from.Truncate(time.Microsecond), false)
	s.ok(err)
	same, err := start(from.Truncate(time.Microsecond), false)
	s.ok(err)
	assert.Equal(t, id, same)
	_, err = start(from.Truncate(time.Microsecond), true)
	require.ErrorContains(t, err, "another reclassification is under way")
	_, err = start(from.Add(-time.Hour), false)
	require.ErrorContains(t, err, "another reclassification is under way")
	s.exec("DELETE FROM river_job")
	s.start(nil)
	s.run(jobs.Reenqueue{})
	s.reclassified(id)
	next, err := start(from.Add(-time.Hour), true)
	s.ok(err)
	assert.NotEqual(t, id, next)
	s.reclassified(next)
}

// A worker of a release with other rules leaves the reclassification alone.
func TestReclassificationByOtherRules(t *testing.T) {
	s := setup(t)
	id, err := StartReclassification(s.ctx, s.pool, s.river, Reclassification{From: time.Now().Add(-time.Hour), To: time.Now()})
	s.ok(err)
	s.exec("UPDATE reclassifications SET rules = rules + 1")
	s.start(nil)
	s.eventually("the job waits", func() bool {
		return s.int("SELECT count(*) FROM river_job WHERE kind = 'reclassify_clicks' AND state IN ('scheduled', 'available') AND metadata ? 'snoozes'") == 1
	})
	s.exec("UPDATE reclassifications SET rules = rules - 1")
	s.reclassified(id)
}
