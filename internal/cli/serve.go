package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river/rivertype"
	"github.com/spf13/cobra"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/signpost/signpost/api"
	"github.com/signpost/signpost/internal/config"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/telemetry"
)

// process is one running Signpost: the parts that its role needs. Parts are added in
// the order in which they depend on each other, and stopped in the opposite order. A
// stopping process thus first takes no more requests, then ships its clicks, then lets
// its jobs finish, and closes the pool last.
type process struct {
	role     string
	cfg      config.Config
	log      *slog.Logger
	registry *prometheus.Registry
	stdout   io.Writer

	tracing *sdktrace.TracerProvider // nil unless traces are on
	// Each kind of work has connections of its own, so that none waits for another's:
	// jobs, the needs of redirects, and the management API.
	jobs, redirects, management *pgxpool.Pool

	tokens   *api.Tokens
	admin    *http.ServeMux                  // the routes of the admin listener
	only     func(http.Handler) http.Handler // guards the routes that are for operators
	listen   string                          // the address that the API listens on
	adminURL string
	private  bool // the database is this process's own

	parts  []part
	failed chan error // gets the errors that end the process from inside; the first counts
}

// part is something that is running and has to be stopped.
type part struct {
	name string
	stop func(context.Context) error
}

func newProcess(cmd *cobra.Command, environ []string, role string) (*process, error) {
	cfg, log, err := load(cmd, environ)
	if err != nil {
		return nil, err
	}
	return makeProcess(cfg, log, cmd.OutOrStdout(), role), nil
}

func makeProcess(cfg config.Config, log *slog.Logger, stdout io.Writer, role string) *process {
	return &process{
		role: role, cfg: cfg, log: log, stdout: stdout,
		registry: telemetry.NewRegistry(version, buildCommit()),
		failed:   make(chan error, 1),
	}
}

// run adds the parts, waits for ctx to end or a part to fail, and stops all.
func (p *process) run(ctx context.Context, adds ...func(context.Context) error) error {
	err := p.start(ctx, adds)
	if err == nil {
		p.log.InfoContext(ctx, "started", slog.String("role", p.role), slog.String("version", version))
		select {
		case <-ctx.Done():
		case err = <-p.failed:
		}
	}
	if ctx.Err() != nil {
		err = nil // it is not a failure if a signal comes during the start
	}
	p.log.InfoContext(ctx, "stopping", slog.String("role", p.role))
	err = errors.Join(err, p.stop(context.WithoutCancel(ctx)))
	p.log.InfoContext(ctx, "stopped", slog.String("role", p.role))
	return err
}

func (p *process) start(ctx context.Context, adds []func(context.Context) error) error {
	for _, add := range adds {
		if err := add(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *process) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.ShutdownTimeout)
	defer cancel()
	var errs []error
	for _, part := range slices.Backward(p.parts) {
		if err := part.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", part.name, err))
		}
	}
	p.parts = nil
	return errors.Join(errs...)
}

// inPart gives a stop no more than three fifths of the time that a process has to stop.
// A request that never ends must not use up the time in which clicks are shipped.
func (p *process) inPart(stop func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, p.cfg.ShutdownTimeout*3/5)
		defer cancel()
		return stop(ctx)
	}
}

func (p *process) add(name string, stop func(context.Context) error) {
	p.parts = append(p.parts, part{name, stop})
}

// background runs fn until the process stops. If fn ends before, that is a failure.
func (p *process) background(name string, fn func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := fn(ctx); err != nil && ctx.Err() == nil {
			p.fail(fmt.Errorf("%s: %w", name, err))
		}
	})
	p.add(name, func(context.Context) error {
		cancel()
		wg.Wait()
		return nil
	})
}

func (p *process) fail(err error) {
	select {
	case p.failed <- err:
	default: // another part failed first
	}
}

// addTracing switches traces on if there is a collector for them. It is stopped last,
// when no more spans can come.
func (p *process) addTracing(ctx context.Context) error {
	if p.cfg.OTLPEndpoint == "" {
		return nil
	}
	provider, err := telemetry.StartTracing(ctx, p.cfg.OTLPEndpoint, p.role, version, p.log)
	if err != nil {
		return fmt.Errorf("OTEL_EXPORTER_OTLP_ENDPOINT: %w", err)
	}
	p.tracing = provider
	p.add("traces", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			p.log.WarnContext(ctx, "the last traces could not be sent", slog.Any("error", err))
		}
		return nil
	})
	return nil
}

// jobTraces returns the middleware that carries traces through River, if traces are on.
func (p *process) jobTraces() []rivertype.Middleware {
	if p.tracing == nil {
		return nil
	}
	return []rivertype.Middleware{jobs.NewTracing(p.tracing)}
}

// idleConns is how many connections a process keeps open for the next burst of lookups
// or jobs, because a new session costs Postgres far more than a lookup.
const idleConns = 4

// statementTimeout ends a statement whose process vanished without closing its
// connection. It is longer than any deadline that a running api sets for its
// statements.
const statementTimeout = time.Minute

// maxRedirectConns is the most connections that the link cache and the shipper of one
// process ever use at once.
const maxRedirectConns = 16

// addJobsPool opens the pool of a worker.
func (p *process) addJobsPool(ctx context.Context) (err error) {
	p.jobs, err = p.openPool(ctx, "jobs", postgres.Options{MaxConns: p.cfg.DBMaxConns})
	return err
}

// addPools opens the two pools of an api, which share DB_MAX_CONNS. One is for the
// needs of redirects (lookups, the link cache, shipping, /ready), and one for the
// management API, whose queries may take seconds.
func (p *process) addPools(ctx context.Context) (err error) {
	forRedirects := min(p.cfg.DBMaxConns/2, maxRedirectConns)
	p.redirects, err = p.openPool(ctx, "redirects", postgres.Options{
		MaxConns: forRedirects, StatementTimeout: statementTimeout, KeepCanceled: true,
	})
	if err != nil {
		return err
	}
	p.management, err = p.openPool(ctx, "management", postgres.Options{
		MaxConns: p.cfg.DBMaxConns - forRedirects, StatementTimeout: statementTimeout, KeepCanceled: true, ShortQueries: true,
	})
	return err
}

// openPool opens one of the pools of this process, and adds it as a part.
func (p *process) openPool(ctx context.Context, name string, o postgres.Options) (*pgxpool.Pool, error) {
	o.Role, o.IdleConns, o.IdleInTxTimeout = p.role, idleConns, time.Minute
	pool, err := postgres.Open(ctx, p.cfg.DatabaseURL, o)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	postgres.RegisterPool(p.registry, name, pool)
	p.add(name+" database pool", func(context.Context) error { pool.Close(); return nil })
	return pool, nil
}

// readiness returns the pool whose state tells whether this process can do its work.
func (p *process) readiness() *pgxpool.Pool {
	if p.redirects != nil {
		return p.redirects
	}
	return p.jobs
}
