package worker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
)

// policySeeds is the number of random files of each kind for each policy.
const policySeeds = 8

// stored is a row of the database in the model. Of users, key is the username and value
// the address. Of links, key is the code and value the title. If id is 0, the row draws
// its id.
type stored struct {
	id         int64
	key, value string
	line       int // line in the file; 0 for a row that was there before
}

// policyRow is a row of a random file.
type policyRow struct {
	id         int64 // 0 for none
	key, value string
	wrong      bool
	text       string
}

// policyModel takes rows one by one.
type policyModel struct {
	policy csvimport.Policy
	unique bool // no two rows may have the same value
	rows   []*stored
}

func (m *policyModel) find(has func(*stored) bool) *stored {
	if i := slices.IndexFunc(m.rows, has); i >= 0 {
		return m.rows[i]
	}
	return nil
}

// take decides the outcome of a row, and carries it out.
func (m *policyModel) take(r policyRow, line int) outcome {
	if r.wrong {
		return outcomeRejected
	}
	var byID, byKey, byValue *stored
	if r.id != 0 {
		byID = m.find(func(s *stored) bool { return s.id == r.id })
	}
	if r.key != "" {
		byKey = m.find(func(s *stored) bool { return strings.EqualFold(s.key, r.key) && (m.unique || s.key == r.key) })
	}
	if m.unique {
		byValue = m.find(func(s *stored) bool { return strings.EqualFold(s.value, r.value) })
	}
	switch {
	case byID == nil && byKey == nil && byValue == nil:
		m.rows = append(m.rows, &stored{r.id, r.key, r.value, line})
		return outcomeImported
	case m.policy == csvimport.PolicySkip:
		return outcomeSkipped
	case m.policy == csvimport.PolicyReject:
		return outcomeRejected
	}
	same := byID
	if same == nil {
		same = byKey
	}
	switch {
	case same == nil, r.id != 0 && byID != same, r.key != "" && byKey != same:
		return outcomeRejected
	case byValue != nil && byValue != same:
		return outcomeRejected
	}
	same.value = r.value
	return outcomeUpdated
}

// randomPolicyUsers returns rows for few users, some of whom exist, and that exchange
// addresses among themselves.
func randomPolicyUsers(r *rand.Rand, n int) []policyRow {
	rows := make([]policyRow, n)
	for i := range rows {
		row := policyRow{key: fmt.Sprintf("%c%d", "uU"[r.IntN(2)], r.IntN(n/2+4)), value: fmt.Sprintf("m%d@example.com", r.IntN(n/2+4))}
		if r.IntN(2) == 0 { // often the id that such a user has
			row.id = 1 + int64(r.IntN(n/2+4))
			if r.IntN(3) > 0 {
				row.key = fmt.Sprintf("u%d", row.id)
			}
		}
		if r.IntN(12) == 0 {
			row.value, row.wrong = "nonsense", true
		}
		row.text = fmt.Sprintf("%s,%s,%s", idText(row.id), row.key, row.value)
		rows[i] = row
	}
	return rows
}

// randomPolicyLinks returns rows for few links, which they name by id, code or both.
func randomPolicyLinks(r *rand.Rand, n int) []policyRow {
	rows := make([]policyRow, n)
	for i := range rows {
		row := policyRow{value: fmt.Sprintf("title %d", i)}
		if r.IntN(3) > 0 {
			row.id = 1 + int64(r.IntN(n/2+4))
		}
		switch r.IntN(4) {
		case 0:
			row.key = fmt.Sprintf("%c%d", "uU"[r.IntN(2)], 1+r.IntN(n/2+4))
		case 1, 2:
			row.key = fmt.Sprintf("u%d", max(row.id, 1))
		}
		user := "1"
		if r.IntN(12) == 0 {
			user, row.wrong = "99", true
		}
		row.text = fmt.Sprintf("%s,%s,%s,https://example.com/,%s", idText(row.id), row.key, user, row.value)
		rows[i] = row
	}
	return rows
}

func idText(id int64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprint(id)
}

// policyCase is a kind of files with a model.
type policyCase struct {
	kind   csvimport.Kind
	header string
	random func(*rand.Rand, int) []policyRow
	fill   string // makes the rows 1 to 4, which exist before
	list   string // lists each row as "key value"
}

