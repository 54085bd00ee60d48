package drive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/signpost/signpost/internal/pgserver"
	"github.com/signpost/signpost/internal/postgres"
)

// Stage is a folder with a built binary and a private, durable Postgres.
type Stage struct {
	Dir     string
	Binary  string
	Cluster *pgserver.Cluster
}

// NewStage makes a stage in a temporary folder, with the program of the current folder.
// The caller calls Remove.
func NewStage(ctx context.Context, name, sharedBuffers string) (_ *Stage, err error) {
	dir, err := os.MkdirTemp("", "signpost-"+name+"-")
	if err != nil {
		return nil, err
	}
	s := &Stage{Dir: dir, Binary: filepath.Join(dir, "signpost")}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Remove(context.WithoutCancel(ctx), false))
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil { // the server's account has to be able to enter it
		return nil, err
	}
	if err := s.Build(ctx, s.Binary, "."); err != nil {
		return nil, err
	}
	s.Cluster, err = pgserver.Start(ctx, pgserver.Options{
		Dir: s.postgres(), Durable: true, SharedBuffers: sharedBuffers, Log: slog.New(slog.DiscardHandler),
	})
	return s, err
}

func (s *Stage) postgres() string { return filepath.Join(s.Dir, "postgres") }

// Build builds a program of this module.
func (s *Stage) Build(ctx context.Context, to, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", to, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return nil
}

// Database makes a migrated database and returns its URL.
func (s *Stage) Database(ctx context.Context, name string) (string, error) {
	if err := s.Cluster.CreateDatabase(ctx, name); err != nil {
		return "", err
	}
	url := s.Cluster.URL(name)
	return url, postgres.Migrate(ctx, url, slog.New(slog.DiscardHandler))
}

// Remove stops Postgres and removes everything, unless keep is set, as after a failure.
func (s *Stage) Remove(ctx context.Context, keep bool) error {
	if s.Cluster != nil {
		if err := s.Cluster.Stop(ctx); err != nil {
			return err
		}
	}
	if keep {
		fmt.Fprintln(os.Stderr, "data and logs are in", s.Dir)
		return nil
	}
	return errors.Join(pgserver.Remove(ctx, s.postgres()), os.RemoveAll(s.Dir))
}
