// Package listen accepts the connections of clients within bounds, and goes on
// accepting whatever happens. A server whose listener gave up because of brief trouble,
// such as too many open files, would be down for all clients.
package listen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

const (
	// After an error there is a pause before the next attempt, longer each time.
	minPause = 5 * time.Millisecond
	maxPause = time.Second
	// logEvery is how often trouble of one kind is logged.
	logEvery = time.Minute
	// Several connections are closed at a time to make room: one in spareShare of the
	// bound, but mostSpare at most.
	spareShare, mostSpare = 16, 512
	// roomWait is how long a new connection waits for another one that was told to end.
	roomWait = 50 * time.Millisecond
	// networkBits is how many bits of an IPv6 address identify a client. The client has
	// all addresses with these bits to itself.
	networkBits = 64
)

// Options says how many connections there may be. The zero value has no bounds.
type Options struct {
	// Name is the value by which metrics of several listeners are told apart.
	Name string
	// Most bounds the connections that are open at once. Shortly before it is reached,
	// the connections that have waited longest for their client, to send or to read,
	// are closed. This makes room for clients that do send and read. 0 means no bound.
	Most int
	// PerClient bounds the connections of one client, which is an IPv4 address or the
	// /64 of an IPv6 address. A further connection is closed as soon as it comes. 0
	// means no bound.
	PerClient int
	// Proxies are addresses from which many clients come. PerClient does not apply to
	// them.
	Proxies []netip.Prefix
	// Log gets a message, at most once a minute for each reason, if connections are
	// refused or cannot be accepted. Nil means that there is no log.
	Log *slog.Logger
	// Registry gets the metrics. Nil means that they are not exported.
	Registry prometheus.Registerer
}

// A Listener accepts connections within bounds. The TCP connections that it returns are
// *Conn. It may be used concurrently.
type Listener struct {
	net.Listener
	o      Options
	spare  int           // how many connections are closed at a time to make room
	freed  chan struct{} // gets a value when a connection has ended
	closed chan struct{}
	close  func() error

	// tick gives connections an order: each new connection increases it.
	tick atomic.Int64

	mu       sync.Mutex
	conns    map[*Conn]struct{}
	clients  map[netip.Prefix]int // number of connections of each client
	came     int                  // connections so far, refused ones included
	roomNext int                  // the value of came from which on room is made again
	ending   int                  // connections that were told to end
	logged   map[string]time.Time // when something was last logged, by reason

	full, greedy      prometheus.Counter // refused connections, by reason
	evicted, failures prometheus.Counter
}

// New returns a listener that accepts the connections of ln, which it owns.
func New(ln net.Listener, o Options) *Listener {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Most <= 0 {
		o.Most = math.MaxInt
	}
	if o.PerClient <= 0 {
		o.PerClient = math.MaxInt
	}
	l := &Listener{
		Listener: ln, o: o, spare: min(max(1, o.Most/spareShare), mostSpare),
		freed: make(chan struct{}, 1), closed: make(chan struct{}),
		conns: map[*Conn]struct{}{}, clients: map[netip.Prefix]int{}, logged: map[string]time.Time{},
	}
	l.addMetrics()
	l.close = sync.OnceValue(func() error {
		close(l.closed)
		return ln.Close()
	})
	return l
}

// Close implements net.Listener. Connections that were accepted stay open.
func (l *Listener) Close() error { return l.close() }

// Accept implements net.Listener. Its only error is that the listener is closed.
func (l *Listener) Accept() (net.Conn, error) {
	for pause := minPause; ; {
		conn, err := l.Listener.Accept()
		if err == nil {
			pause = minPause
			tcp, ok := conn.(*net.TCPConn)
			if !ok {
				return conn, nil
			}
			if c := l.admit(tcp); c != nil {
				return c, nil
			}
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		l.failures.Inc()
		l.mu.Lock()
		l.trouble("accepting failed", slog.Any("error", err))
		l.makeRoom() // the error may be a lack of files
		l.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-l.closed:
			return nil, fmt.Errorf("accept: %w", net.ErrClosed)
		}
		pause = min(2*pause, maxPause)
	}
}

// admit returns the connection as a connection of the listener, or closes it and
// returns nil.
func (l *Listener) admit(tcp *net.TCPConn) *Conn {
	c := &Conn{TCPConn: tcp, listener: l, client: l.clientOf(tcp.RemoteAddr())}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.came++
	switch {
	case c.client.IsValid() && l.clients[c.client] >= l.o.PerClient:
		l.refuse(tcp, l.greedy, "a client has as many as one may have")
		return nil
	case !l.hasRoom():
		l.refuse(tcp, l.full, "as many are open as may be at once")
		return nil
	}
	c.since.Store(l.tick.Add(1))
	l.conns[c] = struct{}{}
	if c.client.IsValid() {
		l.clients[c.client]++
	}
	return c
}

// refuse closes a connection as soon as it comes.
func (l *Listener) refuse(tcp *net.TCPConn, count prometheus.Counter, reason string) {
	count.Inc()
	_ = tcp.SetLinger(0) // leaves nothing of it behind, not even in the kernel
	_ = tcp.Close()
	l.trouble(reason)
}

// hasRoom reports whether there is room for one more connection. It begins to make room
// while a little is left. If there is none at all, it waits for a moment; meanwhile
// further connections wait in the kernel, as in any queue. The caller holds mu, which
// is released during the wait.
func (l *Listener) hasRoom() bool {
	// It takes long to look for connections that can be closed, so this is not done for
	// each new one.
	if len(l.conns) >= l.o.Most-l.spare && l.came >= l.roomNext {
		l.makeRoom()
	}
	if len(l.conns) < l.o.Most {
		return true
	}
	timer := time.NewTimer(roomWait)
	defer timer.Stop()
	for inTime := true; inTime && l.ending > 0 && len(l.conns) >= l.o.Most; {
		l.mu.Unlock()
		select {
		case <-l.freed:
		case <-timer.C:
			inTime = false
		}
		l.mu.Lock()
	}
	return len(l.conns) < l.o.Most
}

