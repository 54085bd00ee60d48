package clicks

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/files"
)

const (
	here  = "0b0c7a52-3a6e-4a0e-9d0f-3f6f4a3c2d11"
	there = "9d0f3f6f-4a3c-4d11-8b0c-7a523a6e4a0e"
)

func nameOf(t *testing.T, folder string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, lockName))
	require.NoError(t, err)
	return string(text)
}

// leftBy leaves a folder with these clicks, one in each segment, which belongs to an
// installation.
func leftBy(t *testing.T, dir, installation string, markers ...int) (folder string) {
	t.Helper()
	o := testOptions(t)
	s := mustOpen(t, o)
	s.ShipTo(installation)
	for _, m := range markers {
		mustSegment(t, s, m)
	}
	require.NoError(t, s.Close())
	made := onlyFolder(t, o.Dir)
	folder = filepath.Join(dir, filepath.Base(made))
	require.NoError(t, os.Rename(made, folder))
	return folder
}

// A spool that holds folders of another installation keeps and ships its own clicks. It
// only reads the name of the other folders and does not change them.
func TestForeignFolderIsHeld(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.Metrics = NewMetrics(nil)
	old := leaveSegments(t, o.Dir, 1) // of a release that did not name the installation
	foreign := leftBy(t, o.Dir, there, 100, 101)
	s := mustOpen(t, o) // it may not know yet to which installation it ships
	mustSegment(t, s, 1)
	if segs, err := s.Segments(""); err != nil || len(segs) != 4 {
		t.Fatalf("%d segments before the installation is known, %v", len(segs), err)
	}
	s.ShipTo(here)
	got := ship(t, s)
	slices.Sort(got)
	wantMarkers(t, got, 0, 1)
	wantHeld := func(segments float64, folders ...string) {
		t.Helper()
		slices.Sort(folders)
		if got := testutil.ToFloat64(o.Metrics.foreign); got != segments || !slices.Equal(s.Foreign(), folders) {
			t.Errorf("%v segments are held, in %v", got, s.Foreign())
		}
	}
	wantHeld(2, foreign)
	if st := s.Stats(); st.Segments != 0 || st.Bytes != 0 || !st.Oldest.IsZero() {
		t.Errorf("what is held counts: %+v", st)
	}
	if name := nameOf(t, old); name != here+"\n" {
		t.Errorf("the old folder is named %q", name)
	}
	for range 2 {
		if n, err := s.Adopt(); n != 0 || err != nil {
			t.Errorf("adopted %d, %v", n, err)
		}
		wantHeld(2, foreign)
	}
	if _, err := s.RemoveExpired(time.Now().Add(2 * time.Hour)); err != nil {
		t.Error(err)
	}
	if names, err := filepath.Glob(filepath.Join(foreign, "*"+suffixSealed)); err != nil || len(names) != 2 {
		t.Errorf("left in the foreign folder: %v, %v", names, err)
	}

	// A spool that ships to the other installation finds the folder unchanged.
	if _, err := OpenForShipping(foreign, Options{Log: o.Log, Installation: here}); !errors.As(err, new(*ForeignError)) {
		t.Errorf("opened to ship here: %v", err)
	}
	if got := shipFolder(t, foreign, Options{Log: o.Log, Installation: there}); !slices.Equal(got, []int{100, 101}) {
		t.Errorf("shipped %v there", got)
	}
	another := leftBy(t, o.Dir, there, 102)
	if _, err := s.Adopt(); err != nil {
		t.Fatal(err)
	}
	wantHeld(1, foreign, another) // the kept segments of the first are left
	// An operator may decide to count it here all the same.
	if got := shipFolder(t, another, Options{Log: o.Log, Installation: here, AdoptForeign: true}); !slices.Equal(got, []int{102}) {
		t.Errorf("shipped %v here", got)
	}
	if name := nameOf(t, another); name != here+"\n" {
		t.Errorf("then it is named %q", name)
	}
	// The operator may also drop it.
	third := leftBy(t, o.Dir, there, 103, 104, 105)
	if n, err := DropFolder(third); n != 3 || err != nil || realDisk().exists(third) {
		t.Errorf("dropped %d segments, %v", n, err)
	}
	if _, err := DropFolder(o.Dir); err == nil {
		t.Error("dropped all folders at once")
	}
	if n, err := DropFolder(onlyOwn(t, s)); n != 0 || !errors.Is(err, files.ErrLocked) {
		t.Errorf("dropped %d segments of a living process, %v", n, err)
	}
	if _, err := s.Adopt(); err != nil {
		t.Fatal(err)
	}
	wantHeld(0, foreign)
}

func onlyOwn(t *testing.T, s *Spool) string {
	t.Helper()
	own := s.store.own.Load()
	if own == nil {
		t.Fatal("no folder of its own")
	}
	return own.dir()
}

