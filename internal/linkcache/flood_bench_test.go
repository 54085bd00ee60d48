package linkcache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

// BenchmarkFlood looks links up that exist and are cached nowhere, one after the
// other, while 1,000 clients ask for codes that do not exist. It reports the time
// that each took, and how many failed.
func BenchmarkFlood(b *testing.B) {
	url := pgtest.URL(b)
	pool, err := postgres.Open(b.Context(), url, postgres.Options{MaxConns: 5, IdleConns: 4}) // of an api's 10, for redirects
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	if _, err := pool.Exec(b.Context(), `
		WITH u AS (INSERT INTO users (username, email) VALUES ('ada', 'ada@example.org') RETURNING id)
		INSERT INTO urls (user_id, short_code, original_url)
		SELECT id, 'unseen' || n, 'https://example.org/' || n FROM u, generate_series(1, $1::int) n`, b.N); err != nil {
		b.Fatal(err)
	}
	c, err := Open(Options{Pool: pool})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var flood sync.WaitGroup
	for client := range 1000 {
		flood.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				_, _ = c.Lookup(ctx, fmt.Sprintf("unknown%d-%d", client, i), time.Now())
			}
		})
	}
	failed := 0
	took := make([]time.Duration, b.N)
	b.ResetTimer()
	for n := range took {
		began := time.Now()
		if _, err := c.Lookup(b.Context(), fmt.Sprintf("unseen%d", n+1), began); errors.Is(err, ErrUnavailable) {
			failed++
		}
		took[n] = time.Since(began)
	}
	b.StopTimer()
	cancel()
	flood.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(failed), "failed")
}
