package linkcache

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/redis"
	"github.com/signpost/signpost/internal/redistest"
)

// replica returns a running cache with a Redis.
func replica(t *testing.T, pool *pgxpool.Pool, url string, o Options) *bundle {
	t.Helper()
	client, err := redis.New(redis.Options{URL: url, Timeout: 5 * time.Second, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = client.Run(ctx) }) // returns nil
	t.Cleanup(func() { cancel(); all.Wait() })
	o.Pool, o.Redis = pool, client
	b := setup(t, o)
	b.run(t)
	b.remembering(t)
	return b
}

// remembering waits until the replica can use Redis and knows that every transaction
// before this moment has ended. The other tests' transactions count too, since they are on
// the same server: a link that is read while an older one is open is not believed.
func (b *bundle) remembering(t *testing.T) {
	t.Helper()
	var xid int64
	eventually(t, "the database is there", func() bool {
		return b.pool.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text::bigint").Scan(&xid) == nil
	})
	eventually(t, "Redis is used", func() bool {
		here := b.recent.here.Load()
		return here != nil && here.low > xid && b.redis.Up() && b.sweeps.Load() == 0
	})
}

func (b *bundle) shared(result string) float64 {
	return testutil.ToFloat64(b.metrics.shared.WithLabelValues(result))
}

func (b *bundle) loads(result string) float64 {
	return testutil.ToFloat64(b.metrics.loads.WithLabelValues(result))
}

// drop makes the process forget a code, as when the cache is full.
func (b *bundle) drop(code string) {
	s := b.shardOf(k(code))
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.missing, k(code))
	if e := s.entries[k(code)]; e != nil {
		s.remove(e)
	}
}

// spy looks at Redis directly.
type spy struct{ rueidis.Client }

func spyOn(t *testing.T, url string) spy {
	t.Helper()
	options, err := rueidis.ParseURL(url)
	require.NoError(t, err)
	options.DisableCache = true
	client, err := rueidis.NewClient(options)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return spy{client}
}

// all returns all values in Redis, or nothing while Redis is away.
func (s spy) all() map[string]string {
	ctx := context.Background()
	keys, err := s.Do(ctx, s.B().Keys().Pattern("signpost:link:*").Build()).AsStrSlice()
	if err != nil {
		return nil
	}
	values := map[string]string{}
	for _, key := range keys {
		if value, err := s.Do(ctx, s.B().Get().Key(key).Build()).ToString(); err == nil {
			values[key] = value
		}
	}
	return values
}

// restore puts values back, as a backup or a replica that lagged would do.
func (s spy) restore(values map[string]string) {
	for key, value := range values {
		s.Do(context.Background(), s.B().Set().Key(key).Value(value).Px(time.Hour).Build())
	}
}

func TestReplicasShareLinks(t *testing.T) {
	t.Parallel()
	pool, url := pgtest.Pool(t), redistest.Start(t).URL()
	spy := spyOn(t, url)
	a, b := replica(t, pool, url, Options{}), replica(t, pool, url, Options{})
	for _, code := range []string{"one", "stopped"} {
		a.link(t, code)
	}
	a.exec(t, `UPDATE urls SET is_active = false, expires_at = '2100-01-01', redirect_status = 308, forward_query = true
		WHERE short_code = 'stopped'`)
	a.remembering(t)
	b.remembering(t)
	for _, code := range []string{"one", "stopped"} {
		want := a.target(t, code)
		eventually(t, code+" is in Redis", func() bool { return holdsLink(spy, code) })
		before := b.loads("found")
		wantTarget(t, b, code, want)
		if n := b.loads("found") - before; n != 0 {
			t.Errorf("%s was asked of Postgres", code)
		}
		mine, _ := a.Lookup(t.Context(), k(code), a.now())
		theirs, _ := b.Lookup(t.Context(), k(code), b.now())
		if !mine.ExpiresAt.Equal(theirs.ExpiresAt) {
			t.Errorf("ends at %s and at %s", mine.ExpiresAt, theirs.ExpiresAt)
		}
		l := *theirs
		l.ExpiresAt = mine.ExpiresAt
		if l != *mine {
			t.Errorf("got %+v from Redis, %+v from Postgres", l, *mine)
		}
	}
	if n := b.shared("used"); n != 2 {
		t.Errorf("%v links came from Redis, want 2", n)
	}

	// The feed follows the link whether it came from Redis or not.
	a.exec(t, "UPDATE urls SET is_active = NOT is_active")
	b.becomes(t, "one", "inactive")
	c := replica(t, pool, url, Options{})
	wantTarget(t, c, "one", "inactive")
	wantTarget(t, c, "stopped", "https://example.com/stopped")
}

