package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// proc is one api or worker process, started again whenever it ends, as a
// container engine would.
type proc struct {
	role  string
	name  string
	addr  string // where the api listens
	admin string
	cmd   func() *exec.Cmd

	mu      sync.Mutex
	running *os.Process
	ending  bool
	ended   chan struct{}
}

func newProc(h *harness, binary, role string, i int) (*proc, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	admin, err := freeAddr()
	if err != nil {
		return nil, err
	}
	name := role + strconv.Itoa(i)
	log, err := os.Create(filepath.Join(h.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	p := &proc{role: role, name: name, addr: addr, admin: admin, ended: make(chan struct{})}
	p.cmd = func() *exec.Cmd {
		cmd := exec.Command(binary, role)
		cmd.Env = append(os.Environ(),
			"DATABASE_URL="+h.url, "LISTEN_ADDR="+addr, "ADMIN_ADDR="+admin,
			"SPOOL_DIR="+filepath.Join(h.dir, "spool"), "SPOOL_KEEP=1h", "DB_MAX_CONNS=8", "ADMIN_TOKEN="+tortureToken)
		cmd.Stdout, cmd.Stderr = log, log
		return cmd
	}
	return p, nil
}

// freeAddr finds a port that a process keeps across its lives.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close() //nolint:errcheck // nothing was served
	return l.Addr().String(), nil
}

func (p *proc) supervise() {
	defer close(p.ended)
	for {
		cmd := p.cmd()
		p.mu.Lock()
		if p.ending {
			p.mu.Unlock()
			return
		}
		if err := cmd.Start(); err != nil {
			p.mu.Unlock()
			fmt.Printf("torture: start %s: %v\n", p.name, err)
			return
		}
		p.running = cmd.Process
		p.mu.Unlock()
		_ = cmd.Wait()
		time.Sleep(100 * time.Millisecond)
	}
}

func (p *proc) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != nil {
		_ = p.running.Signal(s)
	}
}

// end stops the process for good, with SIGTERM.
func (p *proc) end() {
	p.mu.Lock()
	p.ending = true
	p.mu.Unlock()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(60 * time.Second):
		fmt.Printf("torture: %s did not stop on SIGTERM\n", p.name)
		p.signal(syscall.SIGKILL)
		<-p.ended
	}
}

// metric reads one sample of the process's metrics.
func (p *proc) metric(ctx context.Context, name string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", p.name, name)
}
