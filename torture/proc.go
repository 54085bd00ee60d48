package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/signpost/signpost/internal/drive"
)

// proc is one api or worker process, started again whenever it ends, as a
// container engine would.
type proc struct {
	role  string
	name  string
	addr  string // where the api listens
	admin string
	cmd   func() *exec.Cmd

	log   string
	drops *drops // of all processes

	mu      sync.Mutex
	running *os.Process
	life    life
	ending  bool
	ended   chan struct{}
}

func newProc(h *harness, binary, role string, i int) (*proc, error) {
	addr, err := drive.FreeAddr()
	if err != nil {
		return nil, err
	}
	admin, err := drive.FreeAddr()
	if err != nil {
		return nil, err
	}
	name := role + strconv.Itoa(i)
	path := filepath.Join(h.dir, name+".log")
	log, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	p := &proc{role: role, name: name, addr: addr, admin: admin, log: path, drops: &h.drops, ended: make(chan struct{})}
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

func (p *proc) supervise() {
	defer close(p.ended)
	for {
		cmd := p.cmd()
		p.mu.Lock()
		if p.ending {
			p.mu.Unlock()
			return
		}
		p.life = life{n: p.life.n + 1, log: fileSize(p.log), dropped: map[string]int{}}
		if err := cmd.Start(); err != nil {
			p.mu.Unlock()
			fmt.Printf("torture: start %s: %v\n", p.name, err)
			return
		}
		p.running = cmd.Process
		p.mu.Unlock()
		_ = cmd.Wait()
		p.mu.Lock()
		ended := p.life
		p.mu.Unlock()
		p.drops.end(ended, p.log)
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

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
