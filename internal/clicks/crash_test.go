package clicks

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	crashDir   = "SIGNPOST_TEST_CRASH_DIR"
	crashFirst = "SIGNPOST_TEST_CRASH_FIRST"
	crashMode  = "SIGNPOST_TEST_CRASH_MODE"
	crashOnce  = "SIGNPOST_TEST_CRASH_ONCE" // die when the first append has returned
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		appendForever(dir)
	}
	os.Exit(m.Run())
}

// appendForever is the child of TestCrash. It prints "?n" before it appends click n,
// and "!n" once that is acknowledged.
func appendForever(dir string) {
	first, err := strconv.Atoi(os.Getenv(crashFirst))
	if err != nil {
		panic(err)
	}
	s, err := Open(Options{
		Dir:          dir,
		Durability:   Durability(os.Getenv(crashMode)),
		SegmentBytes: 4 << 10,
		SegmentAge:   2 * time.Millisecond,
		Log:          slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	if os.Getenv(crashOnce) != "" {
		if err := s.Append(click(first)); err != nil {
			panic(err)
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	var mu sync.Mutex
	next := func() int {
		mu.Lock()
		defer mu.Unlock()
		first++
		return first
	}
	for range 7 {
		go func() {
			for {
				n := next()
				say("?", n)
				if s.Append(click(n)) == nil {
					say("!", n)
				}
			}
		}()
	}
	for range s.Sealed() { // ship a part of the segments, as far as that is possible without Postgres
		segs, err := s.Segments("")
		if err != nil {
			panic(err)
		}
		if len(segs) > 0 {
			if _, err := s.Read(segs[0]); err != nil {
				panic(err)
			}
		}
	}
}

// say writes one line with one system call, so that lines stay whole.
func say(what string, n int) {
	if _, err := fmt.Fprintf(os.Stdout, "%s%d\n", what, n); err != nil {
		panic(err)
	}
}

// If a process dies after its append returned and before the redirect is answered, the
// next process ships the click once.
func TestDieBetweenAppendAndAnswer(t *testing.T) {
	t.Parallel()
	for _, mode := range []Durability{Process, Disk} {
		o := testOptions(t)
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		child.Env = append(os.Environ(), crashDir+"="+o.Dir, crashFirst+"=7", crashMode+"="+string(mode), crashOnce+"=1")
		out, err := child.CombinedOutput()
		var ended *exec.ExitError
		if !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the child ended with %v\n%s", err, out)
		}
		wantMarkers(t, ship(t, mustOpen(t, o)), 7)
	}
}

// This tests I1 and the spool's half of I2. A process that appends from many goroutines
// is killed at random moments, again and again on one directory. Each click that was
// acknowledged is there, none is there twice, and none is there that was not attempted.
func TestCrash(t *testing.T) {
	t.Parallel()
	for _, mode := range []Durability{Process, Disk} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			attempted, acknowledged := make(map[int]bool), make(map[int]bool)
			for round := range 8 {
				killWhileAppending(t, dir, mode, round*10_000_000, attempted, acknowledged)
			}
			o := testOptions(t)
			o.Dir = dir
			s := mustOpen(t, o)
			recovered := make(map[int]int)
			for _, m := range ship(t, s) {
				recovered[m]++
			}
			for m, n := range recovered {
				if n > 1 || !attempted[m] {
					t.Errorf("click %d is there %d times, attempted: %t", m, n, attempted[m])
				}
			}
			for m := range acknowledged {
				if recovered[m] == 0 {
					t.Errorf("acknowledged click %d is lost", m)
				}
			}
			if len(acknowledged) == 0 {
				t.Error("nothing was acknowledged")
			}
			t.Logf("acknowledged %d, recovered %d, attempted %d", len(acknowledged), len(recovered), len(attempted))
		})
	}
}

// killWhileAppending runs a child and kills it after a random number of
// acknowledged clicks.
func killWhileAppending(t *testing.T, dir string, mode Durability, first int, attempted, acknowledged map[int]bool) {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), crashDir+"="+dir, crashFirst+"="+strconv.Itoa(first), crashMode+"="+string(mode))
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	child.Stderr = os.Stderr
	require.NoError(t, child.Start())
	enough := 1 + rand.IntN(2000)
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break // the pipe is empty and its writer dead
		}
		require.NoError(t, err)
		n, err := strconv.Atoi(line[1 : len(line)-1])
		if err != nil {
			t.Fatalf("child says %q", line)
		}
		if line[0] == '?' {
			attempted[n] = true
			continue
		}
		acknowledged[n] = true
		if enough--; enough == 0 {
			require.NoError(t, child.Process.Kill())
		}
	}
	if err := child.Wait(); err == nil {
		t.Error("the child ended by itself")
	}
}
