package listen

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// scripted is a listener that answers with prepared values.
type scripted struct {
	net.Listener
	answers chan any // an error or a connection
}

func (s scripted) Accept() (net.Conn, error) {
	switch answer := (<-s.answers).(type) {
	case error:
		return nil, answer
	case net.Conn:
		return answer, nil
	}
	return nil, net.ErrClosed
}

func (s scripted) Close() error { close(s.answers); return nil }

func outOf(what syscall.Errno) error {
	return &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", what)}
}

// Whatever error there is, the listener goes on accepting, with growing pauses.
func TestAcceptGoesOnAfterErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		inner := scripted{answers: make(chan any, 100)}
		var logged bytes.Buffer
		l := New(inner, Options{Log: slog.New(slog.NewTextHandler(&logged, nil))})
		for _, trouble := range []syscall.Errno{
			syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EPERM, syscall.EINVAL,
			syscall.EMFILE, syscall.EMFILE, syscall.EMFILE,
		} {
			inner.answers <- outOf(trouble)
		}
		conn, other := net.Pipe()
		defer conn.Close()  //nolint:errcheck // of a test
		defer other.Close() //nolint:errcheck // of a test
		inner.answers <- conn
		began := time.Now()
		got, err := l.Accept()
		if err != nil || got != conn {
			t.Fatalf("Accept after trouble: %v, %v", got, err)
		}
		// 5, 10, 20 ... 640 ms, and then a second each.
		if took, want := time.Since(began), 1275*time.Millisecond+2*time.Second; took != want {
			t.Errorf("ten errors took %v, want %v", took, want)
		}
		if n := strings.Count(logged.String(), "connections of clients are not accepted"); n != 1 {
			t.Errorf("they were logged %d times, want once a minute", n)
		}
		// After a success the pauses begin again with the shortest, and Close ends a
		// pause.
		inner.answers <- outOf(syscall.EMFILE)
		inner.answers <- outOf(syscall.EMFILE)
		ended := make(chan error)
		go func() { _, err := l.Accept(); ended <- err }()
		synctest.Wait()
		began = time.Now()
		require.NoError(t, l.Close())
		if err := <-ended; !errors.Is(err, net.ErrClosed) || time.Since(began) != 0 {
			t.Errorf("Accept of a closed listener: %v after %v, want net.ErrClosed at once", err, time.Since(began))
		}
		assert.NoError(t, l.Close(), "closing twice")
	})
}

