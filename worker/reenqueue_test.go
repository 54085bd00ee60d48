package worker

import (
	"fmt"
	"testing"
	"time"

	"github.com/riverqueue/river/rivertest"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/service"
)

// A batch whose job is gone, for whatever reason, gets another job. A batch that has
// only just arrived, or whose job an operator has just cancelled, is left alone.
func TestRescueOfBatches(t *testing.T) {
	s := setup(t)
	for id, change := range map[string]string{
		"none":      "UPDATE click_batches SET job_id = NULL WHERE job_id = $1",
		"deleted":   "DELETE FROM river_job WHERE id = $1",
		"completed": "UPDATE river_job SET state = 'completed', finalized_at = now() WHERE id = $1",
		"discarded": "UPDATE river_job SET state = 'discarded', finalized_at = now() - interval '10 minutes' WHERE id = $1",
		"cancelled": "UPDATE river_job SET state = 'cancelled', finalized_at = now() - interval '10 minutes' WHERE id = $1",
		"kept":      "UPDATE river_job SET state = 'cancelled', finalized_at = now() WHERE id = $1",
		"young":     "DELETE FROM river_job WHERE id = $1",
	} {
		s.exec(change, s.ship(id, many(10, time.Now())))
	}
	s.exec("UPDATE click_batches SET received_at = now() - interval '2 minutes' WHERE id <> 'young'")
	s.start(nil)
	s.eventually("five are ingested", func() bool {
		return s.int("SELECT count(*) FROM click_batches WHERE ingested_at IS NOT NULL") == 5
	})
	s.wantCounted(50)
	s.wantInt(2, "SELECT count(*) FROM click_batches WHERE ingested_at IS NULL AND id IN ('kept', 'young')")
}

// An import that lost its job ends all the same.
func TestRescueOfImports(t *testing.T) {
	s := setup(t)
	file := "username,email\na,a@example.com\nb,b@example.com\nA,c@example.com\nc,d@example.com\n"
	whole := s.upload(csvimport.KindUsers, file, csvimport.SplitOptions{})
	cut := s.upload(csvimport.KindUsers, file, csvimport.SplitOptions{ChunkRows: 1})
	s.exec("DELETE FROM river_job")

	// The first of the new jobs is lost too.
	s.exec(`
		CREATE TABLE lost (kind text PRIMARY KEY);
		CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			INSERT INTO lost VALUES (NEW.kind) ON CONFLICT DO NOTHING;
			IF FOUND THEN
				NEW.state = 'cancelled'; NEW.finalized_at = now() - interval '1 hour';
			END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER lose BEFORE INSERT ON river_job FOR EACH ROW
			WHEN (NEW.kind = 'apply_chunk') EXECUTE FUNCTION lose()`)
	s.start(nil)
	s.eventually("imports end", func() bool {
		// The rescue is due once a minute; here it is requested.
		if _, err := s.river.Insert(s.ctx, jobs.Reenqueue{}, soon()); err != nil {
			t.Fatalf("insert rescue: %v", err)
		}
		return s.int("SELECT count(*) FROM imports WHERE state = 'completed'") == 2
	})
	s.wantInt(1, "SELECT count(*) FROM lost")
	s.wantInt(3, "SELECT count(*) FROM users")
	s.wantInt(8, "SELECT sum(rows_imported + rows_rejected) FROM imports WHERE id IN ($1, $2)", whole, cut)
}

// An import whose rows kill every worker ends as failed after as many tries as a job has,
// so that it does not stop the others for ever.
func TestReenqueueOfDeadlyImports(t *testing.T) {
	s := setup(t)
	deadly := s.upload(csvimport.KindUsers, "username,email\na,a@example.com\n", csvimport.SplitOptions{ChunkRows: 1})
	w := &reenqueue{deps: s.start(map[string]int{jobs.QueueClicks: 1}).deps}
	ctx := rivertest.WorkContext(s.ctx, s.river)
	kill := func() {
		s.exec(`UPDATE river_job SET state = 'running', attempt = attempt + 1, attempted_at = now() - interval '20 seconds',
			attempted_by = '{killed}' WHERE id = (SELECT job_id FROM imports WHERE id = $1)`, deadly)
		if n, err := w.stalled(ctx); err != nil || n != 1 {
			t.Fatalf("%d imports were found stalled: %v", n, err)
		}
	}
	s.exec("UPDATE imports SET state = 'running' WHERE id = $1", deadly)
	for range jobs.MaxAttempts {
		s.wantInt(1, "SELECT count(*) FROM imports WHERE id = $1 AND state = 'running'", deadly)
		kill()
	}
	s.wantInt(1, "SELECT count(*) FROM imports WHERE id = $1 AND state = 'failed' AND error LIKE '%was killed%'", deadly)
}

