package redis

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/redistest"
)

// run makes a client and runs it until the test ends.
func run(t *testing.T, o Options) *Client {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second // the machine may be busy
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Registerer = prometheus.NewRegistry()
	c, err := New(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		assert.NoError(t, c.Run(ctx))
	})
	t.Cleanup(func() { cancel(); all.Wait() })
	return c
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long until: %s", what)
		}
		<-tick.C
	}
}

func (c *Client) result(op, result string) float64 {
	return testutil.ToFloat64(c.metrics.requests.WithLabelValues(op, result))
}

// value returns the value of a key; "none" if there is none.
func (c *Client) value(t *testing.T, key string) string {
	t.Helper()
	value, ok := c.Get(t.Context(), key)
	if !ok {
		t.Fatal("no answer")
	}
	if value == "" {
		return "none"
	}
	return value
}

func TestPut(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := run(t, Options{URL: server.URL()})
	eventually(t, "connected", c.Up)
	for _, value := range []string{"first", "second", "\x00\n\xff"} {
		c.Put(t.Context(), []Put{{Key: "k", Value: value, Keep: time.Hour}, {Key: "other", Value: "x", Keep: time.Hour}})
		if got := c.value(t, "k"); got != value {
			t.Errorf("got %q, want %q", got, value)
		}
	}
	if ttl, err := server.Do("PTTL", "k"); err != nil || ttl == ":-1" {
		t.Errorf("PTTL is %s, %v: it stays for ever", ttl, err)
	}
	c.Put(t.Context(), []Put{{Key: "brief", Value: "x", Keep: time.Millisecond}})
	eventually(t, "it has gone", func() bool { return c.value(t, "brief") == "none" })
}

func TestGarbageIsReplaced(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := run(t, Options{URL: server.URL()})
	eventually(t, "connected", c.Up)
	for i, command := range [][]string{{"LPUSH", "k0", "x"}, {"HSET", "k1", "a", "b"}} {
		if _, err := server.Do(command...); err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprint("k", i)
		if got := c.value(t, key); got != "none" {
			t.Errorf("%v: got %q", command, got)
		}
		c.Put(t.Context(), []Put{{Key: key, Value: "good", Keep: time.Hour}})
		if got := c.value(t, key); got != "good" {
			t.Errorf("%v: got %q after a put", command, got)
		}
	}
}

// If Redis is slow, a few misses take a few milliseconds longer, and further ones do
// not.
func TestSlowRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := run(t, Options{URL: server.URL(), Timeout: 200 * time.Millisecond})
	eventually(t, "connected", c.Up)
	require.NoError(t, server.Pause())
	asked := 0
	eventually(t, "the breaker opens", func() bool {
		began := time.Now()
		if _, ok := c.Get(t.Context(), "any"); ok {
			t.Error("got an answer")
		}
		asked++
		t.Logf("gave up after %s", time.Since(began))
		return !c.Up()
	})
	if asked > maxFailures+1 {
		t.Errorf("%d lookups waited, want %d", asked, maxFailures)
	}
	before := testutil.CollectAndCount(c.metrics.seconds)
	for range 1000 { // this would take minutes if each of them waited
		if _, ok := c.Get(t.Context(), "any"); ok {
			t.Fatal("got an answer while the breaker is open")
		}
	}
	if n := c.result("get", "skipped"); n < 1000 && before >= 0 {
		t.Errorf("%v were skipped, want 1000", n)
	}
	c.Put(t.Context(), []Put{{Key: "any", Keep: time.Hour}})
	if n := c.result("put", "skipped"); n != 1 {
		t.Errorf("%v puts were skipped, want 1", n)
	}
	if err := server.Resume(); err != nil { // late answers come now
		t.Fatal(err)
	}
	eventually(t, "the breaker closes without a request", c.Up)
	eventually(t, "it is asked again", func() bool { _, ok := c.Get(t.Context(), "any"); return ok })
}

