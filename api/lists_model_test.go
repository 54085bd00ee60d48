package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/service"
)

// drawReach makes each way of making a list give up early at some time, so that even
// few links count as many.
func drawReach(t *rapid.T) service.Reach {
	return service.Reach{
		First: rapid.Int64Range(1, 5).Draw(t, "first"), Long: rapid.Int64Range(2, 30).Draw(t, "long"),
		Apart: rapid.Int64Range(2, 20).Draw(t, "apart"), Spread: rapid.SampledFrom([]int64{0, 1, 99}).Draw(t, "spread"),
		Matches: rapid.IntRange(0, 20).Draw(t, "matches"), Timeout: time.Minute,
	}
}

// drawURLList draws the parameters of a request for links, and the same as a condition
// in SQL.
func drawURLList(t *rapid.T) (urlListInput, string) {
	in := urlListInput{
		UserID: rapid.SampledFrom([]int64{0, 0, 1, 2, 3}).Draw(t, "user"),
		Tag:    rapid.SampledFrom([]string{"", "", "few", "many", "none"}).Draw(t, "tag"),
		Search: rapid.SampledFrom([]string{"", "", "word", "RARE", "nothing"}).Draw(t, "search"),
	}
	domain := rapid.SampledFrom([]int64{0, 0, 0, 1, 2, 3}).Draw(t, "domain")
	in.Domain = []string{"", "sign.example", "two.example", "three.example"}[domain]
	in.Order = rapid.SampledFrom([]string{"", newestFirst, oldestFirst}).Draw(t, "order")
	in.Limit = rapid.IntRange(1, 15).Draw(t, "limit")
	where := "true"
	if in.UserID != 0 {
		where += fmt.Sprint(" AND user_id = ", in.UserID)
	}
	if domain != 0 {
		where += fmt.Sprint(" AND domain_id = ", domain)
	}
	if in.Tag != "" {
		where += fmt.Sprintf(" AND '%s' = ANY(tags)", in.Tag)
	}
	if in.Search != "" {
		where += fmt.Sprintf(" AND (strpos(lower(title), '%[1]s') > 0 OR strpos(lower(original_url), '%[1]s') > 0)", strings.ToLower(in.Search))
	}
	switch rapid.IntRange(0, 3).Draw(t, "active") {
	case 0:
		in.IsActive, where = filterParam{On: true, given: true}, where+" AND is_active"
	case 1:
		in.IsActive, where = filterParam{given: true}, where+" AND NOT is_active"
	}
	return in, where
}

// addURLs adds n links of any sort. Some of them are next to each other.
func (b *bundle) addURLs(t *rapid.T, n int) {
	if _, err := b.pool.Exec(context.Background(), `
		INSERT INTO urls (user_id, domain_id, short_code, original_url, title, tags, is_active)
		SELECT 1 + floor(random() ^ 2 * 3)::int, 1 + floor(random() ^ 3 * 3)::int, 'c' || n || floor(random() * 1e9),
			'https://example.com/' || CASE WHEN random() < 0.1 THEN 'Word' ELSE 'other' END,
			CASE WHEN random() < $2 THEN 'a word' WHEN random() < 0.05 THEN 'Rare' END,
			CASE WHEN random() < $2 THEN '{many}'::text[] WHEN random() < 0.1 THEN '{few,many}' ELSE '{}' END, random() < $2
		FROM generate_series(1, $1) n`, n, rapid.Float64Range(0, 1).Draw(t, "share")); err != nil {
		t.Fatal(err)
	}
}

func (b *bundle) ids(t *rapid.T, sql string) []int64 {
	rows, err := b.pool.Query(context.Background(), sql)
	require.NoError(t, err)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	require.NoError(t, err)
	return ids
}

