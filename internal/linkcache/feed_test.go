package linkcache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

func aliasOf(b []byte) string { return unsafe.String(&b[0], len(b)) }

func TestFeedBringsChangesMadeBySQL(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	for _, code := range []string{"edit", "stop", "gone", "old-name", "again", "bulk1", "bulk2"} {
		b.link(t, code)
	}
	b.run(t)
	b.following(t)
	for _, code := range []string{"edit", "stop", "gone", "old-name", "again", "bulk1", "bulk2"} {
		b.target(t, code)
	}
	b.target(t, "new-name") // remembered as unknown

	b.exec(t, "UPDATE urls SET original_url = 'https://example.org/' WHERE short_code = 'edit'")
	b.fresh(t, "edit", "https://example.org/")
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'stop'")
	b.fresh(t, "stop", "inactive")
	b.exec(t, "DELETE FROM urls WHERE short_code = 'gone'")
	b.fresh(t, "gone", "not found")
	b.exec(t, "UPDATE urls SET short_code = 'new-name' WHERE short_code = 'old-name'")
	b.fresh(t, "old-name", "not found")
	b.fresh(t, "new-name", "https://example.com/old-name")
	b.exec(t, "DELETE FROM urls WHERE short_code = 'again'")
	b.link(t, "again")
	b.exec(t, "UPDATE urls SET original_url = 'https://example.net/' WHERE short_code = 'again'")
	b.fresh(t, "again", "https://example.net/")
	b.exec(t, "UPDATE urls SET original_url = 'https://example.com/both' WHERE short_code LIKE 'bulk%'")
	b.fresh(t, "bulk1", "https://example.com/both")
	b.fresh(t, "bulk2", "https://example.com/both")
	b.exec(t, "TRUNCATE urls")
	b.fresh(t, "edit", "not found")
}

func TestAChangeKeepsAHotLinkCached(t *testing.T) {
	t.Parallel()
	b := cached(t, Options{}, "hot")
	for i := range 5 {
		b.exec(t, "UPDATE urls SET original_url = 'https://example.com/' || $1 WHERE short_code = 'hot'", fmt.Sprint(i))
		b.fresh(t, "hot", fmt.Sprintf("https://example.com/%d", i))
	}
	if misses := b.count(func(s *shard) *atomic.Uint64 { return &s.misses }); misses != 1 {
		t.Errorf("%v misses, want 1: a change pushed the link out", misses)
	}
}

// A transaction that drew its id first and commits last must not be missed.
func TestFeedSeesChangesThatCommitOutOfOrder(t *testing.T) {
	t.Parallel()
	b := cached(t, Options{}, "first", "second", "undone")

	ctx := t.Context()
	undone := b.begin(t)
	// The later writer has the lower xid: it is complete while the snapshot's xmax is
	// not beyond the earlier one's xid.
	second := b.begin(t, "SELECT pg_current_xact_id()")
	first := b.begin(t)
	pgtest.Exec(t, undone, "UPDATE urls SET is_active = false WHERE short_code = 'undone'")
	pgtest.Exec(t, first, "UPDATE urls SET is_active = false WHERE short_code = 'first'")
	pgtest.Exec(t, second, "UPDATE urls SET is_active = false WHERE short_code = 'second'")
	require.NoError(t, second.Commit(ctx))
	b.fresh(t, "second", "inactive")
	b.following(t) // further polls; a gap that is closed too early would be closed by then
	require.NoError(t, undone.Rollback(ctx))
	b.following(t)
	require.NoError(t, first.Commit(ctx))
	b.fresh(t, "first", "inactive")
	wantTarget(t, b, "undone", "https://example.com/undone")
	if resyncs := b.resyncs(t); resyncs != 1 {
		t.Errorf("%v resyncs, want 1", resyncs)
	}
}

