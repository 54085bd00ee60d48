package shipping

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
)

// When Postgres is back, each of several replicas with a backlog sends one transaction
// at a time. The first one has one segment. Each later one has at most twice as many as
// the one before, and no more than shipTogether.
func TestBacklogsAreNoStampede(t *testing.T) {
	t.Parallel()
	const replicas, segments = 3, 60
	cluster := pgtest.Cluster(t)
	url := pgtest.Migrated(t, cluster)
	db := pgtest.Open(t, url)
	cluster.Kill()
	var watched []*shipWatch
	var all []*harness
	for range replicas {
		w := new(shipWatch)
		config := pgtest.Open(t, url).Config()
		config.ConnConfig.Tracer = w
		pool, err := pgxpool.NewWithConfig(t.Context(), config)
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		s := newShipping(t, pool, time.Hour)
		for range segments {
			s.segment(1)
		}
		s.run()
		s.eventually("shipping fails", func() bool { return testutil.ToFloat64(s.shipper.failures) > 0 })
		watched, all = append(watched, w), append(all, s)
	}
	require.NoError(t, cluster.Start(t.Context()))
	for _, s := range all {
		s.eventually("the backlog is shipped", func() bool { return s.spool.Stats().Segments == 0 })
	}
	for i, w := range watched {
		w.want(t, i, segments)
	}
	(&harness{T: t, pool: db}).want(replicas*segments, replicas*segments)
}

// shipWatch watches the transactions of a shipper.
type shipWatch struct {
	mu         sync.Mutex
	open, most int   // transactions that are open at the same time
	batches    int   // batches in the open transaction
	committed  []int // batches in each committed transaction
}

type tracedSQL struct{}

// TraceQueryStart implements [pgx.QueryTracer].
func (w *shipWatch) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case strings.HasPrefix(data.SQL, "begin"):
		w.open++
		w.most, w.batches = max(w.most, w.open), 0
	case strings.HasPrefix(data.SQL, "-- name: InsertClickBatch "):
		w.batches++
	}
	return context.WithValue(ctx, tracedSQL{}, data.SQL)
}

// TraceQueryEnd implements [pgx.QueryTracer].
func (w *shipWatch) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	w.mu.Lock()
	defer w.mu.Unlock()
	sql, _ := ctx.Value(tracedSQL{}).(string)
	switch {
	case strings.HasPrefix(sql, "begin"):
		if data.Err != nil {
			w.open--
		}
	case sql == "commit":
		w.open--
		if data.Err == nil {
			w.committed = append(w.committed, w.batches)
		}
	case sql == "rollback":
		w.open--
	}
}

func (w *shipWatch) want(t *testing.T, replica, segments int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	sum := 0
	for i, n := range w.committed {
		sum += n
		if limit := min(shipTogether, 1<<min(i, 30)); n > limit {
			t.Errorf("replica %d: transaction %d holds %d segments, want at most %d", replica, i, n, limit)
		}
	}
	if w.most != 1 || sum != segments {
		t.Errorf("replica %d: %d transactions at once with %d segments in all, want 1 with %d", replica, w.most, sum, segments)
	}
	t.Logf("replica %d: segments by transaction: %v", replica, w.committed)
}
