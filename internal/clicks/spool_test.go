package clicks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/promise"
)

// slowAge keeps segments open until a test seals them.
const slowAge = time.Hour

func testOptions(t *testing.T) Options {
	t.Helper()
	return Options{Dir: t.TempDir(), SegmentAge: slowAge, Keep: time.Hour, Log: slog.New(slog.DiscardHandler)}
}

func mustOpen(t *testing.T, o Options) *Spool { t.Helper(); return mustOpenOn(t, o, realDisk()) }

func mustOpenOn(t *testing.T, o Options, d disk) *Spool {
	t.Helper()
	return mustOpenWith(t, o, d, patient)
}

// patient is for tests that are not about a slow disk, since the disk on which they run
// may be slow.
var patient = patience{strikes: 1 << 30, idle: 125, close: time.Minute}

func mustOpenWith(t *testing.T, o Options, d disk, p patience) *Spool {
	t.Helper()
	s, err := open(o, d, p)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, s.Close(), "close")
	})
	return s
}

// click returns a click that can be recognized by its marker.
func click(marker int) *Click {
	return &Click{
		At:        time.Date(2026, 1, 31, 9, 5, 7, 0, time.UTC).Add(time.Duration(marker) * time.Millisecond),
		URLID:     int64(marker),
		UserID:    1,
		UserAgent: fmt.Sprintf("agent %d", marker%7),
	}
}

func mustAppend(t *testing.T, s *Spool, markers ...int) {
	t.Helper()
	for _, m := range markers {
		require.NoErrorf(t, s.Append(click(m)), "append %d", m)
	}
}

func mustSeal(t *testing.T, s *Spool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, s.SealNow(ctx))
}

// mustSegment appends clicks and seals them.
func mustSegment(t *testing.T, s *Spool, markers ...int) {
	t.Helper()
	mustAppend(t, s, markers...)
	mustSeal(t, s)
}

// listed returns the first segments that are in line.
func listed(t *testing.T, s *Spool) []Segment {
	t.Helper()
	segs, err := s.Segments("")
	require.NoError(t, err)
	return segs
}

// wantListed is listed for a known number of segments.
func wantListed(t *testing.T, s *Spool, n int) []Segment {
	t.Helper()
	segs := listed(t, s)
	if len(segs) != n {
		t.Fatalf("%d segments are in line, want %d", len(segs), n)
	}
	return segs
}

// readClicks reads a segment as a worker does.
func readClicks(t *testing.T, s *Spool, seg Segment) (Batch, []Click, error) {
	t.Helper()
	b, err := s.Read(seg)
	if err != nil {
		return b, nil, err
	}
	got, err := DecodeBatch(b.ID, b.Payload)
	require.NoError(t, err)
	if len(got) != b.Clicks {
		t.Errorf("batch says %d clicks and has %d", b.Clicks, len(got))
	}
	return b, got, nil
}

func reasonOf(t *testing.T, err error) string {
	t.Helper()
	var drop *DropError
	if !errors.As(err, &drop) {
		t.Fatalf("got %v, want a DropError", err)
	}
	return drop.Reason
}

// ship ships everything and returns the markers in the order in which they were
// shipped.
func ship(t *testing.T, s *Spool) (markers []int) {
	t.Helper()
	for {
		segs := listed(t, s)
		if len(segs) == 0 {
			return markers
		}
		for _, seg := range segs {
			b, got, err := readClicks(t, s, seg)
			if errors.Is(err, ErrQuarantined) {
				continue
			}
			require.NoError(t, err)
			for _, c := range got {
				markers = append(markers, int(c.URLID))
			}
			require.NoError(t, s.Shipped(b))
		}
	}
}

func wantMarkers(t *testing.T, got []int, want ...int) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got clicks %v, want %v", got, want)
	}
}

// eventually polls until ok, for at most ten seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never came true: %s", what)
		}
	}
}

// abandon stops using s in the same way as a crash: nothing is sealed or tidied, and
// the kernel releases the lock.
func abandon(t *testing.T, s *Spool) {
	t.Helper()
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	for _, f := range s.store.folders {
		// Two descriptors share the lock, so that Close has one that it can close.
		fd, err := syscall.Dup(int(f.lock.Fd()))
		require.NoError(t, err)
		require.NoError(t, syscall.Flock(fd, syscall.LOCK_UN))
		require.NoError(t, syscall.Close(fd))
	}
}

// onlyFolder returns the one folder in dir.
func onlyFolder(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("folders in use: %v, %v", entries, err)
	}
	return filepath.Join(dir, entries[0].Name())
}

func TestAppendShip(t *testing.T) {
	t.Parallel()
	for _, mode := range []Durability{Process, Disk} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			o := testOptions(t)
			o.Durability, o.Metrics = mode, NewMetrics(nil)
			s := mustOpen(t, o)
			mustAppend(t, s, 1, 2, 3)
			if segs, err := s.Segments(""); err != nil || len(segs) != 0 {
				t.Fatalf("segments before the seal: %v, %v", segs, err)
			}
			mustSeal(t, s)
			<-s.Sealed()
			mustAppend(t, s, 4)
			if st := s.Stats(); st.Segments != 1 || !st.Oldest.Equal(click(1).At) || st.Bytes == 0 {
				t.Errorf("stats: %+v", st)
			}
			wantMarkers(t, ship(t, s), 1, 2, 3)
			if st := s.Stats(); st.Segments != 0 || !st.Oldest.Equal(click(4).At) {
				t.Errorf("stats after shipping: %+v", st)
			}
			mustSeal(t, s)
			wantMarkers(t, ship(t, s), 4)
			if got := testutil.ToFloat64(o.Metrics.appended); got != 4 {
				t.Errorf("appended metric %v, want 4", got)
			}
		})
	}
}

