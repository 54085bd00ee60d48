package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/signpost/signpost/internal/drive"
	"github.com/signpost/signpost/internal/redistest"
)

const adminToken = "token-of-the-monitoring-check"

// system is a running Signpost with its load balancer and Prometheus.
type system struct {
	*drive.Stage
	redis      *redistest.Server
	processes  []*drive.Process
	clients    drive.Client // through the load balancer
	prometheus string       // its address
	round      int
}

// startSystem starts two api, a worker, the load balancer and Prometheus. The caller
// stops it, also after an error.
func startSystem(ctx context.Context, f *files, stage *drive.Stage, redis *redistest.Server) (*system, error) {
	s := &system{Stage: stage, redis: redis}
	database, err := s.Database(ctx, "signpost")
	if err != nil {
		return s, err
	}
	environ := []string{
		"DATABASE_URL=" + database, "REDIS_URL=" + redis.URL(), "SPOOL_DIR=" + filepath.Join(s.Dir, "spool"), "ADMIN_TOKEN=" + adminToken,
		"CACHE_TTL=1s", // links are validated while we look
	}
	for _, role := range []string{"api", "api", "worker"} {
		p, err := drive.Launch(s.Dir, environ, s.Binary, role)
		if err != nil {
			return s, err
		}
		s.processes = append(s.processes, p)
	}
	one, two, worker := s.processes[0], s.processes[1], s.processes[2]
	balancer, err := s.balance(one.Addr, two.Addr)
	if err != nil {
		return s, err
	}
	s.clients = drive.Client{Addr: balancer.Addr, Token: adminToken}
	if s.prometheus, err = drive.FreeAddr(); err != nil {
		return s, err
	}
	config, err := f.configure(s.Dir, map[string][]string{
		"signpost-api": {one.Admin, two.Admin}, "signpost-worker": {worker.Admin}, "signpost-lb": {balancer.Admin}, "prometheus": {s.prometheus},
	})
	if err != nil {
		return s, err
	}
	if err := s.run("prometheus", "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(s.Dir, "tsdb"),
		"--web.listen-address="+s.prometheus, "--log.level=warn"); err != nil {
		return s, err
	}
	for addr, path := range map[string]string{
		balancer.Addr: "/ready", one.Addr: "/ready", two.Addr: "/ready", worker.Admin: "/ready", s.prometheus: "/-/ready",
	} {
		err := drive.Until(ctx, 30*time.Second, 100*time.Millisecond, func(ctx context.Context) error {
			return expect(ctx, drive.Client{Addr: addr}, request{method: "GET", path: path, want: http.StatusOK})
		})
		if err != nil {
			return s, fmt.Errorf("wait for %s: %w", addr, err)
		}
	}
	return s, s.prepare(ctx)
}

// run starts a program that is not ours.
func (s *system) run(name string, command ...string) error {
	p, err := drive.NewProcess(s.Dir, name, nil, command...)
	if err != nil {
		return err
	}
	s.processes = append(s.processes, p)
	return p.Start()
}

// balance runs HAProxy with the shipped configuration, with what has to differ
// here: the addresses, which no name server knows, and a bound that needs no more
// open files than a shell may have.
func (s *system) balance(replicas ...string) (*drive.Process, error) {
	shipped, err := os.ReadFile("deploy/haproxy/haproxy.cfg")
	if err != nil {
		return nil, err
	}
	config := filepath.Join(s.Dir, "haproxy.cfg")
	libraries, _ := filepath.Glob("bin/monitoring/usr/lib/*-linux-gnu") // the pattern is right
	p, err := drive.NewProcess(s.Dir, "haproxy", []string{"LD_LIBRARY_PATH=" + strings.Join(libraries, ":")}, "haproxy", "-db", "-f", config)
	if err != nil {
		return nil, err
	}
	servers := ""
	for i, address := range replicas {
		servers += fmt.Sprintf("server api%d %s\n\t", i+1, address)
	}
	text := string(shipped)
	for _, change := range [][2]string{
		{"bind :8080", "bind " + p.Addr},
		{"bind :8404", "bind " + p.Admin},
		{"maxconn 8000", "maxconn 100"},
		{" resolvers engine init-addr none", ""},
		{"server-template api 20 api:8080", servers},
	} {
		if !strings.Contains(text, change[0]) {
			return nil, fmt.Errorf("haproxy.cfg has no %q", change[0])
		}
		text = strings.ReplaceAll(text, change[0], change[1])
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	s.processes = append(s.processes, p)
	return p, p.Start()
}

// configure writes the shipped configuration with what has to differ here: the
// addresses, and a scrape a second. Jobs without an address are left out.
func (f *files) configure(dir string, targets map[string][]string) (string, error) {
	config := maps.Clone(f.prometheus)
	config["global"] = map[string]any{"scrape_interval": "1s", "evaluation_interval": "1s"}
	delete(config, "alerting")
	rules, err := filepath.Abs("deploy/prometheus/rules/*.yml")
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

// stop ends all processes, last first, and removes the stage, unless it failed.
func (s *system) stop(failed bool) error {
	for _, p := range slices.Backward(s.processes) {
		p.Stop()
		if text, err := os.ReadFile(p.Log); err == nil && failed {
			fmt.Printf("--- %s\n%s\n", p.Name, text[max(0, len(text)-2000):])
		}
	}
	return errors.Join(s.redis.Close(), s.Remove(context.Background(), false))
}

// request is what the traffic is made of.
type request struct {
	method, path, kind, body string
	anonymous                bool
	want                     int
}

func expect(ctx context.Context, c drive.Client, r request) error {
	if r.anonymous {
		c.Token = ""
	}
	if r.kind == "" {
		r.kind = "application/json"
	}
	status, text, err := c.Send(ctx, r.method, r.path, r.kind, strings.NewReader(r.body))
	if err == nil && status != r.want {
		err = fmt.Errorf("%s %s: %d, want %d: %s", r.method, r.path, status, r.want, text)
	}
	return err
}

func (s *system) send(ctx context.Context, requests []request) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, r := range requests {
		if err := expect(ctx, s.clients, r); err != nil {
			return err
		}
	}
	return nil
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
	return s.send(ctx, append(requests, request{method: "PATCH", path: "/urls/20", body: `{"is_active":false}`, want: 200}))
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
			method: "POST", path: "/imports?kind=users", kind: "text/csv", want: 202,
			body: fmt.Sprintf("username,email\nuser%[1]d,user%[1]d@example.org\nada,again@example.org\n", s.round),
		})
	}
	return s.send(ctx, requests)
}
