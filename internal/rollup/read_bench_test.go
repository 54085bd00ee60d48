package rollup

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/queries"
)

// BenchmarkRead measures the series and all breakdowns of a year in Berlin, of links
// with more and fewer clicks.
func BenchmarkRead(b *testing.B) {
	pool := pgtest.Pool(b)
	q := queries.New(pool)
	rnd := rand.New(rand.NewPCG(1, 2))
	from := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	var months []time.Time
	for m := range 12 {
		months = append(months, from.AddDate(0, m, 0))
	}
	require.NoError(b, EnsureMonths(b.Context(), pool, months))
	sizes := []int{2_000_000, 200_000, 20_000, 2_000, 100}
	for i, clicks := range sizes {
		days := map[int32]*row{}
		for range clicks {
			day := dayNumber(from) + int32(rnd.IntN(364))
			r := days[day]
			if r == nil {
				r = &row{key: key{int64(i + 1), day}, cells: new(Day)}
				days[day] = r
			}
			v, n := randomVisit(rnd)
			r.cells.Add(&v, n)
		}
		for _, r := range days {
			require.NoError(b, save(b.Context(), q, []*row{r}))
		}
	}
	pgtest.Exec(b, pool, "VACUUM ANALYZE rollups")
	r, err := Request{From: "2025-01-01", To: "2026-01-01", Zone: "Europe/Berlin", Interval: "day"}.Resolve(time.Now(), Extent{})
	require.NoError(b, err)
	for i, clicks := range sizes {
		b.Run(fmt.Sprint(clicks), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
				err := pgx.BeginTxFunc(b.Context(), pool, options, func(tx pgx.Tx) error {
					st, err := Read(b.Context(), queries.New(queries.Planned{DBTX: tx}), Query{Scope: int64(i + 1), Range: r, Breakdowns: Dimensions()})
					if err == nil && st.Totals.Clicks < int64(clicks)*9/10 {
						err = fmt.Errorf("%d clicks", st.Totals.Clicks)
					}
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// randomVisit has countries, referrers and browsers after a law of Zipf.
func randomVisit(rnd *rand.Rand) (Visit, Counts) {
	zipf := func(name string, n float64) string { return fmt.Sprint(name, int(math.Pow(n, rnd.Float64()))) }
	v := Visit{Quarter: rnd.IntN(Quarters), Values: [dimensions]string{
		Kind: Person, Country: zipf("", 61), Browser: zipf("Browser ", 12), System: zipf("System ", 8), Device: "mobile", Trigger: "link",
	}}
	if rnd.Float64() > 0.3 {
		v.Values[Referrer] = zipf("site", 500) + ".example"
	}
	if rnd.Float64() < 0.4 {
		v.Values[Device] = "desktop"
	}
	n := Counts{1, 1, 1}
	if rnd.Float64() < 0.2 {
		v.Values[Kind], n = "bot", Counts{Clicks: 1}
	}
	return v, n
}

// BenchmarkMergeOfOne measures a click that is merged by itself into the rows of a busy
// day.
func BenchmarkMergeOfOne(b *testing.B) {
	pool := pgtest.Pool(b)
	rnd := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2025, 1, 2, 12, 0, 0, 0, time.UTC)
	pgtest.Exec(b, pool, "INSERT INTO users (id, username, email) VALUES (1, 'ann', 'ann@example.com')")
	pgtest.Exec(b, pool, "INSERT INTO urls (id, user_id, short_code, original_url) VALUES (1, 1, 'code', 'https://example.com')")
	click := func(c *Changes, at time.Time) {
		v, n := randomVisit(rnd)
		c.Add(Event{
			URLID: 1, UserID: 1, At: at, Kind: v.Values[Kind], Country: v.Values[Country], Referrer: v.Values[Referrer], Browser: v.Values[Browser],
			System: v.Values[System], Device: v.Values[Device], Trigger: "link", First: n.Visitors > 0, FirstOfAll: n.Visitors > 0,
		})
	}
	var before Changes
	for range 50_000 {
		click(&before, at.Add(-time.Duration(rnd.Int64N(int64(12*time.Hour)))))
	}
	require.NoError(b, before.Apply(b.Context(), queries.New(pool)))
	require.NoError(b, Fold(b.Context(), pool))
	pgtest.Exec(b, pool, "VACUUM ANALYZE rollups")
	wal := func() (n int64) {
		require.NoError(b, pool.QueryRow(b.Context(), "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint").Scan(&n))
		return n
	}
	start := wal()
	for b.Loop() {
		var c Changes
		click(&c, at)
		require.NoError(b, c.Apply(b.Context(), queries.New(pool)))
		require.NoError(b, Fold(b.Context(), pool))
	}
	b.ReportMetric(float64(wal()-start)/float64(b.N), "B-of-WAL/op")
}
