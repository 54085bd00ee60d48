package api

import (
	"log/slog"
	"testing"

	"github.com/valyala/fasthttp"
)

// BenchmarkOpen measures routes that are open to all. By far the most expensive of them
// are the files of the docs page.
func BenchmarkOpen(bench *testing.B) {
	b := setup(bench)
	b.api.Log = slog.New(slog.DiscardHandler)
	handler := b.api.Handler()
	for _, path := range []string{"/", "/robots.txt", "/openapi.json", "/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/favicon-32x32.png", "/docs/none", "/a/b"} {
		for _, coding := range []string{"", "gzip"} {
			bench.Run(path+" "+coding, func(bench *testing.B) {
				bench.ReportAllocs()
				var ctx fasthttp.RequestCtx
				for bench.Loop() {
					ctx.Request.Reset()
					ctx.Response.Reset()
					ctx.Request.SetRequestURI(path)
					if coding != "" {
						ctx.Request.Header.Set("Accept-Encoding", coding)
					}
					handler(&ctx)
					_ = ctx.Response.Body()
				}
			})
		}
	}
}
