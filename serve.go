package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river/rivertype"
	"github.com/spf13/cobra"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/signpost/signpost/api"
	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/config"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/listen"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/redis"
	"github.com/signpost/signpost/internal/telemetry"
	"github.com/signpost/signpost/worker"
)

// process is one running Signpost: the parts that its role needs. Parts are
// added in the order in which they depend on each other and stopped in the
// opposite order, so that a stopping process first takes no more requests, then
// ships its clicks, then lets its jobs finish, and lets go of the pool last.
type process struct {
	role     string
	cfg      config.Config
	log      *slog.Logger
	registry *prometheus.Registry
	stdout   io.Writer

	tracing *sdktrace.TracerProvider // nil unless traces are on
	// Each kind of work has connections of its own, so that none waits for
	// another's: jobs, what redirects need, and the management API.
	jobs, redirects, management *pgxpool.Pool

	tokens   *api.Tokens
	admin    *http.ServeMux                  // of the admin listener
	only     func(http.Handler) http.Handler // guards what is for operators on it
	listen   string                          // the address that the API listens on
	adminURL string
	private  bool // the database is this process's own

	parts  []part
	failed chan error // what ends the process from inside; the first counts
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
		p.log.InfoContext(ctx, "started", "role", p.role, "version", version)
		select {
		case <-ctx.Done():
		case err = <-p.failed:
		}
	}
	if ctx.Err() != nil {
		err = nil // a signal while starting is not a failure
	}
	p.log.InfoContext(ctx, "stopping", "role", p.role)
	err = errors.Join(err, p.stop(context.WithoutCancel(ctx)))
	p.log.InfoContext(ctx, "stopped", "role", p.role)
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

// inPart gives a stop no more than three fifths of the time that a process has to
// stop: a request that never ends must not take the time in which clicks are
// shipped.
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

// background runs fn until the process stops; its own end is a failure.
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
	default: // something else failed first
	}
}

// addTracing switches traces on if there is a collector for them. It is stopped
// last, when there are no more spans to come.
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
			p.log.WarnContext(ctx, "the last traces could not be sent", "error", err)
		}
		return nil
	})
	return nil
}

// jobTraces carries traces through River, where they are on.
func (p *process) jobTraces() []rivertype.Middleware {
	if p.tracing == nil {
		return nil
	}
	return []rivertype.Middleware{jobs.NewTracing(p.tracing)}
}

// apiTraces is nil where traces are off.
func (p *process) apiTraces() *api.Traces {
	if p.tracing == nil {
		return nil
	}
	return api.NewTraces(p.tracing, p.cfg.TraceRedirects)
}

// idleConns are what a process keeps open for the next burst of lookups or jobs: a
// new session costs Postgres far more than a lookup does.
const idleConns = 4

// statementTimeout ends a statement whose process vanished without a word. It is
// longer than any deadline that a living api gives its statements.
const statementTimeout = time.Minute

// schemaCheckEvery is how often an api looks at the schema that it could not look
// at when it started.
const schemaCheckEvery = 5 * time.Second

// maxRedirectConns is as many connections as the link cache and the shipper of
// one process ever use at once.
const maxRedirectConns = 16

// addJobsPool opens the pool of a worker.
func (p *process) addJobsPool(ctx context.Context) (err error) {
	p.jobs, err = p.openPool(ctx, "jobs", postgres.Options{MaxConns: p.cfg.DBMaxConns})
	return err
}

// addPools opens the pools of an api, which share DB_MAX_CONNS: one for whatever
// redirects need (look-ups, the link cache, shipping, /ready), and one for the
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
	p.registry.MustRegister(postgres.NewPoolMetrics(name, pool))
	p.add(name+" database pool", func(context.Context) error { pool.Close(); return nil })
	return pool, nil
}

// readiness is the pool that tells whether this process can do its work.
func (p *process) readiness() *pgxpool.Pool {
	if p.redirects != nil {
		return p.redirects
	}
	return p.jobs
}

func (p *process) addAdmin(ctx context.Context) error {
	p.registry.MustRegister(postgres.NewUpMetric(p.readiness()))
	p.tokens = api.NewTokens(cmp.Or(p.management, p.jobs), p.cfg.AdminToken)
	p.only = api.NewOperators(p.tokens, p.cfg.AdminAddr, p.cfg.TrustedProxies, p.log).Only
	p.admin = telemetry.AdminHandler(p.registry, p.log, p.ready, p.only)
	admin, err := telemetry.StartAdmin(ctx, p.cfg.AdminAddr, adminConns, p.admin, p.log)
	if err != nil {
		return fmt.Errorf("ADMIN_ADDR: %w", err)
	}
	p.add("admin listener", admin.Stop)
	p.registry.MustRegister(admin.Metrics())
	p.adminURL = localURL(admin.Addr())
	p.log.InfoContext(ctx, "admin listener ready", "addr", admin.Addr())
	return nil
}

