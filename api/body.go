package api

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	// Few clients read an answer that comes before they have sent the whole request:
	// most go on sending, and find the connection reset. So the part of a body that a
	// handler did not read is read to the end, up to this many bytes and for this long.
	// If there is more, the connection is closed, see lingering.
	drainBytes = 8 << 20
	drainTime  = 2 * time.Second
)

// drained returns a handler that runs next and then reads the request's body to the
// end. If it cannot, the connection is closed, so the rest of a body is never taken for
// the next request.
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

// drain reads body until it ends, and reports whether it ended within the bounds. If
// the announced length exceeds them, drain reads nothing, so that the client need not
// wait for the answer.
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
