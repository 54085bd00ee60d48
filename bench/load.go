package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a keep-alive connection that costs this process as little as it can,
// so that the server gets the machine.
type conn struct {
	net.Conn
	r   *bufio.Reader
	buf []byte
}

// patience is what a request waits for its answer.
const patience = 10 * time.Second

func dial(addr string) (*conn, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, r: bufio.NewReaderSize(c, 4096)}, nil
}

// get asks for a path and returns the status.
func (c *conn) get(path, agent, referrer string) (int, error) {
	c.buf = append(c.buf[:0], "GET "...)
	c.buf = append(c.buf, path...)
	c.buf = append(c.buf, " HTTP/1.1\r\nHost: localhost\r\nUser-Agent: "...)
	c.buf = append(c.buf, agent...)
	c.buf = append(c.buf, "\r\nAccept: text/html,application/xhtml+xml\r\nReferer: "...)
	c.buf = append(c.buf, referrer...)
	c.buf = append(c.buf, "\r\nAccept-Language: en-US,en;q=0.9\r\nAccept-Encoding: gzip, deflate, br\r\n\r\n"...)
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	if _, err := c.Write(c.buf); err != nil {
		return 0, err
	}
	return c.answer()
}

func (c *conn) answer() (int, error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 {
		return 0, errors.New("short status line")
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, err
	}
	length := 0
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok && bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
	}
	_, err = io.CopyN(io.Discard, c.r, int64(length))
	return status, err
}

// traffic is what the clients send.
type traffic struct {
	codes  []string
	agents []string
	zipf   bool
}

func (t traffic) pick(r *rand.Rand, z *rand.Zipf) (path, agent string) {
	i := r.Uint64N(uint64(len(t.codes)))
	if t.zipf {
		i = z.Uint64()
	}
	return "/r/" + t.codes[i], t.agents[r.IntN(len(t.agents))]
}

func (t traffic) source(seed uint64) (*rand.Rand, *rand.Zipf) {
	r := rand.New(rand.NewPCG(seed, 7))
	return r, rand.NewZipf(r, 1.1, 1, uint64(len(t.codes)-1))
}

// closedLoop sends n requests over conns connections, each as soon as the one
// before was answered, and returns how long that took.
func closedLoop(addr string, t traffic, conns, n int) (time.Duration, error) {
	var left atomic.Int64
	left.Store(int64(n))
	errs := make(chan error, conns)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range conns {
		wg.Go(func() {
			c, err := dial(addr)
			if err != nil {
				errs <- err
				return
			}
			defer c.Close() //nolint:errcheck // done with it
			r, z := t.source(uint64(i))
			for left.Add(-1) >= 0 {
				path, agent := t.pick(r, z)
				status, err := c.get(path, agent, "https://news.example.org/story")
				if err == nil && status != 302 {
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

// latencies is what an open loop saw.
type latencies struct {
	all    []time.Duration
	failed int
}

// ask sends one request that was due at a moment, over c or, if that is nil, over
// a new connection. It returns the connection, nil if it is of no more use.
func (l *latencies) ask(c *conn, addr, path, agent string, at time.Time) *conn {
	if time.Since(at) > patience {
		l.failed++ // a client would have left; and a server that hangs ends the run
		return c
	}
	if c == nil {
		var err error
		if c, err = dial(addr); err != nil {
			l.failed++
			return nil
		}
	}
	status, err := c.get(path, agent, "https://news.example.org/story")
	if err != nil || status != 302 {
		l.failed++
		c.Close() //nolint:errcheck // it failed
		return nil
	}
	l.all = append(l.all, time.Since(at))
	return c
}

func (l *latencies) p99() time.Duration {
	if len(l.all) == 0 {
		return 0
	}
	slices.Sort(l.all)
	return l.all[len(l.all)*99/100]
}

// openLoop sends rate requests a second for d, whether or not earlier ones were
// answered. A latency counts from the moment at which its request was due, so
// that a server that stands still is not asked less often (coordinated omission).
// While the server is away the requests that are due fail.
func openLoop(ctx context.Context, addr string, t traffic, conns, rate int, d time.Duration) *latencies {
	due := make(chan time.Time, rate*2)
	parts := make([]latencies, conns)
	var wg sync.WaitGroup
	for i := range conns {
		c, _ := dial(addr) // without a connection its requests fail
		wg.Go(func() {
			r, z := t.source(uint64(i))
			for at := range due {
				path, agent := t.pick(r, z)
				c = parts[i].ask(c, addr, path, agent, at)
			}
			if c != nil {
				c.Close() //nolint:errcheck // done with it
			}
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
		case <-ctx.Done(): // all may be waiting for a server that hangs
		}
	}
	close(due)
	wg.Wait()
	sum := new(latencies)
	for _, p := range parts {
		sum.all = append(sum.all, p.all...)
		sum.failed += p.failed
	}
	return sum
}
