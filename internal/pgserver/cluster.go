// Package pgserver runs a private PostgreSQL server as a child of this process, for
// "signpost dev" and for tests.
package pgserver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/signpost/signpost/internal/files"
	"github.com/signpost/signpost/internal/pause"
	"github.com/signpost/signpost/internal/postgres"
)

// Codes of https://www.postgresql.org/docs/current/errcodes-appendix.html.
const (
	duplicateDatabase = "42P04"
	uniqueViolation   = "23505"
)

// sharedMemoryLeft is part of the log of a server that finds the shared memory of a
// killed one. The server has no error code for it, since no client is connected.
const sharedMemoryLeft = "pre-existing shared memory block"

const (
	superuser      = "signpost"
	maxSocketPath  = 103 // the limit of macOS; Linux allows 107
	maxLogFile     = 8 << 20
	maxLogTail     = 4 << 10
	readyInterval  = 20 * time.Millisecond
	readyTimeout   = time.Second
	fallbackParent = "/var/lib/signpost"
)

// Options describe the private server to run.
type Options struct {
	// Dir holds everything of the cluster and is made if necessary: data/ (the
	// database), postgres.log, lock, and location (see Start).
	Dir string
	// Durable makes it a real database, which survives a power cut. Without it, a
	// committed transaction only survives if the server is killed, which is enough for
	// tests.
	Durable bool
	// MaxConns is the server's max_connections; 0 means 100.
	MaxConns int
	// SharedBuffers is the server's shared_buffers, such as 1GB; "" means 128MB, or
	// 64MB if it is not durable.
	SharedBuffers string
	// Primary, if it is set, is a running durable cluster. The new cluster begins as a
	// copy of it and follows it as a standby, until Promote. It is ignored if Dir has a
	// database already.
	Primary *Cluster
	// Log gets the messages that may interest a person. Nil means that there are none.
	Log *slog.Logger
}

// Cluster is a private PostgreSQL server. It is a child of this process and uses the
// server programs that are installed on this machine. It listens only on a Unix socket,
// in a folder that nobody but its account (and root) can enter; access to that folder
// is the only authentication. It is safe for concurrent use.
type Cluster struct {
	o      Options
	socket string // folder of the socket; stays the same over restarts

	mu    sync.Mutex
	data  string // PGDATA
	proc  *process
	locks []*os.File
}

