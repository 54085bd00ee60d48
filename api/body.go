package api

import (
	"bytes"
	"io"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	// An answer that comes before its request has arrived is read by few
	// clients: most go on sending, and find the connection reset. So what a
	// handler left unread is read to the end, up to this many bytes and for
	// this long. Beyond, the connection is closed.
	drainBytes = 8 << 20
	drainTime  = 2 * time.Second
)

// drained returns next, made to read the request's body to the end.
func drained(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		next(ctx)
		body := ctx.RequestBodyStream()
		if body == nil || ctx.Response.ConnectionClose() {
			return
		}
		if _, buffered := body.(*bytes.Reader); !buffered && !drain(ctx, body) {
			ctx.SetConnectionClose()
		}
	}
}

// drain reads body until it ends, and reports whether it did within the bounds.
func drain(ctx *fasthttp.RequestCtx, body io.Reader) bool {
	if err := ctx.SetReadDeadline(time.Now().Add(drainTime)); err != nil {
		return false
	}
	n, err := io.Copy(io.Discard, io.LimitReader(body, drainBytes))
	return err == nil && n < drainBytes
}
