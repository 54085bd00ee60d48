package linkcache

import (
	"bytes"
	"errors"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/pgtest"
)

// nowhere is a pool whose server does not answer.
func nowhere(t *testing.T) *pgxpool.Pool {
	t.Helper()
	return pgtest.Open(t, "postgres://nobody@127.0.0.1:1/none")
}

// restart opens a cache on a copy of the present snapshot, which is the state after a
// kill, without Postgres.
func (b *bundle) restart(t *testing.T) *bundle {
	t.Helper()
	return setup(t, Options{Pool: nowhere(t), SnapshotPath: b.copySnapshot(t), Now: b.now, StaleMax: time.Duration(b.staleMax)})
}

func (b *bundle) copySnapshot(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(b.journal.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "copy")
	if err == nil {
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return path
}

func (b *bundle) save(t *testing.T) {
	t.Helper()
	require.NoError(t, b.saveSnapshot())
}

func wantTarget(t *testing.T, b *bundle, code, want string) {
	t.Helper()
	if got := b.target(t, code); got != want {
		t.Errorf("%s leads to %s, want %s", code, got, want)
	}
}

func snapshotPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "links.snapshot")
}

func TestRestartWithoutPostgres(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := setup(t, Options{SnapshotPath: snapshotPath(t), Now: clock.now})
	expires := time.Date(2030, 1, 2, 3, 4, 5, 6000, time.UTC)
	for _, code := range []string{"plain", "other", "off"} {
		b.link(t, code)
	}
	b.exec(t, "UPDATE urls SET expires_at = $1, redirect_status = 307, forward_query = true WHERE short_code = 'other'", expires)
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'off'")
	for _, code := range []string{"plain", "other", "off"} {
		b.target(t, code)
	}
	b.run(t)() // writes a snapshot at its end

	after := b.restart(t)
	after.run(t)
	wantTarget(t, after, "plain", "https://example.com/plain")
	wantTarget(t, after, "off", "inactive")
	wantTarget(t, after, "unknown", "unavailable")
	before, err := b.Lookup(t.Context(), k("other"), b.now())
	require.NoError(t, err)
	link, err := after.Lookup(t.Context(), k("other"), b.now())
	require.NoError(t, err)
	if !link.ExpiresAt.Equal(expires) {
		t.Errorf("expires at %s, want %s", link.ExpiresAt, expires)
	}
	same := *link
	same.ExpiresAt = before.ExpiresAt
	if same != *before {
		t.Errorf("got %+v, want %+v", *link, *before)
	}
	clock.add(25 * time.Hour)
	wantTarget(t, after, "plain", "unavailable") // time counts from before the restart
}

// pasted returns targets as the database has them, by the codes that lead to them. Two
// of the codes are of kinds that other shorteners have.
func pasted() map[string]string {
	long := "https://example.com/?signature="
	long += strings.Repeat("x", links.MaxTarget-len(long))
	dense := "https://bücher.example/" // SQL can write it like this
	dense += strings.Repeat("ä", (links.MaxTarget-len(dense))/len("ä"))
	return map[string]string{
		"raw":   "https://bücher.example/a b|c#d#e",
		"long":  long,
		"dense": dense,

		"구글/🚀.":                  "https://example.com/segments",
		strings.Repeat("é", 127): "https://example.com/long-code",
	}
}

func (b *bundle) paste(t *testing.T) {
	t.Helper()
	for code, target := range pasted() {
		b.link(t, code)
		b.exec(t, "UPDATE urls SET original_url = $2 WHERE short_code = $1", code, target)
	}
}

// Wherever a link comes from, its target is a Location.
func TestPastedTargets(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{SnapshotPath: snapshotPath(t)})
	b.paste(t)
	for code, target := range pasted() {
		wantTarget(t, b, code, links.Location(target))
	}
	stop := b.run(t)
	b.following(t)
	b.link(t, "changed")
	wantTarget(t, b, "changed", "https://example.com/changed")
	b.exec(t, "UPDATE urls SET original_url = $1 WHERE short_code = 'changed'", pasted()["raw"])
	b.becomes(t, "changed", links.Location(pasted()["raw"]))
	stop()
	after := b.restart(t)
	for code, target := range pasted() {
		wantTarget(t, after, code, links.Location(target))
	}
	wantTarget(t, after, "changed", links.Location(pasted()["raw"]))
	if n := len(links.Location(pasted()["dense"])); n < 2*links.MaxTarget {
		t.Errorf("the longest Location has only %d bytes", n)
	}
}

