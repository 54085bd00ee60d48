package postgres_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/internal/postgres"
)

func TestMonthOf(t *testing.T) {
	t.Parallel()
	east := time.FixedZone("east", 14*3600)
	if got, want := postgres.MonthOf(time.Date(2026, 12, 1, 10, 0, 0, 0, east)), month(2026, 11); !got.Equal(want) {
		t.Errorf("month = %v, want %v: months are those of UTC", got, want)
	}
}

func month(year, m int) time.Time { return time.Date(year, time.Month(m), 1, 0, 0, 0, 0, time.UTC) }

func insertEvents(t *testing.T, pool *pgxpool.Pool, times ...time.Time) error {
	t.Helper()
	for _, at := range times {
		if _, err := pool.Exec(t.Context(), "INSERT INTO events (occurred_at, event_type) VALUES ($1, 'clicked')", at); err != nil {
			return err
		}
	}
	return nil
}

func TestEnsurePartitionsManyAtOnce(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	var months []time.Time
	for i := range 15 {
		months = append(months, month(2000, 1+i))
	}
	errs := make(chan error, 4)
	for i := range 4 {
		mine := slices.Clone(months)
		if i%2 == 1 {
			slices.Reverse(mine)
		}
		go func() { errs <- postgres.EnsurePartitions(t.Context(), pool, mine) }()
	}
	for range 4 {
		assert.NoError(t, <-errs)
	}
	assert.NoError(t, insertEvents(t, pool, month(2000, 1), month(2001, 1).Add(-time.Microsecond), month(2001, 4).Add(-time.Microsecond)))
	if got := scanText(t, pool, "SELECT tableoid::regclass::text FROM events WHERE occurred_at < '2001-01-01' ORDER BY occurred_at DESC LIMIT 1"); got != "events_2000_12" {
		t.Errorf("the last moment of 2000 is in %s", got)
	}
	if err := insertEvents(t, pool, month(2001, 4)); !postgres.NoPartition(err) {
		t.Errorf("a month without a partition: %v", err)
	}
}

// A partition is the same as one made by CREATE TABLE … PARTITION OF: it has the same
// defaults, constraints and indexes.
func TestPartitionsAreComplete(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	require.NoError(t, postgres.EnsurePartitions(t.Context(), pool, []time.Time{month(2011, 5)}))
	pgtest.Exec(t, pool, "CREATE TABLE plain PARTITION OF events FOR VALUES FROM ('2011-06-01') TO ('2011-07-01')")
	for what, sql := range map[string]string{
		"columns":     "SELECT coalesce(string_agg(concat(a.attname, a.atttypid::regtype, a.attnotnull, a.attstorage, pg_get_expr(d.adbin, d.adrelid)), ';' ORDER BY attnum), '') FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum WHERE a.attrelid = $1::regclass AND attnum > 0",
		"constraints": "SELECT coalesce(string_agg(concat(contype, pg_get_constraintdef(oid)), ';' ORDER BY pg_get_constraintdef(oid)), '') FROM pg_constraint WHERE conrelid = $1::regclass",
		"indexes":     "SELECT coalesce(string_agg(regexp_replace(pg_get_indexdef(indexrelid), '^.* USING', ''), ';' ORDER BY regexp_replace(pg_get_indexdef(indexrelid), '^.* USING', '')), '') FROM pg_index WHERE indrelid = $1::regclass",
		"bound":       "SELECT regexp_replace(pg_get_expr(relpartbound, oid), '2011-0\\d', 'M', 'g') FROM pg_class WHERE oid = $1::regclass",
	} {
		ours, plain := scanText(t, pool, sql, "events_2011_05"), scanText(t, pool, sql, "plain")
		if ours != plain || ours == "" {
			t.Errorf("%s differ:\n%s\n%s", what, ours, plain)
		}
	}
}

