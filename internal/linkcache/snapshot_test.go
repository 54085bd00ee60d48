package linkcache

import (
	"bytes"
	"encoding/binary"
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

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/pgtest"
)

// nowhere is a pool whose server does not answer.
func nowhere(t *testing.T) *pgxpool.Pool {
	t.Helper()
	return pgtest.Open(t, "postgres://nobody@127.0.0.1:1/none")
}

// restart opens a cache on a copy of the snapshot as it is now, which is what
// a kill would leave, without Postgres.
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
	if err := b.saveSnapshot(); err != nil {
		t.Fatal(err)
	}
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
	b.run(t)() // the last thing it does is to write a snapshot

	after := b.restart(t)
	after.run(t)
	wantTarget(t, after, "plain", "https://example.com/plain")
	wantTarget(t, after, "off", "inactive")
	wantTarget(t, after, "unknown", "unavailable")
	before, err := b.Lookup(t.Context(), "other", b.now())
	if err != nil {
		t.Fatal(err)
	}
	link, err := after.Lookup(t.Context(), "other", b.now())
	if err != nil {
		t.Fatal(err)
	}
	if !link.ExpiresAt.Equal(expires) {
		t.Errorf("expires at %s, want %s", link.ExpiresAt, expires)
	}
	same := *link
	same.ExpiresAt = before.ExpiresAt
	if same != *before {
		t.Errorf("got %+v, want %+v", *link, *before)
	}
	clock.add(25 * time.Hour)
	wantTarget(t, after, "plain", "unavailable") // counted from before the restart
}