// A writer that was under way when the feed began counts as a gap too.
func TestFeedSeesAWriterOlderThanItself(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	b.link(t, "slow")
	b.link(t, "quick")
	tx := b.begin(t, "UPDATE urls SET is_active = false WHERE short_code = 'slow'")
	b.exec(t, "UPDATE urls SET title = 'x' WHERE short_code = 'quick'")
	b.run(t)
	b.following(t)
	b.target(t, "slow")
	require.NoError(t, tx.Commit(t.Context()))
	b.becomes(t, "slow", "inactive")
}

func TestTheFeedCatchesUpOnManyChanges(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	b.link(t, "last")
	b.exec(t, `INSERT INTO urls (user_id, short_code, original_url)
		SELECT $1, 'n' || n, 'https://example.com/' FROM generate_series(1, 3 * $2::int) n`, b.user, maxChanges)
	b.run(t)
	b.following(t)
	b.target(t, "last")
	b.target(t, "n1")
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code <> 'last'")
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'last'")
	b.becomes(t, "last", "inactive")
	b.becomes(t, "n1", "inactive")
}

// A transaction commits during a poll of several pages, after the pages with its xid
// were read. The poll does not report it: the cache is right as of the beginning of the
// poll, and the next poll follows at once.
func TestAChangeThatCommitsBetweenPages(t *testing.T) {
	t.Parallel()
	commit := func() {}
	b := setup(t, Options{Pool: afterQueries(t, "PollLinkChanges", func() { commit() })})
	b.link(t, "slow")
	b.exec(t, `INSERT INTO urls (user_id, short_code, original_url)
		SELECT $1, 'n' || n, 'https://example.com/' FROM generate_series(1, 2 * $2::int) n`, b.user, maxChanges)
	f := &feed{cache: b.Cache, timeout: pollTimeout}
	defer f.hangUp()
	poll := func() (more bool) {
		t.Helper()
		more, err := f.poll(t.Context())
		require.NoError(t, err)
		return more
	}
	poll() // the poll begins
	poll()
	b.target(t, "slow")
	slow := b.begin(t, "UPDATE urls SET is_active = false WHERE short_code = 'slow'")
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code <> 'slow'")
	var committing int64
	commit = sync.OnceFunc(func() {
		committing = b.now().UnixNano()
		assert.NoError(t, slow.Commit(context.Background()))
	})
	if !poll() {
		t.Error("there is nothing to read at once after several pages")
	}
	wantTarget(t, b, "slow", "https://example.com/slow")
	if b.followedAt() >= committing {
		t.Error("the cache is taken to be right as of a change that was not read")
	}
	if poll() {
		t.Error("there is more to read after a poll of one page")
	}
	wantTarget(t, b, "slow", "inactive")
	if b.followedAt() < committing {
		t.Error("the feed has not caught up")
	}
}

// The load began before the change and ends after it was applied.
func TestAChangeDuringALoadWins(t *testing.T) {
	t.Parallel()
	loaded, hold := make(chan struct{}, 8), make(chan struct{})
	b := setup(t, Options{Pool: afterLoads(t, func() { loaded <- struct{}{}; <-hold })})
	b.link(t, "race")
	b.run(t)
	b.following(t)
	got := make(chan string)
	go func() { got <- b.target(t, "race") }()
	<-loaded
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'race'")
	b.following(t)
	close(hold)
	if answer := <-got; answer != "inactive" {
		t.Errorf("the load answered %s, want inactive", answer)
	}
	if answer := b.target(t, "race"); answer != "inactive" {
		t.Errorf("cached is %s, want inactive", answer)
	}
}

// These are two answers of the database for one key.
func TestReplace(t *testing.T) {
	t.Parallel()
	link := func(id, version int64) *Link { return &Link{ID: id, Version: version} }
	for _, test := range []struct {
		name    string
		epoch   int64 // epoch of the query; the entry's is 7
		link    *Link
		right   bool
		version int64 // version after that
	}{
		{"newer version", 7, link(1, 6), true, 6},
		{"older version", 7, link(1, 4), true, 5},
		{"older version after a restore", 8, link(1, 4), true, 4},
		{"another link", 7, link(2, 9), false, 5},
		{"no link", 7, nil, false, 5},
		{"query before a resync", 6, link(1, 6), true, 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			own := &epoch{number: 7}
			seen := view{epoch: own}
			if test.epoch != 7 {
				seen.epoch = &epoch{number: test.epoch}
			}
			e := &entry{link: link(1, 5), epoch: own}
			if right := replace(&shard{size: 1}, e, test.link, seen); right != test.right {
				t.Errorf("right is %v, want %v", right, test.right)
			}
			if e.link.Version != test.version {
				t.Errorf("version %d, want %d", e.link.Version, test.version)
			}
		})
	}
}