// Start makes the cluster in o.Dir if there is none yet, starts it and returns when it
// answers. If an earlier process was killed, Start recovers by itself from anything
// that was left: a half-made database, a stale pid file or socket, a server that still
// runs. Two processes cannot use one Dir at the same time; the second gets an error.
//
// PostgreSQL refuses to run as root. If this process is root, the server runs as the
// user who owns the data, or else as postgres. If that user cannot reach Dir (for
// example in a home that is closed to others), the data is put into a folder of its own
// under /var/lib/signpost, and Dir/location holds the path of that folder.
//
// On Linux the server ends with this process, however that ends; elsewhere the next
// start on Dir ends a server that was left. The caller calls Stop.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("find database folder: %w", err)
	}
	o.Dir = dir
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxConns == 0 {
		o.MaxConns = 100
	}
	c := &Cluster{o: o}
	if err := c.Start(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Start starts a cluster that was stopped or killed; the URLs stay the same.
func (c *Cluster) Start(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc.running() {
		return errors.New("start postgres: it is running")
	}
	c.unlock() // the lock is still held if the server ended by itself
	err := c.start(ctx)
	if err != nil {
		c.unlock()
		return fmt.Errorf("start postgres in %s: %w", c.o.Dir, err)
	}
	return nil
}

func (c *Cluster) start(ctx context.Context) error {
	if err := os.MkdirAll(c.o.Dir, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := c.lock(ctx, c.o.Dir); err != nil {
		return err
	}
	home, err := readLocation(c.o.Dir)
	if err != nil {
		return err
	}
	data := filepath.Join(home, "data")
	major, err := dataVersion(data)
	if err != nil {
		return err
	}
	server, err := findBinaries(major)
	if err != nil {
		return err
	}
	as, err := serverAccount(data)
	if err != nil {
		return err
	}
	if home, err = c.chooseHome(ctx, home, major > 0, as, server.dir); err != nil {
		return err
	}
	data = filepath.Join(home, "data")
	if major == 0 {
		if err := c.initialize(ctx, server.dir, home, as); err != nil {
			return err
		}
	}
	if err := stopOrphan(ctx, data); err != nil {
		return err
	}
	if err := c.makeSocketDir(ctx, home, as, server.dir); err != nil {
		return err
	}
	return c.launch(ctx, server.dir, data, as)
}

// lock keeps other processes away from dir for as long as this one lives.
func (c *Cluster) lock(ctx context.Context, dir string) error {
	f, err := lockSoon(ctx, filepath.Join(dir, "lock"))
	if errors.Is(err, files.ErrLocked) {
		return errors.New("another process is using it: stop that one, or choose another data folder")
	}
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("it belongs to another user (was it last used with sudo?): %w", err)
	}
	if err != nil {
		return err
	}
	c.locks = append(c.locks, f)
	return nil
}

func (c *Cluster) unlock() {
	for _, f := range c.locks {
		_ = files.Unlock(f) // the lock ends with the process at the latest
	}
	c.locks = nil
}

// readLocation returns the folder that holds the database of dir: dir itself, or the
// folder that its location file names.
func readLocation(dir string) (string, error) {
	content, err := os.ReadFile(filepath.Join(dir, "location"))
	if errors.Is(err, os.ErrNotExist) {
		return dir, nil
	}
	if err != nil {
		return "", fmt.Errorf("read where the database is: %w", err)
	}
	home := strings.TrimSpace(string(content))
	if _, err := os.Stat(home); err != nil {
		return "", fmt.Errorf("the database is kept in %s, which cannot be read (%w): bring that folder back, "+
			"or remove %s to begin with an empty database", home, err, filepath.Join(dir, "location"))
	}
	return home, nil
}

// chooseHome returns a folder in which the account can keep the database. This is home,
// or, if the account cannot use home and there is no database yet, one under
// /var/lib/signpost.
func (c *Cluster) chooseHome(ctx context.Context, home string, made bool, as *account, bin string) (string, error) {
	if home != c.o.Dir {
		if err := c.lock(ctx, home); err != nil {
			return "", err
		}
	}
	if as == nil {
		return home, nil
	}
	program := filepath.Join(bin, "postgres")
	if !as.canUse(ctx, program, "/") {
		return "", fmt.Errorf("%s cannot run %s", as.name, program)
	}
	if made {
		if !as.canUse(ctx, program, filepath.Join(home, "data")) {
			return "", fmt.Errorf("%s, who owns the database, cannot enter %s: "+
				"give others the right to pass through its parent folders (chmod o+x)", as.name, filepath.Join(home, "data"))
		}
		return home, nil
	}
	fresh, err := makeData(home, as)
	if err == nil && as.canUse(ctx, program, fresh) {
		return home, nil
	}
	_ = os.Remove(fresh)
	return c.moveOut(ctx, as, program)
}

// moveOut makes a folder outside Dir and notes it in Dir. Its name is random and not
// derived from Dir, so that a Dir that was removed and made again begins empty.
func (c *Cluster) moveOut(ctx context.Context, as *account, program string) (string, error) {
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("%s, as whom PostgreSQL must run, cannot use %s, and no folder in %s can be had instead (%w): "+
			"choose a data folder that others may enter", as.name, c.o.Dir, fallbackParent, err)
	}
	if err := os.MkdirAll(fallbackParent, 0o755); err != nil {
		return fail(err)
	}
	home, err := os.MkdirTemp(fallbackParent, "postgres-")
	if err != nil {
		return fail(err)
	}
	if err := os.Chmod(home, 0o711); err != nil {
		return fail(err)
	}
	fresh, err := makeData(home, as)
	if err != nil {
		return fail(err)
	}
	if !as.canUse(ctx, program, fresh) {
		return fail(errors.New("it is closed to that user too"))
	}
	if err := c.lock(ctx, home); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(c.o.Dir, "location"), []byte(home+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("note where the database is: %w", err)
	}
	c.o.Log.InfoContext(ctx, "the database is kept outside the data folder, which the postgres user cannot enter",
		slog.String("folder", home), slog.String("noted_in", filepath.Join(c.o.Dir, "location")))
	return home, nil
}

