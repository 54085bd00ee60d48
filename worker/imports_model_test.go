package worker

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
)

// modelSeeds is how many random files of each kind are imported.
const modelSeeds = 5

// modelRow is a row of a random file: the keys that it claims, and whether it is
// invalid by itself.
type modelRow struct {
	text  string
	keys  []string
	wrong bool
}

// sequentially takes rows one by one. If several rows claim a key, the first one gets
// it, and a rejected row claims none. It returns the lines of the imported rows.
func sequentially(rows []modelRow, taken map[string]bool) (imported, rejected []int64) {
	for i, row := range rows {
		line := int64(i + 2)
		lost := row.wrong
		for _, key := range row.keys {
			lost = lost || taken[key]
		}
		if lost {
			rejected = append(rejected, line)
			continue
		}
		imported = append(imported, line)
		for _, key := range row.keys {
			taken[key] = true
		}
	}
	return imported, rejected
}

// randomLinks returns rows that claim few ids and codes. Some of them belong to a user
// who does not exist, or have a code that is not allowed.
func randomLinks(r *rand.Rand, n int) []modelRow {
	rows := make([]modelRow, n)
	for i := range rows {
		var id, code string
		if r.IntN(4) > 0 {
			id = fmt.Sprint(1 + r.IntN(n))
			rows[i].keys = append(rows[i].keys, "id "+id)
		}
		if r.IntN(4) > 0 {
			code = fmt.Sprintf("%c%d", "aAbB"[r.IntN(4)], r.IntN(n/2+1))
			rows[i].keys = append(rows[i].keys, "code "+code)
		}
		user := "1"
		switch r.IntN(10) {
		case 0:
			user, rows[i].wrong = "99", true
		case 1:
			code, rows[i].wrong = "a//b", true
		}
		rows[i].text = fmt.Sprintf("%s,%s,%s,https://example.com/%d", spelled(r, id), code, user, i)
	}
	return rows
}

// spelled writes an id in one of its possible spellings.
func spelled(r *rand.Rand, id string) string {
	if id == "" {
		return []string{"", " ", `""`, `\N`}[r.IntN(4)]
	}
	return []string{id, id + ".0", " " + id + " ", `"0` + id + `"`}[r.IntN(4)]
}

// randomEvents returns rows of which many have the same id, some of them at the same
// time. Some rows have a link or user that does not exist.
func randomEvents(r *rand.Rand, n int) []modelRow {
	rows := make([]modelRow, n)
	for i := range rows {
		id, minute := "", r.IntN(3)
		if r.IntN(5) > 0 {
			id = fmt.Sprint(1 + r.IntN(n/3+1))
			rows[i].keys = []string{fmt.Sprint(id, " at ", minute)}
		}
		url, user := "1", ""
		switch r.IntN(10) {
		case 0:
			url, rows[i].wrong = "99", true
		case 1:
			user, rows[i].wrong = "99", true
		case 2:
			user = "1"
		}
		at := []string{fmt.Sprintf("2024-02-29 12:%02d:00", minute), fmt.Sprint(1709208000 + 60*minute), fmt.Sprint((1709208000+60*minute)*1000) + ".0"}
		rows[i].text = fmt.Sprintf("%s,%s,%s,clicked,%s", spelled(r, id), url, user, at[r.IntN(len(at))])
	}
	return rows
}

