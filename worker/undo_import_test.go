package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertest"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/assert"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/promise"
	"github.com/signpost/signpost/queries"
)

// smallPieces makes an undo work in small pieces.
func smallPieces(d *deps) { d.undoPiece = 7 }

// undo requests an undo as the API does, and returns its job.
func (s *site) undo(id int64) int64 {
	s.Helper()
	if _, err := queries.New(s.pool).RequestImportUndo(s.ctx, id); err != nil {
		s.Fatalf("request undo of import %d: %v", id, err)
	}
	job, err := s.river.Insert(s.ctx, jobs.UndoImport{ImportID: id}, nil)
	s.ok(err)
	s.exec("UPDATE imports SET job_id = $1 WHERE id = $2", job.Job.ID, id)
	return job.Job.ID
}

func (s *site) undone(id int64) {
	s.Helper()
	s.eventually(fmt.Sprintf("import %d is undone", id), func() bool {
		return s.text("SELECT state FROM imports WHERE id = $1", id) == jobs.ImportUndone
	})
}

// wantUndone checks how many rows an undo removed and kept.
func (s *site) wantUndone(id, removed, kept int64) {
	s.Helper()
	s.undone(id)
	s.wantInt(removed, "SELECT rows_removed FROM imports WHERE id = $1", id)
	s.wantInt(kept, "SELECT rows_kept FROM imports WHERE id = $1", id)
	s.wantInt(kept, "SELECT count(*) FROM import_kept WHERE import_id = $1", id)
}

// snapshot returns all rows that imports write.
func (s *site) snapshot() string {
	s.Helper()
	s.fold()
	var all strings.Builder
	for _, table := range []string{"users", "urls", "events", "rollups"} {
		fmt.Fprintf(&all, "%s\n%s\n", table, s.text(fmt.Sprintf(`SELECT string_agg(t::text, E'\n' ORDER BY t::text) FROM %s t`, table)))
	}
	return all.String()
}

// history returns three files that refer to each other and to existing rows: 60 users,
// 50 links and 300 events, of which 270 are clicks.
func history() (users, links, events string) {
	var u, l, e strings.Builder
	u.WriteString("id,username,email\n")
	for i := range 60 {
		fmt.Fprintf(&u, "%d,user%d,user%d@example.com\n", 100+i, i, i)
	}
	l.WriteString("id,user_id,short_code,original_url,is_active\n")
	for i := range 50 {
		fmt.Fprintf(&l, "%d,%d,code%d,https://example.com/%d,%v\n", 100+i, []int{1, 100 + i}[i%2], i, i, i%10 != 0)
	}
	e.WriteString("id,url_id,event_type,timestamp\n")
	at := time.Date(2015, 1, 31, 22, 0, 0, 0, time.UTC)
	for i := range 300 {
		// Every third event is of the existing link.
		url := []int{10, 100 + i%50, 100 + i%50}[i%3]
		fmt.Fprintf(&e, "%d,%d,%s,%s\n", i+1, url, []string{"clicked", "updated"}[min(i%10/9, 1)],
			at.Add(time.Duration(i)*7*time.Minute).Format(time.DateTime))
	}
	return u.String(), l.String(), e.String()
}

// inhabit makes a user with a link that has clicks, some of them at the same times as
// the history's.
func (s *site) inhabit() {
	s.Helper()
	s.annWithLink()
	s.ship("before", []clicks.Click{
		click(10, time.Now()), click(10, time.Date(2015, 1, 31, 22, 1, 0, 0, time.UTC)),
	})
	s.eventually("clicks are ingested", s.allIngested)
}

// importHistory imports the history. The link's events come last.
func (s *site) importHistory(opts csvimport.SplitOptions) (users, links, events int64) {
	s.Helper()
	u, l, e := history()
	users = s.upload(csvimport.KindUsers, u, opts)
	s.wantRows(users, 60, 0)
	links = s.upload(csvimport.KindLinks, l, opts)
	s.wantRows(links, 50, 0)
	events = s.upload(csvimport.KindEvents, e, opts)
	s.wantRows(events, 300, 0)
	return users, links, events
}

