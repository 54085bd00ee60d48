package pgserver_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgserver"
	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

// start starts a cluster in dir and stops it at the end of the test.
func start(t *testing.T, o pgserver.Options) *pgserver.Cluster {
	t.Helper()
	c, err := pgserver.Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { stop(t, c) })
	return c
}

func stop(t *testing.T, c *pgserver.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	assert.NoError(t, c.Stop(ctx))
}

func put(t *testing.T, c *pgserver.Cluster) {
	t.Helper()
	if _, err := pgtest.Open(t, c.URL("postgres")).Exec(t.Context(), "CREATE TABLE kept (); CHECKPOINT"); err != nil {
		t.Fatal(err)
	}
}

func checkKept(t *testing.T, c *pgserver.Cluster) {
	t.Helper()
	if got := scanText(t, pgtest.Open(t, c.URL("postgres")), "SELECT coalesce(to_regclass('kept')::text, 'lost')"); got != "kept" {
		t.Error("the data is gone")
	}
}

func TestClusterKeepsItsData(t *testing.T) {
	t.Parallel()
	o := pgserver.Options{Dir: pgtest.Dir(t), Durable: true}
	c := start(t, o)
	for name, want := range map[string]string{
		"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "listen_addresses": "", "server_encoding": "UTF8", "lc_collate": "C.UTF-8",
	} {
		// From version 16 on, lc_collate is not a setting any more.
		sql := "SELECT coalesce(current_setting($1, true), (SELECT datcollate FROM pg_database WHERE datname = current_database()))"
		if got := scanText(t, pgtest.Open(t, c.URL("postgres")), sql, name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	put(t, c)
	before := c.URL("x")
	stop(t, c)
	stop(t, c) // a second call does no harm
	require.NoError(t, c.Start(t.Context()))
	if c.URL("x") != before {
		t.Error("the address changed")
	}
	checkKept(t, c)
	stop(t, c)
	checkKept(t, start(t, o))
}

// One server after another runs in one folder, because it takes long to make a
// database.
func TestCluster(t *testing.T) {
	t.Parallel()
	o := pgserver.Options{Dir: pgtest.Dir(t)}
	// If a kill comes while the database is made, this part of it is left.
	require.NoError(t, os.MkdirAll(filepath.Join(o.Dir, "data.new", "base"), 0o755))
	write(t, filepath.Join(o.Dir, "data.new", "PG_VERSION"), "15\n")
	c := start(t, o)
	put(t, c)

	if _, err := pgserver.Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another process is using it") {
		t.Errorf("a second start: %v", err)
	}
	if err := c.Start(t.Context()); err == nil {
		t.Error("a start of what runs was no error")
	}
	if err := pgserver.Remove(t.Context(), o.Dir); err == nil {
		t.Error("a running cluster was removed")
	}
	checkKept(t, c)
	checkCreateDatabase(t, c)
	checkRecovery(t, c, filepath.Join(o.Dir, "data"))

	require.NoError(t, c.Pause())
	stop(t, c) // stops a server that stands still
	startAgain(t, c)
	stopWithoutPatience(t, c)
	startAgain(t, c)

	done := c.Done()
	select {
	case <-done:
		t.Fatal("done while it runs")
	default:
	}
	c.Kill()
	<-done
	for what, try := range map[string]func() error{"pause": c.Pause, "resume": c.Resume} {
		if try() == nil {
			t.Errorf("%s of a dead server was no error", what)
		}
	}
	startAgain(t, c)
	stop(t, c)
	checkStartFailure(t, c, o.Dir)
}

func startAgain(t *testing.T, c *pgserver.Cluster) {
	t.Helper()
	require.NoError(t, c.Start(t.Context()))
	checkKept(t, c)
}

func checkCreateDatabase(t *testing.T, c *pgserver.Cluster) {
	t.Helper()
	errs := make(chan error, 3)
	for range 3 {
		go func() { errs <- c.CreateDatabase(t.Context(), `odd "name"`) }()
	}
	for range 3 {
		assert.NoError(t, <-errs)
	}
	if got := scanText(t, pgtest.Open(t, c.URL(`odd "name"`)), "SELECT current_database()"); got != `odd "name"` {
		t.Errorf("database = %s", got)
	}
}

func stopWithoutPatience(t *testing.T, c *pgserver.Cluster) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Stop(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("stop: %v", err)
	}
	select {
	case <-c.Done():
	default:
		t.Fatal("the server still runs")
	}
}

