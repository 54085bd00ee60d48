package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/trace"

	"github.com/signpost/signpost/api"
	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/files"
	"github.com/signpost/signpost/internal/linkcache"
	"github.com/signpost/signpost/internal/listen"
	"github.com/signpost/signpost/internal/pause"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/redis"
	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/internal/shipping"
	"github.com/signpost/signpost/internal/telemetry"
	"github.com/signpost/signpost/worker"
)

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

// schemaCheckEvery is how often an api checks the schema again if it could not when it
// started.
const schemaCheckEvery = 5 * time.Second

// addAPI serves HTTP. The API starts even without Postgres, so that a replica that is
// restarted during an outage serves the links in its snapshot. As soon as it can see
// the schema, it refuses one that is too old.
func (p *process) addAPI(ctx context.Context) error {
	var older *postgres.SchemaError
	check, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := postgres.CheckSchema(check, p.redirects); errors.As(err, &older) || postgres.Refused(err) {
		return err
	}
	p.background("schema check", p.refuseOlderSchema)

	river, err := worker.NewInserter(p.management, p.log, p.jobTraces()...)
	if err != nil {
		return err
	}
	shipper := shipping.New(shipping.Options{
		Pool: p.redirects, River: river, Log: p.log, Host: clicks.Clean(hostName(), 255), Registry: p.registry, Tracing: p.tracerProvider(),
	})
	cache, err := p.addCache(shipper.Met)
	if err != nil {
		return err
	}
	// Postgres may be away, and cached links are served all the same.
	spool, err := p.addSpool(cache.Installation(), func(ctx context.Context) { leave(ctx, shipper, p.log) })
	if err != nil {
		return err
	}
	shipper.Spool = spool
	p.add("shipper drain", func(ctx context.Context) error { return drain(ctx, shipper, p.log) })
	// Postgres knows of this process before it takes a click. If it cannot be told now,
	// Run tells it later.
	if err := shipper.Report(check); err != nil {
		p.log.WarnContext(ctx, "Postgres cannot be told that this process takes clicks; statistics do not wait for its clicks yet", slog.Any("error", err))
	}
	p.background("shipper", shipper.Run)

	listener, err := p.openListener(ctx)
	if err != nil {
		return err
	}
	server, err := api.New(api.Options{
		Pool: p.management, Redirects: p.redirects, River: river, Spool: spool, Cache: cache,
		PublicURL: p.cfg.PublicURL, AppURL: p.cfg.AppURL, TimeZone: p.cfg.TimeZone, OwnHosts: p.cfg.OwnHosts(), Tokens: p.tokens, TrustedProxies: p.cfg.TrustedProxies,
		ImportMaxBytes: int64(p.cfg.ImportMaxBytes), ImportMaxUploads: p.cfg.ImportMaxUploads, ExportMaxActive: p.cfg.ExportMaxActive,
		CORSOrigins: p.cfg.CORSOrigins, SecurityContact: p.cfg.SecurityContact,
		Registry: p.registry, Traces: p.apiTraces(), Log: p.log, Version: version, About: p.about(),
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	jobs := server.NewJobsUI()
	p.apiAdminRoutes(server, shipper, jobs)
	p.add("jobs page", jobs.Stop)
	bounded := p.bound(ctx, listener)
	p.background("http server", func(context.Context) error { return server.Serve(bounded) })
	p.add("http requests", p.inPart(server.Shutdown))
	p.log.InfoContext(ctx, "listening", slog.String("addr", p.listen), slog.String("url", p.cfg.PublicURL))
	return nil
}

// openListener takes the address of the API. If LISTEN_ADDR leaves the port to the system, short
// URLs have the one that it gave.
func (p *process) openListener(ctx context.Context) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", p.cfg.ListenAddr)
	if err != nil {
		return nil, fmt.Errorf("LISTEN_ADDR: %w", err)
	}
	p.listen = listener.Addr().String()
	if host, free := strings.CutSuffix(p.cfg.PublicURL, ":0"); free {
		p.cfg.PublicURL = host + p.listen[strings.LastIndex(p.listen, ":"):]
	}
	return listener, nil
}

// about returns what an API tells operators of its process.
func (p *process) about() service.About {
	a := service.About{
		Version: version, Commit: buildCommit(), Host: clicks.Clean(hostName(), 255), StartedAt: time.Now().UTC(),
		JobsURL: p.cfg.JobsURL, GrafanaURL: p.cfg.GrafanaURL,
	}
	if a.JobsURL == "" && p.role == "dev" {
		a.JobsURL = p.adminURL + "/jobs/"
	}
	for _, attr := range p.cfg.LogValue().Group() {
		a.Settings = append(a.Settings, service.Setting{Name: attr.Key, Value: attr.Value.String()})
	}
	return a
}

const (
	// spareFiles are open files that are kept for the spool, the cache's snapshot,
	// Redis, storage for months, and logs.
	spareFiles = 128
	// maxConnections is the most connections that a process allows by default: an idle
	// connection takes about 25 KiB.
	maxConnections = 8192
	// fewConnections is the number of connections below which a warning is logged.
	fewConnections = 1024
)

// bound limits the connections of clients, so that enough files are left for everything
// else.
func (p *process) bound(ctx context.Context, listener net.Listener) net.Listener {
	room := p.roomForConnections(ctx)
	most := cmp.Or(p.cfg.MaxConnections, maxConnections)
	if most > room {
		if p.cfg.MaxConnections > 0 || room < fewConnections {
			p.log.WarnContext(ctx, "the limit on open files bounds the connections of clients: raise it (ulimit -n, LimitNOFILE)",
				slog.Int("wanted", most), slog.Int("connections", room))
		}
		most = room
	}
	perClient := cmp.Or(p.cfg.MaxConnsPerClient, max(1, most/4))
	p.log.InfoContext(ctx, "connections of clients are bounded", slog.Int("connections", most), slog.Int("per_client", perClient))
	return listen.New(listener, listen.Options{
		Name: "public", Most: most, PerClient: perClient, Proxies: p.cfg.TrustedProxies, Log: p.log, Registry: p.registry,
	})
}

// roomForConnections returns how many connections of clients the limit on open files
// allows.
func (p *process) roomForConnections(ctx context.Context) int {
	files, err := listen.OpenFiles()
	if err != nil {
		p.log.WarnContext(ctx, "the limit on open files is not known", slog.Any("error", err))
		return maxConnections
	}
	// A connection to the database may need another one to cancel its statement. A
	// process of dev has the pools of a worker too.
	own := 4*(p.cfg.DBMaxConns+1) + adminConns + spareFiles
	return max(files-own, files/4)
}

// drain ships the clicks that are left. Segments that cannot be shipped now are safe in
// the spool.
func drain(ctx context.Context, shipper *shipping.Shipper, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := shipper.Drain(ctx); err != nil {
		log.WarnContext(ctx, "clicks stay in the spool and are shipped after the next start", slog.Any("error", err))
	}
	return nil
}

// refuseOlderSchema returns an error if it sees an older schema. After any other error
// of Postgres, for example while it is being restored, it tries again: cached links are
// served meanwhile.
func (p *process) refuseOlderSchema(ctx context.Context) error {
	for {
		err := postgres.WaitForSchema(ctx, p.redirects, p.log)
		var older *postgres.SchemaError
		if err == nil || errors.As(err, &older) {
			return err
		}
		if pause.For(ctx, schemaCheckEvery) != nil {
			return nil //nolint:nilerr // the process is being stopped, which is no fault of the schema
		}
		p.log.WarnContext(ctx, "the schema cannot be looked at, trying again", slog.Any("error", err))
	}
}

// leave ships the clicks of requests that ended after drain, and tells Postgres that this
// process takes no more. If that fails, the process that adopts its folder says so.
func leave(ctx context.Context, shipper *shipping.Shipper, log *slog.Logger) {
	if err := shipper.Ship(ctx); err != nil {
		log.WarnContext(ctx, "clicks stay in the spool and are shipped after the next start", slog.Any("error", err))
	}
	if err := shipper.Leave(ctx); err != nil {
		log.WarnContext(ctx, "Postgres cannot be told that this process has stopped", slog.Any("error", err))
	}
}

// hostName returns how people know this machine or container.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// addSpool opens the spool of this process. When it has stopped and before it is closed,
// leave is called.
func (p *process) addSpool(supposed string, leave func(context.Context)) (*clicks.Spool, error) {
	spool, err := clicks.Open(clicks.Options{
		Dir: p.cfg.SpoolDir, MaxBytes: int64(p.cfg.SpoolMaxBytes), Keep: p.cfg.SpoolKeep,
		Durability: clicks.Durability(p.cfg.ClickDurability), Log: p.log, Metrics: clicks.NewMetrics(p.registry),
		Supposed: supposed,
	})
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	p.add("spool", func(ctx context.Context) error {
		_ = spool.Stop() // Close returns the same
		leave(ctx)
		return spool.Close()
	})
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

// snapshotDir returns a folder for the cache's snapshot that no other process uses. It
// is the first that is not locked, so that a process finds its snapshot again after a
// restart. If there is none (for example because the disk cannot be written), there is
// no snapshot.
func snapshotDir(spool string, log *slog.Logger) (dir string, release func() error) {
	for i := range 1000 {
		dir := filepath.Join(spool, fmt.Sprintf("cache-%d", i))
		err := files.MkdirAll(dir)
		if err == nil {
			var lock *os.File
			if lock, err = files.OpenLocked(filepath.Join(dir, "lock")); err == nil {
				return dir, func() error { return files.Unlock(lock) }
			}
		}
		if !errors.Is(err, files.ErrLocked) {
			log.Warn("the cache has no snapshot", slog.Any("error", err))
			break
		}
	}
	return "", func() error { return nil }
}

// tracerProvider is nil if traces are off.
func (p *process) tracerProvider() trace.TracerProvider {
	if p.tracing == nil {
		return nil
	}
	return p.tracing
}

// apiTraces is nil if traces are off.
func (p *process) apiTraces() *api.Traces {
	if p.tracing == nil {
		return nil
	}
	return api.NewTraces(p.tracing, p.cfg.TraceRedirects)
}
