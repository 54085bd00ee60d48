package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/signpost/signpost/internal/files"
	"github.com/signpost/signpost/internal/pause"
)

// account is the user as whom the server's programs run if this process is root, since
// Postgres refuses to run as root. Nil means our own user.
type account struct {
	uid, gid uint32
	name     string
}

// serverAccount picks the account for the database in data: the owner of data if it
// exists, or else the system's postgres user.
func serverAccount(data string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	if info, err := os.Stat(data); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
			return &account{uid: st.Uid, gid: st.Gid, name: "user " + strconv.Itoa(int(st.Uid))}, nil
		}
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, errors.New("PostgreSQL does not run as root, and there is no user named postgres to run it as: " +
			"create one (useradd --system postgres), or run signpost as an ordinary user")
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return nil, fmt.Errorf("read ids of user postgres: %w", err)
	}
	return &account{uid: uint32(uid), gid: uint32(gid), name: "user postgres"}, nil
}

// own makes the account the owner of a file or folder.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// canUse reports whether the account can run program with dir as its working folder. It
// tries this, because rights depend on more than mode bits.
func (a *account) canUse(ctx context.Context, program, dir string) bool {
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.Dir = dir
	cmd.Env = serverEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential()}
	return cmd.Run() == nil
}

func (a *account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// serverEnv returns the environment of the server's programs. It holds none of our
// secrets and no PG… variable that would change how they work, and it makes their
// messages English.
func serverEnv() []string {
	env := []string{"LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// process is a child process, with a goroutine that waits for it.
type process struct {
	pid  int
	done chan struct{} // closed when the child is gone
	err  error         // the error of Wait; valid once done is closed

	paused []int // sessions and workers that were made to stand still
}

// startProcess starts cmd in a process group of its own, so that a Ctrl-C in the
// terminal reaches only us. On Linux the kernel sends the signal death to the child
// when we are gone. More exactly, it does so when the thread that started the child is
// gone. So the goroutine keeps its thread until the child has ended.
func startProcess(cmd *exec.Cmd, as *account, death syscall.Signal) (*process, error) {
	cmd.Env = serverEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: as.credential()}
	setDeathSignal(cmd.SysProcAttr, death)
	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop asks the postmaster for a fast shutdown. When ctx ends it asks for an immediate
// one, and then kills it. It returns when the child is gone.
func (p *process) stop(ctx context.Context, data string) error {
	_ = p.resume() // a paused server would not react
	_ = syscall.Kill(p.pid, syscall.SIGINT)
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	_ = syscall.Kill(p.pid, syscall.SIGQUIT)
	timer := time.NewTimer(5 * time.Second)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.kill(data)
	}
	return fmt.Errorf("stop postgres in time: %w", ctx.Err())
}

// kill ends the server with all its sessions and workers, without any clean-up. Those
// are children of the server and not of this process: a busy one would otherwise go on
// for as long as its query takes.
func (p *process) kill(data string) {
	_ = p.pause() // so that no session begins after they are listed
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	for _, pid := range p.paused {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-p.done
	for _, pid := range p.paused {
		_, _ = waitGone(context.Background(), pid, data, 5*time.Second)
	}
}

// pause makes the server and its children stand still.
func (p *process) pause() error {
	if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("pause postgres: %w", err)
	}
	p.paused = childrenOf(p.pid)
	return signalAll(p.paused, syscall.SIGSTOP)
}

// resume undoes pause; it does nothing if nothing is paused.
func (p *process) resume() error {
	err := signalAll(append(p.paused, p.pid), syscall.SIGCONT)
	p.paused = nil
	return err
}

func signalAll(pids []int, sig syscall.Signal) error {
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal process %d of postgres: %w", pid, err)
		}
	}
	return nil
}

// stopOrphan ends the server on data, if any, that a killed predecessor left running.
// It also removes a pid file that is empty or does not name a server of ours: the
// number in it may belong to a stranger by now, which would keep a new server from
// starting. (Running servers recognize each other by more than that file.) The caller
// holds the lock of the cluster, so a server that runs there has no owner.
func stopOrphan(ctx context.Context, data string) error {
	pid, err := postmasterPID(data)
	if err != nil {
		return err
	}
	if pid == 0 || !isPostmaster(pid, data) {
		if err := os.Remove(filepath.Join(data, "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove stale pid file: %w", err)
		}
		return nil
	}
	_ = syscall.Kill(pid, syscall.SIGCONT)
	for _, step := range []struct {
		signal  syscall.Signal
		patient time.Duration
	}{{syscall.SIGINT, 30 * time.Second}, {syscall.SIGQUIT, 10 * time.Second}, {syscall.SIGKILL, 10 * time.Second}} {
		if err := syscall.Kill(pid, step.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop the server left running (process %d): %w", pid, err)
		}
		gone, err := waitGone(ctx, pid, data, step.patient)
		if gone || err != nil {
			return err
		}
	}
	return fmt.Errorf("the server left running (process %d) does not end", pid)
}

func waitGone(ctx context.Context, pid int, data string, patient time.Duration) (bool, error) {
	deadline := time.Now().Add(patient)
	for isPostmaster(pid, data) {
		if time.Now().After(deadline) {
			return false, nil
		}
		if err := pause.For(ctx, 20*time.Millisecond); err != nil {
			return false, fmt.Errorf("wait for the server left running (process %d): %w", pid, err)
		}
	}
	return true, nil
}

// postmasterPID returns the process id in the pid file of data. It is 0 if there is no
// such file, or if a crash cut it short.
func postmasterPID(data string) (int, error) {
	content, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read pid file: %w", err)
	}
	first, _, _ := strings.Cut(string(content), "\n")
	if pid, err := strconv.Atoi(strings.TrimSpace(first)); err == nil && pid > 1 {
		return pid, nil
	}
	return 0, nil
}

// lockSoon locks a file. It waits for a while, since the present owner may be about to
// end.
func lockSoon(ctx context.Context, path string) (*os.File, error) {
	deadline := time.Now().Add(lockPatience)
	for {
		f, err := files.OpenLocked(path)
		if !errors.Is(err, files.ErrLocked) || time.Now().After(deadline) || pause.For(ctx, 20*time.Millisecond) != nil {
			return f, err
		}
	}
}

const lockPatience = time.Second