// A link that the feed followed counts like one that was just queried.
func TestStaleTimeCountsFromTheLastPoll(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := setup(t, Options{SnapshotPath: snapshotPath(t), Now: clock.now, StaleMax: time.Hour})
	b.link(t, "old")
	stop := b.run(t)
	eventually(t, "feed begins", func() bool { return b.followedAt() != 0 && b.sweeps.Load() == 0 })
	b.target(t, "old")
	clock.add(30 * time.Minute)
	b.followedSince(t, clock.now())
	stop()
	clock.add(59 * time.Minute)
	after := b.restart(t)
	wantTarget(t, after, "old", "https://example.com/old")
	clock.add(2 * time.Minute)
	wantTarget(t, after, "old", "unavailable")
}

func (b *bundle) followedSince(t *testing.T, at time.Time) {
	t.Helper()
	eventually(t, "feed follows", func() bool { return b.followedAt() >= at.UnixNano() })
}

// A kill may leave half a record at the end. Later records must not be appended after
// it.
func TestLogGoesOnAfterHalfARecord(t *testing.T) {
	t.Parallel()
	path := snapshotPath(t)
	whole := exampleSnapshot(t)
	require.NoError(t, os.WriteFile(path, whole[:len(whole)-3], 0o600))
	b := setup(t, Options{Pool: nowhere(t), SnapshotPath: path})
	wantTarget(t, b, "logged", "https://example.com/")
	b.Forget(k("logged"))
	wantTarget(t, b.restart(t), "logged", "unavailable")
	if link, err := b.restart(t).Lookup(t.Context(), NewKey(2, "c"), b.now()); err != nil || link.ID != 1<<52 {
		t.Errorf("c leads to %v, %v", link, err)
	}
}

// The restarted process continues where the feed was, and misses nothing that happened
// while it was down.
func TestRestartGoesOnFollowing(t *testing.T) {
	t.Parallel()
	path := snapshotPath(t)
	b := setup(t, Options{SnapshotPath: path})
	b.link(t, "same")
	b.link(t, "changed")
	b.link(t, "gone")
	stop := b.run(t)
	b.following(t)
	b.target(t, "same")
	b.target(t, "changed")
	b.target(t, "gone")
	slow, err := b.pool.Begin(t.Context()) // its id is drawn, and stays a gap
	require.NoError(t, err)
	pgtest.Exec(t, slow, "UPDATE urls SET is_active = false WHERE short_code = 'changed'")
	b.exec(t, "UPDATE urls SET title = 'x' WHERE short_code = 'same'")
	b.following(t)
	stop()
	b.exec(t, "DELETE FROM urls WHERE short_code = 'gone'")

	after := setup(t, Options{Pool: b.pool, SnapshotPath: path})
	after.run(t)
	after.becomes(t, "gone", "not found")
	wantTarget(t, after, "changed", "https://example.com/changed")
	require.NoError(t, slow.Commit(t.Context()))
	after.becomes(t, "changed", "inactive")
	wantTarget(t, after, "same", "https://example.com/same")
	if n := after.resyncs(t); n != 0 {
		t.Errorf("%v resyncs, want none: the server is the same", n)
	}
}

// A server that was restarted meanwhile may have lost or regained changes, even if its
// log looks the same.
func TestRestartAfterARestartOfPostgres(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	address := pgtest.Migrated(t, cluster)
	path := snapshotPath(t)
	b := setup(t, Options{Pool: pgtest.Open(t, address), SnapshotPath: path})
	b.link(t, "off")
	b.exec(t, "UPDATE urls SET title = 'x'")
	stop := b.run(t)
	b.following(t)
	b.target(t, "off")
	stop()
	b.exec(t, `BEGIN; ALTER TABLE urls DISABLE TRIGGER USER; UPDATE urls SET is_active = false;
		ALTER TABLE urls ENABLE TRIGGER USER; COMMIT`)
	require.NoError(t, cluster.Stop(t.Context()))
	require.NoError(t, cluster.Start(t.Context()))
	after := setup(t, Options{Pool: pgtest.Open(t, address), SnapshotPath: path})
	wantTarget(t, after, "off", "https://example.com/off")
	after.run(t)
	after.becomes(t, "off", "inactive")
}

