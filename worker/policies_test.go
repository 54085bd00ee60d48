package worker

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
)

// outcomesOf lists the rows that an import skipped or updated, each with the existing
// row that it conflicted with and the values that were replaced.
func (s *site) outcomesOf(id int64) string {
	s.Helper()
	return s.text(`SELECT string_agg(concat_ws(' ', line, outcome, row_id, before), E'\n' ORDER BY line)
		FROM import_outcomes WHERE import_id = $1`, id)
}

// An update sets the fields of a link that are in the file, leaves the others, and is a
// change like any other to processes that have the link in memory.
func TestUpdateOfLinks(t *testing.T) {
	for name, opts := range map[string]csvimport.SplitOptions{"whole": {}, "chunked": {ChunkRows: 1}} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			s.exec(annAndBob)
			s.exec(`INSERT INTO urls (id, user_id, short_code, original_url, title, tags, is_active, expires_at, redirect_status,
					forward_query, imported_clicks, created_at, updated_at)
				SELECT n, 1, 'c' || n, 'https://example.com/' || n, 'old', '{a,b}', false, '2030-01-01Z', 308, true, 7, '2020-01-01Z', '2020-01-01Z'
				FROM generate_series(1, 3) n`)
			s.empty("link_changes")
			version := s.int("SELECT max(version) FROM urls")
			s.start(nil)
			id := s.uploadAs(csvimport.KindLinks, `id,short_code,user_id,original_url,title,tags,is_active,expires_at,redirect_status,forward_query,imported_clicks,created_at,updated_at
1,c1,1,https://example.org/1,,,,,,,,,
2,,2,https://example.org/2,new,c|d,true,2031-01-01,301,false,9,2021-01-01,2021-01-01
,c3,1,https://example.com/3,,,,,,,,,
,c4,1,https://example.org/4,,,,,,,,,
,c4,1,https://example.org/4,last,,,,,,,,
1,c2,1,https://example.org/x,,,,,,,,,
9,c3,1,https://example.org/x,,,,,,,,,
2,nine,1,https://example.org/x,,,,,,,,,
`, opts, csvimport.PolicyUpdate, false)
			s.outcomes(id)
			want := `2 updated 1 {"original_url": "https://example.com/1"}
3 updated 2 {"tags": ["a", "b"], "title": "old", "user_id": 1, "is_active": false, "created_at": "2020-01-01T00:00:00+00:00", ` +
				`"expires_at": "2030-01-01T00:00:00+00:00", "original_url": "https://example.com/2", "forward_query": true, ` +
				`"imported_clicks": 7, "redirect_status": 308}
4 updated 3 {}
6 updated 4 {"title": null}`
			got := strings.ReplaceAll(s.outcomesOf(id), fmt.Sprint("6 updated ", s.int("SELECT id FROM urls WHERE short_code = 'c4'")), "6 updated 4")
			if got != want {
				t.Errorf("outcomes are\n%s\nwant\n%s", got, want)
			}
			s.wantRejections(id, "7 short_code, 8 id, 9 short_code")
			s.wantInt(1, `SELECT count(*) FROM urls WHERE id = 1 AND original_url = 'https://example.org/1' AND title = 'old' AND tags = '{a,b}'
				AND NOT is_active AND expires_at = '2030-01-01Z' AND redirect_status = 308 AND forward_query AND imported_clicks = 7
				AND created_at = '2020-01-01Z' AND updated_at > now() - interval '1 minute' AND import_id IS NULL AND user_id = 1`)
			s.wantInt(1, `SELECT count(*) FROM urls WHERE id = 2 AND original_url = 'https://example.org/2' AND title = 'new' AND tags = '{c,d}'
				AND is_active AND expires_at = '2031-01-01Z' AND redirect_status = 301 AND NOT forward_query AND imported_clicks = 9
				AND created_at = '2021-01-01Z' AND updated_at > now() - interval '1 minute' AND short_code = 'c2' AND user_id = 2`)
			s.wantInt(3, "SELECT count(*) FROM urls WHERE id <= 3 AND version > $1", version)
			s.wantInt(4, "SELECT count(DISTINCT c.short_code) FROM link_changes c JOIN urls u USING (short_code, version)")
			s.wantInt(0, "SELECT count(*) FROM events")
			s.wantInt(1, "SELECT count(*) FROM urls WHERE short_code = 'c4' AND title = 'last' AND import_line = 5 AND import_touched IS NULL")
			s.uploadAs(csvimport.KindLinks, "id,short_code,user_id,original_url\n,c4,1,https://example.net/\n", opts, csvimport.PolicyUpdate, false)
			s.eventually("another import updates it", func() bool {
				return s.int("SELECT count(*) FROM urls WHERE short_code = 'c4' AND original_url = 'https://example.net/' AND import_touched") == 1
			})
		})
	}
}

