package api

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// handle is the outermost handler. Fiber answers an unknown method in plain text. So
// handle replaces an unknown method with a known one that no route has, and the request
// is answered like any other whose method is not allowed.
func (a *API) handle(ctx *fasthttp.RequestCtx) {
	switch string(ctx.Method()) {
	case fiber.MethodGet, fiber.MethodHead, fiber.MethodPost, fiber.MethodPut, fiber.MethodPatch,
		fiber.MethodDelete, fiber.MethodConnect, fiber.MethodOptions, fiber.MethodTrace:
	default:
		ctx.Request.Header.SetMethod(fiber.MethodTrace)
	}
	if !a.redirect(ctx) {
		a.serve(ctx)
	}
}

// observe surrounds every request: it gives it an id, answers its error or
// panic, measures and logs it.
func (a *API) observe(c *fiber.Ctx) error {
	start := time.Now()
	a.ids.set(&c.Context().Request.Header, &c.Context().Response.Header)
	if err := a.next(c); err != nil {
		_ = a.fail(c, err) // never fails
	}
	elapsed := time.Since(start)
	status := c.Context().Response.StatusCode()
	a.metrics.observeRequest(c, elapsed)
	a.Traces.end(c, status)
	// Only the management API is logged by default: redirects are too many.
	level := slog.LevelInfo
	if actorOf(c).Role == 0 {
		level = slog.LevelDebug
	}
	a.logRequest(c.Context(), level, status, elapsed)
	return nil
}

// next runs the handlers of a request and turns a panic into an error.
func (a *API) next(c *fiber.Ctx) (err error) {
	defer func() {
		if r := recover(); r != nil {
			a.logPanic(c.Context(), r)
			c.Context().Response.ResetBody()
			err = errInternal
		}
	}()
	return c.Next()
}

// logPanic logs the value that a deferred function recovered.
func (a *API) logPanic(ctx *fasthttp.RequestCtx, recovered any) {
	a.Log.LogAttrs(context.Background(), slog.LevelError, "request panicked",
		slog.String("request_id", idIn(&ctx.Response)),
		slog.String("panic", fmt.Sprint(recovered)), slog.String("stack", string(debug.Stack())))
}

func (a *API) logRequest(ctx *fasthttp.RequestCtx, level slog.Level, status int, elapsed time.Duration) {
	if !a.Log.Enabled(context.Background(), level) {
		return
	}
	a.Log.LogAttrs(context.Background(), level, "request",
		slog.String("method", string(ctx.Method())), slog.String("path", string(ctx.Path())),
		slog.Int("status", status), slog.Duration("took", elapsed), slog.String("request_id", idIn(&ctx.Response)))
}

// protocolError answers a request that is too malformed to reach a handler. The
// connection is closed after it. The error is not logged, because it quotes the
// request, which may contain a token.
func (a *API) protocolError(ctx *fasthttp.RequestCtx, err error) {
	var small *fasthttp.ErrSmallBuffer
	var network net.Error
	a.ids.set(&ctx.Request.Header, &ctx.Response.Header)
	switch {
	case errors.As(err, &small):
		a.refuseOversized(ctx, small)
	case errors.As(err, &network) && network.Timeout():
		writeError(&ctx.Response, plainError(http.StatusRequestTimeout))
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		writeError(&ctx.Response, plainError(http.StatusRequestEntityTooLarge))
	default:
		writeError(&ctx.Response, plainError(http.StatusBadRequest))
	}
	a.Log.LogAttrs(context.Background(), slog.LevelDebug, "request refused",
		slog.Int("status", ctx.Response.StatusCode()), slog.String("request_id", idIn(&ctx.Response)))
}

// writeError replaces the content of an answer with e.
func writeError(r *fasthttp.Response, e *Error) {
	r.SetStatusCode(e.Status)
	r.Header.SetContentType("application/json")
	r.Header.Set("Cache-Control", "no-store")
	r.SetBodyRaw(e.encode())
}

// requestIDs gives each request an id: the client's own if it is safe to log
// and echo, otherwise 32 hexadecimal digits, the first half of which tells
// processes apart.
type requestIDs struct {
	process string
	last    atomic.Uint64
}

const headerRequestID = "X-Request-Id" // as fasthttp normalizes it

var headerRequestIDBytes = []byte(headerRequestID)

func newRequestIDs() *requestIDs {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails: it ends the process instead
	ids := &requestIDs{process: hex.EncodeToString(random[:8])}
	ids.last.Store(uint64(binary.BigEndian.Uint32(random[8:])))
	return ids
}

// set puts the id of a request into its answer.
func (ids *requestIDs) set(request *fasthttp.RequestHeader, response *fasthttp.ResponseHeader) {
	if own := request.PeekBytes(headerRequestIDBytes); len(own) > 0 && validRequestID(own) {
		response.SetBytesKV(headerRequestIDBytes, own)
		return
	}
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], ids.last.Add(1))
	var id [32]byte
	copy(id[:], ids.process)
	hex.Encode(id[16:], number[:])
	response.SetBytesKV(headerRequestIDBytes, id[:])
}

// validRequestID reports whether id is 1 to 128 letters, digits, dots, hyphens
// and underscores.
func validRequestID(id []byte) bool {
	if len(id) < 1 || len(id) > 128 {
		return false
	}
	for _, c := range id {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// responseID returns the id that set gave the request.
func responseID(c *fiber.Ctx) string { return idIn(&c.Context().Response) }

func idIn(r *fasthttp.Response) string {
	return string(r.Header.PeekBytes(headerRequestIDBytes))
}

type requestIDKey struct{}

// requestIDOf returns the id of the request that ctx belongs to, "" if there is none.
func requestIDOf(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}
