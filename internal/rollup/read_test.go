package rollup

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// testClick is a click with all that statistics tell of it.
type testClick struct {
	at           time.Time
	link, owner  int64
	domain       int64
	tags         []string
	values       [dimensions]string
	first, ofAll bool
}

func (c testClick) counts(scope int64) Counts {
	n := Counts{Clicks: 1}
	if c.values[Kind] != Person {
		return n
	}
	n.People = 1
	if scope == 0 && c.ofAll || scope != 0 && c.first {
		n.Visitors = 1
	}
	return n
}

// world is a database with clicks of which the test knows everything.
type world struct {
	pool   *pgxpool.Pool
	q      *queries.Queries
	clicks []testClick
	scopes map[string]int64 // by kind and name
}

var testTags = []string{"sale", "spring", "a|b"}

// newWorld makes links 1 to 6 of owners 1 to 3 on two domains, and their clicks.
func newWorld(t *testing.T, rnd *rand.Rand, n int, span func() time.Time) *world {
	t.Helper()
	w := &world{pool: pgtest.Pool(t), scopes: map[string]int64{}}
	w.q = queries.New(w.pool)
	pgtest.Exec(t, w.pool, "INSERT INTO users (id, username, email) SELECT i, 'user' || i, i || '@example.com' FROM generate_series(1, 3) i")
	pgtest.Exec(t, w.pool, "INSERT INTO domains (id, host) OVERRIDING SYSTEM VALUE VALUES (2, 'go.example')")
	for id := int64(1); id <= 6; id++ {
		pgtest.Exec(t, w.pool, "INSERT INTO urls (id, user_id, domain_id, short_code, original_url, tags) VALUES ($1, $2, $3, $4, 'https://example.com', $5)",
			id, ownerOf(id), domainOf(id), fmt.Sprint("code", id), tagsOf(id))
	}
	seen := map[string]bool{}
	for range n {
		link := 1 + rnd.Int64N(1+rnd.Int64N(6))
		c := testClick{at: span(), link: link, owner: ownerOf(link), domain: domainOf(link), tags: tagsOf(link)}
		c.values = [dimensions]string{
			common[Kind][max(rnd.IntN(10)-4, 0)], []string{"", "DE", "AT", "US"}[rnd.IntN(4)],
			[]string{"", "news.example", fmt.Sprint(rnd.IntN(1+n/100), ".example")}[rnd.IntN(3)],
			[]string{"", "Firefox", "Chrome", "Odd, one"}[rnd.IntN(4)], []string{"", "Linux", "iOS"}[rnd.IntN(3)],
			[]string{"", "mobile", "desktop"}[rnd.IntN(3)], []string{"link", "qr"}[rnd.IntN(2)],
		}
		if c.values[Kind] == Person && rnd.IntN(5) > 0 {
			visitor := fmt.Sprint(c.at.Format(time.DateOnly), rnd.IntN(9))
			mine := fmt.Sprint(visitor, " ", link)
			c.first, c.ofAll = !seen[mine], !seen[visitor]
			seen[mine], seen[visitor] = true, true
		}
		w.clicks = append(w.clicks, c)
	}
	w.store(t, w.clicks[:n-n/10])
	w.store(t, w.clicks[n-n/10:]) // late ones
	return w
}

func ownerOf(link int64) int64  { return 1 + link%3 }
func domainOf(link int64) int64 { return 1 + link%2 }
func tagsOf(link int64) []string {
	return testTags[:link%4]
}

// scopesOf returns the scopes that a click counts for.
func (w *world) scopesOf(t *testing.T, c testClick) []int64 {
	t.Helper()
	scopes := []int64{c.link, 0, w.scope(t, OwnerScope, strconv.FormatInt(c.owner, 10)), w.scope(t, DomainScope, strconv.FormatInt(c.domain, 10))}
	for _, tag := range c.tags {
		scopes = append(scopes, w.scope(t, TagScope, tag))
	}
	return scopes
}

func (w *world) scope(t *testing.T, kind ScopeKind, name string) int64 {
	t.Helper()
	key := string(kind) + " " + name // one that there is when its first click was counted
	if w.scopes[key] == 0 {
		id, err := w.q.FindRollupScope(t.Context(), string(kind), name)
		require.NoError(t, err)
		w.scopes[key] = -id
	}
	return w.scopes[key]
}

