// Package redistest runs private Redis servers that a test may kill, pause and restart.
//
// It needs the redis-server binary, which tools/setup.sh test installs.
package redistest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const startTimeout = 30 * time.Second

// A Server is a private Redis on a Unix socket. It stores nothing on disk unless its
// arguments say so.
type Server struct {
	dir  string
	args []string

	mu    sync.Mutex
	cmd   *exec.Cmd     // nil while the server does not run
	ended chan struct{} // closed when the server has ended
}

// Start runs a server of the test's own until the test ends. args are further arguments
// of redis-server, such as "--maxmemory", "2mb".
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	s, err := Run(args...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// Run is like Start, without a test; the caller closes the server.
func Run(args ...string) (*Server, error) {
	// This is not the test's own folder, since the path of that may be too long for a
	// socket.
	dir, err := os.MkdirTemp("", "signpost-redis-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, args: args}
	if err := s.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// Socket is the path of the server's socket.
func (s *Server) Socket() string { return filepath.Join(s.dir, "redis.sock") }

// URL is the server's address.
func (s *Server) URL() string { return "unix://" + s.Socket() }

// Start starts the server again after Kill and waits until it answers.
func (s *Server) Start() error {
	args := append([]string{
		"--port", "0", "--unixsocket", s.Socket(), "--dir", s.dir, "--save", "", "--appendonly", "no",
		"--loglevel", "warning", "--logfile", filepath.Join(s.dir, "log"),
	}, s.args...)
	cmd := exec.Command("redis-server", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		// The signal at the death of the parent depends on the thread, so the thread
		// must not end before the server.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the error says that it was killed
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start redis-server (tools/setup.sh test installs it): %w", err)
	}
	s.mu.Lock()
	s.cmd, s.ended = cmd, ended
	s.mu.Unlock()
	return s.await(ended)
}

func (s *Server) await(ended <-chan struct{}) error {
	deadline := time.Now().Add(startTimeout)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := s.Do("TIME"); err == nil || strings.Contains(err.Error(), "NOAUTH") {
			return nil
		} else if time.Now().After(deadline) {
			return fmt.Errorf("redis-server does not answer: %w", err)
		}
		select {
		case <-ended:
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("redis-server ended: %s", log)
		case <-tick.C:
		}
	}
}

// Do sends an inline command, whose words must not hold spaces, and returns the first
// line of the answer. If the server answers with an error, Do returns it as its error.
func (s *Server) Do(words ...string) (string, error) {
	conn, err := net.Dial("unix", s.Socket())
	if err != nil {
		return "", err
	}
	defer conn.Close() //nolint:errcheck // read and written
	if err := conn.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprint(conn, strings.Join(words, " ")+"\r\n"); err != nil {
		return "", err
	}
	buffer := make([]byte, 64<<10)
	n, err := conn.Read(buffer)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(buffer[:n]), "\r\n")
	if text, refused := strings.CutPrefix(line, "-"); refused {
		return "", errors.New(text)
	}
	return line, nil
}

// Kill ends the server at once (SIGKILL) and waits until it is gone.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended already
	<-s.ended
	s.cmd = nil
	_ = os.Remove(s.Socket())
}

// Pause stops the server without closing its connections, until Resume.
func (s *Server) Pause() error { return s.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume continues a paused server.
func (s *Server) Resume() error { return s.cmd.Process.Signal(syscall.SIGCONT) }

// Close kills the server and removes its files.
func (s *Server) Close() error {
	s.Kill()
	return os.RemoveAll(s.dir)
}
