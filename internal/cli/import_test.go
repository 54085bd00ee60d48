package cli

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
)

// TestImportCommand imports the example files as a person would do.
func TestImportCommand(t *testing.T) {
	t.Parallel()
	s := startDevOn(t, pgtest.URL(t))
	environ := s.client()
	rejected := filepath.Join(t.TempDir(), "rejected.csv")

	stdout := runs(t, environ, 1, "signpost: 2 rows were rejected\n", "import", "examples/users.csv", "--kind", "users", "--rejected", rejected)
	if want := "import 1 is completed: 38 imported, 0 updated, 0 skipped, 2 rejected, of 40 rows\n"; !strings.HasPrefix(stdout, want) {
		t.Errorf("it says %q, want %q", stdout, want)
	}
	file, err := os.ReadFile(rejected)
	if err != nil || bytes.Count(file, []byte("\n")) != 3 || !bytes.HasPrefix(file, []byte("line,reason,id,username")) {
		t.Errorf("rejected rows: %v\n%s", err, file)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(rejected), "*")); len(left) != 1 {
		t.Errorf("beside the rejected rows there is %v", left)
	}

	stdout = runs(t, environ, 0, "40 rejected", "import", "examples/users.csv", "--kind", "users", "--allow-rejected")
	if !strings.Contains(stdout, "\n  line 2: id ") || !strings.Contains(stdout, "and 30 more") {
		t.Errorf("it says %q", stdout)
	}
	runs(t, environ, 0, "0 imported, 0 updated, 40 skipped, 0 rejected", "import", "examples/users.csv", "--kind", "users", "--on-conflict", "skip")
	runs(t, environ, 0, "was a dry run, nothing was written: 195 imported", "import", "examples/urls.csv", "--kind", "urls", "--dry-run", "--allow-rejected")
	if n := s.getJSON("/urls", http.StatusOK)["count"]; n != 0.0 {
		t.Errorf("a dry run made %v links", n)
	}
	if name := s.getJSON("/imports/4", http.StatusOK)["filename"]; name != "urls.csv" {
		t.Errorf("the import is called %v", name)
	}

	for _, tt := range []struct {
		name, want string
		args       []string
	}{
		{"a wrong token", "unknown, expired or revoked", []string{"examples/users.csv", "--kind", "users", "--token", "sp_x"}},
		{"not a CSV file", "the file cannot be imported", []string{"go.mod", "--kind", "users"}},
		{"no such owner", "user_id is not a user", []string{"examples/urls.csv", "--kind", "urls", "--user-id", "99"}},
		{"a wrong time zone", "timezone", []string{"examples/urls.csv", "--kind", "urls", "--timezone", "Mars/Olympus"}},
		{"a wrong escape", "escape", []string{"examples/urls.csv", "--kind", "urls", "--escape", "slash"}},
		{"a wrong policy", "on_conflict", []string{"examples/urls.csv", "--kind", "urls", "--on-conflict", "maybe"}},
		{"a wrong mapping", "mapping", []string{"examples/urls.csv", "--kind", "urls", "--mapping", "x"}},
		{"no such import", "no such import", []string{"--watch", "99"}},
		{"no such file", "no such file", []string{"nothing.csv", "--kind", "urls"}},
		{"a folder", "folder", []string{"docs", "--kind", "urls"}},
	} {
		code, stdout, stderr := command(t, environ, append([]string{"import"}, tt.args...)...)
		if code != 1 || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 1 || stdout != "" {
			t.Errorf("%s: exit code %d, %q, %q; want one line with %q", tt.name, code, stdout, stderr, tt.want)
		}
	}
}