func (b *bundle) resyncs(t *testing.T) float64 {
	t.Helper()
	return testutil.ToFloat64(b.metrics.resyncs)
}

// A connection that neither answers nor closes holds up nothing for long.
func TestHalfOpenConnection(t *testing.T) {
	t.Parallel()
	address := pgtest.URL(t)
	direct := pgtest.Open(t, address)
	proxy := newProxy(t, address)
	b := setup(t, Options{Pool: pgtest.Open(t, proxy.url)})
	b.pool = direct
	b.link(t, "cut")
	b.run(t)
	b.following(t)
	b.target(t, "cut")

	proxy.freeze() // connections of this moment hang; new ones work
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'cut'")
	b.fresh(t, "cut", "inactive")
	if resyncs := b.resyncs(t); resyncs != 1 {
		t.Errorf("%v resyncs, want 1: the server is the same", resyncs)
	}

	proxy.cut()
	b.exec(t, "UPDATE urls SET is_active = true WHERE short_code = 'cut'")
	b.fresh(t, "cut", "https://example.com/cut")
}

// If the log was replaced by another one, everything is validated again.
func TestAnotherHistoryIsNoticed(t *testing.T) {
	t.Parallel()
	for name, tamper := range map[string]string{
		"emptied log":       "TRUNCATE link_changes RESTART IDENTITY",
		"change of unknown": "INSERT INTO link_changes (version) VALUES (1)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, Options{})
			b.link(t, "a")
			b.link(t, "b")
			b.exec(t, "UPDATE urls SET title = 'x'")
			b.run(t)
			b.following(t)
			b.target(t, "a")
			b.target(t, "b")
			// This is like a restore: the rows change and the log does not report it.
			b.exec(t, `BEGIN; ALTER TABLE urls DISABLE TRIGGER USER;
				UPDATE urls SET original_url = 'https://example.com/restored', version = 1 WHERE short_code = 'a';
				DELETE FROM urls WHERE short_code = 'b';
				ALTER TABLE urls ENABLE TRIGGER USER; `+tamper+`; COMMIT`)
			b.fresh(t, "a", "https://example.com/restored")
			b.fresh(t, "b", "not found")
		})
	}
}