func TestRedisKilledPausedAndRestarted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := run(t, Options{URL: server.URL(), Timeout: 500 * time.Millisecond})
	eventually(t, "connected", c.Up)
	c.Put(t.Context(), []Put{{Key: "k", Value: "x", Keep: time.Hour}})
	for name, fault := range map[string]struct{ breakIt, mendIt func() error }{
		"killed": {func() error { server.Kill(); return nil }, server.Start},
		"paused": {server.Pause, server.Resume},
	} {
		require.NoError(t, fault.breakIt())
		eventually(t, name+": noticed, although nobody asks", func() bool { return !c.Up() })
		if _, ok := c.Get(t.Context(), "k"); ok {
			t.Errorf("%s: got an answer", name)
		}
		require.NoError(t, fault.mendIt())
		eventually(t, name+": used again", func() bool { _, ok := c.Get(t.Context(), "k"); return ok })
	}
	c.Put(t.Context(), []Put{{Key: "k", Value: "again", Keep: time.Hour}})
	if got := c.value(t, "k"); got != "again" {
		t.Errorf("got %q", got)
	}
}

// If Redis hangs, the number of waiting questions is bounded.
func TestQuestionsAreBounded(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := run(t, Options{URL: server.URL(), Timeout: time.Second})
	eventually(t, "connected", c.Up)
	require.NoError(t, server.Pause())
	var all sync.WaitGroup
	for range 2 * maxGets {
		all.Go(func() { c.Get(context.Background(), "any") })
	}
	all.Wait()
	if n := len(c.gets); n > maxGets {
		t.Errorf("%d questions are under way, want at most %d", n, maxGets)
	}
	if c.result("get", "busy") == 0 {
		t.Error("none was refused")
	}
	require.NoError(t, server.Resume())
	eventually(t, "nothing is left under way", func() bool { return len(c.gets) == 0 })
}

// A full Redis refuses to store values and can still be read.
func TestFullRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	c := run(t, Options{URL: server.URL()})
	eventually(t, "connected", c.Up)
	c.Put(t.Context(), []Put{{Key: "k", Value: "x", Keep: time.Hour}})
	if _, err := server.Do("CONFIG", "SET", "maxmemory", "1"); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * minRequests {
		c.Put(t.Context(), []Put{{Key: "k", Value: fmt.Sprint("more", i), Keep: time.Hour}})
	}
	if n := c.result("put", "error"); n != 2*minRequests {
		t.Errorf("%v puts were refused, want %d", n, 2*minRequests)
	}
	if got := c.value(t, "k"); got != "x" {
		t.Errorf("got %q", got)
	}
	if !c.Up() {
		t.Error("the breaker opened: what is there cannot be read any more")
	}
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", "right")
	var log bytes.Buffer
	var mu sync.Mutex
	c := run(t, Options{
		URL: strings.Replace(server.URL(), "unix://", "unix://:wrongsecret@", 1),
		Log: slog.New(slog.NewTextHandler(writer(func(b []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return log.Write(b)
		}), nil)),
	})
	logged := func() string { mu.Lock(); defer mu.Unlock(); return log.String() }
	eventually(t, "it is logged", func() bool { return strings.Contains(logged(), "WRONGPASS") })
	if _, ok := c.Get(t.Context(), "any"); ok || c.Up() {
		t.Error("it is taken for usable")
	}
	if strings.Contains(logged(), "wrongsecret") {
		t.Error("the password is in the log")
	}
	good := run(t, Options{URL: strings.Replace(server.URL(), "unix://", "unix://:right@", 1)})
	eventually(t, "the right one works", good.Up)
}

func TestNewRefusesForeignAddresses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "http://x:topsecret@h", "redis://:topsecret@h/notanumber", "redis://%zz"} {
		_, err := New(Options{URL: url})
		if err == nil || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%s: error is %v", url, err)
		}
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }
