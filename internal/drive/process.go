package drive

import (
	"bufio"
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

// Process is a program that runs to be measured.
type Process struct {
	// Addr and Admin are what LISTEN_ADDR and ADMIN_ADDR told it.
	Addr, Admin string
	// Log is the file with all it printed.
	Log string
	// Pid is its number.
	Pid int

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// Launch starts a command with LISTEN_ADDR and ADMIN_ADDR set to free ports of
// loopback, a log in dir that is named after the last word of the command, and
// environ besides this process's own environment. It returns when the process accepts connections: a worker at Admin,
// any other at Addr. The caller calls Stop.
func Launch(dir string, environ []string, command ...string) (*Process, error) {
	name := filepath.Base(command[len(command)-1])
	p := &Process{Log: filepath.Join(dir, fmt.Sprintf("%s-%d.log", name, time.Now().UnixNano())), done: make(chan struct{})}
	var err error
	if p.Addr, err = FreeAddr(); err != nil {
		return nil, err
	}
	if p.Admin, err = FreeAddr(); err != nil {
		return nil, err
	}
	log, err := os.Create(p.Log)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the process has its own copy
	p.cmd = exec.Command(command[0], command[1:]...)
	p.cmd.Env = append(append(os.Environ(), environ...), "LISTEN_ADDR="+p.Addr, "ADMIN_ADDR="+p.Admin, "LOG_LEVEL=warn")
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.Pid = p.cmd.Process.Pid
	go func() {
		_ = p.cmd.Wait() // how it ended is in the log
		close(p.done)
	}()
	wait := p.Addr
	if name == "worker" {
		wait = p.Admin
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", wait)
		if err == nil {
			return p, c.Close()
		}
		if time.Now().After(deadline) || p.Ended() {
			p.Stop()
			return nil, fmt.Errorf("%s did not start; see %s", name, p.Log)
		}
	}
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

// Stop ends the process with SIGTERM and waits until it has ended. Stopping twice
// does nothing.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	<-p.done
}

// CPU is the user and system time that a process has used, as Linux counts it.
func CPU(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything; fields 14 and 15 follow it.
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

// Memory reads one field of a process's status, such as RssAnon (its own memory
// that is resident), VmRSS (with that of files) or VmHWM (the most that VmRSS
// was), in bytes.
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