// If a backend is killed, the server starts again under the same postmaster. An xid
// whose end was not on disk is given once more, so that a change with it would be taken
// for one that was read already. So everything is validated again.
func TestACrashIsAnotherHistory(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{Pool: pgtest.Open(t, pgtest.Migrated(t, pgtest.Cluster(t)))})
	b.link(t, "a")
	f := &feed{cache: b.Cache, timeout: pollTimeout}
	defer f.hangUp()
	polled := func() bool {
		_, err := f.poll(t.Context())
		return err == nil
	}
	eventually(t, "the feed begins", polled)
	var pid int
	var xid, again int64
	require.NoError(t, b.pool.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))
	tx := b.begin(t)
	require.NoError(t, errors.Join(tx.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text::bigint").Scan(&xid), tx.Rollback(t.Context())))
	if !polled() || f.position.Xmax <= xid {
		t.Fatalf("the position is %+v, want xid %d to have ended", f.position, xid)
	}
	resyncs := b.resyncs(t)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(t, "the server is back", func() bool {
		b.pool.Reset()
		return b.pool.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text::bigint").Scan(&again) == nil
	})
	eventually(t, "the feed begins anew", func() bool { return polled() && b.resyncs(t) == resyncs+1 })
	t.Logf("xid %d was given before, and %d after", xid, again)
}

func TestStaleLinksAreServedWhilePostgresIsDown(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	clock := newClock()
	b := setup(t, Options{Pool: pgtest.Open(t, pgtest.Migrated(t, cluster)), Now: clock.now, StaleMax: time.Hour})
	b.link(t, "kept")
	stop := b.run(t)
	eventually(t, "feed begins", func() bool { return b.followedAt() != 0 && b.sweeps.Load() == 0 })
	b.target(t, "kept")
	b.exec(t, "CHECKPOINT") // the server of a test commits without waiting for its disk
	cluster.Kill()
	clock.add(30 * time.Minute)
	wantTarget(t, b, "kept", "https://example.com/kept")
	wantTarget(t, b, "other", "unavailable")
	clock.add(31 * time.Minute)
	wantTarget(t, b, "kept", "unavailable")
	require.NoError(t, cluster.Start(t.Context()))
	b.becomes(t, "kept", "https://example.com/kept")
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'kept'")
	eventually(t, "kept is inactive", func() bool { clock.add(time.Millisecond); return b.target(t, "kept") == "inactive" })
	stop()
}

// The refresher validates an old entry even if the feed saw no change.
func TestOldEntriesAreValidatedAgain(t *testing.T) {
	t.Parallel()
	b := cached(t, Options{TTL: time.Nanosecond}, "old")
	b.exec(t, `BEGIN; ALTER TABLE urls DISABLE TRIGGER USER; UPDATE urls SET is_active = false;
		ALTER TABLE urls ENABLE TRIGGER USER; COMMIT`)
	b.becomes(t, "old", "inactive")
}

// The ids of two transactions alternate, and there are more than a feed should remember
// one by one. The changes of the first are seen while the second is open, nothing
// becomes stale, and each change is read once.
func TestBulkChangesOfTwoTransactionsAtOnce(t *testing.T) {
	t.Parallel()
	const each = 1500
	b := setup(t, Options{})
	b.link(t, "first")
	b.exec(t, `INSERT INTO urls (user_id, short_code, original_url)
		SELECT $1, p || n, 'https://example.com/' FROM unnest(ARRAY['a', 'b']) p, generate_series(1, $2::int) n`, b.user, each)
	b.run(t)
	b.following(t)
	for _, code := range []string{"a1", fmt.Sprint("a", each), "b1", fmt.Sprint("b", each)} {
		b.target(t, code)
	}
	resyncs, changes := b.resyncs(t), testutil.ToFloat64(b.metrics.changes)
	ctx := t.Context()
	txs := map[string]pgx.Tx{}
	for _, name := range []string{"a", "b"} {
		tx := b.begin(t)
		txs[name] = tx
	}
	for n := 1; n <= each; n++ {
		for name, tx := range txs {
			pgtest.Exec(t, tx, "UPDATE urls SET is_active = false WHERE short_code = $1", fmt.Sprint(name, n))
		}
	}
	require.NoError(t, txs["a"].Commit(ctx))
	b.fresh(t, "a1", "inactive")
	b.fresh(t, fmt.Sprint("a", each), "inactive")
	wantTarget(t, b, "b1", "https://example.com/")
	b.following(t) // polls with the second one open
	b.following(t)
	require.NoError(t, txs["b"].Commit(ctx))
	b.fresh(t, "b1", "inactive")
	b.fresh(t, fmt.Sprint("b", each), "inactive")
	if got := b.resyncs(t); got != resyncs {
		t.Errorf("the cache became stale %v times", got-resyncs)
	}
	if got := testutil.ToFloat64(b.metrics.changes) - changes; got != 2*each {
		t.Errorf("%v changes were read, want %d", got, 2*each)
	}
}

// A long transaction that has nothing to do with links does not make polls read again
// the changes that others made meanwhile. Nor does a long transaction with changes of
// links.
func TestALongTransactionMakesNoPollReadAgain(t *testing.T) {
	t.Parallel()
	b := cached(t, Options{}, "long", "short")
	for _, statement := range []string{
		"SELECT pg_current_xact_id()", "UPDATE urls SET is_active = false WHERE short_code = 'long'",
	} {
		tx := b.begin(t)
		pgtest.Exec(t, tx, statement)
		before := testutil.ToFloat64(b.metrics.changes)
		for i := range 3 {
			b.exec(t, "UPDATE urls SET original_url = 'https://example.com/' || $1 WHERE short_code = 'short'", fmt.Sprint(i))
			b.fresh(t, "short", fmt.Sprintf("https://example.com/%d", i))
		}
		for range 3 {
			b.following(t)
		}
		if got := testutil.ToFloat64(b.metrics.changes) - before; got != 3 {
			t.Errorf("with %q under way %v changes were read, want 3", statement, got)
		}
		require.NoError(t, tx.Commit(t.Context()))
	}
	b.fresh(t, "long", "inactive")
	if resyncs := b.resyncs(t); resyncs != 1 {
		t.Errorf("%v resyncs, want 1", resyncs)
	}
}

// Rows from a dump of another server may have xids that this server has not given yet.
// They do not keep polls busy, and hide no changes.
func TestXidsOfAnotherServer(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	b.link(t, "seen")
	b.exec(t, `INSERT INTO link_changes (short_code, version, xid)
		SELECT 'foreign', 1, '4611686018427387904'::xid8 FROM generate_series(1, $1::int)`, 2*maxChanges)
	b.run(t)
	b.following(t)
	b.target(t, "seen")
	before := testutil.ToFloat64(b.metrics.changes)
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'seen'")
	b.fresh(t, "seen", "inactive")
	b.following(t)
	if got := testutil.ToFloat64(b.metrics.changes) - before; got != 1 {
		t.Errorf("%v changes were read, want 1", got)
	}
}

// A poll reads only new changes, however long the log is, whether transactions are
// under way or not.
func TestAPollReadsNoMoreThanWhatIsNew(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	b.link(t, "one")
	b.exec(t, "INSERT INTO link_changes (short_code, version) SELECT 'n' || n, n FROM generate_series(1, 100000) n")
	b.exec(t, "VACUUM ANALYZE link_changes")
	conn, err := b.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	q := queries.New(conn)
	state, err := q.PollLinkChanges(t.Context(), queries.PollLinkChangesParams{Xmax: math.MaxInt64, RowLimit: 1})
	require.NoError(t, err)
	b.exec(t, "UPDATE urls SET title = 'x'")
	read := func() (n int64) {
		err := conn.QueryRow(t.Context(), `SELECT pg_stat_get_xact_tuples_fetched('link_changes'::regclass)
			+ (SELECT sum(pg_stat_get_xact_tuples_returned(i.indexrelid)) FROM pg_index i WHERE i.indrelid = 'link_changes'::regclass)
			+ pg_stat_get_xact_tuples_returned('link_changes'::regclass)`).Scan(&n)
		require.NoError(t, err)
		return n
	}
	params := queries.PollLinkChangesParams{
		Xmax: state[0].Xmax, Running: []int64{3, state[0].Xmax - 2, state[0].Xmax - 1}, RowLimit: maxChanges,
	}
	for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
		pgtest.Exec(t, conn, "SET plan_cache_mode = "+mode)
		pgtest.Exec(t, conn, "BEGIN")
		before := read()
		rows, err := q.PollLinkChanges(t.Context(), params)
		if err != nil || len(rows) == 0 || rows[len(rows)-1].ShortCode == nil {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		if n := read() - before; n > 2*maxChanges+100 { // some of these are rows that the insert brought
			t.Errorf("%s: %d rows of the log and its indexes were read", mode, n)
		}
		pgtest.Exec(t, conn, "ROLLBACK")
	}
}

// Changes that were there for longer than the log keeps them may have been pruned
// before they were read.
func TestMissed(t *testing.T) {
	t.Parallel()
	p := position{Xmax: 100, Running: []int64{95, 97}, At: 50_000, LowSince: 50_000 - keptSeconds/2}
	for _, test := range []struct {
		name   string
		state  queries.PollLinkChangesRow
		missed bool
		since  int64
	}{
		{"a poll later", queries.PollLinkChangesRow{Xmax: 103, NowSeconds: 50_001}, false, 50_001},
		{"the oldest goes on", queries.PollLinkChangesRow{Xmax: 103, Running: []int64{101, 95}, NowSeconds: 50_001}, false, p.LowSince},
		{"the oldest ends after long", queries.PollLinkChangesRow{Xmax: 103, NowSeconds: 50_002 + keptSeconds/2}, true, 50_002 + keptSeconds/2},
		{"nobody polled", queries.PollLinkChangesRow{Xmax: 103, Running: []int64{95}, NowSeconds: 50_001 + keptSeconds}, true, p.LowSince},
	} {
		next := p.next(test.state)
		if got := p.missed(next); got != test.missed || next.LowSince != test.since {
			t.Errorf("%s: missed is %v, low since %d", test.name, got, next.LowSince)
		}
	}
}

// proxy forwards to a Postgres server and can stop doing so.
type proxy struct {
	url    string
	server func() (net.Conn, error)
	mu     sync.Mutex
	links  []*link
}

type link struct {
	client, server net.Conn
	frozen         chan struct{}
}

func newProxy(t *testing.T, address string) *proxy {
	t.Helper()
	parsed, err := url.Parse(address)
	require.NoError(t, err)
	query := parsed.Query()
	socket := query.Get("host") + "/.s.PGSQL." + cmp.Or(query.Get("port"), "5432")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{server: func() (net.Conn, error) { return net.Dial("unix", socket) }}
	query.Del("host")
	query.Del("port")
	parsed.Host, parsed.RawQuery = listener.Addr().String(), query.Encode()
	p.url = parsed.String()
	go p.accept(listener)
	t.Cleanup(func() { _ = listener.Close(); p.cut() })
	return p
}

func (p *proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		server, err := p.server()
		if err != nil {
			_ = client.Close()
			continue
		}
		l := &link{client: client, server: server, frozen: make(chan struct{})}
		p.mu.Lock()
		p.links = append(p.links, l)
		p.mu.Unlock()
		go l.copy(client, server)
		go l.copy(server, client)
	}
}

