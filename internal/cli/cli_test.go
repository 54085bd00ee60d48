package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/config"
	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

// TestMain runs the tests in the folder of the repository, in which commands usually
// run.
func TestMain(m *testing.M) {
	if err := os.Chdir("../.."); err != nil {
		panic(err)
	}
	pgtest.Main(m)
}

// command runs one command to its end and returns its output.
func command(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	code = Run(ctx, args, environ, &out, &errs)
	return code, out.String(), errs.String()
}

// runs runs a command and checks its exit code, and that it prints a text.
func runs(t *testing.T, environ []string, code int, text string, args ...string) (stdout string) {
	t.Helper()
	got, stdout, stderr := command(t, environ, args...)
	if got != code || !strings.Contains(stdout+stderr, text) {
		t.Errorf("signpost %s: exit code %d, %q, %q; want %d and %q", strings.Join(args, " "), got, stdout, stderr, code, text)
	}
	return stdout
}

func TestCommands(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		args     []string
		environ  []string
		wantCode int
		wantOut  string
		wantErr  string
	}{
		{"version", []string{"version"}, nil, 0, "signpost dev (commit ", ""},
		{"help", []string{"--help"}, nil, 0, "Serve redirects and the management API", ""},
		{"unknown command", []string{"serve"}, nil, 1, "", `unknown command "serve"`},
		{"unknown flag", []string{"api", "--port", "1"}, nil, 1, "", "unknown flag: --port"},
		{"config", []string{"config"}, []string{"CACHE_SIZE=5"}, 0, "CACHE_SIZE", ""},
		{"config hides the token", []string{"config"}, []string{"ADMIN_TOKEN=correct-horse-battery"}, 0, "ADMIN_TOKEN", ""},
		{"wrong value", []string{"config"}, []string{"CACHE_SIZE=many"}, 1, "", "CACHE_SIZE"},
		{"every wrong value", []string{"config"}, []string{"LOG_LEVEL=loud", "SPOOL_KEEP=soon"}, 1, "", "SPOOL_KEEP"},
		{"no database", []string{"api"}, nil, 1, "", "DATABASE_URL is not set"},
		{"wrong queue", []string{"worker", "--queues", "clocks=2"}, []string{"DATABASE_URL=postgres://localhost:1/x", "ADMIN_ADDR=127.0.0.1:0"}, 1, "", "--queues"},
		{"health of nothing", []string{"healthcheck", "--url", "http://127.0.0.1:1/health"}, nil, 1, "", "ask for health"},
		{"token without a name", []string{"token", "create", "--role", "admin"}, nil, 1, "", `required flag(s) "name" not set`},
		{"restore of no month", []string{"events", "restore", "March"}, nil, 1, "", `"March" must be a month such as 2025-03`},
		{"restore from nowhere", []string{"events", "restore", "2025-03"}, []string{"DATABASE_URL=postgres://127.0.0.1:1/x", "EVENTS_ARCHIVE=none"}, 1, "", "there is no archive"},
		{"retention without an archive", []string{"worker"}, []string{"DATABASE_URL=postgres://127.0.0.1:1/x", "EVENTS_RETENTION_MONTHS=12"}, 1, "", "with EVENTS_ARCHIVE set"},
		{"unreachable database", []string{"token", "list"}, []string{"DATABASE_URL=postgres://127.0.0.1:1/x"}, 1, "", "the database cannot be reached: 127.0.0.1:1/x: connection refused"},
		{"database that is no URL", []string{"migrate"}, []string{"DATABASE_URL=postgres://app:correct-horse-battery#1@db/x"}, 1, "", "write %23"},
		{"database in quotes", []string{"token", "list"}, []string{`DATABASE_URL= "postgres://127.0.0.1:1/x?sslmode=disable"`}, 1, "", "127.0.0.1:1/x: connection refused"},
		{"import of nothing", []string{"import"}, nil, 1, "", "give one file"},
		{"import of no kind", []string{"import", "x.csv"}, nil, 1, "", "--kind"},
		{"import of an unknown kind", []string{"import", "x.csv", "--kind", "links"}, nil, 1, "", "users, urls or events"},
		{"import of a file and another", []string{"import", "x.csv", "--watch", "1"}, nil, 1, "", "not both"},
		{"import without a token", []string{"import", "x.csv", "--kind", "urls", "--server", "https://sho.rt"}, nil, 1, "", "there is no token"},
		{"import to no URL", []string{"import", "x.csv", "--kind", "urls"}, []string{"SIGNPOST_URL=sho.rt", "SIGNPOST_TOKEN=x"}, 1, "", "must be a URL"},
		{"import to nobody", []string{"import", "x.csv", "--kind", "urls", "--server", "http://127.0.0.1:1", "--token", "x"}, nil, 1, "", "cannot be reached"},
		{"export of an unknown kind", []string{"export", "links"}, nil, 1, "", "invalid argument"},
		{"export of an unknown format", []string{"export", "urls", "--format", "xml"}, nil, 1, "", "csv or ndjson"},
		{"export with a wrong filter", []string{"export", "urls", "--filter", "sale"}, nil, 1, "", "tag=sale"},
		{"spool that is not there", []string{"spool", "ship", "/nonexistent"}, []string{"DATABASE_URL=postgres://127.0.0.1:1/x"}, 1, "", "database cannot be reached"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := command(t, tt.environ, tt.args...)
			if code != tt.wantCode {
				t.Errorf("exit code %d, want %d; stderr:\n%s", code, tt.wantCode, stderr)
			}
			if !strings.Contains(stdout, tt.wantOut) {
				t.Errorf("stdout lacks %q:\n%s", tt.wantOut, stdout)
			}
			if !strings.Contains(stderr, tt.wantErr) {
				t.Errorf("stderr lacks %q:\n%s", tt.wantErr, stderr)
			}
			if strings.Contains(stdout+stderr, "correct-horse-battery") {
				t.Error("a secret was printed")
			}
		})
	}
}

