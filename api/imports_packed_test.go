package api

import (
	"bytes"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
)

// packed returns text in a coding, followed by follow.
func packed(tb testing.TB, coding, text string, follow ...string) string {
	tb.Helper()
	var out bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&out)
	if coding == codingZstd {
		var err error
		if w, err = zstd.NewWriter(&out); err != nil {
			tb.Fatal(err)
		}
	}
	if _, err := io.WriteString(w, text); err != nil {
		tb.Fatal(err)
	}
	for _, more := range follow {
		if _, err := io.WriteString(w, more); err != nil {
			tb.Fatal(err)
		}
	}
	require.NoError(tb, w.Close())
	return out.String()
}

// A packed body, form or file is read as its content.
func TestPackedUploads(t *testing.T) {
	t.Parallel()
	b := setup(t)
	head, tail := csvOfUsers[:30], csvOfUsers[30:]
	for _, coding := range []string{codingGzip, codingZstd} {
		pack := func(text string) string { return packed(t, coding, text) }
		form1, type1 := form(t, "file", "people.csv."+coding, pack(csvOfUsers))
		form2, type2 := form(t, "file", "people.csv", csvOfUsers)
		for name, test := range map[string]struct{ body, contentType, coding string }{
			"body":                   {pack(csvOfUsers), "text/csv", coding},
			"body in capitals":       {pack(csvOfUsers), "text/csv", strings.ToUpper(coding)},
			"body of several pieces": {pack(head) + pack("") + pack(tail), "text/csv", coding},
			"file as the body":       {pack(csvOfUsers), "text/csv", "identity"},
			"file in a form":         {form1, type1, "identity"},
			"form":                   {pack(form2), type2, coding},
			"file in a packed form":  {pack(form1), type1, coding},
		} {
			a := b.want(202, RoleAdmin, "POST", "/imports?kind=users", test.body,
				"Content-Type", test.contentType, "Content-Encoding", test.coding)
			if a.body["rows_total"] != 2.0 {
				t.Errorf("%s %s: %s", coding, name, a.raw)
			}
		}
	}
	b.want(202, RoleAdmin, "POST", "/imports?kind=users", packed(t, codingGzip, csvOfUsers), "Content-Type", "text/csv", "Content-Encoding", "x-gzip")
	b.wantCount(0, "SELECT count(*) FROM import_chunks WHERE data <> $1", []byte(csvOfUsers[len("username,email\n"):]))
}

// A packed file that is incomplete or damaged is refused, and no part of it is applied.
func TestBrokenPackedUploads(t *testing.T) {
	t.Parallel()
	b := setup(t)
	file := "username,email\n" + strings.ReplaceAll(rowsFrom(0)+rowsFrom(3000), "user1,", "äöü,") // several chunks
	for _, coding := range []string{codingGzip, codingZstd} {
		whole := packed(t, coding, file)
		flipped := []byte(whole)
		for i := len(whole) * 3 / 4; i < len(whole)*3/4+64; i++ {
			flipped[i] ^= 0x55
		}
		form, formType := form(t, "file", "a.csv", file)
		packedForm := packed(t, coding, form)
		for name, test := range map[string]struct{ body, contentType string }{
			"cut in half":               {whole[:len(whole)/2], "text/csv"},
			"without its end":           {whole[:len(whole)-3], "text/csv"},
			"damaged":                   {string(flipped), "text/csv"},
			"with more behind it":       {whole + "and more", "text/csv"},
			"something else":            {csvOfUsers, "text/csv"},
			"nothing":                   {"", "text/csv"},
			"a form that is cut":        {packedForm[:len(packedForm)-3], formType},
			"a form with a broken file": {packed(t, coding, form[:len(form)/2]), formType},
		} {
			a := b.want(400, RoleAdmin, "POST", "/imports?kind=users", test.body,
				"Content-Type", test.contentType, "Content-Encoding", coding)
			if strings.Contains(string(a.raw), "klauspost") {
				t.Errorf("%s %s: %s", coding, name, a.raw)
			}
		}
	}
	if n := b.count("SELECT count(*) FROM imports WHERE state = 'failed' AND error LIKE '%not sound as%'"); n < 2 {
		t.Errorf("%d imports failed for their packing", n)
	}
	b.wantCount(0, "SELECT count(*) FROM imports WHERE state <> 'failed'")
	b.wantCount(0, "SELECT count(*) FROM import_chunks")
}

func TestUnknownCodings(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, coding := range []string{"br", "deflate", "gzip, zstd", "gzip,gzip", "*"} {
		a := b.want(415, RoleAdmin, "POST", "/imports?kind=users", csvOfUsers, "Content-Type", "text/csv", "Content-Encoding", coding)
		if got := a.header.Get("Accept-Encoding"); got != "gzip, zstd" {
			t.Errorf("%s: Accept-Encoding is %q", coding, got)
		}
	}
}

// A window that would take much memory is refused, whatever the file is.
func TestUploadWithALargeWindow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithWindowSize(64<<20))
	require.NoError(t, err)
	for range 3 { // not all at once, because the frame would then state its size instead
		if _, err := io.WriteString(w, "username,email\n"+rowsFrom(0)); err != nil || w.Flush() != nil {
			t.Fatal(err)
		}
	}
	require.NoError(t, w.Close())
	a := b.want(400, RoleAdmin, "POST", "/imports?kind=users", out.String(), "Content-Type", "text/csv", "Content-Encoding", "zstd")
	if !strings.Contains(a.fields()["file"], "window") {
		t.Errorf("%s", a.raw)
	}
}

// A small body that unpacks to very much is refused at the bound, and takes no memory
// on the way.
func TestUploadOfBombs(t *testing.T) {
	const limit = 4 << 20
	b := setupOn(t, pgtest.Pool(t), func(o *Options) { o.ImportMaxBytes = limit })
	for _, coding := range []string{codingGzip, codingZstd} {
		for name, piece := range map[string]string{
			"rows":  strings.Repeat("a,a@example.com\n", 1<<16),
			"zeros": strings.Repeat("\x00", 1<<20),
		} {
			bomb := packed(t, coding, "username,email\n"+rowsFrom(0), slices.Repeat([]string{piece}, 256)...)
			form, formType := form(t, "file", "bomb.csv", bomb)
			for contentType, body := range map[string]string{"text/csv": bomb, formType: form} {
				grown := heapGrowth(func() {
					a := b.want(413, RoleAdmin, "POST", "/imports?kind=users", body, "Content-Type", contentType)
					if !strings.Contains(string(a.raw), "4194304") {
						t.Errorf("%s does not say how much is allowed", a.raw)
					}
				})
				if grown > 32<<20 {
					t.Errorf("%s of %s took %d bytes of memory", coding, name, grown)
				}
			}
		}
	}
	b.wantCount(0, "SELECT (SELECT count(*) FROM imports WHERE state <> 'failed') + (SELECT count(*) FROM import_chunks)")
}

// heapGrowth returns the most by which the heap grew while do ran.
func heapGrowth(do func()) uint64 {
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	var most atomic.Uint64
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			most.Store(max(most.Load(), now.HeapInuse))
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	do()
	close(done)
	<-stopped
	return most.Load() - min(before.HeapInuse, most.Load())
}