// pasted are targets as the database has them, by the codes that lead to them,
// two of which are of the kinds that other shorteners have.
func pasted() map[string]string {
	long := "https://example.com/?signature="
	long += strings.Repeat("x", links.MaxTarget-len(long))
	dense := "https://bücher.example/" // as SQL can write it
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

// The release before kept targets as the database has them.
func TestSnapshotWithTargetsAsGiven(t *testing.T) {
	t.Parallel()
	c := contentOf(t, exampleSnapshot(t))
	c.cached[0].link.Target = pasted()["raw"]
	got := contentOf(t, c.write(t))
	if target := got.cached[0].link.Target; target != links.Location(pasted()["raw"]) {
		t.Errorf("the target is %q", target)
	}
	l, ok := decodeShared(encodeShared(sharedLink{savedLink: c.cached[0]}))
	if !ok || l.link.Target != links.Location(pasted()["raw"]) {
		t.Errorf("from Redis it is %+v", l.link)
	}
}

// A link that the feed followed is as good as one that was just asked for.
func TestStaleTimeCountsFromTheLastPoll(t *testing.T) {
	t.Parallel()
	clock := newClock()
	b := setup(t, Options{SnapshotPath: snapshotPath(t), Now: clock.now, StaleMax: time.Hour})
	b.link(t, "old")
	stop := b.run(t)
	eventually(t, "feed begins", func() bool { return b.followed.Load() != 0 && b.sweeps.Load() == 0 })
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
	eventually(t, "feed follows", func() bool { return b.followed.Load() >= at.UnixNano() })
}

// Half a frame at the end is what a kill leaves. What is appended later must
// not come after it.
func TestLogGoesOnAfterHalfAFrame(t *testing.T) {
	t.Parallel()
	path := snapshotPath(t)
	whole := exampleSnapshot(t)
	if err := os.WriteFile(path, whole[:len(whole)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	b := setup(t, Options{Pool: nowhere(t), SnapshotPath: path})
	wantTarget(t, b, "logged", "https://example.com/")
	b.Forget("logged")
	wantTarget(t, b.restart(t), "logged", "unavailable")
	wantTarget(t, b.restart(t), "c", "inactive")
}

// The restarted process goes on where the feed was and misses nothing that
// happened while it was down.
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
	slow, err := b.pool.Begin(t.Context()) // its id is drawn, and it stays a gap
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Exec(t.Context(), "UPDATE urls SET is_active = false WHERE short_code = 'changed'"); err != nil {
		t.Fatal(err)
	}
	b.exec(t, "UPDATE urls SET title = 'x' WHERE short_code = 'same'")
	b.following(t)
	stop()
	b.exec(t, "DELETE FROM urls WHERE short_code = 'gone'")

	after := setup(t, Options{Pool: b.pool, SnapshotPath: path})
	after.run(t)
	after.becomes(t, "gone", "not found")
	wantTarget(t, after, "changed", "https://example.com/changed")
	if err := slow.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	after.becomes(t, "changed", "inactive")
	wantTarget(t, after, "same", "https://example.com/same")
	if n := after.resyncs(t); n != 0 {
		t.Errorf("%v resyncs, want none: the server is the same", n)
	}
}

// A server that was restarted meanwhile may have lost or regained changes, even
// if its log looks the same.
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
	if err := cluster.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := setup(t, Options{Pool: pgtest.Open(t, address), SnapshotPath: path})
	wantTarget(t, after, "off", "https://example.com/off")
	after.run(t)
	after.becomes(t, "off", "inactive")
}

// The links of the release before this one are served at once, and validated: its
// position in the log is another thing.
func TestSnapshotOfTheReleaseBefore(t *testing.T) {
	t.Parallel()
	path := snapshotPath(t)
	b := setup(t, Options{SnapshotPath: path})
	b.link(t, "off")
	stop := b.run(t)
	b.following(t)
	b.target(t, "off")
	stop()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head := contentOf(t, file).head
	var before bytes.Buffer
	w := &frameWriter{w: &before}
	before.WriteString(magicBefore)
	w.begin(frameHead)
	w.buf = appendText(binary.AppendVarint(append(w.buf, 1), head.followed), head.position.history)
	for _, v := range []int64{head.position.id, head.position.anchor, 0} {
		w.buf = binary.AppendVarint(w.buf, v)
	}
	w.buf = binary.AppendUvarint(w.buf, 2) // gaps
	for v := range int64(8) {
		w.buf = binary.AppendVarint(w.buf, v)
	}
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	ours := &bytes.Buffer{}
	if err := (&frameWriter{w: ours}).writeHead(head); err != nil {
		t.Fatal(err)
	}
	before.Write(file[ours.Len():])
	if err := os.WriteFile(path, before.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	b.exec(t, "UPDATE urls SET is_active = false")
	after := setup(t, Options{Pool: b.pool, SnapshotPath: path})
	if got := after.Installation(); got != "" {
		t.Errorf("it names the installation %q", got) // which that release did not know
	}
	d := &decoder{b: appendMark(nil, after.mark.Load())}
	if again := d.mark(); d.bad || len(d.b) > 0 || again.followed != head.followed {
		t.Errorf("written again it is %+v", again)
	}
	wantTarget(t, after, "off", "https://example.com/off")
	after.run(t)
	after.becomes(t, "off", "inactive")
}

// A link that was seen to be deactivated does not come back.
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
	s := b.shardOf("evicted") // pushed out, and still in the snapshot
	s.mu.Lock()
	s.remove(s.entries["evicted"])
	s.mu.Unlock()
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code IN ('off', 'evicted')")
	b.exec(t, "UPDATE urls SET original_url = 'https://example.org/' WHERE short_code = 'edited'")
	b.exec(t, "DELETE FROM urls WHERE short_code = 'deleted'")
	b.exec(t, "UPDATE urls SET short_code = 'name' WHERE short_code = 'renamed'")
	b.following(t)
	b.Forget("forgotten") // this process changed it and crashed before the feed told
	after := b.restart(t)
	wantTarget(t, after, "off", "inactive")
	wantTarget(t, after, "edited", "https://example.org/")
	for _, code := range []string{"deleted", "evicted", "renamed", "forgotten"} {
		wantTarget(t, after, code, "unavailable")
	}

	// Nor after a second kill, from the same file with its longer log.
	again := after.restart(t)
	wantTarget(t, again, "off", "inactive")
	wantTarget(t, again, "evicted", "unavailable")
}

// What a validation finds is logged as well: after a resync the feed does not
// tell what happened before.
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

// The log learns of a change before the cache does.
func TestLogComesFirst(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{SnapshotPath: snapshotPath(t)})
	b.link(t, "off")
	b.run(t)
	b.following(t)
	b.target(t, "off")
	b.save(t)
	s := b.shardOf("off")
	s.mu.RLock() // the change cannot be applied
	unlock := sync.OnceFunc(s.mu.RUnlock)
	t.Cleanup(unlock)
	b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'off'")
	eventually(t, "the log knows", func() bool {
		content, err := os.ReadFile(b.journal.path)
		if err != nil {
			t.Error(err)
		}
		return len(learntIn(t, content)) == 1
	})
	if !s.entries["off"].link.Active {
		t.Error("the change was applied first")
	}
	if b.learning.TryLock() {
		t.Error("a snapshot can be begun that neither holds the change nor logs it")
	}
	unlock()
	wantTarget(t, b.restart(t), "off", "inactive")
	b.becomes(t, "off", "inactive")
}

