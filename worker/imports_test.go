package worker

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/queries"
)

// importSeeds is how many random files are imported.
const importSeeds = 12

// These are the results of importing the example files, according to
// examples/README.md.
const (
	exampleUsers, exampleUsersLost   = 38, 2
	exampleLinks, exampleLinksLost   = 195, 5
	exampleEvents, exampleEventsLost = 383, 17
)

// wantRows checks how an import ended.
func (s *site) wantRows(id int64, imported, rejected int64) queries.Import {
	s.Helper()
	imp := s.ended(id)
	if imp.State != jobs.ImportCompleted || imp.RowsImported != imported || imp.RowsRejected != rejected {
		s.Errorf("import %d of %s is %s with %d imported and %d rejected, want %d and %d",
			id, imp.Kind, imp.State, imp.RowsImported, imp.RowsRejected, imported, rejected)
	}
	s.wantInt(rejected, "SELECT count(*) FROM import_errors WHERE import_id = $1", id)
	s.wantInt(0, "SELECT count(*) FROM import_chunks WHERE import_id = $1 AND data IS NOT NULL", id)
	return imp
}

// rejections lists the rejected rows of an import as "line field".
func (s *site) rejections(id int64) string {
	s.Helper()
	return s.text(`SELECT string_agg(concat_ws(' ', line, field), ', ' ORDER BY line)
		FROM import_errors WHERE import_id = $1`, id)
}

func (s *site) wantRejections(id int64, want string) {
	s.Helper()
	if got := s.rejections(id); got != want {
		s.Errorf("rejected %q, want %q", got, want)
	}
}

// wantEnd waits for the end of an import, and checks its state.
func (s *site) wantEnd(id int64, state string) {
	s.Helper()
	if imp := s.ended(id); imp.State != state {
		s.Errorf("import %d is %s, want %s", id, imp.State, state)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile("../examples/" + name)
	require.NoError(t, err)
	return string(data)
}

// promisedRejections returns the rejections of a file according to the README, in the
// form of rejections.
func promisedRejections(t *testing.T, name string) string {
	t.Helper()
	var found []string
	for line := range strings.Lines(read(t, "README.md")) {
		cells := strings.Split(line, "|")
		if len(cells) == 6 && strings.TrimSpace(cells[1]) == name {
			found = append(found, strings.TrimSpace(cells[2])+" "+strings.Trim(cells[3], " `"))
		}
	}
	return strings.Join(found, ", ")
}

// The example files, whole and in small chunks on several workers, give the results in
// their README. Importing them again adds nothing.
func TestImportExamples(t *testing.T) {
	for name, opts := range map[string]csvimport.SplitOptions{"whole": {}, "chunked": {ChunkRows: 7}} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			s.start(map[string]int{jobs.QueueImports: 4})
			for _, file := range []struct {
				name               string
				kind               csvimport.Kind
				imported, rejected int64
			}{
				{"users.csv", csvimport.KindUsers, exampleUsers, exampleUsersLost},
				{"urls.csv", csvimport.KindLinks, exampleLinks, exampleLinksLost},
				{"events.csv", csvimport.KindEvents, exampleEvents, exampleEventsLost},
			} {
				promised := promisedRejections(t, file.name)
				first := s.upload(file.kind, read(t, file.name), opts)
				s.wantRows(first, file.imported, file.rejected)
				if got := s.rejections(first); got != promised {
					t.Errorf("rejected of %s: %s, want %s", file.name, got, promised)
				}
				again := s.upload(file.kind, read(t, file.name), opts)
				s.wantRows(again, 0, file.imported+file.rejected)
				// Rows that were rejected before are rejected for the same reason. For
				// all others, the id is taken.
				if got := s.text(`SELECT string_agg(concat_ws(' ', line, field), ', ' ORDER BY line) FROM import_errors
					WHERE import_id = $1 AND (field, reason) <> ('id', $2)`, again, taken(claim{}).reason); got != promised {
					t.Errorf("rejected of %s the second time: %s, want %s", file.name, got, promised)
				}
			}
			s.wantInt(exampleEvents, "SELECT count(*) FROM events")
			s.wantInt(0, `SELECT count(*) FROM events e LEFT JOIN urls u ON u.id = e.url_id WHERE u.id IS NULL`)
			s.wantRollups()
			// New rows get ids beyond those of the files.
			s.wantInt(s.int("SELECT max(id) + 1 FROM users"),
				"INSERT INTO users (username, email) VALUES ('later', 'later@example.com') RETURNING id")
		})
	}
}

