// Package listen accepts the connections of clients within bounds, and goes on
// accepting whatever happens: a server whose listener gave up because of a
// moment's trouble, such as too many open files, would be down for all.
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
)

const (
	// After an error the next attempt waits, longer each time.
	minPause = 5 * time.Millisecond
	maxPause = time.Second
	// logEvery is how often trouble of one kind is logged.
	logEvery = time.Minute
	// Room is made for a part of the bound at a time, one in spareShare, and for
	// mostSpare connections at most.
	spareShare, mostSpare = 16, 512
	// roomWait is how long a connection waits for a place that is being made.
	roomWait = 50 * time.Millisecond
	// networkBits of an IPv6 address name one client, which has all the rest to
	// itself.
	networkBits = 64
)

// Options says how many connections there may be. The zero value has no bounds.
type Options struct {
	// Name tells the metrics of listeners apart.
	Name string
	// Most bounds the connections that are open at once. Shortly before it is
	// reached, those that have waited longest for their client, to send or to read,
	// are closed, so that there is room for clients who do either. 0 means no bound.
	Most int
	// PerClient bounds the connections of one client, an IPv4 address or the /64 of an IPv6
	// one. A connection beyond it is closed as it comes. 0 means no bound.
	PerClient int
	// Proxies are addresses that many clients come from: PerClient does not
	// concern them.
	Proxies []netip.Prefix
	// Log hears, at most once a minute, that connections are refused or cannot be
	// accepted. Nil means nobody.
	Log *slog.Logger
}

// A Listener accepts connections within bounds. Its connections of TCP are
// *Conn. It may be used concurrently.
type Listener struct {
	net.Listener
	o      Options
	spare  int           // room that is made at a time
	freed  chan struct{} // gets one when a connection has ended
	closed chan struct{}
	close  func() error

	// tick orders what happens: it moves with each connection.
	tick atomic.Int64

	mu       sync.Mutex
	conns    map[*Conn]struct{}
	clients  map[netip.Prefix]int // connections by client
	came     int                  // connections that came, refused ones included
	roomNext int                  // how many have to have come before room is made again
	ending   int                  // connections that were told to end
	logged   map[string]time.Time // when, by reason

	open, most             *prometheus.Desc
	refused, evicted, fail *prometheus.Desc
	full, greedy           atomic.Int64 // refused, by reason
	idle                   atomic.Int64 // evicted
	failures               atomic.Int64
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
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("signpost_http_"+name, help, labels, prometheus.Labels{"listener": o.Name})
	}
	l := &Listener{
		Listener: ln, o: o, spare: min(max(1, o.Most/spareShare), mostSpare),
		freed: make(chan struct{}, 1), closed: make(chan struct{}),
		conns: map[*Conn]struct{}{}, clients: map[netip.Prefix]int{}, logged: map[string]time.Time{},
		open:    desc("open_connections", "Connections of clients that are open."),
		most:    desc("max_connections", "Most connections of clients that are open at once."),
		refused: desc("connections_refused_total", "Connections that were closed as they came, because there were too many (full) or too many of one client (client).", "reason"),
		evicted: desc("connections_evicted_total", "Connections that were closed because they had waited longest for their client when there was hardly room for others."),
		fail:    desc("accept_errors_total", "Attempts to accept a connection that failed."),
	}
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
		l.failures.Add(1)
		l.mu.Lock()
		l.trouble("accepting failed", slog.Any("error", err))
		l.makeRoom() // it may be files that are missing
		l.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-l.closed:
			return nil, fmt.Errorf("accept: %w", net.ErrClosed)
		}
		pause = min(2*pause, maxPause)
	}
}

// admit returns the connection as one of the listener's, or closes it and returns
// nil.
func (l *Listener) admit(tcp *net.TCPConn) *Conn {
	c := &Conn{TCPConn: tcp, listener: l, client: l.clientOf(tcp.RemoteAddr())}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.came++
	switch {
	case c.client.IsValid() && l.clients[c.client] >= l.o.PerClient:
		l.refuse(tcp, &l.greedy, "a client has as many as one may have")
		return nil
	case !l.hasRoom():
		l.refuse(tcp, &l.full, "as many are open as may be at once")
		return nil
	}
	c.since.Store(l.tick.Add(1))
	l.conns[c] = struct{}{}
	if c.client.IsValid() {
		l.clients[c.client]++
	}
	return c
}

// refuse closes a connection as it comes.
func (l *Listener) refuse(tcp *net.TCPConn, count *atomic.Int64, reason string) {
	count.Add(1)
	_ = tcp.SetLinger(0) // leaves nothing behind, not even in the kernel
	_ = tcp.Close()
	l.trouble(reason)
}

// hasRoom reports whether there is room for one more connection. It makes some
// while there is a little left, and waits for a moment if it is not there yet:
// until then the next to come wait in the kernel, as in any queue. The caller
// holds mu, which is given away while it waits.
func (l *Listener) hasRoom() bool {
	// To look for those that can go takes long, so it is not done for each.
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

// clientOf returns whose connection it is; invalid, if it counts for none.
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
			l.idle.Add(1)
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

// trouble logs why connections of clients are lost, once in a while for each
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

// Describe implements [prometheus.Collector].
func (l *Listener) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{l.open, l.most, l.refused, l.evicted, l.fail} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (l *Listener) Collect(ch chan<- prometheus.Metric) {
	l.mu.Lock()
	open := len(l.conns)
	l.mu.Unlock()
	gauge := func(d *prometheus.Desc, n int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n))
	}
	counter := func(d *prometheus.Desc, n *atomic.Int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()), labels...)
	}
	gauge(l.open, open)
	if l.o.Most != math.MaxInt {
		gauge(l.most, l.o.Most)
	}
	counter(l.refused, &l.full, "full")
	counter(l.refused, &l.greedy, "client")
	counter(l.evicted, &l.idle)
	counter(l.fail, &l.failures)
}

const (
	// held is the tick of a connection that is not ended to make room.
	held = math.MaxInt64
	// told is that of one that was told to end. Should it have been faster with its
	// next answer, it is like any other again.
	told = held - 1
)

// Conn is a connection that a Listener accepted.
type Conn struct {
	*net.TCPConn
	listener *Listener
	client   netip.Prefix
	told     bool // to end; guarded by the listener's mu

	// reading and writing say that a Read or a Write waits, and since when the
	// connection has been waiting for its client: since it was accepted, or since
	// the last Write began. So a client that sends or takes a byte now and then does
	// not seem busier than a silent one.
	reading, writing atomic.Bool
	since            atomic.Int64
	gone             atomic.Bool
}

// tell has the connection's own goroutine end it, as if the client had said
// nothing, or taken nothing, for too long.
func (c *Conn) tell() error {
	if !c.writing.Load() {
		return c.SetReadDeadline(time.Unix(1, 0))
	}
	_ = c.SetLinger(0) // or what the client does not read stays in the kernel
	return c.SetWriteDeadline(time.Unix(1, 0))
}

// Hold keeps the connection from being closed to make room, until the next
// Write: for a client who sends for long and is known.
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