// A link does not come back after it was seen to be deactivated.
func TestChangesAfterTheSnapshotSurviveAKill(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{SnapshotPath: snapshotPath(t)})
	codes := []string{"off", "edited", "deleted", "evicted", "renamed", "forgotten"}
	for _, code := range codes {
		b.link(t, code)
	}
	b.run(t)
	b.following(t)
	for _, code := range codes {
		b.target(t, code)
	}
	b.save(t)
	s := b.shardOf(k("evicted")) // removed from the cache, but still in the snapshot
	s.mu.Lock()
	s.remove(s.entries[k("evicted")])
	s.mu.Unlock()
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code IN ('off', 'evicted')")
	b.exec(t, "UPDATE urls SET original_url = 'https://example.org/' WHERE short_code = 'edited'")
	b.exec(t, "DELETE FROM urls WHERE short_code = 'deleted'")
	b.exec(t, "UPDATE urls SET short_code = 'name' WHERE short_code = 'renamed'")
	b.following(t)
	b.Forget(k("forgotten")) // this process changed it and crashed before the feed reported it
	after := b.restart(t)
	wantTarget(t, after, "off", "inactive")
	wantTarget(t, after, "edited", "https://example.org/")
	for _, code := range []string{"deleted", "evicted", "renamed", "forgotten"} {
		wantTarget(t, after, code, "unavailable")
	}

	// It does not come back after a second kill either, from the same file with its
	// longer log.
	again := after.restart(t)
	wantTarget(t, again, "off", "inactive")
	wantTarget(t, again, "evicted", "unavailable")
}

// Results of a validation are logged as well, because after a resync the feed does not
// report earlier changes.
func TestRevalidationIsLogged(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{SnapshotPath: snapshotPath(t)})
	b.link(t, "off")
	b.link(t, "gone")
	b.target(t, "off")
	b.target(t, "gone")
	b.save(t)
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'off'")
	b.exec(t, "DELETE FROM urls WHERE short_code = 'gone'")
	b.run(t) // begins at the end of the log
	b.following(t)
	wantTarget(t, b, "off", "inactive")
	after := b.restart(t)
	wantTarget(t, after, "off", "inactive")
	wantTarget(t, after, "gone", "unavailable")
}

// The log gets a change before the cache does.
func TestLogComesFirst(t *testing.T) {
	t.Parallel()
	b := cached(t, Options{SnapshotPath: snapshotPath(t)}, "off")
	b.save(t)
	s := b.shardOf(k("off"))
	s.mu.RLock() // makes it impossible to apply the change
	unlock := sync.OnceFunc(s.mu.RUnlock)
	t.Cleanup(unlock)
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'off'")
	eventually(t, "the log knows", func() bool {
		content, err := os.ReadFile(b.journal.path)
		assert.NoError(t, err)
		return len(contentOf(t, content).log) == 1
	})
	if !s.entries[k("off")].link.Active {
		t.Error("the change was applied first")
	}
	if b.applying.TryLock() {
		t.Error("a snapshot can be begun that neither holds the change nor logs it")
	}
	unlock()
	wantTarget(t, b.restart(t), "off", "inactive")
	b.becomes(t, "off", "inactive")
}

// A change that comes while a snapshot is being written is in the new file too.
func TestChangesWhileASnapshotIsWritten(t *testing.T) {
	t.Parallel()
	b := cached(t, Options{SnapshotPath: snapshotPath(t)}, "off", "gone")
	b.saving.Lock()
	first := record{Head: b.position.Load()}
	require.NoError(t, b.journal.begin())
	err := b.journal.replace(func(w io.Writer) error {
		err := b.writeSnapshot(w, first)
		b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'off'")
		b.exec(t, "DELETE FROM urls WHERE short_code = 'gone'")
		b.following(t)
		return err
	})
	b.saving.Unlock()
	require.NoError(t, err)
	after := b.restart(t)
	wantTarget(t, after, "off", "inactive")
	wantTarget(t, after, "gone", "unavailable")
	info, err := os.Stat(b.journal.path)
	require.NoError(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	link := func(id, version int64) *Link { return &Link{ID: id, Version: version, Status: 302, Target: "x"} }
	for _, test := range []struct {
		name    string
		at      int64 // the cached link is of 10
		link    *Link
		version int64 // of the link afterwards; 0: forgotten
	}{
		{"later", 11, link(1, 6), 6},
		{"later, older version, as after a restore", 11, link(1, 4), 4},
		{"later, another link", 11, link(2, 1), 1},
		{"later, no link", 11, nil, 0},
		{"earlier, older version", 9, link(1, 4), 5},
		{"earlier, newer version", 9, link(1, 6), 6},
		{"earlier, another link", 9, link(2, 9), 0},
		{"earlier, no link", 9, nil, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := &Cache{shards: newShards(16), seed: maphash.MakeSeed()}
			c.restoreLink(&entry{key: k("a"), link: link(1, 5), validAt: 10}, false)
			c.restoreLink(&entry{key: k("a"), link: test.link, validAt: test.at}, true)
			version := int64(0)
			if e := c.shardOf(k("a")).entries[k("a")]; e != nil {
				version = e.link.Version
			}
			if version != test.version {
				t.Errorf("version %d, want %d", version, test.version)
			}
		})
	}
}