// If only the upload names the owner, updated links keep theirs.
func TestUpdateKeepsOwners(t *testing.T) {
	s := setup(t)
	s.exec(annAndBob)
	s.exec("INSERT INTO urls (user_id, short_code, original_url) VALUES (1, 'old', 'https://example.com/')")
	id := s.receive(csvimport.KindLinks, "keyword,url,clicks\nold,https://example.org/1,5\nfresh,https://example.org/2,6\n", csvimport.SplitOptions{})
	s.exec("UPDATE imports SET owner_id = 2, on_conflict = 'update' WHERE id = $1", id)
	s.queueImport(id)
	s.start(nil)
	s.outcomes(id)
	s.wantInt(1, "SELECT count(*) FROM urls WHERE short_code = 'old' AND user_id = 1 AND imported_clicks = 5 AND original_url = 'https://example.org/1'")
	s.wantInt(1, "SELECT count(*) FROM urls WHERE short_code = 'fresh' AND user_id = 2 AND imported_clicks = 6")
}

// Users are identified by id and username. Their address is a value like others, and
// can pass from one user to another in file order.
func TestUpdateOfUsers(t *testing.T) {
	for name, opts := range map[string]csvimport.SplitOptions{"whole": {}, "chunked": {ChunkRows: 1}} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			s.exec(`INSERT INTO users (id, username, email, created_at) VALUES
				(1, 'Ann', 'ann@example.com', '2020-01-01Z'), (2, 'bob', 'bob@example.com', '2020-01-01Z'), (3, 'cy', 'cy@example.com', '2020-01-01Z')`)
			s.start(map[string]int{jobs.QueueImports: 3})
			id := s.uploadAs(csvimport.KindUsers, `id,username,email,created_at
2,bob,ann@example.com,
1,ANN,new@example.com,
2,bob,ann@example.com,2021-01-01
3,bob,x@example.com,
3,cyril,x@example.com,
,dora,bob@example.com,
,cy,CY@example.com,
`, opts, csvimport.PolicyUpdate, false)
			s.outcomes(id)
			want := `3 updated 1 {"email": "ann@example.com"}
4 updated 2 {"email": "bob@example.com", "created_at": "2020-01-01T00:00:00+00:00"}
8 updated 3 {"email": "cy@example.com"}`
			if got := s.outcomesOf(id); got != want {
				t.Errorf("outcomes are\n%s\nwant\n%s", got, want)
			}
			s.wantRejections(id, "2 email, 5 username, 6 username")
			s.wantInt(1, "SELECT count(*) FROM users WHERE id = 1 AND username = 'Ann' AND email = 'new@example.com'")
			s.wantInt(1, "SELECT count(*) FROM users WHERE username = 'dora' AND email = 'bob@example.com' AND import_line = 7")
		})
	}
}

// Skipped rows name the row that they conflicted with.
func TestSkip(t *testing.T) {
	s := setup(t)
	s.exec(annAndBob)
	s.exec("INSERT INTO urls (id, user_id, short_code, original_url) VALUES (10, 1, 'ten', 'https://example.com/')")
	s.start(nil)
	users := s.uploadAs(csvimport.KindUsers, "id,username,email\n1,ann,ann@example.com\n7,new,BOB@example.com\n7,cy,cy@example.com\n7,dora,dora@example.com\n8,,\n",
		csvimport.SplitOptions{}, csvimport.PolicySkip, false)
	s.outcomes(users)
	if got, want := s.outcomesOf(users), "2 skipped 1\n3 skipped 2\n5 skipped 7"; got != want {
		t.Errorf("outcomes are %q, want %q", got, want)
	}
	const file = "id,url_id,event_type,timestamp\n1,10,clicked,2011-03-04\n1,10,clicked,2011-03-04\n1,10,clicked,2011-03-05\n2,99,clicked,2011-03-04\n"
	for range 2 {
		s.outcomes(s.uploadAs(csvimport.KindEvents, file, csvimport.SplitOptions{ChunkRows: 1}, csvimport.PolicySkip, false))
	}
	s.wantClicks(2, 0)
	s.wantInt(2, "SELECT count(*) FROM events")
	s.wantInt(4, "SELECT count(*) FROM import_outcomes o JOIN events e ON e.id = o.row_id WHERE outcome = 'skipped' AND before IS NULL AND o.import_id <> $1", users)
}

