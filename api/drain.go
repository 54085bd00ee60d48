package api

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/signpost/signpost/internal/listen"
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

const (
	// After its last answer a connection is read for this long and up to this many
	// bytes. The bytes are more than the buffers between us and a client that reads
	// while it sends.
	lingerTime  = 5 * time.Second
	lingerBytes = 64 << 20
	// lingerConns bounds how many connections linger at once. Any more are closed at
	// once.
	lingerConns = 256
)

// lingering holds connections whose client may still be sending bytes that are not
// needed. If a connection with unread bytes is closed, it is reset, and the client may
// lose the answer. So such a connection is first closed on our side only. The bytes
// that still arrive are thrown away until the client, which has the answer by then,
// closes its side, or a bound is reached. The connection serves no other request. The
// server considers it closed, so that it delays neither an upload nor a shutdown. It
// may be used concurrently.
type lingering struct {
	time    time.Duration // usually lingerTime
	bytes   int64         // usually lingerBytes
	places  chan struct{} // one element for each connection that lingers
	stopped chan struct{}
	// stop ends all lingering connections and lets no other begin. It may be called
	// again.
	stop func()
}

func newLingering() *lingering {
	l := &lingering{time: lingerTime, bytes: lingerBytes, places: make(chan struct{}, lingerConns), stopped: make(chan struct{})}
	l.stop = sync.OnceFunc(func() {
		close(l.stopped)
		for range cap(l.places) { // once all places are taken, nothing lingers
			l.places <- struct{}{}
		}
	})
	return l
}

// drain reads a connection to its end, if there is a place for it.
func (l *lingering) drain(c *lingeringConn) {
	select {
	case l.places <- struct{}{}:
		defer func() { <-l.places }()
	default:
		return
	}
	if c.SetReadDeadline(time.Now().Add(l.time)) != nil {
		return
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-l.stopped:
			_ = c.SetReadDeadline(time.Now()) // an error means that it is closed already
		case <-done:
		}
	}()
	_, _ = io.CopyN(io.Discard, c.tcpConn, l.bytes) // the result does not matter
}

// lingeringListener accepts connections that may linger.
type lingeringListener struct {
	net.Listener
	all   *lingering
	close func() error // of the listener; may be called again
}

// Close implements net.Listener. A second call returns what the first did.
func (l lingeringListener) Close() error { return l.close() }

// Accept implements net.Listener.
func (l lingeringListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(tcpConn); ok {
		return &lingeringConn{tcpConn: tcp, all: l.all}, err
	}
	return conn, err
}

// tcpConn has the methods of *net.TCPConn that are needed; the connection may be
// wrapped.
type tcpConn interface {
	net.Conn
	syscall.Conn
	io.ReaderFrom
	CloseWrite() error
	SetWriteBuffer(bytes int) error
}

// lingeringConn lingers when it is closed, if its last request was not read to
// the end.
type lingeringConn struct {
	tcpConn
	all    *lingering
	linger atomic.Bool
}

// hold protects the connection of a client that sends for long from being closed in
// favour of others, until it is answered.
func (c *lingeringConn) hold() {
	if conn, ok := c.tcpConn.(*listen.Conn); ok {
		conn.Hold()
	}
}

// Close implements net.Conn. It returns when the connection is closed, after lingering.
// fasthttp calls it from the goroutine of the connection, and by then nothing waits for
// that goroutine.
func (c *lingeringConn) Close() error {
	if c.linger.Load() && c.CloseWrite() == nil {
		c.all.drain(c)
	}
	return c.tcpConn.Close()
}
