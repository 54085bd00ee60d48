package clicks

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/files"
)

// Every call that gives the file system a name goes through disk, so that tests can
// make it fail or hang.
func TestDiskIsTheOnlyWay(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	types := map[string]bool{"File": true, "SameFile": true}
	looked := 0
	for _, name := range files {
		if name == "disk.go" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		looked++
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			switch of, _ := sel.X.(*ast.Ident); {
			case of != nil && of.Name == "os" && !types[sel.Sel.Name]:
				t.Errorf("%s calls os.%s", name, sel.Sel.Name)
			case sel.Sel.Name == "Truncate" && (of == nil || of.Name != "time"),
				sel.Sel.Name == "ReadAt", sel.Sel.Name == "WriteAt", sel.Sel.Name == "Readdirnames", sel.Sel.Name == "ReadDir":
				t.Errorf("%s calls %s of a file", name, sel.Sel.Name)
			}
			return true
		})
	}
	if looked < 10 {
		t.Errorf("looked at %d files", looked)
	}
}

// If a disk takes long for old segments (a busy journal, a large directory), no new
// click is lost: the writer gets its files without waiting for that.
func TestOldSegmentsHoldUpNoNewOnes(t *testing.T) {
	t.Parallel()
	for name, hang := range map[string]func(d *disk, wait func()){
		"giving space back": func(d *disk, wait func()) {
			truncate := d.truncate
			d.truncate = func(path string) error { wait(); return truncate(path) }
		},
		"moving a removed segment": func(d *disk, wait func()) {
			rename := d.rename
			d.rename = func(from, to string) error {
				if filepath.Base(filepath.Dir(to)) == goneName {
					wait()
				}
				return rename(from, to)
			}
		},
		"moving a shipped segment": func(d *disk, wait func()) {
			setTime := d.setTime
			d.setTime = func(path string, at time.Time) error { wait(); return setTime(path, at) }
		},
		"listing the kept": func(d *disk, wait func()) {
			readDir := d.readDir
			d.readDir = func(path string, visit func(fs.DirEntry)) error {
				if filepath.Base(path) == keptName {
					wait()
				}
				return readDir(path, visit)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun, release := make(chan struct{}), make(chan struct{})
			begin, goOn := sync.OnceFunc(func() { close(begun) }), sync.OnceFunc(func() { close(release) })
			d := realDisk()
			hang(&d, func() { begin(); <-release })
			o := testOptions(t)
			o.Keep, o.Metrics = 0, NewMetrics(nil)
			s := mustOpenOn(t, o, d)
			defer goOn()
			mustSegment(t, s, 1)
			var shipper sync.WaitGroup
			defer shipper.Wait()
			shipper.Go(func() {
				ship(t, s)
				if _, err := s.RemoveExpired(time.Now()); err != nil {
					t.Error(err)
				}
			})
			defer goOn()
			<-begun

			const callers, total = 16, 20 << 20
			c := click(2)
			c.UserAgent = strings.Repeat("x", MaxUserAgent)
			each := total / callers / len(appendRecord(nil, c, c.UserAgent, ""))
			done := make(chan struct{})
			go func() {
				defer close(done)
				var wg sync.WaitGroup
				for range callers {
					wg.Go(func() {
						for range each {
							if err := s.Append(c); err != nil {
								t.Errorf("append: %v", err)
								return
							}
						}
					})
				}
				wg.Wait()
			}()
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Error("the clicks wait for old segments")
				goOn()
				<-done
			}
		})
	}
}

// A file that cannot be made durable in its folder is not used, and another one is made
// once that is possible again.
func TestSyncOfFolderFails(t *testing.T) {
	t.Parallel()
	var trouble failing
	d := realDisk()
	d.syncDir = func(path string) error {
		if err := trouble.get(); err != nil {
			return &fs.PathError{Op: "sync", Path: path, Err: err}
		}
		return files.SyncDir(path)
	}
	o := testOptions(t)
	o.Durability = Disk
	s := mustOpenOn(t, o, d)
	mustAppend(t, s, 1)
	trouble.set(syscall.EACCES)
	kept := 1
	eventually(t, "drops", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_ = s.SealNow(ctx) // gives up the file, if there is one
		err := s.Append(click(2))
		if err == nil {
			kept++ // into a file that was made before
		}
		return err != nil && reasonOf(t, err) == DropUnwritable
	})
	trouble.set(nil)
	eventually(t, "appends again", func() bool { return s.Append(click(3)) == nil })
	mustSeal(t, s)
	if got := ship(t, s); len(got) != kept+1 {
		t.Errorf("shipped %v, want %d clicks", got, kept+1)
	}
}
