package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/internal/pause"
)

const (
	attachAttempts    = 5
	attachLockTimeout = "2s"
)

// These are the reasons why a month cannot have a partition.
var (
	// ErrMonth says that the month is out of range for events: before 2000-01, or more
	// than four months ahead.
	ErrMonth = errors.New("month is outside the range of events")
	// ErrDetached says that somebody detached the month's partition and left the table
	// there. It is not for us to decide about its rows.
	ErrDetached = errors.New("a table of that name exists that is not a partition: drop it or attach it")
)

// MonthError says that events cannot have a partition of a month. Trying again does not
// help until an operator does something.
type MonthError struct {
	Month time.Time // its start, in UTC
	Err   error     // ErrMonth or ErrDetached
}

func (e *MonthError) Error() string {
	return fmt.Sprintf("no partition %s: %v", partitionName(e.Month), e.Err)
}

func (e *MonthError) Unwrap() error { return e.Err }

var firstMonth = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

// MonthOf returns the start of t's month in UTC, which names its partition.
func MonthOf(t time.Time) time.Time {
	year, month, _ := t.UTC().Date()
	return time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
}

// lastMonth returns the last month that may have a partition. Times of events may be in
// the next month, and partitions are made three months ahead.
func lastMonth(now time.Time) time.Time {
	return MonthOf(now).AddDate(0, 1+monthsAhead, 0)
}

// monthsFrom returns now's month and the next n.
func monthsFrom(now time.Time, n int) []time.Time {
	var months []time.Time
	for i := range n + 1 {
		months = append(months, MonthOf(now).AddDate(0, i, 0))
	}
	return months
}

func partitionName(month time.Time) string {
	return month.Format("events_2006_01")
}

// EnsurePartitions makes missing partitions of events for the months of the given
// times. Each is made in a short transaction of its own. No read or write of events
// waits for that transaction, and it gives up and tries again rather than wait long
// itself. Any number of processes may do so at once. If a month cannot have a
// partition, the error is a *MonthError; if a month is out of range, it is returned
// before anything is done.
func EnsurePartitions(ctx context.Context, pool *pgxpool.Pool, times []time.Time) error {
	months, err := distinctMonths(times, time.Now())
	if err != nil {
		return err
	}
	for _, month := range months {
		if err := ensurePartition(ctx, pool, month); err != nil {
			return fmt.Errorf("make partition %s: %w", partitionName(month), err)
		}
	}
	return nil
}

func distinctMonths(times []time.Time, now time.Time) ([]time.Time, error) {
	var months []time.Time
	for _, t := range times {
		month := MonthOf(t)
		if month.Before(firstMonth) || month.After(lastMonth(now)) {
			return nil, &MonthError{month, ErrMonth}
		}
		months = append(months, month)
	}
	slices.SortFunc(months, time.Time.Compare)
	return slices.CompactFunc(months, time.Time.Equal), nil
}

// ensurePartition makes the partition of a month. If a partition that an operator made
// holds the month, in whole or in part, it leaves that as it is.
func ensurePartition(ctx context.Context, pool *pgxpool.Pool, month time.Time) error {
	err := inLockTx(ctx, pool, func(tx pgx.Tx) error { return makePartition(ctx, tx, month) })
	if Code(err) == codeInvalidObject {
		return nil // "would overlap"
	}
	return err
}

// inLockTx tries a transaction a few times. If a lock cannot be had within the timeout,
// the transaction is given up, so that nobody queues behind it.
func inLockTx(ctx context.Context, db DB, do func(pgx.Tx) error) error {
	var err error
	for attempt := range attachAttempts {
		err = InTx(ctx, db, do)
		if Code(err) != codeLockTimeout && !Retryable(err) {
			return err
		}
		if pause.For(ctx, time.Duration(attempt+1)*100*time.Millisecond) != nil {
			return err
		}
	}
	return err
}

// makePartition creates the table by itself and then attaches it. CREATE TABLE …
// PARTITION OF would take ACCESS EXCLUSIVE on events and queue behind every long read,
// while ATTACH takes a lock that gets along with reads and writes. The new table is
// empty, so ATTACH has nothing to check. ATTACH also makes the indexes and the primary
// key.
func makePartition(ctx context.Context, tx pgx.Tx, month time.Time) error {
	if err := lockForPartitions(ctx, tx, attachLockTimeout); err != nil {
		return err
	}
	exists, attached, err := partitionState(ctx, tx, "events", partitionName(month))
	if err != nil || attached {
		return err
	}
	if exists {
		return &MonthError{month, ErrDetached}
	}
	name := pgx.Identifier{partitionName(month)}.Sanitize()
	create := "CREATE TABLE " + name + " (LIKE events INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY EXCLUDING STATISTICS)"
	if _, err := tx.Exec(ctx, create); err != nil {
		return fmt.Errorf("create table: %w", err)
	}
	return attachPartition(ctx, tx, partitionName(month), month)
}

// lockForPartitions keeps other transactions from adding and removing partitions until
// this one ends, and bounds how long this one waits for other locks.
func lockForPartitions(ctx context.Context, tx pgx.Tx, timeout string) error {
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+timeout+"'"); err != nil {
		return fmt.Errorf("set lock timeout: %w", err)
	}
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", lockPartitions); err != nil {
		return fmt.Errorf("take the partition lock: %w", err)
	}
	return nil
}