func TestAppendManyCallers(t *testing.T) {
	t.Parallel()
	for _, mode := range []Durability{Process, Disk} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			o := testOptions(t)
			o.Durability, o.SegmentBytes = mode, 4<<10
			s := mustOpen(t, o)
			const callers, each = 32, 100
			appendMany(t, s, callers, each)
			mustSeal(t, s)
			seen := make(map[int]int)
			for _, m := range ship(t, s) {
				seen[m]++
			}
			if len(seen) != callers*each {
				t.Errorf("%d clicks shipped, want %d", len(seen), callers*each)
			}
			for m, n := range seen {
				if n != 1 {
					t.Errorf("click %d shipped %d times", m, n)
				}
			}
		})
	}
}

func appendMany(t *testing.T, s *Spool, callers, each int) {
	t.Helper()
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				assert.NoError(t, s.Append(click(c*each+i)), "append")
			}
		})
	}
	wg.Wait()
}

// The texts of a request are in a buffer that the next request overwrites.
func TestAppendCopies(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, testOptions(t))
	buffer := []byte("Mozilla/5.0")
	c := click(1)
	c.UserAgent = aliased(buffer)
	require.NoError(t, s.Append(c))
	copy(buffer, "overwritten")
	mustSeal(t, s)
	segs := listed(t, s)
	_, got, err := readClicks(t, s, segs[0])
	require.NoError(t, err)
	if got[0].UserAgent != "Mozilla/5.0" {
		t.Errorf("user agent %q", got[0].UserAgent)
	}
}

func TestSealByAge(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.SegmentAge = 5 * time.Millisecond
	s := mustOpen(t, o)
	for i := range 3 {
		mustAppend(t, s, i)
		<-s.Sealed()
		wantMarkers(t, ship(t, s), i)
	}
}

func TestSealBySize(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.SegmentBytes = 4 << 10
	s := mustOpen(t, o)
	for i := 0; s.Stats().Segments < 3; i++ {
		mustAppend(t, s, i)
	}
	segs := listed(t, s)
	for i, seg := range segs {
		if i > 0 && segs[i-1].ID >= seg.ID {
			t.Errorf("%s listed before %s", segs[i-1].ID, seg.ID)
		}
		if seg.Bytes < 4<<10 || seg.Bytes > maxSegmentBytes {
			t.Errorf("segment of %d bytes", seg.Bytes)
		}
	}
}

// With a backlog, segments become fewer and larger.
func TestBacklogSegments(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.SegmentBytes, o.SegmentAge = 4<<10, 0
	s := mustOpen(t, o)
	small, age := s.wanted()
	s.store.segments.Add(100)
	large, longer := s.wanted()
	s.store.segments.Add(-100)
	if large != 4*small || longer <= age || longer > maxSealAge {
		t.Errorf("sealed at %d bytes and %s, with a backlog at %d and %s", small, age, large, longer)
	}
}

func TestReadTwiceIsTheSame(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, testOptions(t))
	mustSegment(t, s, 1, 2)
	mustAppend(t, s, 3)
	segs := wantListed(t, s, 1)
	first, err := s.Read(segs[0])
	require.NoError(t, err)
	mustSeal(t, s)
	second, err := s.Read(segs[0])
	require.NoError(t, err)
	if string(first.Payload) != string(second.Payload) || first.Clicks != 2 {
		t.Errorf("read %d clicks, then %d", first.Clicks, second.Clicks)
	}
	if !first.Oldest.Equal(click(1).At) {
		t.Errorf("oldest %s", first.Oldest)
	}
}

func TestCloseSealsAndDrops(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	s := mustOpen(t, o)
	mustAppend(t, s, 1)
	require.NoError(t, s.Close())
	if got := reasonOf(t, s.Append(click(2))); got != DropClosed {
		t.Errorf("append after close dropped as %q", got)
	}
	if err := s.SealNow(t.Context()); err == nil {
		t.Error("SealNow after Close returned nil")
	}
	wantMarkers(t, ship(t, mustOpen(t, o)), 1)
}

