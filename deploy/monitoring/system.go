package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
)

const adminToken = "token-of-the-monitoring-check"

// system is a running Signpost with its load balancer and Prometheus.
type system struct {
	api           string // through the load balancer
	prometheusURL string
	processes     []*process
	round         int
}

type process struct {
	name string
	cmd  *exec.Cmd
	log  *bytes.Buffer // read only after the process has ended
}

// startSystem starts Redis, two api, a worker, the load balancer and Prometheus.
// The caller stops it, also after an error.
func startSystem(ctx context.Context, f *files, dir, root, bin string) (*system, error) {
	s := &system{}
	ports, err := freePorts(9)
	if err != nil {
		return s, err
	}
	address := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	redis := exec.Command("redis-server", "--port", fmt.Sprint(ports[0]), "--bind", "127.0.0.1", "--save", "", "--dir", dir)
	environ := append(os.Environ(), "REDIS_URL=redis://"+address(0)+"/0", "SPOOL_DIR="+filepath.Join(dir, "spool"), "ADMIN_TOKEN="+adminToken,
		"CACHE_TTL=1s", "LOG_FORMAT=text", "SHUTDOWN_TIMEOUT=5s") // links are validated while we look
	role := func(name, listen, admin string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, "signpost"), name)
		cmd.Env = append(slices.Clone(environ), "LISTEN_ADDR="+listen, "ADMIN_ADDR="+admin)
		return cmd
	}
	config, err := s.configure(f, dir, root, map[string][]string{
		"signpost-api": {address(2), address(4)}, "signpost-worker": {address(5)}, "signpost-lb": {address(8)}, "prometheus": {address(6)},
	})
	if err != nil {
		return s, err
	}
	prometheus := exec.Command(tool(bin, "prometheus"), "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "tsdb"),
		"--web.listen-address="+address(6), "--log.level=warn")
	balancer, err := balancer(dir, root, bin, address(7), address(8), address(1), address(3))
	if err != nil {
		return s, err
	}
	s.api, s.prometheusURL = "http://"+address(7), "http://"+address(6)
	for _, p := range []struct {
		name string
		cmd  *exec.Cmd
	}{
		{"redis", redis},
		{"api", role("api", address(1), address(2))},
		{"api 2", role("api", address(3), address(4))},
		{"worker", role("worker", "127.0.0.1:0", address(5))},
		{"load balancer", balancer},
		{"prometheus", prometheus},
	} {
		if err := s.launch(p.name, p.cmd); err != nil {
			return s, err
		}
	}
	for _, path := range []string{s.api + "/ready", "http://" + address(1) + "/ready", "http://" + address(3) + "/ready", "http://" + address(5) + "/ready", s.prometheusURL + "/-/ready"} {
		if err := s.wait(ctx, path); err != nil {
			return s, fmt.Errorf("%w\n%s", err, s.logs())
		}
	}
	return s, s.prepare(ctx)
}

// balancer runs HAProxy with the shipped configuration, with what has to differ
// here: the addresses, which no name server knows, and a bound that needs no more
// open files than a shell may have.
func balancer(dir, root, bin, listen, metrics string, replicas ...string) (*exec.Cmd, error) {
	shipped, err := os.ReadFile(filepath.Join(root, "deploy/haproxy/haproxy.cfg"))
	if err != nil {
		return nil, err
	}
	servers := ""
	for i, address := range replicas {
		servers += fmt.Sprintf("server api%d %s\n\t", i+1, address)
	}
	text := string(shipped)
	for _, change := range [][2]string{
		{"bind :8080", "bind " + listen},
		{"bind :8404", "bind " + metrics},
		{"maxconn 8000", "maxconn 100"},
		{" resolvers engine init-addr none", ""},
		{"server-template api 20 api:8080", servers},
	} {
		if !strings.Contains(text, change[0]) {
			return nil, fmt.Errorf("haproxy.cfg has no %q", change[0])
		}
		text = strings.ReplaceAll(text, change[0], change[1])
	}
	config := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(tool(bin, "haproxy"), "-db", "-f", config)
	libraries, _ := filepath.Glob(filepath.Join(bin, "monitoring/usr/lib/*-linux-gnu")) // the pattern is right
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libraries, ":"))
	return cmd, nil
}

