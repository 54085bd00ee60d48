package drive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a program under load. Once it has ended, it can be started again on the
// same addresses.
type Process struct {
	Name string
	// Addr and Admin are the addresses in its LISTEN_ADDR and ADMIN_ADDR.
	Addr, Admin string
	// Log is the path of the file with everything that it printed.
	Log string
	// Pid is its process id since the last start.
	Pid int

	environ, command []string

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// NewProcess prepares a command whose LISTEN_ADDR and ADMIN_ADDR are free ports of
// loopback. Its log is in dir. environ is added to this process's own environment.
func NewProcess(dir, name string, environ []string, command ...string) (*Process, error) {
	p := &Process{
		Name: name, Log: filepath.Join(dir, fmt.Sprintf("%s-%d.log", name, time.Now().UnixNano())), command: command,
	}
	var err error
	if p.Addr, err = FreeAddr(); err != nil {
		return nil, err
	}
	if p.Admin, err = FreeAddr(); err != nil {
		return nil, err
	}
	p.environ = append(append(os.Environ(), "LOG_LEVEL=warn"), environ...)
	p.environ = append(p.environ, "LISTEN_ADDR="+p.Addr, "ADMIN_ADDR="+p.Admin)
	return p, nil
}

// Start starts the process.
func (p *Process) Start() error {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the process has its own copy
	cmd, done := exec.Command(p.command[0], p.command[1:]...), make(chan struct{})
	cmd.Env, cmd.Stdout, cmd.Stderr = p.environ, log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.cmd, p.done, p.Pid = cmd, done, cmd.Process.Pid
	go func() {
		_ = cmd.Wait() // the state says how it ended
		close(done)
	}()
	return nil
}

// Launch prepares and starts a command. The process is named after the last word of the
// command. Launch returns when the process accepts connections: a worker at Admin, any
// other at Addr. The caller calls Stop.
func Launch(dir string, environ []string, command ...string) (*Process, error) {
	p, err := NewProcess(dir, filepath.Base(command[len(command)-1]), environ, command...)
	if err != nil {
		return nil, err
	}
	if err := p.Start(); err != nil {
		return nil, err
	}
	wait := p.Addr
	if p.Name == "worker" {
		wait = p.Admin
	}
	err = Until(context.Background(), 30*time.Second, 20*time.Millisecond, func(ctx context.Context) error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", wait)
		switch {
		case err == nil:
			return c.Close()
		case p.Ended():
			return nil
		}
		return err
	})
	if err != nil || p.Ended() {
		p.Stop()
		return nil, errors.Join(fmt.Errorf("%s did not start; see %s", p.Name, p.Log), err)
	}
	return p, nil
}

// Signal sends a signal. It returns an error if the process has ended.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Wait waits until the process has ended, and returns how it ended.
func (p *Process) Wait() *os.ProcessState {
	<-p.done
	return p.cmd.ProcessState
}

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Stop ends the process with SIGTERM and waits until it has ended. A second call does
// nothing.
func (p *Process) Stop() {
	_ = p.Signal(syscall.SIGTERM) // it may have ended already
	<-p.done
}

// CPU is the processor time that the process has used.
func (p *Process) CPU() (time.Duration, error) { return CPU(p.Pid) }

// Anonymous is the process's resident memory in bytes, without mapped files.
func (p *Process) Anonymous() (int64, error) { return Memory(p.Pid, "RssAnon") }

// Resident is the process's resident memory in bytes, mapped files included.
func (p *Process) Resident() (int64, error) { return Memory(p.Pid, "VmRSS") }

// AtLeast waits up to a minute until a metric of the process has at least the value
// least.
func (p *Process) AtLeast(ctx context.Context, metric string, least float64) error {
	return Until(ctx, time.Minute, 20*time.Millisecond, func(ctx context.Context) error {
		n, err := Metric(ctx, p.Admin, metric)
		if err == nil && n < least {
			err = fmt.Errorf("%s is %v, want %v", metric, n, least)
		}
		return err
	})
}

// CPU is the user and system time that a process has used, as Linux counts it.
func CPU(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything. Fields 14 and 15 are counted from
	// behind it.
	_, rest, ok := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, errors.New("cannot read the process's times")
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, err
}

// Memory reads one field of a process's status, in bytes, such as RssAnon (its own
// resident memory), VmRSS (the same with mapped files) or VmHWM (the highest VmRSS so
// far).
func Memory(pid int, field string) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // read-only
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), field+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no %s in the process's status", field)
}
