package cli

import (
	"bytes"
	"encoding/json"
	"image"
	_ "image/png"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
)

// shell is a person in the folder in which "signpost dev" runs.
type shell struct {
	t       *testing.T
	folder  string
	environ []string
}

// run runs a command, which must end with this exit code, and returns what it prints.
func (s *shell) run(code int, args ...string) (stdout, stderr string) {
	s.t.Helper()
	cmd := program(s.t, s.environ, args...)
	cmd.Dir = s.folder
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		require.ErrorAs(s.t, err, new(*exec.ExitError))
	}
	require.Equal(s.t, code, cmd.ProcessState.ExitCode(), "signpost %s: %s%s", strings.Join(args, " "), &out, &errs)
	return out.String(), errs.String()
}

// links runs a command for links that succeeds, and returns its lines.
func (s *shell) links(args ...string) []string {
	s.t.Helper()
	out, _ := s.run(0, append([]string{"links"}, args...)...)
	return strings.Split(strings.TrimSuffix(out, "\n"), "\n")
}

// startShell starts "signpost dev" in a folder, and returns who works there.
func startShell(t *testing.T) (*shell, *server) {
	t.Helper()
	folder := t.TempDir()
	environ := environment(pgtest.URL(t), "", "PUBLIC_URL=https://sho.rt", "ADMIN_TOKEN=")
	s := launch(t, "dev", program(t, environ, "dev", "--data", filepath.Join(folder, ".signpost")))
	token, err := os.ReadFile(filepath.Join(folder, ".signpost", "admin-token"))
	require.NoError(t, err)
	s.token = strings.TrimSpace(string(token))
	return &shell{t, folder, os.Environ()}, s
}

// Links are made, found, changed, switched and deleted in the terminal, by code, short
// URL and id, without an address and a token.
func TestLinksInTheTerminal(t *testing.T) {
	t.Parallel()
	sh, s := startShell(t)
	_, stderr := sh.run(1, "links", "create", "https://example.org/")
	assert.Contains(t, stderr, "--user ID")
	s.post("/users", `{"username":"ada","email":"ada@example.org"}`, http.StatusCreated)

	drawn := sh.links("create", "https://example.org/drawn")
	assert.Regexp(t, `^https://sho\.rt/[0-9A-Za-z]{7}$`, drawn[0])
	assert.Equal(t, []string{"https://sho.rt/spring"}, sh.links("create", "https://example.org/spring", "--code", "spring",
		"--title", "Spring\tsale", "--tag", "sale", "--tag", "new", "--expires", "2099-01-01T00:00:00Z", "--redirect-status", "307", "--forward-query"))
	_, stderr = sh.run(5, "links", "create", "https://example.org/", "--code", "spring")
	assert.Contains(t, stderr, "short_code is taken")
	_, stderr = sh.run(1, "links", "create", "ftp://example.org/")
	assert.Contains(t, stderr, "original_url")

	assert.Equal(t, "https://example.org/spring", s.redirectStatus("/spring", http.StatusTemporaryRedirect))
	var link map[string]any
	require.NoError(t, json.Unmarshal([]byte(sh.links("show", "https://sho.rt/spring", "--json")[0]), &link))
	assert.Equal(t, "spring", link["short_code"])
	assert.Equal(t, []any{"sale", "new"}, link["tags"])
	assert.Equal(t, true, link["forward_query"])
	show := sh.links("show", "2")
	assert.Contains(t, show, "short url\thttps://sho.rt/spring")
	assert.Contains(t, show, "ends\t2099-01-01T00:00:00Z")

	assert.Equal(t, []string{"https://sho.rt/spring"}, sh.links("change", "spring", "--url", "https://example.org/summer", "--title=", "--tag=", "--expires", "never"))
	require.NoError(t, json.Unmarshal([]byte(sh.links("show", "spring", "--json")[0]), &link))
	assert.Equal(t, []any{"https://example.org/summer", nil, []any{}, nil, 307.0},
		[]any{link["original_url"], link["title"], link["tags"], link["expires_at"], link["redirect_status"]})
	_, stderr = sh.run(1, "links", "change", "spring")
	assert.Contains(t, stderr, "say what to change")

	assert.Equal(t, []string{"https://sho.rt/spring", drawn[0]}, sh.links("off", "spring", drawn[0]))
	assert.Equal(t, http.StatusGone, s.status("/spring"))
	list := sh.links("list")
	require.Len(t, list, 2)
	fields := strings.Split(list[0], "\t")
	require.Len(t, fields, 8)
	assert.Equal(t, []string{"https://sho.rt/spring", "https://example.org/summer", "off"}, []string{fields[0], fields[1], fields[4]})
	sh.links("on", "1")
	assert.Len(t, sh.links("list", "--active"), 1)
	assert.Len(t, sh.links("list", "--limit", "1"), 1)
	assert.Equal(t, []string{""}, sh.links("list", "--search", "autumn"))

	_, stderr = sh.run(2, "links", "delete", "spring")
	assert.Contains(t, stderr, "--yes")
	sh.links("delete", "spring", "--yes")
	for _, args := range [][]string{{"show", "spring"}, {"off", "17"}, {"delete", "-y", "https://sho.rt/spring"}, {"qr", "spring"}, {"change", "spring", "--title", "x"}} {
		_, stderr = sh.run(3, append([]string{"links"}, args...)...)
		assert.Contains(t, stderr, "no such link")
	}
	_, stderr = sh.run(4, "links", "list", "--token", "wrong")
	assert.Contains(t, stderr, "token")
	sh.folder = t.TempDir()
	_, stderr = sh.run(4, "links", "list", "--server", s.url)
	assert.Contains(t, stderr, "there is no token")
}

