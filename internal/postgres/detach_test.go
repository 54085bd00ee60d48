package postgres_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

func TestMonths(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	require.NoError(t, postgres.EnsurePartitions(t.Context(), pool, []time.Time{month(2012, 2), month(2011, 12)}))
	pgtest.Exec(t, pool, `
		CREATE TABLE events_2010_01 (LIKE events);
		CREATE TABLE events_2009 PARTITION OF events FOR VALUES FROM ('2009-01-01') TO ('2010-01-01')`)
	months, err := postgres.Months(t.Context(), pool)
	now := postgres.MonthOf(time.Now())
	want := []time.Time{month(2011, 12), month(2012, 2), now, now.AddDate(0, 1, 0), now.AddDate(0, 2, 0), now.AddDate(0, 3, 0)}
	if err != nil || !slices.EqualFunc(months, want, time.Time.Equal) {
		t.Errorf("months = %v, want %v (%v)", months, want, err)
	}
}

// If somebody reads events for long, or if its note fails, a detach gives up and leaves
// everything as it was.
func TestDetachMonthOrNothing(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	at := month(2012, 2)
	require.NoError(t, postgres.EnsurePartitions(t.Context(), pool, []time.Time{at}))
	nothing := func(pgx.Tx) error { return nil }
	err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "SELECT count(*) FROM events"); err != nil {
			return err
		}
		if err := postgres.DetachMonth(t.Context(), pool, at, "away", nothing); postgres.Code(err) != "55P03" {
			t.Errorf("beside a reader: %v", err)
		}
		return nil
	})
	require.NoError(t, err)
	broken := errors.New("broken")
	if err := postgres.DetachMonth(t.Context(), pool, at, "away", func(pgx.Tx) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("a note that fails: %v", err)
	}
	assert.NoError(t, insertEvents(t, pool, at), "the month is not in its place")
	require.NoError(t, postgres.DetachMonth(t.Context(), pool, at, "away", nothing))
	if err := insertEvents(t, pool, at); !postgres.NoPartition(err) {
		t.Errorf("insert = %v", err)
	}
	assert.NoError(t, postgres.EnsurePartitions(t.Context(), pool, []time.Time{at}), "a new partition beside the detached one")
}

// Only rows of the month can be in the month's partition.
func TestMonthTakesOnlyItsRows(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	require.NoError(t, postgres.MakeMonth(t.Context(), pool, "back", month(2012, 2)))
	for _, at := range []time.Time{month(2012, 2), month(2012, 3).Add(-time.Microsecond), month(2012, 3), month(2012, 2).Add(-time.Microsecond)} {
		within := postgres.MonthOf(at).Equal(month(2012, 2))
		_, err := pool.Exec(t.Context(), "INSERT INTO back (occurred_at, event_type) VALUES ($1, 'clicked')", at)
		if (err == nil) != within {
			t.Errorf("%v into a month's table: %v", at, err)
		}
	}
	require.NoError(t, postgres.AttachMonth(t.Context(), pool, "back", month(2012, 2), func(pgx.Tx) error { return nil }))
	if got := scanText(t, pool, "SELECT count(*)::text FROM events_2012_02"); got != "2" {
		t.Errorf("the month has %s rows, want 2", got)
	}
}

// If a stranger's table has the name of the month's partition, it is left alone.
func TestAttachMonthLeavesAStrangersTableAlone(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	at := month(2012, 2)
	require.NoError(t, postgres.MakeMonth(t.Context(), pool, "back", at))
	pgtest.Exec(t, pool, "CREATE TABLE events_2012_02 (LIKE events)")
	nothing := func(pgx.Tx) error { return nil }
	if err := postgres.AttachMonth(t.Context(), pool, "back", at, nothing); !errors.Is(err, postgres.ErrDetached) {
		t.Errorf("attach: %v", err)
	}
	pgtest.Exec(t, pool, "DROP TABLE events_2012_02")
	assert.NoError(t, postgres.AttachMonth(t.Context(), pool, "back", at, nothing))
}

// A large new table is vacuumed, and the vacuum gives way only after a second.
func TestAttachMonthWaitsForTheTable(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	at := month(2012, 2)
	require.NoError(t, postgres.MakeMonth(t.Context(), pool, "back", at))
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	pgtest.Exec(t, tx, "LOCK TABLE back IN SHARE UPDATE EXCLUSIVE MODE")
	done := make(chan error, 1)
	go func() { done <- postgres.AttachMonth(t.Context(), pool, "back", at, func(pgx.Tx) error { return nil }) }()
	for waits := false; !waits; {
		err := tx.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks
			WHERE relation = 'back'::regclass AND NOT granted AND clock_timestamp() - waitstart > '1 second')`).Scan(&waits)
		require.NoError(t, err)
		select {
		case err := <-done:
			t.Fatalf("it did not wait: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	require.NoError(t, tx.Rollback(t.Context()))
	assert.NoError(t, <-done)
}