// If a change cannot be logged, the snapshot is worthless.
func TestSnapshotIsRemovedWhenTheLogFails(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*journal) (mend func()){
		"write fails": func(j *journal) func() {
			_ = j.file.Close()
			return func() {}
		},
		"log is full": func(j *journal) func() {
			j.logSize = maxLog
			return func() {}
		},
		"disk hangs": func(j *journal) func() {
			j.mu.Lock()
			return j.mu.Unlock
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, Options{SnapshotPath: snapshotPath(t)})
			b.link(t, "off")
			b.target(t, "off")
			b.save(t)
			mend := fault(b.journal)
			b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'off'")
			b.apply([]change{{k("off"), &Link{ID: 1, Version: 99, Status: 302, Target: "x"}}}, b.look(), true)
			wantTarget(t, b, "off", "inactive") // this holds whatever the disk does
			mend()
			eventually(t, "the file is gone", func() bool {
				_, err := os.Stat(b.journal.path)
				return errors.Is(err, os.ErrNotExist)
			})
			wantTarget(t, b.restart(t), "off", "unavailable")
			eventually(t, "there is a snapshot again", func() bool { return b.saveSnapshot() == nil })
			wantTarget(t, b.restart(t), "off", "inactive")
			b.apply([]change{{key: k("off")}}, b.look(), true) // it is logged again
			wantTarget(t, b.restart(t), "off", "unavailable")
		})
	}
}

// A change that was missed while the snapshot was written may be missing from it. So
// the new snapshot is not put in place.
func TestSnapshotThatMissedAChangeIsNotKept(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{SnapshotPath: snapshotPath(t)})
	b.link(t, "off")
	b.target(t, "off")
	require.NoError(t, b.journal.begin())
	err := b.journal.replace(func(w io.Writer) error {
		err := b.writeSnapshot(w, record{})
		b.journal.mu.Lock()
		b.apply([]change{{key: k("off")}}, b.look(), true)
		b.journal.mu.Unlock()
		return err
	})
	if err == nil {
		t.Error("the snapshot was kept")
	}
	wantTarget(t, b.restart(t), "off", "unavailable")
	b.save(t)
}

func TestUnwritableSnapshotStopsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{SnapshotPath: filepath.Join(t.TempDir(), "none", "links.snapshot")})
	b.link(t, "here")
	b.run(t)
	b.following(t)
	if err := b.saveSnapshot(); err == nil {
		t.Error("no error")
	}
	wantTarget(t, b, "here", "https://example.com/here")
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'here'")
	b.becomes(t, "here", "inactive")
}

func TestUnusableSnapshotIsIgnored(t *testing.T) {
	t.Parallel()
	whole := exampleSnapshot(t)
	for name, content := range map[string][]byte{
		"empty":           {},
		"foreign":         []byte("PNG and so on and so on and so on"),
		"truncated":       whole[:len(whole)/3],
		"damaged":         append(append(bytes.Clone(whole[:60]), whole[60]^1), whole[61:]...),
		"of other fields": bytes.Replace(whole, []byte(layout), []byte("0"+layout[1:]), 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := snapshotPath(t)
			require.NoError(t, os.WriteFile(path, content, 0o600))
			b := setup(t, Options{SnapshotPath: path})
			if n := b.Len(); n != 0 {
				t.Errorf("%d links, want none", n)
			}
			b.link(t, "a")
			b.target(t, "a")
			b.save(t) // replaces it
			wantTarget(t, b.restart(t), "a", "https://example.com/a")
		})
	}
}

