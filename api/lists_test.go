package api

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/queries"
)

// walk follows the cursors of a list from its start and returns the ids.
func (b *bundle) walk(path string, limit int) []int64 {
	b.t.Helper()
	var ids []int64
	cursor := ""
	for {
		separator := "?"
		if strings.Contains(path, "?") {
			separator = "&"
		}
		a := b.want(200, RoleAdmin, "GET", fmt.Sprintf("%s%slimit=%d&cursor=%s", path, separator, limit, url.QueryEscape(cursor)), nil)
		rows := a.rows()
		if got, _ := a.body["count"].(float64); int(got) != len(rows) || len(rows) > limit {
			b.t.Fatalf("%s: %d rows, count %v, limit %d", path, len(rows), a.body["count"], limit)
		}
		for _, row := range rows {
			ids = append(ids, int64(row["id"].(float64)))
		}
		next, more := a.body["next_cursor"].(string)
		if !more {
			return ids
		}
		cursor = next
	}
}

func TestWalksAreComplete(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`
		INSERT INTO users (username, email) SELECT 'u' || n, 'u' || n || '@example.com' FROM generate_series(1, 45) n;
		INSERT INTO urls (user_id, short_code, original_url) SELECT 1 + n % 2, 'c' || n, 'https://example.com' FROM generate_series(1, 45) n;
		-- Many at one time, so that the id has to tell them apart.
		INSERT INTO events (occurred_at, url_id, user_id, event_type)
		SELECT date_trunc('day', now()) + (n / 10) * interval '1 second', 1, 1, 'clicked' FROM generate_series(1, 45) n`)
	for _, path := range []string{
		"/users", "/users?search=EXAMPLE", "/urls", "/urls?order=oldest", "/urls?user_id=2", "/urls?is_active=true", "/urls?search=example", "/urls?search=example&order=oldest",
		"/events", "/events?url_id=1", "/events?user_id=1&event_type=clicked", "/events?order=oldest", "/events?order=oldest&url_id=1&from=2020-01-01T00:00:00Z",
	} {
		all := b.walk(path, 100)
		if len(all) < 20 {
			t.Fatalf("%s: only %d rows", path, len(all))
		}
		for _, limit := range []int{1, 7, len(all) - 1, len(all)} {
			if got := b.walk(path, limit); !slices.Equal(got, all) {
				t.Errorf("%s in pages of %d: %v, want %v", path, limit, got, all)
			}
		}
		var paged []int64
		for page := 1; ; page++ {
			separator := map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")]
			rows := b.want(200, RoleAdmin, "GET", fmt.Sprintf("%s%spage=%d&per_page=10", path, separator, page), nil).rows()
			if len(rows) == 0 {
				break
			}
			for _, row := range rows {
				paged = append(paged, int64(row["id"].(float64)))
			}
		}
		if !slices.Equal(paged, all) {
			t.Errorf("%s by page numbers: %v, want %v", path, paged, all)
		}
	}
	if a := b.want(200, RoleReader, "GET", "/users", nil); len(a.rows()) != defaultLimit {
		t.Errorf("a page has %d rows by default", len(a.rows()))
	}
	// A page that was requested by number continues by cursor.
	a := b.want(200, RoleReader, "GET", "/users?page=2&per_page=10", nil)
	b.want(200, RoleReader, "GET", "/users?cursor="+a.body["next_cursor"].(string), nil)
	if a := b.want(200, RoleReader, "GET", "/users?page=10000&per_page=100", nil); string(a.raw) != `{"data":[],"count":0,"next_cursor":null}`+"\n" {
		t.Errorf("an empty page is %s", a.raw)
	}
}