// Imports whose rows nobody touched leave nothing when they are undone.
func TestUndoLeavesNothing(t *testing.T) {
	s := setup(t)
	s.start(map[string]int{jobs.QueueImports: 3, jobs.QueueClicks: 1}, smallPieces)
	s.inhabit()
	before := s.snapshot()
	users, links, events := s.importHistory(csvimport.SplitOptions{ChunkRows: 11})
	for _, step := range []struct{ id, rows int64 }{{events, 300}, {links, 50}, {users, 60}} {
		s.undo(step.id)
		s.wantUndone(step.id, step.rows, 0)
	}
	if after := s.snapshot(); after != before {
		t.Errorf("after the undo there is\n%s\nbefore the imports there was\n%s", after, before)
	}
	s.wantCounted(2)
}

// This is the same, with every undo killed again and again at every point, and run
// several times at once, while clicks arrive for the existing link.
func TestUndoOutlivesItsJobs(t *testing.T) {
	s := setup(t)
	s.start(map[string]int{jobs.QueueImports: 3, jobs.QueueClicks: 1}, smallPieces)
	s.inhabit()
	before := s.snapshot()
	users, links, events := s.importHistory(csvimport.SplitOptions{})
	s.stop(s.worker)
	w := s.start(map[string]int{jobs.QueueClicks: 1}, smallPieces) // this worker takes no imports

	pool := s.killable()
	shipped, runs, killed := 0, 0, 0
	for _, id := range []int64{events, links, users} {
		job := s.undo(id)
		s.exec("UPDATE river_job SET state = 'running', attempt = 1 WHERE id = $1", job)
		for round := 0; s.text("SELECT state FROM imports WHERE id = $1", id) == jobs.ImportUndoing; round++ {
			if round%10 == 0 {
				s.ship(fmt.Sprint("meanwhile", id, round), []clicks.Click{click(10, time.Date(2015, 2, 1, 1, round%60, 0, 0, time.UTC))})
				shipped++
			}
			// Two runs at once, each killed at one of its statements.
			done := make(chan error, 2)
			for i := range 2 {
				go func() { done <- s.undoOnce(w, pool, id, job, 1+(round*7+i*13)%29) }()
			}
			for range 2 {
				runs++
				switch err := <-done; {
				case errors.Is(err, errKilled):
					killed++
				case err != nil:
					t.Fatal(err)
				}
			}
			if round > 2000 {
				t.Fatal("the undo gets nowhere")
			}
		}
	}
	if t.Logf("%d of %d runs were killed", killed, runs); killed < 20 {
		t.Error("hardly a run was killed")
	}
	s.wantUndone(events, 300, 0)
	s.wantUndone(links, 50, 0)
	s.wantUndone(users, 60, 0)
	s.eventually("clicks are ingested", s.allIngested)
	s.wantCounted(int64(2 + shipped))
	// Without the clicks that came meanwhile, the state is the same as before.
	s.exec("DELETE FROM events WHERE occurred_at >= '2015-02-01Z' AND occurred_at < '2015-03-01Z'")
	s.fold()
	s.exec("DELETE FROM rollups WHERE day >= '2015-02-01' AND day < '2015-03-01'")
	if after := s.snapshot(); after != before {
		t.Errorf("after the undo there is\n%s\nbefore the imports there was\n%s", after, before)
	}
}

// killer cancels the context of a run at one of its statements.
type killer struct{}

type killKey struct{}

// kill says when a run is killed.
type kill struct {
	left   atomic.Int64
	cancel context.CancelFunc
}

func (killer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	if k, ok := ctx.Value(killKey{}).(*kill); ok && k.left.Add(-1) == 0 {
		k.cancel()
	}
	return ctx
}

