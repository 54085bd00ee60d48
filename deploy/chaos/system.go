package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/drive"
)

// system is the running Compose project of the current folder.
type system struct {
	*engine
	lb    string // host:port of the load balancer
	token string // an admin token
	login *pgx.ConnConfig
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
	sys := &system{engine: newEngine(), lb: "127.0.0.1:" + number}
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

// admin is the admin listener of a container's process.
func (s *system) admin(ctx context.Context, id string) (string, error) {
	ip, err := s.ip(ctx, id, "back")
	return ip + ":9090", err
}

// ready reports whether a container's process says that it can do all its work.
func (s *system) ready(ctx context.Context, id string) bool {
	addr, err := s.admin(ctx, id)
	return err == nil && drive.Ready(ctx, addr) == nil
}

// Admins implements [drive.System].
func (s *system) Admins(ctx context.Context) (addrs []string, err error) {
	ids, err := s.containers(ctx, "api")
	for _, id := range ids {
		addr, addrErr := s.admin(ctx, id)
		if addrErr == nil {
			addrs = append(addrs, addr)
		}
		err = errors.Join(err, addrErr)
	}
	return addrs, err
}

// Connect implements [drive.System]. It connects to the container of the database, as
// the api containers do.
func (s *system) Connect(ctx context.Context) (*pgx.Conn, error) {
	ids, err := s.containers(ctx, "postgres")
	if err != nil {
		return nil, err
	}
	login := s.login.Copy()
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

// Changes of what a container and an address may say to each other: cut drops all of
// it, without a word to either, so that connections stay open and hang.
const (
	cut  = "-I"
	mend = "-D"
)

func (s *system) rules(ctx context.Context, change, id, address string) error {
	pid, err := s.pid(ctx, id)
	if err != nil {
		return err
	}
	inside := []string{"-t", strconv.Itoa(pid), "-n", "iptables", "-w", change}
	return errors.Join(
		do(ctx, "nsenter", append(inside, "OUTPUT", "-d", address, "-j", "DROP")...),
		do(ctx, "nsenter", append(inside, "INPUT", "-s", address, "-j", "DROP")...))
}