// While others insert and delete rows, a walk returns each row that was there all the
// time, once.
func TestWalksUnderInserts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`
		INSERT INTO users (username, email) SELECT 'u' || n, 'u' || n || '@example.com' FROM generate_series(1, 60) n;
		INSERT INTO events (occurred_at, url_id, user_id, event_type)
		SELECT now() - n * interval '1 second', 1, 1, 'clicked' FROM generate_series(1, 60) n;
		DELETE FROM users WHERE id % 3 = 0`)
	users, events := b.walk("/users", 100), b.walk("/events", 100)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ctx.Err() == nil; n++ {
			name := fmt.Sprint("new", n)
			a, err := b.try(RoleAdmin, "POST", "/users", object{"username": name, "email": name + "@example.com"})
			if err == nil && a.status == 201 && n%2 == 0 {
				_, err = b.try(RoleAdmin, "DELETE", fmt.Sprint("/users/", a.id()), nil)
			}
			assert.NoError(t, err)
		}
	})
	for range 3 {
		got := b.walk("/users", 4)
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) || !slices.Equal(got[:len(users)], users) {
			t.Errorf("users: %v, want %v first", got, users)
		}
		got = b.walk("/events", 9)
		if !slices.Equal(got[len(got)-len(events):], events) {
			t.Errorf("events: %v, want %v last", got, events)
		}
		seen := map[int64]bool{}
		for _, id := range got {
			if seen[id] {
				t.Errorf("event %d is listed twice", id)
			}
			seen[id] = true
		}
	}
	cancel()
	wg.Wait()
}

func TestCursorsAreOfOneList(t *testing.T) {
	t.Parallel()
	cursor := makeCursor("events", -5, 1<<62)
	if got := parseCursor(cursor, "events", 2); !slices.Equal(got, []int64{-5, 1 << 62}) {
		t.Errorf("parsed %v", got)
	}
	for _, c := range []string{cursor + "=", cursor[1:], cursor + "\x00", strings.ToUpper(cursor), "", "e30", makeCursor("events", 1), makeCursor("events", 1, 2, 3)} {
		if got := parseCursor(c, "events", 2); got != nil {
			t.Errorf("%q was parsed as %v", c, got)
		}
	}
	if got := parseCursor(cursor, "urls", 2); got != nil {
		t.Errorf("a cursor of events was taken for one of urls: %v", got)
	}
}

// explained runs list queries as lists does, but returns their plans.
type explained struct {
	queries.Planned
	plan string
}

func (e *explained) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := e.Planned.Query(ctx, "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) "+sql, args...)
	if err != nil {
		return nil, err
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	e.plan = strings.Join(lines, "\n")
	return e.Planned.Query(ctx, sql, args...)
}

func (e *explained) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if rows, err := e.Query(ctx, sql, args...); err == nil { // otherwise the row has the error too
		rows.Close()
	}
	return e.Planned.QueryRow(ctx, sql, args...)
}