// A folder that is empty is removed.
func TestCloseRemovesEmptyFolder(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	require.NoError(t, mustOpen(t, o).Close())
	entries, err := os.ReadDir(o.Dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestOpenRefusesOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{
		{},
		{Dir: "x", Durability: "memory"},
		{Dir: "x", MaxBytes: -1},
		{Dir: "x", SegmentBytes: 1},
		{Dir: "x", SegmentBytes: 1 << 30},
		{Dir: "x", SegmentAge: -1},
		{Dir: "x", Keep: -1},
	} {
		if _, err := Open(o); err == nil {
			t.Errorf("options %+v accepted", o)
		}
	}
}

func TestSpoolFull(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.MaxBytes, o.Metrics = 4<<10, NewMetrics(nil)
	s := mustOpen(t, o)
	kept := 0
	var err error
	for ; err == nil; kept++ {
		err = s.Append(click(kept))
	}
	if got := reasonOf(t, err); got != DropSpoolFull {
		t.Fatalf("dropped as %q", got)
	}
	if got := s.Stats().Refusing; got != DropSpoolFull {
		t.Errorf("refusing %q", got)
	}
	if got := testutil.ToFloat64(o.Metrics.dropped[DropSpoolFull]); got != 1 {
		t.Errorf("dropped metric %v", got)
	}
	mustSeal(t, s)
	if got := ship(t, s); len(got) != kept-1 {
		t.Errorf("%d clicks shipped, want %d", len(got), kept-1)
	}
	mustAppend(t, s, 1) // it works again
}

// Kept segments are removed to make room for unshipped clicks.
func TestKeptSegmentsMakeRoom(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.MaxBytes = 16 << 10
	s := mustOpen(t, o)
	for i := range 1000 {
		mustAppend(t, s, i)
		if i%50 == 0 {
			mustSeal(t, s)
			ship(t, s)
		}
	}
	eventually(t, "kept segments fit the bound", func() bool { return s.Stats().KeptBytes <= o.MaxBytes })
	gone, err := s.RemoveExpired(time.Now())
	if err != nil || len(gone) != 1 {
		t.Errorf("removed early: %v, %v", gone, err)
	}
}

func TestKeepThenRemove(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	now := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	o.Keep, o.Now = time.Hour, func() time.Time { return now }
	s := mustOpen(t, o)
	mustSegment(t, s, 1)
	segs := listed(t, s)
	id := segs[0].ID
	ship(t, s)
	assert.NoError(t, s.Shipped(Batch{ID: id}), "shipped again")
	wantGone(t, s, now.Add(59*time.Minute))
	if s.Stats().KeptBytes == 0 {
		t.Error("nothing kept")
	}
	for range 2 { // until it is confirmed
		wantGone(t, s, now.Add(time.Hour), nextID(id))
	}
	// The owner crashes; the next one continues at the same point.
	abandon(t, s)
	next := mustOpen(t, o)
	gone := wantGone(t, next, now, nextID(id))
	assert.NoError(t, next.Confirmed(append(gone, Gone{Folder: "../../etc", Below: "../../etc-0000000001"})))
	next.Reported(next.Report(nil))
	wantGone(t, next, now)
	if _, err := os.Stat(filepath.Join(o.Dir, folderOf(id), goneName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty folder not removed: %v", err)
	}
}

// Keep 0 is what SPOOL_KEEP=0s sets, and not a default.
func TestKeepNothing(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	now := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	o.Keep, o.Now = 0, func() time.Time { return now }
	s := mustOpen(t, o)
	mustSegment(t, s, 1)
	ship(t, s)
	wantGone(t, s, now, segmentID(filepath.Base(onlyFolder(t, o.Dir)), 1))
	if n := s.Stats().KeptBytes; n != 0 {
		t.Errorf("%d bytes are kept", n)
	}
}

// wantGone removes segments that are due. It checks up to which id each folder is
// reported to be empty.
func wantGone(t *testing.T, s *Spool, now time.Time, below ...string) []Gone {
	t.Helper()
	gone, err := s.RemoveExpired(now)
	assert.NoError(t, err)
	var want []Gone
	for _, id := range below {
		want = append(want, Gone{Folder: folderOf(id), Below: id})
	}
	if !slices.Equal(gone, want) {
		t.Errorf("gone: %v, want %v", gone, want)
	}
	return gone
}

// A segment leaves the line once, however many callers report at once that it is
// shipped.
func TestShippedAtOnce(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, testOptions(t))
	for i := range 50 {
		mustSegment(t, s, i)
		segs := wantListed(t, s, 1)
		kept := s.Stats().KeptBytes
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				assert.NoError(t, s.Shipped(Batch{ID: segs[0].ID}))
			})
		}
		wg.Wait()
		if st := s.Stats(); st.Segments != 0 || st.Bytes != 0 || st.KeptBytes != kept+segs[0].Bytes {
			t.Fatalf("stats %+v", st)
		}
	}
}

func TestReship(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, testOptions(t))
	mustSegment(t, s, 1, 2)
	ship(t, s)
	if n, _, err := s.Reship(time.Now()); n != 1 || err != nil {
		t.Fatalf("reshipped %d, %v", n, err)
	}
	wantMarkers(t, ship(t, s), 1, 2)
	if st := s.Stats(); st.Segments != 0 || st.Bytes != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestUnknownSegments(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, testOptions(t))
	for _, id := range []string{"", "x", "../lock", segmentID(newFolderID(), 1)} {
		if _, err := s.Read(Segment{ID: id}); err == nil {
			t.Errorf("read %q: no error", id)
		}
		if err := s.Shipped(Batch{ID: id}); err == nil {
			t.Errorf("shipped %q: no error", id)
		}
	}
}

// stuckDisk is a disk whose writes hang while hang is set.
type stuckDisk struct {
	hang    atomic.Bool
	release chan struct{}
}

func (d *stuckDisk) disk() disk {
	real := realDisk()
	writeAt := real.writeAt
	real.writeAt = func(f *os.File, b []byte, off int64) (int, error) {
		if d.hang.Load() {
			<-d.release
		}
		return writeAt(f, b, off)
	}
	return real
}