func TestSmallerCacheTakesWhatFits(t *testing.T) {
	t.Parallel()
	path := snapshotPath(t)
	require.NoError(t, os.WriteFile(path, exampleSnapshot(t), 0o600))
	b := setup(t, Options{Pool: nowhere(t), SnapshotPath: path, Size: 2})
	if n := b.Len(); n != 2 {
		t.Errorf("%d links, want 2", n)
	}
}

// Every changed byte is noticed. If a file ends early, only half a record of the log
// may be missing.
func TestDamageIsNoticed(t *testing.T) {
	t.Parallel()
	whole := exampleSnapshot(t)
	want := contentOf(t, whole)
	logged := bytes.Index(whole, []byte("logged")) // in the first record of the log
	for i := range whole {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x10
		if _, _, err := readContent(damaged); err == nil {
			t.Errorf("a changed byte at %d of %d goes unnoticed", i, len(whole))
		}
		got, size, err := readContent(whole[:i])
		switch {
		case i < logged-100 && err == nil:
			t.Errorf("a file of %d of %d bytes passes", i, len(whole))
		case err == nil && (size > i || !reflect.DeepEqual(got.links, want.links) || len(got.log) >= len(want.log)):
			t.Errorf("a file of %d bytes holds %+v", i, got)
		case err != nil && i > logged:
			t.Errorf("a file with half a record of the log, at %d: %v", i, err)
		}
	}
}

// content is everything that a file holds.
type content struct {
	head       *head
	domains    *domainTable
	links, log []savedLink
}

// readContent reads a file as readSnapshot does, without a cache.
func readContent(file []byte) (c content, size int, err error) {
	rest, ok := bytes.CutPrefix(file, []byte(magic))
	if !ok {
		return c, 0, errOtherFormat
	}
	r := bytes.NewReader(rest)
	size = len(magic)
	for log := false; ; {
		var rec record
		n, err := decode(r, &rec)
		if log && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
			return c, size, nil
		}
		if err != nil {
			return c, size, err
		}
		size += n
		if rec.Head != nil {
			c.head = rec.Head
		}
		if rec.Domains != nil {
			c.domains = rec.Domains
		}
		if log {
			c.log = append(c.log, rec.Links...)
		} else {
			c.links = append(c.links, rec.Links...)
		}
		log = log || rec.End
	}
}

func contentOf(tb testing.TB, file []byte) content {
	tb.Helper()
	c, size, err := readContent(file)
	if err != nil || size != len(file) {
		tb.Fatalf("read %d of %d bytes: %v", size, len(file), err)
	}
	return c
}

func exampleSnapshot(tb testing.TB) []byte {
	tb.Helper()
	at := time.Now().UnixNano()
	saved := func(code string, id int64, validAt int64) savedLink {
		return savedLink{Domain: MainDomain, Code: code, ValidAt: validAt, Link: &Link{
			ID: id, UserID: -id, Target: "https://example.com/", Status: 302, Version: id << 40,
			Active: id%2 == 0, ForwardQuery: id%3 == 0, ExpiresAt: time.UnixMicro(1).UTC(),
		}}
	}
	want := content{
		head: &head{Followed: at, Position: position{
			History: "1.2.3", Installation: "an id", Xmax: 100, Running: []int64{95, 97}, At: 7, LowSince: 6,
		}},
		domains: &domainTable{Version: 3, All: []Domain{{ID: MainDomain, RootURL: "https://example.com/"}, {ID: 2, Host: "go.example"}}},
		links: []savedLink{
			saved("a", 1, at), saved("b", 2, at-1),
			{Domain: 2, Code: "c", Link: &Link{ID: 1 << 52, Target: "http://x", Status: 308}, ValidAt: at},
		},
		log: []savedLink{saved("logged", 6, at+1), {Domain: MainDomain, Code: "b"}, {Domain: 3, Code: "never"}},
	}
	want.links[0].Current = true
	file := []byte(magic)
	file = append(file, encode(record{Head: want.head, Domains: want.domains})...)
	file = append(file, encode(record{Links: want.links})...)
	file = append(file, encode(record{End: true})...)
	for _, l := range want.log {
		file = append(file, encode(record{Links: []savedLink{l}})...)
	}
	if got := contentOf(tb, file); !reflect.DeepEqual(got, want) {
		tb.Fatalf("got %+v, want %+v", got, want)
	}
	return file
}

// FuzzReadSnapshot checks that no file makes the reader panic.
func FuzzReadSnapshot(f *testing.F) {
	whole := exampleSnapshot(f)
	f.Add(whole)
	f.Add(whole[:len(whole)-5])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, file []byte) { openOn(t, file) })
}

