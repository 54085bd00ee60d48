//go:build previous

package cli

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/rollup"
)

// TestPreviousRelease runs the previous release on a database that this release has
// migrated (I8). It has a build tag of its own, because it needs the binary of that
// release, which the environment variable SIGNPOST_PREVIOUS names ("make previous"). First it runs alone, then each process is replaced in
// the order of an upgrade, and back again.
func TestPreviousRelease(t *testing.T) {
	t.Parallel()
	previous := os.Getenv("SIGNPOST_PREVIOUS")
	if previous == "" {
		t.Fatal(`SIGNPOST_PREVIOUS names no binary: run "make previous"`)
	}
	current, err := binary()
	require.NoError(t, err)
	url, spool := pgtest.Empty(t), t.TempDir()
	start := func(binary, role string) *server {
		cmd := exec.Command(binary, role)
		cmd.Env = environment(url, spool, "PUBLIC_URL=https://sho.rt")
		if role == "migrate" {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("migrate: %v\n%s", err, out)
			}
			return nil
		}
		s := launch(t, role, cmd)
		return s
	}
	start(current, "migrate")
	pool := pgtest.Open(t, url)
	// This is so where the previous release was in use before the migration.
	pgtest.Exec(t, pool, "UPDATE installation SET keeps_quarters = true")

	clicks := 0
	for i, step := range []struct{ name, api, worker string }{
		{"the previous release", previous, previous},
		{"new workers", previous, current},
		{"a new api too", current, current},
		{"the api rolled back", previous, current},
		{"all of it rolled back", previous, previous},
	} {
		api, worker := start(step.api, "api"), start(step.worker, "worker")
		clicks += useAll(t, api, i)
		api.eventually(step.name+": every click to be counted", func() bool { return countEvents(t, url, "clicked") == clicks })
		if step.worker == current {
			api.eventually(step.name+": every click to be in the statistics", func() bool {
				compared, err := rollup.Check(t.Context(), pool)
				require.NoError(t, err)
				return compared.Differ == 0 && compared.Waiting == 0 && compared.Clicks == int64(clicks)
			})
		}
		api.eventually(step.name+": every click to be seen by the previous release", func() bool {
			return ask[int](t, url, "SELECT COALESCE(sum(clicks), 0) FROM click_days") == clicks
		})
		for _, s := range []*server{api, worker} {
			s.stop()
			for line := range strings.Lines(s.logs.String()) {
				if strings.Contains(line, `"level":"ERROR"`) {
					t.Errorf("%s: logged %s", step.name, line)
				}
			}
		}
	}
}

// useAll does everything that users do, once, with names that end in n, and returns how
// often it followed links. A call fails the test if its status is not the expected one.
func useAll(t *testing.T, api *server, n int) (clicks int) {
	t.Helper()
	user := api.post("/users", fmt.Sprintf(`{"username":"ada%d","email":"ada%d@example.org"}`, n, n), http.StatusCreated)
	link := api.post("/urls", fmt.Sprintf(`{"user_id":%v,"original_url":"https://example.org/a","tags":["x"]}`, user["id"]), http.StatusCreated)
	path, code := fmt.Sprintf("/urls/%v", link["id"]), "/"+link["short_code"].(string)
	follow := func(code, want string) {
		clicks++
		if got := api.redirect(code); got != want {
			t.Errorf("%s leads to %s, want %s", code, got, want)
		}
	}
	follow(code, "https://example.org/a")
	api.patch(path, `{"original_url":"https://example.org/b"}`, http.StatusOK)
	follow(code, "https://example.org/b")
	api.patch(path, `{"is_active":false}`, http.StatusOK)
	if got := api.status(code); got != http.StatusGone {
		t.Errorf("a link that is off answers %d", got)
	}
	if resp, body := api.do(http.MethodDelete, path, "", nil, api.token); resp.StatusCode != http.StatusNoContent {
		t.Errorf("DELETE %s: %s %s", path, resp.Status, body)
	}
	if got := api.status(code); got != http.StatusNotFound {
		t.Errorf("a link that is deleted answers %d", got)
	}

	for kind, text := range map[string]string{
		"users":  fmt.Sprintf("username,email\ngrace%d,grace%d@example.org\n", n, n),
		"urls":   fmt.Sprintf("user_id,short_code,original_url\n%v,loaded%d,https://example.org/loaded\n", user["id"], n),
		"events": fmt.Sprintf("url_id,event_type,timestamp\n,updated,%s\n", time.Now().UTC().Format(time.RFC3339)),
	} {
		file := filepath.Join(t.TempDir(), kind+".csv")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		job := api.upload(kind, file)
		if job["rows_imported"] != 1.0 && kind != "events" {
			t.Errorf("the import of %s came to %v", kind, job)
		}
		if kind == "users" { // this import is undone
			api.call(http.MethodPost, fmt.Sprintf("/imports/%v/undo", job["id"]), "", nil, api.token, http.StatusAccepted)
		}
	}
	follow(fmt.Sprintf("/loaded%d", n), "https://example.org/loaded")
	for _, list := range []string{"/users", "/urls?search=loaded", "/events", "/imports", "/tokens"} {
		api.getJSON(list, http.StatusOK)
	}
	for _, list := range []string{"/users", "/urls", "/events"} {
		api.download(list + "?format=csv")
	}
	return clicks
}
