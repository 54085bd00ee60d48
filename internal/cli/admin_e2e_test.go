package cli

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/config"
	"github.com/signpost/signpost/internal/pgtest"
)

// askAdmin sends a request to the admin listener, with a token unless it is empty.
func (s *server) askAdmin(method, path, token string, edit ...func(*http.Request)) (status int, body string) {
	s.t.Helper()
	resp, text := s.do(method, s.admin+path, "", nil, token, edit...)
	return resp.StatusCode, string(text)
}

// TestAdminListeners sends requests to the listeners of an api and a worker, as
// strangers, tokens of every role, browsers and Prometheus do.
func TestAdminListeners(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	environ := environment(pgtest.Migrated(t, cluster), t.TempDir())
	tokens := map[string]string{}
	for _, role := range []string{"reader", "editor", "admin"} {
		secret, err := program(t, environ, "token", "create", "--name", role, "--role", role).Output()
		require.NoError(t, err)
		tokens[role] = strings.TrimSpace(string(secret))
	}
	strange := func(r *http.Request) { r.Host = "evil.example" }
	guarded := []struct{ role, method, path string }{
		{"api", "GET", "/debug/pprof/"},
		{"api", "GET", "/debug/pprof/cmdline"},
		{"worker", "GET", "/debug/pprof/heap"},
		{"api", "GET", "/jobs/"},
		{"api", "POST", "/spool/reship"},
	}
	servers := map[string]*server{}
	for _, role := range []string{"api", "worker"} {
		s := start(t, role, environ)
		servers[role] = s
		for _, path := range []string{"/health", "/ready", "/metrics"} {
			if status, body := s.askAdmin("GET", path, "", strange); status != http.StatusOK {
				t.Errorf("%s of %s for anyone: %d %s", path, role, status, body)
			}
		}
	}
	for _, g := range guarded {
		s := servers[g.role]
		for _, try := range []struct {
			token string
			want  int
		}{
			{"", 401},
			{"sp_guess", 401},
			{tokens["reader"], 403},
			{tokens["editor"], 403},
			{tokens["admin"], 200},
		} {
			if status, body := s.askAdmin(g.method, g.path, try.token); status != try.want {
				t.Errorf("%s %s of %s with %q: %d %s, want %d", g.method, g.path, g.role, try.token, status, body, try.want)
			}
		}
		if status, _ := s.askAdmin(g.method, g.path, testToken, strange); status != http.StatusForbidden {
			t.Errorf("%s %s of %s under a stranger's name: %d", g.method, g.path, g.role, status)
		}
	}

	// Without a database the token of the configuration is still valid, and readiness
	// does not reveal the address of the database and the name of its user.
	cluster.Kill()
	for role, s := range servers {
		if status, body := s.askAdmin("GET", "/debug/pprof/", testToken); status != http.StatusOK {
			t.Errorf("profiles of %s without Postgres: %d %s", role, status, body)
		}
		s.eventually("that "+role+" is not ready", func() bool {
			status, body := s.askAdmin("GET", "/ready", "")
			return status == http.StatusServiceUnavailable &&
				body == `{"code":503,"error":"not ready: the database cannot be reached"}`+"\n"
		})
	}
}

func TestDevListensOnThisMachineOnly(t *testing.T) {
	t.Parallel()
	for _, environ := range [][]string{nil, {"LISTEN_ADDR=", "ADMIN_ADDR="}} {
		cfg, err := config.Load(devEnviron(environ, "/data"))
		if err != nil || cfg.ListenAddr != "localhost:8080" || cfg.AdminAddr != "127.0.0.1:9090" || cfg.PublicURL != "http://localhost:8080" {
			t.Errorf("with %q: %v\n%s", environ, err, cfg)
		}
	}
	cfg, err := config.Load(devEnviron([]string{"LISTEN_ADDR=:8081", "ADMIN_ADDR=:9091"}, "/data"))
	if err != nil || cfg.ListenAddr != ":8081" || cfg.AdminAddr != ":9091" {
		t.Errorf("what is given does not count: %v\n%s", err, cfg)
	}
}