func TestHangingDisk(t *testing.T) {
	t.Parallel()
	hung := &stuckDisk{release: make(chan struct{})}
	o := testOptions(t)
	o.Metrics = NewMetrics(nil)
	s := mustOpenWith(t, o, hung.disk(), usualPatience)
	eventually(t, "appends", func() bool { return s.Append(click(1)) == nil })
	eventually(t, "no click of a slow start is unwritten", func() bool { return testutil.ToFloat64(o.Metrics.unwritten) == 0 })
	before := testutil.ToFloat64(o.Metrics.dropped[DropStuck])
	hung.hang.Store(true)
	var wg sync.WaitGroup
	held := make([]time.Duration, 21)
	appendOne := func(i, marker int) {
		began := time.Now()
		if got := reasonOf(t, s.Append(click(marker))); got != DropStuck {
			t.Errorf("dropped as %q", got)
		}
		held[i] = time.Since(began)
	}
	for i := range 20 {
		wg.Go(func() { appendOne(i, 100+i) })
	}
	wg.Wait() // nobody waits for the disk, which still hangs
	appendOne(20, 200)
	promise.Kept(t, "a redirect is held while the disk hangs", 50*time.Millisecond, 500*time.Millisecond, slices.Max(held))
	if got := testutil.ToFloat64(o.Metrics.unwritten); got != 21 {
		t.Errorf("%v clicks are unwritten, want 21", got)
	}
	hung.hang.Store(false)
	close(hung.release)
	eventually(t, "appends again", func() bool { return s.Append(click(300)) == nil })
	mustSeal(t, s)
	seen := make(map[int]int)
	for _, m := range ship(t, s) {
		seen[m]++
	}
	// The clicks that were given up were written when the disk worked again.
	for i := range 20 {
		if seen[100+i] != 1 {
			t.Errorf("click %d shipped %d times", 100+i, seen[100+i])
		}
	}
	if seen[200] != 1 || seen[300] == 0 || seen[1] == 0 {
		t.Errorf("shipped %v", seen)
	}
	if got := testutil.ToFloat64(o.Metrics.late); got < 21 {
		t.Errorf("late metric %v, want 21", got)
	}
	// None was lost, and none is reported as lost.
	if got := testutil.ToFloat64(o.Metrics.dropped[DropStuck]) - before; got != 0 {
		t.Errorf("dropped metric %v, want 0", got)
	}
	if got := testutil.ToFloat64(o.Metrics.unwritten); got != 0 {
		t.Errorf("%v clicks are unwritten", got)
	}
}

// failing makes calls of a disk fail while err is set.
type failing struct{ err atomic.Pointer[error] }

func (f *failing) set(err error) {
	if err == nil {
		f.err.Store(nil)
		return
	}
	f.err.Store(&err)
}

func (f *failing) get() error {
	if err := f.err.Load(); err != nil {
		return *err
	}
	return nil
}

// renames makes those renames fail while err is set that match.
func (f *failing) renames(d *disk, match func(from, to string) bool) {
	d.rename = func(from, to string) error {
		if err := f.get(); err != nil && match(from, to) {
			return err
		}
		return os.Rename(from, to)
	}
}

// A write that fails in its middle harms neither earlier records nor later ones.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want string
	}{
		{syscall.ENOSPC, DropDiskFull},
		{syscall.EDQUOT, DropDiskFull},
		{syscall.EROFS, DropUnwritable},
		{syscall.EIO, DropIOError},
	} {
		t.Run(tt.want+" "+tt.err.Error(), func(t *testing.T) {
			t.Parallel()
			var trouble failing
			d := realDisk()
			d.writeAt = func(f *os.File, b []byte, off int64) (int, error) {
				if err := trouble.get(); err != nil {
					n, _ := f.WriteAt(b[:len(b)/2], off)
					return n, &fs.PathError{Op: "write", Path: f.Name(), Err: err}
				}
				return f.WriteAt(b, off)
			}
			s := mustOpenOn(t, testOptions(t), d)
			mustAppend(t, s, 1, 2)
			trouble.set(tt.err)
			for range 3 {
				if got := reasonOf(t, s.Append(click(100))); got != tt.want {
					t.Errorf("dropped as %q, want %q", got, tt.want)
				}
			}
			trouble.set(nil)
			eventually(t, "appends again", func() bool { return s.Append(click(3)) == nil })
			mustSeal(t, s)
			got := ship(t, s)
			wantMarkers(t, got, 1, 2, 3)
			if n := testutil.ToFloat64(s.opt.Metrics.damaged[damageChecksum]); n != 0 {
				t.Errorf("%v damaged records", n)
			}
		})
	}
}

// After a failed fsync the file is given up; no second fsync of it acknowledges
// anything.
func TestSyncFails(t *testing.T) {
	t.Parallel()
	var trouble failing
	var mu sync.Mutex
	synced := make(map[string][]error)
	d := realDisk()
	d.sync = func(f *os.File) error {
		err := trouble.get()
		mu.Lock()
		defer mu.Unlock()
		synced[f.Name()] = append(synced[f.Name()], err)
		return err
	}
	o := testOptions(t)
	o.Durability = Disk
	s := mustOpenOn(t, o, d)
	mustAppend(t, s, 1)
	trouble.set(syscall.EIO)
	if got := reasonOf(t, s.Append(click(2))); got != DropIOError {
		t.Errorf("dropped as %q", got)
	}
	trouble.set(nil)
	eventually(t, "appends again", func() bool { return s.Append(click(3)) == nil })
	mu.Lock()
	defer mu.Unlock()
	failed := 0
	for name, errs := range synced {
		for i, err := range errs {
			if err != nil && i != len(errs)-1 {
				t.Errorf("%s was synced again after a failure", name)
			}
			if err != nil {
				failed++
			}
		}
	}
	if failed != 1 || len(synced) != 2 {
		t.Errorf("%d failures in %d files", failed, len(synced))
	}
}

// Some file systems notice only at the fsync that they are full. Then the file is given
// up, and kept segments are removed to make room, as in other cases.
func TestSyncFindsTheDiskFull(t *testing.T) {
	t.Parallel()
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		var trouble failing
		var failed sync.Map // names of files
		d := realDisk()
		d.sync = func(f *os.File) error {
			if _, again := failed.Load(f.Name()); again {
				t.Errorf("%s was synced again after a failure", f.Name())
			}
			err := trouble.get()
			if err != nil {
				failed.Store(f.Name(), true)
			}
			return err
		}
		o := testOptions(t)
		o.Durability = Disk
		s := mustOpenOn(t, o, d)
		mustSegment(t, s, 1)
		wantMarkers(t, ship(t, s), 1)
		if s.Stats().KeptBytes == 0 {
			t.Fatal("nothing is kept")
		}
		trouble.set(full)
		if got := reasonOf(t, s.Append(click(2))); got != DropDiskFull {
			t.Errorf("dropped as %q", got)
		}
		eventually(t, "kept segments give way", func() bool { return s.Stats().KeptBytes == 0 })
		trouble.set(nil)
		eventually(t, "appends again", func() bool { return s.Append(click(3)) == nil })
		mustSeal(t, s)
		wantMarkers(t, ship(t, s), 3)
	}
}