// TestImportSaysWhyRowsWereRejectedAlike checks that the reasons are printed before the
// rows, each once, and that their advice helps.
func TestImportSaysWhyRowsWereRejectedAlike(t *testing.T) {
	t.Parallel()
	s := startDevOn(t, pgtest.URL(t))
	s.post("/users", `{"username": "ann", "email": "ann@example.com"}`, http.StatusCreated)
	environ := s.client()
	file := casesOfFiles + "cp1252.csv"
	for _, tt := range []struct {
		name, want string
		code       int
		args       []string
	}{
		{
			"in another encoding", `import 1 is completed: 0 imported, 0 updated, 0 skipped, 2 rejected, of 2 rows
2 rows were rejected: the file is not UTF-8, it looks like Windows-1252 (first in line 2)
  --encoding windows-1252 reads it
  line 2: title must be valid UTF-8
  line 3: title must be valid UTF-8
`, 1, nil,
		},
		{
			"in its encoding", "import 2 is completed: 2 imported, 0 updated, 0 skipped, 0 rejected, of 2 rows\n",
			0,
			[]string{"--encoding", "cp1252"},
		},
		{
			"once more", `import 3 is completed: 0 imported, 0 updated, 0 skipped, 2 rejected, of 2 rows
2 rows were rejected: short_code is taken by an earlier row or by an existing one (first in line 2)
  --on-conflict skip passes over rows that are there already, --on-conflict update updates what they name
  line 2: short_code is taken by an earlier row or by an existing one
  line 3: short_code is taken by an earlier row or by an existing one
`, 1, []string{"--encoding", "cp1252"},
		},
		{
			"as it says", "import 4 is completed: 0 imported, 0 updated, 2 skipped, 0 rejected, of 2 rows\n",
			0,
			[]string{"--encoding", "cp1252", "--on-conflict", "skip"},
		},
	} {
		code, stdout, stderr := command(t, environ, append([]string{"import", file, "--kind", "urls", "--user-id", "1"}, tt.args...)...)
		if code != tt.code || stdout != tt.want {
			t.Errorf("%s: exit code %d, %q; it says\n%s\nwant\n%s", tt.name, code, stderr, stdout, tt.want)
		}
	}
	if problems, _ := s.getJSON("/imports/1", http.StatusOK)["problems"].([]any); len(problems) != 1 {
		t.Errorf("the problems of one encoding are %v", problems)
	}
	reserved := filepath.Join(t.TempDir(), "reserved.csv")
	require.NoError(t, os.WriteFile(reserved, []byte("short_code,original_url\nadmin/a b,https://e.example/\nadmin/x,https://e.example/x\n"), 0o600))
	runs(t, environ, 1, "1 row was imported: short_code is a reserved word, so the link answers under /r/admin/x (first in line 3)\n",
		"import", reserved, "--kind", "urls", "--user-id", "1")
	if location := s.redirect("/r/admin/x"); location != "https://e.example/x" {
		t.Errorf("the link that answers under /r/ leads to %q", location)
	}
	runs(t, environ, 1, "encoding must be utf-8, utf-16, windows-1252, iso-8859-1, iso-8859-15 or macintosh",
		"import", file, "--kind", "urls", "--user-id", "1", "--encoding", "klingon")
}

// TestImportThatCameToNothing checks that the output for an import that failed differs
// from that for one without rejected rows, and that rows which were rejected before the
// failure are kept.
func TestImportThatCameToNothing(t *testing.T) {
	t.Parallel()
	s := startDevOn(t, pgtest.URL(t))
	environ := s.client()
	runs(t, environ, 0, "completed", "import", "examples/users.csv", "--kind", "users", "--allow-rejected")
	rejected := filepath.Join(t.TempDir(), "rejected.csv")
	for _, tt := range []struct{ name, set, want string }{
		{"cancelled while it was received", "state = 'cancelled', rows_total = 0, rows_imported = 0, rows_rejected = 0", "import 1 is cancelled: 0 of 0 rows were looked at"},
		{"undone", "state = 'undone', rows_total = 40, rows_imported = 38, rows_rejected = 2", "import 1 is undone: 40 of 40 rows were looked at"},
		{"failed late", "state = 'failed', error = 'trouble'", "import 1 failed: trouble"},
	} {
		pgtest.Exec(t, pgtest.Open(t, s.database), "UPDATE imports SET "+tt.set)
		runs(t, environ, 1, "signpost: "+tt.want+"\n", "import", "--watch", "1", "--allow-rejected", "--rejected", rejected)
		file, err := os.ReadFile(rejected)
		if there := !strings.Contains(tt.set, "rows_rejected = 0"); there != (err == nil && bytes.Count(file, []byte("\n")) == 3) {
			t.Errorf("%s: rejected rows: %v\n%s", tt.name, err, file)
		}
		_ = os.Remove(rejected)
	}
}

