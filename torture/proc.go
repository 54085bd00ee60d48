package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/signpost/signpost/internal/drive"
)

// proc is one api or worker process, started again whenever it ends, as a
// container engine would.
type proc struct {
	*drive.Process
	role  string
	drops *drops // of all processes
	ends  *ends

	mu      sync.Mutex // held while the process is started, signalled or looked at
	running bool
	life    life
	memory  int64 // most anonymous memory seen, in bytes
	ending  bool
	ended   chan struct{}
}

func newProc(h *harness, role string, i int) (*proc, error) {
	// One lets go of what it shipped while others die; one can ship all again.
	keep := "1h"
	if i == 0 && !h.failover {
		keep = "3s"
	}
	p, err := drive.NewProcess(h.Dir, role+strconv.Itoa(i), []string{
		"DATABASE_URL=" + h.url, "SPOOL_DIR=" + h.spool(), "SPOOL_KEEP=" + keep, "DB_MAX_CONNS=8",
		"ADMIN_TOKEN=" + tortureToken, "LOG_LEVEL=info",
	}, h.Binary, role)
	return &proc{Process: p, role: role, drops: &h.drops, ends: &h.ends, ended: make(chan struct{})}, err
}

func (p *proc) supervise() {
	defer close(p.ended)
	for p.start() {
		state := p.Wait()
		p.mu.Lock()
		p.running = false
		ended := p.life
		p.mu.Unlock()
		p.ends.note(p.Name, ended, state)
		p.drops.end(ended, p.Log)
		time.Sleep(100 * time.Millisecond)
	}
}

// start starts the process, unless it has ended for good.
func (p *proc) start() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending {
		return false
	}
	p.life = life{n: p.life.n + 1, began: time.Now(), log: fileSize(p.Log), dropped: map[string]int{}}
	if err := p.Start(); err != nil {
		fmt.Printf("torture: %v\n", err)
		return false
	}
	p.running = true
	return true
}

// signal reports whether there was a process to signal.
func (p *proc) signal(s syscall.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running || p.Signal(s) != nil {
		return false
	}
	p.life.sent = append(p.life.sent, s)
	if s == syscall.SIGTERM && p.life.asked.IsZero() {
		p.life.asked = time.Now()
	}
	return true
}

// ends collects the ends of processes that no signal asked for: a panic, an error, an
// end unasked, a stop that took too long.
type ends struct {
	mu      sync.Mutex
	odd     []string
	slowest time.Duration // from SIGTERM to the end
}

func (e *ends) note(name string, l life, state *os.ProcessState) {
	e.mu.Lock()
	defer e.mu.Unlock()
	status, _ := state.Sys().(syscall.WaitStatus)
	killed := status.Signaled() && slices.Contains(l.sent, status.Signal())
	stopped := state.Success() && slices.Contains(l.sent, syscall.SIGTERM)
	if !killed && !stopped {
		e.odd = append(e.odd, fmt.Sprintf("%s (start %d): %s, sent %v", name, l.n, state, l.sent))
	}
	if stopped {
		e.slowest = max(e.slowest, time.Since(l.asked))
	}
}

func (e *ends) all() (odd []string, slowest time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.odd), e.slowest
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
		p.ends.mu.Lock()
		p.ends.odd = append(p.ends.odd, p.Name+" did not stop within a minute of SIGTERM")
		p.ends.mu.Unlock()
		p.signal(syscall.SIGKILL)
		<-p.ended
	}
}

// lookAtMemory notes the anonymous memory of the process if it is the most yet.
func (p *proc) lookAtMemory() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running {
		return
	}
	if n, err := p.Anonymous(); err == nil { // else it has ended
		p.memory = max(p.memory, n)
	}
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
