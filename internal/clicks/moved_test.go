package clicks

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Somebody moves SPOOL_DIR, or the folder in it, below a running spool. The spool
// continues in a new folder. It notices the move by itself within about a second, and
// ships the segments in the old folder from their new place.
func TestFolderMovedInUse(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"the spool", "the folder"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			o := testOptions(t)
			parent := o.Dir
			o.Dir, o.Metrics = filepath.Join(parent, "spool"), NewMetrics(nil)
			s := mustOpen(t, o)
			mustAppend(t, s, 1)
			mustSeal(t, s)
			mustAppend(t, s, 2) // in the file that is open
			folder := onlyFolder(t, o.Dir)
			from, to := o.Dir, filepath.Join(parent, "elsewhere")
			if what == "the folder" {
				from = folder
			}
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a new folder is used", func() bool {
				own := s.store.own.Load()
				return own != nil && own.dir() != folder
			})
			mustAppend(t, s, 3)
			mustSeal(t, s)
			eventually(t, "all segments are there", func() bool { return s.Stats().Segments == 3 && s.store.quitting.Load() == 0 })
			if st := s.Stats(); !st.Oldest.Equal(click(1).At) {
				t.Errorf("the oldest click is of %v", st.Oldest)
			}
			got := ship(t, s)
			slices.Sort(got)
			wantMarkers(t, got, 1, 2, 3)
			if st := s.Stats(); st.Segments != 0 || !st.Oldest.IsZero() {
				t.Errorf("stats %+v", st)
			}
			if n := testutil.ToFloat64(o.Metrics.outOfReach); n != 0 {
				t.Errorf("%v folders out of reach", n)
			}
			// Segments that are removed there are confirmed like any others.
			if gone, err := s.RemoveExpired(time.Now().Add(2 * time.Hour)); err != nil || len(gone) != 2 {
				t.Errorf("gone: %v, %v", gone, err)
			}
		})
	}
}

// If a folder was moved where this process cannot follow, that is reported until the
// folder is back. The age of the backlog does not look as if all were shipped.
func TestFolderMovedOutOfReach(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.Metrics = NewMetrics(nil)
	d := realDisk()
	var blind atomic.Bool
	blind.Store(true)
	pathOf := d.pathOf
	d.pathOf = func(f *os.File) (string, error) {
		if blind.Load() {
			return "", errors.ErrUnsupported
		}
		return pathOf(f)
	}
	s := mustOpenOn(t, o, d)
	mustAppend(t, s, 1)
	mustSeal(t, s)
	mustAppend(t, s, 2)
	folder := onlyFolder(t, o.Dir)
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(folder, away); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loss is noticed", func() bool { return testutil.ToFloat64(o.Metrics.outOfReach) == 1 })
	eventually(t, "appends", func() bool { return s.Append(click(3)) == nil })
	mustSeal(t, s)
	eventually(t, "the new click is in line", func() bool { segs, err := s.Segments(""); return err == nil && len(segs) == 1 })
	wantMarkers(t, ship(t, s), 3)
	if st := s.Stats(); !st.Oldest.Equal(click(1).At) || st.Segments != 1 || st.Bytes == 0 {
		t.Errorf("with two clicks out of reach: %+v", st)
	}
	if age := o.Metrics.oldestSeconds(); age == 0 {
		t.Error("the gauge of the backlog's age says 0")
	}
	if err := os.Rename(away, folder); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is back", func() bool { return testutil.ToFloat64(o.Metrics.outOfReach) == 0 && s.Stats().Segments == 2 })
	got := ship(t, s)
	slices.Sort(got)
	wantMarkers(t, got, 1, 2)
	if st := s.Stats(); !st.Oldest.IsZero() || st.Segments != 0 || st.Bytes != 0 {
		t.Errorf("stats %+v", st)
	}
}

// An adopted folder may be moved as well.
func TestAdoptedFolderMoved(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	folder := leaveSegments(t, o.Dir, 3)
	s := mustOpen(t, o)
	if err := os.Rename(folder, filepath.Join(o.Dir, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Adopt(); err != nil {
		t.Fatal(err)
	}
	wantMarkers(t, ship(t, s), 0, 1, 2)
}

// An adopted folder that cannot be reached is not taken for an empty one.
func TestAdoptedFolderOutOfReach(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.Metrics = NewMetrics(nil)
	folder := leaveSegments(t, o.Dir, 2)
	d := realDisk()
	d.pathOf = func(*os.File) (string, error) { return "", errors.ErrUnsupported }
	s := mustOpenOn(t, o, d)
	before := s.Stats()
	if before.Segments != 2 {
		t.Fatalf("stats %+v", before)
	}
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(folder, away); err != nil {
		t.Fatal(err)
	}
	tidy := func() {
		t.Helper()
		if _, err := s.Adopt(); err != nil {
			t.Error(err)
		}
		if gone, err := s.RemoveExpired(time.Now()); err != nil || len(gone) != 0 {
			t.Errorf("gone: %v, %v", gone, err)
		}
	}
	for range 2 {
		tidy()
		if n := testutil.ToFloat64(o.Metrics.outOfReach); n != 1 {
			t.Errorf("%v folders out of reach", n)
		}
	}
	if err := os.Rename(away, folder); err != nil {
		t.Fatal(err)
	}
	tidy()
	if n := testutil.ToFloat64(o.Metrics.outOfReach); n != 0 {
		t.Errorf("%v folders out of reach", n)
	}
	if st := s.Stats(); st.Segments != before.Segments || st.Bytes != before.Bytes {
		t.Errorf("with the folder back: %+v, want %+v", st, before)
	}
	wantMarkers(t, ship(t, s), 0, 1)
}
