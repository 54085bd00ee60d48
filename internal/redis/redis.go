// Package redis talks to the cache that all replicas share, so that it can
// never hold a redirect up.
//
// [Client.Get] gives up after a few milliseconds whatever Redis does. After a few
// failures a circuit breaker opens, and Get then answers at once that it does not know.
// Only a probe in the background closes the breaker again, never a request. Every
// failure counts as a miss: nothing that is stored in Redis is the only copy.
//
// The package knows keys and values; only its user knows what they mean.
package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"
	"github.com/sony/gobreaker/v2"
)

const (
	// maxGets bounds the requests under way. A request that Redis does not answer
	// counts until its connection ends.
	maxGets = 256
	// putTimeout bounds a batch of writes, which nobody waits for.
	putTimeout = 500 * time.Millisecond
	// probeEvery is how often the client checks in the background whether Redis is
	// there. While the check fails and the breaker is still closed, it checks more
	// often, so that a process without requests notices too.
	probeEvery  = time.Second
	probeAgain  = 100 * time.Millisecond
	dialTimeout = time.Second
	// connTimeout ends a connection on which a request gets no answer.
	connTimeout = time.Second
	// closeWait bounds how long a Redis that hangs delays the end of the process.
	closeWait = time.Second

	// maxFailures in a row, or half of at least minRequests within tripWindow,
	// open the breaker.
	maxFailures = 10
	minRequests = 20
	tripWindow  = 30 * time.Second
)

var errTimeout = errors.New("redis did not answer in time")

// Options of a [Client]. URL is required. Other fields with their zero value have the
// default in their comment.
type Options struct {
	// URL is the address of Redis: redis://, rediss:// or unix://, with user, password
	// and number of the database. Further nodes of a cluster are given as
	// addr=host:port in its query.
	URL string
	// Timeout bounds how long a request may take (10 ms).
	Timeout time.Duration
	// Log gets what an operator should know (slog.Default).
	Log *slog.Logger
	// Registerer gets the metrics; nil: they are not registered.
	Registerer prometheus.Registerer
}

// A Client reads and writes values in Redis. All methods may be called concurrently.
type Client struct {
	options rueidis.ClientOption
	timeout time.Duration
	log     *slog.Logger
	metrics *metrics

	conn    atomic.Pointer[rueidis.Client] // nil until Redis was first reached
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	gets    chan struct{} // questions under way
}

// CheckURL returns an error if an address is invalid. The error does not repeat the
// address.
func CheckURL(url string) error {
	_, err := parse(url)
	return err
}

func parse(url string) (rueidis.ClientOption, error) {
	options, err := rueidis.ParseURL(url)
	if err != nil || options.InitAddress[0] == "" || strings.Contains(url, "#") { // a password with # would end there
		return options, errors.New("not a redis://, rediss:// or unix:// address") // the cause may repeat a password
	}
	return options, nil
}

// New makes a client. It works while [Client.Run] runs.
func New(o Options) (*Client, error) {
	options, err := parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("open redis: %w", err)
	}
	options.Dialer.Timeout = dialTimeout
	options.ConnWriteTimeout = connTimeout
	options.DisableRetry = true     // a failure is a miss
	options.AlwaysPipelining = true // a question that is given up must not cost the connection
	// The cache in the process already is what client-side caching would be, and
	// learns of changes from Postgres. A second copy of each link would only add
	// another way to be wrong.
	options.DisableCache = true
	options.PipelineMultiplex = 1 // two connections
	options.ReadBufferEachConn, options.WriteBufferEachConn = 64<<10, 64<<10
	if options.ClientName == "" {
		options.ClientName = "signpost"
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Millisecond
	}
	c := &Client{options: options, timeout: o.Timeout, log: o.Log, gets: make(chan struct{}, maxGets)}
	c.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name: "redis", MaxRequests: 1, Interval: tripWindow, Timeout: probeEvery / 2,
		ReadyToTrip: tripped, OnStateChange: c.report,
	})
	c.metrics = newMetrics(c, o.Registerer)
	return c, nil
}

func tripped(n gobreaker.Counts) bool {
	return n.ConsecutiveFailures >= maxFailures || n.Requests >= minRequests && 2*n.TotalFailures >= n.Requests
}

// report logs when Redis is no longer used and when it is used again.
func (c *Client) report(_ string, from, to gobreaker.State) {
	switch {
	case from == gobreaker.StateClosed:
		c.log.Warn("redis does not answer; links come from postgres alone until it does")
	case to == gobreaker.StateClosed:
		c.log.Info("redis answers again")
	}
}

