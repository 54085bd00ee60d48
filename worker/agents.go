package worker

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/maypok86/otter/v2"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/visits"
	"github.com/signpost/signpost/queries"
)

const agentsCached = 8192 // at most clicks.MaxUserAgent bytes each

// agent is the meaning of a User-Agent header. It is shared; nothing but stored ever
// changes.
type agent struct {
	visits.Agent
	header string
	id     int64        // in user_agents, 0 if the header is not stored
	stored atomic.Int64 // the UTC day, since 1970, on which the header was last stored
	// columns holds browser, os and device encoded for a binary COPY.
	columns []byte
}

func newAgent(header string, read visits.Agent) *agent {
	a := &agent{Agent: read, header: header}
	if header != "" {
		a.id = visits.AgentID(header)
	}
	for _, name := range []string{a.Browser, a.OS, a.Device} {
		a.columns = appendText(a.columns, name)
	}
	return a
}

// untold is the agent of clicks whose visitors do not want to be tracked: all that is
// stored of theirs is the kind, which is an event's own.
var untold = newAgent("", visits.Agent{})

// agents reads User-Agent headers and remembers the most frequent ones: reading one takes
// microseconds, and a batch holds few different headers. It is safe for concurrent use.
type agents struct {
	known *otter.Cache[string, *agent]
	read  func(header string) visits.Agent
}

func newAgents(read func(header string) visits.Agent) (*agents, error) {
	known, err := otter.New(&otter.Options[string, *agent]{MaximumSize: agentsCached})
	if err != nil {
		return nil, fmt.Errorf("set up user agent cache: %w", err)
	}
	return &agents{known: known, read: read}, nil
}

// get returns the meaning of header. It does not keep header itself.
func (a *agents) get(header string) *agent {
	if known, ok := a.known.GetIfPresent(header); ok {
		return known
	}
	// The header shares the memory of its whole batch.
	header = strings.Clone(header)
	read := newAgent(header, a.read(header))
	a.known.Set(header, read)
	return read
}

// storeAgents stores the headers of events, so that later rules can be applied to them. A
// header that this process stored today costs nothing. The headers are stored before the
// transaction of the batch, in the order of their ids: no batch waits for another one's
// commit because of a header that both have.
func storeAgents(ctx context.Context, pool *pgxpool.Pool, events []event, now time.Time) error {
	today := dayOf(now.UnixMicro())
	var missing []*agent
	for i := range events {
		if a := events[i].agent; a.id != 0 && a.stored.Load() < today && a.stored.Swap(today) < today {
			missing = append(missing, a)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	var ids []int64
	var headers []string
	for _, a := range missing {
		// Headers in a spool are clean already; a batch must not fail because one is not.
		ids, headers = append(ids, a.id), append(headers, clicks.Clean(a.header, clicks.MaxUserAgent))
	}
	if err := queries.New(pool).StoreUserAgents(ctx, now.UTC(), ids, headers); err != nil {
		for _, a := range missing {
			a.stored.Store(today - 1) // the next batch tries again
		}
		return fmt.Errorf("store user agents: %w", err)
	}
	return nil
}