func holdsLink(s spy, code string) bool {
	for _, value := range s.all() {
		var v sharedLink
		if _, err := decode(strings.NewReader(value), &v); err == nil && v.Link.Code == code {
			return true
		}
	}
	return false
}

// store makes a link and waits until the replica has stored it in Redis.
func (b *bundle) store(t *testing.T, s spy, code string) {
	t.Helper()
	b.link(t, code)
	b.target(t, code)
	eventually(t, code+" is in Redis", func() bool { return holdsLink(s, code) })
}

func TestReplicasShareLongTargets(t *testing.T) {
	t.Parallel()
	pool, url := pgtest.Pool(t), redistest.Start(t).URL()
	spy := spyOn(t, url)
	a, b := replica(t, pool, url, Options{}), replica(t, pool, url, Options{})
	a.paste(t)
	a.remembering(t)
	b.remembering(t)
	for code, target := range pasted() {
		wantTarget(t, a, code, links.Location(target))
		eventually(t, code+" is in Redis", func() bool { return holdsLink(spy, code) })
		wantTarget(t, b, code, links.Location(target))
	}
	if used, asked := b.shared("used"), b.loads("found"); used != float64(len(pasted())) || asked != 0 {
		t.Errorf("%v links came from Redis and %v from Postgres", used, asked)
	}
}

// Redis comes back with the values that it had an hour ago.
func TestARestoredRedisBringsNoLinkBack(t *testing.T) {
	t.Parallel()
	pool, url := pgtest.Pool(t), redistest.Start(t).URL()
	spy := spyOn(t, url)
	a := replica(t, pool, url, Options{})
	for _, code := range []string{"stopped", "gone", "renamed", "same"} {
		a.store(t, spy, code)
	}
	old := spy.all()
	a.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'stopped'")
	a.exec(t, "DELETE FROM urls WHERE short_code = 'gone'")
	a.exec(t, "UPDATE urls SET short_code = 'other' WHERE short_code = 'renamed'")
	a.following(t)
	b := replica(t, pool, url, Options{})
	told := func(r *bundle, code string) { // waits, so that values from r cannot arrive in Redis after it was restored
		a.link(t, code)
		r.target(t, code)
		eventually(t, code+" is in Redis", func() bool { return holdsLink(spy, code) })
	}
	told(a, "marked")
	for i, r := range []*bundle{a, b} {
		for code, want := range map[string]string{
			"stopped": "inactive", "gone": "not found", "renamed": "not found", "same": "https://example.com/same",
		} {
			spy.restore(old)
			r.drop(code)
			wantTarget(t, r, code, want)
			told(r, fmt.Sprintf("%s-%d", code, i))
		}
		if n := r.shared("outdated"); n != 3 {
			t.Errorf("%v answers of Redis were refused, want 3", n)
		}
		if n := r.shared("used"); n != 1 {
			t.Errorf("%v answers of Redis were used, want 1", n)
		}
	}
}

// The database was dropped and restored from an hour ago, on the same server. The log
// looks as it did when the lost link was read.
func TestADatabaseBroughtBackIsAnotherHistory(t *testing.T) {
	t.Parallel()
	pool, url := pgtest.Pool(t), redistest.Start(t).URL()
	spy := spyOn(t, url)
	admin, name := adminOf(t, pool)
	kept := name + "_kept"
	a := replica(t, pool, url, Options{})
	a.link(t, "before")
	a.exec(t, "UPDATE urls SET title = 'x'")
	cutOff(t, admin, name, "CREATE DATABASE "+kept+" TEMPLATE "+name)
	pool.Reset()
	t.Cleanup(func() { cutOff(t, admin, kept, "DROP DATABASE IF EXISTS "+kept) })
	a.link(t, "lost")
	a.following(t)
	a.remembering(t)
	wantTarget(t, a, "lost", "https://example.com/lost")
	eventually(t, "it is in Redis", func() bool { return holdsLink(spy, "lost") })
	cutOff(t, admin, name, "DROP DATABASE "+name)
	cutOff(t, admin, kept, "CREATE DATABASE "+name+" TEMPLATE "+kept)
	pool.Reset()

	b := replica(t, pool, url, Options{})
	wantTarget(t, b, "lost", "not found")
	wantTarget(t, b, "before", "https://example.com/before")
	a.becomes(t, "lost", "not found") // it was running all the time
}

