package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/signpost/signpost/internal/listen"
)

const (
	healthTimeout = time.Second
	readyTimeout  = 2 * time.Second
	scrapeTimeout = 10 * time.Second
	profileLimit  = 3 * time.Minute // a profile is answered only when it is complete
)

// Ready returns an error if the process lacks something that it needs for its work. The
// text is shown to anyone who asks on the admin port, so it must not name hosts or
// users.
type Ready func(context.Context) error

// Health returns what is to be said of the system besides that this process answers. It
// is shown to anyone who asks on the admin port.
type Health func(context.Context) map[string]any

// ServeHTTP answers 200 as long as the process can answer at all. The Health has a
// second to say more.
func (h Health) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), healthTimeout)
	defer cancel()
	said := map[string]any{"status": "ok"}
	maps.Copy(said, h(ctx))
	answer(w, http.StatusOK, said)
}

// ServeHTTP answers 200, or 503 with the error of the Ready, which has 2 s to return.
func (r Ready) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), readyTimeout)
	defer cancel()
	if err := r(ctx); err != nil {
		answer(w, http.StatusServiceUnavailable, map[string]any{
			"error": "not ready: " + err.Error(), "code": http.StatusServiceUnavailable,
		})
		return
	}
	answer(w, http.StatusOK, map[string]any{"status": "ready"})
}

// Metrics answers with the metrics of the registry.
func Metrics(registry *prometheus.Registry, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		Registry: registry, ErrorLog: scrapeLog{log}, Timeout: scrapeTimeout,
		// If one collector fails (for example because the database is away), only its
		// own metrics are missing.
		ErrorHandling: promhttp.ContinueOnError,
	})
}

// Profiles answers with profiles of the process, under /debug/pprof/.
func Profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// answer writes body as JSON. It ignores errors, since a client that went away does not
// matter.
func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

type scrapeLog struct{ log *slog.Logger }

func (l scrapeLog) Println(v ...any) {
	l.log.Warn("metrics are incomplete", slog.String("error", fmt.Sprint(v...)))
}

// Admin is a running admin server.
type Admin struct {
	server   *http.Server
	listener net.Listener
	done     chan error
}

// StartAdmin serves handler on addr (host:port; port 0 takes a free one), with
// connections within the bounds of conns. The error means that it cannot listen on
// addr. The caller calls Stop.
func StartAdmin(ctx context.Context, addr string, handler http.Handler, conns listen.Options) (*Admin, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	a := &Admin{
		server: &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      profileLimit,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    64 << 10,
			ErrorLog:          slog.NewLogLogger(conns.Log.Handler(), slog.LevelWarn),
		},
		listener: listen.New(listener, conns),
		done:     make(chan error, 1),
	}
	go func() { a.done <- a.server.Serve(a.listener) }()
	return a, nil
}

// Addr is the address on which the server listens.
func (a *Admin) Addr() string { return a.listener.Addr().String() }

// Stop lets requests under way finish until ctx ends, and then cuts off the rest. It
// must be called only once.
func (a *Admin) Stop(ctx context.Context) error {
	err := a.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("stop the admin server in time: %w", err), a.server.Close())
	}
	if served := <-a.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve: %w", served))
	}
	return err
}