// TestImportOfARefusedFile checks that the server's message about a large file is
// received, although the server stops reading long before the file was sent.
func TestImportOfARefusedFile(t *testing.T) {
	t.Parallel()
	environ := environment(pgtest.URL(t), t.TempDir(), "IMPORT_MAX_BYTES=60MiB")
	s := start(t, "api", environ)
	row := "somebody,somebody@example.com\n"
	for _, tt := range []struct {
		name, header, want string
		size               int
	}{
		{"too large", "username,email\n", "the file must be at most 62914560 bytes", 80 << 20},
		{"not of this kind", "name,mail\n", "the first line names no column of users", 50 << 20},
	} {
		file := filepath.Join(t.TempDir(), "users.csv")
		require.NoError(t, os.WriteFile(file, []byte(tt.header+strings.Repeat(row, tt.size/len(row))), 0o600))
		for _, input := range []string{file, "-"} {
			cmd := program(t, append(os.Environ(), s.client()...), "import", input, "--kind", "users")
			in, err := os.Open(file)
			require.NoError(t, err)
			cmd.Stdin = in
			out, err := cmd.CombinedOutput()
			_ = in.Close() // only read
			if text := string(out); err == nil || !strings.Contains(text, tt.want) || strings.Contains(text, "again") {
				t.Errorf("%s, from %s: %v: %s; want %q at once", tt.name, filepath.Base(input), err, text, tt.want)
			}
		}
	}
}

// TestImportThatHasToWait checks that a server which receives as many files as it may
// says so, and when to try again.
func TestImportThatHasToWait(t *testing.T) {
	t.Parallel()
	environ := environment(pgtest.URL(t), t.TempDir(), "IMPORT_MAX_UPLOADS=1")
	s := start(t, "api", environ)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // it holds the place until then
	_, err = io.WriteString(conn, "POST /users/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+testToken+"\r\n"+
		"Content-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nusern\r\n")
	require.NoError(t, err)
	s.eventually("the place to be taken", func() bool { return s.metric("signpost_uploads_active") == 1 })

	content := "username,email\n" + strings.Repeat("somebody,somebody@example.com\n", 1<<20)
	file := filepath.Join(t.TempDir(), "users.csv")
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	const answer = "as many files are received as may be at once, try again later"
	client := append(os.Environ(), s.client()...)
	waiting := begin(t, "import", program(t, client, "import", file, "--kind", "users"))
	s.eventually("the command to wait", func() bool { return strings.Contains(waiting.logs.String(), "\n") })
	if said := waiting.logs.String(); said != answer+"; trying again in 10s\n" {
		t.Errorf("the command says %q", said)
	}
	piped := program(t, client, "import", "-", "--kind", "users")
	piped.Stdin = strings.NewReader(content)
	out, err := piped.CombinedOutput()
	if want := "signpost: import -: " + answer + " (in 10s); what comes from a pipe cannot be sent again: save it to a file first\n"; err == nil || string(out) != want {
		t.Errorf("from a pipe: %v: %s; want %q", err, out, want)
	}
}

// TestImportFromAPipe sends a file whose length is not known.
func TestImportFromAPipe(t *testing.T) {
	t.Parallel()
	s := startDevOn(t, pgtest.URL(t))
	cmd := program(t, append(os.Environ(), s.client()...), "import", "-", "--kind", "users")
	cmd.Stdin = strings.NewReader("username,email\nann,ann@example.com\n")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "1 imported, 0 updated, 0 skipped, 0 rejected, of 1 row\n") {
		t.Errorf("%v: %s", err, out)
	}

	interrupted := program(t, cmd.Env, "import", "-", "--kind", "users")
	said := new(logBuffer)
	interrupted.Stderr = said
	in, err := interrupted.StdinPipe()
	if err == nil {
		err = interrupted.Start()
	}
	require.NoError(t, err)
	// This is more than a pipe holds, so when it is written, the upload has begun.
	if _, err := io.WriteString(in, "username,email\n"+strings.Repeat("eve,eve@example.com\n", 50_000)); err != nil {
		t.Fatal(err)
	}
	require.NoError(t, interrupted.Process.Signal(syscall.SIGINT))
	_ = interrupted.Wait()
	if code := interrupted.ProcessState.ExitCode(); code != 1 || !strings.HasPrefix(said.String(), "The upload was broken off.") || strings.Count(said.String(), "\n") != 1 {
		t.Errorf("after Ctrl-C: exit code %d, %s", code, said)
	}
	s.eventually("the upload to be given up", func() bool {
		imports := s.getJSON("/imports?limit=1", http.StatusOK)["data"].([]any)
		return imports[0].(map[string]any)["state"] != "receiving"
	})
	if n := s.getJSON("/users", http.StatusOK)["count"]; n != 1.0 {
		t.Errorf("%v users after a broken upload", n)
	}

	packed := filepath.Join(t.TempDir(), "more.csv.gz")
	var content bytes.Buffer
	w := gzip.NewWriter(&content)
	_, _ = io.WriteString(w, "username,email,shoe_size\nbob,bob@example.com,44\n") // into memory
	require.NoError(t, errors.Join(w.Close(), os.WriteFile(packed, content.Bytes(), 0o600)))
	stdout := runs(t, []string{"SIGNPOST_URL=" + s.url + "/", "SIGNPOST_TOKEN=" + s.token}, 0, "1 imported", "import", packed, "--kind", "users")
	if !strings.Contains(stdout, "columns that were not read: shoe_size") {
		t.Errorf("it says %q", stdout)
	}
}