// modelUser is a row of a random file, with its line.
type modelUser struct {
	line            int64
	id, name, email string
}

// randomUsers returns rows that claim few keys, so that most of them are contended: in
// another case, twice in a row, or broken.
func randomUsers(r *rand.Rand, n int) (string, []modelUser) {
	names := []string{"ann", "Ann", "ANN", "bob", "Bob", "cy", "dora", "Émile", "émile", "eve", ""}
	var file strings.Builder
	file.WriteString("id,username,email\n")
	rows := make([]modelUser, n)
	for i := range rows {
		u := modelUser{line: int64(i + 2)}
		if r.IntN(4) > 0 {
			u.id = fmt.Sprint(1 + r.IntN(n))
		}
		u.name = names[r.IntN(len(names))]
		if r.IntN(2) == 0 {
			u.name = fmt.Sprintf("user%d", r.IntN(n))
		}
		u.email = fmt.Sprintf("Mail%d@example.com", r.IntN(n))
		if r.IntN(15) == 0 {
			u.email = "nonsense"
		}
		rows[i] = u
		fmt.Fprintf(&file, "%s,%s,%s\n", u.id, u.name, u.email)
	}
	return file.String(), rows
}

// modelImport takes rows one by one: the lowest line that claims a key gets it, and a
// rejected row claims none. Rows that draw an id come after those that bring one, so
// that a drawn id is never taken.
func modelImport(rows []modelUser, taken map[string]bool) map[int64]bool {
	imported := map[int64]bool{}
	for _, u := range rows {
		keys := []string{"name " + strings.ToLower(u.name), "email " + strings.ToLower(u.email)}
		if u.id != "" {
			keys = append(keys, "id "+u.id)
		}
		lost := u.name == "" || u.email == "nonsense"
		for _, key := range keys {
			lost = lost || taken[key]
		}
		if lost {
			continue
		}
		imported[u.line] = true
		for _, key := range keys {
			taken[key] = true
		}
	}
	return imported
}

// Whatever the size of the chunks, their order and the number of workers, the result is
// the same as if the rows were taken in file order.
func TestImportIsThatOfFileOrder(t *testing.T) {
	s := setup(t)
	s.shuffle()
	s.start(map[string]int{jobs.QueueImports: 3})
	for seed := range uint64(importSeeds) {
		r := rand.New(rand.NewPCG(seed, 7)) //nolint:gosec // a test that can be repeated
		s.empty("users, imports RESTART IDENTITY CASCADE")
		s.exec("INSERT INTO users (id, username, email) VALUES (3, 'eVe', 'mail3@example.com')")
		file, rows := randomUsers(r, 1+r.IntN(60))
		taken := map[string]bool{"id 3": true, "name eve": true, "email mail3@example.com": true}
		want := modelImport(rows, taken)
		id := s.upload(csvimport.KindUsers, file, csvimport.SplitOptions{ChunkRows: 1 + r.IntN(10)})
		s.wantRows(id, int64(len(want)), int64(len(rows)-len(want)))
		s.wantLines(rows, want, true, "SELECT import_line FROM users WHERE import_id = $1", id)
		s.wantLines(rows, want, false, "SELECT line FROM import_errors WHERE import_id = $1", id)
		if t.Failed() {
			t.Fatalf("seed %d: rejected %s of\n%s", seed, s.rejections(id), file)
		}
	}
}

