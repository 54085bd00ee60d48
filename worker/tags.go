package worker

import (
	"context"
	"log/slog"
	"time"

	"github.com/signpost/signpost/internal/pause"
	"github.com/signpost/signpost/internal/service"
)

// tagsPeriod is the pause between two looks at the tags that are being moved.
const tagsPeriod = 2 * time.Second

// moveTags goes on with tags that are renamed, merged or deleted and have too many links
// for a request, and adds up how many links tags have, until ctx ends.
func (d *deps) moveTags(ctx context.Context) {
	s := &service.Service{Pool: d.pool, Reach: service.UsualReach()}
	for pause.For(ctx, tagsPeriod) == nil {
		if err := guarded(ctx, s.MoveTags); err != nil && ctx.Err() == nil {
			d.log.WarnContext(ctx, "tags could not be moved, they wait", slog.Any("error", err))
		}
	}
}