func shipFolder(t *testing.T, dir string, o Options) []int {
	t.Helper()
	o.Keep = time.Hour
	s, err := OpenForShipping(dir, o)
	require.NoError(t, err)
	defer func() {
		assert.NoError(t, s.Close())
	}()
	return ship(t, s)
}

// The database of another installation replaces the one to which a running process
// ships, and is replaced by it again.
func TestAnotherInstallationBelowARunningSpool(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.Metrics = NewMetrics(nil)
	s := mustOpen(t, o)
	s.ShipTo(here)
	mustSegment(t, s, 1)
	mustAppend(t, s, 2) // not sealed
	first := onlyOwn(t, s)
	s.ShipTo(there)
	eventually(t, "the first folder is let go", func() bool { return slices.Equal(s.Foreign(), []string{first}) })
	mustSegment(t, s, 3)
	wantMarkers(t, ship(t, s), 3)
	if n := testutil.ToFloat64(o.Metrics.foreign); n != 2 {
		t.Errorf("%v segments are held, want 2", n)
	}
	if st := s.Stats(); st.Segments != 0 || st.Bytes != 0 {
		t.Errorf("what is held counts: %+v", st)
	}
	if name := nameOf(t, onlyOwn(t, s)); name != there+"\n" {
		t.Errorf("the new folder is named %q", name)
	}
	s.ShipTo(here)
	eventually(t, "the first folder is adopted", func() bool { _, err := s.Adopt(); return err == nil && s.Stats().Segments == 2 })
	wantMarkers(t, ship(t, s), 1, 2)
}

// A process that starts while Postgres is away serves cached links. Its clicks belong
// to the installation of these links, even if the process dies before it can ask
// Postgres and the next process ships to another one.
func TestSupposedInstallation(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.Supposed = here
	s := mustOpen(t, o)
	mustAppend(t, s, 1)
	if name := nameOf(t, onlyOwn(t, s)); name != here+"\n" {
		t.Errorf("the folder is named %q", name)
	}
	abandon(t, s)
	heir := mustOpen(t, o)
	heir.ShipTo(there)
	wantMarkers(t, ship(t, heir))
	if len(heir.Foreign()) != 1 {
		t.Errorf("held: %v", heir.Foreign())
	}
	if got := heir.Installation(); got != there {
		t.Errorf("ships to %s", got)
	}
	next := mustOpen(t, o)
	next.ShipTo(here)
	if _, err := next.Adopt(); err != nil {
		t.Fatal(err)
	}
	wantMarkers(t, ship(t, next), 1)
}

// If nothing can be written on a disk, sealed segments are shipped all the same: their
// folder gets the name of its installation as soon as that is possible.
func TestFolderCannotBeNamed(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	var trouble failing
	d := realDisk()
	writeAt := d.writeAt
	d.writeAt = func(f *os.File, b []byte, off int64) (int, error) {
		if err := trouble.get(); err != nil && filepath.Base(f.Name()) == lockName {
			return 0, &fs.PathError{Op: "write", Path: f.Name(), Err: err}
		}
		return writeAt(f, b, off)
	}
	s := mustOpenOn(t, o, d)
	mustSegment(t, s, 1)
	trouble.set(syscall.ENOSPC)
	s.ShipTo(here)
	wantMarkers(t, ship(t, s), 1)
	trouble.set(nil)
	if _, err := s.Adopt(); err != nil {
		t.Fatal(err)
	}
	if name := nameOf(t, onlyOwn(t, s)); name != here+"\n" {
		t.Errorf("the folder is named %q", name)
	}
	// An incomplete name does not count.
	folder := leaveSegments(t, o.Dir, 1)
	require.NoError(t, os.WriteFile(filepath.Join(folder, lockName), []byte(there[:20]), 0o600))
	if n, err := s.Adopt(); n != 1 || err != nil {
		t.Errorf("adopted %d, %v", n, err)
	}
	if name := nameOf(t, folder); name != here+"\n" {
		t.Errorf("the folder is named %q", name)
	}
}

// A segment that was listed for one installation is not read for another, because the
// two may have changed places in between.
func TestListedForAnotherInstallation(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	d := realDisk()
	var held atomic.Bool
	rename, release := d.rename, make(chan struct{})
	d.rename = func(from, to string) error {
		if held.Load() && filepath.Ext(from) == suffixOpen {
			<-release
		}
		return rename(from, to)
	}
	s := mustOpenOn(t, o, d)
	s.ShipTo(here)
	mustSegment(t, s, 1)
	segs := wantListed(t, s, 1)
	held.Store(true)
	mustAppend(t, s, 2) // makes the spool keep the folder for now
	s.ShipTo(there)
	if batch, err := s.Read(segs[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read a batch of %d clicks, %v", batch.Clicks, err)
	}
	close(release)
	eventually(t, "the folder is let go", func() bool { return len(s.Foreign()) == 1 })
}