// store writes clicks as events, and counts them.
func (w *world) store(t *testing.T, clicks []testClick) {
	t.Helper()
	var times []time.Time
	batch, changes := &pgx.Batch{}, Changes{}
	for _, c := range clicks {
		times = append(times, c.at)
		queueEvent(batch, c)
		v := c.values
		changes.Add(Event{
			URLID: c.link, UserID: c.owner, At: c.at, First: c.first, FirstOfAll: c.ofAll,
			Kind: v[Kind], Country: v[Country], Referrer: v[Referrer], Browser: v[Browser], System: v[System], Device: v[Device], Trigger: v[Trigger],
		})
	}
	require.NoError(t, postgres.EnsurePartitions(t.Context(), w.pool, times))
	require.NoError(t, w.pool.SendBatch(t.Context(), batch).Close())
	require.NoError(t, changes.Apply(t.Context(), w.q))
	require.NoError(t, Fold(t.Context(), w.pool))
}

func queueEvent(batch *pgx.Batch, c testClick) {
	v, firsts := c.values, 0
	if c.first {
		firsts |= FirstOfLink
	}
	if c.ofAll {
		firsts |= FirstOfAll
	}
	batch.Queue(`INSERT INTO events (occurred_at, url_id, user_id, event_type, kind, bot, country, referrer_host, browser, os, device, trigger, firsts)
		VALUES ($1, $2, $3, 'clicked', $4, $5, NULLIF($6, ''), NULLIF($7, ''), NULLIF($8, ''), NULLIF($9, ''), NULLIF($10, ''), NULLIF($11, 'link'), $12)`,
		c.at, c.link, c.owner, v[Kind], v[Kind] != Person, v[Country], v[Referrer], v[Browser], v[System], v[Device], v[Trigger], firsts)
}

// matching returns the clicks of a scope in a span of time that pass a filter.
func (w *world) matching(t *testing.T, scope int64, from, to time.Time, f Filter) (found []testClick) {
	t.Helper()
	for _, c := range w.clicks {
		if c.at.Before(from) || !c.at.Before(to) || !slices.Contains(w.scopesOf(t, c), scope) {
			continue
		}
		passes := true
		for of, values := range f {
			passes = passes && slices.Contains(values.Names, c.values[of]) != values.Not
		}
		if passes {
			found = append(found, c)
		}
	}
	return found
}

func sumOf(clicks []testClick, scope int64) (sum Counts) {
	for _, c := range clicks {
		sum = sum.Plus(c.counts(scope))
	}
	return sum
}

// want counts the clicks of a query one by one.
func (w *world) want(t *testing.T, query Query) Statistics {
	t.Helper()
	st := newStatistics(query)
	r := query.Range
	for i, start := range r.Starts() {
		end := r.To
		if i+1 < len(st.Series) {
			end = r.Starts()[i+1]
		}
		st.Series[i] = sumOf(w.matching(t, query.Scope, start, end, query.Filter), query.Scope)
	}
	now, before := w.matching(t, query.Scope, r.From, r.To, query.Filter), w.matching(t, query.Scope, r.PreviousFrom, r.PreviousTo, query.Filter)
	st.Totals, st.Previous = sumOf(now, query.Scope), sumOf(before, query.Scope)
	for of, rows := range st.Breakdowns {
		for _, c := range now {
			row := rows.row(c.values[of])
			row.Counts = row.Plus(c.counts(query.Scope))
		}
		for _, c := range before {
			row := rows.row(c.values[of])
			row.Previous = row.Previous.Plus(c.counts(query.Scope))
		}
	}
	return st
}

// Whatever is asked for, statistics say the same as counting the clicks one by one does,
// and so does counting the events.
func TestStatisticsEqualEvents(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 3))
	for _, zone := range []string{"Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "UTC"} {
		t.Run(zone, func(t *testing.T) {
			loc := loadZone(t, zone)
			change := nextChange(time.Date(2011, 1+time.Month(rnd.IntN(12)), 1, 0, 0, 0, 0, loc))
			if change.IsZero() || change.Year() > 2020 {
				change = time.Date(2011, 5, 31, 22, 0, 0, 0, time.UTC)
			}
			clicks, around := 600, 72*time.Hour
			if zone == "UTC" {
				clicks, around = 6_000, 24*time.Hour // so many that recent ones are stored beside them
			}
			w := newWorld(t, rnd, clicks, func() time.Time {
				return change.UTC().Truncate(time.Second).Add(time.Duration(rnd.Int64N(2*int64(around))) - around)
			})
			var recent bool
			require.NoError(t, w.pool.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM rollups WHERE recent <> '')").Scan(&recent))
			require.Equal(t, clicks > 600, recent, "rows with recent cells")
			for range 60 {
				query := w.randomQuery(t, rnd, change.In(loc))
				got, err := Read(t.Context(), w.q, query)
				want := w.want(t, query)
				if query.NeedsEvents() && query.Scope < 0 && query.UserID == 0 {
					require.ErrorIs(t, err, ErrNoEventsOfScope)
					continue
				}
				require.NoErrorf(t, err, "seed %d, %+v", seed, query)
				want.FromEvents = query.NeedsEvents()
				require.Equalf(t, want, got, "seed %d, %+v", seed, query)
				checkAddsUp(t, got)
				if query.Scope >= 0 || query.UserID != 0 {
					events, err := readEvents(t.Context(), w.q, query)
					require.NoErrorf(t, err, "seed %d, %+v", seed, query)
					want.FromEvents = true
					require.Equalf(t, want, events, "events: seed %d, %+v", seed, query)
				}
			}
			for range 20 {
				w.checkRank(t, rnd, w.randomRange(t, rnd, change.In(loc)))
			}
		})
	}
}