func TestEnsurePartitionsRange(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	now := postgres.MonthOf(time.Now())
	for _, tt := range []struct {
		at     time.Time
		wantOK bool
	}{
		{month(2000, 1).Add(-time.Nanosecond), false},
		{month(2000, 1), true},
		{now.AddDate(0, 4, 0), true},
		{now.AddDate(0, 5, 0), false},
		{time.Time{}, false},
	} {
		err := postgres.EnsurePartitions(t.Context(), pool, []time.Time{now, tt.at})
		if (err == nil) != tt.wantOK || err != nil && !errors.Is(err, postgres.ErrMonth) {
			t.Errorf("%v: %v, want ok %v", tt.at, err, tt.wantOK)
		}
	}
}

// EnsurePartitions does not wait for a long read or a long write of events, and these
// do not wait for it.
func TestEnsurePartitionsBesideOpenTransactions(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "INSERT INTO events (occurred_at, event_type) VALUES (now(), 'clicked')"); err != nil {
			return err
		}
		if _, err := tx.Exec(t.Context(), "SELECT count(*) FROM events"); err != nil {
			return err
		}
		return postgres.EnsurePartitions(t.Context(), pool, []time.Time{month(2012, 2)})
	})
	require.NoError(t, err)
}

func TestEnsurePartitionsGivesUpOnALock(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool := pgtest.Open(t, url)
	var lines []string
	err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "LOCK TABLE events IN ACCESS EXCLUSIVE MODE"); err != nil {
			return err
		}
		result := make(chan error, 1)
		go func() { result <- postgres.EnsurePartitions(t.Context(), pool, []time.Time{month(2012, 2)}) }()
		// The test sees that it waits for the lock, gives it up, and waits again.
		const waiting = "SELECT coalesce(max(query_start)::text, '') FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
		eventually(t, func() bool {
			if at := scanText(t, pool, waiting); at != "" && !slices.Contains(lines, at) {
				lines = append(lines, at)
			}
			return len(lines) == 2
		})
		if err := tx.Rollback(t.Context()); err != nil {
			return err
		}
		return <-result
	})
	if !errors.Is(err, pgx.ErrTxClosed) && err != nil {
		t.Fatal(err)
	}
	require.NoError(t, insertEvents(t, pool, month(2012, 2)))
}

func TestEnsurePartitionsLeavesAStrangersTableAlone(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	pgtest.Exec(t, pool, "CREATE TABLE events_2013_03 (LIKE events)")
	err := postgres.EnsurePartitions(t.Context(), pool, []time.Time{month(2013, 3)})
	var none *postgres.MonthError
	if !errors.As(err, &none) || !none.Month.Equal(month(2013, 3)) || !errors.Is(err, postgres.ErrDetached) ||
		!strings.Contains(err.Error(), "events_2013_03") {
		t.Errorf("error = %v; want one that names the table", err)
	}
}

// A partition that an operator made may hold more than a month.
func TestEnsurePartitionsBesideAnotherPartition(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	pgtest.Exec(t, pool, "CREATE TABLE events_2010 PARTITION OF events FOR VALUES FROM ('2010-01-01') TO ('2011-01-01')")
	require.NoError(t, postgres.EnsurePartitions(t.Context(), pool, []time.Time{month(2010, 6), month(2011, 1)}))
	assert.NoError(t, insertEvents(t, pool, month(2010, 6), month(2011, 1)))
}

func TestPartitionsRemembersAndForgets(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	at := month(2014, 4)
	p := postgres.NewPartitions(pool)
	require.NoError(t, p.Ensure(t.Context(), at, at.Add(time.Hour), at.AddDate(0, 1, 0)))
	require.NoError(t, insertEvents(t, pool, at, at.AddDate(0, 1, 0)))
	pgtest.Exec(t, pool, "DROP TABLE events_2014_04")
	require.NoError(t, p.Ensure(t.Context(), at))
	if err := insertEvents(t, pool, at); !postgres.NoPartition(err) {
		t.Fatalf("insert = %v; what is known was looked up again", err)
	}
	p.Forget()
	require.NoError(t, p.Ensure(t.Context(), at))
	assert.NoError(t, insertEvents(t, pool, at))
	if err := p.Ensure(t.Context(), month(1999, 1)); !errors.Is(err, postgres.ErrMonth) {
		t.Errorf("a month out of range: %v", err)
	}
}
