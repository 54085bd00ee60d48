package postgres_test

import (
	"context"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

// A door stands before a server. If closed, it accepts connections and closes them. If
// stuck, it accepts them and never answers. If open, it passes them on to the server.
type door struct {
	server  string // path of its socket
	state   atomic.Int32
	knocks  atomic.Int64
	waiting atomic.Int64 // connections that nobody answers
	most    atomic.Int64 // the highest value of waiting
}

const (
	open = iota
	closed
	stuck
)

func (d *door) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		d.knocks.Add(1)
		go d.let(conn)
	}
}

func (d *door) let(conn net.Conn) {
	defer conn.Close() //nolint:errcheck // a test's
	switch d.state.Load() {
	case stuck:
		d.waiting.Add(1)
		defer d.waiting.Add(-1)
		// By then it is known of those before it whether they have gone.
		count := time.AfterFunc(200*time.Millisecond, func() { d.most.Store(max(d.most.Load(), d.waiting.Load())) })
		defer count.Stop()
		_, _ = io.Copy(io.Discard, conn) // until the client gives up
	case open:
		server, err := net.Dial("unix", d.server) //nolint:noctx // a test's
		if err != nil {
			return
		}
		defer server.Close()                         //nolint:errcheck // a test's
		go func() { _, _ = io.Copy(server, conn) }() // ends with the connections
		_, _ = io.Copy(conn, server)
	}
}

// However many clients want a server that is down, it is asked only from time to time.
// It is used as soon as it is back.
func TestServerThatIsDownIsSpared(t *testing.T) {
	t.Parallel()
	at, err := url.Parse(pgtest.URL(t))
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	query := at.Query()
	d := &door{server: filepath.Join(query.Get("host"), ".s.PGSQL."+query.Get("port"))}
	d.state.Store(closed)
	go d.serve(l)
	host, port, _ := net.SplitHostPort(l.Addr().String())
	for name, value := range map[string]string{"host": host, "port": port, "connect_timeout": "1"} {
		query.Set(name, value)
	}
	at.RawQuery = query.Encode()
	const conns = 8
	pool, err := postgres.Open(t.Context(), at.String(), postgres.Options{MaxConns: conns})
	require.NoError(t, err)
	t.Cleanup(pool.Close)

	ask := func(ctx context.Context) error { _, err := pool.Exec(ctx, "SELECT 1"); return err }
	askForASecond := func() {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		var all sync.WaitGroup
		for range 2 * conns {
			all.Go(func() {
				for began := time.Now(); time.Since(began) < time.Second; time.Sleep(time.Millisecond) {
					if err := ask(ctx); !postgres.Unavailable(err) {
						t.Errorf("while it is down: %v", err)
						return
					}
				}
			})
		}
		all.Wait()
	}
	// Until the first ones have failed, all clients try. Then they try one by one, at
	// first at least 25 ms apart, later 250.
	askForASecond()
	if n := d.knocks.Load(); n > 4*conns {
		t.Errorf("a closed server was tried %d times in a second", n)
	}
	d.state.Store(stuck)
	askForASecond()
	if n := d.most.Load(); n != 1 {
		t.Errorf("%d connections waited for a stuck server, want one", n)
	}
	if conn, err := postgres.Connect(t.Context(), pool); err == nil || !postgres.Unavailable(err) {
		t.Errorf("a connection outside of the pool: %v, %v", conn, err)
	}

	d.state.Store(open)
	eventually(t, func() bool { return ask(t.Context()) == nil })
	conn, err := postgres.Connect(t.Context(), pool)
	require.NoError(t, err)
	defer conn.Close(t.Context()) //nolint:errcheck // a test's
	var app string
	if err := conn.QueryRow(t.Context(), "SHOW timezone").Scan(&app); err != nil || app != "UTC" {
		t.Errorf("it is not set up like the pool's: timezone %q, %v", app, err)
	}
}