func TestConfigurationPageIsInStep(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/configuration.md")
	require.NoError(t, err)
	if string(page) != config.Markdown() {
		t.Error(`docs/configuration.md is out of step: run "make generate"`)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	environ := []string{"DATABASE_URL=" + pgtest.URL(t)}
	secret := runs(t, environ, 0, "", "token", "create", "--name", "deploy", "--role", "editor", "--expires", "90d")
	if len(strings.TrimSpace(secret)) < 32 {
		t.Fatalf("create printed %q", secret)
	}
	runs(t, environ, 1, "admin", "token", "create", "--name", "x", "--role", "king")
	runs(t, environ, 1, "positive", "token", "create", "--name", "x", "--role", "admin", "--expires", "-1h")
	list := runs(t, environ, 0, "deploy", "token", "list")
	if !strings.Contains(list, "editor") || strings.Contains(list, strings.TrimSpace(secret)) {
		t.Errorf("list printed:\n%s", list)
	}
	for range 2 {
		runs(t, environ, 0, "token 1 is revoked\n", "token", "revoke", "1")
	}
	for _, id := range []string{"99", "one"} {
		if out := runs(t, environ, 1, "", "token", "revoke", id); out != "" {
			t.Errorf("revoke %s printed %q", id, out)
		}
	}
}

func TestBatches(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	environ := []string{"DATABASE_URL=" + url}
	pool := pgtest.Open(t, url)
	_, err := pool.Exec(t.Context(), `INSERT INTO click_batches (id, payload, clicks, oldest_at, failed_at, failure)
		SELECT 'failed-' || n, '\x00', 3, now(), now(), 'malformed' FROM generate_series(1, 2) n`)
	require.NoError(t, err)
	if out := runs(t, environ, 0, "failed-1", "batches", "list"); strings.Count(out, "malformed") != 2 {
		t.Errorf("list:\n%s", out)
	}
	out := runs(t, environ, 1, `"nonsense" is not the id of a failed batch`, "batches", "retry", "nonsense", "failed-1")
	if out != "batch failed-1 is tried again\n" {
		t.Errorf("retry printed %q", out)
	}
	runs(t, environ, 0, "batch failed-2 is dropped\n", "batches", "drop", "failed-2")
	if out := runs(t, environ, 0, "", "batches", "list"); strings.Contains(out, "malformed") {
		t.Errorf("list after retry and drop:\n%s", out)
	}
	var queued, dropped int
	err = pool.QueryRow(t.Context(), `SELECT
		(SELECT count(*) FROM click_batches b JOIN river_job j ON j.id = b.job_id WHERE b.id = 'failed-1' AND j.state = 'available'),
		(SELECT count(*) FROM click_batches WHERE id = 'failed-2' AND payload IS NULL)`).Scan(&queued, &dropped)
	if err != nil || queued != 1 || dropped != 1 {
		t.Errorf("%d queued, %d dropped, want 1 and 1 (%v)", queued, dropped, err)
	}
}

// A worker retires a month to an archive folder, and the commands show it and restore
// it.
func TestEvents(t *testing.T) {
	t.Parallel()
	url, dir := pgtest.URL(t), t.TempDir()
	environ := []string{
		"DATABASE_URL=" + url, "ADMIN_ADDR=127.0.0.1:0", "EVENTS_RETENTION_MONTHS=1", "EVENTS_ARCHIVE=" + dir, "LOG_LEVEL=error",
	}
	month := postgres.MonthOf(time.Now()).AddDate(0, -2, 0)
	pool := pgtest.Open(t, url)
	require.NoError(t, postgres.EnsurePartitions(t.Context(), pool, []time.Time{month}))
	pgtest.Exec(t, pool, "INSERT INTO events (occurred_at, event_type) SELECT $1, 'clicked' FROM generate_series(1, 7)", month)
	text := month.Format("2006-01")
	runs(t, environ, 0, text+"  -     in the database", "events", "list")
	ctx, stop := context.WithCancel(t.Context())
	worker := make(chan int, 1)
	go func() { worker <- Run(ctx, []string{"worker"}, environ, io.Discard, io.Discard) }()
	listed := func() bool {
		_, out, _ := command(t, environ, "events", "list")
		return strings.Contains(out, text+"  1     archived")
	}
	for deadline := time.Now().Add(30 * time.Second); !listed(); <-time.After(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the month was not retired")
		}
	}
	stop()
	if code := <-worker; code != 0 {
		t.Errorf("the worker ended with %d", code)
	}
	if _, out, _ := command(t, environ, "events", "list", "--from", dir); !regexp.MustCompile(text + `  1     [0-9a-f-]{36}  7 `).MatchString(out) {
		t.Errorf("list of the archive:\n%s", out)
	}
	runs(t, environ, 0, "restored "+text+": 7 rows of 1 parts, for 30 days\n", "events", "restore", text)
	if rows := ask[int](t, url, "SELECT count(*) FROM events"); rows != 7 {
		t.Errorf("%d events after the restore, want 7", rows)
	}
}

func TestOlderSchemaIsRefused(t *testing.T) {
	t.Parallel()
	environ := []string{"DATABASE_URL=" + pgtest.Empty(t), "LISTEN_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0", "SPOOL_DIR=" + t.TempDir()}
	for _, role := range []string{"api", "worker"} {
		runs(t, environ, 1, "signpost migrate", role)
	}
}

func TestLocalURL(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		":8080": "http://localhost:8080", "0.0.0.0:80": "http://localhost:80", "[::]:80": "http://localhost:80",
		"127.0.0.1:9": "http://127.0.0.1:9", "[::1]:9": "http://[::1]:9",
	} {
		if got := localURL(addr); got != want {
			t.Errorf("localURL(%q) = %q, want %q", addr, got, want)
		}
	}
}