// makeData makes the empty folder in which a database is made. The folder gets its
// final name only when the database is complete.
func makeData(home string, as *account) (string, error) {
	fresh := filepath.Join(home, "data.new")
	if err := os.RemoveAll(fresh); err != nil {
		return "", fmt.Errorf("remove a half-made database: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return "", fmt.Errorf("make database folder: %w", err)
	}
	if err := as.own(fresh); err != nil {
		return "", fmt.Errorf("give away database folder: %w", err)
	}
	return fresh, nil
}

// initialize makes the database in home. If it is killed meanwhile, data.new is left,
// which the next start removes.
func (c *Cluster) initialize(ctx context.Context, bin, home string, as *account) error {
	fresh, err := makeData(home, as)
	if err != nil {
		return err
	}
	program := "initdb"
	args := []string{
		"-D", fresh, "-U", superuser, "--encoding=UTF8", "--locale=C.UTF-8",
		// Every process that can open the socket is let in. The permissions of its
		// folder keep out all others.
		"-A", "trust",
	}
	if c.o.Primary != nil {
		program = "pg_basebackup"
		args = []string{"-D", fresh, "-d", c.o.Primary.URL("postgres"), "--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf"}
	}
	if !c.o.Durable {
		args = append(args, "--no-sync")
	}
	if err := runMaker(ctx, filepath.Join(bin, program), args, as); err != nil {
		return err
	}
	if err := os.Rename(fresh, filepath.Join(home, "data")); err != nil {
		return fmt.Errorf("put the new database in place: %w", err)
	}
	if c.o.Durable {
		if err := files.SyncDir(home); err != nil {
			return fmt.Errorf("flush folder: %w", err)
		}
	}
	return nil
}

// runMaker runs a program that makes a database.
func runMaker(ctx context.Context, program string, args []string, as *account) error {
	name := filepath.Base(program)
	out, err := os.CreateTemp("", "signpost-"+name+"-")
	if err != nil {
		return fmt.Errorf("make file for the output of %s: %w", name, err)
	}
	defer func() { _, _ = out.Close(), os.Remove(out.Name()) }()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	p, err := startProcess(cmd, as, syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.done
		return fmt.Errorf("make the database: %w", ctx.Err())
	}
	if p.err != nil {
		return fmt.Errorf("make the database with %s: %w\n%s", name, p.err, tail(out, 0))
	}
	return nil
}

// makeSocketDir makes an empty folder for the socket. It is in home if its path is
// short enough and the account can get there, or else among the temporary files. If a
// killed server left files in it, they are removed.
func (c *Cluster) makeSocketDir(ctx context.Context, home string, as *account, bin string) error {
	if c.socket != "" {
		return emptyDir(c.socket, as)
	}
	inside := filepath.Join(home, "socket")
	if len(inside)+len("/.s.PGSQL.5432") <= maxSocketPath && emptyDir(inside, as) == nil {
		c.socket = inside
		return nil
	}
	for _, parent := range []string{os.TempDir(), "/tmp"} {
		dir, err := os.MkdirTemp(parent, "signpost-")
		if err != nil {
			continue
		}
		fits := len(dir)+len("/.s.PGSQL.5432") <= maxSocketPath
		if fits && as.own(dir) == nil && as.canUse(ctx, filepath.Join(bin, "postgres"), dir) {
			c.socket = dir
			return nil
		}
		_ = os.Remove(dir)
	}
	return errors.New("no folder for the server's socket: its path is too long or closed to the server's user")
}

func emptyDir(dir string, as *account) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove old socket: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make socket folder: %w", err)
	}
	return as.own(dir)
}

