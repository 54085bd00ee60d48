package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/drive"
	"github.com/signpost/signpost/internal/pgtest"
)

// at sends a request as a visitor of a host does, and returns the status and the
// Location of the answer.
func (s *server) at(host, path string) string {
	s.t.Helper()
	resp, _ := s.do(http.MethodGet, path, "", nil, "", func(r *http.Request) { r.Host = host })
	return strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Location")))
}

// mayHaveCertificate asks the admin listener for permission to get a certificate, as a
// proxy does.
func (s *server) mayHaveCertificate(host string) bool {
	s.t.Helper()
	status := s.status(s.admin + "/tls/ask?domain=" + host)
	if status != http.StatusOK && status != http.StatusNotFound {
		s.t.Errorf("/tls/ask for %s: %d", host, status)
	}
	return status == http.StatusOK
}

// TestDomains is the life of a custom domain on two replicas.
func TestDomains(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	environ := environment(url, t.TempDir(), "PUBLIC_URL=https://sign.example")
	servers := make([]*server, 0, 3)
	for _, role := range []string{"api", "api", "worker"} {
		s := start(t, role, environ)
		servers = append(servers, s)
	}
	one, two := servers[0], servers[1]
	seen := func(s *server, host, path, want string) {
		t.Helper()
		s.within(time.Second, host+path+" leads to "+want, func() bool { return s.at(host, path) == want })
	}
	one.untilReady()

	one.post("/users", `{"username":"ada","email":"ada@example.org"}`, http.StatusCreated)
	domain := one.post("/domains", `{"host":"go.example","root_url":"https://example.org/","not_found_url":"https://example.org/lost","expired_url":"https://example.org/over"}`, http.StatusCreated)
	one.post("/urls", `{"user_id":1,"short_code":"a","original_url":"https://example.org/main"}`, http.StatusCreated)
	custom := one.post("/urls", `{"user_id":1,"short_code":"a","domain":"go.example","original_url":"https://example.org/custom"}`, http.StatusCreated)
	one.post("/urls", `{"user_id":1,"short_code":"docs","domain":"go.example","original_url":"https://example.org/docs"}`, http.StatusCreated)

	for _, s := range []*server{one, two} {
		seen(s, "go.example", "/", "302 https://example.org/")
		seen(s, "GO.example:8443", "/a", "302 https://example.org/custom")
		seen(s, "go.example", "/docs", "302 https://example.org/docs")
		seen(s, "go.example", "/health", "302 https://example.org/lost")
		seen(s, "sign.example", "/a", "302 https://example.org/main")
		seen(s, "unknown.example", "/a", "302 https://example.org/main")
		seen(s, "sign.example", "/docs", "200")
		seen(s, "sign.example", "/lost", "404")
		if !s.mayHaveCertificate("go.example") || !s.mayHaveCertificate("sign.example") || s.mayHaveCertificate("unknown.example") || s.mayHaveCertificate("") {
			t.Error("/tls/ask tells known hosts from others wrongly")
		}
	}
	one.patch(fmt.Sprintf("/urls/%v", custom["id"]), `{"is_active":false}`, http.StatusOK)
	seen(two, "go.example", "/a", "302 https://example.org/over")
	one.patch(fmt.Sprintf("/domains/%v", domain["id"]), `{"expired_url":null}`, http.StatusOK)
	seen(two, "go.example", "/a", "410")
	one.patch(fmt.Sprintf("/urls/%v", custom["id"]), `{"is_active":true}`, http.StatusOK)

	// The links of a domain move with its host.
	one.patch(fmt.Sprintf("/domains/%v", domain["id"]), `{"host":"new.example"}`, http.StatusOK)
	for _, s := range []*server{one, two} {
		seen(s, "new.example", "/a", "302 https://example.org/custom")
		seen(s, "go.example", "/a", "302 https://example.org/main") // counts as a host like any other
	}
	// One link moves between domains.
	one.post("/domains", `{"host":"third.example"}`, http.StatusCreated)
	one.patch(fmt.Sprintf("/urls/%v", custom["id"]), `{"domain":"third.example"}`, http.StatusOK)
	for _, s := range []*server{one, two} {
		seen(s, "third.example", "/a", "302 https://example.org/custom")
		seen(s, "new.example", "/a", "302 https://example.org/lost")
	}

	// Each click counts for the link of its host.
	before := one.clicks(custom["id"])
	one.eventually("clicks to stop coming in", func() bool {
		last := before
		before = one.clicks(custom["id"])
		waiting := ask[int](t, url, "SELECT count(*) FROM click_batches WHERE ingested_at IS NULL")
		return before == last && before > 0 && waiting == 0
	})
	for range 3 {
		one.at("third.example", "/a")
		two.at("sign.example", "/a")
	}
	one.within(2*time.Second, "clicks on a domain are in the totals", func() bool {
		return one.clicks(custom["id"]) >= before+3
	})

	one.call(http.MethodDelete, "/domains/3", "", nil, one.token, http.StatusConflict)
	if resp, body := one.do(http.MethodDelete, fmt.Sprintf("/urls/%v", custom["id"]), "", nil, one.token); resp.StatusCode != http.StatusNoContent {
		t.Fatalf("delete the link: %d %s", resp.StatusCode, body)
	}
	if resp, body := one.do(http.MethodDelete, "/domains/3", "", nil, one.token); resp.StatusCode != http.StatusNoContent {
		t.Fatalf("delete the domain: %d %s", resp.StatusCode, body)
	}
	seen(two, "third.example", "/a", "302 https://example.org/main")
	for _, s := range servers {
		s.stop()
	}
}