// checkAddsUp checks that the numbers of an answer add up.
func checkAddsUp(t *testing.T, st Statistics) {
	t.Helper()
	var series Counts
	for _, n := range st.Series {
		series = series.Plus(n)
	}
	assert.Equal(t, st.Totals, series)
	assert.LessOrEqual(t, st.Totals.People, st.Totals.Clicks)
	for of, rows := range st.Breakdowns {
		var sum Compared
		for _, row := range rows {
			sum.Counts, sum.Previous = sum.Plus(row.Counts), sum.Previous.Plus(row.Previous)
		}
		assert.Equal(t, Compared{st.Totals, st.Previous}, sum, of)
	}
}

// randomRange returns a range around a moment.
func (w *world) randomRange(t *testing.T, rnd *rand.Rand, around time.Time) Range {
	t.Helper()
	a := Request{
		Zone: around.Location().String(), Interval: []string{"auto", "15m", "hour", "day", "week", "month"}[rnd.IntN(6)],
		WeekStart: []string{"", "sunday"}[rnd.IntN(2)], Compare: []string{"", "previous", "year"}[rnd.IntN(3)],
	}
	if rnd.IntN(2) == 0 {
		a.From = dateAt(around).add(0, -rnd.IntN(4)).utc().Format(time.DateOnly)
		a.To = dateAt(around).add(0, 1+rnd.IntN(4)).utc().Format(time.DateOnly)
	} else {
		from := around.Add(-time.Duration(rnd.IntN(4*96)) * 15 * time.Minute)
		a.From = from.Format(time.RFC3339)
		a.To = from.Add(time.Duration(1+rnd.IntN(8*96)) * 15 * time.Minute).Format(time.RFC3339)
	}
	r, err := a.Resolve(around.AddDate(0, 1, 0), Extent{})
	require.NoError(t, err)
	return r
}

func (w *world) randomQuery(t *testing.T, rnd *rand.Rand, around time.Time) Query {
	t.Helper()
	query := Query{Range: w.randomRange(t, rnd, around), Filter: Filter{}}
	c := w.clicks[rnd.IntN(len(w.clicks))]
	scopes := w.scopesOf(t, c)
	if i := rnd.IntN(len(scopes)); i > 0 {
		query.Scope = scopes[i]
		if i == 2 {
			query.UserID = c.owner
		}
	} else {
		query.Scope = c.link
	}
	if rnd.IntN(3) == 0 {
		query.Filter[Kind] = Values{[]string{Person}, rnd.IntN(2) == 0}
	}
	for range rnd.IntN(1 + rnd.IntN(3)) {
		of := Dimension(rnd.IntN(dimensions))
		query.Filter[of] = Values{[]string{c.values[of], w.clicks[0].values[of], "none such"}, rnd.IntN(2) == 0}
	}
	for of := range Dimension(dimensions) {
		if _, filtered := query.Filter[of]; rnd.IntN(3) == 0 || filtered && rnd.IntN(2) == 0 {
			query.Breakdowns = append(query.Breakdowns, of)
		}
	}
	return query
}