// launch starts the server and waits until it answers. If only the postmaster was
// killed, its children may live a little longer and hold memory that keeps a new server
// from starting. In that case launch starts the server again.
func (c *Cluster) launch(ctx context.Context, bin, data string, as *account) error {
	for {
		log, from, err := openLog(filepath.Join(c.o.Dir, "postgres.log"), as)
		if err != nil {
			return err
		}
		err = c.launchOnce(ctx, bin, data, as, log)
		said := ""
		if err != nil {
			said = tail(log, from)
		}
		_ = log.Close() // the server has a handle of its own
		if err == nil {
			return nil
		}
		if ctx.Err() == nil && strings.Contains(said, sharedMemoryLeft) {
			if err := pause.For(ctx, 100*time.Millisecond); err == nil {
				continue
			}
		}
		return fmt.Errorf("%w\n%s", err, said)
	}
}

func (c *Cluster) launchOnce(ctx context.Context, bin, data string, as *account, log *os.File) error {
	args := []string{"-D", data, "-k", c.socket}
	for _, s := range c.settings() {
		args = append(args, "-c", s)
	}
	cmd := exec.Command(filepath.Join(bin, "postgres"), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = data, log, log
	death := syscall.SIGQUIT
	if c.o.Durable {
		death = syscall.SIGINT // lets the server write a checkpoint, so that the next start is quick
	}
	proc, err := startProcess(cmd, as, death)
	if err != nil {
		return fmt.Errorf("run postgres: %w", err)
	}
	if err := c.waitReady(ctx, proc); err != nil {
		if proc.running() {
			err = errors.Join(err, proc.stop(ctx, data))
		}
		return err
	}
	c.proc, c.data = proc, data
	return nil
}

func (c *Cluster) settings() []string {
	s := []string{
		"listen_addresses=", "port=5432", "unix_socket_permissions=0700",
		"max_connections=" + strconv.Itoa(c.o.MaxConns),
		"timezone=UTC", "log_timezone=UTC", "lc_messages=C",
		"logging_collector=off", "log_destination=stderr", "log_checkpoints=off",
	}
	if c.o.Durable {
		return append(s, "shared_buffers="+cmp.Or(c.o.SharedBuffers, "128MB"), "max_wal_size=1GB", "fsync=on", "full_page_writes=on", "synchronous_commit=on")
	}
	// With fsync off, a commit costs next to nothing. With synchronous_commit on, it
	// survives if the server is killed, though not a crash of the machine.
	return append(s, "shared_buffers="+cmp.Or(c.o.SharedBuffers, "64MB"), "fsync=off", "full_page_writes=off", "synchronous_commit=on",
		"wal_level=minimal", "max_wal_senders=0", "checkpoint_timeout=1h", "max_wal_size=4GB", "jit=off",
		// The memory is in files in the data folder, so that nothing of a killed server
		// is left once that folder is removed.
		"dynamic_shared_memory_type=mmap")
}

// waitReady returns when the server answers a connection.
func (c *Cluster) waitReady(ctx context.Context, p *process) error {
	for {
		err := c.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("the server ended at once: %w", p.err)
		case <-ctx.Done():
			return fmt.Errorf("the server is not ready (%w): %w", err, ctx.Err())
		case <-time.After(readyInterval):
		}
	}
}