// An import whose worker was killed gets another job long before River notices. An
// import whose chunk is being applied keeps its job.
func TestReenqueueOfStalledImports(t *testing.T) {
	s := setup(t)
	file := "username,email\na%[1]d,a%[1]d@example.com\nb%[1]d,b%[1]d@example.com\n"
	stalled := s.upload(csvimport.KindUsers, fmt.Sprintf(file, 1), csvimport.SplitOptions{ChunkRows: 1})
	cancelled := s.upload(csvimport.KindUsers, fmt.Sprintf(file, 2), csvimport.SplitOptions{ChunkRows: 1})
	s.cancel(cancelled)
	atEnd := s.upload(csvimport.KindUsers, fmt.Sprintf(file, 3), csvimport.SplitOptions{ChunkRows: 1})
	s.exec("UPDATE import_chunks SET data = NULL, done_at = now() WHERE import_id = $1", atEnd)
	s.exec("UPDATE imports SET state = 'running', chunks_done = 2, rows_skipped = 2 WHERE id = $1", atEnd)
	slow := s.upload(csvimport.KindUsers, fmt.Sprintf(file, 4), csvimport.SplitOptions{ChunkRows: 1})
	fresh := s.upload(csvimport.KindUsers, fmt.Sprintf(file, 5), csvimport.SplitOptions{ChunkRows: 1})
	s.exec("UPDATE river_job SET state = 'running', attempt = 1, attempted_at = now() - interval '20 seconds', attempted_by = '{killed}'")
	s.exec("UPDATE river_job SET attempted_at = now() + interval '1 hour' WHERE id = (SELECT job_id FROM imports WHERE id = $1)", fresh)
	tx := s.lock(fmt.Sprintf("SELECT FROM import_chunks WHERE import_id = %d AND seq = 0 FOR UPDATE", slow))
	s.start(nil)
	s.wantRows(stalled, 2, 0)
	s.wantEnd(cancelled, jobs.ImportCancelled)
	s.wantEnd(atEnd, jobs.ImportCompleted)
	s.wantInt(2, "SELECT count(*) FROM river_job WHERE queue = 'imports' AND state = 'running' AND id IN (SELECT job_id FROM imports WHERE id IN ($1, $2))", slow, fresh)
	s.rollback(tx)
	s.run(jobs.Reenqueue{})
	s.wantRows(slow, 2, 0)
}

func TestRescueOfUploads(t *testing.T) {
	s := setup(t)
	file := "username,email\na,a@example.com\n"
	silent := s.receive(csvimport.KindUsers, file, csvimport.SplitOptions{})
	alive := s.receive(csvimport.KindUsers, file, csvimport.SplitOptions{})
	s.exec("UPDATE imports SET heard_at = now() - interval '10 minutes' WHERE id = $1", silent)
	s.start(nil)
	s.eventually("the silent one is given up", func() bool {
		return s.text("SELECT state FROM imports WHERE id = $1", silent) == "failed"
	})
	s.wantInt(0, "SELECT count(*) FROM import_chunks WHERE import_id = $1", silent)
	s.wantInt(1, "SELECT count(*) FROM import_chunks WHERE import_id = $1", alive)
	s.wantText("receiving", "SELECT state FROM imports WHERE id = $1", alive)
}

