package pgtest_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
)

// helperEnv makes TestHelperWaits do its work, in a process of its own.
const helperEnv = "PGTEST_HELPER"

// TestHelperWaits is not a test by itself: another test starts it in a process. There
// it takes a database, reports that, and waits to be killed.
func TestHelperWaits(t *testing.T) {
	if os.Getenv(helperEnv) == "" {
		return
	}
	pgtest.URL(t)
	if _, err := os.Stdout.WriteString("ready\n"); err != nil {
		t.Fatal(err)
	}
	select {}
}

func helper(t *testing.T, tmp, run string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+run+"$")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, helperEnv+"=1")
	cmd.Stderr = os.Stderr
	return cmd
}

// tempFolder returns a folder for the temporary files of other processes. The server's
// user can get through it.
func tempFolder(t *testing.T) string {
	t.Helper()
	tmp, err := os.MkdirTemp("", "signpost-")
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, os.RemoveAll(tmp))
	})
	require.NoError(t, os.Chmod(tmp, 0o711))
	return tmp
}

func TestLeftoversOfAKilledProcessAreRemoved(t *testing.T) {
	t.Parallel()
	tmp := tempFolder(t)
	killed := helper(t, tmp, "TestHelperWaits")
	out, err := killed.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, killed.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the helper said %q, %v", line, err)
	}
	root := filepath.Join(tmp, "signpost-pgtest-"+strconv.Itoa(os.Getuid()))
	if n := len(folders(t, root)); n != 1 {
		t.Fatalf("%d folders while one process runs", n)
	}
	require.NoError(t, killed.Process.Kill())
	_ = killed.Wait() // the error says that it was killed
	aged := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(filepath.Dir(folders(t, root)[0]), aged, aged))

	if out, err := helper(t, tmp, "TestEmptyHasNoTables").Output(); err != nil {
		t.Fatalf("the next process: %v\n%s", err, out)
	}
	if left := folders(t, root); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func folders(t *testing.T, root string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(root, "*", "lock"))
	require.NoError(t, err)
	return all
}