// attachPartition makes a table the partition of a month. Reads and writes of events go
// on meanwhile. It checks that the rows of the table are of the month.
func attachPartition(ctx context.Context, tx pgx.Tx, table string, month time.Time) error {
	attach := fmt.Sprintf("ALTER TABLE events ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')",
		pgx.Identifier{table}.Sanitize(), bound(month), bound(month.AddDate(0, 1, 0)))
	if _, err := tx.Exec(ctx, attach); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

func bound(t time.Time) string { return t.Format("2006-01-02 15:04:05+00") }

func partitionState(ctx context.Context, db DB, of, name string) (exists, attached bool, err error) {
	err = db.QueryRow(ctx, `
		SELECT to_regclass($1) IS NOT NULL,
			EXISTS (SELECT FROM pg_inherits
				WHERE inhrelid = to_regclass($1)
				AND inhparent = to_regclass($2)
				AND NOT inhdetachpending)`, name, of).Scan(&exists, &attached)
	if err != nil {
		return false, false, fmt.Errorf("look for the partition: %w", err)
	}
	return exists, attached, nil
}

// DetachedMonths returns the months of the given times for which EnsurePartitions would
// return ErrDetached. It makes no partition.
func DetachedMonths(ctx context.Context, pool *pgxpool.Pool, times []time.Time) ([]time.Time, error) {
	months, err := distinctMonths(times, time.Now())
	if err != nil {
		return nil, err
	}
	var detached []time.Time
	for _, month := range months {
		exists, attached, err := partitionState(ctx, pool, "events", partitionName(month))
		if err != nil {
			return nil, err
		}
		if exists && !attached {
			detached = append(detached, month)
		}
	}
	return detached, nil
}

// Partitions remembers which partitions of events exist, so that it costs nothing to
// ask for them before every write. It is safe for concurrent use.
type Partitions struct {
	pool  *pgxpool.Pool
	mu    sync.Mutex
	known map[time.Time]bool // bounded, since only months within a range may exist
}

// NewPartitions returns a Partitions that knows of none yet.
func NewPartitions(pool *pgxpool.Pool) *Partitions {
	return &Partitions{pool: pool, known: map[time.Time]bool{}}
}

// Ensure makes the partitions that rows with these times need, like EnsurePartitions,
// but skips those that it knows. Call it before the transaction that writes the rows,
// not inside it.
func (p *Partitions) Ensure(ctx context.Context, times ...time.Time) error {
	missing := p.missing(times)
	if len(missing) == 0 {
		return nil
	}
	if err := EnsurePartitions(ctx, p.pool, missing); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, month := range missing {
		p.known[month] = true
	}
	return nil
}

func (p *Partitions) missing(times []time.Time) []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	var missing []time.Time
	for _, t := range times {
		if month := MonthOf(t); !p.known[month] && !slices.Contains(missing, month) {
			missing = append(missing, month)
		}
	}
	return missing
}

// Forget makes the next Ensure look again. Call it when a write failed with
// NoPartition: somebody dropped a partition that was known.
func (p *Partitions) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.known)
}

// PartitionsOf returns the names of the partitions of a table.
func PartitionsOf(ctx context.Context, pool *pgxpool.Pool, table string) ([]string, error) {
	rows, err := pool.Query(ctx, "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass($1)", table)
	if err != nil {
		return nil, fmt.Errorf("list partitions of %s: %w", table, err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return names, wrap("list partitions of "+table, err)
}

// DropPartition drops a partition. It gives up rather than make others wait for long.
func DropPartition(ctx context.Context, pool *pgxpool.Pool, name string) error {
	err := inLockTx(ctx, pool, func(tx pgx.Tx) error {
		if err := lockForPartitions(ctx, tx, detachLockTimeout); err != nil {
			return err
		}
		return execAll(ctx, tx, "DROP TABLE IF EXISTS "+pgx.Identifier{name}.Sanitize())
	})
	return wrap("drop partition "+name, err)
}

// Partition is a partition of a table that is divided by days.
type Partition struct {
	Of, Name string
	From, To time.Time // To is the first day after it
	With     string    // storage parameters, such as fillfactor = 70
}

// EnsurePartition makes a partition unless it is there, like EnsurePartitions: nobody
// waits for it, and any number of processes may do so at once. The error is ErrDetached
// if there is a table of its name that is no partition.
func EnsurePartition(ctx context.Context, pool *pgxpool.Pool, p Partition) error {
	of, name := pgx.Identifier{p.Of}.Sanitize(), pgx.Identifier{p.Name}.Sanitize()
	with := ""
	if p.With != "" {
		with = " WITH (" + p.With + ")"
	}
	err := inLockTx(ctx, pool, func(tx pgx.Tx) error {
		if err := lockForPartitions(ctx, tx, attachLockTimeout); err != nil {
			return err
		}
		exists, attached, err := partitionState(ctx, tx, p.Of, p.Name)
		if err != nil || attached {
			return err
		}
		if exists {
			return ErrDetached
		}
		return execAll(ctx, tx,
			"CREATE TABLE "+name+" (LIKE "+of+" INCLUDING ALL EXCLUDING INDEXES)"+with,
			fmt.Sprintf("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')",
				of, name, p.From.Format(time.DateOnly), p.To.Format(time.DateOnly)))
	})
	return wrap("make partition "+p.Name, err)
}