// Lists read only the rows that their filters leave: no filter that is not set is
// evaluated, and no other partition is read.
func TestPlansOfLists(t *testing.T) {
	t.Parallel()
	b := setup(t)
	now := time.Now().UTC()
	var months []time.Time
	for n := range 6 {
		months = append(months, postgres.MonthOf(now).AddDate(0, -n, 0).Add(time.Hour))
	}
	require.NoError(t, postgres.EnsurePartitions(t.Context(), b.pool, months))
	b.exec(`
		INSERT INTO users (username, email) SELECT 'u' || n, 'u' || n || '@example.com' FROM generate_series(1, 500) n;
		INSERT INTO urls (user_id, short_code, original_url, title, tags, is_active)
		SELECT 1 + n % 500, 'c' || n, 'https://example.com/' || md5(n::text), md5((-n)::text), ARRAY['t' || n % 1000], n % 1000 <> 0
		FROM generate_series(1, 20000) n;`)
	b.exec(`
		INSERT INTO events (occurred_at, url_id, user_id, event_type)
		SELECT m + n * interval '10 second', 1 + n % 500, 1 + n % 50, CASE WHEN n % 500 = 0 THEN 'updated' ELSE 'clicked' END
		FROM unnest($1::timestamptz[]) m, generate_series(1, 4000) n`, months)
	var clicks rollup.Changes
	for n := range int64(5000) {
		clicks.Add(rollup.Event{URLID: 1 + n%500, At: months[0]})
	}
	require.NoError(t, clicks.Apply(t.Context(), queries.New(b.pool)))
	require.NoError(t, rollup.Fold(t.Context(), b.pool))
	b.exec("VACUUM ANALYZE users, urls, events, rollups")
	one, tag, search := int64(7), "t7", "%c4ca4238a0b9%"
	inactive, updated := false, "updated"
	everything := queries.ListEventsDownParams{At: months[0].AddDate(0, 1, 0).Add(-2 * time.Hour), AtID: 1 << 62, RowLimit: 21}
	tests := []struct {
		name   string
		query  func(*queries.Queries) error
		want   string // text that is in the plan
		never  []string
		months int  // partitions of events from which rows are taken
		only   bool // the newest month must not even be opened
	}{
		{"users", func(q *queries.Queries) error { return errorOf(q.ListUsers(t.Context(), 100, 0, 21)) }, "users_pkey", nil, 0, false},
		{"users by text", func(q *queries.Queries) error {
			if err := q.PreferBitmaps(t.Context(), time.Minute.Milliseconds()); err != nil {
				return err
			}
			return errorOf(q.FindUsers(t.Context(), queries.FindUsersParams{Search: "%u123%", FoundLimit: 50_001, RowLimit: 21}))
		}, "users_search_idx", nil, 0, false},
		{"users walked through", func(q *queries.Queries) error {
			return errorOf(q.WalkUsers(t.Context(), queries.WalkUsersParams{Search: "%nobody%", WalkLimit: 100, RowLimit: 21}))
		}, "users_pkey", []string{"Sort", "Seq Scan"}, 0, false},
		{"links", walkWith(t.Context(), queries.WalkURLsDownParams{AtID: 100}), "Index Only Scan Backward using urls_pkey", []string{"Filter"}, 0, false},
		{"links far in", walkWith(t.Context(), queries.WalkURLsDownParams{AtID: 1 << 62, RowOffset: 10_000}), "Index Only Scan Backward using urls_pkey", []string{"Filter"}, 0, false},
		{"links of a user", walkWith(t.Context(), queries.WalkURLsDownParams{AtID: 1 << 62, UserID: &one}), "Index Only Scan Backward using urls_user_id_idx", []string{"Filter"}, 0, false},
		{"inactive links", walkWith(t.Context(), queries.WalkURLsDownParams{AtID: 1 << 62, IsActive: &inactive, Inactive: true}), "urls_inactive_idx", nil, 0, false},
		{"the newest links with a tag", walkWith(t.Context(), queries.WalkURLsDownParams{AtID: 1 << 62, Tag: &tag, WalkLimit: 1000, EdgeLimit: 1}), "Index Scan Backward using urls_pkey", []string{"Sort"}, 0, false},
		{"links with a tag", findWith(t.Context(), queries.FindURLsParams{Tag: &tag}), "urls_tags_idx", nil, 0, false},
		{"links by text", findWith(t.Context(), queries.FindURLsParams{Search: &search}), "urls_title_idx", nil, 0, false},
		{"links by a tag and text", findWith(t.Context(), queries.FindURLsParams{Tag: &tag, Search: &search}), "Bitmap Index Scan", nil, 0, false},
		{"clicks of links", func(q *queries.Queries) error { return errorOf(q.GetURLs(t.Context(), []int64{3, 5, 7})) }, postgres.MonthOf(now).Format("rollups_2006_01_pkey"), nil, 0, false},
		{"events", eventsWith(t.Context(), everything), "_pkey", []string{"Filter"}, 1, false},
		{"events of a link", eventsWith(t.Context(), with(everything, func(p *queries.ListEventsDownParams) { p.URLID = &one })), "url_id", []string{"Filter"}, 3, false},
		{"events of a user", eventsWith(t.Context(), with(everything, func(p *queries.ListEventsDownParams) { p.UserID = &one })), "user_id", []string{"Filter"}, 1, false},
		{"changes", eventsWith(t.Context(), with(everything, func(p *queries.ListEventsDownParams) { p.EventType = &updated })), "event_type", nil, 3, false},
		{"changes of a link", eventsWith(t.Context(), with(everything, func(p *queries.ListEventsDownParams) {
			p.URLID, p.EventType = &one, &updated
		})), "url_id_occurred_at_id_idx1", []string{"Rows Removed"}, 0, true},
		{"events of a link in a month", eventsWith(t.Context(), with(everything, func(p *queries.ListEventsDownParams) {
			p.URLID, p.Until, p.At = &one, months[3], months[3].Add(72*time.Hour)
		})), "url_id", []string{"Filter"}, 1, true},
		{"events far behind a cursor", eventsWith(t.Context(), with(everything, func(p *queries.ListEventsDownParams) {
			p.At, p.AtID = months[3].Add(time.Hour), 1
		})), "_pkey", []string{"Filter"}, 1, true},
		{"events, oldest first", func(q *queries.Queries) error {
			return errorOf(q.ListEventsUp(t.Context(), queries.ListEventsUpParams{At: months[3], Until: months[2], RowLimit: 21}))
		}, "_pkey", []string{"Filter", "Sort"}, 1, true},
	}
	for _, test := range tests {
		e := &explained{}
		if err := postgres.InTx(t.Context(), b.pool, func(tx pgx.Tx) error {
			e.Planned = queries.Planned{DBTX: tx}
			return test.query(queries.New(e))
		}); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if !strings.Contains(e.plan, test.want) {
			t.Errorf("%s: the plan does not use %s:\n%s", test.name, test.want, e.plan)
		}
		for _, never := range append(test.never, "Seq Scan on events", "Seq Scan on urls", "IS NULL") {
			if strings.Contains(e.plan, never) {
				t.Errorf("%s: the plan has %s:\n%s", test.name, never, e.plan)
			}
		}
		if got := partitionsRead(e.plan); got != test.months {
			t.Errorf("%s: %d partitions were read, want %d:\n%s", test.name, got, test.months, e.plan)
		}
		if test.only == strings.Contains(e.plan, "events_"+months[0].Format("2006_01")) && test.months > 0 {
			t.Errorf("%s: the newest month is in the plan or is not:\n%s", test.name, e.plan)
		}
	}
}

