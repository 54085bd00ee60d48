package main

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

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/drive"
)

// proc is a process under measurement.
type proc struct {
	name  string
	cmd   *exec.Cmd
	addr  string
	admin string
	log   string
}

// launch starts a process that listens on the address its last argument or its
// environment names, and waits until it accepts connections.
func (b *bench) launch(name string, environ []string, args ...string) (*proc, error) {
	p := &proc{name: name, log: filepath.Join(b.dir, fmt.Sprintf("%s-%d.log", name, time.Now().UnixNano()))}
	var err error
	if p.addr, err = drive.FreeAddr(); err != nil {
		return nil, err
	}
	if p.admin, err = drive.FreeAddr(); err != nil {
		return nil, err
	}
	if name == "baseline" {
		args = append(args, p.addr)
	}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the process has its own copy
	p.cmd = exec.Command(filepath.Join(b.dir, name), args...)
	p.cmd.Env = append(append(os.Environ(), environ...), "LISTEN_ADDR="+p.addr, "ADMIN_ADDR="+p.admin, "LOG_LEVEL=warn")
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	wait := p.addr
	if len(args) > 0 && args[0] == "worker" {
		wait = p.admin
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		c, err := net.Dial("tcp", wait)
		if err == nil {
			return p, c.Close()
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s did not start; see %s", name, p.log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (p *proc) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// cpu is the user and system time that the process has used, as the operating
// system counts it.
func (p *proc) cpu() (time.Duration, error) {
	return stat(p.cmd.Process.Pid)
}

func stat(pid int) (time.Duration, error) {
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

// backendsCPU is the time that the backends of Postgres have used which serve the
// api in a database.
func backendsCPU(ctx context.Context, url string) (total time.Duration, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	rows, err := conn.Query(ctx, "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'signpost api'")
	if err != nil {
		return 0, err
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	for _, pid := range pids {
		if spent, err := stat(pid); err == nil { // else it has ended
			total += spent
		}
	}
	return total, err
}

// anonymous is the process's anonymous resident memory in bytes.
func (p *proc) anonymous() (int64, error) {
	return p.status("RssAnon:")
}

func (p *proc) resident() (int64, error) { return p.status("VmRSS:") }

func (p *proc) status(field string) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // read-only
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), field); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no %s in the process's status", field)
}