// wantLines checks that a query finds the lines of the imported rows, or of the rows
// that were not imported.
func (s *site) wantLines(rows []modelUser, imported map[int64]bool, in bool, sql string, args ...any) {
	s.Helper()
	found, _ := s.pool.Query(s.ctx, sql, args...) // CollectRows has the error
	got, err := pgx.CollectRows(found, pgx.RowTo[int64])
	s.ok(err)
	var want []int64
	for _, u := range rows {
		if imported[u.line] == in {
			want = append(want, u.line)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		s.Errorf("%s: lines %v, want %v", sql, got, want)
	}
}

// The keys of links are the id and the code, which is case-sensitive, and a link needs
// its user.
func TestImportOfLinks(t *testing.T) {
	for name, opts := range map[string]csvimport.SplitOptions{"whole": {}, "chunked": {ChunkRows: 1}} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			s.exec(ann)
			s.start(map[string]int{jobs.QueueImports: 2})
			id := s.upload(csvimport.KindLinks, `id,user_id,short_code,original_url,title,tags,is_active,expires_at,redirect_status
1,1,one,https://example.com/1,"A, title",a|b,False,2030-01-01,308
2,1,One,https://example.com/2,,,,,
3,2,three,https://example.com/3,,,,,
3,1,three,https://example.com/4,,,,,
4,1,three,https://example.com/5,,,,,
,1,,https://example.com/6,,,,,
,1,,https://example.com/7,,,,,
1,1,four,https://example.com/8,,,,,
5,1,a//b,https://example.com/9,,,,,
6,1,six,https://sign.test/six,,,,,
7,1,seven,nonsense,,,,,
4503599627370496,1,last,https://example.com/12,,,,,
,1,users,https://example.com/13,,,,,
,1,spring.,https://example.com/14,,,,,
,1,team/구글,https://example.com/15,,,,,
`, opts)
			s.wantRows(id, 9, 6)
			want := "4 user_id, 6 short_code, 9 id, 10 short_code, 11 original_url, 12 original_url"
			if got := s.rejections(id); got != want {
				t.Errorf("rejected %q, want %q", got, want)
			}
			s.wantInt(1, `SELECT count(*) FROM urls WHERE id = 1 AND short_code = 'one' AND title = 'A, title'
				AND tags = '{a,b}' AND NOT is_active AND expires_at = '2030-01-01Z' AND redirect_status = 308`)
			s.wantInt(1, `SELECT count(*) FROM urls WHERE id = 2 AND short_code = 'One' AND title IS NULL
				AND tags = '{}' AND is_active AND expires_at IS NULL AND redirect_status = 302`)
			s.wantInt(2, "SELECT count(*) FROM urls WHERE short_code ~ '^[0-9A-Za-z]{7}$' AND id BETWEEN 4 AND 100")
			// Although the greatest possible id is taken, other ids can be drawn.
			s.wantInt(1, `WITH new AS (
				INSERT INTO urls (user_id, short_code, original_url) VALUES (1, 'new', 'https://example.com/') RETURNING id
			) SELECT count(*) FROM new WHERE id < 100`)
		})
	}
}

// A code is unique on its domain. The row, its short URL or the upload says which
// domain that is.
func TestImportOfLinksOfDomains(t *testing.T) {
	opts := csvimport.SplitOptions{ChunkRows: 3}
	s := setup(t)
	s.exec(ann)
	s.exec("INSERT INTO domains (host) VALUES ('go.example'), ('xn--bcher-kva.example')")
	s.start(map[string]int{jobs.QueueImports: 2})
	id := s.upload(csvimport.KindLinks, `user_id,short_code,original_url,domain
1,a,https://example.com/1,
1,a,https://example.com/2,go.example
1,a,https://example.com/3,Bücher.Example
1,a,https://example.com/4,GO.EXAMPLE.
1,b,https://example.com/5,no.example
1,b,https://go.example/a,
1,b,https://example.com/7,sign.test
1,,https://example.com/8,go.example
`, opts)
	s.wantRows(id, 5, 3)
	s.wantRejections(id, "5 short_code, 6 domain, 7 original_url")
	s.wantText("1 1, 2 2, 3 3, 1 7, 2 8", `SELECT string_agg(domain_id || ' ' || substr(original_url, 21), ', ' ORDER BY import_line) FROM urls`)
	opts.Domain = "go.example"
	id = s.upload(csvimport.KindLinks, "user_id,short_code,original_url,domain\n1,c,https://example.com/1,\n1,c,https://example.com/2,sign.test\n", opts)
	s.wantRows(id, 2, 0)
	s.wantInt(1, "SELECT count(*) FROM urls WHERE domain_id = 2 AND short_code = 'c' AND original_url = 'https://example.com/1'")
	opts.Domain = ""
	id = s.upload(csvimport.KindLinks, "user_id,Long,Short\n1,https://example.com/1,https://go.example/d\n1,https://example.com/2,https://other.example/d\n",
		csvimport.SplitOptions{ChunkRows: opts.ChunkRows, Mapping: map[string]string{"Long": "original_url", "Short": "short_url"}})
	s.wantRows(id, 2, 0)
	s.wantInt(2, "SELECT domain_id FROM urls WHERE short_code = 'd' AND original_url = 'https://example.com/1'")
	s.wantInt(1, "SELECT domain_id FROM urls WHERE short_code = 'd' AND original_url = 'https://example.com/2'")
}