// adminOf returns a connection that is not of the pool, and the name of the pool's
// database.
func adminOf(t *testing.T, pool *pgxpool.Pool) (admin *pgx.Conn, name string) {
	t.Helper()
	config := pool.Config().ConnConfig
	name = config.Database
	config.Database = "postgres"
	admin, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = admin.Close(context.Background()) }) // done with it
	return admin, name
}

// cutOff runs a statement that needs a database without connections. Existing
// connections are closed, and may come back afterwards.
func cutOff(t *testing.T, admin *pgx.Conn, name, statement string) {
	t.Helper()
	eventually(t, statement, func() bool {
		ctx := context.Background()
		_, _ = admin.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
		_, err := admin.Exec(ctx, statement)
		return err == nil
	})
}

// A link that was read before a change, and arrives in Redis long after it, is not used
// by processes that know of the change, nor by processes that start after it.
func TestALateFillIsNotBelieved(t *testing.T) {
	t.Parallel()
	pool, url := pgtest.Pool(t), redistest.Start(t).URL()
	a := replica(t, pool, url, Options{})
	a.link(t, "late")
	seen := a.look()
	found, err := a.resolve(t.Context(), a.queries, []Key{k("late")})
	require.NoError(t, err)
	a.exec(t, "UPDATE urls SET is_active = false")
	a.following(t)
	a.redis.Put(t.Context(), []redis.Put{fill{k("late"), found[k("late")], seen}.put()})
	wantTarget(t, a, "late", "inactive")
	if n := a.shared("outdated"); n != 1 {
		t.Errorf("%v answers of Redis were refused, want 1", n)
	}
	a.redis.Put(t.Context(), []redis.Put{fill{k("late"), found[k("late")], seen}.put()})
	wantTarget(t, replica(t, pool, url, Options{}), "late", "inactive")
}

// A process sees its own changes at once, although its feed does not know them yet.
func TestForgetGoesPastRedis(t *testing.T) {
	t.Parallel()
	pool, url := pgtest.Pool(t), redistest.Start(t).URL()
	spy := spyOn(t, url)
	a := replica(t, pool, url, Options{})
	for i := range 20 { // the feed may be quicker
		code := fmt.Sprint("mine", i)
		a.store(t, spy, code)
		a.exec(t, "UPDATE urls SET is_active = false WHERE short_code = $1", code)
		a.Forget(k(code))
		wantTarget(t, a, code, "inactive")
	}
	many := make([]Key, maxOwn+1)
	for i := range many {
		many[i] = k(fmt.Sprint("m", i))
	}
	a.Forget(many...)
	a.recent.mu.RLock()
	n := len(a.recent.own)
	a.recent.mu.RUnlock()
	if n > maxOwn {
		t.Errorf("%d codes are remembered, want at most %d", n, maxOwn)
	}
	eventually(t, "polls bring the changes", func() bool {
		a.recent.mu.RLock()
		defer a.recent.mu.RUnlock()
		return len(a.recent.own) == 0 && a.recent.here.Load() != nil
	})
}

func TestGarbageInRedis(t *testing.T) {
	t.Parallel()
	pool, url := pgtest.Pool(t), redistest.Start(t).URL()
	spy := spyOn(t, url)
	a := replica(t, pool, url, Options{})
	a.link(t, "one")
	a.link(t, "two")
	a.target(t, "one")
	eventually(t, "it is in Redis", func() bool { return holdsLink(spy, "one") })
	good := ""
	for _, value := range spy.all() {
		good = value
	}
	history := a.recent.here.Load().history
	flipped := []byte(good)
	flipped[len(flipped)/2] ^= 1
	for i, value := range []string{
		"x", strings.Repeat("\x00", 20), string(flipped), good[:len(good)-1], good /* of another code */, good + "x",
	} {
		spy.restore(map[string]string{sharedKey(history, k("two")): value})
		a.drop("two")
		wantTarget(t, a, "two", "https://example.com/two")
		eventually(t, "it is replaced", func() bool { return holdsLink(spy, "two") })
		if n := a.shared("damaged") + a.shared("none"); n < float64(i+1) {
			t.Errorf("value %d: %v were refused", i, n)
		}
	}
}

