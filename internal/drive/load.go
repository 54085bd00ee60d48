package drive

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Conn is a keep-alive connection that costs this process as little as possible, so
// that most of the machine is left for the server. Only one goroutine may use it at a
// time.
type Conn struct {
	net.Conn
	r      *bufio.Reader
	buf    []byte
	answer fasthttp.Response // of the last request
}

// patience is how long a request waits for its answer.
const patience = 10 * time.Second

// Dial connects to an address.
func Dial(addr string) (*Conn, error) { return DialFrom("", addr) }

// DialFrom connects to an address from one of this machine's own addresses, such as
// 127.0.0.2; "" leaves the choice to the system.
func DialFrom(from, addr string) (*Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: c, r: bufio.NewReader(c)}, nil
}

// browser are the headers of a browser that follows a link.
const browser = "Accept: text/html,application/xhtml+xml\r\nReferer: https://news.example.org/story\r\n" +
	"Accept-Language: en-US,en;q=0.9\r\nAccept-Encoding: gzip, deflate, br\r\n"

// Get requests a path and returns the status. headers are further headers, each ended by
// \r\n, or those of a browser if it is empty. Get reads the answer and drops it.
func (c *Conn) Get(path, agent, headers string) (int, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	c.buf = fmt.Appendf(c.buf[:0], "GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: %s\r\n%s\r\n", path, agent, cmp.Or(headers, browser))
	if _, err := c.Write(c.buf); err != nil {
		return 0, err
	}
	if err := c.answer.Read(c.r); err != nil {
		return 0, err
	}
	return c.answer.StatusCode(), nil
}

// Traffic describes the requests of clients.
type Traffic struct {
	// Path is the beginning of the paths, where "" means "/r/". Codes are their ends,
	// which are requested at random.
	Path   string
	Codes  []string
	Agents []string
	// Turn, if it is set, makes all loops take the codes in turn, so that no code is
	// requested twice before all were requested once.
	Turn *atomic.Int64
	// Headers, if set, replace the headers of a browser; each is ended by \r\n.
	Headers string
	// From is the address of this machine from which clients connect; "" is any.
	From string
	// PerConn is how many requests a client sends over one connection; 0 is no limit.
	PerConn int
	// Status is the status that counts as right; 0 means 302.
	Status int
}

func (t Traffic) pick(r *rand.Rand) (path, agent string) {
	i := r.IntN(len(t.Codes))
	if t.Turn != nil {
		i = int(t.Turn.Add(1)-1) % len(t.Codes)
	}
	return cmp.Or(t.Path, "/r/") + t.Codes[i], t.Agents[r.IntN(len(t.Agents))]
}

// ClosedLoop sends n requests over conns connections, each as soon as the previous one
// was answered, and returns how long all took.
func ClosedLoop(addr string, t Traffic, conns, n int) (time.Duration, error) {
	var left atomic.Int64
	left.Store(int64(n))
	errs := make(chan error, conns)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range conns {
		wg.Go(func() {
			c, err := DialFrom(t.From, addr)
			if err != nil {
				errs <- err
				return
			}
			defer c.Close() //nolint:errcheck // done with it
			r := rand.New(rand.NewPCG(uint64(i), 7))
			for left.Add(-1) >= 0 {
				path, agent := t.pick(r)
				status, err := c.Get(path, agent, t.Headers)
				if err == nil && status != cmp.Or(t.Status, http.StatusFound) {
					err = fmt.Errorf("status %d", status)
				}
				if err != nil {
					errs <- fmt.Errorf("GET %s: %w", path, err)
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	select {
	case err := <-errs:
		return took, err
	default:
		return took, nil
	}
}

// Latencies are the latencies and failures of an open loop.
type Latencies struct {
	// All are the latencies of requests with the right answer.
	All []time.Duration
	// Failures counts the other requests by the status that came; 0 means that none
	// came.
	Failures map[int]int
}

// Failed is how many requests failed.
func (l *Latencies) Failed() (n int) {
	for _, more := range l.Failures {
		n += more
	}
	return n
}

// Add adds the latencies of another loop to these.
func (l *Latencies) Add(other *Latencies) {
	l.All = append(l.All, other.All...)
	for status, n := range other.Failures {
		l.fail(status, n)
	}
}

func (l *Latencies) fail(status, n int) {
	if l.Failures == nil {
		l.Failures = map[int]int{}
	}
	l.Failures[status] += n
}

// Percentile returns the latency that p percent of the answers did not exceed, 0 if
// there are no answers.
func (l *Latencies) Percentile(p int) time.Duration {
	if len(l.All) == 0 {
		return 0
	}
	slices.Sort(l.All)
	return l.All[len(l.All)*p/100]
}

// client is one of the clients of an open loop.
type client struct {
	traffic Traffic
	addr    string
	conn    *Conn // nil if there is no usable connection
	used    int   // requests sent over conn
	saw     Latencies
}

// ask sends one request that was due at a given time, over the present connection or,
// if there is none, over a new one.
func (c *client) ask(path, agent string, at time.Time) {
	if time.Since(at) > patience {
		c.saw.fail(0, 1) // a real client would have left by now; and a run has to end although the server hangs
		return
	}
	kept := c.conn != nil
	if !kept && !c.connect() {
		return
	}
	status, err := c.conn.Get(path, agent, c.traffic.Headers)
	if kept && (err != nil || status == http.StatusRequestTimeout) {
		// The server closed a connection that waited for this request. Every browser
		// then repeats the request on a new one.
		c.leave()
		if !c.connect() {
			return
		}
		status, err = c.conn.Get(path, agent, c.traffic.Headers)
	}
	c.used++
	switch {
	case err != nil:
		c.saw.fail(0, 1)
	case status != cmp.Or(c.traffic.Status, http.StatusFound):
		c.saw.fail(status, 1)
	default:
		c.saw.All = append(c.saw.All, time.Since(at))
		if c.used != c.traffic.PerConn {
			return
		}
	}
	c.leave()
}

// connect makes a new connection. If that fails, the request counts as failed.
func (c *client) connect() bool {
	var err error
	if c.conn, err = DialFrom(c.traffic.From, c.addr); err != nil {
		c.saw.fail(0, 1)
	}
	return err == nil
}

func (c *client) leave() {
	if c.conn != nil {
		_ = c.conn.Close() // done with it
		c.conn, c.used = nil, 0
	}
}

// OpenLoop sends rate requests a second for d over conns connections, whether or not
// earlier ones were answered. A latency is measured from the time at which its request
// was due, so that a server that stands still is not asked less often (coordinated
// omission). Requests that become due while the server is away fail.
func OpenLoop(ctx context.Context, addr string, t Traffic, conns, rate int, d time.Duration) *Latencies {
	due := make(chan time.Time, rate*2)
	clients := make([]client, conns)
	var wg sync.WaitGroup
	for i := range clients {
		c := &clients[i]
		c.traffic, c.addr = t, addr
		c.conn, _ = DialFrom(t.From, addr) // without a connection, the client tries again for each request
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			for at := range due {
				path, agent := t.pick(r)
				c.ask(path, agent, at)
			}
			c.leave()
		})
	}
	start := time.Now()
	gap := time.Second / time.Duration(rate)
	for n := 0; time.Since(start) < d && ctx.Err() == nil; {
		at := start.Add(time.Duration(n) * gap)
		if at.After(time.Now()) {
			time.Sleep(200 * time.Microsecond)
			continue
		}
		select {
		case due <- at:
			n++
		case <-ctx.Done(): // all clients may be waiting for a server that hangs
		}
	}
	close(due)
	wg.Wait()
	sum := new(Latencies)
	for i := range clients {
		sum.Add(&clients[i].saw)
	}
	return sum
}