// A list has the links that plain SQL finds, in order, for any filters, order and ways
// of looking for links. Links that others add or delete meanwhile make no difference to
// the links that stay.
func TestListsOfLinksAreComplete(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, name := range []string{"ann", "bob", "cid"} {
		b.user(name)
	}
	b.exec("INSERT INTO domains (host) VALUES ('two.example'), ('three.example')")
	ctx := context.WithValue(t.Context(), actorKey{}, Actor{Role: RoleReader})
	rapid.Check(t, func(t *rapid.T) {
		b.api.service.Reach = drawReach(t)
		if _, err := b.pool.Exec(ctx, "TRUNCATE urls RESTART IDENTITY"); err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(0, 4).Draw(t, "places") {
			b.addURLs(t, rapid.IntRange(0, 30).Draw(t, "links"))
		}
		in, where := drawURLList(t)
		before := b.ids(t, "SELECT id FROM urls WHERE "+where+" ORDER BY id")
		others := rapid.Bool().Draw(t, "others")
		newest := in.Order != oldestFirst

		var got []int64
		gone := map[int64]bool{}
		for {
			out, err := b.api.listURLs(ctx, &in)
			require.NoError(t, err)
			if len(out.Body.Data) > in.Limit || len(out.Body.Data) != out.Body.Count {
				t.Fatalf("a page of %d has %d rows", in.Limit, len(out.Body.Data))
			}
			for _, u := range out.Body.Data {
				got = append(got, u.ID)
			}
			if out.Body.NextCursor == nil {
				break
			}
			in.Cursor = *out.Body.NextCursor
			if others {
				b.addURLs(t, rapid.IntRange(0, 3).Draw(t, "added"))
				for _, id := range b.ids(t, "DELETE FROM urls WHERE id IN (SELECT id FROM urls ORDER BY random() LIMIT 2) RETURNING id") {
					gone[id] = true
				}
			}
		}
		if newest {
			slices.Reverse(got)
		}
		for i := 1; i < len(got); i++ {
			if got[i-1] >= got[i] {
				t.Fatalf("%+v: not in order, or twice: %v", in, got)
			}
		}
		// Links that were deleted may have been listed before. New ones come after all
		// others.
		last := int64(0)
		if len(before) > 0 {
			last = before[len(before)-1]
		}
		keep := func(ids []int64) []int64 {
			return slices.DeleteFunc(slices.Clone(ids), func(id int64) bool { return gone[id] || id > last })
		}
		if !slices.Equal(keep(got), keep(before)) {
			t.Fatalf("%+v with %+v: %v, want %v", in, b.api.service.Reach, keep(got), keep(before))
		}
		if others {
			return
		}

		// The list as a file has the same links, and so have numbered pages, as far as
		// they go.
		in.Cursor = ""
		file := in
		file.Limit, file.Format = 0, "csv"
		source, err := b.api.exportURLs(ctx, &file)
		require.NoError(t, err)
		var whole []int64
		for limit := rapid.Int32Range(1, 40).Draw(t, "piece"); ; {
			rows, err := source.Next(ctx, limit)
			require.NoError(t, err)
			for _, row := range rows {
				whole = append(whole, row.(service.Link).ID)
			}
			if len(rows) < int(limit) {
				break
			}
		}
		if in.Order == newestFirst {
			slices.Reverse(whole)
		}
		if !slices.Equal(whole, before) {
			t.Fatalf("%+v with %+v as a file: %v, want %v", in, b.api.service.Reach, whole, before)
		}
		if newest {
			slices.Reverse(before)
		}
		for in.Page = 1; ; in.Page++ {
			want := before[min((in.Page-1)*in.Limit, len(before)):min(in.Page*in.Limit, len(before))]
			out, err := b.api.listURLs(ctx, &in)
			if err == service.ErrTooDeep { //nolint:errorlint // it is returned as it is
				break
			}
			require.NoError(t, err)
			var page []int64
			for _, u := range out.Body.Data {
				page = append(page, u.ID)
			}
			short := in.Page == 1 && out.Body.NextCursor != nil && len(page) < in.Limit
			if !short && !slices.Equal(page, want) {
				t.Fatalf("%+v with %+v: page %d is %v, want %v", in, b.api.service.Reach, in.Page, page, want)
			}
			if len(page) == 0 {
				break
			}
		}
	})
}

