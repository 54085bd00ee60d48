package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/signpost/signpost/internal/config"
	"github.com/signpost/signpost/internal/pgserver"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/telemetry"
)

// devDatabase is the name of the database in the private cluster.
const devDatabase = "signpost"

// Files in the data folder by which commands in the same folder reach the server.
const (
	devToken   = "admin-token"
	devAddress = "address" // while the server runs
)

func devCommand(environ []string) *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process, with a private Postgres unless DATABASE_URL is set",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runDev(cmd, environ, data) },
	}
	cmd.Flags().StringVar(&data, "data", ".signpost", "folder for the database, the spool and the admin token")
	return cmd
}

func runDev(cmd *cobra.Command, environ []string, data string) error {
	data, err := filepath.Abs(data)
	if err != nil {
		return fmt.Errorf("find the data folder: %w", err)
	}
	cfg, err := config.Load(devEnviron(environ, data))
	if err != nil {
		return err
	}
	// The folder is open, so that the server's account can reach its data when we are
	// root. Secrets in it have modes of their own.
	if err := os.MkdirAll(data, 0o755); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	if cfg.AdminToken == "" {
		if cfg.AdminToken, err = keptToken(data); err != nil {
			return err
		}
	}
	log := telemetry.NewLogger(cmd.ErrOrStderr(), cfg.LogLevel, cfg.LogFormat)
	p := makeProcess(cfg, log, cmd.OutOrStdout(), "dev")
	return p.run(cmd.Context(),
		p.addTracing,
		func(ctx context.Context) error { return p.addDatabase(ctx, data) },
		p.addJobsPool,
		p.addPools,
		p.addAdmin,
		func(ctx context.Context) error { return p.addWorker(ctx, "") },
		p.addAPI,
		func(context.Context) error { return p.leaveAddress(data) },
		func(context.Context) error { return p.banner(data) },
	)
}

// devEnviron returns environ with defaults that suit a newcomer. With them, no other
// machine can reach the process.
func devEnviron(environ []string, data string) []string {
	return append([]string{
		"LISTEN_ADDR=localhost:8080",
		"SPOOL_DIR=" + filepath.Join(data, "spool"),
		"LOG_FORMAT=text",
	}, environ...)
}

// keptToken returns the admin token of a data folder. It is made on the first start.
func keptToken(data string) (string, error) {
	path := filepath.Join(data, devToken)
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		_ = os.Chmod(path, 0o600) // it is a copy; some file systems have no modes
	}
	switch b, err := os.ReadFile(path); {
	case err == nil && strings.TrimSpace(string(b)) != "":
		return strings.TrimSpace(string(b)), nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("read the admin token: %w", err)
	}
	secret := rand.Text()
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the admin token: %w", err)
	}
	return secret, nil
}

// addDatabase brings the schema to this release. It starts the private cluster before
// that, unless DATABASE_URL names a server.
func (p *process) addDatabase(ctx context.Context, data string) error {
	if p.cfg.DatabaseURL == "" {
		cluster, err := pgserver.Start(ctx, pgserver.Options{
			Dir: filepath.Join(data, "postgres"), Durable: true, Log: p.log,
		})
		if errors.Is(err, pgserver.ErrNoBinaries) {
			return fmt.Errorf("%w, or set DATABASE_URL to use a server that runs already", err)
		}
		if err != nil {
			return err
		}
		p.private = true
		p.add("private Postgres", cluster.Stop)
		if err := cluster.CreateDatabase(ctx, devDatabase); err != nil {
			return err
		}
		p.cfg.DatabaseURL = cluster.URL(devDatabase)
		// Other commands can use it so: DATABASE_URL=$(cat .signpost/database-url)
		// signpost token list
		if err := os.WriteFile(filepath.Join(data, "database-url"), []byte(p.cfg.DatabaseURL+"\n"), 0o600); err != nil {
			return fmt.Errorf("keep the database's address: %w", err)
		}
	}
	if err := postgres.Migrate(ctx, p.cfg.DatabaseURL, p.log); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// leaveAddress keeps the address of the server in the data folder while it runs.
func (p *process) leaveAddress(data string) error {
	path := filepath.Join(data, devAddress)
	if err := os.WriteFile(path, []byte(localURL(p.listen)+"\n"), 0o600); err != nil {
		return fmt.Errorf("keep the address: %w", err)
	}
	p.add("address", func(context.Context) error { return os.Remove(path) })
	return nil
}

// banner prints where everything can be found.
func (p *process) banner(data string) error {
	database := "as DATABASE_URL says"
	if p.private {
		database = "private, in " + relative(filepath.Join(data, "postgres"))
	}
	token := p.cfg.AdminToken + "   (kept in " + relative(filepath.Join(data, devToken)) + ")"
	local := localURL(p.listen)
	dashboard := cmp.Or(p.cfg.AppURL, local)
	if p.cfg.AppURL == "" && strings.HasPrefix(p.cfg.PublicURL, "https://") {
		dashboard = p.cfg.PublicURL // over TLS it is there alone
	}
	_, err := fmt.Fprintf(p.stdout, `
Signpost is running. Ctrl-C stops it.

  dashboard     %[6]s/app/sign-in#%[7]s
                (signs you in, once and within ten minutes)
  address       %[1]s
  API docs      %[1]s/docs
  metrics       %[2]s/metrics
  jobs          %[2]s/jobs/   (the password is the admin token)
  database      %[3]s
  admin token   %[4]s
%[5]s
`, local, p.adminURL, database, token, p.reach(), dashboard, p.tokens.NewSignIn())
	return err
}

// reach returns a note that only this machine can reach the API, if that is so.
func (p *process) reach() string {
	addr, err := netip.ParseAddrPort(p.listen)
	if err != nil || !addr.Addr().IsLoopback() {
		return ""
	}
	return "\nOnly this machine reaches it. LISTEN_ADDR=:8080 opens it to others, who follow links under PUBLIC_URL.\n"
}

// relative shortens a path for display.
func relative(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return path
}
