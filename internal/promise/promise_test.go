package promise

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// judged records whether a test failed.
type judged struct {
	testing.TB
	failed bool
}

func (j *judged) Helper()               {}
func (j *judged) Logf(string, ...any)   {}
func (j *judged) Errorf(string, ...any) { j.failed = true }

func TestKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bounds")
	t.Setenv(report, path)
	for i, seen := range []time.Duration{5 * time.Second, 5*time.Second + time.Millisecond} {
		j := &judged{TB: t}
		Kept(j, "a change", time.Second, 5*time.Second, seen)
		if j.failed != (i == 1) {
			t.Errorf("after %s the test failed: %t", seen, j.failed)
		}
	}
	lines, err := os.ReadFile(path)
	if want := "a change\t1s\t5000.0\na change\t1s\t5001.0\n"; err != nil || string(lines) != want {
		t.Errorf("reported %q, %v", lines, err)
	}
}