func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() //nolint:errcheck // all are held until all are found
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// configure writes the shipped configuration with what has to differ here: the
// addresses, and a scrape a second. Jobs without an address are left out.
func (s *system) configure(f *files, dir, root string, targets map[string][]string) (string, error) {
	config := maps.Clone(f.prometheus)
	config["global"] = map[string]any{"scrape_interval": "1s", "evaluation_interval": "1s"}
	delete(config, "alerting")
	rules, err := filepath.Abs(filepath.Join(root, "deploy/prometheus/rules/*.yml"))
	if err != nil {
		return "", err
	}
	config["rule_files"] = []string{rules}
	var jobs []any
	for _, entry := range config["scrape_configs"].([]any) {
		job := maps.Clone(entry.(map[string]any))
		addresses := targets[job["job_name"].(string)]
		delete(targets, job["job_name"].(string))
		if len(addresses) == 0 {
			continue
		}
		delete(job, "dns_sd_configs")
		job["static_configs"] = []any{map[string]any{"targets": addresses}}
		jobs = append(jobs, job)
	}
	if len(targets) > 0 {
		return "", fmt.Errorf("prometheus.yml has no job for %v", targets)
	}
	config["scrape_configs"] = jobs
	text, err := yaml.Marshal(config)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "prometheus.yml")
	return path, os.WriteFile(path, text, 0o600)
}

func (s *system) launch(name string, cmd *exec.Cmd) error {
	log := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to pass on
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	s.processes = append(s.processes, &process{name, cmd, log})
	return nil
}

// stop ends all processes, last first, and waits for them.
func (s *system) stop() {
	for _, p := range slices.Backward(s.processes) {
		if p.cmd.ProcessState != nil {
			continue
		}
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
		_ = p.cmd.Wait()
		late.Stop()
	}
}

// logs stops all and returns the end of what each had to say.
func (s *system) logs() string {
	s.stop()
	var all strings.Builder
	for _, p := range s.processes {
		text := p.log.Bytes()
		_, _ = fmt.Fprintf(&all, "--- %s\n%s\n", p.name, text[max(0, len(text)-2000):])
	}
	return all.String()
}

func (s *system) wait(ctx context.Context, address string) error {
	for deadline := time.Now().Add(30 * time.Second); ; {
		resp, err := http.Get(address) //nolint:noctx // bounded by the loop
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("wait for %s: %w", address, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// request is what the traffic is made of.
type request struct {
	method, path, contentType, body string
	anonymous                       bool
	want                            int
}

func (s *system) send(ctx context.Context, r request) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, s.api+r.path, strings.NewReader(r.body))
	if err != nil {
		return err
	}
	if !r.anonymous {
		req.Header.Set("Authorization", "Bearer "+adminToken)
	}
	if r.contentType == "" {
		r.contentType = "application/json"
	}
	req.Header.Set("Content-Type", r.contentType)
	resp, err := http.DefaultTransport.RoundTrip(req) // a redirect is not followed
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != r.want {
		err = fmt.Errorf("%s %s: %s, want %d: %s", r.method, r.path, resp.Status, r.want, body)
	}
	return err
}

// prepare makes a few links, one of them switched off.
func (s *system) prepare(ctx context.Context) error {
	requests := []request{{method: "POST", path: "/users", body: `{"username":"ada","email":"ada@example.org"}`, want: 201}}
	for i := range 20 {
		requests = append(requests, request{
			method: "POST", path: "/urls", want: 201,
			body: fmt.Sprintf(`{"user_id":1,"short_code":"link%d","original_url":"https://example.org/%d"}`, i, i),
		})
	}
	requests = append(requests, request{method: "PATCH", path: "/urls/20", body: `{"is_active":false}`, want: 200})
	return s.sendAll(ctx, requests)
}

func (s *system) sendAll(ctx context.Context, requests []request) error {
	for _, r := range requests {
		if err := s.send(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// traffic is one round of what clients do: follow links that are there,
// unknown and switched off, manage, err, and import.
func (s *system) traffic(ctx context.Context) error {
	s.round++
	var requests []request
	for i := range 19 {
		requests = append(requests,
			request{method: "GET", path: fmt.Sprintf("/link%d", i), anonymous: true, want: 302},
			request{method: "GET", path: fmt.Sprintf("/r/link%d", i), anonymous: true, want: 302})
	}
	requests = append(requests,
		request{method: "GET", path: fmt.Sprintf("/nobody%d", s.round), anonymous: true, want: 404},
		request{method: "GET", path: "/link19", anonymous: true, want: 410},
		request{method: "GET", path: "/urls", want: 200},
		request{method: "GET", path: "/urls", anonymous: true, want: 401},
		request{method: "GET", path: "/urls/999999", want: 404},
		request{method: "POST", path: "/urls", body: `{"user_id":1}`, want: 400},
		request{method: "PATCH", path: "/urls/1", body: fmt.Sprintf(`{"title":"round %d"}`, s.round), want: 200},
	)
	if s.round%4 == 1 {
		requests = append(requests, request{
			method: "POST", path: "/imports?kind=users", contentType: "text/csv", want: 202,
			body: fmt.Sprintf("username,email\nuser%[1]d,user%[1]d@example.org\nada,again@example.org\n", s.round),
		})
	}
	return s.sendAll(ctx, requests)
}