// clientOf returns the client of a connection. It is invalid if PerClient does not
// apply to the connection.
func (l *Listener) clientOf(remote net.Addr) netip.Prefix {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := tcp.AddrPort().Addr().Unmap()
	for _, proxy := range l.o.Proxies {
		if proxy.Contains(addr) {
			return netip.Prefix{}
		}
	}
	bits := addr.BitLen()
	if addr.Is6() {
		bits = networkBits
	}
	client, _ := addr.Prefix(bits) // the only error is a wrong number of bits
	return client
}

// makeRoom ends the connections that have waited longest for their client. The
// caller holds mu.
func (l *Listener) makeRoom() {
	type candidate struct {
		conn  *Conn
		since int64
	}
	var waiting []candidate
	l.ending = 0
	for c := range l.conns {
		since := c.since.Load()
		if c.told = since == told; c.told {
			l.ending++
		}
		if since < told && (c.reading.Load() || c.writing.Load()) {
			waiting = append(waiting, candidate{c, since})
		}
	}
	slices.SortFunc(waiting, func(a, b candidate) int { return cmp.Compare(a.since, b.since) })
	for _, w := range waiting[:min(l.spare, len(waiting))] {
		if w.conn.since.CompareAndSwap(w.since, told) && w.conn.tell() == nil {
			w.conn.told = true
			l.ending++
			l.evicted.Inc()
		}
	}
	l.roomNext = l.came + max(1, l.spare/2)
}

// forget takes a connection off the list.
func (l *Listener) forget(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	if c.told {
		l.ending--
	}
	select {
	case l.freed <- struct{}{}:
	default:
	}
	if !c.client.IsValid() {
		return
	}
	if l.clients[c.client]--; l.clients[c.client] == 0 {
		delete(l.clients, c.client)
	}
}

// trouble logs why connections of clients are lost, at most once a minute for each
// reason. The caller holds mu.
func (l *Listener) trouble(reason string, attrs ...slog.Attr) {
	now := time.Now()
	if now.Sub(l.logged[reason]) < logEvery {
		return
	}
	l.logged[reason] = now
	l.o.Log.LogAttrs(context.Background(), slog.LevelWarn, "connections of clients are not accepted",
		append(attrs, slog.String("reason", reason), slog.String("listener", l.o.Name))...)
}

func (l *Listener) addMetrics() {
	with := promauto.With(prometheus.WrapRegistererWith(prometheus.Labels{"listener": l.o.Name}, l.o.Registry))
	refused := with.NewCounterVec(prometheus.CounterOpts{
		Name: "signpost_http_connections_refused_total",
		Help: "Connections that were closed as they came, because there were too many (full) or too many of one client (client).",
	}, []string{"reason"})
	l.full, l.greedy = refused.WithLabelValues("full"), refused.WithLabelValues("client")
	l.evicted = with.NewCounter(prometheus.CounterOpts{
		Name: "signpost_http_connections_evicted_total",
		Help: "Connections that were closed because they had waited longest for their client when there was hardly room for others.",
	})
	l.failures = with.NewCounter(prometheus.CounterOpts{
		Name: "signpost_http_accept_errors_total", Help: "Attempts to accept a connection that failed.",
	})
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "signpost_http_open_connections", Help: "Connections of clients that are open.",
	}, func() float64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return float64(len(l.conns))
	})
	if l.o.Most != math.MaxInt {
		with.NewGauge(prometheus.GaugeOpts{
			Name: "signpost_http_max_connections", Help: "Most connections of clients that are open at once.",
		}).Set(float64(l.o.Most))
	}
}

const (
	// held is the value of since of a connection that must not be closed to make room.
	held = math.MaxInt64
	// told is the value of since of a connection that was told to end. If the
	// connection writes an answer before it ends, it counts like any other again.
	told = held - 1
)

// Conn is a connection that a Listener accepted.
type Conn struct {
	*net.TCPConn
	listener *Listener
	client   netip.Prefix
	told     bool // was told to end; guarded by the listener's mu

	// reading and writing are set while a Read or a Write waits. since is the tick from
	// which on the connection has been waiting for its client: when it was accepted, or
	// when the last Write began. So a client that sends or takes a byte now and then
	// does not seem busier than a silent one.
	reading, writing atomic.Bool
	since            atomic.Int64
	gone             atomic.Bool
}

// tell makes the connection's own goroutine end it, as if the client had sent nothing,
// or read nothing, for too long.
func (c *Conn) tell() error {
	if !c.writing.Load() {
		return c.SetReadDeadline(time.Unix(1, 0))
	}
	_ = c.SetLinger(0) // otherwise the part that the client does not read stays in the kernel
	return c.SetWriteDeadline(time.Unix(1, 0))
}

// Hold keeps the connection from being closed to make room, until the next Write. It is
// for a known client that sends for long.
func (c *Conn) Hold() { c.since.Store(held) }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	c.reading.Store(true)
	n, err := c.TCPConn.Read(p)
	c.reading.Store(false)
	return n, err
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	c.since.Store(c.listener.tick.Load())
	c.writing.Store(true)
	n, err := c.TCPConn.Write(p)
	c.writing.Store(false)
	return n, err
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	if !c.gone.Swap(true) {
		defer c.listener.forget(c) // when its file is free
	}
	return c.TCPConn.Close()
}
