package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/queries"
)

// retryImport continues an import that failed, as the API does.
func (s *site) retryImport(id int64) {
	s.Helper()
	row, err := queries.New(s.pool).ReopenImport(s.ctx, id)
	s.ok(err)
	s.queueJob(id, jobs.NextOfImport(id, row.State))
}

// If some part of an import fails again and again, the import ends as failed and gives
// the reason. After the cause is removed, it continues at the point where it stopped,
// and ends as if nothing had happened.
func TestFailedImportIsRetried(t *testing.T) {
	file := "username,email\n"
	for i := range 20 {
		file += fmt.Sprintf("user%d,user%d@example.com\n", i, i)
	}
	file += "USER3,other@example.com\nuser7,else@example.com\n"
	for name, test := range map[string]struct {
		chunkRows int
		trouble   string // inserting a row fails if this is true of it
		says      string
	}{
		"a chunk":      {5, "NEW.username = 'user11'", "the 5 rows from line 12 on could not be applied (the database says XX000)"},
		"the only one": {0, "NEW.username = 'user11'", "the 22 rows from line 2 on could not be applied (the database says XX000)"},
	} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			s.exec(fmt.Sprintf(`
				CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
					$$ BEGIN IF %s THEN RAISE EXCEPTION 'trouble' USING ERRCODE = 'XX000'; END IF; RETURN NEW; END $$;
				CREATE TRIGGER fail BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION fail();
				CREATE FUNCTION hasten() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.max_attempts = 2; RETURN NEW; END $$;
				CREATE TRIGGER hasten BEFORE INSERT ON river_job FOR EACH ROW EXECUTE FUNCTION hasten()`, test.trouble))
			s.start(map[string]int{jobs.QueueImports: 3})
			id := s.upload(csvimport.KindUsers, file, csvimport.SplitOptions{ChunkRows: test.chunkRows})
			imp := s.ended(id)
			if imp.State != jobs.ImportFailed || or(imp.Error, "") != test.says {
				t.Fatalf("import is %s: %s", imp.State, or(imp.Error, ""))
			}
			s.exec("DROP TRIGGER fail ON users")
			s.retryImport(id)
			s.eventually("the import is completed", func() bool {
				return s.text("SELECT state FROM imports WHERE id = $1", id) == jobs.ImportCompleted
			})
			s.wantRows(id, 20, 2)
			s.wantInt(20, "SELECT count(DISTINCT import_line) FROM users WHERE import_id = $1", id)
			s.wantRejections(id, "22 username, 23 username")
		})
	}
}

// An error that passes by itself is no reason to give up.
func TestFinal(t *testing.T) {
	t.Parallel()
	timedOut, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	<-timedOut.Done()
	for _, test := range []struct {
		ctx  context.Context
		err  error
		want bool
	}{
		{t.Context(), errors.New("anything"), true},
		{t.Context(), &pgconn.PgError{Code: "XX000"}, true},
		{t.Context(), &pgconn.PgError{Code: "53100"}, false}, // the disk is full
		{t.Context(), io.ErrUnexpectedEOF, false},
		{t.Context(), context.Canceled, false},
		{t.Context(), context.DeadlineExceeded, false},
		{timedOut, context.DeadlineExceeded, true}, // the job itself took too long
		{t.Context(), river.JobSnooze(0), false},
		{t.Context(), river.JobCancel(errors.New("gone")), false},
	} {
		if got := final(test.ctx, fmt.Errorf("apply: %w", test.err)); got != test.want {
			t.Errorf("%v (%v): final %v", test.err, test.ctx.Err(), got)
		}
	}
}

// If an import is cancelled when its last row is done, it is completed.
func TestCancelOfADoneImport(t *testing.T) {
	s := setup(t)
	s.start(nil)
	id := s.upload(csvimport.KindUsers, "username,email\n"+strings.Repeat("a,a@example.com\n", 3), csvimport.SplitOptions{ChunkRows: 1})
	s.wantRows(id, 1, 2)
	// This is the state just before the end.
	s.exec("UPDATE imports SET finished_at = NULL WHERE id = $1", id)
	s.cancel(id)
	s.wantEnd(id, jobs.ImportCompleted)
}

// An import whose chunks cannot be read fails its job, not the worker, and can still be
// cancelled.
func TestImportOfChunksThatCannotBeRead(t *testing.T) {
	for name, damage := range map[string]string{
		"records are missing": "UPDATE import_chunks SET rows = 7",
		"the parser panics":   `UPDATE imports SET layout = jsonb_set(layout, '{max_record}', '-100')`,
	} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			id := s.upload(csvimport.KindUsers, "username,email\na,a@example.com\n", csvimport.SplitOptions{})
			s.exec(damage)
			s.start(map[string]int{jobs.QueueImports: 1})
			s.eventually("its job fails", func() bool {
				return s.int("SELECT count(*) FROM river_job WHERE kind = 'apply_chunk' AND cardinality(errors) > 0") == 1
			})
			s.cancel(id)
			s.wantEnd(id, jobs.ImportCancelled)
			s.wantInt(0, "SELECT count(*) FROM users")
		})
	}
}

// An import that the previous release began is continued: rows that it set aside come
// last, in file order, and each row is applied once.
func TestImportOfTheReleaseBefore(t *testing.T) {
	s := setup(t)
	id := s.receive(csvimport.KindUsers, "username,email\na,a@example.com\nA,b@example.com\nb,b@example.com\nB,c@example.com\nc,d@example.com\n",
		csvimport.SplitOptions{ChunkRows: 1})
	s.exec("INSERT INTO import_contended (import_id, key) VALUES ($1, 1)", id)
	s.exec("INSERT INTO import_deferred (import_id, line, record) SELECT import_id, first_line, rtrim(convert_from(data, 'UTF8'), E'\\n')::bytea FROM import_chunks WHERE seq IN (1, 3)")
	s.exec("UPDATE import_chunks SET data = NULL, done_at = now() WHERE seq IN (1, 3)")
	s.exec("UPDATE imports SET state = 'running', chunks_total = 5, chunks_done = 2, rows_total = 5 WHERE id = $1", id)
	s.queueJob(id, jobs.PlanImport{ImportID: id})
	s.start(nil)
	s.wantRows(id, 3, 2)
	s.wantRejections(id, "3 username, 5 username")
	s.wantInt(7, "SELECT chunks_done FROM imports")
	s.wantInt(0, "SELECT (SELECT count(*) FROM import_contended) + (SELECT count(*) FROM import_deferred)")
}
