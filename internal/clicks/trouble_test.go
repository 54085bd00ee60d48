package clicks

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// leaveSegments makes the folder of a dead process with n sealed segments, one click in
// each, and returns its path. Click i is in segment i.
func leaveSegments(t *testing.T, dir string, n int) (folder string) {
	t.Helper()
	id := newFolderID()
	folder = filepath.Join(dir, id)
	require.NoError(t, os.Mkdir(folder, 0o700))
	for i := range n {
		seg := segmentID(id, i)
		require.NoError(t, os.WriteFile(filepath.Join(folder, seg+suffixSealed), encodeRecords(seg, []Click{*click(i)}), 0o600))
	}
	return folder
}

// shipWhatGoes goes through the line once, as a shipper does, and returns the clicks of
// the segments that could be read.
func shipWhatGoes(t *testing.T, s *Spool) (markers []int) {
	t.Helper()
	for after := ""; ; {
		segs, _ := s.Segments(after)
		if len(segs) == 0 {
			return markers
		}
		for _, seg := range segs {
			after = seg.ID
			b, got, err := readClicks(t, s, seg)
			if err != nil {
				continue
			}
			for _, c := range got {
				markers = append(markers, int(c.URLID))
			}
			if err := s.Shipped(b); err != nil {
				s.PassOver(b.ID)
			}
		}
	}
}

// clock is a clock that tests move.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.at.Store(time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time           { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(by time.Duration) { c.at.Add(int64(by)) }
func numbers(from, to int) (numbers []int) {
	for i := from; i < to; i++ {
		numbers = append(numbers, i)
	}
	return numbers
}

// A folder that cannot be listed does not keep back the others. Once it can be listed
// again, it is shipped too.
func TestUnlistableFolder(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	broken := leaveSegments(t, o.Dir, 3)
	var trouble failing
	d := realDisk()
	d.readDir = func(path string, visit func(fs.DirEntry)) error {
		if err := trouble.get(); err != nil && strings.HasPrefix(path, broken) {
			return &fs.PathError{Op: "readdirent", Path: path, Err: err}
		}
		return eachFile(path, visit)
	}
	s := mustOpenOn(t, o, d)
	trouble.set(syscall.EIO)
	mustSegment(t, s, 10, 11)
	segs, err := s.Segments("")
	if len(segs) != 1 || !errors.Is(err, syscall.EIO) {
		t.Errorf("listed %v, %v", segs, err)
	}
	wantMarkers(t, shipWhatGoes(t, s), 10, 11)
	ids, err := s.RemoveExpired(time.Now().Add(2 * time.Hour))
	if len(ids) != 1 || !errors.Is(err, syscall.EIO) {
		t.Errorf("removed %v, %v", ids, err)
	}
	trouble.set(nil)
	wantMarkers(t, shipWhatGoes(t, s), 0, 1, 2)
}

// On a full disk, a rename may find no room until some bytes are freed.
func TestRemovalOnFullDisk(t *testing.T) {
	t.Parallel()
	d := realDisk()
	var full atomic.Bool
	d.rename = func(from, to string) error {
		if full.Load() && filepath.Base(filepath.Dir(to)) == goneName && realDisk().size(from) > 0 {
			return syscall.ENOSPC
		}
		return os.Rename(from, to)
	}
	o := testOptions(t)
	s := mustOpenOn(t, o, d)
	for i := range 3 {
		mustSegment(t, s, i)
	}
	ship(t, s)
	full.Store(true)
	wantGone(t, s, time.Now().Add(2*time.Hour), segmentID(filepath.Base(onlyFolder(t, o.Dir)), 3))
	if st := s.Stats(); st.KeptBytes != 0 {
		t.Errorf("stats %+v", st)
	}
}

