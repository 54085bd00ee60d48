// Withpg runs a command with the address of a fresh database, which has the
// schema of this tree, in an environment variable:
//
//	withpg VARIABLE command [argument...]
//
// The database's server is private and gone when the command ends, whose exit
// code withpg returns.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/signpost/signpost/internal/pgserver"
	"github.com/signpost/signpost/internal/postgres"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "withpg:", err)
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int, err error) {
	if len(args) < 2 {
		return 2, errors.New("usage: withpg VARIABLE command [argument...]")
	}
	dir, err := os.MkdirTemp("", "signpost-withpg-")
	if err != nil {
		return 1, fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// The server may run as another user, who has to pass.
	if err := os.Chmod(dir, 0o711); err != nil {
		return 1, fmt.Errorf("open folder: %w", err)
	}
	cluster, err := pgserver.Start(ctx, pgserver.Options{Dir: filepath.Join(dir, "postgres")})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, stopCluster(cluster)) }()
	if err := cluster.CreateDatabase(ctx, "signpost"); err != nil {
		return 1, err
	}
	url := cluster.URL("signpost")
	if err := postgres.Migrate(ctx, url, slog.New(slog.DiscardHandler)); err != nil {
		return 1, err
	}
	return runCommand(ctx, args[0]+"="+url, args[1:], stdout, stderr)
}

func stopCluster(c *pgserver.Cluster) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return c.Stop(ctx)
}

func runCommand(ctx context.Context, variable string, args []string, stdout, stderr io.Writer) (int, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), variable)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, stdout, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil // the command said why
	}
	if err != nil {
		return 1, fmt.Errorf("run %s: %w", args[0], err)
	}
	return 0, nil
}