// A spool whose folder cannot be made starts all the same. It drops clicks, and works
// once the folder can be made.
func TestOpenWithoutFolder(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	blocker := filepath.Join(o.Dir, "spool")
	require.NoError(t, os.WriteFile(blocker, nil, 0o600))
	o.Dir = filepath.Join(blocker, "below")
	s := mustOpen(t, o)
	if got := reasonOf(t, s.Append(click(1))); got != DropUnwritable {
		t.Errorf("dropped as %q", got)
	}
	require.NoError(t, os.Remove(blocker))
	eventually(t, "appends", func() bool { return s.Append(click(2)) == nil })
}

// No files can be made, but the open one can still be used.
func TestCreateFails(t *testing.T) {
	t.Parallel()
	var trouble failing
	d := realDisk()
	create := d.create
	d.create = func(path string) (*os.File, error) {
		if err := trouble.get(); err != nil {
			return nil, err
		}
		return create(path)
	}
	o := testOptions(t)
	o.SegmentBytes = 4 << 10
	s := mustOpenOn(t, o, d)
	trouble.set(syscall.ENOSPC)
	for i := range 1000 {
		mustAppend(t, s, i)
	}
	mustSeal(t, s) // gives up the last file
	eventually(t, "drops", func() bool {
		err := s.Append(click(5000))
		return err != nil && reasonOf(t, err) == DropDiskFull
	})
	trouble.set(nil)
	eventually(t, "appends again", func() bool { return s.Append(click(1000)) == nil })
	mustSeal(t, s)
	if got := ship(t, s); len(got) != 1001 {
		t.Errorf("%d clicks shipped, want 1001", len(got))
	}
}

// A rename that fails is tried again; the segment is neither lost nor there twice.
func TestSealFails(t *testing.T) {
	t.Parallel()
	var trouble failing
	d := realDisk()
	trouble.renames(&d, func(string, string) bool { return true })
	s := mustOpenOn(t, testOptions(t), d)
	mustAppend(t, s, 1)
	trouble.set(syscall.EROFS)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.SealNow(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("seal: %v", err)
	}
	mustAppend(t, s, 2)
	trouble.set(nil)
	mustSeal(t, s)
	eventually(t, "both segments are there", func() bool { return s.Stats().Segments == 2 })
	wantMarkers(t, ship(t, s), 1, 2)
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	dead, alive := mustOpen(t, o), mustOpen(t, o)
	mustSegment(t, dead, 1)
	mustAppend(t, dead, 2) // not sealed
	mustSegment(t, alive, 3)
	abandon(t, dead)
	heir := mustOpen(t, o)
	if st := heir.Stats(); st.Segments != 2 || st.Bytes == 0 || !st.Oldest.Equal(click(1).At) {
		t.Errorf("stats %+v", st)
	}
	wantMarkers(t, ship(t, heir), 1, 2)
	wantMarkers(t, ship(t, alive), 3)
	if n, err := heir.Adopt(); n != 0 || err != nil {
		t.Errorf("adopted %d again, %v", n, err)
	}
}

// Foreign files are left as they are, and damage costs no whole record.
func TestAdoptDamaged(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.Metrics = NewMetrics(nil)
	s := mustOpen(t, o)
	mustSegment(t, s, 1, 2, 3)
	mustSegment(t, s, 4)
	segs := listed(t, s)
	folder := filepath.Join(o.Dir, folderOf(segs[0].ID))
	flip(t, filepath.Join(folder, segs[0].ID+suffixSealed), recordHead+2) // the first record
	flip(t, filepath.Join(folder, segs[1].ID+suffixSealed), 0)            // the only record
	for _, name := range []string{"notes.txt", segmentID(newFolderID(), 1) + suffixSealed, ".open"} {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte("foreign"), 0o600))
	}
	abandon(t, s)
	heir := mustOpen(t, o)
	wantMarkers(t, ship(t, heir), 2, 3)
	if got := testutil.ToFloat64(o.Metrics.quarantined); got != 1 {
		t.Errorf("%v segments quarantined", got)
	}
	if got := testutil.ToFloat64(o.Metrics.damaged[damageChecksum]) + testutil.ToFloat64(o.Metrics.damaged[damageGarbage]); got != 2 {
		t.Errorf("%v damaged records", got)
	}
	left, err := filepath.Glob(filepath.Join(folder, "*"))
	require.NoError(t, err)
	if all := strings.Join(left, " "); !strings.Contains(all, "notes.txt") || !strings.Contains(all, segs[1].ID+suffixBad) {
		t.Errorf("left: %v", left)
	}
}

