package api

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"

	"github.com/signpost/signpost/internal/pgtest"
)

// lingerers are connections that are ready to linger.
type lingerers struct {
	*lingering
	t  *testing.T
	ln net.Listener
}

func newLingerers(t *testing.T) *lingerers {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	l := newLingering()
	l.time = time.Minute
	return &lingerers{l, t, lingeringListener{ln, l, ln.Close}}
}

// connect returns both ends of a connection on which the last answer was sent.
func (l *lingerers) connect() (client, server net.Conn) {
	l.t.Helper()
	client, err := net.Dial("tcp", l.ln.Addr().String())
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = client.Close() })
	if server, err = l.ln.Accept(); err != nil {
		l.t.Fatal(err)
	}
	server.(*lingeringConn).linger.Store(true)
	return client, server
}

// closed closes a connection, and reports when that is done.
func (l *lingerers) closed(server net.Conn) <-chan error {
	done := make(chan error, 1)
	go func() { done <- server.Close() }()
	return done
}

func (l *lingerers) lingers(n int) func() bool {
	return func() bool { return len(l.places) == n }
}

// wait fails the test if a connection lingers much longer than is allowed.
func (l *lingerers) wait(closed <-chan error) {
	l.t.Helper()
	select {
	case err := <-closed:
		if err != nil {
			l.t.Error(err)
		}
	case <-time.After(20 * time.Second):
		l.t.Fatal("lingers on")
	}
}

// A client that keeps sending is read for a limited time: until it closes, until there
// was enough of it, until its time is over, which further bytes do not extend, or until
// the server stops.
func TestLingerEnds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		adjust func(*lingering)
		client func(*lingerers, net.Conn)
	}{
		"with the client": {func(*lingering) {}, func(_ *lingerers, c net.Conn) { _ = c.Close() }},
		"by its bytes":    {func(l *lingering) { l.bytes = 1 << 20 }, func(_ *lingerers, c net.Conn) { _, _ = io.Copy(c, endless{}) }},
		"by its time": {func(l *lingering) { l.time = 200 * time.Millisecond }, func(_ *lingerers, c net.Conn) {
			for err := error(nil); err == nil; _, err = io.WriteString(c, "x") {
				<-time.After(10 * time.Millisecond)
			}
		}},
		"by silence": {func(l *lingering) { l.time = 200 * time.Millisecond }, func(*lingerers, net.Conn) {}},
		"by a stop":  {func(*lingering) {}, func(l *lingerers, _ net.Conn) { l.stop() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLingerers(t)
			test.adjust(l.lingering)
			client, server := l.connect()
			closed := l.closed(server)
			// The server's side is closed at once.
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			eventually(t, "the connection to linger", func() bool { return l.lingers(1)() || len(closed) == 1 })
			go test.client(l, client)
			l.wait(closed)
			if name != "by a stop" && !l.lingers(0)() {
				t.Error("a connection that was closed has its place still")
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// Only so many connections linger at once, and none after a stop.
func TestLingerIsBounded(t *testing.T) {
	t.Parallel()
	l := newLingerers(t)
	l.places = make(chan struct{}, 1)
	_, first := l.connect()
	closed := l.closed(first)
	eventually(t, "the first to linger", l.lingers(1))
	_, second := l.connect()
	l.wait(l.closed(second))
	if !l.lingers(1)() {
		t.Error("the first does not linger any more")
	}
	l.stop() // waits for the first
	l.wait(closed)
	_, third := l.connect()
	l.wait(l.closed(third))
}

// refused returns a connection whose request was answered although its body has more
// bytes to come.
func refused(b *bundle) net.Conn {
	b.t.Helper()
	conn := b.dial()
	b.write(conn, "POST /users/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: text/csv\r\n"+
		"Content-Length: 10000000000\r\n\r\n%s", testAdminToken, strings.Repeat("x", 64<<10))
	return conn
}

// A client that reads no answer before it has sent its file still gets the answer.
func TestAnswerOutlivesItsBody(t *testing.T) {
	t.Parallel()
	b := setupOn(t, pgtest.Pool(t), func(o *Options) { o.ImportMaxBytes = 1 << 20 })
	conn := refused(b)
	if n, err := io.CopyN(conn, endless{}, lingerBytes/2); err != nil {
		t.Errorf("could send %d bytes: %v", n, err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close {
		t.Errorf("answered with %v", resp)
	}
}

// A connection that lingers holds up no shutdown, and is closed by it.
func TestShutdownEndsLingering(t *testing.T) {
	t.Parallel()
	b := setupOn(t, pgtest.Pool(t), func(o *Options) { o.ImportMaxBytes = 1 << 20 })
	b.api.lingering.time = time.Minute
	conn := refused(b)
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 413 ") {
		t.Fatalf("answered with %q, %v", answer, err)
	}
	lingers := (&lingerers{lingering: b.api.lingering}).lingers
	eventually(t, "the connection to linger", lingers(1))
	b.shutDown()
	if !lingers(lingerConns)() { // nothing lingers any more: all places are taken
		t.Error("a connection may linger after the shutdown")
	}
}

// If a body is announced as too large to be read to its end, its client need not wait
// for the answer.
func TestNothingIsReadOfTooMuch(t *testing.T) {
	t.Parallel()
	for length, want := range map[int]int64{drainBytes - 1: drainBytes - 1, drainBytes: 0, 10_000_000_000: 0} {
		var ctx fasthttp.RequestCtx
		_, conn := newLingerers(t).connect()
		ctx.Init2(conn, nil, false)
		ctx.Request.Header.SetContentLength(length)
		body := &io.LimitedReader{R: endless{}, N: int64(length)}
		ctx.Request.SetBodyStream(body, length)
		drained(func(*fasthttp.RequestCtx) {})(&ctx)
		if read := int64(length) - body.N; read != want || ctx.Response.ConnectionClose() != (want == 0) {
			t.Errorf("%d of %d bytes are read, close: %v", read, length, ctx.Response.ConnectionClose())
		}
	}
}

// A connection is kept for the next request if the last one was read completely,
// however large it was.
func TestConnectionAfterALargeUpload(t *testing.T) {
	t.Parallel()
	b := setup(t)
	row := strings.Repeat("ann", 300) + ",ann@example.com\n" // few rows, which take little time
	file := "username,email\n" + strings.Repeat(row, drainBytes/len(row)+1)
	answers := b.rawAll(fmt.Sprintf("POST /users/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: text/csv\r\n"+
		"Content-Length: %d\r\n\r\n%sGET /health HTTP/1.1\r\nHost: x\r\n\r\n", testAdminToken, len(file), file), 2)
	if len(answers) != 2 || answers[0].status != 202 || answers[1].status != 200 || len(file) < drainBytes {
		t.Errorf("%d answers to two requests, of %d bytes: %+v", len(answers), len(file), answers)
	}
}
