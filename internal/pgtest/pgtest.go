// Package pgtest gives every test a PostgreSQL database of its own.
//
// A test process starts one private server when its first test asks for a database,
// migrates a template once, and clones that for each test, which takes milliseconds.
// Tests share nothing but the server, so they can run in parallel. A package that uses
// it has
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// If a test process is killed, the next one removes its remains.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/internal/files"
	"github.com/signpost/signpost/internal/pgserver"
	"github.com/signpost/signpost/internal/postgres"
)

const (
	template     = "template_signpost"
	startTimeout = 2 * time.Minute
	stopTimeout  = 20 * time.Second
)

// folder is the folder in which this process keeps its servers. Main sets main.
var folder struct {
	mu   sync.Mutex
	main bool
	path string
	lock *os.File // held for as long as the process lives, so that others leave path alone
}

// serial numbers databases and clusters within the process.
var serial atomic.Int64

// shared starts the one server of the process, and started holds it.
var (
	shared  = sync.OnceValues(startShared)
	started atomic.Pointer[pgserver.Cluster]
)

// Main runs the tests of a package, then stops the servers that they used and removes
// their files. TestMain need do nothing else.
func Main(m *testing.M) {
	folder.main = true
	m.Run() // m holds the exit code
	if err := cleanUp(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
	}
}

// URL returns the address of a new database with the schema of this release. The
// database is dropped when the test ends.
func URL(tb testing.TB) string {
	tb.Helper()
	return database(tb, "TEMPLATE "+template+" STRATEGY FILE_COPY")
}

// Empty returns the address of a new database without any schema.
func Empty(tb testing.TB) string {
	tb.Helper()
	return database(tb, "TEMPLATE template0 STRATEGY FILE_COPY")
}

// Pool returns connections to a new database with the schema of this release. When the
// test ends, they are closed and the database is dropped.
func Pool(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	return Open(tb, URL(tb))
}

// Open returns a pool for a database's address, closed when the test ends.
func Open(tb testing.TB, url string) *pgxpool.Pool {
	tb.Helper()
	pool, err := postgres.Open(tb.Context(), url, postgres.Options{Role: "test", MaxConns: 10})
	if err != nil {
		tb.Fatalf("open pool: %v", err)
	}
	tb.Cleanup(pool.Close)
	return pool
}

