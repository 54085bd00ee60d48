package api

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/signpost/signpost/internal/listen"
)

const (
	// For so long and so many bytes a connection is read after its last answer.
	// The bytes are more than what buffers hold between us and a client that
	// reads while it sends.
	lingerTime  = 5 * time.Second
	lingerBytes = 64 << 20
	// lingerConns bounds how many are at once: one more is closed as it is.
	lingerConns = 256
)

// lingering has the connections whose client may still be sending what nobody
// wants. To close a connection with unread bytes is to reset it, and the answer
// may be lost with that. So such a connection is first closed on our side, and
// the bytes that still come are thrown away until the client, which has the answer by then,
// closes its own, or a bound is reached. It serves no other request. To the
// server it is gone already, so that it holds up neither an upload nor a
// shutdown. May be used concurrently.
type lingering struct {
	time  time.Duration // usually lingerTime
	bytes int64         // usually lingerBytes
	most  int           // usually lingerConns

	mu      sync.Mutex
	conns   map[*lingeringConn]struct{}
	stopped bool
	running sync.WaitGroup // one for each of conns
}

func newLingering() *lingering {
	return &lingering{time: lingerTime, bytes: lingerBytes, most: lingerConns, conns: map[*lingeringConn]struct{}{}}
}

// enter reports whether a connection may linger. Its deadline is set under the
// lock, so that it is not put off again once stop has come.
func (l *lingering) enter(c *lingeringConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || len(l.conns) >= l.most || c.SetReadDeadline(time.Now().Add(l.time)) != nil {
		return false
	}
	l.conns[c] = struct{}{}
	l.running.Add(1)
	return true
}

func (l *lingering) leave(c *lingeringConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	l.running.Done()
}

// stop closes all that linger, and lets no other begin. It may be called again.
func (l *lingering) stop() {
	l.mu.Lock()
	l.stopped = true
	for c := range l.conns {
		_ = c.SetReadDeadline(time.Now()) // or it is closed already
	}
	l.mu.Unlock()
	l.running.Wait()
}

// lingeringListener accepts connections that may linger.
type lingeringListener struct {
	net.Listener
	all *lingering
}

// Accept implements net.Listener.
func (l lingeringListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(tcpConn); ok {
		return &lingeringConn{tcpConn: tcp, all: l.all}, err
	}
	return conn, err
}

// tcpConn has the methods that are needed of a *net.TCPConn, which may be wrapped.
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

// hold keeps the connection of a client who sends for long from being closed in
// favour of others, until it is answered.
func (c *lingeringConn) hold() {
	if conn, ok := c.tcpConn.(*listen.Conn); ok {
		conn.Hold()
	}
}

// Close implements net.Conn. It returns when the connection is closed, lingering
// included: fasthttp calls it from the goroutine of the connection, when nothing
// waits for that any more.
func (c *lingeringConn) Close() error {
	if c.linger.Load() && c.CloseWrite() == nil && c.all.enter(c) {
		defer c.all.leave(c)
		_, _ = io.CopyN(io.Discard, c.tcpConn, c.all.bytes) // however it ends
	}
	return c.tcpConn.Close()
}