func (c *Cluster) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	conn, err := pgconn.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// URL returns the address of one of the cluster's databases, for Open. It gives every
// setting that the PG… environment variables could change.
func (c *Cluster) URL(database string) string {
	query := url.Values{"host": {c.socket}, "port": {"5432"}, "sslmode": {"disable"}}
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database, RawQuery: query.Encode()}
	return u.String()
}

// CreateDatabase makes an empty database unless it exists.
func (c *Cluster) CreateDatabase(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connect to make database %s: %w", name, err)
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	// Two calls at once can also violate the catalog's unique index.
	if code := postgres.Code(err); err != nil && code != duplicateDatabase && code != uniqueViolation {
		return fmt.Errorf("make database %s: %w", name, err)
	}
	return nil
}

// Done returns a channel that is closed when the server that runs now has ended, for
// whatever reason. It returns nil before the first start.
func (c *Cluster) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc == nil {
		return nil
	}
	return c.proc.done
}

// Stop shuts the server down. Its sessions are ended, and no committed transaction is
// lost. It waits until ctx ends and then makes the server quit at once, from which the
// next start recovers. If the server does not run, Stop does nothing.
func (c *Cluster) Stop(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.unlock()
	var err error
	if c.proc.running() {
		err = c.proc.stop(ctx, c.data)
	}
	if c.socket != "" && filepath.Dir(c.socket) != c.o.Dir {
		_ = os.RemoveAll(c.socket) // it may be among the temporary files; Start makes it again
	}
	return err
}

// Kill ends the server as a crash would (SIGKILL), without any clean-up. Start starts
// it again.
func (c *Cluster) Kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.unlock()
	if c.proc.running() {
		c.proc.kill(c.data)
	}
}

// Pause makes the server and all its sessions stand still, as if its host hung:
// connections are neither refused nor answered. Resume ends this.
func (c *Cluster) Pause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.proc.running() {
		return errors.New("pause postgres: it is not running")
	}
	return c.proc.pause()
}

// Resume lets a paused server go on.
func (c *Cluster) Resume() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.proc.running() {
		return errors.New("resume postgres: it is not running")
	}
	return c.proc.resume()
}

// Promote makes a standby a server of its own that takes writes, and returns when it
// does. The server then has only the data that had arrived from its primary.
func (c *Cluster) Promote(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connect to promote: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var promoted bool
	if err := conn.QueryRow(ctx, "SELECT pg_promote()").Scan(&promoted); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	if !promoted {
		return errors.New("promote: the standby did not become a primary within a minute")
	}
	return nil
}

// Remove stops any server that was left running in dir and removes the folder with
// everything in it. It fails if a process is using dir.
func Remove(ctx context.Context, dir string) error {
	lock, err := lockSoon(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return fmt.Errorf("remove database %s: %w", dir, err)
	}
	defer files.Unlock(lock) //nolint:errcheck // the lock ends with the process at the latest
	home, err := readLocation(dir)
	if err != nil {
		home = dir // nothing is left of it
	}
	data := filepath.Join(home, "data")
	removeSharedMemory(data) // before the pid file is removed; memory that is in use stays
	if err := stopOrphan(ctx, data); err != nil {
		return fmt.Errorf("remove database %s: %w", dir, err)
	}
	if err := errors.Join(os.RemoveAll(home), os.RemoveAll(dir)); err != nil {
		return fmt.Errorf("remove database: %w", err)
	}
	return nil
}

// openLog opens the server's log for appending and returns its present length.
func openLog(path string, as *account) (*os.File, int64, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > maxLogFile {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, 0, fmt.Errorf("set old log aside: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("open server log: %w", err)
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err = errors.Join(err, as.own(path)); err != nil {
		_ = f.Close()
		return nil, 0, fmt.Errorf("prepare server log: %w", err)
	}
	return f, end, nil
}

// tail returns the end of the text that was written to f since offset from.
func tail(f *os.File, from int64) string {
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	from = max(from, info.Size()-maxLogTail)
	text, err := io.ReadAll(io.NewSectionReader(f, from, maxLogTail))
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(text))
}