var policyCases = []policyCase{
	{
		csvimport.KindUsers, "id,username,email", randomPolicyUsers,
		"INSERT INTO users (id, username, email) SELECT n, 'u' || n, 'm' || n || '@example.com' FROM generate_series(1, 4) n",
		"SELECT COALESCE(string_agg(username || ' ' || email, ', ' ORDER BY username, email), '') FROM users",
	},
	{
		csvimport.KindLinks, "id,short_code,user_id,original_url,title", randomPolicyLinks,
		`WITH u AS (INSERT INTO users (id, username, email) VALUES (1, 'ann', 'ann@example.com'))
		INSERT INTO urls (id, user_id, short_code, original_url, title)
		SELECT n, 1, 'u' || n, 'https://example.com/', 'old ' || n FROM generate_series(1, 4) n`,
		`SELECT COALESCE(string_agg(CASE WHEN length(short_code) = 7 THEN '' ELSE short_code END || ' ' || title, ', '
			ORDER BY CASE WHEN length(short_code) = 7 THEN '' ELSE short_code END, title), '') FROM urls`,
	},
}

func newPolicyModel(c policyCase, policy csvimport.Policy) *policyModel {
	m := &policyModel{policy: policy, unique: c.kind == csvimport.KindUsers}
	for n := range 4 {
		value := fmt.Sprintf("old %d", n+1)
		if m.unique {
			value = fmt.Sprintf("m%d@example.com", n+1)
		}
		m.rows = append(m.rows, &stored{int64(n + 1), fmt.Sprintf("u%d", n+1), value, 0})
	}
	return m
}

func (m *policyModel) list() string {
	all := make([]string, len(m.rows))
	slices.SortFunc(m.rows, func(a, b *stored) int {
		return strings.Compare(a.key+"\x00"+a.value, b.key+"\x00"+b.value)
	})
	for i, s := range m.rows {
		all[i] = s.key + " " + s.value
	}
	return strings.Join(all, ", ")
}

// Rows that conflict with each other or with existing rows have the same outcomes as if
// they were taken one by one. This holds in chunks of any size, in any order, on
// several workers, and after a dry run.
func TestPoliciesAreSequential(t *testing.T) {
	for _, c := range policyCases {
		for _, policy := range []csvimport.Policy{csvimport.PolicyReject, csvimport.PolicySkip, csvimport.PolicyUpdate} {
			t.Run(string(c.kind)+" "+string(policy), func(t *testing.T) {
				s := setup(t)
				s.shuffle()
				s.start(map[string]int{jobs.QueueImports: 3})
				for seed := range uint64(policySeeds) {
					n := 1 + int(seed)*8
					if seed == 0 {
						n = 1000
					}
					s.checkPolicy(c, policy, n, rand.New(rand.NewPCG(seed, 23))) //nolint:gosec // a test that can be repeated
					if t.Failed() {
						t.Fatalf("seed %d", seed)
					}
				}
			})
		}
	}
}

func (s *site) checkPolicy(c policyCase, policy csvimport.Policy, n int, r *rand.Rand) {
	s.Helper()
	s.empty("users, urls, imports, import_outcomes RESTART IDENTITY CASCADE")
	s.exec(c.fill)
	rows := c.random(r, n)
	file, m := c.header+"\n", newPolicyModel(c, policy)
	want := map[int64]outcome{}
	for i, row := range rows {
		file += row.text + "\n"
		want[int64(i+2)] = m.take(row, i+2)
	}
	opts := csvimport.SplitOptions{ChunkRows: 1 + n/20 + r.IntN(n/5+2)}
	before := s.everything()
	dry := s.uploadAs(c.kind, file, opts, policy, true)
	trial := s.outcomes(dry)
	if after := s.everything(); after != before {
		s.Errorf("a dry run changed\n%s\nto\n%s", before, after)
	}
	id := s.uploadAs(c.kind, file, opts, policy, false)
	real := s.outcomes(id)
	s.wantSameReport(dry, id)
	for name, got := range map[string]map[int64]outcome{"dry run": trial, "import": real} {
		if !maps.Equal(got, want) {
			for line, is := range want {
				if got[line] != is {
					s.Errorf("%s: line %d is %q, want %q", name, line, got[line], is)
				}
			}
		}
	}
	s.wantText(m.list(), c.list)
	if s.Failed() {
		s.Logf("%+v of\n%s", opts, file)
	}
}

