// Package cli holds the commands of the signpost binary, each in the file of its
// name, and puts the parts of a process together (serve.go).
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/signpost/signpost/internal/config"
	"github.com/signpost/signpost/internal/telemetry"
)

// Run is the whole program: it runs the command in args with the configuration in
// environ. It returns the exit code: 0, or after an error, which it prints, 1 or the
// code of that error.
func Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	root := rootCommand(environ)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errSilent) {
			_, _ = fmt.Fprintf(stderr, "signpost: %v\n", err)
		}
		var coded *codedError
		if errors.As(err, &coded) {
			return coded.code
		}
		return 1
	}
	return 0
}

// errSilent is returned by a command that has already printed why it failed.
var errSilent = errors.New("failed")

func rootCommand(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use:           "signpost",
		Short:         "A self-hosted URL shortener whose numbers can be trusted",
		Long:          "A self-hosted URL shortener whose numbers can be trusted.\n\nConfiguration is read from environment variables; \"signpost config\" shows what is in force.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		devCommand(environ),
		apiCommand(environ),
		workerCommand(environ),
		migrateCommand(environ),
		tokenCommand(environ),
		spoolCommand(environ),
		importCommand(environ),
		exportCommand(environ),
		linksCommand(environ),
		statsCommand(environ),
		batchesCommand(environ),
		clicksCommand(environ),
		eventsCommand(environ),
		healthcheckCommand(environ),
		versionCommand(),
		configCommand(environ),
	)
	return root
}

// commandGroup returns a command that only has others below it.
func commandGroup(use, short string, commands ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(commands...)
	return group
}

// load reads the configuration for a command that needs a database.
func load(cmd *cobra.Command, environ []string) (config.Config, *slog.Logger, error) {
	cfg, err := config.Load(environ)
	if err != nil {
		return cfg, nil, err
	}
	if cfg.DatabaseURL == "" {
		return cfg, nil, errors.New("DATABASE_URL is not set: give it the postgres:// URL of the database, or run \"signpost dev\", which brings its own")
	}
	return cfg, telemetry.NewLogger(cmd.ErrOrStderr(), cfg.LogLevel, cfg.LogFormat), nil
}