// In every column, times without a zone are in the zone of the import. Other spellings
// of an id mean the same id, whichever chunk they are in.
func TestImportReadsValuesAlike(t *testing.T) {
	s := setup(t)
	s.exec(ann)
	s.start(map[string]int{jobs.QueueImports: 2})
	id := s.upload(csvimport.KindLinks, `id,user_id,short_code,original_url,created_at,expires_at
12,1.0,one,https://example.com/1,2024-05-01 08:00:00,2030-01-01
12.0,1,two,https://example.com/2,,
"1,204",1,three,https://example.com/3,2024-05-01T08:00:00Z,1900000000
1204,1,four,https://example.com/4
`, csvimport.SplitOptions{ChunkRows: 1, Timezone: "Asia/Tokyo"})
	s.wantRows(id, 2, 2)
	s.wantRejections(id, "3 id, 5 id")
	s.wantInt(1, "SELECT count(*) FROM urls WHERE id = 12 AND created_at = '2024-04-30 23:00:00Z' AND expires_at = '2029-12-31 15:00:00Z'")
	s.wantInt(1, "SELECT count(*) FROM urls WHERE id = 1204 AND created_at = '2024-05-01 08:00:00Z' AND expires_at = to_timestamp(1900000000)")
}

func TestImportOfEvents(t *testing.T) {
	s := setup(t)
	s.exec(annAndBob)
	s.exec(`INSERT INTO urls (id, user_id, short_code, original_url) VALUES (10, 2, 'ten', 'https://example.com/')`)
	s.start(nil)
	id := s.upload(csvimport.KindEvents, `id,url_id,user_id,event_type,timestamp,details
1,10,1,clicked,2011-03-04 05:06:07,"{""referrer"":""x""}"
2,10,,clicked,2011-03-04 05:16:07,
3,11,1,clicked,2011-03-04 05:06:07,
4,10,3,clicked,2011-03-04 05:06:07,
1,10,1,clicked,2011-03-04 05:06:07,
1,10,1,updated,2012-03-04 05:06:07,
,10,1,clicked,1999-12-31 23:59:59,
,,1,updated,2012-03-04 05:06:07,
,,1,clicked,2012-03-04 05:06:07,
,,,updated,2012-03-04 05:06:07,
,,3,updated,2012-03-04 05:06:07,
`, csvimport.SplitOptions{})
	s.wantRows(id, 4, 7)
	s.wantRejections(id, "4 url_id, 5 user_id, 6 id, 8 timestamp, 10 url_id, 11 url_id, 12 user_id")
	s.wantInt(2, "SELECT user_id FROM events WHERE source_id = 2") // the owner of the link
	s.wantInt(1, "SELECT count(*) FROM events WHERE url_id IS NULL AND user_id = 1 AND event_type = 'updated'")
	s.fold()
	s.wantInt(2, "SELECT clicks FROM rollups WHERE scope = 10 AND day = '2011-03-04'")
	s.wantInt(1, "SELECT count(*) FROM rollups WHERE scope > 0")
}

// Two imports of one file run at once: each row is imported once.
func TestImportsAtOnce(t *testing.T) {
	s := setup(t)
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test that can be repeated
	file, rows := randomUsers(r, 400)
	want := modelImport(rows, map[string]bool{})
	for _, row := range []struct{ a, b int }{{0, 0}, {20, 20}, {20, 33}} {
		s.empty("users, imports RESTART IDENTITY CASCADE")
		first := s.receive(csvimport.KindUsers, file, csvimport.SplitOptions{ChunkRows: row.a})
		second := s.receive(csvimport.KindUsers, file, csvimport.SplitOptions{ChunkRows: row.b})
		s.queueImport(first)
		s.queueImport(second)
		if s.worker == nil {
			s.start(map[string]int{jobs.QueueImports: 6})
		}
		a, b := s.ended(first), s.ended(second)
		s.wantInt(a.RowsImported+b.RowsImported, "SELECT count(*) FROM users")
		if a.State != jobs.ImportCompleted || b.State != jobs.ImportCompleted {
			t.Errorf("imports are %s and %s", a.State, b.State)
		}
		if row.a == 0 && a.RowsImported+b.RowsImported != int64(len(want)) {
			t.Errorf("%d and %d rows went in, want %d together", a.RowsImported, b.RowsImported, len(want))
		}
	}
}