// checkRecovery checks that the next start works after a kill, whatever the kill can
// leave in the folder.
func checkRecovery(t *testing.T, c *pgserver.Cluster, data string) {
	t.Helper()
	pidFile := filepath.Join(data, "postmaster.pid")
	for name, spoil := range map[string]func(){
		"crash":          func() {},
		"empty pid file": func() { write(t, pidFile, "") },
		"pid file that names a stranger": func() {
			content, err := os.ReadFile(pidFile)
			require.NoError(t, err)
			_, rest, _ := strings.Cut(string(content), "\n")
			write(t, pidFile, strconv.Itoa(os.Getpid())+"\n"+rest)
		},
	} {
		c.Kill()
		spoil()
		require.NoErrorf(t, c.Start(t.Context()), "%s", name)
		checkKept(t, c)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}

func checkStartFailure(t *testing.T, c *pgserver.Cluster, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "data", "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString("no_such_setting = on\n")
	require.NoError(t, errors.Join(err, f.Close()))
	if err := c.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("error = %v; want one with the server's own words", err)
	}
	// The failed start keeps no lock.
	assert.NoError(t, pgserver.Remove(t.Context(), dir))
}

// TestStandby checks that a standby follows its primary, takes no writes until it is
// promoted, and lacks the data that did not reach it while it stood still.
func TestStandby(t *testing.T) {
	t.Parallel()
	primary := start(t, pgserver.Options{Dir: pgtest.Dir(t), Durable: true})
	do := func(c *pgserver.Cluster, sql string) (n int, err error) {
		conn, err := pgx.Connect(t.Context(), c.URL("postgres"))
		if err != nil {
			return 0, err
		}
		defer conn.Close(context.Background()) //nolint:errcheck // done with it
		err = conn.QueryRow(t.Context(), sql).Scan(&n)
		return n, err
	}
	const insert = "INSERT INTO numbers SELECT n FROM generate_series(1, 50000) n RETURNING 1"
	if _, err := do(primary, "CREATE TABLE numbers (n int)"); !errors.Is(err, pgx.ErrNoRows) {
		t.Fatal(err)
	}
	standby := start(t, pgserver.Options{Dir: pgtest.Dir(t), Durable: true, Primary: primary})
	if _, err := do(primary, insert); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
		n, err := do(standby, "SELECT count(*) FROM numbers")
		if err == nil && n == 50000 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the standby has %d rows, %v", n, err)
		}
	}
	if _, err := do(standby, insert); postgres.Code(err) != "25006" {
		t.Errorf("a standby takes writes: %v", err)
	}
	require.NoError(t, standby.Pause())
	for range 5 { // more than the socket between them holds
		if _, err := do(primary, insert); err != nil {
			t.Fatal(err)
		}
	}
	primary.Kill()
	require.NoError(t, standby.Resume())
	require.NoError(t, standby.Promote(t.Context()))
	if n, err := do(standby, "SELECT count(*) FROM numbers"); err != nil || n < 50000 || n >= 300000 {
		t.Errorf("the promoted standby has %d rows of 300000, %v", n, err)
	}
	if _, err := do(standby, insert); err != nil {
		t.Errorf("the promoted standby takes no writes: %v", err)
	}
}

func TestDataOfAnotherVersionIsLeftAlone(t *testing.T) {
	t.Parallel()
	dir := pgtest.Dir(t)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "data"), 0o755))
	write(t, filepath.Join(dir, "data", "PG_VERSION"), "9999\n")
	_, err := pgserver.Start(t.Context(), pgserver.Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "made by PostgreSQL 9999") {
		t.Errorf("error = %v; want one that names the version", err)
	}
}

func TestLongPathsGetAShortSocket(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(pgtest.Dir(t), strings.Repeat("long", 30))
	require.NoError(t, os.MkdirAll(filepath.Dir(dir), 0o755))
	c := start(t, pgserver.Options{Dir: dir})
	put(t, c)
	u, err := url.Parse(c.URL("postgres"))
	require.NoError(t, err)
	socket := u.Query().Get("host")
	if strings.HasPrefix(socket, dir) {
		t.Fatalf("the socket is in %s", socket)
	}
	stop(t, c)
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of the socket is left: %v", err)
	}
	require.NoError(t, c.Start(t.Context()))
	checkKept(t, c)
}

