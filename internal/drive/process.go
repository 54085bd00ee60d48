package drive

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
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
// nothing, nor does one for no process.
func (p *Process) Stop() {
	if p == nil {
		return
	}
	_ = p.Signal(syscall.SIGTERM) // it may have ended already
	<-p.done
}

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

// CPU is the user and system time that a process has used.
func CPU(pid int) (time.Duration, error) {
	proc, err := procfs.NewProc(pid)
	if err != nil {
		return 0, err
	}
	stat, err := proc.Stat()
	return time.Duration(stat.CPUTime() * float64(time.Second)), err
}

// Anonymous is the process's resident memory in bytes, without mapped files.
func (p *Process) Anonymous() (int64, error) {
	status, err := p.status()
	return int64(status.RssAnon), err
}

// Resident is the process's resident memory in bytes, mapped files included.
func (p *Process) Resident() (int64, error) {
	status, err := p.status()
	return int64(status.VmRSS), err
}

func (p *Process) status() (status procfs.ProcStatus, err error) {
	proc, err := procfs.NewProc(p.Pid)
	if err != nil {
		return status, err
	}
	return proc.NewStatus()
}

// Peak is the memory of a process in bytes, before something was done and at most.
type Peak struct{ Before, Most int64 }

// Watch reads the memory of a process now and then. The function that it returns ends
// that.
func Watch(memory func() (int64, error)) func() Peak {
	before, _ := memory() // of a process that has ended there is none
	peak := Peak{before, before}
	ctx, stop := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil {
			n, _ := memory()
			peak.Most = max(peak.Most, n)
			Pause(ctx, 50*time.Millisecond)
		}
	})
	return func() Peak {
		stop()
		watching.Wait()
		return peak
	}
}
