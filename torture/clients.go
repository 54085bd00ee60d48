package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/drive"
)

// follow is one client: it follows random links on random replicas.
func (h *harness) follow(ctx context.Context, n int) {
	tick := time.NewTicker(time.Duration(h.clients) * time.Second / time.Duration(h.rate))
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.clicks.Follow(h.apis[(n+i)%2].Addr, "/r/"+h.codes[(n*7+i)%len(h.codes)], 0)
		}
	}
}

func (h *harness) makeLinks(ctx context.Context) error {
	for i := range h.links {
		h.codes = append(h.codes, fmt.Sprintf("link%d", i))
	}
	return drive.With(ctx, h, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `
			WITH u AS (INSERT INTO users (username, email) VALUES ('torture', 'torture@example.org') RETURNING id)
			INSERT INTO urls (user_id, short_code, original_url) SELECT u.id, unnest($1::text[]), 'https://example.org/' FROM u`,
			append(h.codes, changing))
		return err
	})
}

// waitReady waits until every replica can serve.
func (h *harness) waitReady(ctx context.Context) error {
	for _, p := range h.procs {
		if p.role != "api" {
			continue
		}
		err := drive.Until(ctx, time.Minute, 100*time.Millisecond, func(ctx context.Context) error {
			status, _, err := drive.Call(ctx, http.MethodGet, "http://"+p.Addr+"/ready", "", "", nil)
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("it answers %d", status)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("%s did not become ready; see %s: %w", p.Name, p.Log, err)
		}
	}
	return nil
}