// TestImportOutlivesItsConnections cuts the connection in the middle of an upload, at
// its answer and at answers while watching. It stops the watching with Ctrl-C and takes
// it up again, and restarts the server meanwhile. The file is imported once.
func TestImportOutlivesItsConnections(t *testing.T) {
	t.Parallel()
	const rows = 20_000
	var text strings.Builder
	text.WriteString("username,email\n")
	for i := range rows {
		fmt.Fprintf(&text, "user%d,user%d@example.com\n", i, i)
	}
	file := filepath.Join(t.TempDir(), "users.csv")
	require.NoError(t, os.WriteFile(file, []byte(text.String()), 0o600))

	url := pgtest.URL(t)
	environ := environment(url, t.TempDir())
	one := start(t, "api", environ)
	p := newProxy(t, one.url, func(connection, up, down int64) bool {
		switch connection {
		case 1: // in the middle of the upload
			return up > 200_000
		case 2: // when the whole file has arrived, before the answer
			return down > 0
		case 3: // while watching, once the answer has come under the same key
			return down > 2000
		case 4: // before anything
			return true
		}
		return false
	})
	clientEnviron := append(os.Environ(), "SIGNPOST_URL="+p.url, "SIGNPOST_TOKEN="+testToken)
	first := begin(t, "import", program(t, clientEnviron, "import", file, "--kind", "users"))
	one.eventually("the cuts", func() bool { return p.connections.Load() >= 5 })
	arrived := regexp.MustCompile(`import (\d+): the file has arrived`)
	one.eventually("the file to arrive", func() bool { return arrived.MatchString(first.logs.String()) })
	id := arrived.FindStringSubmatch(first.logs.String())[1]
	require.NoError(t, first.cmd.Process.Signal(syscall.SIGINT))
	if code := first.wait(); code != 1 || !strings.Contains(first.logs.String(), "signpost import --watch "+id) {
		t.Errorf("after Ctrl-C: exit code %d, %s", code, first.logs)
	}

	second := begin(t, "import", program(t, clientEnviron, "import", "--watch", id))
	before := p.connections.Load()
	one.eventually("the second to watch", func() bool { return p.connections.Load() > before })
	one.kill()
	one.eventually("the second to miss the server", func() bool { return strings.Contains(second.logs.String(), "trying again") })
	two := start(t, "api", environ)
	p.to(two.url)
	worker := start(t, "worker", environ)
	if code := second.wait(); code != 0 || !strings.Contains(second.logs.String(), "20,000 imported, 0 updated, 0 skipped, 0 rejected, of 20,000 rows") {
		t.Errorf("exit code %d: %s", code, second.logs)
	}
	if users := ask[int](t, url, "SELECT count(*) FROM users"); users != rows {
		t.Errorf("%d users of %d", users, rows)
	}
	if received := ask[int](t, url, "SELECT count(*) FROM imports WHERE state <> 'failed'"); received != 1 {
		t.Errorf("%d imports of one file", received)
	}
	worker.stop()
	two.stop()
}

// proxy passes on connections until cut says that one is to end.
type proxy struct {
	url         string
	connections atomic.Int64
	cut         func(connection, up, down int64) bool
	mu          sync.Mutex
	target      string
}