// A quarantined segment may hold addresses of clients, so it is kept for only 30 days.
func TestDamagedClicksAreForgotten(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	s := mustOpen(t, o)
	mustSegment(t, s, 1)
	segs := listed(t, s)
	folder := filepath.Join(o.Dir, folderOf(segs[0].ID))
	flip(t, filepath.Join(folder, segs[0].ID+suffixSealed), 0)
	abandon(t, s)
	now := newClock()
	o.Now = now.now
	old := now.now().AddDate(0, -2, 0) // it was there for long before it was read
	require.NoError(t, os.Chtimes(filepath.Join(folder, segs[0].ID+suffixSealed), old, old))
	heir := mustOpen(t, o)
	wantMarkers(t, ship(t, heir))
	heir.Reported(heir.Report(nil))
	bad := filepath.Join(folder, segs[0].ID+suffixBad)
	// An operator who wants all shipped segments removed has not looked at quarantined
	// ones.
	if _, err := heir.RemoveExpired(now.now().AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bad); err != nil {
		t.Error(err)
	}
	for _, test := range []struct {
		after time.Duration
		left  bool
	}{{29 * 24 * time.Hour, true}, {24*time.Hour + quarantineLook, false}} {
		now.advance(test.after)
		if _, err := heir.RemoveExpired(now.now()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(bad); errors.Is(err, fs.ErrNotExist) == test.left {
			t.Errorf("%s later: %v", test.after, err)
		}
	}
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the empty folder is still there: %v", err)
	}
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	b[at] ^= 0x40
	require.NoError(t, os.WriteFile(path, b, 0o600))
}

func TestOpenForShipping(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	dead := mustOpen(t, o)
	mustAppend(t, dead, 1, 2)
	if _, err := OpenForShipping(o.Dir, Options{Log: o.Log}); err == nil {
		t.Error("took a folder that has an owner")
	}
	abandon(t, dead)
	s, err := OpenForShipping(onlyFolder(t, o.Dir), Options{Log: o.Log})
	require.NoError(t, err)
	if got := reasonOf(t, s.Append(click(3))); got != DropClosed {
		t.Errorf("append dropped as %q", got)
	}
	wantMarkers(t, ship(t, s), 1, 2)
	require.NoError(t, s.Close())
	s, err = OpenForShipping(o.Dir, Options{Log: o.Log}) // the folder of folders
	require.NoError(t, err)
	if n, _, err := s.Reship(time.Now()); n != 1 || err != nil {
		t.Errorf("reshipped %d, %v", n, err)
	}
	wantMarkers(t, ship(t, s), 1, 2)
	require.NoError(t, s.Close())
	if _, err := OpenForShipping(t.TempDir(), Options{Log: o.Log}); err == nil {
		t.Error("opened a folder without folders")
	}
}

// Somebody deletes the folder below a running spool.
func TestFolderRemovedInUse(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	s := mustOpen(t, o)
	mustAppend(t, s, 1)
	folder := onlyFolder(t, o.Dir)
	eventually(t, "the folder is removed", func() bool { // the sealer may be making a file in it at this moment
		return os.RemoveAll(folder) == nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_ = s.SealNow(ctx) // it succeeds now or later
	mustSegment(t, s, 2)
	eventually(t, "both segments are there", func() bool { return s.Stats().Segments == 2 })
	if got := ship(t, s); len(got) != 2 || got[0]+got[1] != 3 {
		t.Errorf("shipped %v, want 1 and 2", got)
	}
}

// Close leaves no goroutine and no descriptor of the lock behind.
func TestCloseStopsEverything(t *testing.T) {
	t.Parallel()
	for _, mode := range []Durability{Process, Disk} {
		o := testOptions(t)
		o.Durability = mode
		s := mustOpen(t, o)
		appendMany(t, s, 8, 10)
		assert.NoError(t, s.Close())
		assert.NoError(t, s.Close(), "closed again")
		for _, name := range []string{"writeGroups", "sealSegments", "watchGroups", "reportDrops"} {
			// Each of them has its *Spool as receiver. It may still be in its last
			// steps.
			eventually(t, name+" is gone", func() bool {
				return !strings.Contains(goroutineStacks(), fmt.Sprintf("(*Spool).%s(%p", name, s))
			})
		}
	}
}

func goroutineStacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// This does everything at once, for the race detector.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.SegmentAge, o.SegmentBytes, o.Keep = time.Millisecond, 4<<10, time.Millisecond
	s := mustOpen(t, o)
	const callers, each = 8, 200
	appended := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		defer close(appended)
		appendMany(t, s, callers, each)
	})
	others.Go(func() {
		for {
			select {
			case <-appended:
				return
			default:
			}
			s.Stats()
			_, adopted := s.Adopt()
			gone, removed := s.RemoveExpired(time.Now())
			assert.NoError(t, errors.Join(adopted, removed, s.Confirmed(gone), s.SealNow(t.Context())))
		}
	})
	var shipped []int
	for more := true; more; {
		select {
		case <-appended:
			more = false
		case <-s.Sealed():
		}
		shipped = append(shipped, ship(t, s)...)
	}
	others.Wait()
	mustSeal(t, s)
	shipped = append(shipped, ship(t, s)...)
	seen := make(map[int]bool)
	for _, m := range shipped {
		seen[m] = true
	}
	if len(shipped) != callers*each || len(seen) != callers*each {
		t.Errorf("%d clicks shipped, %d different, want %d", len(shipped), len(seen), callers*each)
	}
}

