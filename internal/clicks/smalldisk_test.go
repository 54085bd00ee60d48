//go:build linux

package clicks

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// smallDisk is the environment variable with the folder in which a child mounts a small
// file system of its own.
const smallDisk = "SIGNPOST_TEST_SMALL_DISK"

// onSmallDisk runs the calling test again in a process with a mount namespace of its
// own. Nobody else sees its mounts, and they end with it, however it ends. In that
// process it returns the folder of an empty tmpfs of 1 MiB; in the calling process it
// reports the result and returns "".
func onSmallDisk(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv(smallDisk); dir != "" {
		// Without this, the mount would appear in other namespaces.
		require.NoError(t, unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
		return dir
	}
	var refused error
	for _, flags := range []uintptr{unix.CLONE_NEWNS, unix.CLONE_NEWUSER | unix.CLONE_NEWNS} {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		child.Env = append(os.Environ(), smallDisk+"="+t.TempDir())
		child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
		if flags&unix.CLONE_NEWUSER != 0 {
			child.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
			child.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		}
		var out strings.Builder
		child.Stdout, child.Stderr = &out, &out
		if err := child.Start(); err != nil {
			refused = errors.Join(refused, err)
			continue
		}
		if err := child.Wait(); err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
			t.Errorf("on a small disk: %v", err)
		}
		t.Log("on a small disk:\n" + out.String())
		return ""
	}
	t.Fatalf("this test mounts a small file system for itself: run it as root with CAP_SYS_ADMIN "+
		"(docker run --cap-add SYS_ADMIN) or where user namespaces are allowed (%v)", refused)
	return ""
}

// tally counts the outcomes of appends.
type tally struct {
	kept    map[int]bool
	dropped map[string]int
	next    int
}

func newTally() *tally { return &tally{kept: make(map[int]bool), dropped: make(map[string]int)} }

// append tries one more click and reports whether it was kept.
func (y *tally) append(t *testing.T, s *Spool) bool {
	t.Helper()
	y.next++
	if err := s.Append(click(y.next)); err != nil {
		y.dropped[reasonOf(t, err)]++
		return false
	}
	y.kept[y.next] = true
	return true
}

// wantShipped checks that s and earlier owners of its folders have shipped every kept
// click exactly once, and no others.
func (y *tally) wantShipped(t *testing.T, markers []int) {
	t.Helper()
	seen := make(map[int]int)
	for _, m := range markers {
		if seen[m]++; seen[m] > 1 || !y.kept[m] {
			t.Errorf("click %d is shipped %d times; kept: %t", m, seen[m], y.kept[m])
		}
	}
	if len(seen) != len(y.kept) {
		t.Errorf("%d of %d clicks shipped", len(seen), len(y.kept))
	}
}

func (y *tally) wantCounted(t *testing.T, m *Metrics, reasons ...string) {
	t.Helper()
	for reason, n := range y.dropped {
		if got := testutil.ToFloat64(m.dropped[reason]); got != float64(n) || !slices.Contains(reasons, reason) {
			t.Errorf("%d clicks dropped as %q, metric %v, want reasons %v", n, reason, got, reasons)
		}
	}
	for _, reason := range reasons {
		if y.dropped[reason] == 0 {
			t.Errorf("none dropped as %q", reason)
		}
	}
}

// fill leaves no byte free on the file system of dir, and remove frees everything
// again.
func fill(t *testing.T, dir string) (remove func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	require.NoError(t, err)
	for block := make([]byte, 4<<10); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill: %v", err)
	}
	require.NoError(t, f.Close())
	return func() {
		require.NoError(t, os.Remove(path))
	}
}