// A change that comes while a snapshot is written is in the new file too.
func TestChangesWhileASnapshotIsWritten(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{SnapshotPath: snapshotPath(t)})
	b.link(t, "off")
	b.link(t, "gone")
	b.run(t)
	b.following(t)
	b.target(t, "off")
	b.target(t, "gone")
	m := b.mark.Load()
	if err := b.journal.begin(); err != nil {
		t.Fatal(err)
	}
	err := b.journal.replace(func(w io.Writer) error {
		err := b.writeSnapshot(w, m)
		b.exec(t, "UPDATE urls SET is_active = false WHERE short_code = 'off'")
		b.exec(t, "DELETE FROM urls WHERE short_code = 'gone'")
		b.following(t)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	after := b.restart(t)
	wantTarget(t, after, "off", "inactive")
	wantTarget(t, after, "gone", "unavailable")
	info, err := os.Stat(b.journal.path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	link := func(id, version int64) *Link { return &Link{ID: id, Version: version, Status: 302, Target: "x"} }
	for _, test := range []struct {
		name    string
		at      int64 // the cached one is of 10
		link    *Link
		version int64 // afterwards; 0: forgotten
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
			c.restoreLink(savedLink{code: "a", link: link(1, 5), validAt: 10})
			c.replay(savedLink{code: "a", link: test.link, validAt: test.at})
			version := int64(0)
			if e := c.shardOf("a").entries["a"]; e != nil {
				version = e.link.Version
			}
			if version != test.version {
				t.Errorf("version %d, want %d", version, test.version)
			}
		})
	}
}

// A change that cannot be logged makes the snapshot worthless.
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
			b.apply([]change{{code: "off", link: &Link{ID: 1, Version: 99, Status: 302, Target: "x"}}}, b.look())
			wantTarget(t, b, "off", "inactive") // whatever the disk does
			mend()
			eventually(t, "the file is gone", func() bool {
				_, err := os.Stat(b.journal.path)
				return errors.Is(err, os.ErrNotExist)
			})
			wantTarget(t, b.restart(t), "off", "unavailable")
			eventually(t, "there is a snapshot again", func() bool { return b.saveSnapshot() == nil })
			wantTarget(t, b.restart(t), "off", "inactive")
			b.apply([]change{{code: "off"}}, b.look()) // it is logged again
			wantTarget(t, b.restart(t), "off", "unavailable")
		})
	}
}

// A change that was missed while the snapshot was written may be missing from
// it, so that it is not put in place.
func TestSnapshotThatMissedAChangeIsNotKept(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{SnapshotPath: snapshotPath(t)})
	b.link(t, "off")
	b.target(t, "off")
	if err := b.journal.begin(); err != nil {
		t.Fatal(err)
	}
	err := b.journal.replace(func(w io.Writer) error {
		err := b.writeSnapshot(w, nil)
		b.journal.mu.Lock()
		b.apply([]change{{code: "off"}}, b.look())
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
		"empty":     {},
		"foreign":   []byte("PNG and so on and so on and so on"),
		"truncated": whole[:len(whole)/3],
		"damaged":   append(append(bytes.Clone(whole[:60]), whole[60]^1), whole[61:]...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := snapshotPath(t)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			b := setup(t, Options{SnapshotPath: path})
			if n := b.Len(); n != 0 {
				t.Errorf("%d links, want none", n)
			}
			b.link(t, "a")
			b.target(t, "a")
			b.save(t) // takes its place
			wantTarget(t, b.restart(t), "a", "https://example.com/a")
		})
	}
}

