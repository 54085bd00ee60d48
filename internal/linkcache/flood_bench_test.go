package linkcache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

// BenchmarkFlood looks up links that exist and are not cached, one after the other,
// while 1,000 clients ask for codes that do not exist. It reports how long each lookup
// took, how many failed, and how many unknown codes were asked for meanwhile.
func BenchmarkFlood(b *testing.B) {
	b.Run("plain", func(b *testing.B) {
		flood(b, func(ctx context.Context, c *Cache, code string) { _, _ = c.Lookup(ctx, k(code), time.Now()) })
	})
	b.Run("glued", func(b *testing.B) {
		flood(b, func(ctx context.Context, c *Cache, code string) {
			_, _ = c.LookupEither(ctx, k(code+"."), k(code), time.Now())
		})
	})
}

func flood(b *testing.B, lookup func(ctx context.Context, c *Cache, code string)) {
	b.Helper()
	url := pgtest.URL(b)
	pool, err := postgres.Open(b.Context(), url, postgres.Options{MaxConns: 5, IdleConns: 4}) // of the 10 connections of an api, the part for redirects
	require.NoError(b, err)
	b.Cleanup(pool.Close)
	if _, err := pool.Exec(b.Context(), `
		WITH u AS (INSERT INTO users (username, email) VALUES ('ada', 'ada@example.org') RETURNING id)
		INSERT INTO urls (user_id, short_code, original_url)
		SELECT id, 'unseen' || n, 'https://example.org/' || n FROM u, generate_series(1, $1::int) n`, b.N); err != nil {
		b.Fatal(err)
	}
	c, err := Open(Options{Pool: pool})
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	var flood sync.WaitGroup
	var asked atomic.Int64
	for client := range 1000 {
		flood.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				lookup(ctx, c, fmt.Sprintf("unknown%d-%d", client, i))
				asked.Add(1)
			}
		})
	}
	failed := 0
	took := make([]time.Duration, b.N)
	b.ResetTimer()
	for n := range took {
		began := time.Now()
		if _, err := c.Lookup(b.Context(), k(fmt.Sprintf("unseen%d", n+1)), began); errors.Is(err, ErrUnavailable) {
			failed++
		}
		took[n] = time.Since(began)
	}
	b.StopTimer()
	b.ReportMetric(float64(asked.Load())/float64(b.N), "unknown/op")
	cancel()
	flood.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(failed), "failed")
}