// A list has the events that plain SQL finds, for any filters, order and months, by
// cursor, by number and as a file.
func TestListsOfEventsAreComplete(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := context.WithValue(t.Context(), actorKey{}, Actor{Role: RoleReader})
	now := postgres.MonthOf(time.Now())
	var months []time.Time
	for _, ago := range []int{0, 1, 2, 5, 6, 7, 8, 9, 30, 100} { // with gaps
		months = append(months, now.AddDate(0, -ago, 0))
	}
	require.NoError(t, postgres.EnsurePartitions(ctx, b.pool, months))
	times := func(t *rapid.T) time.Time {
		month := rapid.SampledFrom(append(slices.Clone(months), now.AddDate(0, 1, 0))).Draw(t, "month")
		return month.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 1, 2, 27 * 24 * 3600}).Draw(t, "second")) * time.Second)
	}
	types := []string{"created", "updated", "deleted", "clicked"}
	rapid.Check(t, func(t *rapid.T) {
		if _, err := b.pool.Exec(ctx, "TRUNCATE events"); err != nil {
			t.Fatal(err)
		}
		rows := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) []any {
			return []any{times(t), rapid.Int64Range(1, 3).Draw(t, "link"), rapid.Int64Range(1, 2).Draw(t, "user"), rapid.SampledFrom(types).Draw(t, "type")}
		}), 0, 60).Draw(t, "events")
		if _, err := b.pool.CopyFrom(ctx, pgx.Identifier{"events"}, []string{"occurred_at", "url_id", "user_id", "event_type"}, pgx.CopyFromRows(rows)); err != nil {
			t.Fatal(err)
		}
		in := eventListInput{
			URLID: rapid.SampledFrom([]int64{0, 0, 1, 2, 9}).Draw(t, "url_id"), UserID: rapid.SampledFrom([]int64{0, 0, 1}).Draw(t, "user_id"),
			EventType: rapid.SampledFrom(append([]string{"", "", ""}, types...)).Draw(t, "event_type"),
		}
		in.Order = rapid.SampledFrom([]string{"", newestFirst, oldestFirst}).Draw(t, "order")
		in.Limit = rapid.IntRange(1, 20).Draw(t, "limit")
		where := "true"
		add := func(filter string, value any) { where += fmt.Sprintf(" AND "+filter, value) }
		if in.URLID != 0 {
			add("url_id = %d", in.URLID)
		}
		if in.UserID != 0 {
			add("user_id = %d", in.UserID)
		}
		if in.EventType != "" {
			add("event_type = '%s'", in.EventType)
		}
		if rapid.Bool().Draw(t, "has from") {
			in.From = timeParam{times(t)}
			add("occurred_at >= '%s'", in.From.Format(time.RFC3339))
		}
		if rapid.Bool().Draw(t, "has to") {
			in.To = timeParam{times(t)}
			add("occurred_at < '%s'", in.To.Format(time.RFC3339))
		}
		order := "occurred_at DESC, id DESC"
		if in.Order == oldestFirst {
			order = "occurred_at, id"
		}
		want := b.ids(t, "SELECT id FROM events WHERE "+where+" ORDER BY "+order)
		var got, numbered, file []int64
		for {
			out, err := b.api.listEvents(ctx, &in)
			require.NoError(t, err)
			for _, e := range out.Body.Data {
				got = append(got, e.ID)
			}
			if out.Body.NextCursor == nil {
				break
			}
			in.Cursor = *out.Body.NextCursor
		}
		in.Cursor = ""
		for in.Page = 1; ; in.Page++ {
			out, err := b.api.listEvents(ctx, &in)
			require.NoError(t, err)
			if out.Body.Count == 0 {
				break
			}
			for _, e := range out.Body.Data {
				numbered = append(numbered, e.ID)
			}
		}
		in.Page = 0
		source, err := b.api.exportEvents(ctx, &in)
		for rows := []service.ExportRow{nil}; err == nil && len(rows) > 0; {
			rows, err = source.Next(ctx, 7)
			for _, row := range rows {
				file = append(file, row.(service.Event).ID)
			}
		}
		require.NoError(t, err)
		for how, ids := range map[string][]int64{"by cursor": got, "by number": numbered, "as a file": file} {
			if !slices.Equal(ids, want) {
				t.Fatalf("%+v %s: %v, want %v", in, how, ids, want)
			}
		}
	})
}

