package cli

import (
	"context"
	"time"

	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/queries"
)

// goneReplica is a process that takes clicks, has not reported for a minute, and whose
// folder nobody has taken over. Statistics are not complete beyond CompleteTo until
// somebody does.
type goneReplica struct {
	ID         string    `json:"id"`
	Host       string    `json:"host"`
	Spooled    int64     `json:"spooled"`
	CompleteTo time.Time `json:"complete_to"`
	SeenAt     time.Time `json:"seen_at"`
}

// health tells how the whole system is, as far as this process reaches Postgres.
func (p *process) health(ctx context.Context) map[string]any {
	q := queries.New(p.readiness())
	replicas, err := q.ListReplicas(ctx)
	if err != nil {
		return map[string]any{"db": "disconnected"}
	}
	gone := []goneReplica{}
	for _, r := range replicas {
		if r.Gone {
			gone = append(gone, goneReplica{r.ID, r.Host, r.Spooled, r.CompleteTo.UTC(), r.SeenAt.UTC()})
		}
	}
	said := map[string]any{"db": "connected", "replicas": len(replicas), "replicas_gone": gone}
	if fresh, err := rollup.ReadFreshness(ctx, q); err == nil {
		said["as_of"], said["pending"] = fresh.AsOf, fresh.Pending
	}
	return said
}