func (killer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// killable returns a site of the same database on which runs can be killed.
func (s *site) killable() *site {
	s.Helper()
	other := &site{T: s.T, ctx: s.ctx}
	config := s.pool.Config()
	config.ConnConfig.Tracer = killer{}
	other.use(config)
	return other
}

// undoOnce runs the job of an undo until its n-th statement, where the job is killed.
func (s *site) undoOnce(w *Worker, on *site, id, job int64, n int) error {
	ctx, cancel := context.WithCancel(rivertest.WorkContext(s.ctx, w.client))
	defer cancel()
	k := &kill{cancel: cancel}
	k.left.Store(int64(n))
	own := *w.deps
	own.pool = on.pool
	err := (&undoImport{deps: &own}).Work(context.WithValue(ctx, killKey{}, k), &river.Job[jobs.UndoImport]{
		JobRow: &rivertype.JobRow{ID: job, State: rivertype.JobStateRunning}, Args: jobs.UndoImport{ImportID: id},
	})
	var snooze *river.JobSnoozeError
	switch {
	case ctx.Err() != nil:
		return errKilled
	case errors.As(err, &snooze):
		return nil
	}
	return err
}

var errKilled = errors.New("the run was killed")

// Rows that somebody has changed, clicked or used for other rows are kept as they were,
// and listed. Rows that the import itself has updated do not count as changed.
func TestUndoKeepsWhatIsInUse(t *testing.T) {
	s := setup(t)
	w := s.start(map[string]int{jobs.QueueImports: 2, jobs.QueueClicks: 1}, smallPieces)
	s.exec(ann)
	users := s.upload(csvimport.KindUsers, "id,username,email\n2,bob,b@x.example\n3,cy,c@x.example\n4,dan,d@x.example\n5,eve,e@x.example\n", csvimport.SplitOptions{})
	s.wantRows(users, 4, 0)
	links := s.upload(csvimport.KindLinks, `id,user_id,short_code,original_url,is_active
11,1,changed,https://example.com/1,
12,1,clicked,https://example.com/2,
13,1,free,https://example.com/3,
14,1,off,https://example.com/4,false
15,1,late,https://example.com/5,
16,1,meanwhile,https://example.com/6,
17,1,deleted,https://example.com/7,
18,1,self,https://example.com/8,
`, csvimport.SplitOptions{})
	s.wantRows(links, 8, 0)
	s.exec("UPDATE users SET email = 'new@x.example' WHERE id = 2")
	s.exec("INSERT INTO urls (id, user_id, short_code, original_url) VALUES (50, 3, 'own', 'https://example.com/')")
	s.exec("UPDATE urls SET title = 'new' WHERE id = 11")
	s.exec("DELETE FROM urls WHERE id = 17")
	s.exec(fmt.Sprintf("BEGIN; SELECT set_config('signpost.import_id', '%d', true); UPDATE urls SET title = 'own' WHERE id = 18; COMMIT", links))
	s.ship("before", []clicks.Click{click(12, time.Now())})
	s.eventually("clicks are ingested", s.allIngested)
	// The undo of the previous release switched links off, and was about to do the rest.
	s.stop(w)
	s.undo(links)
	s.exec(fmt.Sprintf("BEGIN; SELECT set_config('signpost.import_id', '%d', true); UPDATE urls SET is_active = false, undo_of = import_id WHERE id IN (13, 15, 16); COMMIT", links))
	s.exec("UPDATE imports SET undo_step = 'switch_off', undo_line = 6 WHERE id = $1", links)
	s.ship("late", []clicks.Click{click(15, time.Now())})
	s.start(map[string]int{jobs.QueueClicks: 1}, smallPieces)
	s.eventually("clicks are ingested", s.allIngested)
	s.start(map[string]int{jobs.QueueImports: 1}, smallPieces)
	s.wantUndone(links, 4, 3)
	s.wantText("2 11 changed, 3 12 clicked, 6 15 clicked", `SELECT string_agg(concat_ws(' ', line, row_id, reason), ', ' ORDER BY line) FROM import_kept WHERE import_id = $1`, links)
	s.wantText("changed clicked late own", "SELECT string_agg(short_code, ' ' ORDER BY id) FROM urls WHERE is_active AND undo_of IS NULL")

	s.undo(users)
	s.wantUndone(users, 2, 2)
	s.wantText("2 2 changed, 3 3 owns_links", `SELECT string_agg(concat_ws(' ', line, row_id, reason), ', ' ORDER BY line) FROM import_kept WHERE import_id = $1`, users)
	s.exec("DELETE FROM urls WHERE short_code = 'own'")
	s.undo(users)
	s.wantUndone(users, 3, 1)
}

// A link that the undo of the previous release switched off, and that somebody has said
// to be off since, stays off.
func TestUndoLeavesOffWhatSomebodySwitchedOff(t *testing.T) {
	s := setup(t)
	w := s.start(nil, smallPieces)
	s.exec(ann)
	links := s.upload(csvimport.KindLinks, "user_id,short_code,original_url\n1,file,https://example.com/1\n1,silent,https://example.com/2\n1,patched,https://example.com/3\n", csvimport.SplitOptions{})
	s.wantRows(links, 3, 0)
	s.exec(fmt.Sprintf("BEGIN; SELECT set_config('signpost.import_id', '%d', true); UPDATE urls SET is_active = false, undo_of = import_id; COMMIT", links))
	update := s.uploadAs(csvimport.KindLinks, "short_code,original_url,user_id,is_active\nfile,https://example.com/4,1,no\nsilent,https://example.com/5,1,\n",
		csvimport.SplitOptions{}, csvimport.PolicyUpdate, false)
	s.ended(update)
	s.exec("UPDATE urls SET undo_of = NULL, updated_at = clock_timestamp() WHERE short_code = 'patched'") // as the API does
	s.stop(w)
	s.undo(links)
	s.exec("UPDATE imports SET undo_step = 'switch_off', undo_line = 0 WHERE id = $1", links)
	s.start(nil, smallPieces)
	s.wantUndone(links, 0, 3)
	s.wantText("file f, patched f, silent t", "SELECT string_agg(concat_ws(' ', short_code, is_active), ', ' ORDER BY short_code) FROM urls")
	s.wantInt(0, "SELECT count(*) FROM import_outcomes WHERE import_id = $1 AND before::text LIKE '%undo_of%'", update)
}

// Rows that an import made itself and then updated do not count as rows that were there
// before, nor do rows that are gone.
func TestKeptLeavesOutItsOwnRows(t *testing.T) {
	s := setup(t)
	s.exec(annAndBob)
	s.start(map[string]int{jobs.QueueImports: 1}, smallPieces)
	const file = "username,email\nann,new@example.com\nbob,else@example.com\ncy,c@example.com\ncy,cy@example.com\n"
	id := s.uploadAs(csvimport.KindUsers, file, csvimport.SplitOptions{}, csvimport.PolicyUpdate, false)
	if imp := s.ended(id); imp.RowsImported != 1 || imp.RowsUpdated != 3 {
		t.Errorf("%d rows are imported, %d updated", imp.RowsImported, imp.RowsUpdated)
	}
	kept := func(want string) {
		t.Helper()
		rows, err := queries.New(s.pool).ListImportKept(s.ctx, queries.ListImportKeptParams{ImportID: id, RowLimit: 10})
		got := ""
		for _, r := range rows {
			got += fmt.Sprintf("%d %s %d;", r.Line, r.Reason, r.RowID)
		}
		if err != nil || got != want {
			t.Errorf("kept %s, %v; want %s", got, err, want)
		}
	}
	kept("2 updated 1;3 updated 2;")
	s.undo(id)
	s.wantUndone(id, 1, 0)
	s.exec("DELETE FROM users WHERE id = 2")
	kept("2 updated 1;")
}

// Incomplete imports can be undone too: an import that was cancelled, one that failed
// while a chunk of it still ran, and an upload of which nothing is left.
func TestUndoOfUnfinishedImports(t *testing.T) {
	s := setup(t)
	s.start(map[string]int{jobs.QueueImports: 3}, smallPieces)
	file := "username,email\n"
	for i := range 30 {
		file += fmt.Sprintf("user%d,user%d@example.com\n", i, i)
	}
	for _, state := range []string{jobs.ImportCancelled, jobs.ImportFailed} {
		tx := s.lock("INSERT INTO users (username, email) VALUES ('user7', 'other@example.com')")
		id := s.upload(csvimport.KindUsers, file, csvimport.SplitOptions{ChunkRows: 3})
		s.eventually("the third chunk waits", s.waitFor(tx, 1))
		if state == jobs.ImportCancelled {
			s.cancel(id)
			s.eventually("the cancellation waits too", s.waiting(2))
			s.rollback(tx)
			s.ended(id)
		} else {
			s.exec("UPDATE imports SET state = 'failed', finished_at = now() WHERE id = $1", id)
		}
		s.undo(id)
		if state == jobs.ImportFailed {
			s.eventually("the undo waits for the chunk", s.waiting(2))
			s.rollback(tx)
		}
		s.undone(id)
		s.wantUndone(id, s.int("SELECT rows_imported FROM imports WHERE id = $1", id), 0)
		s.wantInt(0, "SELECT count(*) FROM users")
		s.wantInt(0, "SELECT count(*) FROM import_chunks WHERE data IS NOT NULL")
	}
	id := s.receive(csvimport.KindUsers, file, csvimport.SplitOptions{})
	s.exec("DELETE FROM import_chunks WHERE import_id = $1", id)
	s.exec("UPDATE imports SET state = 'failed', finished_at = now() WHERE id = $1", id)
	s.undo(id)
	s.wantUndone(id, 0, 0)
}

// An undo whose job is gone gets another job.
func TestRescueOfUndo(t *testing.T) {
	s := setup(t)
	s.start(nil, smallPieces)
	id := s.upload(csvimport.KindUsers, "username,email\na,a@example.com\n", csvimport.SplitOptions{})
	s.wantRows(id, 1, 0)
	s.stop(s.worker)
	s.exec("DELETE FROM river_job WHERE id = $1", s.undo(id))
	s.exec("DELETE FROM river_job WHERE kind = 'rescue'")
	s.start(nil, smallPieces)
	s.wantUndone(id, 1, 0)
}

// A run that is behind another one does not do its step again.
func TestUndoRunThatIsBehind(t *testing.T) {
	s := setup(t)
	w := s.start(map[string]int{jobs.QueueClicks: 1}, smallPieces)
	id := s.receive(csvimport.KindLinks, "user_id,original_url\n1,https://example.com/\n", csvimport.SplitOptions{})
	s.exec("UPDATE imports SET state = 'undoing', undo_step = 'remove', undo_line = 1 WHERE id = $1", id)
	err := (&undoImport{deps: w.deps}).step(s.ctx, nil, queries.Import{ID: id, State: jobs.ImportUndoing})
	if at := s.text("SELECT undo_step || ' ' || undo_line FROM imports WHERE id = $1", id); err != nil || at != "remove 1" {
		t.Errorf("the undo is at %s, %v", at, err)
	}
}

// Rows that an import itself updated are removed with it. Rows that another import
// updated count as changed. They stay when that other import is undone too, since it
// did not make them.
func TestUndoOfUpdates(t *testing.T) {
	s := setup(t)
	s.start(nil, smallPieces)
	s.exec(ann)
	const header = "user_id,short_code,original_url\n"
	first := s.uploadAs(csvimport.KindLinks, header+"1,one,https://example.com/1\n1,two,https://example.com/2\n1,one,https://example.com/3\n",
		csvimport.SplitOptions{ChunkRows: 1}, csvimport.PolicyUpdate, false)
	s.ended(first)
	second := s.uploadAs(csvimport.KindLinks, header+"1,two,https://example.com/4\n1,three,https://example.com/5\n",
		csvimport.SplitOptions{}, csvimport.PolicyUpdate, false)
	s.ended(second)
	s.undo(first)
	s.wantUndone(first, 1, 1)
	s.undo(second)
	s.wantUndone(second, 1, 0)
	s.wantText("two https://example.com/4 t", "SELECT string_agg(concat_ws(' ', short_code, original_url, is_active), ', ' ORDER BY id) FROM urls")
	left, err := queries.New(s.pool).ListImportKept(s.ctx, queries.ListImportKeptParams{ImportID: second, OfUrls: true, RowLimit: 10})
	if err != nil || len(left) != 1 || left[0].Reason != "updated" || !strings.Contains(string(left[0].Before), "https://example.com/2") {
		t.Errorf("the second import lists %+v, %v", left, err)
	}
}

// Postgres is killed again and again while events are taken out of the rollups.
func TestUndoOutlivesPostgres(t *testing.T) {
	s := setupMortal(t)
	s.start(map[string]int{jobs.QueueImports: 2, jobs.QueueClicks: 1}, smallPieces)
	s.inhabit()
	_, links, events := s.importHistory(csvimport.SplitOptions{})
	// Pieces take long enough for a kill.
	s.exec(`
		CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;
		CREATE TRIGGER linger AFTER INSERT ON rollup_digests FOR EACH STATEMENT EXECUTE FUNCTION linger()`)
	s.undo(events)
	s.killPostgres("more events are removed", "SELECT rows_removed FROM imports WHERE id = $1", events)
	s.wantUndone(events, 300, 0)
	s.wantCounted(2)
	s.undo(links)
	s.wantUndone(links, 50, 0)
}

// Within a second, a replica learns of the changes that an import and its undo make to
// a link (I4), whether it has the link in its cache or remembers it as unknown.
func TestCachesFollowImportsAndUndos(t *testing.T) {
	s := setup(t)
	s.start(nil, smallPieces)
	s.exec("INSERT INTO users (id, username, email) VALUES (7, 'ann', 'ann@example.org')")
	s.exec(`INSERT INTO urls (id, user_id, short_code, original_url) VALUES (5, 7, 'old-one', 'https://example.org/before')`)
	cache, err := linkcache.Open(linkcache.Options{Pool: s.pool, Log: slog.New(slog.DiscardHandler)})
	s.ok(err)
	ctx, cancel := context.WithCancel(s.ctx)
	ran := make(chan error, 1)
	go func() { ran <- cache.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ran)
	})
	leads := func(code string) string {
		link, err := cache.Lookup(s.ctx, linkcache.NewKey(linkcache.MainDomain, code), time.Now())
		if err != nil {
			return err.Error()
		}
		return link.Target
	}
	follows := func(after, code, want string) {
		t.Helper()
		began := time.Now()
		s.eventually(code+" leads to "+want, func() bool { return leads(code) == want })
		promise.Kept(t, "a change by "+after+" reaches a cache", time.Second, 5*time.Second, time.Since(began))
	}
	unknown := linkcache.ErrNotFound.Error()
	follows("SQL", "old-one", "https://example.org/before")
	follows("SQL", "new-one", unknown)

	id := s.receive(csvimport.KindLinks, "user_id,short_code,original_url\n7,old-one,https://example.org/after\n7,new-one,https://example.org/new\n",
		csvimport.SplitOptions{})
	s.exec("UPDATE imports SET on_conflict = 'update' WHERE id = $1", id)
	s.queueImport(id)
	if imp := s.ended(id); imp.RowsImported != 1 || imp.RowsUpdated != 1 {
		t.Fatalf("import: %+v", imp)
	}
	follows("an import", "old-one", "https://example.org/after")
	follows("an import", "new-one", "https://example.org/new")

	s.undo(id)
	s.undone(id)
	follows("an undo", "new-one", unknown)
	// As docs/imports.md says, an undo does not bring everything back. This stays as it
	// is.
	follows("an undo", "old-one", "https://example.org/after")
}