// A cursor continues in the order of its list, even a cursor of the previous release,
// which listed links from the oldest on.
func TestCursorsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(5)
	ids := func(path string) (ids []int64) {
		for _, row := range b.want(200, RoleReader, "GET", path, nil).rows() {
			ids = append(ids, int64(row["id"].(float64)))
		}
		return ids
	}
	newest, oldest := makeCursor("urls_newest", 4), makeCursor("urls", 2)
	for path, want := range map[string][]int64{
		"/urls": {5, 4, 3, 2, 1}, "/urls?cursor=" + newest: {3, 2, 1}, "/urls?order=newest&cursor=" + newest: {3, 2, 1},
		"/urls?order=oldest": {1, 2, 3, 4, 5}, "/urls?cursor=" + oldest: {3, 4, 5}, "/urls?order=oldest&cursor=" + oldest: {3, 4, 5},
		"/urls?page=2&per_page=2": {3, 2}, "/urls?page=2&per_page=2&order=oldest": {3, 4},
	} {
		if got := ids(path); !slices.Equal(got, want) {
			t.Errorf("GET %s: %v, want %v", path, got, want)
		}
	}
	for _, path := range []string{
		"/urls?order=oldest&cursor=" + newest, "/urls?order=newest&cursor=" + oldest, "/urls?cursor=" + makeCursor("events", 1, 2),
		"/events?order=oldest&cursor=" + makeCursor("events", 1, 2), "/events?order=newest&cursor=" + makeCursor("events_oldest", 1, 2),
	} {
		if a := b.want(400, RoleReader, "GET", path, nil); a.fields()["cursor"] == "" {
			t.Errorf("GET %s: %s", path, a.raw)
		}
	}
	b.want(400, RoleReader, "GET", "/urls?order=backwards", nil)
	for path, want := range map[string]string{
		"/urls?format=csv": "1 2 3 4 5", "/urls?format=csv&order=newest": "5 4 3 2 1", "/urls?format=csv&limit=2": "5 4",
		"/urls?format=csv&cursor=" + newest: "3 2 1", "/urls?format=csv&page=2&per_page=2": "3 2",
	} {
		var got []string
		for line := range strings.Lines(string(b.want(200, RoleReader, "GET", path, nil).raw)) {
			if id, _, _ := strings.Cut(line, ","); id != "id" {
				got = append(got, id)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("GET %s: %v, want %s", path, got, want)
		}
	}
}

// A numbered page is refused if it would take reading very many rows.
func TestNumberedPagesHaveAnEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(50)
	for path, want := range map[string]int{
		"/urls?page=10000": 200, "/urls?page=10000&per_page=100": 400, "/urls?page=501&tag=a": 200, "/urls?page=502&tag=a": 400,
		"/events?page=501": 200, "/events?page=502": 400, "/users?page=10000&per_page=100": 200, "/urls?format=csv&page=502&tag=a": 400,
	} {
		a := b.want(want, RoleReader, "GET", path, nil)
		if want == 400 && !strings.Contains(a.fields()["page"], "next_cursor") {
			t.Errorf("GET %s: %s", path, a.raw)
		}
	}
	// A numbered page is refused as well if it is not found within the reach of lists.
	// In that case, the first page is short and has a cursor.
	b.api.service.Reach = service.Reach{First: 5, Long: 10, Apart: 10, Timeout: time.Minute}
	b.exec("UPDATE urls SET tags = '{old}' WHERE id <= 8")
	first := b.want(200, RoleReader, "GET", "/urls?tag=old", nil)
	if first.body["count"] != 0.0 || first.body["next_cursor"] == nil {
		t.Errorf("a page of which nothing is in reach: %s", first.raw)
	}
	if a := b.want(400, RoleReader, "GET", "/urls?tag=old&page=2&per_page=2", nil); !strings.Contains(a.fields()["page"], "next_cursor") {
		t.Errorf("a page out of reach: %s", a.raw)
	}
	if got := b.walk("/urls?tag=old", 3); !slices.Equal(got, []int64{8, 7, 6, 5, 4, 3, 2, 1}) {
		t.Errorf("the walk has %v", got)
	}
}