func TestClients(t *testing.T) {
	t.Parallel()
	l := New(scripted{}, Options{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:ff::1/128")}})
	for remote, want := range map[string]string{
		"192.0.2.7:1":             "192.0.2.7/32",
		"[::ffff:192.0.2.7]:1":    "192.0.2.7/32",
		"[2001:db8:1:2:3::4]:1":   "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::]:1": "2001:db8:1:2::/64",
		"[2001:db8:1:3::]:1":      "2001:db8:1:3::/64",
		"[fe80::1%eth0]:1":        "fe80::/64",
		"10.9.8.7:1":              "invalid Prefix",
		"[::ffff:10.9.8.7]:1":     "invalid Prefix",
		"[2001:db8:ff::1]:1":      "invalid Prefix",
	} {
		if got := l.clientOf(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(remote))); got.String() != want {
			t.Errorf("%s counts for %s, want %s", remote, got, want)
		}
	}
}

// pair is both ends of a connection.
type pair struct {
	client net.Conn
	server *Conn // nil if it was refused
}

// started returns a listener on loopback.
func started(t *testing.T, o Options) *Listener {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	o.Registry = prometheus.NewPedanticRegistry()
	l := New(inner, o)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// connect makes a connection from an address of this machine.
func connect(t *testing.T, l *Listener, from string) pair {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	client, err := dialer.DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	inner, err := l.Listener.Accept()
	require.NoError(t, err)
	server := l.admit(inner.(*net.TCPConn))
	if server != nil {
		t.Cleanup(func() { _ = server.Close() })
	}
	return pair{client, server}
}

// wantRefused fails the test unless the connection was closed as soon as it came.
func wantRefused(t *testing.T, p pair) {
	t.Helper()
	if p.server != nil {
		t.Fatal("a connection too many was accepted")
	}
	_ = p.client.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := p.client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection too many: %v, want that it is reset", err)
	}
}

func TestOneClientHasItsBound(t *testing.T) {
	t.Parallel()
	l := started(t, Options{Name: "test", Most: 100, PerClient: 3, Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.9/32")}})
	var first pair
	for i := range 3 {
		p := connect(t, l, "127.0.0.2")
		if p.server == nil {
			t.Fatalf("connection %d of 3 was refused", i+1)
		}
		if i == 0 {
			first = p
		}
	}
	wantRefused(t, connect(t, l, "127.0.0.2"))
	if connect(t, l, "127.0.0.3").server == nil {
		t.Error("another client is refused too")
	}
	for range 5 {
		if connect(t, l, "127.0.0.9").server == nil {
			t.Error("a proxy is taken for one client")
		}
	}
	for range 2 { // the second must not count
		_ = first.server.Close()
	}
	if connect(t, l, "127.0.0.2").server == nil {
		t.Error("what was closed still counts")
	}
	wantRefused(t, connect(t, l, "127.0.0.2"))
	want := map[string]float64{"signpost_http_open_connections": 9, "signpost_http_max_connections": 100, "signpost_http_connections_refused_total client": 2, "signpost_http_connections_refused_total full": 0}
	got := figures(t, l)
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%s = %v, want %v", name, got[name], n)
		}
	}
}

// Shortly before the bound, the connections that have waited longest are closed to make
// room, except for those that are held, were just answered, or do not wait for their
// client.
func TestSilentConnectionsMakeRoom(t *testing.T) {
	t.Parallel()
	l := started(t, Options{Name: "test", Most: 64})
	const last, room = 60, 4 // before the 61st, room is made for four
	var ended [64]chan struct{}
	var heard [64]atomic.Int64
	open := func(i int) pair {
		p := connect(t, l, "127.0.0.2")
		if p.server == nil {
			t.Fatalf("connection %d was refused", i)
		}
		return p
	}
	reading := func(i int, p pair) {
		ended[i] = make(chan struct{})
		go func() {
			defer close(ended[i])
			for {
				if _, err := p.server.Read(make([]byte, 1)); err != nil {
					_ = p.server.Close()
					return
				}
				heard[i].Add(1)
			}
		}()
		eventually(t, "the connection to be read from", p.server.reading.Load)
	}
	// These are the oldest: one that does not wait for its client, one that is held,
	// one that was answered last, and one that sends a byte from time to time but no
	// request.
	open(0)
	held := open(1)
	held.server.Hold()
	reading(1, held)
	answered := open(2)
	reading(2, answered)
	trickling := open(3)
	reading(3, trickling)
	for i := 4; i < last; i++ {
		reading(i, open(i))
	}
	if _, err := answered.server.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := trickling.client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the byte to arrive", func() bool { return heard[3].Load() == 1 && trickling.server.reading.Load() })
	reading(last, open(last))
	for _, i := range []int{3, 4, 5, 6} {
		select {
		case <-ended[i]:
		case <-time.After(time.Minute):
			t.Fatalf("connection %d did not make room", i)
		}
	}
	eventually(t, "places to be free", func() bool { return figures(t, l)["signpost_http_open_connections"] == last+1-room })
	for _, i := range []int{1, 2, 7, last} {
		select {
		case <-ended[i]:
			t.Errorf("connection %d was ended as well", i)
		default:
		}
	}
	if n := figures(t, l)["signpost_http_connections_evicted_total"]; n != room {
		t.Errorf("%v connections were ended, want %d", n, room)
	}
}

// Clients that do not read their answers are closed to make room like silent ones.
// However many there are, they do not keep others out for as long as an answer may
// wait.
func TestClientsWhoDoNotReadMakeRoom(t *testing.T) {
	t.Parallel()
	const most = 8
	answer := make([]byte, 64<<20) // more than all buffers of the kernel take
	l := started(t, Options{Name: "test", Most: most})
	for i := range most {
		p := connect(t, l, "127.0.0.2")
		if p.server == nil {
			t.Fatalf("connection %d of %d was refused", i+1, most)
		}
		go func() {
			_, _ = p.server.Write(answer)
			_ = p.server.Close()
		}()
		eventually(t, "the connection to wait for its client", p.server.writing.Load)
	}
	if connect(t, l, "127.0.0.3").server == nil {
		t.Error("another client is refused while nobody reads")
	}
	if n := figures(t, l)["signpost_http_connections_evicted_total"]; n == 0 {
		t.Error("no connection was ended")
	}
}

// If no connection can be closed to make room, a further one is refused.
func TestTheBoundHolds(t *testing.T) {
	t.Parallel()
	l := started(t, Options{Name: "test", Most: 5})
	for i := range 5 {
		if connect(t, l, "127.0.0.2").server == nil {
			t.Fatalf("connection %d of 5 was refused", i+1)
		}
	}
	wantRefused(t, connect(t, l, "127.0.0.3"))
	if n := figures(t, l)["signpost_http_connections_refused_total full"]; n != 1 {
		t.Errorf("%v were counted as refused, want 1", n)
	}
}

func TestOpenFiles(t *testing.T) {
	t.Parallel()
	if n, err := OpenFiles(); err != nil || n < 3 {
		t.Errorf("%d files may be open, %v", n, err)
	}
}

// figures returns the values of a listener's metrics by name and reason.
func figures(t *testing.T, l *Listener) map[string]float64 {
	t.Helper()
	families, err := l.o.Registry.(*prometheus.Registry).Gather()
	require.NoError(t, err)
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, label := range m.GetLabel() {
				if label.GetName() == "reason" {
					name += " " + label.GetValue()
				}
			}
			all[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return all
}

// eventually polls until check is true, for at most a minute.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !check(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-time.After(time.Millisecond)
	}
}