// Pruning is done in pieces, and segments that nobody confirmed are removed by age.
func TestPrune(t *testing.T) {
	s := setup(t)
	s.exec(`INSERT INTO link_changes (short_code, version, changed_at)
		SELECT 'old', n, now() - interval '3 hours' FROM generate_series(1, 7) n`)
	s.exec(`INSERT INTO link_changes (id, short_code, version, changed_at) OVERRIDING SYSTEM VALUE
		VALUES (8, 'old, but of the last ten thousand', 8, now() - interval '3 hours'), (10007, 'new', 9, now())`)
	s.exec(`INSERT INTO spool_folders (folder, gone_below) SELECT folder, folder || '-0000000007'
		FROM unnest(ARRAY['20260131t090507-0f1e2d3c4b5a6978', '20260131t090507-0f1e2d3c4b5a6979']) folder`)
	s.exec(`INSERT INTO click_batches (id, payload, clicks, oldest_at, ingested_at)
		SELECT folder || '-000000000' || n, CASE WHEN n = 5 THEN '\x00'::bytea END, 1, now(),
			CASE n WHEN 5 THEN NULL WHEN 6 THEN now() - interval '23 hours' ELSE now() - interval '2 days' END
		FROM spool_folders, generate_series(0, 8) n`)
	s.exec(`INSERT INTO click_batches (id, clicks, oldest_at, ingested_at)
		SELECT 'vanished-' || n, 1, now() - interval '100 days', now() - interval '91 days' FROM generate_series(1, 7) n`)
	s.exec(`INSERT INTO click_batches (id, clicks, oldest_at, ingested_at) VALUES
		('fresh', 1, now(), now()),
		('unconfirmed', 1, now(), now() - interval '89 days')`)
	s.exec(`INSERT INTO click_batches (id, payload, clicks, oldest_at, received_at, failed_at, failure) VALUES
		('backlog', '\x00', 1, now() - interval '5 days', now(), NULL, NULL),
		('failed', '\x00', 1, now() - interval '200 days', now() - interval '200 days', now() - interval '200 days', 'bad')`)
	s.exec(`INSERT INTO visitor_salts SELECT (now() AT TIME ZONE 'UTC')::date - n, decode(repeat('00', 32), 'hex')
		FROM unnest(ARRAY[0, 1, 4, 5, 9]) n`)
	s.exec(`INSERT INTO imports (kind, state, layout, keep_ids, actor_name) SELECT 'users', state, '{}', true, 'test'
		FROM unnest(ARRAY['receiving', 'failed']) state`)
	s.exec(`INSERT INTO idempotency_keys (token_id, route, key, import_id, kept_since)
		SELECT 0, 'POST /imports', state, id, now() - interval '25 hours' FROM imports`)
	s.exec(`INSERT INTO idempotency_keys (token_id, route, key, request, status, location, body, kept_since)
		SELECT n, 'POST /users', 'k' || h, decode(repeat('00', 32), 'hex'), 201, '/users/1', '{}', now() - h * interval '1 hour'
		FROM generate_series(1, 3) n, unnest(ARRAY[23, 25, 100]) h`)
	s.exec(`INSERT INTO click_rejects (batch_id, position, occurred_at, url_id, user_id, referrer, reason, rejected_at)
		SELECT 'b', d, now(), 1, 1, 'https://example.com/?q=secret', 'time', now() - d * interval '1 day'
		FROM unnest(ARRAY[0, 29, 31, 32, 33, 34]) d`)
	w := &prune{deps: s.start(map[string]int{jobs.QueueClicks: 1}).deps, piece: 3}
	s.ok(w.Work(s.ctx, nil))
	s.wantInt(29, "SELECT sum(position) FROM click_rejects")
	s.wantInt(5, "SELECT count(*) FROM visitor_salts") // they were given notice
	s.saltsWereGivenNotice()
	s.ok(w.Work(s.ctx, nil))
	s.wantInt(2, "SELECT count(*) FROM link_changes")
	s.wantText("k23 k23 k23 receiving", "SELECT string_agg(key, ' ' ORDER BY key) FROM idempotency_keys")
	// Of the two folders, the batches are left that wait, that were ingested lately,
	// and whose segments are not gone.
	if left := s.text("SELECT string_agg(right(id, 11), ' ' ORDER BY id) FROM click_batches"); left != "-0000000005 -0000000006 -0000000007 -0000000008 "+
		"-0000000005 -0000000006 -0000000007 -0000000008 backlog failed fresh unconfirmed" {
		t.Errorf("left in the ledger: %s", left)
	}
	// A backlog that is five days old may hold clicks of each day since.
	s.wantInt(4, "SELECT count(*) FROM visitor_salts")
	s.ok(w.Work(s.ctx, nil))
	s.wantInt(1, "SELECT count(*) FROM click_ledger WHERE cut_at < now() - interval '99 days' AND cut_at > '-infinity'")
}