// If the bytes of a segment are gone and its name could not be moved, the segment is
// neither shipped again nor reported as removed. The next try completes the removal.
func TestHalfRemoved(t *testing.T) {
	t.Parallel()
	d := realDisk()
	var trouble failing
	trouble.renames(&d, func(string, string) bool { return true })
	o := testOptions(t)
	now := newClock()
	o.Now = now.now
	s := mustOpenOn(t, o, d)
	mustSegment(t, s, 1)
	ship(t, s)
	now.advance(2 * time.Hour)
	trouble.set(syscall.ENOSPC)
	if ids, err := s.RemoveExpired(now.now()); len(ids) != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("removed %v, %v", ids, err)
	}
	if kept := s.Stats().KeptBytes; kept != 0 {
		t.Errorf("%d bytes are not given back", kept)
	}
	trouble.set(nil)
	if put, waiting, err := s.Reship(now.now()); put+waiting != 0 || err != nil {
		t.Errorf("put back %d and %d, %v", put, waiting, err)
	}
	wantGone(t, s, now.now(), segmentID(filepath.Base(onlyFolder(t, o.Dir)), 1))
}

// A shipped segment that the disk does not allow to be moved stays in line. It is
// shipped again from time to time, which the ledger makes harmless. It keeps no segment
// behind it waiting, and leaves the line once it can be moved.
func TestShippedCannotBeMoved(t *testing.T) {
	t.Parallel()
	d := realDisk()
	var trouble failing
	trouble.renames(&d, func(from, to string) bool { return filepath.Base(filepath.Dir(to)) == keptName })
	o := testOptions(t)
	const n = maxListed + 10
	folder := leaveSegments(t, o.Dir, n)
	now := newClock()
	o.Now = now.now
	s := mustOpenOn(t, o, d)
	trouble.set(syscall.EROFS)
	for range 2 {
		wantMarkers(t, shipWhatGoes(t, s), numbers(0, n)...)
		wantMarkers(t, shipWhatGoes(t, s)) // not again at once
		now.advance(pauseMost)
	}
	if st := s.Stats(); st.Segments != n || st.KeptBytes != 0 {
		t.Errorf("stats %+v", st)
	}
	trouble.set(nil)
	wantMarkers(t, shipWhatGoes(t, s), numbers(0, n)...)
	if st := s.Stats(); st.Segments != 0 || st.Bytes != 0 || st.KeptBytes == 0 || !st.Oldest.IsZero() {
		t.Errorf("stats %+v", st)
	}
	now.advance(2 * time.Hour)
	gone := wantGone(t, s, now.now(), segmentID(filepath.Base(folder), n))
	require.NoError(t, s.Confirmed(gone))
}

// unreadable is a disk on which some segments cannot be read.
type unreadable struct {
	lost atomic.Pointer[func(path string, off int64) bool]
	err  error
}

func (u *unreadable) disk() disk {
	d := realDisk()
	d.readAt = func(f *os.File, b []byte, off int64) (int, error) {
		if lost := u.lost.Load(); lost != nil {
			for i := 0; i < len(b); i += 4 << 10 { // each read begins at a block
				if (*lost)(f.Name(), off+int64(i)) {
					n, _ := f.ReadAt(b[:i], off)
					return n, &fs.PathError{Op: "read", Path: f.Name(), Err: u.err}
				}
			}
		}
		return f.ReadAt(b, off)
	}
	return d
}

// If segments at the head of the line cannot be read, the ones behind them are shipped,
// however many there are, even more than are remembered. The unreadable ones are tried
// again from time to time, and shipped once they can be read.
func TestUnreadableKeepNobodyBack(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	now := newClock()
	o.Now, o.Metrics = now.now, NewMetrics(nil)
	const bad, good, most = 3*maxListed + 100, 20, 2 * maxListed
	folder := leaveSegments(t, o.Dir, bad+good)
	firstGood := segmentID(filepath.Base(folder), bad)
	u := &unreadable{err: syscall.EACCES} // an error that says nothing about the file
	tries := 0
	lost := func(path string, _ int64) bool {
		if filepath.Base(path) < firstGood {
			tries++
			return true
		}
		return false
	}
	u.lost.Store(&lost)
	s := mustOpenOn(t, o, u.disk())
	s.store.pauses.most = most // nothing has failed yet
	wantMarkers(t, shipWhatGoes(t, s), numbers(bad, bad+good)...)
	if got := testutil.ToFloat64(o.Metrics.held); got != most {
		t.Errorf("%v segments remembered, want %d", got, most)
	}
	tries = 0
	shipWhatGoes(t, s)
	if tries > bad-most+8 { // the rest are those looked at for the age of the backlog
		t.Errorf("%d reads of segments that are passed over", tries)
	}
	now.advance(2 * time.Hour) // they are never quarantined for this
	shipWhatGoes(t, s)
	if got := testutil.ToFloat64(o.Metrics.quarantined); got != 0 {
		t.Errorf("%v segments quarantined", got)
	}
	u.lost.Store(nil)
	now.advance(pauseMost)
	got := shipWhatGoes(t, s)
	slices.Sort(got)
	wantMarkers(t, got, numbers(0, bad)...)
	if left := testutil.ToFloat64(o.Metrics.held); left != 0 || s.Stats().Segments != 0 {
		t.Errorf("%v segments remembered, stats %+v", left, s.Stats())
	}
}