// If the disk hangs, Close gives up, and the folder stays locked: no other owner may
// have the folder while the write hangs.
func TestCloseOnHangingDisk(t *testing.T) {
	t.Parallel()
	hung := &stuckDisk{release: make(chan struct{})}
	o := testOptions(t)
	o.Metrics = NewMetrics(nil)
	s, err := open(o, hung.disk(), patience{strikes: 5, idle: 125, close: 10 * time.Millisecond})
	require.NoError(t, err)
	eventually(t, "appends", func() bool { return s.Append(click(1)) == nil })
	hung.hang.Store(true)
	if got := reasonOf(t, s.Append(click(2))); got != DropStuck {
		t.Errorf("dropped as %q", got)
	}
	if s.Close() == nil {
		t.Error("closed while the disk hangs")
	}
	// Nobody is left who could see whether it has been written.
	if got := testutil.ToFloat64(o.Metrics.dropped[DropStuck]); got < 1 || testutil.ToFloat64(o.Metrics.unwritten) != 0 {
		t.Errorf("%v clicks are dropped, %v unwritten", got, testutil.ToFloat64(o.Metrics.unwritten))
	}
	other := mustOpen(t, o)
	if st := other.Stats(); st.Segments != 0 {
		t.Errorf("%d segments taken from a folder in use", st.Segments)
	}
	close(hung.release)
	seen := make(map[int]int)
	eventually(t, "the folder is adopted", func() bool {
		n, err := other.Adopt()
		return n > 0 && err == nil
	})
	for _, m := range ship(t, other) {
		seen[m]++
	}
	if seen[1] == 0 || seen[2] != 1 {
		t.Errorf("shipped %v", seen)
	}
}

// If a process dies between the last write and the rename that seals a file, the next
// process ships the clicks, under the id that was meant for them.
func TestCrashDuringSeal(t *testing.T) {
	t.Parallel()
	var trouble failing
	var meant atomic.Pointer[string]
	d := realDisk()
	d.rename = func(from, to string) error {
		meant.Store(&to)
		if err := trouble.get(); err != nil {
			return err
		}
		return os.Rename(from, to)
	}
	o := testOptions(t)
	s := mustOpenOn(t, o, d)
	mustAppend(t, s, 1, 2)
	trouble.set(syscall.EIO)
	require.NoError(t, s.Close())
	heir := mustOpen(t, o)
	segs, err := heir.Segments("")
	if err != nil || len(segs) != 1 {
		t.Fatalf("segments %v, %v", segs, err)
	}
	if want := filepath.Base(*meant.Load()); segs[0].ID+suffixSealed != want {
		t.Errorf("sealed as %s, meant as %s", segs[0].ID, want)
	}
	wantMarkers(t, ship(t, heir), 1, 2)
}

// Folders of processes that died while making them do not accumulate.
func TestHalfMadeFolders(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	half := filepath.Join(o.Dir, newFolderID())
	require.NoError(t, os.Mkdir(half, 0o700))
	foreign := filepath.Join(o.Dir, "lost+found")
	require.NoError(t, os.Mkdir(foreign, 0o700))
	s := mustOpen(t, o)
	assert.True(t, realDisk().exists(half), "nobody was told yet that nothing is in it")
	s.Reported(s.Report(nil))
	if realDisk().exists(half) {
		t.Error("a half-made folder stays")
	}
	if left, err := os.ReadDir(foreign); err != nil || len(left) != 0 {
		t.Errorf("a foreign folder was touched: %v, %v", left, err)
	}
}

// More segments than one listing returns are shipped all the same.
func TestManySegments(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	dead := mustOpen(t, o)
	folder := onlyFolder(t, o.Dir)
	id := filepath.Base(folder)
	abandon(t, dead)
	const n = 3 * maxListed
	want := make([]int, n)
	for i := range n {
		seg := segmentID(id, 1000+i)
		want[i] = i
		require.NoError(t, os.WriteFile(filepath.Join(folder, seg+suffixSealed), encodeRecords(seg, []Click{*click(i)}), 0o600))
	}
	s := mustOpen(t, o)
	if segs, err := s.Segments(""); err != nil || len(segs) != maxListed {
		t.Fatalf("%d segments listed, %v", len(segs), err)
	}
	wantMarkers(t, ship(t, s), want...)
	gone := wantGone(t, s, time.Now().Add(2*time.Hour), segmentID(id, 1000+n))
	if s.Stats().KeptBytes != 0 {
		t.Errorf("%d bytes kept", s.Stats().KeptBytes)
	}
	if left, err := os.ReadDir(filepath.Join(folder, goneName)); err != nil || len(left) != 1 {
		t.Errorf("%d traces of removed segments are left, want the last one's (%v)", len(left), err)
	}
	require.NoError(t, s.Confirmed(gone))
	s.Reported(s.Report(nil))
	wantGone(t, s, time.Now())
	if realDisk().exists(folder) {
		t.Error("the empty folder is left")
	}
}

// The watchdog sleeps when nothing is appended, and wakes in time.
func TestWatchdogSleeps(t *testing.T) {
	t.Parallel()
	hung := &stuckDisk{release: make(chan struct{})}
	s := mustOpenWith(t, testOptions(t), hung.disk(), patience{strikes: 5, idle: 1, close: time.Minute})
	for range 3 {
		eventually(t, "appends", func() bool { return s.Append(click(1)) == nil })
		eventually(t, "the watchdog sleeps", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return !s.watching
		})
	}
	hung.hang.Store(true)
	if got := reasonOf(t, s.Append(click(2))); got != DropStuck {
		t.Errorf("dropped as %q", got)
	}
	hung.hang.Store(false)
	close(hung.release)
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	o := testOptions(t)
	o.Metrics = NewMetrics(registry)
	s := mustOpen(t, o)
	mustSegment(t, s, 1)
	values := make(map[string]float64)
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			values[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, positive := range map[string]bool{
		"signpost_clicks_appended_total":          true,
		"signpost_clicks_dropped_total":           false,
		"signpost_clicks_late_total":              false,
		"signpost_clicks_unwritten":               false,
		"signpost_spool_records_damaged_total":    false,
		"signpost_spool_bytes":                    true,
		"signpost_spool_kept_bytes":               false,
		"signpost_spool_segments":                 true,
		"signpost_spool_segments_sealed_total":    true,
		"signpost_spool_segments_set_aside_total": false,
		"signpost_spool_oldest_unshipped_seconds": true,
	} {
		if got, ok := values[name]; !ok || got > 0 != positive {
			t.Errorf("%s is %v, there: %t", name, got, ok)
		}
	}
	ship(t, s)
	if got := o.Metrics.stats().age(); got != 0 {
		t.Errorf("oldest unshipped %v s with nothing to ship", got)
	}
	if o.Metrics.stats().KeptBytes == 0 {
		t.Error("nothing kept")
	}
	mustAppend(t, s, 2)
	assert.Positive(t, o.Metrics.stats().Bytes, "a click counts before its segment is sealed")
}