// TestCaddy runs the Caddyfile that the repository ships in front of the program.
func TestCaddy(t *testing.T) {
	t.Parallel()
	caddy, err := exec.LookPath("caddy")
	if err != nil {
		t.Fatal("caddy is not installed: run tools/setup.sh test")
	}
	s := startDev(t, filepath.Join(pgtest.Dir(t), "data"), "PUBLIC_URL=https://sign.example", "TRUSTED_PROXIES=127.0.0.1")
	s.post("/users", `{"username":"ada","email":"ada@example.org"}`, http.StatusCreated)
	s.post("/domains", `{"host":"go.example"}`, http.StatusCreated)
	s.post("/urls", `{"user_id":1,"short_code":"a","domain":"go.example","original_url":"https://example.org/custom"}`, http.StatusCreated)
	s.eventually("the domain to be known", func() bool { return s.mayHaveCertificate("go.example") })

	home := t.TempDir()
	var ports [3]string
	for i := range ports {
		addr, err := drive.FreeAddr()
		require.NoError(t, err)
		_, ports[i], _ = net.SplitHostPort(addr)
	}
	cmd := exec.Command(caddy, "run", "--config", "deploy/caddy/Caddyfile", "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home, "TLS_ISSUER=internal",
		"CADDY_HTTP_PORT="+ports[0], "CADDY_HTTPS_PORT="+ports[1], "CADDY_ADMIN=127.0.0.1:"+ports[2],
		"SIGNPOST_ADMIN_URL="+s.admin, "SIGNPOST_URL="+strings.TrimPrefix(s.url, "http://"))
	proxy := begin(t, "caddy", cmd)

	authority := filepath.Join(home, "caddy", "pki", "authorities", "local", "root.crt")
	var root []byte
	s.eventually("caddy to have an authority", func() bool {
		root, err = os.ReadFile(authority)
		return err == nil && bytes.Contains(root, []byte("END CERTIFICATE"))
	})
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(root) {
		t.Fatalf("no certificate: %s", root)
	}
	visit := func(url string) (status int, location string, err error) {
		transport := &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{RootCAs: roots},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+ports[1])
			},
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			return 0, "", err
		}
		req.Header.Set("X-Forwarded-For", "203.0.113.9") // Caddy does not pass this on
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return 0, "", err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, resp.Header.Get("Location"), resp.Body.Close()
	}
	s.eventually("caddy to listen", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+ports[1])
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	for url, want := range map[string]string{
		"https://go.example/a":      "302 https://example.org/custom",
		"https://go.example/urls":   "404 ",
		"https://sign.example/urls": "401 ",
		"https://sign.example/":     "200 ",
	} {
		status, location, err := visit(url)
		if got := fmt.Sprint(status, " ", location); got != want || err != nil {
			t.Errorf("%s: %s, %v; want %s", url, got, err, want)
		}
	}
	if status, _, err := visit("https://unknown.example/a"); err == nil {
		t.Errorf("a host that nobody knows got a certificate, and status %d", status)
	}
	proxy.stop()
	s.stop()
}
