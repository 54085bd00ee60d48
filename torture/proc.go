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
	odd   *oddEnds
	drops *drive.Drops

	mu      sync.Mutex // held while the process is started, signalled or looked at
	running bool
	ending  bool
	starts  int
	began   time.Time        // the last start
	sent    []syscall.Signal // since then
	ended   chan struct{}
}

// launch starts a process of each role and keeps it running.
func (h *harness) launch(roles ...string) error {
	for i, role := range roles {
		// One lets go of what it shipped while others die; one can ship all again.
		keep := "1h"
		if i == 0 && !h.failover {
			keep = "3s"
		}
		p, err := drive.NewProcess(h.Dir, role+strconv.Itoa(i), []string{
			"DATABASE_URL=" + h.url, "SPOOL_DIR=" + h.spool(), "SPOOL_KEEP=" + keep, "DB_MAX_CONNS=8",
			"ADMIN_TOKEN=" + tortureToken, "LOG_LEVEL=info",
		}, h.Binary, role)
		if err != nil {
			return err
		}
		supervised := &proc{Process: p, role: role, odd: &h.odd, drops: &h.drops, ended: make(chan struct{})}
		h.procs = append(h.procs, supervised)
		go supervised.supervise()
	}
	return nil
}

func (p *proc) supervise() {
	defer close(p.ended)
	for p.start() {
		state := p.Wait()
		p.mu.Lock()
		p.running = false
		p.judge(state)
		p.mu.Unlock()
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
	p.starts, p.began, p.sent = p.starts+1, time.Now(), nil
	if err := p.Start(); err != nil {
		p.odd.add("%v", err)
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
	p.sent = append(p.sent, s)
	return true
}

// judge notes an end that no signal asked for.
func (p *proc) judge(state *os.ProcessState) {
	status, _ := state.Sys().(syscall.WaitStatus)
	killed := status.Signaled() && slices.Contains(p.sent, status.Signal())
	stopped := state.Success() && slices.Contains(p.sent, syscall.SIGTERM)
	if stopped {
		p.drops.Stopped(p.Admin)
	}
	if !killed && !stopped {
		p.odd.add("%s (start %d): %s, sent %v", p.Name, p.starts, state, p.sent)
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
		p.odd.add("%s did not stop within a minute of SIGTERM", p.Name)
		p.signal(syscall.SIGKILL)
		<-p.ended
	}
}

// oddEnds are the ends of processes that no signal asked for: a panic, an error, an end
// unasked, a stop that took too long.
type oddEnds struct {
	mu   sync.Mutex
	list []string
}

func (o *oddEnds) add(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = append(o.list, fmt.Sprintf(format, args...))
}

func (o *oddEnds) all() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.list)
}