// checkRank compares a ranking, walked page by page, with the clicks.
func (w *world) checkRank(t *testing.T, rnd *rand.Rand, r Range) {
	t.Helper()
	k := Ranking{
		Range: r, Limit: 1 + rnd.IntN(4), Least: rnd.IntN(2) == 0, candidates: 1 + rnd.IntN(6), ragged: 1 + rnd.IntN(9),
		By: []RankBy{RankByClicks, RankByPeople, RankByVisitors, RankByValue}[rnd.IntN(4)],
	}
	if rnd.IntN(2) == 0 {
		k.Filter = Filter{Kind: {[]string{Person}, rnd.IntN(2) == 0}}
	}
	for _, kind := range []ScopeKind{OwnerScope, TagScope, DomainScope} {
		counts, err := CountScopes(t.Context(), w.q, kind, r, k.Filter)
		require.NoError(t, err)
		want := w.wantScopes(t, kind, k)
		require.Len(t, counts, len(want), "%+v", k)
		for scope, n := range counts {
			assert.Equal(t, want[scope], *n, "%s, %+v", kind, k)
		}
	}
	switch rnd.IntN(6) {
	case 0:
		k.UserID = new(int64)
		*k.UserID = 1 + rnd.Int64N(3)
	case 1:
		k.DomainID = new(int64)
		*k.DomainID = 1 + rnd.Int64N(2)
	case 2:
		k.Tag = &testTags[rnd.IntN(2)]
	}
	want := w.wantRank(t, k)
	total := sumOf(w.matching(t, 0, r.From, r.To, k.Filter), 0) // of all links
	if k.UserID != nil || k.DomainID != nil || k.Tag != nil {
		total = Counts{}
		for _, row := range want {
			total = total.Plus(row.Counts)
		}
	}
	var got []Ranked
	for {
		rows, totals, err := Rank(t.Context(), w.q, k)
		require.NoError(t, err)
		if len(rows) == 0 {
			break
		}
		assert.Equal(t, total, totals)
		got = append(got, rows...)
		k.After = &rows[len(rows)-1].At
	}
	require.Len(t, got, len(want), "%+v", k)
	for i, row := range got {
		assert.Equal(t, want[row.Scope], row.Compared, "%+v", k)
		if i > 0 {
			before := got[i-1]
			assert.True(t, before.At.Rank > row.At.Rank || before.At.Rank == row.At.Rank && before.Scope < row.Scope)
		}
	}
}

// wantRank returns the counts of every link that belongs into a ranking.
func (w *world) wantRank(t *testing.T, k Ranking) map[int64]Compared {
	t.Helper()
	links := map[int64]bool{}
	for _, c := range w.clicks {
		if k.UserID != nil && *k.UserID != c.owner || k.DomainID != nil && *k.DomainID != c.domain || k.Tag != nil && !slices.Contains(c.tags, *k.Tag) {
			continue
		}
		links[c.link] = true
	}
	want := w.compared(t, links, k)
	maps.DeleteFunc(want, func(_ int64, n Compared) bool { return n.Clicks == 0 })
	return want
}

// wantScopes returns the counts of every scope of a kind that has clicks.
func (w *world) wantScopes(t *testing.T, kind ScopeKind, k Ranking) map[int64]Compared {
	t.Helper()
	scopes := map[int64]bool{}
	for _, c := range w.clicks {
		all := w.scopesOf(t, c)
		switch kind {
		case OwnerScope:
			scopes[all[2]] = true
		case DomainScope:
			scopes[all[3]] = true
		case TagScope:
			for _, tag := range all[4:] {
				scopes[tag] = true
			}
		}
	}
	want := w.compared(t, scopes, k)
	maps.DeleteFunc(want, func(_ int64, n Compared) bool { return n == Compared{} })
	return want
}

func (w *world) compared(t *testing.T, scopes map[int64]bool, k Ranking) map[int64]Compared {
	t.Helper()
	all := map[int64]Compared{}
	for scope := range scopes {
		all[scope] = Compared{
			sumOf(w.matching(t, scope, k.Range.From, k.Range.To, k.Filter), scope),
			sumOf(w.matching(t, scope, k.Range.PreviousFrom, k.Range.PreviousTo, k.Filter), scope),
		}
	}
	return all
}

// Values that strangers made up over years do not fill the memory: those with the fewest
// clicks are added up, and no click is lost.
func TestValuesOfYears(t *testing.T) {
	t.Parallel()
	w := &world{pool: pgtest.Pool(t)}
	w.q = queries.New(w.pool)
	first := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	const days = 2*maxNames/(MaxValues-1) + 2
	for i := range days {
		day := new(Day)
		day.Add(&Visit{Values: [dimensions]string{Kind: Person, Referrer: "news.example"}}, Counts{5, 5, 0})
		for n := range MaxValues - 1 {
			day.Add(&Visit{Values: [dimensions]string{Kind: "bot", Referrer: fmt.Sprintf("%d-%d.example", i, n)}}, Counts{1, 0, 0})
		}
		at := first.AddDate(0, 0, i)
		if at.Day() == 1 {
			require.NoError(t, EnsureMonths(t.Context(), w.pool, []time.Time{at}))
		}
		require.NoError(t, save(t.Context(), w.q, []*row{{key: key{1, dayNumber(at)}, cells: day}}))
	}
	r := resolve(t, Request{From: "2024-01-01", To: first.AddDate(0, 0, days).Format(time.DateOnly), Compare: "previous"}, "2026-01-01T00:00:00Z")
	got, err := Read(t.Context(), w.q, Query{Scope: 1, Range: r, Breakdowns: []Dimension{Referrer}})
	require.NoError(t, err)
	assert.Equal(t, Counts{days * (5 + MaxValues - 1), days * 5, 0}, got.Totals)
	checkAddsUp(t, got)
	referrers := got.Breakdowns[Referrer]
	assert.Less(t, len(referrers), 2*maxNames)
	assert.Equal(t, Counts{days * 5, days * 5, 0}, referrers["news.example"].Counts)
	require.Contains(t, referrers, Other)
	assert.GreaterOrEqual(t, referrers[Other].Clicks, int64(maxNames))
}

