package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/signpost/signpost/internal/drive"
	"github.com/signpost/signpost/internal/pgserver"
)

// startStandby makes a standby that follows the database.
func (h *harness) startStandby(ctx context.Context) (err error) {
	h.standby, err = pgserver.Start(ctx, pgserver.Options{
		Dir: filepath.Join(h.Dir, "standby"), Durable: true, Primary: h.Cluster, Log: slog.New(slog.DiscardHandler),
	})
	return err
}

// ofBoth is the address of a database that names both servers, as an operator
// gives it to processes which have to find the one that takes writes.
func (h *harness) ofBoth(name string) (string, error) {
	first, err := url.Parse(h.Cluster.URL(name))
	if err != nil {
		return "", err
	}
	second, err := url.Parse(h.standby.URL(name))
	if err != nil {
		return "", err
	}
	query := first.Query()
	for _, key := range []string{"host", "port"} {
		query.Set(key, query.Get(key)+","+second.Query().Get(key))
	}
	query.Set("target_session_attrs", "read-write")
	first.RawQuery = query.Encode()
	return first.String(), nil
}

// reship counts the clicks that the failover has lost, has every api ship its kept
// segments again, and waits until the pipeline is empty.
func (h *harness) reship(ctx context.Context) error {
	t, _, err := h.compare(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("torture: the failover has lost %d answered clicks\n", t.Missing)
	if t.Missing == 0 {
		return errors.New("the failover lost nothing: the standby did not lag, and nothing was shown")
	}
	for _, p := range h.apis {
		if err := h.shipAgain(ctx, p); err != nil {
			return err
		}
	}
	return drive.Settle(ctx, h, patience)
}

// shipAgain has an api ship again all that it keeps.
func (h *harness) shipAgain(ctx context.Context, api *proc) error {
	var got struct{ Segments int64 }
	err := drive.Client{Addr: api.Admin, Token: tortureToken}.Post(ctx, http.StatusOK, &got, "/spool/reship", "", nil)
	h.again.Add(got.Segments)
	return err
}

// promote lets the standby lag, kills the primary for good and makes the standby the
// database.
func (h *harness) promote(ctx context.Context) error {
	const calm = 5 * time.Second
	drive.Pause(ctx, calm)
	if err := h.standby.Pause(); err != nil {
		return err
	}
	fmt.Printf("torture: the standby stands still for %s\n", h.lag)
	drive.Pause(ctx, h.lag)
	h.up.Store(0)
	h.Cluster.Kill() // and nobody starts it again
	h.killed["postgres SIGKILL, for good"]++
	drive.Pause(ctx, 2*time.Second)
	if err := h.standby.Resume(); err != nil {
		return err
	}
	if err := h.standby.Promote(ctx); err != nil {
		return err
	}
	h.up.Store(time.Now().UnixNano())
	fmt.Printf("torture: the standby is promoted, %d answered\n", h.clicks.Answered())
	drive.Pause(ctx, calm)
	return ctx.Err()
}

// removeStandby stops the standby and removes it, unless it is to be kept.
func (h *harness) removeStandby(ctx context.Context, keep bool) error {
	if h.standby == nil {
		return nil
	}
	err := h.standby.Stop(ctx)
	if !keep {
		err = errors.Join(err, pgserver.Remove(ctx, filepath.Join(h.Dir, "standby")))
	}
	return err
}