// Jobs of an import that has another job by now do nothing.
func TestJobsOfAnImportThatHasAnother(t *testing.T) {
	s := setup(t)
	id := s.upload(csvimport.KindUsers, "username,email\nann,ann@example.com\nbob,bob@example.com\n", csvimport.SplitOptions{ChunkRows: 1})
	own := s.int("SELECT job_id FROM imports")
	for _, args := range []river.JobArgs{jobs.ApplyChunk{ImportID: id, Seq: 1}, jobs.FinishImport{ImportID: id}, jobs.PlanImport{ImportID: id}} {
		s.queueJob(id, args)
	}
	s.exec("UPDATE imports SET job_id = $1", own)
	s.exec("UPDATE river_job SET state = 'scheduled', scheduled_at = now() + interval '1 hour' WHERE id = $1", own)
	s.start(map[string]int{jobs.QueueImports: 4})
	s.eventually("all others are done", func() bool {
		return s.int("SELECT count(*) FROM river_job WHERE queue = 'imports' AND state = 'completed'") == 3
	})
	s.wantInt(0, "SELECT count(*) FROM users")
	s.wantValues("["+jobs.ImportQueued+"]", "SELECT state FROM imports")
}

// Two runs of one job, because its worker was taken for dead, do not disturb each
// other: the second finds each row applied.
func TestImportJobsAtOnce(t *testing.T) {
	s := setup(t)
	id := s.upload(csvimport.KindUsers, "username,email\nann,ann@example.com\nbob,bob@example.com\nbob,bobby@example.com\n", csvimport.SplitOptions{ChunkRows: 1})
	tx := s.lock("INSERT INTO users (username, email) VALUES ('ann', 'other@example.com')")
	s.start(map[string]int{jobs.QueueImports: 3})
	s.eventually("the first run waits for the row", s.waitFor(tx, 1))
	s.exec("UPDATE river_job SET state = 'available' WHERE queue = 'imports'")
	s.eventually("the second run waits for the first", s.waiting(2))
	s.rollback(tx)
	s.wantRows(id, 2, 1)
	s.wantRejections(id, "4 username")
	s.wantInt(3, "SELECT chunks_done FROM imports")
	s.eventually("both runs are done", func() bool {
		return s.int("SELECT count(*) FROM river_job WHERE queue = 'imports' AND state <> 'completed'") == 0
	})
	s.wantInt(0, "SELECT count(*) FROM river_job WHERE queue = 'imports' AND cardinality(errors) > 0")
}

// A run whose job is replaced meanwhile stops after a chunk. It leaves the new job in
// place, even if its own turn is over.
func TestReplacedImportJobStops(t *testing.T) {
	for name, test := range map[string]struct {
		turn   time.Duration
		chunks int64
	}{"in its turn": {time.Hour, 2}, "at the end of its turn": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			id := s.upload(csvimport.KindUsers, "username,email\na,a@example.com\nb,b@example.com\nc,c@example.com\nd,d@example.com\n", csvimport.SplitOptions{ChunkRows: 1})
			tx := s.lock("INSERT INTO users (username, email) VALUES ('a', 'other@example.com')")
			s.start(map[string]int{jobs.QueueImports: 2}, func(d *deps) { d.importTurn = test.turn })
			s.eventually("the run waits for the row", s.waitFor(tx, 1))
			s.exec("UPDATE imports SET job_id = 0 WHERE id = $1", id) // a job that does not exist yet
			s.rollback(tx)
			s.eventually("the run stops", func() bool {
				return s.int("SELECT count(*) FROM river_job WHERE queue = 'imports' AND state <> 'completed'") == 0
			})
			s.wantInt(test.chunks, "SELECT chunks_done FROM imports")
			s.wantInt(0, "SELECT job_id FROM imports")
			s.queueJob(id, jobs.ApplyChunk{ImportID: id})
			s.wantRows(id, 4, 0)
		})
	}
}