// Exec executes a statement. It fails the test if the statement fails.
func Exec(tb testing.TB, db interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}, sql string, args ...any,
) {
	tb.Helper()
	if _, err := db.Exec(tb.Context(), sql, args...); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

// Cluster returns a server of the test's own, which it may stop, kill, pause and start.
// The only database is postgres; Migrated makes others.
func Cluster(tb testing.TB) *pgserver.Cluster {
	tb.Helper()
	dir, err := newDir()
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()
	c, err := pgserver.Start(ctx, pgserver.Options{Dir: dir, MaxConns: 100})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if err := errors.Join(c.Stop(ctx), pgserver.Remove(ctx, dir)); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// Dir returns the path of a folder in which the test may start a server of its own. The
// folder is not made yet. At the end of the test, a server that runs there is stopped
// and the folder is removed. Unlike a folder of t.TempDir, the server's user can reach
// it.
func Dir(tb testing.TB) string {
	tb.Helper()
	dir, err := newDir()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if err := removeIfThere(ctx, dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

func removeIfThere(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return pgserver.Remove(ctx, dir)
}

// Migrated makes a database with the schema of this release in a cluster and returns
// its address. It is removed together with the cluster.
func Migrated(tb testing.TB, c *pgserver.Cluster) string {
	tb.Helper()
	name := "test_" + strconv.FormatInt(serial.Add(1), 10)
	if err := c.CreateDatabase(tb.Context(), name); err != nil {
		tb.Fatal(err)
	}
	if err := postgres.Migrate(tb.Context(), c.URL(name), slog.New(slog.DiscardHandler)); err != nil {
		tb.Fatal(err)
	}
	return c.URL(name)
}

func database(tb testing.TB, options string) string {
	tb.Helper()
	c, err := shared()
	if err != nil {
		tb.Fatal(err)
	}
	name := "test_" + strconv.FormatInt(serial.Add(1), 10)
	if err := admin(tb.Context(), c, "CREATE DATABASE "+name+" "+options); err != nil {
		tb.Fatalf("make database: %v", err)
	}
	tb.Cleanup(func() {
		// FORCE is needed because a test may leave connections open, which is allowed.
		if err := admin(context.Background(), c, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			tb.Errorf("drop database: %v", err)
		}
	})
	return c.URL(name)
}

func admin(ctx context.Context, c *pgserver.Cluster, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}

func startShared() (*pgserver.Cluster, error) {
	dir, err := newDir()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	c, err := pgserver.Start(ctx, pgserver.Options{Dir: dir, MaxConns: 300})
	if err != nil {
		return nil, err
	}
	started.Store(c)
	if err := c.CreateDatabase(ctx, template); err != nil {
		return nil, err
	}
	if err := postgres.Migrate(ctx, c.URL(template), slog.New(slog.DiscardHandler)); err != nil {
		return nil, fmt.Errorf("migrate the template: %w", err)
	}
	// From here on nobody can connect: a session in a template would keep it from being
	// cloned.
	if err := admin(ctx, c, "ALTER DATABASE "+template+" ALLOW_CONNECTIONS false"); err != nil {
		return nil, err
	}
	return c, nil
}

// newDir returns a path for a cluster of this process.
func newDir() (string, error) {
	folder.mu.Lock()
	defer folder.mu.Unlock()
	if !folder.main {
		return "", errors.New("pgtest: the package needs func TestMain(m *testing.M) { pgtest.Main(m) }")
	}
	if folder.path == "" {
		if err := makeFolder(); err != nil {
			return "", fmt.Errorf("pgtest: %w", err)
		}
	}
	return filepath.Join(folder.path, strconv.FormatInt(serial.Add(1), 10)), nil
}

// makeFolder makes the folder of this process beside those of others, and removes
// folders whose process is gone, which is known from their lock being free.
func makeFolder() error {
	root, err := makeRoot()
	if err != nil {
		return err
	}
	if err := sweep(root); err != nil {
		return err
	}
	path, err := os.MkdirTemp(root, "")
	if err != nil {
		return err
	}
	// If we are root, the server runs as another user, who has to get through this
	// folder.
	if err := os.Chmod(path, 0o711); err != nil {
		return err
	}
	folder.lock, err = files.OpenLocked(filepath.Join(path, "lock"))
	folder.path = path
	return err
}

// makeRoot makes the folder of all test processes of this user. Since its name can be
// guessed, makeRoot checks that the folder belongs to this user.
func makeRoot() (string, error) {
	root := filepath.Join(os.TempDir(), "signpost-pgtest-"+strconv.Itoa(os.Getuid()))
	if err := os.Mkdir(root, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(root)
	if err != nil {
		return "", err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(st.Uid) != os.Getuid() {
		return "", fmt.Errorf("%s belongs to somebody else", root)
	}
	return root, os.Chmod(root, 0o711)
}

// sweep removes the folders of processes that are gone. A folder of the last minute is
// left, since its process may not have locked it yet.
func sweep(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(root, entry.Name())
		info, err := entry.Info()
		if err != nil || !entry.IsDir() || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		if lock, err := files.OpenLocked(filepath.Join(path, "lock")); err == nil {
			_ = removeFolder(path) // the next process tries again
			_ = files.Unlock(lock)
		}
	}
	return nil
}

// removeFolder removes a process's folder with every cluster in it.
func removeFolder(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		if err := pgserver.Remove(ctx, filepath.Join(path, entry.Name())); err != nil {
			return err
		}
	}
	return os.RemoveAll(path)
}

// cleanUp stops the shared server and removes the folder of this process.
func cleanUp() error {
	folder.mu.Lock()
	defer folder.mu.Unlock()
	if folder.path == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var err error
	if c := started.Load(); c != nil {
		err = c.Stop(ctx)
	}
	return errors.Join(err, removeFolder(folder.path))
}