// A header is removed when no event that is kept has it any more.
func TestPruneOfUserAgents(t *testing.T) {
	s := setup(t)
	s.exec(`INSERT INTO user_agents SELECT n, 'agent ' || n, date_trunc('month', now() AT TIME ZONE 'UTC')::date - n FROM unnest(ARRAY[0, 1, 100, 101, 102, 103, 104]) n`)
	d := s.start(map[string]int{jobs.QueueClicks: 1}).deps
	w := &prune{deps: d, piece: 3}
	s.ok(w.Work(s.ctx, nil))
	s.wantInt(7, "SELECT count(*) FROM user_agents") // all events are kept
	d.retention.Months = 3
	s.ok(w.Work(s.ctx, nil))
	s.wantText("0 1", "SELECT string_agg(id::text, ' ' ORDER BY id) FROM user_agents")
}

// Events of users that do not exist any more lose the names, also events that were
// restored from an archive, and events of users that an undo removed. Other events stay
// as they are.
func TestPruneForgetsDeletedUsers(t *testing.T) {
	s := setup(t)
	user := s.int("INSERT INTO users (username, email) VALUES ('bob', 'bob@example.com') RETURNING id")
	s.exec(`INSERT INTO events (occurred_at, url_id, user_id, event_type, details)
		SELECT now() - n * interval '1 second', NULL, u, 'updated', jsonb_build_object('entity', 'user', 'username', 'name' || u, 'email', u || '@example.com',
			'changes', jsonb_build_object('email', '{"old": "x@example.com", "new": "y@example.com"}'::jsonb), 'by', '{"name": "ops"}'::jsonb)
		FROM unnest(ARRAY[$1::bigint, 1000001, 1000002]) u, generate_series(1, 4) n`, user)
	s.exec(`INSERT INTO events (occurred_at, url_id, user_id, event_type, details)
		VALUES (now(), 7, 1000001, 'deleted', '{"entity": "url", "short_code": "x"}'), (now(), NULL, 1000001, 'deleted', '{"username": "of an import"}')`)
	w := &prune{deps: s.start(map[string]int{jobs.QueueClicks: 1}).deps, piece: 3}
	s.ok(w.Work(s.ctx, nil))
	s.wantInt(4, "SELECT count(*) FROM events WHERE details ->> 'username' = 'name' || user_id AND details::text LIKE '%example.com%'")
	s.wantInt(8, `SELECT count(*) FROM events WHERE user_id > 1000000 AND details =
		'{"entity": "user", "changes": {"email": {"old": null, "new": null}}, "by": {"name": "ops"}}'`)
	s.wantInt(2, "SELECT count(*) FROM events WHERE details ? 'short_code' OR details ->> 'username' = 'of an import'")
}

// The clicks of a volume that vanished may have been counted before the ledger was cut.
// If the volume comes back after that, they are not counted again unless an operator
// says so. Clicks that are newer than the cut cannot have been in the ledger, and are
// counted.
func TestReplayOfWhatWasCutOffTheLedger(t *testing.T) {
	s := setup(t)
	w := s.start(nil)
	at := time.Now().UTC().AddDate(0, 0, -100).Truncate(time.Hour)
	batch := append(many(10, at), click(1, time.Unix(0, 0))) // one click is rejected, each time
	ship := func(id string, oldest time.Time) int64 {
		s.store(id, clicks.EncodeBatch(id, batch), len(batch))
		s.exec("UPDATE click_batches SET oldest_at = $1 WHERE id = $2", oldest, id)
		return s.queue(id)
	}
	ship("vanished", at)
	s.eventually("batch is ingested", s.allIngested)
	s.exec("UPDATE click_batches SET received_at = $1, ingested_at = $1", at.Add(time.Minute))
	s.run(jobs.Prune{})
	s.wantInt(0, "SELECT count(*) FROM click_batches")

	replay := ship("vanished", at)
	s.eventually("its job ends", func() bool { return s.jobState(replay) == "cancelled" })
	s.wantCounted(10)
	s.wantInt(1, "SELECT count(*) FROM click_batches WHERE failure LIKE '%ledger%' AND payload IS NOT NULL")
	ship("newer", at.Add(time.Second))
	s.eventually("the newer one is ingested", func() bool {
		return s.int("SELECT count(*) FROM click_batches WHERE id = 'newer' AND ingested_at IS NOT NULL") == 1
	})
	s.wantCounted(20)

	operator := &service.Service{Pool: s.pool, River: s.river}
	s.ok(operator.RetryBatch(s.ctx, service.Actor{Role: service.RoleAdmin}, "vanished"))
	s.eventually("the operator's word counts", s.allIngested)
	s.wantCounted(30)
	s.wantInt(2, "SELECT count(*) FROM click_rejects")
	s.stop(w)
}