// A dry run of events makes no partition, and has the same results as the import after
// it.
func TestDryRunOfEvents(t *testing.T) {
	s := setup(t)
	s.exec(ann)
	s.exec("INSERT INTO urls (id, user_id, short_code, original_url) VALUES (1, 1, 'b1', 'https://example.com/')")
	s.shuffle()
	s.start(map[string]int{jobs.QueueImports: 3})
	for seed := range uint64(modelSeeds) {
		s.empty("events, rollups, rollup_digests")
		r := rand.New(rand.NewPCG(seed, 29)) //nolint:gosec // a test that can be repeated
		var file strings.Builder
		file.WriteString("id,url_id,user_id,event_type,timestamp\n")
		for _, row := range randomEvents(r, 1+r.IntN(60)) {
			file.WriteString(strings.ReplaceAll(row.text, "2024-02", fmt.Sprintf("20%02d-02", 1+seed)) + "\n")
		}
		opts, policy := csvimport.SplitOptions{ChunkRows: 1 + r.IntN(10)}, csvimport.PolicyReject
		if seed%2 == 1 {
			policy = csvimport.PolicySkip
		}
		before := s.everything()
		dry := s.uploadAs(csvimport.KindEvents, file.String(), opts, policy, true)
		trial := s.outcomes(dry)
		if after := s.everything(); after != before {
			t.Errorf("a dry run changed\n%s\nto\n%s", before, after)
		}
		id := s.uploadAs(csvimport.KindEvents, file.String(), opts, policy, false)
		real := s.outcomes(id)
		s.wantSameReport(dry, id)
		if fmt.Sprint(trial) != fmt.Sprint(real) {
			t.Errorf("seed %d: the dry run said %v, the import did %v", seed, trial, real)
		}
	}
}

// Events of a month that an operator detached are rejected, also by a dry run.
func TestDryRunOfDetachedMonths(t *testing.T) {
	s := setup(t)
	s.exec(ann)
	s.exec("INSERT INTO urls (id, user_id, short_code, original_url) VALUES (1, 1, 'b1', 'https://example.com/')")
	s.exec("CREATE TABLE events_2011_03 (LIKE events)")
	s.start(nil)
	const file = "url_id,event_type,timestamp\n1,clicked,2011-02-04\n1,clicked,2011-03-04\n1,clicked,2011-04-04\n"
	for _, dry := range []bool{true, false} {
		id := s.uploadAs(csvimport.KindEvents, file, csvimport.SplitOptions{}, csvimport.PolicyReject, dry)
		s.outcomes(id)
		s.wantRejections(id, "3 timestamp")
	}
}