// Up reports whether Redis is being used.
func (c *Client) Up() bool {
	return c.conn.Load() != nil && c.breaker.State() == gobreaker.StateClosed
}

// Run connects, and checks in the background whether Redis is there, until ctx ends. It
// then closes the connections and returns nil. Call it once.
func (c *Client) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			c.close()
			return nil
		case <-timer.C:
		}
		next := probeEvery
		if conn := c.conn.Load(); conn != nil {
			if err := c.probe(ctx, *conn); err != nil && c.Up() {
				next = probeAgain
			}
		} else if err := c.connect(); err != nil && !failing {
			failing = true
			c.log.WarnContext(ctx, "redis cannot be reached; links come from postgres alone until it can",
				slog.Any("error", err))
		}
		timer.Reset(next)
	}
}

func (c *Client) connect() error {
	conn, err := rueidis.NewClient(c.options)
	if err != nil {
		return fmt.Errorf("connect to redis: %w", err)
	}
	c.conn.Store(&conn)
	c.log.Info("redis is used as the shared cache")
	return nil
}

// close closes the connections, which ends the requests under way.
func (c *Client) close() {
	conn := c.conn.Swap(nil)
	if conn == nil {
		return
	}
	done := make(chan struct{})
	go func() { (*conn).Close(); close(done) }()
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C: // it waits for answers that do not come
	}
}

// probe sends a request whose answer does not matter. It is the only request that is
// let through while the breaker is half open.
func (c *Client) probe(ctx context.Context, conn rueidis.Client) error {
	done, err := c.breaker.Allow()
	if err != nil {
		return err // it was opened a moment ago
	}
	began := time.Now()
	_, _, err = c.ask(ctx, conn, "signpost:probe")
	done(err)
	c.metrics.observe("probe", err, time.Since(began))
	return err
}

// Get reads the value of a key. It waits for at most Timeout. ok is false if Redis
// cannot be asked or did not answer. The value is empty if there is none.
func (c *Client) Get(ctx context.Context, key string) (value string, ok bool) {
	conn, done := c.allow("get", 1)
	if conn == nil {
		return "", false
	}
	began := time.Now()
	value, busy, err := c.ask(ctx, *conn, key)
	if busy {
		done(nil)
		c.metrics.requests.WithLabelValues("get", "busy").Inc()
		return "", false
	}
	done(err)
	c.metrics.observe("get", err, time.Since(began))
	if err != nil {
		return "", false
	}
	c.metrics.requests.WithLabelValues("get", hitOrMiss(value)).Inc()
	return value, true
}

// allow returns the connection for requests, and how to tell the breaker their result. It
// returns no connection, and counts the requests as skipped, while Redis is not used.
func (c *Client) allow(op string, requests int) (conn *rueidis.Client, done func(error)) {
	if c.Up() {
		conn = c.conn.Load()
	}
	if conn != nil {
		if done, err := c.breaker.Allow(); err == nil {
			return conn, done
		}
	}
	c.metrics.requests.WithLabelValues(op, "skipped").Add(float64(requests))
	return nil, nil
}

func hitOrMiss(value string) string {
	if value == "" {
		return "miss"
	}
	return "hit"
}

// ask gives up in time, whatever the library waits for: an answer, a place in its
// queue, or a connection.
func (c *Client) ask(ctx context.Context, conn rueidis.Client, key string) (value string, busy bool, err error) {
	select {
	case c.gets <- struct{}{}:
	default:
		return "", true, nil
	}
	type answer struct {
		value string
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		defer func() { <-c.gets }() // it ends with the connection at the latest
		value, err := get(context.WithoutCancel(ctx), conn, key)
		answered <- answer{value, err}
	}()
	timer := time.NewTimer(c.timeout)
	defer timer.Stop()
	select {
	case a := <-answered:
		return a.value, false, a.err
	case <-timer.C:
		return "", false, errTimeout
	}
}

// get reads a value. It is empty if there is none, or if the key holds something other
// than a string.
func get(ctx context.Context, conn rueidis.Client, key string) (string, error) {
	value, err := conn.Do(ctx, conn.B().Get().Key(key).Build()).ToString()
	if refusal, refused := rueidis.IsRedisErr(err); rueidis.IsRedisNil(err) || refused && strings.HasPrefix(refusal.Error(), "WRONGTYPE") {
		return "", nil
	}
	return value, err
}