func newProxy(t *testing.T, target string, cut func(connection, up, down int64) bool) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{url: "http://" + listener.Addr().String(), cut: cut}
	p.to(target)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.pass(conn, p.connections.Add(1)) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return p
}

func (p *proxy) to(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = strings.TrimPrefix(target, "http://")
}

func (p *proxy) pass(client net.Conn, number int64) {
	defer client.Close() //nolint:errcheck // it is being cut
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close() //nolint:errcheck // it is being cut
	var up, down atomic.Int64
	move := func(to, from net.Conn, moved *atomic.Int64) {
		defer to.Close()   //nolint:errcheck // ends the other direction
		defer from.Close() //nolint:errcheck // ends the other direction
		buf := make([]byte, 8<<10)
		for {
			n, err := from.Read(buf)
			moved.Add(int64(n))
			if p.cut(number, up.Load(), down.Load()) {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
			if err != nil {
				return
			}
		}
	}
	var both sync.WaitGroup
	both.Go(func() { move(server, client, &up) })
	both.Go(func() { move(client, server, &down) })
	both.Wait()
}

// TestExportCommand checks that a file is saved either completely or not at all, even
// if the connection is cut in the middle.
func TestExportCommand(t *testing.T) {
	t.Parallel()
	s := startDevOn(t, pgtest.URL(t))
	pgtest.Exec(t, pgtest.Open(t, s.database), `
		INSERT INTO users (username, email) SELECT 'u' || n, md5(n::text) || '@example.com' FROM generate_series(1, 5000) n`)
	p := newProxy(t, s.url, func(connection, _, down int64) bool { return connection == 1 && down > 30_000 })
	environ := []string{"SIGNPOST_URL=" + p.url, "SIGNPOST_TOKEN=" + s.token}
	file := filepath.Join(t.TempDir(), "users.csv")
	code, stdout, stderr := command(t, environ, "export", "users", "-o", file)
	got, err := os.ReadFile(file)
	if code != 0 || stdout != "" || !strings.Contains(stderr, "trying again") || err != nil || bytes.Count(got, []byte("\n")) != 5001 {
		t.Errorf("exit code %d, %q, %q; %d bytes, %v", code, stdout, stderr, len(got), err)
	}
	if stdout := runs(t, environ, 0, "", "export", "users", "--format", "ndjson", "--filter", "limit=2"); strings.Count(stdout, "\n") != 2 {
		t.Errorf("two users are %q", stdout)
	}
	s.post("/domains", `{"host": "go.example"}`, http.StatusCreated)
	s.post("/urls", `{"user_id": 1, "short_code": "a", "original_url": "https://example.com/main"}`, http.StatusCreated)
	rows := filepath.Join(t.TempDir(), "urls.csv")
	require.NoError(t, os.WriteFile(rows, []byte("user_id,short_code,original_url\n1,a,https://example.com/go\n"), 0o600))
	runs(t, environ, 0, "1 imported", "import", rows, "--kind", "urls", "--domain", "go.example")
	if stdout := runs(t, environ, 0, "https://example.com/go", "export", "urls", "--domain", "go.example"); strings.Count(stdout, "\n") != 2 {
		t.Errorf("the links of a domain are %q", stdout)
	}
	runs(t, environ, 1, "domain", "export", "urls", "--domain", "other.example")
	runs(t, environ, 1, "user_id", "export", "urls", "-o", file, "--filter", "user_id=x")
	if again, _ := os.ReadFile(file); !bytes.Equal(again, got) {
		t.Errorf("an export that failed left %d bytes", len(again))
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
		t.Errorf("beside the file there is %v", left)
	}
}

func TestMeter(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	m := &meter{out: &out, terminal: true}
	m.begin("sending", 4096, true)
	m.at(4095)
	m.say("hello")
	m.at(5000) // more than there is
	m.begin("import 1 running", -1, false)
	m.at(3)
	m.end()
	m.end()
	if text := out.String(); !strings.Contains(text, "sending") || !strings.Contains(text, "hello\n") || !strings.Contains(text, "import 1 running") {
		t.Errorf("printed %q", text)
	}
}

// client is the environment of a command that talks to the server.
func (s *server) client() []string {
	return []string{"SIGNPOST_URL=" + s.url, "SIGNPOST_TOKEN=" + s.token}
}