// The size of details of events is bounded in the form in which Postgres writes them,
// however they are written in the file. If Postgres refuses them, a dry run refuses
// them too.
func TestDetailsAsPostgresWritesThem(t *testing.T) {
	s := setup(t)
	s.exec(ann)
	s.exec("INSERT INTO urls (id, user_id, short_code, original_url) VALUES (1, 1, 'b1', 'https://example.com/')")
	s.start(nil)
	var file strings.Builder
	file.WriteString("url_id,event_type,timestamp,details\n")
	for _, details := range []string{
		`{"a":[1e999,-1.5E+3,0.50e-2,0e-9,-0.0,1e0,-0]}`,
		`{"a":[` + strings.Repeat("1,", 13_600) + `0]}`,
		`{"a":"` + strings.Repeat(`\u0001\n`, 3600) + `"}`,
		`{"a":1e-998,"b":0.` + strings.Repeat("1", 998) + `}`,
		// From here on, all are rejected.
		`{"a":[` + strings.Repeat("1e999,", 42) + `0]}`,
		`{"a":[` + strings.Repeat("1e-900,", 47) + `0]}`,
		`{"a":[` + strings.Repeat("1,", 13_700) + `0]}`,
		`{"a":0.` + strings.Repeat("1", 16_400) + `}`,
		`{"a":1e-16384}`, `{"a":1e131072}`, `{"a":1e99999999999}`,
	} {
		file.WriteString(`1,updated,2024-02-01,"` + strings.ReplaceAll(details, `"`, `""`) + "\"\n")
	}
	dry := s.uploadAs(csvimport.KindEvents, file.String(), csvimport.SplitOptions{}, csvimport.PolicyReject, true)
	s.ended(dry)
	id := s.uploadAs(csvimport.KindEvents, file.String(), csvimport.SplitOptions{}, csvimport.PolicyReject, false)
	s.wantRows(id, 4, 7)
	s.wantSameReport(dry, id)
	s.wantInt(0, "SELECT count(*) FROM import_errors WHERE reason LIKE '%stored%' OR field <> 'details'")
	s.wantInt(0, "SELECT count(*) FROM events WHERE octet_length(details::text) > 40960")
	// Exported details can be imported again.
	again := s.upload(csvimport.KindEvents, "url_id,event_type,timestamp,details\n"+s.text(`SELECT string_agg(
		'1,updated,2024-03-01,"' || replace(details::text, '"', '""') || '"', E'\n') FROM events`), csvimport.SplitOptions{})
	s.wantRows(again, 4, 0)
	s.wantInt(4, "SELECT count(DISTINCT details) FROM events")
}

// A dry run reports the same rows for the same reasons.
func TestDryRunOfExamples(t *testing.T) {
	for name, opts := range map[string]csvimport.SplitOptions{"whole": {}, "chunked": {ChunkRows: 7}} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			s.start(map[string]int{jobs.QueueImports: 4})
			for _, file := range []struct {
				name string
				kind csvimport.Kind
			}{{"users.csv", csvimport.KindUsers}, {"urls.csv", csvimport.KindLinks}, {"events.csv", csvimport.KindEvents}} {
				reports := map[bool]string{}
				for _, dry := range []bool{true, false} {
					id := s.uploadAs(file.kind, read(t, file.name), opts, csvimport.PolicyReject, dry)
					s.outcomes(id)
					table := string(file.kind)
					if dry {
						table = "(SELECT import_id, line AS import_line FROM import_outcomes WHERE outcome = 'imported')"
					}
					reports[dry] = s.text(`SELECT string_agg(concat_ws(' ', line, field, reason, record), E'\n' ORDER BY line) FROM (
						SELECT line, field, reason, record FROM import_errors WHERE import_id = $1
						UNION ALL SELECT import_line, 'imported', '', '' FROM `+table+` made WHERE import_id = $1) r`, id)
				}
				if reports[true] != reports[false] {
					t.Errorf("%s: the dry run reports\n%s\nthe import\n%s", file.name, reports[true], reports[false])
				}
			}
		})
	}
}

// Two imports that update the same rows in opposite orders do not block each other for
// good.
func TestUpdatesAtOnce(t *testing.T) {
	s := setup(t)
	s.exec(`INSERT INTO users (username, email) SELECT 'u' || n, 'm' || n || '@example.com' FROM generate_series(1, 300) n`)
	up, down := "username,email\n", "username,email\n"
	for n := range 300 {
		up += fmt.Sprintf("u%d,up%d@example.com\n", n+1, n+1)
		down += fmt.Sprintf("u%d,down%d@example.com\n", 300-n, 300-n)
	}
	var ids []int64
	for _, file := range []string{up, down, up, down} {
		id := s.receive(csvimport.KindUsers, file, csvimport.SplitOptions{ChunkRows: 60})
		s.exec("UPDATE imports SET on_conflict = 'update' WHERE id = $1", id)
		s.queueImport(id)
		ids = append(ids, id)
	}
	s.start(map[string]int{jobs.QueueImports: 6})
	for _, id := range ids {
		if imp := s.ended(id); imp.State != jobs.ImportCompleted || imp.RowsUpdated != 300 {
			t.Errorf("import is %s with %d rows updated", imp.State, imp.RowsUpdated)
		}
	}
	s.wantInt(300, "SELECT count(*) FROM users WHERE email ~ '^(up|down)[0-9]+@example.com$'")
}

