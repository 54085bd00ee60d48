// Withpg runs a command with a migrated private database:
//
//	go run ./internal/pgtest/withpg VARIABLE COMMAND [ARGUMENT...]
//
// VARIABLE is the environment variable that tells the command the database's
// URL. The database goes when the command ends, whose exit code is passed on.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/signpost/signpost/internal/postgres"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintf(os.Stderr, "withpg: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) < 2 {
		return errors.New("usage: withpg VARIABLE COMMAND [ARGUMENT...]")
	}
	dir, err := os.MkdirTemp("", "signpost-withpg-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	log := slog.New(slog.DiscardHandler)
	defer func() {
		err = errors.Join(err, postgres.RemoveCluster(context.WithoutCancel(ctx), dir))
	}()
	cluster, err := postgres.StartCluster(ctx, postgres.ClusterOptions{Dir: dir, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Stop(context.WithoutCancel(ctx))) }()
	if err := cluster.CreateDatabase(ctx, "check"); err != nil {
		return err
	}
	if err := postgres.Migrate(ctx, cluster.URL("check"), log); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, args[1], args[2:]...)
	cmd.Env = append(os.Environ(), args[0]+"="+cluster.URL("check"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