// scanned matches a line of a plan that takes rows from a partition. It captures the
// name of the partition and the number of rows.
var scanned = regexp.MustCompile(` on (events_\d{4}_\d{2}) .*\(actual rows=([1-9]\d*)`)

// partitionsRead counts the partitions of events from which a plan took rows.
func partitionsRead(plan string) int {
	read := map[string]bool{}
	for _, match := range scanned.FindAllStringSubmatch(plan, -1) {
		read[match[1]] = true
	}
	return len(read)
}

func errorOf[T any](_ T, err error) error { return err }

func with(p queries.ListEventsDownParams, change func(*queries.ListEventsDownParams)) queries.ListEventsDownParams {
	change(&p)
	return p
}

func walkWith(ctx context.Context, p queries.WalkURLsDownParams) func(*queries.Queries) error {
	p.RowLimit = 21
	p.WalkLimit = cmp.Or(p.WalkLimit, math.MaxInt64)
	return func(q *queries.Queries) error { return errorOf(q.WalkURLsDown(ctx, p)) }
}

// findWith returns a query in a transaction that prefers bitmaps, as find does.
func findWith(ctx context.Context, p queries.FindURLsParams) func(*queries.Queries) error {
	p.RowLimit = int32(service.UsualReach().Matches + 1)
	return func(q *queries.Queries) error {
		if err := q.PreferBitmaps(ctx, time.Minute.Milliseconds()); err != nil {
			return err
		}
		return errorOf(q.FindURLs(ctx, p))
	}
}

func eventsWith(ctx context.Context, p queries.ListEventsDownParams) func(*queries.Queries) error {
	return func(q *queries.Queries) error { return errorOf(q.ListEventsDown(ctx, p)) }
}