// Postgres is killed again and again while chunks update rows. Each outcome is recorded
// once, and the same rows win as without kills.
func TestUpdateOutlivesPostgres(t *testing.T) {
	s := setupMortal(t)
	c := policyCases[0]
	s.exec(c.fill)
	s.exec(`
		CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;
		CREATE TRIGGER linger AFTER INSERT OR UPDATE ON users FOR EACH STATEMENT EXECUTE FUNCTION linger()`)
	r := rand.New(rand.NewPCG(5, 5)) //nolint:gosec // a test that can be repeated
	rows := c.random(r, 900)
	file, m, want := c.header+"\n", newPolicyModel(c, csvimport.PolicyUpdate), map[int64]outcome{}
	for i, row := range rows {
		file += row.text + "\n"
		want[int64(i+2)] = m.take(row, i+2)
	}
	id := s.uploadAs(c.kind, file, csvimport.SplitOptions{ChunkRows: 60}, csvimport.PolicyUpdate, false)
	s.start(map[string]int{jobs.QueueImports: 3})
	s.killPostgres("more rows are done", "SELECT rows_imported + rows_updated + rows_rejected FROM imports WHERE id = $1", id)
	got := s.outcomes(id)
	for line, is := range want {
		if got[line] != is {
			t.Errorf("line %d is %q, want %q", line, got[line], is)
		}
	}
	s.wantText(m.list(), c.list)
}

// Rows that name a link by different keys are taken in file order, even if codes are in
// a column with another name.
func TestUpdatesByMappedCodes(t *testing.T) {
	s := setup(t)
	s.exec(ann)
	s.exec("INSERT INTO urls (id, user_id, short_code, original_url) VALUES (5, 1, 'five', 'https://example.com/')")
	s.start(nil)
	const file = "id,name,user_id,original_url\n,five,1,https://example.com/first\n5,,1,https://example.com/last\n"
	for _, column := range []string{"slug", "short_url", "short_code"} {
		for _, rows := range []int{0, 1} {
			text := file
			if column == "short_url" {
				text = strings.Replace(file, ",five,", ",https://x.example/five,", 1)
			}
			opts := csvimport.SplitOptions{ChunkRows: rows, Mapping: map[string]string{"name": column}}
			if imp := s.ended(s.uploadAs(csvimport.KindLinks, text, opts, csvimport.PolicyUpdate, false)); imp.RowsUpdated != 2 {
				t.Errorf("%s: %d rows are updated", column, imp.RowsUpdated)
			}
			s.wantValues("[https://example.com/last]", "SELECT original_url FROM urls WHERE id = 5")
		}
	}
}

// A code that nobody may give by hand still identifies its link, in each spelling.
func TestUpdateByImportedCodes(t *testing.T) {
	s := setup(t)
	s.exec(ann)
	s.exec(`INSERT INTO urls (user_id, short_code, original_url)
		SELECT 1, code, 'https://example.com/before' FROM unnest('{users,spring.,team/구글,café}'::text[]) code`)
	s.start(nil)
	const file = "short_code,user_id,original_url\nusers,1,https://example.com/1\nspring.,1,https://example.com/2\n" +
		"team/구글,1,https://example.com/3\ncafe\u0301,1,https://example.com/4\n"
	for _, rows := range []int{0, 1} {
		opts := csvimport.SplitOptions{ChunkRows: rows}
		if imp := s.ended(s.uploadAs(csvimport.KindLinks, file, opts, csvimport.PolicyUpdate, false)); imp.RowsUpdated != 4 {
			t.Errorf("%d rows are updated, want 4", imp.RowsUpdated)
		}
	}
	s.wantInt(4, "SELECT count(*) FROM urls WHERE original_url ~ '/[1-4]$'")
	// Two spellings of one code make two rows for one link: the lower line wins.
	twice := "short_code,user_id,original_url\nnaïve,1,https://example.com/first\nnai\u0308ve,1,https://example.com/last\n"
	for _, rows := range []int{0, 1} {
		imp := s.ended(s.uploadAs(csvimport.KindLinks, twice, csvimport.SplitOptions{ChunkRows: rows}, csvimport.PolicyUpdate, false))
		if imp.RowsImported+imp.RowsUpdated != 2 {
			t.Errorf("%d rows are imported and %d updated", imp.RowsImported, imp.RowsUpdated)
		}
		s.wantValues("[https://example.com/last]", "SELECT original_url FROM urls WHERE short_code = 'naïve'")
	}
}