// No value makes the reader panic.
func FuzzBelieve(f *testing.F) {
	for _, v := range []sharedLink{{}, {1, savedLink{Domain: 1, Code: "a", Link: &Link{Status: 302, Target: "https://example.com/"}}}} {
		body, err := encoding.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	c := &Cache{seed: maphash.MakeSeed()}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, value := range []string{string(body), string(withHeader(body))} {
			if link, _, result := c.believe(k("a"), value, view{epoch: new(epoch)}); link != nil || result == "used" {
				t.Errorf("%q is believed, though nothing can be told", value)
			}
		}
	})
}

// If Postgres is away, Redis serves links that this process does not have.
func TestRedisWhilePostgresIsDown(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	pool, url := pgtest.Open(t, pgtest.Migrated(t, cluster)), redistest.Start(t).URL()
	spy := spyOn(t, url)
	clock := newClock()
	a, b := replica(t, pool, url, Options{}), replica(t, pool, url, Options{Now: clock.now, StaleMax: time.Hour})
	for _, code := range []string{"kept", "stopped", "later"} {
		a.store(t, spy, code)
	}
	old := spy.all()
	a.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'stopped'")
	b.becomes(t, "stopped", "inactive")
	b.drop("stopped")
	a.exec(t, "CHECKPOINT")
	cluster.Kill()
	spy.restore(old)
	clock.add(10 * time.Minute)
	wantTarget(t, b, "kept", "https://example.com/kept")
	wantTarget(t, b, "stopped", "unavailable") // it is known that the link has changed since
	wantTarget(t, b, "never seen", "unavailable")
	clock.add(time.Hour)
	wantTarget(t, b, "later", "unavailable") // past StaleMax
	require.NoError(t, cluster.Start(t.Context()))
	eventually(t, "another history begins", func() bool { return b.resyncs(t) > 1 && b.recent.here.Load() != nil })
	b.drop("kept")
	before := b.shared("used")
	eventually(t, "it is back", func() bool { clock.add(time.Millisecond); return b.target(t, "kept") == "https://example.com/kept" })
	if b.shared("used") != before {
		t.Error("a link from before the restart of Postgres was used")
	}
}

func TestRedisDown(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a := replica(t, pgtest.Pool(t), server.URL(), Options{})
	for _, code := range []string{"cached", "not1", "not2", "not3"} {
		a.link(t, code)
	}
	a.target(t, "cached")
	server.Kill()
	wantTarget(t, a, "cached", "https://example.com/cached")
	wantTarget(t, a, "not1", "https://example.com/not1")
	eventually(t, "the breaker opens", func() bool { return !a.redis.Up() })
	wantTarget(t, a, "not2", "https://example.com/not2")
	a.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'cached'")
	a.becomes(t, "cached", "inactive")
	require.NoError(t, server.Start())
	eventually(t, "the breaker closes", a.redis.Up)
	wantTarget(t, a, "not3", "https://example.com/not3")
}