// Jobs take turns: each queues its successor behind the jobs of other imports.
func TestImportsTakeTurns(t *testing.T) {
	s := setup(t)
	var file strings.Builder
	for i := range 20 {
		fmt.Fprintf(&file, "ann%d,ann%d@example.com\n", i, i%18)
	}
	first := s.upload(csvimport.KindUsers, "username,email\n"+file.String(), csvimport.SplitOptions{ChunkRows: 1})
	second := s.upload(csvimport.KindUsers, "username,email\n"+strings.ReplaceAll(file.String(), "ann", "bob"), csvimport.SplitOptions{ChunkRows: 1})
	s.start(map[string]int{jobs.QueueImports: 1}, func(d *deps) { d.importTurn = time.Nanosecond })
	s.wantRows(first, 18, 2)
	s.wantRows(second, 18, 2)
	s.wantInt(42, "SELECT count(*) FROM river_job WHERE kind = 'apply_chunk'")
	// Each is done before the other has advanced by two more chunks.
	s.wantInt(0, `SELECT count(*) FROM import_chunks a JOIN import_chunks b ON a.import_id <> b.import_id AND b.seq > a.seq + 1 AND b.done_at < a.done_at`)
}

// waiting reports whether n transactions wait for a lock.
func (s *site) waiting(n int64) func() bool {
	return func() bool {
		return s.int(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND wait_event_type = 'Lock'`) == n
	}
}

// waitFor reports whether n statements wait for a lock that a transaction holds, and
// not for another job.
func (s *site) waitFor(tx pgx.Tx, n int64) func() bool {
	return func() bool {
		return s.int("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND $1 = ANY (pg_blocking_pids(pid))",
			int32(tx.Conn().PgConn().PID())) == n
	}
}

// Cancelling waits for the chunk that runs, leaves the rest, and reports how far the
// import got.
func TestCancelImport(t *testing.T) {
	s := setup(t)
	file := "username,email\n"
	for i := range 50 {
		file += fmt.Sprintf("user%d,user%d@example.com\n", i, i)
	}
	id := s.upload(csvimport.KindUsers, file, csvimport.SplitOptions{ChunkRows: 5})
	tx := s.lock("INSERT INTO users (username, email) VALUES ('user7', 'other@example.com')")
	s.start(map[string]int{jobs.QueueImports: 2})
	s.eventually("the second chunk waits", s.waitFor(tx, 1))
	s.cancel(id)
	s.eventually("the cancellation waits too", s.waiting(2))
	s.wantText(jobs.ImportCancelling, "SELECT state FROM imports WHERE id = $1", id)
	s.rollback(tx)
	imp := s.ended(id)
	if imp.State != jobs.ImportCancelled || imp.RowsTotal != 50 || imp.RowsImported != 10 || imp.ChunksDone != 2 {
		t.Errorf("import is %s: %d of %d rows, %d chunks", imp.State, imp.RowsImported, imp.RowsTotal, imp.ChunksDone)
	}
	s.wantInt(10, "SELECT count(*) FROM users")
	s.wantInt(0, "SELECT count(*) FROM import_chunks WHERE data IS NOT NULL")
}

// If a value passes our rules and Postgres refuses it, only its own row is rejected.
func TestImportOfARefusedValue(t *testing.T) {
	for name, opts := range map[string]csvimport.SplitOptions{"whole": {}, "chunked": {ChunkRows: 4}} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			s.exec("ALTER TABLE users ADD CONSTRAINT users_no_mallory CHECK (username <> 'mallory')")
			s.start(nil)
			id := s.upload(csvimport.KindUsers, `username,email
ann,ann@example.com
mallory,bob@example.com
bob,bob@example.com
Ann,cy@example.com
cy,cy@example.com
`, opts)
			s.wantRows(id, 3, 2)
			s.wantRejections(id, "3 , 5 username")
		})
	}
}

// If a user is deleted while links of the user are inserted, only those links are
// rejected.
func TestImportWhileAUserIsDeleted(t *testing.T) {
	s := setup(t)
	s.exec(annAndBob)
	id := s.upload(csvimport.KindLinks, `user_id,short_code,original_url
1,one,https://example.com/1
2,two,https://example.com/2
`, csvimport.SplitOptions{})
	tx := s.lock("DELETE FROM users WHERE id = 2")
	s.start(nil)
	s.eventually("the chunk waits", s.waitFor(tx, 1))
	s.ok(tx.Commit(s.ctx))
	s.wantRows(id, 1, 1)
	s.wantRejections(id, "3 user_id")
}

// A cancellation does not wait for the chunks in the queue, either its own or those of
// another import.
func TestCancelOvertakesChunks(t *testing.T) {
	s := setup(t)
	users := func(prefix string) int64 {
		file := "username,email\n"
		for i := range 50 {
			file += fmt.Sprintf("%s%d,%s%d@example.com\n", prefix, i, prefix, i)
		}
		return s.upload(csvimport.KindUsers, file, csvimport.SplitOptions{ChunkRows: 1})
	}
	first, second := users("ann"), users("bob")
	tx := s.lock("INSERT INTO users (username, email) VALUES ('ann5', 'other@example.com')")
	s.start(map[string]int{jobs.QueueImports: 1})
	s.eventually("a chunk waits", s.waitFor(tx, 1))
	s.cancel(first)
	s.rollback(tx)
	s.wantEnd(first, jobs.ImportCancelled)
	s.wantRows(second, 50, 0)
	s.wantInt(0, `SELECT count(*) FROM import_chunks c, imports i
		WHERE c.import_id = $1 AND i.id = $2 AND c.done_at < i.finished_at`, second, first)
}

// The remains of a large import may be tens of millions of rows. They are removed in
// pieces when the import ends, is cancelled or undone.
func TestWorkIsDroppedInPieces(t *testing.T) {
	s := setup(t)
	s.exec(`CREATE FUNCTION bound() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF (SELECT count(*) FROM gone) > 50000 THEN RAISE EXCEPTION 'too much at once'; END IF; RETURN NULL; END $$;
		CREATE TRIGGER bound AFTER DELETE ON import_trial REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION bound();
		CREATE FUNCTION hasten() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.max_attempts = 1; RETURN NEW; END $$;
		CREATE TRIGGER hasten BEFORE INSERT ON river_job FOR EACH ROW EXECUTE FUNCTION hasten()`)
	const file = "username,email\n%[1]sa,%[1]sa@example.com\n%[1]sb,%[1]sb@example.com\n"
	ending := map[string]int64{}
	for i, state := range []string{jobs.ImportCompleted, jobs.ImportCancelled, jobs.ImportUndone} {
		ending[state] = s.upload(csvimport.KindUsers, fmt.Sprintf(file, string(rune('x'+i))), csvimport.SplitOptions{ChunkRows: 1})
		s.exec("INSERT INTO import_trial (import_id, field, key) SELECT $1, 'email', n FROM generate_series(1, 120000) n", ending[state])
	}
	s.cancel(ending[jobs.ImportCancelled])
	s.exec("UPDATE imports SET state = 'failed', finished_at = now() WHERE id = $1", ending[jobs.ImportUndone])
	s.undo(ending[jobs.ImportUndone])
	s.start(nil, smallPieces)
	for state, id := range ending {
		s.eventually("import ends as "+state, func() bool { return s.text("SELECT state FROM imports WHERE id = $1", id) == state })
	}
	s.wantInt(0, "SELECT count(*) FROM import_trial")
}

// An import that draws ids passes over ids that others took beyond those that move the
// sequence, and over ids that its own rows bring.
func TestImportPassesTakenIDs(t *testing.T) {
	s := setup(t)
	const first = csvimport.MaxSequenceID
	s.exec(`INSERT INTO users (id, username, email) SELECT $1::bigint + n, 'u' || n, 'u' || n || '@example.com' FROM generate_series(1, 600) n`, int64(first))
	s.exec("SELECT setval('users_id_seq', $1::bigint)", int64(first))
	s.start(nil)
	var file strings.Builder
	file.WriteString("id,username,email\n")
	for n := range 300 {
		fmt.Fprintf(&file, "%d,v%d,v%d@example.com\n", first+601+n, n, n)
	}
	for n := range 3 {
		fmt.Fprintf(&file, ",w%d,w%d@example.com\n", n, n)
	}
	id := s.upload(csvimport.KindUsers, file.String(), csvimport.SplitOptions{})
	s.eventually("the import is done", func() bool { return s.text("SELECT state FROM imports WHERE id = $1", id) == "completed" })
	s.wantInt(303, "SELECT rows_imported FROM imports WHERE id = $1", id)
	s.wantInt(3, "SELECT count(*) FROM users WHERE username LIKE 'w%' AND id > $1::bigint + 900", int64(first))
}