// Links and events, too, are imported as if their rows were taken one by one.
func TestImportIsSequential(t *testing.T) {
	for _, test := range []struct {
		kind   csvimport.Kind
		header string
		random func(*rand.Rand, int) []modelRow
		taken  []string // keys that existing rows have
	}{
		{csvimport.KindLinks, "id,short_code,user_id,original_url", randomLinks, []string{"id 1", "code b1"}},
		{csvimport.KindEvents, "id,url_id,user_id,event_type,timestamp", randomEvents, nil},
	} {
		t.Run(string(test.kind), func(t *testing.T) {
			s := setup(t)
			s.shuffle()
			s.start(map[string]int{jobs.QueueImports: 3})
			for seed := range uint64(modelSeeds) {
				r := rand.New(rand.NewPCG(seed, 11)) //nolint:gosec // a test that can be repeated
				s.empty("users, urls, events, rollups, rollup_digests, imports RESTART IDENTITY CASCADE")
				s.exec(ann)
				s.exec("INSERT INTO urls (id, user_id, short_code, original_url) VALUES (1, 1, 'b1', 'https://example.com/')")
				rows, taken := test.random(r, 1+r.IntN(60)), map[string]bool{}
				for _, key := range test.taken {
					taken[key] = true
				}
				imported, rejected := sequentially(rows, taken)
				file := test.header + "\n"
				for _, row := range rows {
					file += row.text + "\n"
				}
				id := s.upload(test.kind, file, csvimport.SplitOptions{ChunkRows: 1 + r.IntN(10)})
				s.wantRows(id, int64(len(imported)), int64(len(rejected)))
				s.wantValues(fmt.Sprint(imported), "SELECT import_line FROM "+string(test.kind)+" WHERE import_id = $1 ORDER BY 1", id)
				s.wantValues(fmt.Sprint(rejected), "SELECT line FROM import_errors WHERE import_id = $1 ORDER BY 1", id)
				if test.kind == csvimport.KindEvents {
					s.wantClicks(int64(len(imported)), 0)
					s.wantRollups()
				}
				if t.Failed() {
					t.Fatalf("seed %d: rejected %s of\n%s", seed, s.rejections(id), file)
				}
			}
		})
	}
}

// shuffle makes jobs run in random order.
func (s *site) shuffle() {
	s.Helper()
	s.exec(`
		CREATE FUNCTION shuffle() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN NEW.priority = 1 + floor(random() * 4); RETURN NEW; END $$;
		CREATE TRIGGER shuffle BEFORE INSERT ON river_job FOR EACH ROW EXECUTE FUNCTION shuffle()`)
}

// wantValues checks the result of a query of numbers, written as Go writes a slice.
func (s *site) wantValues(want, sql string, args ...any) {
	s.Helper()
	got := s.text("SELECT '[' || COALESCE(string_agg(n::text, ' '), '') || ']' FROM ("+sql+") r (n)", args...)
	if got != want {
		s.Errorf("%s: %s, want %s", sql, got, want)
	}
}

// Links in a file without owners belong to the owner that the upload names.
func TestImportOfLinksWithoutOwners(t *testing.T) {
	s := setup(t)
	s.exec("INSERT INTO users (id, username, email) VALUES (7, 'ann', 'ann@example.com')")
	id := s.receive(csvimport.KindLinks, "source,target,hits\n/one/,https://example.com/1,12\n/two/,https://example.com/2,0\n", csvimport.SplitOptions{})
	s.exec("UPDATE imports SET owner_id = 7 WHERE id = $1", id)
	s.queueImport(id)
	s.start(nil)
	s.wantRows(id, 2, 0)
	s.wantInt(2, "SELECT count(*) FROM urls WHERE user_id = 7")
	s.wantInt(12, "SELECT imported_clicks FROM urls WHERE short_code = 'one'")
}

// Postgres is killed again and again while chunks are applied. Each row is imported or
// reported once, and the same rows win as without kills.
func TestImportOutlivesPostgres(t *testing.T) {
	s := setupMortal(t)
	// Chunks take long enough for a kill.
	s.exec(`
		CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END $$;
		CREATE TRIGGER linger AFTER INSERT ON users FOR EACH STATEMENT EXECUTE FUNCTION linger()`)
	r := rand.New(rand.NewPCG(5, 5)) //nolint:gosec // a test that can be repeated
	file, rows := randomUsers(r, 1500)
	want := modelImport(rows, map[string]bool{})
	id := s.upload(csvimport.KindUsers, file, csvimport.SplitOptions{ChunkRows: 50})
	s.start(map[string]int{jobs.QueueImports: 3})
	s.killPostgres("more chunks are done", "SELECT chunks_done FROM imports WHERE id = $1", id)
	s.wantRows(id, int64(len(want)), int64(len(rows)-len(want)))
	s.wantLines(rows, want, true, "SELECT import_line FROM users WHERE import_id = $1", id)
	s.wantLines(rows, want, false, "SELECT line FROM import_errors WHERE import_id = $1", id)
	if t.Failed() {
		t.Logf("rejected %s", strings.ReplaceAll(s.rejections(id), ", ", "\n"))
	}
}
