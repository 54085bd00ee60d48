package api

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	// An answer that comes before its request has arrived is read by few
	// clients: most go on sending, and find the connection reset. So what a
	// handler left unread is read to the end, up to this many bytes and for
	// this long. Beyond, the connection is closed, see lingering.
	drainBytes = 8 << 20
	drainTime  = 2 * time.Second
)

// drained returns next, made to read the request's body to the end. What it does
// not read is never taken for the next request: the connection has no other.
func drained(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		next(ctx)
		body := ctx.RequestBodyStream()
		if body == nil {
			return
		}
		if _, buffered := body.(*bytes.Reader); buffered {
			return
		}
		if !ctx.Response.ConnectionClose() && drain(ctx, body) {
			return
		}
		ctx.SetConnectionClose()
		if conn, ok := ctx.Conn().(*lingeringConn); ok {
			conn.linger.Store(true)
		}
	}
}

// drain reads body until it ends, and reports whether it did within the bounds.
// A body that is announced as longer is not read: its client need not wait for the
// answer.
func drain(ctx *fasthttp.RequestCtx, body io.Reader) bool {
	if ctx.Request.Header.ContentLength() >= drainBytes {
		_, err := body.Read(nil) // waits for nothing, and says whether the handler read all of it
		return errors.Is(err, io.EOF)
	}
	if err := ctx.SetReadDeadline(time.Now().Add(drainTime)); err != nil {
		return false
	}
	n, err := io.Copy(io.Discard, io.LimitReader(body, drainBytes))
	return err == nil && n < drainBytes
}