func TestSmallerCacheTakesWhatFits(t *testing.T) {
	t.Parallel()
	path := snapshotPath(t)
	if err := os.WriteFile(path, exampleSnapshot(t), 0o600); err != nil {
		t.Fatal(err)
	}
	b := setup(t, Options{Pool: nowhere(t), SnapshotPath: path, Size: 2})
	if n := b.Len(); n != 2 {
		t.Errorf("%d links, want 2", n)
	}
}

// Not one changed byte goes unnoticed, and of a file that ends early only half
// a frame of the log may be missing.
func TestDamageIsNoticed(t *testing.T) {
	t.Parallel()
	whole := exampleSnapshot(t)
	want := contentOf(t, whole)
	logged := bytes.Index(whole, []byte("logged")) // in the first frame of the log
	for i := range whole {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x10
		if _, err := (&content{}).read(damaged); err == nil {
			t.Errorf("a changed byte at %d of %d goes unnoticed", i, len(whole))
		}
		var got content
		size, err := got.read(whole[:i])
		switch {
		case i < logged-100 && err == nil:
			t.Errorf("a file of %d of %d bytes passes", i, len(whole))
		case err == nil && (size > int64(i) || !reflect.DeepEqual(got.cached, want.cached) || len(got.learnt) >= len(want.learnt)):
			t.Errorf("a file of %d bytes holds %+v", i, got)
		case err != nil && i > logged:
			t.Errorf("a file with half a frame of the log, at %d: %v", i, err)
		}
	}
}

// content is what a file holds.
type content struct {
	head           *mark
	cached, learnt []savedLink
}

func (c *content) read(file []byte) (int64, error) {
	*c = content{}
	return snapshotReader{
		head:   func(m *mark) { c.head = m },
		cached: func(l savedLink) { c.cached = append(c.cached, l) },
		learnt: func(l savedLink) { c.learnt = append(c.learnt, l) },
	}.read(bytes.NewReader(file))
}

func contentOf(tb testing.TB, file []byte) content {
	tb.Helper()
	var c content
	if size, err := c.read(file); err != nil || size != int64(len(file)) {
		tb.Fatalf("read %d of %d bytes: %v", size, len(file), err)
	}
	return c
}

func learntIn(t *testing.T, file []byte) []savedLink {
	t.Helper()
	return contentOf(t, file).learnt
}

// write makes a file of the content.
func (c *content) write(tb testing.TB) []byte {
	tb.Helper()
	var file bytes.Buffer
	w := &frameWriter{w: &file}
	err := w.writeHead(c.head)
	w.begin(frameLinks)
	for _, l := range c.cached {
		err = errors.Join(err, w.add(l))
	}
	err = errors.Join(err, w.flush())
	w.begin(frameEnd)
	err = errors.Join(err, w.flush())
	for _, l := range c.learnt {
		w.begin(frameLog)
		err = errors.Join(err, w.add(l), w.flush())
	}
	if err != nil {
		tb.Fatal(err)
	}
	return file.Bytes()
}

