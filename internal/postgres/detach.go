package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// detachLockTimeout bounds how long a detach may wait for its lock, and so how long it
// can make reads and writes of events wait.
const detachLockTimeout = "300ms"

// monthLockTimeout bounds the wait for the rows of one month.
const monthLockTimeout = "5s"

// Months returns the months for which events has a partition with the name of the
// month, in order. A partition that is being detached does not count.
func Months(ctx context.Context, pool *pgxpool.Pool) ([]time.Time, error) {
	rows, err := pool.Query(ctx, `
		SELECT to_date(substr(c.relname, 8), 'YYYY_MM')
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'events'::regclass AND NOT i.inhdetachpending
			AND c.relname ~ '^events_[0-9]{4}_(0[1-9]|1[0-2])$'
		ORDER BY c.relname`)
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	months, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	return months, nil
}

// DetachMonth takes a month's partition out of events and renames the table, so that
// late rows can have a partition again. note runs in the same transaction and sees the
// table under its new name.
//
// DETACH CONCURRENTLY would need no lock for which reads wait. But it cannot be in one
// transaction with the note, and while it is under way, which can be long after a
// crash, there is no place for rows of the month. So DetachMonth takes the strong lock
// for an instant, and gives up rather than make others wait for it.
func DetachMonth(ctx context.Context, pool *pgxpool.Pool, month time.Time, table string, note func(pgx.Tx) error) error {
	err := inLockTx(ctx, pool, func(tx pgx.Tx) error {
		if err := lockForPartitions(ctx, tx, detachLockTimeout); err != nil {
			return err
		}
		if err := detach(ctx, tx, month, table); err != nil {
			return err
		}
		return note(tx)
	})
	if err != nil {
		return fmt.Errorf("detach %s: %w", partitionName(month), err)
	}
	return nil
}

func detach(ctx context.Context, tx pgx.Tx, month time.Time, table string) error {
	name := pgx.Identifier{partitionName(month)}.Sanitize()
	return execAll(ctx, tx,
		"ALTER TABLE events DETACH PARTITION "+name,
		"ALTER TABLE "+name+" RENAME TO "+pgx.Identifier{table}.Sanitize())
}

// MakeMonth makes a table that takes only rows of the month, so that it can become the
// month's partition without a check of its rows.
func MakeMonth(ctx context.Context, db DB, table string, month time.Time) error {
	return InTx(ctx, db, func(tx pgx.Tx) error {
		err := execAll(ctx, tx, "CREATE TABLE "+pgx.Identifier{table}.Sanitize()+
			" (LIKE events INCLUDING ALL EXCLUDING IDENTITY EXCLUDING STATISTICS)", ofMonth(table, month))
		return wrap("make table for "+partitionName(month), err)
	})
}

// AttachMonth makes a table the partition of its month. MakeMonth must have made the
// table, and nobody else may write to it. Rows of the month that are in events are
// moved into the table. If both have a row, with the same primary key or the same id
// from an import, one of the two is kept. note runs in the same transaction.
//
// Only writes to this month wait while its rows are moved. The lock for which all
// others wait is held for an instant, and if it cannot be had soon, AttachMonth gives
// up.
func AttachMonth(ctx context.Context, db DB, table string, month time.Time, note func(pgx.Tx) error) error {
	err := inLockTx(ctx, db, func(tx pgx.Tx) error {
		attached, err := lockMonth(ctx, tx, month)
		if err != nil {
			return err
		}
		// A vacuum may be working on the table. It gives way only after a second.
		if err := execAll(ctx, tx, "LOCK TABLE "+pgx.Identifier{table}.Sanitize()+" IN ACCESS EXCLUSIVE MODE"); err != nil {
			return fmt.Errorf("lock table: %w", err)
		}
		if attached {
			if err := moveLateRows(ctx, tx, table, month); err != nil {
				return err
			}
		}
		if err := nameAndAttach(ctx, tx, table, month); err != nil {
			return err
		}
		return note(tx)
	})
	return wrap("attach "+partitionName(month), err)
}

func ofMonth(table string, month time.Time) string {
	return fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT of_month CHECK (occurred_at >= '%s' AND occurred_at < '%s')",
		pgx.Identifier{table}.Sanitize(), bound(month), bound(month.AddDate(0, 1, 0)))
}

// lockMonth takes the lock on partitions and reports whether the month has a partition.
func lockMonth(ctx context.Context, tx pgx.Tx, month time.Time) (attached bool, err error) {
	if err := lockForPartitions(ctx, tx, monthLockTimeout); err != nil {
		return false, err
	}
	exists, attached, err := partitionState(ctx, tx, "events", partitionName(month))
	if err == nil && exists && !attached {
		err = &MonthError{month, ErrDetached}
	}
	return attached, err
}

func moveLateRows(ctx context.Context, tx pgx.Tx, table string, month time.Time) error {
	late := pgx.Identifier{partitionName(month)}.Sanitize()
	err := execAll(ctx, tx,
		"LOCK TABLE "+late+" IN SHARE MODE",
		"INSERT INTO "+pgx.Identifier{table}.Sanitize()+" SELECT * FROM "+late+" ON CONFLICT DO NOTHING",
		"SET LOCAL lock_timeout = '"+detachLockTimeout+"'",
		"ALTER TABLE events DETACH PARTITION "+late,
		"DROP TABLE "+late)
	return wrap("move the rows that are there", err)
}

func nameAndAttach(ctx context.Context, tx pgx.Tx, table string, month time.Time) error {
	name := pgx.Identifier{partitionName(month)}.Sanitize()
	err := execAll(ctx, tx, "SET LOCAL lock_timeout = '"+attachLockTimeout+"'",
		"ALTER TABLE "+pgx.Identifier{table}.Sanitize()+" RENAME TO "+name)
	if err != nil {
		return fmt.Errorf("rename table: %w", err)
	}
	if err := attachPartition(ctx, tx, partitionName(month), month); err != nil {
		return err
	}
	return execAll(ctx, tx, "ALTER TABLE "+name+" DROP CONSTRAINT of_month")
}

func execAll(ctx context.Context, tx pgx.Tx, statements ...string) error {
	for _, sql := range statements {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}