// A folder is empty only up to the first segment that is left in it, whether that is in
// line, kept, or not sealed yet.
func TestGoneBelowWhatIsLeft(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	now := newClock()
	o.Now = now.now
	s := mustOpen(t, o)
	for i := range 5 {
		mustSegment(t, s, i)
	}
	segs := wantListed(t, s, 5)
	shipped := func(i int) {
		t.Helper()
		require.NoError(t, s.Shipped(Batch{ID: segs[i].ID}))
	}
	shipped(0)
	shipped(2)
	shipped(4)
	now.advance(time.Hour)
	shipped(3)
	wantGone(t, s, now.now(), segs[1].ID) // in line; 3 is kept
	shipped(1)
	wantGone(t, s, now.now(), segs[1].ID) // kept
	now.advance(time.Hour)
	gone := wantGone(t, s, now.now(), nextID(segs[4].ID))
	require.NoError(t, s.Confirmed(gone))
	wantGone(t, s, now.now())
	mustSegment(t, s, 5)
	ship(t, s)
	now.advance(time.Hour)
	wantGone(t, s, now.now(), nextID(nextID(segs[4].ID)))
}

// A file that cannot be sealed is left. This holds even if a listing does not show it,
// which may happen to a file that is being renamed.
func TestGoneBelowUnsealed(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.Keep = 0
	var trouble failing
	d := realDisk()
	trouble.renames(&d, func(from, to string) bool {
		return strings.HasSuffix(from, suffixOpen) && strings.Contains(from, segmentID("", 0))
	})
	d.readDir = func(path string, visit func(fs.DirEntry)) error {
		return eachFile(path, func(e fs.DirEntry) {
			if !strings.HasSuffix(e.Name(), suffixOpen) {
				visit(e)
			}
		})
	}
	s := mustOpenOn(t, o, d)
	trouble.set(syscall.EIO)
	mustAppend(t, s, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_ = s.SealNow(ctx)
	mustSegment(t, s, 1)
	wantMarkers(t, ship(t, s), 1)
	folder := filepath.Base(onlyFolder(t, o.Dir))
	wantGone(t, s, time.Now(), segmentID(folder, 0))
	trouble.set(nil)
	eventually(t, "the first is sealed", func() bool { return s.Stats().Segments == 1 })
	wantMarkers(t, ship(t, s), 0)
	wantGone(t, s, time.Now(), segmentID(folder, 2))
}

// A click that the disk did not take in time is lost if the disk then refuses it, or if
// more clicks wait than there is room for. It then counts as dropped, once.
func TestUnwrittenIsLost(t *testing.T) {
	t.Parallel()
	hung := &stuckDisk{release: make(chan struct{})}
	d := hung.disk()
	writeAt := d.writeAt
	var trouble failing
	d.writeAt = func(f *os.File, b []byte, off int64) (int, error) {
		n, err := writeAt(f, b, off)
		if failed := trouble.get(); failed != nil {
			return 0, failed
		}
		return n, err
	}
	o := testOptions(t)
	o.Metrics = NewMetrics(nil)
	s := mustOpenWith(t, o, d, usualPatience)
	eventually(t, "appends", func() bool { return s.Append(click(1)) == nil })
	eventually(t, "no click of a slow start is unwritten", func() bool { return testutil.ToFloat64(o.Metrics.unwritten) == 0 })
	dropped := func(reason string) float64 { return testutil.ToFloat64(o.Metrics.dropped[reason]) }
	hung.hang.Store(true)
	stuck := func(n int) {
		for i := range n {
			if got := reasonOf(t, s.Append(click(i))); got != DropStuck {
				t.Fatalf("dropped as %q", got)
			}
		}
	}
	appended := testutil.ToFloat64(o.Metrics.appended)
	before := dropped(DropStuck)
	n := 2
	stuck(n)
	for ; dropped(DropStuck) == before; n++ { // until there is no more room
		stuck(1)
	}
	waiting := testutil.ToFloat64(o.Metrics.unwritten)
	if waiting != float64(n-1) || dropped(DropStuck) != before+1 {
		t.Errorf("of %d clicks %v are unwritten, %v dropped", n, waiting, dropped(DropStuck)-before)
	}
	trouble.set(syscall.EIO)
	hung.hang.Store(false)
	close(hung.release)
	eventually(t, "all is known", func() bool { return testutil.ToFloat64(o.Metrics.unwritten) == 0 })
	if got := dropped(DropIOError); got != waiting {
		t.Errorf("%v clicks are dropped for the disk, want %v", got, waiting)
	}
	if got := testutil.ToFloat64(o.Metrics.appended); got != appended || testutil.ToFloat64(o.Metrics.late) != 0 {
		t.Errorf("%v clicks are kept, want %v; %v late", got, appended, testutil.ToFloat64(o.Metrics.late))
	}
	trouble.set(nil)
	eventually(t, "appends again", func() bool { return s.Append(click(3)) == nil })
}
