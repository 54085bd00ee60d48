package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signpost/signpost/internal/config"
)

// A request that never ends does not use up the time in which clicks are shipped.
func TestRequestsLeaveTimeToShip(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := makeProcess(config.Config{ShutdownTimeout: 25 * time.Second}, slog.New(slog.DiscardHandler), io.Discard, "api")
		var left time.Duration
		p.add("shipper drain", func(ctx context.Context) error {
			end, _ := ctx.Deadline()
			left = time.Until(end)
			return ctx.Err()
		})
		p.add("http requests", p.inPart(func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}))
		if err := p.stop(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stop with a request that never ends: %v, want that it is said", err)
		}
		if left != 10*time.Second {
			t.Errorf("shipping had %v, want 10s of 25s", left)
		}
	})
}