// wantSameReport compares the rejected rows of a dry run and its import: lines,
// columns, reasons and texts.
func (s *site) wantSameReport(dry, id int64) {
	s.Helper()
	const report = `SELECT string_agg(concat_ws(' ', line, field, reason, encode(record, 'escape')), E'\n' ORDER BY line)
		FROM import_errors WHERE import_id = $1`
	if said, is := s.text(report, dry), s.text(report, id); said != is {
		s.Errorf("the dry run reports\n%s\nthe import\n%s", said, is)
	}
}

// everything returns all rows that no dry run may change.
func (s *site) everything() string {
	s.Helper()
	s.fold()
	return s.text(`SELECT concat_ws(E'\n',
		(SELECT string_agg(u::text, ' ' ORDER BY id) FROM users u), (SELECT string_agg(u::text, ' ' ORDER BY id) FROM urls u),
		(SELECT string_agg(e::text, ' ' ORDER BY occurred_at, id) FROM events e),
		(SELECT string_agg(r::text, ' ' ORDER BY scope, day) FROM rollups r),
		(SELECT string_agg(l::text, ' ' ORDER BY id) FROM link_changes l),
		(SELECT string_agg(sequencename || last_value, ' ' ORDER BY sequencename) FROM pg_sequences
			WHERE schemaname = 'public' AND sequencename NOT LIKE 'river%' AND sequencename <> 'imports_id_seq'),
		(SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass))`)
}

// uploadAs is like upload, with a policy, and as a dry run if dry is set.
func (s *site) uploadAs(kind csvimport.Kind, file string, opts csvimport.SplitOptions, policy csvimport.Policy, dry bool) int64 {
	s.Helper()
	id := s.receive(kind, file, opts)
	s.exec("UPDATE imports SET on_conflict = $2, dry_run = $3 WHERE id = $1", id, string(policy), dry)
	s.queueImport(id)
	return id
}

// outcomes waits for the end of an import and returns the outcome of each row. The
// counters have to agree.
func (s *site) outcomes(id int64) map[int64]outcome {
	s.Helper()
	imp := s.ended(id)
	if imp.State != jobs.ImportCompleted {
		s.Errorf("import is %s", imp.State)
	}
	noted := int64(0)
	if imp.DryRun { // it made no rows that could be found
		noted = imp.RowsImported
	}
	s.wantInt(noted, "SELECT count(*) FROM import_outcomes WHERE import_id = $1 AND outcome = 'imported'", id)
	got := map[int64]outcome{}
	for line := int64(2); line < 2+imp.RowsTotal; line++ {
		got[line] = outcomeImported
	}
	count := map[outcome]int64{outcomeImported: imp.RowsTotal}
	found, err := s.pool.Query(s.ctx, `SELECT line, outcome FROM import_outcomes WHERE import_id = $1 AND outcome <> 'imported'
		UNION ALL SELECT line, 'rejected' FROM import_errors WHERE import_id = $1`, id)
	s.ok(err)
	defer found.Close()
	for found.Next() {
		var line int64
		var what outcome
		s.ok(found.Scan(&line, &what))
		if got[line] != outcomeImported {
			s.Errorf("line %d has two outcomes", line)
		}
		got[line] = what
		count[what]++
		count[outcomeImported]--
	}
	if imp.RowsImported != count[outcomeImported] || imp.RowsUpdated != count[outcomeUpdated] ||
		imp.RowsSkipped != count[outcomeSkipped] || imp.RowsRejected != count[outcomeRejected] {
		s.Errorf("counters are %d imported, %d updated, %d skipped, %d rejected, the rows say %v",
			imp.RowsImported, imp.RowsUpdated, imp.RowsSkipped, imp.RowsRejected, count)
	}
	s.wantInt(0, "SELECT count(*) FROM import_trial WHERE import_id = $1", id)
	return got
}