// The clicks on links of an owner are counted up to a bound even if the statistics of
// the owner have none: the links may have belonged to others on that day.
func TestBoundOfEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, rand.New(rand.NewPCG(1, 2)), 50, func() time.Time { return time.Date(2025, 5, 5, 12, 0, 0, 0, time.UTC) })
	pgtest.Exec(t, w.pool, `INSERT INTO events (occurred_at, url_id, user_id, event_type, bot, kind, country)
		SELECT '2025-05-05 13:00Z', 1, 3, 'clicked', false, 'person', 'DE' FROM generate_series(1, $1::int)`, maxEventClicks/2)
	query := Query{
		Scope: -1 << 40, UserID: 3, Range: resolve(t, Request{From: "2025-05-05", To: "2025-05-06"}, "2026-01-01T00:00:00Z"),
		Filter: Filter{Country: {Names: []string{"DE"}}, Device: {Names: []string{""}}},
	}
	_, err := Read(t.Context(), w.q, query)
	require.NoError(t, err)
	query.Breakdowns = []Dimension{Browser}
	_, err = Read(t.Context(), w.q, query)
	var many *TooManyEventsError
	require.ErrorAs(t, err, &many)
	assert.EqualValues(t, maxEventClicks/2, many.Limit)

	// An answer has so many values of a dimension, and the rest together.
	pgtest.Exec(t, w.pool, `INSERT INTO events (occurred_at, url_id, user_id, event_type, bot, kind, country, referrer_host)
		SELECT '2025-05-07 13:00Z', 1, 3, 'clicked', false, 'person', 'DE', i || '.example' FROM generate_series(1, $1::int) i`, maxNames+100)
	query.Range = resolve(t, Request{From: "2025-05-07", To: "2025-05-08"}, "2026-01-01T00:00:00Z")
	query.Breakdowns = []Dimension{Referrer, Country}
	got, err := Read(t.Context(), w.q, query)
	require.NoError(t, err)
	checkAddsUp(t, got)
	assert.Len(t, got.Breakdowns[Referrer], maxNames+1)
	assert.EqualValues(t, 100, got.Breakdowns[Referrer][Other].Clicks)
}

// Days with so many values that the beginning of their cells does not hold all sums are
// read as a whole.
func TestDaysWithLongValues(t *testing.T) {
	t.Parallel()
	w := &world{pool: pgtest.Pool(t), scopes: map[string]int64{}}
	w.q = queries.New(w.pool)
	day := time.Date(2025, 5, 5, 0, 0, 0, 0, time.UTC)
	for i := range 150 {
		v := [dimensions]string{Person, "DE", fmt.Sprintf("%0200d.example", i), fmt.Sprintf("%0200d", i), "", "", "link"}
		w.clicks = append(w.clicks, testClick{at: day.Add(time.Duration(i) * time.Minute), link: 1, owner: 1, domain: 1, values: v})
	}
	pgtest.Exec(t, w.pool, "INSERT INTO users (id, username, email) VALUES (1, 'ann', 'ann@example.com')")
	pgtest.Exec(t, w.pool, "INSERT INTO urls (id, user_id, short_code, original_url) VALUES (1, 1, 'a', 'https://example.com')")
	w.store(t, w.clicks)
	for _, zone := range []string{"UTC", "Asia/Kathmandu"} {
		r := resolve(t, Request{From: "2025-05-05", To: "2025-05-06", Zone: zone, Interval: "day"}, "2026-01-01T00:00:00Z")
		for _, breakdowns := range [][]Dimension{nil, Dimensions()} {
			query := Query{Scope: 1, Range: r, Breakdowns: breakdowns}
			got, err := Read(t.Context(), w.q, query)
			require.NoError(t, err)
			assert.Equal(t, w.want(t, query), got)
		}
	}
}
