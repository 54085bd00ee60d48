// Signpost is a self-hosted URL shortener whose numbers can be trusted: one
// binary with several roles. See README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/signpost/signpost/internal/config"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/telemetry"
)

// Stamped by the build (see the Makefile).
var (
	version = "dev"
	commit  = ""
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// A second signal ends the process at once: nothing that was answered is lost by that.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program: the command in args with the configuration in
// environ. It returns the exit code: 0, or 1 after an error, which it prints.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	root := rootCommand(environ)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errSilent) {
			_, _ = fmt.Fprintf(stderr, "signpost: %v\n", err)
		}
		return 1
	}
	return 0
}

// errSilent fails a command that has already said why.
var errSilent = errors.New("failed")

func rootCommand(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use:           "signpost",
		Short:         "A self-hosted URL shortener whose numbers can be trusted",
		Long:          "A self-hosted URL shortener whose numbers can be trusted.\n\nConfiguration is read from environment variables; \"signpost config\" shows what is in force.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		devCommand(environ),
		apiCommand(environ),
		workerCommand(environ),
		migrateCommand(environ),
		tokenCommand(environ),
		spoolCommand(environ),
		importCommand(environ),
		exportCommand(environ),
		batchesCommand(environ),
		eventsCommand(environ),
		healthcheckCommand(environ),
		versionCommand(),
		configCommand(environ),
	)
	return root
}

func apiCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "api",
		Short: "Serve redirects and the management API",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := newProcess(cmd, environ, "api")
			if err != nil {
				return err
			}
			return p.run(cmd.Context(), p.addTracing, p.addPools, p.addAdmin, p.addAPI)
		},
	}
}

func workerCommand(environ []string) *cobra.Command {
	var queues string
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Ingest clicks, apply imports and do the periodic work",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := newProcess(cmd, environ, "worker")
			if err != nil {
				return err
			}
			return p.run(cmd.Context(), p.addTracing, p.addJobsPool, p.addAdmin,
				func(ctx context.Context) error { return p.addWorker(ctx, queues) })
		},
	}
	cmd.Flags().StringVar(&queues, "queues", "", "queues to work and the jobs to run at once in each, such as clicks=2,imports=4 (default all)")
	return cmd
}

func migrateCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database schema to this release",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, log, err := load(cmd, environ)
			if err != nil {
				return err
			}
			if err := postgres.Migrate(cmd.Context(), cfg.DatabaseURL, log); err != nil {
				return fmt.Errorf("migrate: %w", err)
			}
			return nil
		},
	}
}

func healthcheckCommand(environ []string) *cobra.Command {
	var url string
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Exit with 0 if the process in this container is alive",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if url == "" {
				cfg, err := config.Load(environ)
				if err != nil {
					return err
				}
				url = localURL(cfg.AdminAddr) + "/health"
			}
			return checkHealth(cmd.Context(), url)
		},
	}
	cmd.Flags().StringVar(&url, "url", "", "what to ask (default /health on ADMIN_ADDR, which every role serves)")
	return cmd
}

func checkHealth(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask for health: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask for health: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask for health: %s answered %s", url, resp.Status)
	}
	return nil
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit and the Go release",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "signpost %s (commit %s, %s, %s/%s)\n",
				version, buildCommit(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// buildCommit is the commit that was stamped, or the one that Go recorded.
func buildCommit() string {
	if commit != "" {
		return commit
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

func configCommand(environ []string) *cobra.Command {
	var markdown bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the configuration in force, with secrets hidden",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if markdown {
				_, err := io.WriteString(cmd.OutOrStdout(), config.Markdown())
				return err
			}
			cfg, err := config.Load(environ)
			if err != nil {
				return err
			}
			return cfg.Print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&markdown, "markdown", false, "print the reference page of all variables instead")
	return cmd
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

// localURL is where this machine reaches a listen address.
func localURL(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "http://" + addr
	}
	switch host {
	case "", "0.0.0.0", "::":
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}
