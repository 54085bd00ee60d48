//go:build linux

package cli

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgserver"
	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/promise"
)

// TestReshipAfterSetBack replaces the database that a running api and worker use by an
// earlier copy of it, as a failover to a standby that lagged does. Then it makes the
// api ship again the clicks that are missing.
func TestReshipAfterSetBack(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	url := pgtest.Migrated(t, cluster)
	environ := environment(url, t.TempDir())
	s := start(t, "api", environ)
	w := start(t, "worker", environ)
	s.untilReady()
	s.makeLink()
	follow := func(n int) {
		for range n {
			s.redirect("/a")
		}
	}
	counted := func(n float64) func() bool {
		return func() bool {
			resp, _ := s.do(http.MethodGet, "/urls/1", "", nil, s.token)
			return resp.StatusCode == http.StatusOK && s.clicks(1) == n
		}
	}
	follow(10)
	s.eventually("ten clicks in the totals", counted(10))
	d := newDatabase(t, cluster, url)
	d.alone("CREATE DATABASE copy TEMPLATE " + d.name)
	follow(15)
	s.eventually("25 clicks in the totals", counted(25))

	d.alone("DROP DATABASE "+d.name, "ALTER DATABASE copy RENAME TO "+d.name)
	follow(5)
	s.eventually("only the ten and the new clicks in the totals", counted(15))
	reship := func(environ []string, url string, more ...string) (string, error) {
		args := append([]string{"spool", "reship", "--url", url + "/spool/reship"}, more...)
		cmd := program(t, environ, args...)
		cmd.Dir = t.TempDir() // without what "signpost dev" may have left here
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := reship(environ, s.admin, "--token", "sp_guess"); err == nil || !strings.Contains(out, "401") {
		t.Errorf("with a wrong token: %v %s", err, out)
	}
	if out, err := reship(append(environ, "ADMIN_TOKEN="), s.admin); err == nil || !strings.Contains(out, "there is no token") {
		t.Errorf("without a token: %v %s", err, out)
	}
	if out, err := reship(environ, s.admin); err != nil || !strings.HasPrefix(out, "put back ") || strings.HasPrefix(out, "put back 0") {
		t.Fatalf("reship: %v %s", err, out)
	}
	s.eventually("all clicks in the totals", counted(30))
	if out, err := reship(environ, s.admin); err == nil || !strings.Contains(out, "429") {
		t.Errorf("at once again: %v %s", err, out)
	}
	s.eventually("the spool is empty", func() bool { return s.metric("signpost_spool_segments") == 0 })
	// A worker has no spool.
	if out, err := reship(environ, w.admin); err == nil {
		t.Errorf("a worker ships again: %s", out)
	}
	s.stop()
	w.stop()
	if n := countEvents(t, url, "clicked"); n != 30 {
		t.Errorf("%d clicks in the end, want 30", n)
	}
}

// database is a database of a cluster, which the test manages from outside.
type database struct {
	t     *testing.T
	name  string
	admin *pgx.Conn
}

func newDatabase(t *testing.T, cluster *pgserver.Cluster, url string) *database {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	admin, err := pgx.Connect(t.Context(), cluster.URL("postgres"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = admin.Close(t.Context()) })
	return &database{t, pgx.Identifier{config.Database}.Sanitize(), admin}
}

// alone runs statements that need a database without connections, and then allows
// connections again.
func (d *database) alone(statements ...string) {
	d.t.Helper()
	all := append([]string{"ALTER DATABASE " + d.name + " ALLOW_CONNECTIONS false"}, statements...)
	for _, statement := range append(all, "ALTER DATABASE "+d.name+" ALLOW_CONNECTIONS true") {
		// A connection that was told to end may take a moment, and one that was just being
		// made may appear only now.
		for deadline := time.Now().Add(time.Minute); ; {
			_, err := d.admin.Exec(d.t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IS NOT NULL AND pid <> pg_backend_pid()")
			require.NoError(d.t, err)
			_, err = d.admin.Exec(d.t.Context(), statement)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				d.t.Fatalf("%s: %v", statement, err)
			}
		}
	}
}

// TestRedirectsOnABadDisk runs the real api on a file system of 1 MiB that is filled up
// by somebody else, or that is read-only. Redirects go on without delay, each click is
// in Postgres or counted as dropped, and clicks are kept again when the disk works
// again.
func TestRedirectsOnABadDisk(t *testing.T) {
	t.Parallel()
	for _, disk := range []badDisk{
		{name: "full", reason: "disk_full", spoil: func(t *testing.T, cmd *exec.Cmd, dir string) {
			t.Helper()
			fillDisk(t, fillerOf(cmd, dir))
		}, heal: func(t *testing.T, cmd *exec.Cmd, dir string) {
			t.Helper()
			require.NoError(t, os.Remove(fillerOf(cmd, dir)))
		}},
		// It is read-only from the start, because open files can still be written below
		// a read-only view.
		{name: "read-only", reason: "unwritable", before: func(dir string) string {
			return "mount --bind " + dir + " " + dir + " && mount -o remount,bind,ro " + dir
		}, spoil: func(*testing.T, *exec.Cmd, string) {}, heal: func(t *testing.T, cmd *exec.Cmd, dir string) {
			t.Helper()
			onDiskOf(t, cmd, "umount -l "+dir)
		}},
	} {
		t.Run(disk.name, func(t *testing.T) {
			t.Parallel()
			redirectsOnABadDisk(t, disk)
		})
	}
}

// badDisk is a disk that is made bad and good again below a running api.
type badDisk struct {
	name, reason string
	before       func(dir string) (script string) // runs before the api starts; nil means that nothing is to be done
	spoil, heal  func(t *testing.T, cmd *exec.Cmd, dir string)
}

// fillerOf is a file on the disk of a command from onSmallDisk. The mounts of another
// process can be reached below its root.
func fillerOf(cmd *exec.Cmd, dir string) string {
	return filepath.Join("/proc", fmt.Sprint(cmd.Process.Pid), "root", dir, "filler")
}

func redirectsOnABadDisk(t *testing.T, disk badDisk) {
	t.Helper()
	url, dir := pgtest.URL(t), t.TempDir()
	environ := environment(url, dir)
	before := "true"
	if disk.before != nil {
		before = disk.before(dir)
	}
	cmd := onSmallDisk(t, program(t, environ, "api"), dir, before)
	s := launch(t, "api", cmd)
	s.makeLink()
	metric := func(name string) int { return int(s.metric(name)) }
	answered, longest := 0, time.Duration(0)
	follow := func() {
		began := time.Now()
		s.redirect("/a")
		longest = max(longest, time.Since(began))
		answered++
	}
	for range 20 {
		follow()
	}

	disk.spoil(t, cmd, dir)
	longest = 0
	enough := metric("signpost_clicks_dropped_total") + 50
	for metric("signpost_clicks_dropped_total") < enough {
		follow()
	}
	promise.Kept(t, "a redirect is held while the disk is "+disk.name, 50*time.Millisecond, 500*time.Millisecond, longest)
	if metric(`signpost_clicks_dropped_total{reason="`+disk.reason+`"}`) == 0 {
		t.Errorf("nothing was dropped as %s", disk.reason)
	}
	disk.heal(t, cmd, dir)
	s.eventually("clicks are kept again", func() bool {
		before := metric("signpost_clicks_appended_total")
		follow()
		return metric("signpost_clicks_appended_total") > before
	})
	s.eventually("all is shipped", func() bool { return metric("signpost_spool_bytes") == 0 })
	dropped := metric("signpost_clicks_dropped_total")
	s.stop()
	if n := countEvents(t, url, "clicked"); n != answered-dropped {
		t.Errorf("%d redirects were answered, %d clicks dropped, and %d counted", answered, dropped, n)
	}
	t.Logf("%d redirects, %d dropped", answered, dropped)
}

// onDiskOf runs a shell script that sees the mounts of a command from onSmallDisk.
func onDiskOf(t *testing.T, cmd *exec.Cmd, script string) {
	t.Helper()
	args := []string{"--target", fmt.Sprint(cmd.Process.Pid), "--mount"}
	if cmd.SysProcAttr.Cloneflags&syscall.CLONE_NEWUSER != 0 {
		args = append(args, "--user", "--preserve-credentials")
	}
	if out, err := exec.Command("nsenter", append(args, "sh", "-c", script)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v %s", script, err, out)
	}
}

// onSmallDisk makes a command run in a mount namespace of its own, which ends with the
// command. In it, dir is a tmpfs of 1 MiB, on which a script runs first.
func onSmallDisk(t *testing.T, cmd *exec.Cmd, dir, before string) *exec.Cmd {
	t.Helper()
	var refused error
	for _, flags := range []uintptr{syscall.CLONE_NEWNS, syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS} {
		shell := func(script string) *exec.Cmd {
			c := exec.Command("sh", append([]string{"-c", "mount --make-rprivate / && mount -t tmpfs -o size=1m small " + dir + " && " + script}, cmd.Args...)...)
			c.Env = cmd.Env
			c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
			if flags&syscall.CLONE_NEWUSER != 0 {
				c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
				c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
			}
			return c
		}
		out, err := shell("true").CombinedOutput()
		if err == nil {
			return shell(before + ` && exec "$0" "$@"`)
		}
		refused = errors.Join(refused, fmt.Errorf("%w %s", err, out))
	}
	t.Fatalf("this test mounts a small file system for itself: run it as root with CAP_SYS_ADMIN "+
		"(docker run --cap-add SYS_ADMIN) or where user namespaces are allowed (%v)", refused)
	return nil
}

// fillDisk leaves no byte free on the file system of path.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	for block := make([]byte, 4<<10); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	require.NoError(t, f.Close())
}

