package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/signpost/signpost/internal/drive"
)

const (
	// changing is the code of the link that changes all the time.
	changing = "changing"
	// longestStale is several times the promised second.
	longestStale = 5 * time.Second
)

// freshness is how long replicas gave the answer from before a change of which
// they could know: since it was committed, since Postgres is up and since the
// replica was started.
type freshness struct {
	mu      sync.Mutex
	changes int
	stale   time.Duration // the longest
}

// changeLink gives the changing link a new target or switches it off, waits
// until all replicas know, and so on until ctx ends.
func (h *harness) changeLink(ctx context.Context) {
	for n := 1; ctx.Err() == nil; n++ {
		for h.setVersion(ctx, n) != nil && ctx.Err() == nil {
			drive.Pause(ctx, 100*time.Millisecond)
		}
		h.fresh.changes = n
		committed := time.Now()
		var replicas sync.WaitGroup
		for _, p := range h.apis {
			replicas.Go(func() { h.untilFresh(ctx, p, n, committed) })
		}
		replicas.Wait()
	}
}

func versionTarget(n int) string { return fmt.Sprintf("https://example.org/version/%d", n) }

func versionActive(n int) bool { return n%2 == 0 }

func (h *harness) setVersion(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return drive.With(ctx, h, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `UPDATE urls SET original_url = $1, is_active = $2 WHERE short_code = $3`,
			versionTarget(n), versionActive(n), changing)
		return err
	})
}

// untilFresh asks a replica until it gives the answer of a version, and notes
// how long it gave another.
func (h *harness) untilFresh(ctx context.Context, p *proc, n int, committed time.Time) {
	for ctx.Err() == nil {
		// HEAD is answered as GET is, and not counted.
		a := drive.Ask(http.MethodHead, p.Addr, "/r/"+changing, "torture", "")
		active, gone := a.Status == "302", a.Status == "410"
		if active && versionActive(n) && a.Location == versionTarget(n) || gone && !versionActive(n) {
			return
		}
		if active || gone { // and not one that says it does not know
			h.noteStale(p, a.Began, committed)
		}
		drive.Pause(ctx, 20*time.Millisecond)
	}
}

// noteStale notes that a request at a moment was given an old answer.
func (h *harness) noteStale(p *proc, asked, committed time.Time) {
	up := h.up.Load()
	if up == 0 {
		return // it cannot know
	}
	since := committed
	p.mu.Lock()
	for _, t := range []time.Time{time.Unix(0, up), p.began} {
		if t.After(since) {
			since = t
		}
	}
	p.mu.Unlock()
	h.fresh.mu.Lock()
	defer h.fresh.mu.Unlock()
	h.fresh.stale = max(h.fresh.stale, asked.Sub(since))
}
