package rollup_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/queries"
)

// batch returns the clicks of a batch on 10,000 links, some far more popular than others.
func batch(r *rand.Rand, n int) []rollup.Event {
	z := rand.NewZipf(r, 1.1, 1, 9999)
	events := make([]rollup.Event, n)
	for i := range events {
		events[i] = rollup.Event{
			URLID: 1 + int64(z.Uint64()), UserID: 1, At: base.Add(time.Duration(i) * time.Millisecond), First: true, FirstOfAll: true,
			Country: []string{"DE", "US", "FR", "NP"}[r.IntN(4)], Referrer: fmt.Sprintf("%d.example.org", r.IntN(50)),
			Browser: "Chrome", System: []string{"Windows", "Android"}[r.IntN(2)], Device: []string{"desktop", "mobile"}[r.IntN(2)],
		}
	}
	return events
}

// BenchmarkMerge measures a digest of 10,000 clicks: to make and leave it, and to merge
// it into the rows of today.
func BenchmarkMerge(b *testing.B) {
	pool := pgtest.Pool(b)
	r := rand.New(rand.NewPCG(1, 2))
	events := batch(r, 10_000)
	for _, part := range []string{"apply", "merge"} {
		b.Run(part, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if part == "merge" {
					b.StopTimer()
				}
				var c rollup.Changes
				for _, e := range events {
					c.Add(e)
				}
				if err := c.Apply(b.Context(), queries.New(pool)); err != nil {
					b.Fatal(err)
				}
				if part == "merge" {
					b.StartTimer()
					if err := rollup.Fold(b.Context(), pool); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(events)), "µs/click")
		})
	}
}