// A real file system fills up below a running spool, with its own segments and with a
// file of somebody else. Appends go on, and those that find no room are counted as
// dropped. No acknowledged record is lost, and none is there twice, not even after a
// crash on the full disk. All works again when there is space.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := onSmallDisk(t)
	if dir == "" {
		return
	}
	o := testOptions(t)
	o.Dir, o.SegmentBytes, o.Metrics = dir, 64<<10, NewMetrics(nil)
	s := mustOpen(t, o)
	y := newTally()

	// Here the disk is full of clicks that are not shipped.
	for y.dropped[DropDiskFull] < 100 {
		y.append(t, s)
	}
	if len(y.kept) < 10_000 {
		t.Errorf("%d clicks fit 1 MiB", len(y.kept))
	}
	mustSeal(t, s)
	shipped := ship(t, s)
	y.wantShipped(t, shipped)

	// Segments that were shipped are removed automatically to make room.
	eventually(t, "appends once kept segments gave way", func() bool { return y.append(t, s) })

	// Here the disk is full of somebody else's data.
	eventually(t, "kept segments are gone", func() bool {
		y.append(t, s)
		return s.Stats().KeptBytes == 0
	})
	mustSeal(t, s)
	shipped = append(shipped, ship(t, s)...)
	remove := fill(t, dir)
	for last := y.dropped[DropDiskFull]; y.dropped[DropDiskFull] < last+100; {
		y.append(t, s)
	}
	// On the full disk, segments can still be shipped and removed.
	mustSeal(t, s)
	shipped = append(shipped, ship(t, s)...)
	ids, err := s.RemoveExpired(time.Now().Add(2 * time.Hour))
	if err != nil || len(ids) == 0 {
		t.Errorf("removed %v, %v", ids, err)
	}
	assert.NoError(t, s.Confirmed(ids))
	eventually(t, "appends into what that gave back", func() bool { return y.append(t, s) })

	// This is a crash on a disk that is full to the last byte.
	for last := y.dropped[DropDiskFull]; y.dropped[DropDiskFull] < last+100; {
		y.append(t, s)
	}
	abandon(t, s)
	heir := mustOpen(t, o)
	shipped = append(shipped, ship(t, heir)...)
	y.wantShipped(t, shipped)
	remove()
	eventually(t, "appends when the space is back", func() bool { return y.append(t, heir) })
	mustSeal(t, heir)
	y.wantShipped(t, append(shipped, ship(t, heir)...))
	y.wantCounted(t, o.Metrics, DropDiskFull)
	for _, reason := range damageReasons() {
		if n := testutil.ToFloat64(o.Metrics.damaged[reason]); n != 0 {
			t.Errorf("%v records damaged: %s", n, reason)
		}
	}
	t.Logf("%d clicks kept, dropped %v", len(y.kept), y.dropped)
}

// The folder of a running spool becomes read-only, and a spool starts on a read-only
// file system.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	dir := onSmallDisk(t)
	if dir == "" {
		return
	}
	o := testOptions(t)
	o.Dir, o.Metrics = dir, NewMetrics(nil)
	s, err := open(o, realDisk(), patient)
	require.NoError(t, err)
	y := newTally()
	for range 10 {
		y.append(t, s)
	}
	mustSeal(t, s)
	y.append(t, s)

	// The kernel does not make a file system read-only while a file on it is open for
	// writing. It does put a read-only view over it: files that are open can still be
	// written, and nothing can be made, renamed or removed.
	for _, flags := range []uintptr{unix.MS_BIND, unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY} {
		require.NoError(t, unix.Mount(dir, dir, "", flags, ""))
	}
	wantReadOnly(t, dir)
	for len(y.dropped) == 0 { // each try gives up the open file
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := s.SealNow(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("sealed on a read-only disk: %v", err)
		}
		cancel()
		y.append(t, s)
	}
	// A segment that was sealed before is shipped, and stays in line. It is shipped
	// once more when the disk can be written again.
	if shipped := shipWhatGoes(t, s); len(shipped) != 10 || s.Stats().Segments != 1 {
		t.Errorf("%d clicks shipped, stats %+v", len(shipped), s.Stats())
	}
	var shipped []int
	for range 10 {
		y.append(t, s)
	}
	require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH))
	eventually(t, "appends when the disk is writable", func() bool { return y.append(t, s) })
	mustSeal(t, s)
	eventually(t, "all is shipped", func() bool {
		shipped = append(shipped, ship(t, s)...)
		return len(shipped) >= len(y.kept)
	})
	y.wantShipped(t, shipped)
	y.append(t, s)
	if err := s.Close(); err != nil { // leaves a segment
		t.Fatal(err)
	}

	// Now the file system itself is read-only, while nobody uses it, and then a new
	// process starts on it.
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	wantReadOnly(t, dir)
	next := mustOpen(t, o)
	for range 10 {
		y.append(t, next)
	}
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "size=1m"))
	eventually(t, "appends when the disk is writable", func() bool { return y.append(t, next) })
	if n, err := next.Adopt(); n != 1 || err != nil {
		t.Errorf("adopted %d segments, %v", n, err)
	}
	mustSeal(t, next)
	y.wantShipped(t, append(shipped, ship(t, next)...))
	y.wantCounted(t, o.Metrics, DropUnwritable)
	t.Logf("%d clicks kept, dropped %v", len(y.kept), y.dropped)
}

func wantReadOnly(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("the disk is not read-only: %v", err)
	}
}