// ready says what is missing in words that anyone may read.
func (p *process) ready(ctx context.Context) error {
	err := postgres.CheckSchema(ctx, p.readiness())
	var older *postgres.SchemaError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &older):
		return older
	}
	p.log.DebugContext(ctx, "not ready", "error", err)
	return errors.New("the database cannot be reached")
}

// addAPI serves HTTP. The API comes up without Postgres, so that a replica
// restarted during an outage serves what its snapshot holds; it refuses an
// older schema as soon as it can see it.
func (p *process) addAPI(ctx context.Context) error {
	var older *postgres.SchemaError
	check, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := postgres.CheckSchema(check, p.redirects); errors.As(err, &older) || postgres.Refused(err) {
		return err
	}
	p.background("schema check", p.refuseOlderSchema)

	spool, err := p.addSpool()
	if err != nil {
		return err
	}
	river, err := worker.NewInserter(p.management, p.log, p.jobTraces()...)
	if err != nil {
		return err
	}
	traces := p.apiTraces()
	shipper := api.NewShipper(api.ShipperOptions{
		Pool: p.redirects, River: river, Spool: spool, Log: p.log, Registry: p.registry, Traces: traces,
	})
	cache, err := p.addCache(shipper.Met)
	if err != nil {
		return err
	}
	if installation := cache.Installation(); installation != "" {
		spool.Suppose(installation) // Postgres may be away, and the cache is served
	}
	p.add("shipper drain", func(ctx context.Context) error { return drain(ctx, shipper, p.log) })
	p.background("shipper", shipper.Run)
	p.admin.Handle("POST /spool/reship", p.only(shipper.ReshipHandler()))

	server, err := api.New(api.Options{
		Pool: p.management, Redirects: p.redirects, River: river, Spool: spool, Cache: cache,
		PublicURL: p.cfg.PublicURL, OwnHosts: p.cfg.OwnHosts(), Tokens: p.tokens, TrustedProxies: p.cfg.TrustedProxies,
		ImportMaxBytes: int64(p.cfg.ImportMaxBytes), ImportMaxUploads: p.cfg.ImportMaxUploads, ExportMaxActive: p.cfg.ExportMaxActive,
		CORSOrigins: p.cfg.CORSOrigins, SecurityContact: p.cfg.SecurityContact,
		Registry: p.registry, Traces: traces, Log: p.log, Version: version,
	})
	if err != nil {
		return err
	}
	// Here and not in workers, because the API has what it needs: a client of
	// River that inserts only.
	jobs := server.NewJobsUI()
	p.admin.Handle("/jobs", p.only(jobs))
	p.admin.Handle("/jobs/", p.only(jobs))
	p.add("jobs page", jobs.Stop)
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", p.cfg.ListenAddr)
	if err != nil {
		return fmt.Errorf("LISTEN_ADDR: %w", err)
	}
	bounded := p.bound(ctx, listener)
	p.background("http server", func(context.Context) error { return server.Serve(bounded) })
	p.add("http requests", p.inPart(server.Shutdown))
	p.listen = listener.Addr().String()
	p.log.InfoContext(ctx, "listening", "addr", listener.Addr().String(), "url", p.cfg.PublicURL)
	return nil
}

const (
	// adminConns bounds the connections to the admin listener: a few scrapers,
	// probes and people.
	adminConns = 32
	// spareFiles are left to the spool, the cache's snapshot, Redis, storage for
	// months and logs.
	spareFiles = 128
	// maxConnections is what a process is good for: idle connections take some
	// 25 KiB each.
	maxConnections = 8192
	// fewConnections is a bound that is worth a warning.
	fewConnections = 1024
)

// bound bounds the connections of clients, so that they leave files to all else.
func (p *process) bound(ctx context.Context, listener net.Listener) net.Listener {
	room := p.roomForConnections(ctx)
	most := cmp.Or(p.cfg.MaxConnections, maxConnections)
	if most > room {
		if p.cfg.MaxConnections > 0 || room < fewConnections {
			p.log.WarnContext(ctx, "the limit on open files bounds the connections of clients: raise it (ulimit -n, LimitNOFILE)",
				"wanted", most, "connections", room)
		}
		most = room
	}
	perClient := cmp.Or(p.cfg.MaxConnsPerClient, max(1, most/4))
	p.log.InfoContext(ctx, "connections of clients are bounded", "connections", most, "per_client", perClient)
	bounded := listen.New(listener, listen.Options{
		Name: "public", Most: most, PerClient: perClient, Proxies: p.cfg.TrustedProxies, Log: p.log,
	})
	p.registry.MustRegister(bounded)
	return bounded
}

// roomForConnections returns how many connections of clients the limit on open
// files leaves room for.
func (p *process) roomForConnections(ctx context.Context) int {
	files, err := listen.OpenFiles()
	if err != nil {
		p.log.WarnContext(ctx, "the limit on open files is not known", "error", err)
		return maxConnections
	}
	// A connection to the database may need another one to cancel its statement. A
	// dev has the pools of a worker too.
	own := 4*(p.cfg.DBMaxConns+1) + adminConns + spareFiles
	return max(files-own, files/4)
}