// TestADeactivatedLinkNeverComesBack changes links while their replicas look them up
// and drop them, and while Redis is flushed, killed and filled with values that it had
// at any earlier time. Once a replica has followed a change, it must never again return
// the earlier state.
func TestADeactivatedLinkNeverComesBack(t *testing.T) {
	t.Parallel()
	const links = 12
	pool, server := pgtest.Pool(t), redistest.Start(t)
	spy := spyOn(t, server.URL())
	replicas := []*bundle{replica(t, pool, server.URL(), Options{}), replica(t, pool, server.URL(), Options{Size: links / 2})}
	for i := range links {
		replicas[0].link(t, fmt.Sprint("link", i))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var all, changers sync.WaitGroup
	for i := range links {
		changers.Go(func() { flip(ctx, t, replicas, fmt.Sprint("link", i)) })
	}
	for range 2 { // lookups and drops at any moment
		all.Go(func() {
			for ctx.Err() == nil {
				r, code := replicas[rand.N(len(replicas))], fmt.Sprint("link", rand.N(links))
				r.target(t, code)
				if rand.N(2) == 0 {
					r.drop(code)
				}
			}
		})
	}
	all.Go(func() { upset(ctx, t, server, spy) })
	changers.Wait()
	cancel()
	all.Wait()
	used, outdated := 0.0, 0.0
	for _, r := range replicas {
		used, outdated = used+r.shared("used"), outdated+r.shared("outdated")
	}
	t.Logf("%v answers of Redis were used, %v refused as outdated", used, outdated)
	if used == 0 || outdated == 0 {
		t.Error("the test does not show what it should")
	}
}

// flip deactivates and activates a link, by SQL or as a replica itself would do, and
// checks that every replica keeps to the new state.
func flip(ctx context.Context, t *testing.T, replicas []*bundle, code string) {
	t.Helper()
	want := "https://example.com/" + code
	for active := false; ctx.Err() == nil; active = !active {
		if _, err := replicas[0].pool.Exec(context.Background(), "UPDATE urls SET is_active = $1 WHERE short_code = $2", active, code); err != nil {
			t.Error(err)
			return
		}
		now := map[bool]string{true: want, false: "inactive"}[active]
		if r := replicas[rand.N(len(replicas))]; rand.N(2) == 0 {
			r.Forget(k(code))
			wantTarget(t, r, code, now)
		}
		for _, r := range replicas {
			r.following(t)
		}
		for range 10 + rand.N(40) {
			r := replicas[rand.N(len(replicas))]
			if rand.N(2) == 0 {
				r.drop(code)
			}
			if got := r.target(t, code); got != now {
				t.Errorf("%s leads to %s, want %s", code, got, now)
				return
			}
		}
	}
}

// upset does to Redis anything that may happen to it.
func upset(ctx context.Context, t *testing.T, server *redistest.Server, spy spy) {
	t.Helper()
	var past []map[string]string
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		<-tick.C
		switch {
		case i%150 == 149:
			server.Kill()
			if err := server.Start(); err != nil {
				t.Error(err)
				return
			}
		case i%23 == 0:
			spy.Do(ctx, spy.B().Flushall().Build())
		case i%3 == 0 && len(past) > 0:
			spy.restore(past[rand.N(len(past))])
		default:
			if values := spy.all(); len(values) > 0 {
				past = append(past, values)
			}
		}
	}
}

func TestRecent(t *testing.T) {
	t.Parallel()
	var r recent
	const a, b, c = 1, 2, 3
	confirms := func(key uint64, low int64, want bool) {
		t.Helper()
		if got := r.confirms(key, low); got != want {
			t.Errorf("%d read at %d: %v, want %v", key, low, got, want)
		}
	}
	r.begin(100)
	confirms(c, 200, false) // the feed has not brought anything yet
	r.add(a, 110)
	r.add(b, 120)
	r.add(b, 115) // a transaction that took longer
	r.reach(place{"h", 121}, 1)
	confirms(c, 100, true)
	confirms(c, 99, false) // before all remembered changes
	confirms(a, 110, false)
	confirms(a, 111, true)
	confirms(b, 116, false) // 120 may not have ended by then
	confirms(b, 500, true)  // read by a process that has got further
	r.owns(5, c)
	confirms(c, 500, false) // the change has not been polled yet
	r.reach(place{"h", 130}, 5)
	confirms(c, 500, false)
	r.reach(place{"h", 140}, 6)
	confirms(c, 500, true)
	r.raise(141) // everything may have changed
	confirms(c, 140, false)
	confirms(c, 141, true)
}

// The memory is bounded. If the bound is reached, fewer links are trusted.
func TestRecentIsBounded(t *testing.T) {
	t.Parallel()
	var r recent
	r.begin(0)
	for xid := range int64(3 * maxRecent) {
		r.add(uint64(xid), xid)
	}
	r.reach(place{"h", 3 * maxRecent}, 1)
	if len(r.order) != maxRecent || len(r.last) != maxRecent {
		t.Errorf("%d changes of %d keys are remembered", len(r.order), len(r.last))
	}
	if r.confirms(1<<40, 2*maxRecent-1) || !r.confirms(1<<40, 2*maxRecent) {
		t.Error("a link read before the oldest change must not be confirmed, one read after it must")
	}
}
