package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// detachLockTimeout bounds how long reads and writes of events can be made to
// wait by a detach that waits itself.
const detachLockTimeout = "300ms"

// monthLockTimeout bounds how long the rows of one month can be waited for.
const monthLockTimeout = "5s"

// Months returns the months that have a partition of events of that month's
// name, in order. A partition that is being detached does not count.
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

// DetachMonth takes a month's partition out of events and gives the table
// another name, so that late rows can have a partition again. note runs in the
// same transaction and sees the table under its new name.
//
// DETACH CONCURRENTLY would need no lock that reads wait for, but it cannot be
// in a transaction with the note of it, and while it goes on, which a crash can
// make long, the month's rows have nowhere to go. So this takes the strong lock
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

// MakeMonth makes a table that can become the partition of a month without a
// look at its rows: it takes only rows of the month.
func MakeMonth(ctx context.Context, db DB, table string, month time.Time) error {
	return InTx(ctx, db, func(tx pgx.Tx) error {
		err := execAll(ctx, tx, "CREATE TABLE "+pgx.Identifier{table}.Sanitize()+
			" (LIKE events INCLUDING ALL EXCLUDING IDENTITY EXCLUDING STATISTICS)", ofMonth(table, month))
		return wrap("make table for "+partitionName(month), err)
	})
}

// AttachMonth makes a table that MakeMonth made, and that nobody else writes to, the
// partition of its month. Rows of the month that events have move into the table; a
// row that both have, by its primary key or by the id that an import gave it, is there
// once. note runs in the same transaction.
//
// Writes to the month, and to no other, wait while its rows move; the lock that all
// wait for is taken for an instant, and given up rather than waited for.
func AttachMonth(ctx context.Context, db DB, table string, month time.Time, note func(pgx.Tx) error) error {
	err := inLockTx(ctx, db, func(tx pgx.Tx) error {
		attached, err := lockMonth(ctx, tx, month)
		if err != nil {
			return err
		}
		// Vacuuming, which gives way only after a second, may be at the table.
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

// lockMonth takes the partition lock and reports whether the month has a
// partition.
func lockMonth(ctx context.Context, tx pgx.Tx, month time.Time) (attached bool, err error) {
	if err := lockForPartitions(ctx, tx, monthLockTimeout); err != nil {
		return false, err
	}
	exists, attached, err := partitionState(ctx, tx, partitionName(month))
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