// drain ships what is left. What cannot be shipped now is safe in the spool.
func drain(ctx context.Context, shipper *api.Shipper, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := shipper.Drain(ctx); err != nil {
		log.WarnContext(ctx, "clicks stay in the spool and are shipped after the next start", "error", err)
	}
	return nil
}

// refuseOlderSchema returns an error when it sees an older schema. Whatever else
// Postgres says, as while it is being restored, passes: cached links are served
// meanwhile.
func (p *process) refuseOlderSchema(ctx context.Context) error {
	for {
		err := postgres.WaitForSchema(ctx, p.redirects, p.log)
		var older *postgres.SchemaError
		if err == nil || errors.As(err, &older) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(schemaCheckEvery):
			p.log.WarnContext(ctx, "the schema cannot be looked at, trying again", "error", err)
		}
	}
}

func (p *process) addSpool() (*clicks.Spool, error) {
	durability, err := clicks.ParseDurability(p.cfg.ClickDurability)
	if err != nil {
		return nil, fmt.Errorf("CLICK_DURABILITY: %w", err)
	}
	spool, err := clicks.Open(clicks.Options{
		Dir: p.cfg.SpoolDir, MaxBytes: int64(p.cfg.SpoolMaxBytes), Keep: p.cfg.SpoolKeep,
		Durability: durability, Log: p.log, Metrics: clicks.NewMetrics(p.registry),
	})
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	p.add("spool", func(context.Context) error { return spool.Close() })
	p.registry.MustRegister(telemetry.NewDiskMetrics(p.cfg.SpoolDir))
	telemetry.Limit(p.registry, "signpost_spool_max_bytes", "Most bytes of clicks that this process keeps (SPOOL_MAX_BYTES).", float64(p.cfg.SpoolMaxBytes))
	return spool, nil
}

func (p *process) addCache(met func(installation string)) (*linkcache.Cache, error) {
	dir, release := snapshotDir(p.cfg.SpoolDir, p.log)
	p.add("cache folder", func(context.Context) error { return release() })
	options := linkcache.Options{
		Pool: p.redirects, Size: p.cfg.CacheSize, TTL: p.cfg.CacheTTL, StaleMax: p.cfg.CacheStaleMax,
		Met: met, Log: p.log, Registerer: p.registry,
	}
	if dir != "" {
		options.SnapshotPath = filepath.Join(dir, "links.snapshot")
	}
	if p.cfg.RedisURL != "" {
		shared, err := redis.New(redis.Options{URL: p.cfg.RedisURL, Timeout: p.cfg.RedisTimeout, Log: p.log, Registerer: p.registry})
		if err != nil {
			return nil, fmt.Errorf("REDIS_URL: %w", err)
		}
		p.background("redis", shared.Run)
		options.Redis = shared
	}
	cache, err := linkcache.Open(options)
	if err != nil {
		return nil, fmt.Errorf("open link cache: %w", err)
	}
	p.background("link cache", cache.Run)
	telemetry.Limit(p.registry, "signpost_link_cache_max_entries", "Most links in the cache (CACHE_SIZE).", float64(p.cfg.CacheSize))
	return cache, nil
}

// snapshotDir finds a folder for the cache's snapshot that no other process
// uses: the first that is not locked, so that a process that is started again
// finds what it left. Without one (an unwritable disk) there is no snapshot.
func snapshotDir(spool string, log *slog.Logger) (dir string, release func() error) {
	for i := range 1000 {
		dir := filepath.Join(spool, fmt.Sprintf("cache-%d", i))
		err := os.MkdirAll(dir, 0o700)
		if err == nil {
			var lock *os.File
			if lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err == nil {
				if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
					// Unlocked by name: a child being forked may hold the file open.
					return dir, func() error {
						return errors.Join(syscall.Flock(int(lock.Fd()), syscall.LOCK_UN), lock.Close())
					}
				}
				_ = lock.Close()
				continue
			}
		}
		log.Warn("the cache has no snapshot", "error", err)
		break
	}
	return "", func() error { return nil }
}

// addWorker works River's queues. It waits for Postgres, and for nothing else.
func (p *process) addWorker(ctx context.Context, queues string) error {
	chosen, err := worker.ParseQueues(queues)
	if err != nil {
		return fmt.Errorf("--queues: %w", err)
	}
	retention, err := retention(p.cfg)
	if err != nil {
		return err
	}
	w, err := worker.New(worker.Options{
		Pool: p.jobs, Queues: chosen, OwnHosts: p.cfg.OwnHosts(), Registry: p.registry, Log: p.log,
		LedgerKeep: p.cfg.ClickLedgerKeep, ImportKeep: p.cfg.ImportKeep, Retention: retention,
		Middleware: p.jobTraces(),
	})
	if err != nil {
		return err
	}
	if err := postgres.WaitForSchema(ctx, p.jobs, p.log); err != nil {
		return err
	}
	if err := w.Start(ctx); err != nil {
		return err
	}
	p.add("worker", w.Stop)
	return nil
}