func exampleSnapshot(tb testing.TB) []byte {
	tb.Helper()
	at := time.Now().UnixNano()
	link := func(id int64) *Link {
		return &Link{
			ID: id, UserID: -id, Target: "https://example.com/", Status: 302, Version: id << 40,
			Active: id%2 == 0, ForwardQuery: id%3 == 0, ExpiresAt: time.UnixMicro(1),
		}
	}
	c := content{
		head: &mark{followed: at, position: position{
			history: "1.2.3", installation: "an id", id: 9, anchor: 8, oldest: 1, low: 7, sure: 8, closes: 101,
			seen: moment{xmax: 100, running: []int64{95, 97}},
		}},
		cached: []savedLink{
			{code: "a", link: link(1), validAt: at, current: true},
			{code: "b", link: link(2), validAt: at - 1},
			{code: "c", link: &Link{ID: 1 << 52, Target: "http://x", Status: 308}, validAt: at},
		},
		learnt: []savedLink{{code: "logged", link: link(6), validAt: at + 1}, {code: "b"}, {code: "never"}},
	}
	file := c.write(tb)
	if got := contentOf(tb, file); !reflect.DeepEqual(got, c) {
		tb.Fatalf("got %+v, want %+v", got, c)
	}
	return file
}

// FuzzReadSnapshot shows that no file brings the reader down, and that what it
// accepts is what would be written for it.
func FuzzReadSnapshot(f *testing.F) {
	whole := exampleSnapshot(f)
	f.Add(whole)
	f.Add(whole[:len(whole)-5])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, file []byte) {
		var c content
		size, err := c.read(file)
		if err != nil {
			if !errors.Is(err, errForeign) && !errors.Is(err, errDamaged) {
				t.Fatalf("unknown error: %v", err)
			}
			return
		}
		if size > int64(len(file)) {
			t.Fatalf("%d of %d bytes are whole", size, len(file))
		}
		if again := contentOf(t, c.write(t)); !reflect.DeepEqual(again, c) {
			t.Fatalf("got %+v, want %+v", again, c)
		}
	})
}

// FuzzFrame does the same behind the checksums, which random bytes do not pass.
func FuzzFrame(f *testing.F) {
	f.Add(frameHead, appendMark(nil, &mark{position: position{seen: moment{xmax: 3, running: []int64{1, 2}}}}))
	f.Add(frameLinks, appendLink(nil, savedLink{code: "a", link: &Link{Status: 302, Target: "http://x"}}))
	f.Add(frameLog, appendLink(nil, savedLink{code: "a"}))
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		var c content
		reader := snapshotReader{
			head:   func(m *mark) { c.head = m },
			cached: func(l savedLink) { c.cached = append(c.cached, l) },
			learnt: func(l savedLink) { c.learnt = append(c.learnt, l) },
		}
		if err := reader.take(append([]byte{kind}, payload...)); err != nil {
			return
		}
		if again := contentOf(t, c.write(t)); !reflect.DeepEqual(again, c) {
			t.Fatalf("got %+v, want %+v", again, c)
		}
	})
}

// A snapshot of another installation is not used: what it holds is forgotten as
// soon as Postgres says who it is, not validated link by link. Who asks is told
// before and after.
func TestSnapshotOfAnotherInstallation(t *testing.T) {
	t.Parallel()
	b := setup(t, Options{SnapshotPath: snapshotPath(t)})
	b.link(t, "theirs")
	wantTarget(t, b, "theirs", "https://example.com/theirs")
	stop := b.run(t)
	eventually(t, "the feed begins", func() bool { return b.Installation() != "" })
	stop()
	var theirs, ours string
	if err := b.pool.QueryRow(t.Context(), "SELECT id FROM installation").Scan(&theirs); err != nil {
		t.Fatal(err)
	}
	if got := b.Installation(); got != theirs {
		t.Errorf("the cache is of installation %q, want %q", got, theirs)
	}

	met := make(chan string, 10)
	pool := pgtest.Pool(t)
	// The databases of the tests are copies of one.
	if _, err := pool.Exec(t.Context(), "UPDATE installation SET id = gen_random_uuid()"); err != nil {
		t.Fatal(err)
	}
	after := setup(t, Options{Pool: pool, SnapshotPath: b.copySnapshot(t), Met: func(installation string) { met <- installation }})
	if err := after.pool.QueryRow(t.Context(), "SELECT id FROM installation").Scan(&ours); err != nil {
		t.Fatal(err)
	}
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