func (l *link) copy(to io.Writer, from io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			_, _ = l.client.Close(), l.server.Close()
			return
		}
		select {
		case <-l.frozen:
			continue // swallowed
		default:
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// freeze swallows all data on the existing connections.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.links {
		select {
		case <-l.frozen:
		default:
			close(l.frozen)
		}
	}
}

// cut closes the existing connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.links {
		_, _ = l.client.Close(), l.server.Close()
	}
	p.links = nil
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	b.following(t)
	cancel()
	select {
	case err := <-done:
		assert.NoError(t, err)
	case <-time.After(10 * time.Second):
		t.Error("Run does not end")
	}
}

// If the server hangs, cached links are served just as if it were gone.
func TestHangingPostgres(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	b := cached(t, Options{Pool: pgtest.Open(t, pgtest.Migrated(t, cluster))}, "kept")
	require.NoError(t, cluster.Pause())
	wantTarget(t, b, "other", "unavailable") // the query is given up in time
	eventually(t, "the feed notices", func() bool {
		return testutil.ToFloat64(b.metrics.polls.WithLabelValues("failed")) > 0
	})
	wantTarget(t, b, "kept", "https://example.com/kept")
	require.NoError(t, cluster.Resume())
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'kept'")
	b.becomes(t, "kept", "inactive")
	b.becomes(t, "other", "not found")
}

// A time that Go cannot hold would make every further poll fail.
func TestNoChangeStopsTheFeed(t *testing.T) {
	t.Parallel()
	b := cached(t, Options{}, "odd", "next")
	for _, at := range []string{"infinity", "-infinity", "294276-12-31", "4713-01-01 BC"} {
		_, err := b.pool.Exec(t.Context(), "UPDATE urls SET expires_at = $1::text::timestamptz WHERE short_code = 'odd'", at)
		if err != nil && postgres.Constraint(err) == "" {
			t.Fatal(err)
		}
		b.following(t)
	}
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'next'")
	b.becomes(t, "next", "inactive")
	b.following(t)
}
