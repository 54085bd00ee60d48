package clicks

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
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
			o.Dir = filepath.Join(parent, "spool")
			s := mustOpen(t, o)
			mustSegment(t, s, 1)
			mustAppend(t, s, 2) // in the file that is open
			folder := onlyFolder(t, o.Dir)
			from, to := o.Dir, filepath.Join(parent, "elsewhere")
			if what == "the folder" {
				from = folder
			}
			require.NoError(t, os.Rename(from, to))
			eventually(t, "a new folder is used", func() bool {
				own := s.store.own.Load()
				return own != nil && own.dir() != folder
			})
			mustSegment(t, s, 3)
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
			// Segments that are removed there are confirmed like any others.
			if gone, err := s.RemoveExpired(time.Now().Add(2 * time.Hour)); err != nil || len(gone) != 2 {
				t.Errorf("gone: %v, %v", gone, err)
			}
		})
	}
}

// An adopted folder may be moved as well.
func TestAdoptedFolderMoved(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	folder := leaveSegments(t, o.Dir, 3)
	s := mustOpen(t, o)
	require.NoError(t, os.Rename(folder, filepath.Join(o.Dir, "elsewhere")))
	if _, err := s.Adopt(); err != nil {
		t.Fatal(err)
	}
	wantMarkers(t, ship(t, s), 0, 1, 2)
}

// Folders may be moved where this process cannot follow, its own and one that it
// adopted. They are not taken for empty ones, new clicks go on, and theirs are shipped
// once the folders are back.
func TestFoldersMovedOutOfReach(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	adopted := leaveSegments(t, o.Dir, 1)
	d := realDisk()
	d.pathOf = func(*os.File) (string, error) { return "", errors.ErrUnsupported }
	s := mustOpenOn(t, o, d)
	mustSegment(t, s, 1)
	mustAppend(t, s, 2)
	own, away := onlyOwn(t, s), t.TempDir()
	move := func(from, to string) {
		t.Helper()
		require.NoError(t, os.Rename(from, to))
	}
	move(own, filepath.Join(away, "own"))
	move(adopted, filepath.Join(away, "adopted"))
	eventually(t, "the loss is noticed", func() bool { next := s.store.own.Load(); return next != nil && next.dir() != own })
	mustSegment(t, s, 3)
	eventually(t, "the new click is in line", func() bool { segs, err := s.Segments(""); return err == nil && len(segs) == 1 })
	wantMarkers(t, ship(t, s), 3)
	if _, err := s.Adopt(); err != nil {
		t.Error(err)
	}
	wantGone(t, s, time.Now())
	if st := s.Stats(); st.Segments != 2 || st.Bytes == 0 {
		t.Errorf("with three clicks out of reach: %+v", st)
	}
	outOfReach := func(want float64) func() bool {
		return func() bool { return testutil.ToFloat64(s.opt.Metrics.outOfReach) == want }
	}
	eventually(t, "two folders are out of reach", outOfReach(2))
	move(filepath.Join(away, "own"), own)
	move(filepath.Join(away, "adopted"), adopted)
	eventually(t, "they are back", func() bool { return s.Stats().Segments == 3 })
	if _, err := s.Adopt(); err != nil { // looks at adopted folders, from time to time
		t.Error(err)
	}
	eventually(t, "no folder is out of reach", outOfReach(0))
	got := ship(t, s)
	slices.Sort(got)
	wantMarkers(t, got, 0, 1, 2)
	if st := s.Stats(); !st.Oldest.IsZero() || st.Segments != 0 || st.Bytes != 0 {
		t.Errorf("stats %+v", st)
	}
}