// TestSpoolOfAnotherDatabase starts an api on a SPOOL_DIR that holds clicks of another
// database. The api keeps and ships its own clicks, and holds the others until an
// operator decides about them.
func TestSpoolOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	cluster, spool := pgtest.Cluster(t), t.TempDir()
	environ := func(url, dir string) []string {
		return environment(url, dir)
	}
	start := func(url string) *server {
		s := start(t, "api", environ(url, spool))
		s.untilReady()
		s.makeLink()
		return s
	}
	theirs, ours := pgtest.Migrated(t, cluster), pgtest.URL(t)
	s := start(theirs)
	s.redirect("/a")
	s.eventually("the first click is shipped", func() bool { return s.metric("signpost_clicks_shipped_total") == 1 })
	cluster.Kill()
	for range 20 {
		s.redirect("/a")
	}
	s.kill()

	s = start(ours)
	for range 3 {
		s.redirect("/a")
	}
	s.eventually("our clicks are shipped", func() bool {
		return s.metric("signpost_clicks_shipped_total") == 3 && s.metric("signpost_spool_segments") == 0
	})
	if n := s.metric("signpost_spool_foreign_segments"); n == 0 {
		t.Error("nothing is held")
	}
	s.stop()
	const shipped = "SELECT COALESCE(sum(clicks), 0) FROM click_batches"
	signpost := func(args ...string) (string, error) {
		out, err := program(t, environ(ours, t.TempDir()), args...).CombinedOutput()
		return string(out), err
	}
	copied := t.TempDir()
	require.NoError(t, os.CopyFS(copied, os.DirFS(spool)))
	out, err := signpost("spool", "ship", spool)
	if err == nil || !strings.Contains(out, "another installation") || !strings.Contains(out, "--adopt") {
		t.Errorf("ship: %v %s", err, out)
	}
	if n := ask[int](t, ours, shipped); n != 3 {
		t.Errorf("%d clicks are counted, want 3", n)
	}
	// One choice is to count them here all the same.
	if out, err := signpost("spool", "ship", "--adopt", spool); err != nil {
		t.Errorf("ship --adopt: %v %s", err, out)
	}
	if n := ask[int](t, ours, shipped); n != 23 {
		t.Errorf("%d clicks are counted, want 23", n)
	}
	// The other choice is to delete them.
	_, folder, _ := strings.Cut(out, "another installation: ")
	folder, _, _ = strings.Cut(folder, ";")
	folder = filepath.Join(copied, filepath.Base(folder))
	if out, err := signpost("spool", "drop", folder); err != nil || !strings.Contains(out, "were not shipped") {
		t.Errorf("drop: %v %s", err, out)
	}
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", folder, err)
	}
	if out, err := signpost("spool", "drop", copied); err == nil {
		t.Errorf("drop takes a folder of folders: %s", out)
	}
}
