package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/drive"
)

// system is the attacked system.
type system struct {
	settings
	*drive.Stage
	url    string
	api    *drive.Process
	worker *drive.Process
	files  int // that the api may have open

	cached, uncached drive.Traffic
	editor, reader   string // tokens of the attackers
}

const (
	adminToken = "abuse-only-admin-token"
	hotLinks   = 100
)

// prepare builds the binary and starts everything.
func prepare(ctx context.Context, s settings) (_ *system, err error) {
	sys := &system{settings: s}
	if sys.Stage, err = drive.NewStage(ctx, "abuse", "512MB"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, sys.remove(context.WithoutCancel(ctx), true))
		}
	}()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	sys.files = int(min(4096, limit.Max/4)) // this process needs more than the api
	if sys.url, err = sys.Database(ctx, "signpost"); err != nil {
		return nil, err
	}
	if err := sys.makeLinks(ctx); err != nil {
		return nil, err
	}
	if sys.worker, err = drive.Launch(sys.Dir, sys.environ(), sys.Binary, "worker"); err != nil {
		return nil, err
	}
	if err := sys.startAPI(); err != nil {
		return nil, err
	}
	for role, token := range map[string]*string{"editor": &sys.editor, "reader": &sys.reader} {
		var made struct{ Token string }
		body := fmt.Sprintf(`{"name": "abuse %s", "role": "%s"}`, role, role)
		if err := sys.admin().Post(ctx, http.StatusCreated, &made, "/tokens", "application/json", strings.NewReader(body)); err != nil {
			return nil, err
		}
		*token = made.Token
	}
	return sys, nil
}

// environ is the configuration of both processes, with the memory limit that
// Compose sets.
func (s *system) environ() []string {
	return []string{
		"DATABASE_URL=" + s.url, "SPOOL_DIR=" + filepath.Join(s.Dir, "spool"), "ADMIN_TOKEN=" + adminToken,
		"GOMEMLIMIT=400MiB",
	}
}

// startAPI starts an api that may open so many files and no more, and has it
// remember the hot links.
func (s *system) startAPI() (err error) {
	limited := fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, s.files)
	if s.api, err = drive.Launch(s.Dir, s.environ(), "sh", "-c", limited, s.Binary, "api"); err != nil {
		return err
	}
	return drive.Until(context.Background(), 30*time.Second, 100*time.Millisecond, s.warm)
}

func (s *system) warm(context.Context) error {
	s.cached.Turn = new(atomic.Int64)
	_, err := drive.ClosedLoop(s.api.Addr, s.cached, 1, len(s.cached.Codes))
	s.cached.Turn = nil
	return err
}

// makeLinks fills the database. No title and no target has a q in it.
func (s *system) makeLinks(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	for _, statement := range []string{
		`INSERT INTO users (username, email) SELECT 'user' || n, 'user' || n || '@example.org' FROM generate_series(1, 1000) n`,
		fmt.Sprintf(`INSERT INTO urls (user_id, short_code, original_url, title)
			SELECT 1 + n %% 1000, 'link' || n, 'https://example.org/' || md5(n::text), 'Page ' || md5((-n)::text) FROM generate_series(0, %d) n`, s.links-1),
		"VACUUM ANALYZE urls", "VACUUM ANALYZE users", "CHECKPOINT",
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("make links: %w", err)
		}
	}
	agents := []string{"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}
	s.cached = drive.Traffic{Agents: agents, PerConn: 50}
	// Another route, so that the server's own histogram tells them apart.
	s.uncached = drive.Traffic{Path: "/", Agents: agents, PerConn: 10, Turn: new(atomic.Int64)}
	for n := range s.links {
		code := fmt.Sprintf("link%d", n)
		if n < hotLinks {
			s.cached.Codes = append(s.cached.Codes, code)
		} else {
			s.uncached.Codes = append(s.uncached.Codes, code)
		}
	}
	return nil
}

// admin sends requests of the administrator.
func (s *system) admin() drive.Client { return drive.Client{Addr: s.api.Addr, Token: adminToken} }

// remove stops everything and removes it, unless it is to be kept.
func (s *system) remove(ctx context.Context, keep bool) error {
	s.api.Stop()
	s.worker.Stop()
	return s.Remove(ctx, keep)
}
