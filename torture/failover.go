package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/pgserver"
)

// startStandby makes a standby that follows the database.
func (h *harness) startStandby(ctx context.Context) (err error) {
	h.standby, err = pgserver.Start(ctx, pgserver.Options{
		Dir: filepath.Join(h.dir, "standby"), Durable: true, Primary: h.cluster, Log: slog.New(slog.DiscardHandler),
	})
	return err
}

// ofBoth is the address of a database that names both servers, as an operator
// gives it to processes which have to find the one that takes writes.
func (h *harness) ofBoth(name string) (string, error) {
	first, err := url.Parse(h.cluster.URL(name))
	if err != nil {
		return "", err
	}
	second, err := url.Parse(h.standby.URL(name))
	if err != nil {
		return "", err
	}
	query := first.Query()
	query.Set("host", first.Query().Get("host")+","+second.Query().Get("host"))
	query.Set("port", first.Query().Get("port")+","+second.Query().Get("port"))
	query.Set("target_session_attrs", "read-write")
	first.RawQuery = query.Encode()
	return first.String(), nil
}

// failOver has clients follow links, lets the standby fall behind, kills the
// primary for good and promotes the standby. Then it counts what the database has
// lost, has every api ship again what it keeps, and the account must hold.
func (h *harness) failOver(ctx context.Context) error {
	if err := h.startStandby(ctx); err != nil {
		return err
	}
	if err := h.startAll(ctx); err != nil {
		return err
	}
	began := time.Now()
	load, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	var clients sync.WaitGroup
	for i := range h.clients {
		clients.Go(func() { h.follow(load, i) })
	}
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	for _, p := range h.apis {
		go p.watch(watching)
	}
	err := h.promote(ctx)
	stopLoad()
	clients.Wait()
	if err != nil {
		return err
	}
	if err := h.settle(ctx); err != nil {
		return err
	}
	lost, err := h.lost(ctx)
	if err != nil {
		return err
	}
	if lost == 0 {
		return errors.New("the failover lost nothing: the standby did not lag, and nothing was shown")
	}
	for _, p := range h.apis {
		var got struct{ Segments, Waiting int64 }
		status, err := call(ctx, newClient(), http.MethodPost, "http://"+p.admin+"/spool/reship", nil, &got)
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("%s was asked to ship again and answered %d: %w", p.name, status, err)
		}
		h.again.Add(got.Segments)
	}
	if err := h.settle(ctx); err != nil {
		return err
	}
	for _, p := range h.apis {
		p.askDrops(ctx)
	}
	h.stopAll()
	fmt.Println()
	line("lost by the failover, before reshipping", lost)
	return h.account(ctx, time.Since(began))
}

// promote lets the standby lag and then makes it the database.
func (h *harness) promote(ctx context.Context) error {
	const calm = 5 * time.Second
	pause(ctx, calm)
	if err := h.standby.Pause(); err != nil {
		return err
	}
	fmt.Printf("torture: the standby stands still for %s\n", h.lag)
	pause(ctx, h.lag)
	h.up.Store(0)
	h.cluster.Kill() // and nobody starts it again
	h.killed["postgres SIGKILL, for good"]++
	pause(ctx, 2*time.Second)
	if err := h.standby.Resume(); err != nil {
		return err
	}
	if err := h.standby.Promote(ctx); err != nil {
		return err
	}
	h.up.Store(time.Now().UnixNano())
	fmt.Printf("torture: the standby is promoted, %d answered\n", h.ledger.answeredSoFar())
	pause(ctx, calm)
	return ctx.Err()
}

// lost returns how many of the clicks that were answered are not in the events.
func (h *harness) lost(ctx context.Context) (int, error) {
	conn, err := pgx.Connect(ctx, h.url)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	var counted int
	err = conn.QueryRow(ctx, "SELECT count(DISTINCT referrer_host) FROM events WHERE event_type = 'clicked'").Scan(&counted)
	return max(0, h.ledger.answeredSoFar()-counted), err
}
