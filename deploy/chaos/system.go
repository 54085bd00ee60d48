package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/signpost/signpost/internal/drive"
)

// system is the running Compose project of the current folder.
type system struct {
	*engine
	lb       string // host:port of the load balancer
	token    string // an admin token
	database string // the service that is the database
	standby  bool   // one was added
	alone    string // COMPOSE_FILE before that
}

// findSystem checks that it is up and that it may be disturbed from here.
func findSystem(ctx context.Context) (*system, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root may kill processes inside containers: run it with sudo")
	}
	port, err := output(ctx, "docker", "compose", "port", "lb", "8080")
	if err != nil {
		return nil, fmt.Errorf("the system is not up (\"make up\" starts it): %w", err)
	}
	_, number, found := strings.Cut(port, ":")
	if !found {
		return nil, fmt.Errorf("the load balancer's port is %q", port)
	}
	sys := &system{engine: newEngine(), lb: "127.0.0.1:" + number, database: "postgres"}
	if err := sys.findProject(ctx); err != nil {
		return nil, err
	}
	ids, err := sys.containers(ctx, "api")
	if err != nil {
		return nil, err
	}
	if len(ids) < 2 {
		return nil, fmt.Errorf("there are %d api containers, and it takes two for one to be missed by nobody", len(ids))
	}
	environ, err := output(ctx, "docker", "inspect", "-f", "{{range .Config.Env}}{{println .}}{{end}}", ids[0])
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(environ) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "ADMIN_TOKEN="); ok {
			sys.token = value
		}
	}
	return sys, nil
}

// output runs a command and returns what it printed.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// do runs a command for its effect.
func do(ctx context.Context, name string, args ...string) error {
	_, err := output(ctx, name, args...)
	return err
}

// killed is a container whose main process was killed.
type killed struct {
	id  string
	pid int
}

// kill ends a container's main process from outside. "docker kill" would count as
// a manual stop, after which the engine does not restart the container.
func (s *system) kill(ctx context.Context, id string) (killed, error) {
	pid, err := s.pid(ctx, id)
	if err != nil {
		return killed{}, err
	}
	return killed{id, pid}, syscall.Kill(pid, syscall.SIGKILL)
}

// restarted reports whether the engine has started a container again.
func (s *system) restarted(ctx context.Context, k killed) bool {
	pid, err := s.pid(ctx, k.id)
	return err == nil && pid != k.pid
}

var direct = &http.Client{Timeout: 2 * time.Second}

// ready reports whether a container's process says that it can do all its work.
func (s *system) ready(ctx context.Context, id string) bool {
	ip, err := s.ip(ctx, id, "back")
	if err != nil {
		return false
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ip+":9090/ready", nil)
	if err != nil {
		return false
	}
	resp, err := direct.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// metric adds up the samples of a name in a container's metrics.
func (s *system) metric(ctx context.Context, id, name string) (float64, error) {
	ip, err := s.ip(ctx, id, "back")
	if err != nil {
		return 0, err
	}
	return drive.Metric(ctx, ip+":9090", name)
}

// query runs SQL in the database's container and returns its unaligned rows.
func (s *system) query(ctx context.Context, sql string) (string, error) {
	return output(ctx, "docker", "compose", "exec", "-T", s.database,
		"psql", "-U", "signpost", "-d", "signpost", "-v", "ON_ERROR_STOP=1", "-qAt", "-c", sql)
}

// cut drops what a container and an address say to each other, without a word to
// either: connections stay open and hang.
func (s *system) cut(ctx context.Context, id, address string) error {
	return s.rules(ctx, id, "-I", address)
}

func (s *system) mend(ctx context.Context, id, address string) error {
	return s.rules(ctx, id, "-D", address)
}

func (s *system) rules(ctx context.Context, id, change, address string) error {
	pid, err := s.pid(ctx, id)
	if err != nil {
		return err
	}
	inside := []string{"-t", strconv.Itoa(pid), "-n", "iptables", "-w", change}
	return errors.Join(
		do(ctx, "nsenter", append(inside, "OUTPUT", "-d", address, "-j", "DROP")...),
		do(ctx, "nsenter", append(inside, "INPUT", "-s", address, "-j", "DROP")...))
}
