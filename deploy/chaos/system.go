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

	"github.com/jackc/pgx/v5"
	"github.com/signpost/signpost/internal/drive"
)

// system is the running Compose project of the current folder.
type system struct {
	*engine
	lb       string // host:port of the load balancer
	token    string // an admin token
	login    *pgx.ConnConfig
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
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name {
		case "ADMIN_TOKEN":
			sys.token = value
		case "DATABASE_URL":
			if sys.login, err = pgx.ParseConfig(value); err != nil {
				return nil, fmt.Errorf("read DATABASE_URL of an api: %w", err)
			}
		}
	}
	if sys.login == nil {
		return nil, errors.New("the api containers have no DATABASE_URL")
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

// ready reports whether a container's process says that it can do all its work.
func (s *system) ready(ctx context.Context, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	ip, err := s.ip(ctx, id, "back")
	if err != nil {
		return false
	}
	status, _, err := drive.Call(ctx, http.MethodGet, "http://"+ip+":9090/ready", "", "", nil)
	return err == nil && status == http.StatusOK
}

// Admins implements [drive.System].
func (s *system) Admins(ctx context.Context) (addrs []string, err error) {
	ids, err := s.containers(ctx, "api")
	for _, id := range ids {
		ip, ipErr := s.ip(ctx, id, "back")
		addrs, err = append(addrs, ip+":9090"), errors.Join(err, ipErr)
	}
	return addrs, err
}

// Connect implements [drive.System]. It connects to the container of the database, as
// the api containers do.
func (s *system) Connect(ctx context.Context) (*pgx.Conn, error) {
	ids, err := s.containers(ctx, s.database)
	if err != nil {
		return nil, err
	}
	login := s.login.Copy()
	login.Fallbacks, login.ValidateConnect = nil, nil
	if login.Host, err = s.ip(ctx, ids[0], "back"); err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, login)
}

// exec runs one statement in the database.
func (s *system) exec(ctx context.Context, sql string, args ...any) error {
	return drive.With(ctx, s, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql, args...)
		return err
	})
}

// metric adds up the samples of a name in a container's metrics.
func (s *system) metric(ctx context.Context, id, name string) (float64, error) {
	ip, err := s.ip(ctx, id, "back")
	if err != nil {
		return 0, err
	}
	return drive.Metric(ctx, ip+":9090", name)
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