// A file of a dead process that cannot be sealed does not keep back its other files.
func TestAdoptUnsealable(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	folder := leaveSegments(t, o.Dir, 2)
	open := segmentID(filepath.Base(folder), 7)
	require.NoError(t, os.WriteFile(filepath.Join(folder, open+suffixOpen), encodeRecords(open, []Click{*click(7)}), 0o600))
	var trouble failing
	d := realDisk()
	trouble.renames(&d, func(from, to string) bool { return strings.Contains(from, open) })
	trouble.set(syscall.EIO)
	s := mustOpenOn(t, o, d)
	wantMarkers(t, shipWhatGoes(t, s), 0, 1)
	if _, err := s.Adopt(); !errors.Is(err, syscall.EIO) {
		t.Errorf("adopted again: %v", err)
	}
	trouble.set(nil)
	if n, err := s.Adopt(); n != 1 || err != nil {
		t.Errorf("adopted %d more, %v", n, err)
	}
	wantMarkers(t, shipWhatGoes(t, s), 7)
	if st := s.Stats(); st.Segments != 0 || st.Bytes != 0 {
		t.Errorf("stats %+v", st)
	}
}

// If a power cut took the end of a segment, only the record at the cut is lost.
func TestTruncatedSegment(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.Metrics = NewMetrics(nil)
	s := mustOpen(t, o)
	mustSegment(t, s, 1, 2, 3)
	segs := wantListed(t, s, 1)
	path := filepath.Join(o.Dir, folderOf(segs[0].ID), segs[0].ID+suffixSealed)
	require.NoError(t, os.Truncate(path, segs[0].Bytes-1))
	abandon(t, s)
	wantMarkers(t, ship(t, mustOpen(t, o)), 1, 2)
	if got := testutil.ToFloat64(o.Metrics.damaged[damageTruncated]); got != 1 {
		t.Errorf("%v truncated records", got)
	}
}

// Segments that are put back in line leave room for new clicks; the rest follows later.
func TestReshipLeavesRoom(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	now := newClock()
	o.Now, o.MaxBytes = now.now, 640 // a segment takes 29
	s := mustOpen(t, o)
	const n = 20
	for i := range n {
		mustSegment(t, s, i)
	}
	wantMarkers(t, ship(t, s), numbers(0, n)...)
	now.advance(time.Second)
	before := now.now()
	var all []int
	for calls := 1; ; calls++ {
		put, waiting, err := s.Reship(before)
		if err != nil || put > 480/28 || calls > 5 {
			t.Fatalf("call %d put back %d, %d wait, %v", calls, put, waiting, err)
		}
		now.advance(time.Second)
		all = append(all, ship(t, s)...)
		if waiting == 0 {
			break
		}
	}
	slices.Sort(all)
	wantMarkers(t, all, numbers(0, n)...)
	if put, waiting, err := s.Reship(before); put+waiting != 0 || err != nil {
		t.Errorf("put back %d and %d again, %v", put, waiting, err)
	}
	if got, want := testutil.ToFloat64(s.opt.Metrics.reshipped), float64(n); got != want {
		t.Errorf("reshipped metric %v, want %v", got, want)
	}
}
