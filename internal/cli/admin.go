package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/signpost/signpost/api"
	"github.com/signpost/signpost/internal/listen"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/shipping"
	"github.com/signpost/signpost/internal/telemetry"
)

// adminConns bounds the connections to the admin listener: a few scrapers,
// probes and people.
const adminConns = 32

// adminRoutes adds the routes of the admin listener that every process has. The first
// three are open to everyone who can reach the listener, so its address must not be
// public; the others are only for operators.
func (p *process) adminRoutes() {
	p.admin.Handle("GET /health", telemetry.Health(p.health))
	p.admin.Handle("GET /ready", telemetry.Ready(p.ready))
	p.admin.Handle("GET /metrics", telemetry.Metrics(p.registry, p.log))
	p.admin.Handle("/debug/pprof/", p.only(telemetry.Profiles()))
}

// apiAdminRoutes adds the routes that an api has when its parts are there; the mux may
// be served already. The jobs page is here and not in workers, because the API has a
// client of River that only inserts.
func (p *process) apiAdminRoutes(server *api.API, shipper *shipping.Shipper, jobs http.Handler) {
	p.admin.HandleFunc("GET /tls/ask", server.AskTLS) // proxies send no token
	p.admin.Handle("POST /spool/reship", p.only(api.NewReshipHandler(shipper, p.log)))
	p.admin.Handle("/jobs", p.only(jobs))
	p.admin.Handle("/jobs/", p.only(jobs))
}

func (p *process) addAdmin(ctx context.Context) error {
	p.registry.MustRegister(postgres.NewUpMetric(p.readiness()))
	p.tokens = api.NewTokens(cmp.Or(p.management, p.jobs), p.cfg.AdminToken)
	p.only = api.NewOperators(p.tokens, p.cfg.AdminAddr, p.cfg.TrustedProxies, p.log).Only
	p.admin = http.NewServeMux()
	p.adminRoutes()
	admin, err := telemetry.StartAdmin(ctx, p.cfg.AdminAddr, p.admin, listen.Options{
		Name: "admin", Most: adminConns, Log: p.log, Registry: p.registry,
	})
	if err != nil {
		return fmt.Errorf("ADMIN_ADDR: %w", err)
	}
	p.add("admin listener", admin.Stop)
	p.adminURL = localURL(admin.Addr())
	p.log.InfoContext(ctx, "admin listener ready", slog.String("addr", admin.Addr()))
	return nil
}

// ready returns an error if the process lacks something that it needs. Anyone may read
// its text.
func (p *process) ready(ctx context.Context) error {
	err := postgres.CheckSchema(ctx, p.readiness())
	var older *postgres.SchemaError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &older):
		return older
	}
	p.log.DebugContext(ctx, "not ready", slog.Any("error", err))
	return errors.New("the database cannot be reached")
}