// FuzzRecord does the same for data behind the checksums, which random bytes do not
// pass.
func FuzzRecord(f *testing.F) {
	for _, r := range []record{{Domains: &domainTable{All: []Domain{{ID: 2, Host: "h"}}}}, {Links: []savedLink{{Domain: 1, Code: "a"}}}} {
		body, err := encoding.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		file := append([]byte(magic), encode(record{End: true})...)
		if len(body) > 0 {
			file = append(file, withHeader(body)...)
		}
		openOn(t, file)
	})
}

// openOn opens a cache on a file, and looks up a domain.
func openOn(t *testing.T, file []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snapshot")
	require.NoError(t, os.WriteFile(path, file, 0o600))
	b := setup(t, Options{Pool: nowhere(t), SnapshotPath: path})
	if b.Domain("go.example") == nil {
		t.Error("there is no domain")
	}
	b.journal.close()
}

// A snapshot of another installation is not used: its links are forgotten as soon as
// Postgres reports its installation, and are not validated one by one. Callers that ask
// for the installation get the right one before and after that.
func TestSnapshotOfAnotherInstallation(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{SnapshotPath: snapshotPath(t)})
	b.link(t, "theirs")
	wantTarget(t, b, "theirs", "https://example.com/theirs")
	stop := b.run(t)
	eventually(t, "the feed begins", func() bool { return b.Installation() != "" })
	stop()
	var theirs, ours string
	require.NoError(t, b.pool.QueryRow(t.Context(), "SELECT id FROM installation").Scan(&theirs))
	if got := b.Installation(); got != theirs {
		t.Errorf("the cache is of installation %q, want %q", got, theirs)
	}

	met := make(chan string, 10)
	pool := pgtest.Pool(t)
	// The databases of the tests are copies of one.
	pgtest.Exec(t, pool, "UPDATE installation SET id = gen_random_uuid()")
	after := setup(t, Options{Pool: pool, SnapshotPath: b.copySnapshot(t), Met: func(installation string) { met <- installation }})
	require.NoError(t, after.pool.QueryRow(t.Context(), "SELECT id FROM installation").Scan(&ours))
	if got := after.Installation(); got != theirs || after.Len() != 1 {
		t.Errorf("restored %d links of installation %q", after.Len(), got)
	}
	after.run(t)
	if got := <-met; got != ours {
		t.Errorf("met %q, want %q", got, ours)
	}
	if got := after.Installation(); got != ours || after.Len() != 0 {
		t.Errorf("then %d links of installation %q", after.Len(), got)
	}
	wantTarget(t, after, "theirs", "not found")
}

// A link that changed while the feed had lost the thread does not come back from a
// snapshot, although it is not cached any more. The next snapshot is made once
// everything has been validated.
func TestTheSnapshotIsMadeAnewAfterAResync(t *testing.T) {
	t.Parallel()
	b := cached(t, Options{SnapshotPath: snapshotPath(t)}, "off")
	eventually(t, "it is in the snapshot", func() bool { b.snapshotDue(); return b.restart(t).isCached("off") })
	b.forgetAll()
	b.exec(t, `BEGIN; ALTER TABLE urls DISABLE TRIGGER USER; UPDATE urls SET is_active = false;
		ALTER TABLE urls ENABLE TRIGGER USER; TRUNCATE link_changes RESTART IDENTITY; COMMIT`)
	eventuallyIn(t, snapshotEvery/2, "the snapshot is another one", func() bool { return !b.restart(t).isCached("off") })
}

// The feed forgets the links of another installation even if its first attempt to begin
// there failed halfway.
func TestAnotherInstallationAtTheSecondAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{})
	b.link(t, "theirs")
	wantTarget(t, b, "theirs", "https://example.com/theirs")
	f := &feed{cache: b.Cache, timeout: maxPollTimeout}
	defer f.hangUp()
	if _, err := f.poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.begun = false
	b.exec(t, "UPDATE installation SET id = gen_random_uuid(); ALTER TABLE domains RENAME TO elsewhere")
	if _, err := f.poll(t.Context()); err == nil {
		t.Fatal("the feed began without the domains")
	}
	b.exec(t, "ALTER TABLE elsewhere RENAME TO domains")
	if _, err := f.poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := b.Len(); n != 0 {
		t.Errorf("%d links of the other installation are left", n)
	}
}
