package api

import (
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// BenchmarkUnknownCodes follows links that exist and are not cached, one after the
// other, while 200 clients ask for codes that do not exist. It does so with the search
// for codes in another case, and without a place for that search.
func BenchmarkUnknownCodes(bench *testing.B) {
	for _, name := range []string{"without hints", "with hints"} {
		bench.Run(name, func(bench *testing.B) {
			b := setup(bench)
			b.api.Log = slog.New(slog.DiscardHandler)
			if name == "without hints" {
				b.api.hints.query <- struct{}{}
			}
			b.exec("INSERT INTO users (id, username, email) VALUES (1, 'ann', 'ann@example.com')")
			b.exec(`INSERT INTO urls (user_id, short_code, original_url)
				SELECT 1, 'unseen' || n, 'https://example.org/' || n FROM generate_series(1, $1::int) n`, bench.N+100_000)
			b.exec("ANALYZE urls")
			handler := b.api.Handler()
			ask := func(path string) int {
				var request fasthttp.Request
				request.SetRequestURI(path)
				request.Header.SetHost("sign.example")
				var ctx fasthttp.RequestCtx
				ctx.Init(&request, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, nil)
				handler(&ctx)
				return ctx.Response.StatusCode()
			}
			stop := make(chan struct{})
			var clients sync.WaitGroup
			for client := range 200 {
				clients.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
							ask(fmt.Sprintf("/no%d-%d", client, i))
						}
					}
				})
			}
			took := make([]time.Duration, bench.N)
			bench.ResetTimer()
			for n := range took {
				began := time.Now()
				if status := ask(fmt.Sprintf("/unseen%d", n+1)); status != 302 {
					bench.Errorf("answered %d", status)
				}
				took[n] = time.Since(began)
			}
			bench.StopTimer()
			close(stop)
			clients.Wait()
			slices.Sort(took)
			bench.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			bench.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}