// If we are root, the server runs as another user, who cannot enter this folder. If we
// are an ordinary user, there is no such problem, and the data stays in it.
func TestFolderThatIsClosedToOthers(t *testing.T) {
	t.Parallel()
	closed := t.TempDir()
	require.NoError(t, os.Chmod(closed, 0o700))
	o := pgserver.Options{Dir: filepath.Join(closed, "postgres")}
	t.Cleanup(func() {
		assert.NoError(t, pgserver.Remove(context.Background(), o.Dir))
	})
	c := start(t, o)
	put(t, c)
	home := o.Dir
	if os.Geteuid() == 0 {
		content, err := os.ReadFile(filepath.Join(o.Dir, "location"))
		require.NoError(t, err)
		home = strings.TrimSpace(string(content))
	}
	if _, err := os.Stat(filepath.Join(home, "data", "PG_VERSION")); err != nil {
		t.Errorf("the data is not where it is said to be: %v", err)
	}
	stop(t, c)
	c = start(t, o)
	checkKept(t, c)
	stop(t, c)
	if os.Geteuid() != 0 {
		return
	}
	require.NoError(t, os.Rename(home, home+".away"))
	if err := c.Start(t.Context()); err == nil || !strings.Contains(err.Error(), home) {
		t.Errorf("start without the data: %v; want an error that says where it was", err)
	}
	require.NoError(t, os.Rename(home+".away", home))
}

// parentEnv makes the test binary the parent of a server; see TestHelperParent.
const parentEnv = "POSTGRES_TEST_PARENT_DIR"

// TestHelperParent is not a test by itself: another test starts it in a process. There
// it runs a server, prints its address, and waits to be killed.
func TestHelperParent(t *testing.T) {
	dir := os.Getenv(parentEnv)
	if dir == "" {
		return
	}
	c, err := pgserver.Start(t.Context(), pgserver.Options{Dir: dir, Durable: true})
	require.NoError(t, err)
	fmt.Printf("address %s\n", c.URL("postgres"))
	<-c.Done()
}

// startParent returns a process that runs a server in dir, and its address.
func startParent(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHelperParent$")
	cmd.Env = append(os.Environ(), parentEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if address, ok := strings.CutPrefix(lines.Text(), "address "); ok {
			return cmd, address
		}
	}
	t.Fatalf("the other process did not start a server: %v", cmd.Wait())
	return nil, ""
}

func serverPID(t *testing.T, dir string) int {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	require.NoError(t, err)
	first, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(first)
	require.NoError(t, err)
	return pid
}

func kill9(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait() // the error says that it was killed
}

// The parent of a server is killed. Usually the server then ends too. A server that
// stands still cannot end, so the next start on its folder, or its removal, has to find
// it and stop it.
func TestServersOfKilledParents(t *testing.T) {
	t.Parallel()
	dir := pgtest.Dir(t)
	cmd, address := startParent(t, dir)
	pool := pgtest.Open(t, address)
	pgtest.Exec(t, pool, "CREATE TABLE kept ()")
	kill9(t, cmd)
	if runtime.GOOS == "linux" { // elsewhere the next start ends the server
		eventually(t, func() bool { return pool.Ping(t.Context()) != nil })
	}

	orphan := makeOrphan(t, dir)
	c := start(t, pgserver.Options{Dir: dir})
	checkKept(t, c)
	if serverPID(t, dir) == orphan {
		t.Error("the orphan still has the folder")
	}
	stop(t, c)

	makeOrphan(t, dir)
	require.NoError(t, pgserver.Remove(t.Context(), dir))
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
	if err := pool.Ping(t.Context()); !postgres.Unavailable(err) {
		t.Errorf("the server is left: %v", err)
	}
}

// makeOrphan leaves a server in dir that has lost its parent and stands still.
func makeOrphan(t *testing.T, dir string) int {
	t.Helper()
	cmd, _ := startParent(t, dir)
	orphan := serverPID(t, dir)
	require.NoError(t, syscall.Kill(orphan, syscall.SIGSTOP))
	kill9(t, cmd)
	require.NoError(t, syscall.Kill(orphan, 0), "there is no orphan")
	return orphan
}

func scanText(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) string {
	t.Helper()
	var s string
	require.NoError(t, pool.QueryRow(t.Context(), sql, args...).Scan(&s))
	return s
}

// eventually polls until ok is true, and fails the test if that takes too long.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatal("it did not happen in time")
		}
	}
}
