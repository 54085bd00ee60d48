package api

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/signpost/signpost/internal/postgres"
)

const (
	probeTimeout = 800 * time.Millisecond
	// probeValid is how long the result of a check is used for further requests, so
	// that health checks cannot load the database.
	probeValid = 250 * time.Millisecond
)

// probe runs a check at most a few times a second, however often it is asked.
type probe struct {
	check func(context.Context) error

	mu   sync.Mutex // also held while the check runs, so that others wait for its result
	at   time.Time
	last error
}

func newProbe(check func(context.Context) error) *probe { return &probe{check: check} }

// run returns the outcome of a check that is younger than probeValid. It takes
// no longer than probeTimeout.
func (p *probe) run() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.at) < probeValid {
		return p.last
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	p.last = p.check(ctx)
	p.at = time.Now()
	return p.last
}

func (a *API) checkDatabase(ctx context.Context) error { return postgres.CheckSchema(ctx, a.Redirects) }

// health answers 200 as long as the process answers at all. It also says whether the
// process reaches the database.
func (a *API) health(c *fiber.Ctx) error {
	db := "connected"
	if err := a.database.run(); err != nil && !isSchemaError(err) {
		db = "disconnected"
	}
	return sendJSON(c, `{"status":"ok","db":"`+db+`"}`)
}

// ready tells a load balancer whether this process can do all of its work.
func (a *API) ready(c *fiber.Ctx) error {
	a.watched.Store(time.Now().UnixNano())
	if a.draining.Load() {
		return unavailable("not ready: shutting down")
	}
	if err := a.database.run(); err != nil {
		var schema *postgres.SchemaError
		if errors.As(err, &schema) {
			return unavailable("not ready: " + schema.Error())
		}
		return unavailable("not ready: the database cannot be reached")
	}
	return sendJSON(c, `{"status":"ready"}`)
}

func isSchemaError(err error) bool {
	var schema *postgres.SchemaError
	return errors.As(err, &schema)
}

func sendJSON(c *fiber.Ctx, body string) error {
	r := &c.Context().Response
	r.SetStatusCode(http.StatusOK)
	r.Header.SetContentType("application/json")
	r.Header.Set(fiber.HeaderCacheControl, "no-store")
	r.SetBodyString(body)
	return nil
}