// A list is walked over all of its pages.
func TestLinksListGoesOn(t *testing.T) {
	t.Parallel()
	sh, s := startShell(t)
	s.post("/users", `{"username":"ada","email":"ada@example.org"}`, http.StatusCreated)
	for range 3 {
		s.post("/urls", `{"user_id":1,"original_url":"https://example.org/a"}`, http.StatusCreated)
	}
	assert.Len(t, sh.links("list", "--limit", "2", "--json"), 2)
	assert.Len(t, sh.links("list", "--limit", "0"), 3)
}

// A QR code is drawn as text, and saved as SVG and PNG.
func TestLinksQR(t *testing.T) {
	t.Parallel()
	sh, s := startShell(t)
	s.makeLink()
	drawn := sh.links("qr", "a", "--level", "L", "--margin", "2")
	assert.Len(t, drawn, 15, "two modules a line: 25 and a margin of 2 on both sides")
	assert.Contains(t, drawn[1], "█▀▀▀▀▀█")

	sh.links("qr", "a", "--out", "a.svg", "--foreground", "063")
	svg, err := os.ReadFile(filepath.Join(sh.folder, "a.svg"))
	require.NoError(t, err)
	assert.Contains(t, string(svg), `fill="#006633"`)
	out := sh.links("qr", "https://sho.rt/a", "--out", "a.png", "--size", "300", "--json")
	assert.JSONEq(t, `{"short_url": "https://sho.rt/a", "address": "https://sho.rt/a?qr", "file": "a.png"}`, out[0])
	file, err := os.Open(filepath.Join(sh.folder, "a.png"))
	require.NoError(t, err)
	defer file.Close() //nolint:errcheck // read-only
	config, _, err := image.DecodeConfig(file)
	require.NoError(t, err)
	assert.Equal(t, 300, config.Width)

	_, stderr := sh.run(1, "links", "qr", "a", "--out", "b.png", "--foreground", "fff")
	assert.Contains(t, stderr, "foreground must be much darker")
	assert.NoFileExists(t, filepath.Join(sh.folder, "b.png"))
	_, stderr = sh.run(1, "links", "qr", "a", "--out", "b.gif")
	assert.Contains(t, stderr, ".svg or .png")
	sh.run(1, "links", "qr", "a", "--level", "X")

	// The address is kept while the server runs.
	address := filepath.Join(sh.folder, ".signpost", "address")
	info, err := os.Stat(address)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	s.stop()
	assert.NoFileExists(t, address)
}

// redirectStatus follows a link that answers with this status.
func (s *server) redirectStatus(path string, want int) string {
	s.t.Helper()
	resp, _ := s.do(http.MethodGet, path, "", nil, "")
	require.Equal(s.t, want, resp.StatusCode)
	return resp.Header.Get("Location")
}
