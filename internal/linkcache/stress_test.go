package linkcache

import (
	"context"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
)

// TestCacheConverges changes links at random in every possible way, while they are
// looked up, connections are cut and snapshots are written. In the end the cache has to
// agree with the database. So does a cache that is restarted from the files that a kill
// would leave.
func TestCacheConverges(t *testing.T) {
	t.Parallel()
	const links = 40
	address := pgtest.URL(t)
	direct := pgtest.Open(t, address)
	proxy := newProxy(t, address)
	b := setup(t, Options{Pool: pgtest.Open(t, proxy.url), Size: links / 2, TTL: time.Millisecond, SnapshotPath: snapshotPath(t)})
	b.pool = direct
	b.domain(t, "go.example")
	for i := range links {
		b.link(t, fmt.Sprint("link", i))
	}
	b.run(t)
	b.following(t) // changes before this are in the snapshot when it is next made

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for ctx.Err() == nil {
				b.disturb(t, fmt.Sprint("link", rand.N(links)), fmt.Sprint("link", rand.N(links)))
			}
		})
	}
	for range 2 {
		all.Go(func() {
			for ctx.Err() == nil {
				b.target(t, fmt.Sprint("link", rand.N(links)))
			}
		})
	}
	all.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			<-tick.C
			if i%5 == 0 {
				proxy.cut()
			}
			if i%7 == 0 {
				proxy.freeze()
			}
			b.snapshotDue()
		}
	})
	all.Wait()
	b.following(t)

	truth := map[string]string{}
	for i := range links {
		code := fmt.Sprint("link", i)
		truth[code] = b.inDatabase(t, code)
	}
	for code, want := range truth {
		b.becomes(t, code, want) // a code is remembered as unknown for a second
	}
	b.following(t)
	after := b.restart(t)
	cached := 0
	for code, want := range truth {
		switch got := after.target(t, code); got {
		case want:
			cached++
		case "unavailable":
		default:
			t.Errorf("after a restart %s leads to %s, want %s", code, got, want)
		}
	}
	if cached == 0 {
		t.Error("nothing is cached after a restart")
	}
}

// disturb makes one change of a link, in a transaction that may be rolled back.
func (b *bundle) disturb(t *testing.T, code, other string) {
	t.Helper()
	ctx := context.Background()
	tx, err := b.pool.Begin(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	defer tx.Rollback(ctx) //nolint:errcheck // only if it was not committed
	statements := []string{
		"UPDATE urls SET is_active = NOT is_active WHERE short_code = $1 AND $2 <> ''",
		"UPDATE urls SET original_url = 'https://example.com/' || $2::text || random() WHERE short_code = $1",
		"DELETE FROM urls WHERE short_code = $1 AND $2 <> ''",
		`INSERT INTO urls (user_id, short_code, original_url) SELECT min(id), $1, 'https://example.com/' || $2::text || random()
			FROM users ON CONFLICT DO NOTHING`,
		`UPDATE urls SET short_code = $2 WHERE short_code = $1 AND NOT EXISTS (SELECT FROM urls WHERE short_code = $2)`,
		"UPDATE urls SET domain_id = CASE domain_id WHEN 1 THEN 2 ELSE 1 END WHERE short_code = $1 AND $2 <> ''",
	}
	if _, err := tx.Exec(ctx, statements[rand.N(len(statements))], code, other); err != nil {
		return // two that claim one code
	}
	switch rand.N(4) {
	case 0:
		return
	case 1:
		if _, err := tx.Exec(ctx, "SELECT pg_sleep(random() / 10)"); err != nil { // commits late
			t.Error(err)
		}
	}
	assert.NoError(t, tx.Commit(ctx))
	if rand.N(3) == 0 {
		b.Forget(k(code))
	}
}

// inDatabase returns the right result of target.
func (b *bundle) inDatabase(t *testing.T, code string) string {
	t.Helper()
	var target string
	err := b.pool.QueryRow(t.Context(), `SELECT COALESCE(
		(SELECT CASE WHEN is_active THEN original_url ELSE 'inactive' END FROM urls WHERE short_code = $1 AND domain_id = 1),
		'not found')`, code).Scan(&target)
	require.NoError(t, err)
	return target
}

// TestMemoryOfALink checks the memory on which the size of the cache is based.
func TestMemoryOfALink(t *testing.T) { //nolint:paralleltest // measures the heap
	const links = 50_000
	c := &Cache{shards: newShards(links), seed: maphash.MakeSeed()}
	before := heap()
	for i := range links {
		c.restoreLink(&entry{
			key:     k(fmt.Sprintf("c%06d", i)),
			link:    &Link{Target: fmt.Sprintf("https://example.com/a/page/of/some/length/%06d", i)},
			validAt: 1,
		}, false)
	}
	each := (heap() - before) / int64(c.Len())
	t.Logf("%d bytes a link, with a code of 7 and a target of 48 bytes", each)
	if each > 384 {
		t.Errorf("%d bytes a link", each)
	}
	runtime.KeepAlive(c)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // the first collection may leave objects that were being swept
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
