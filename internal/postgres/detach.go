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

// AttachMonth makes a detached table the partition of its month again. Rows of
// the month that came meanwhile, which are few, move into it; one that both
// have, by its primary key or by what an import called it, is there once. note
// runs in the same transaction.
func AttachMonth(ctx context.Context, pool *pgxpool.Pool, table string, month time.Time, note func(pgx.Tx) error) error {
	err := inLockTx(ctx, pool, func(tx pgx.Tx) error {
		if err := checkMonth(ctx, tx, table, month); err != nil {
			return err
		}
		attached, err := lockMonth(ctx, tx, month, detachLockTimeout)
		if err != nil {
			return err
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
	if err != nil {
		return fmt.Errorf("attach %s: %w", partitionName(month), err)
	}
	return nil
}

// AddToMonth makes the rows of a table, which this transaction has made like
// events, rows of events: the table becomes the partition of the month, or its
// rows go into the partition that is there, except those that it has. It waits
// for other changes of partitions, and tries again where they are in its way.
func AddToMonth(ctx context.Context, tx pgx.Tx, table string, month time.Time) error {
	if err := checkMonth(ctx, tx, table, month); err != nil {
		return fmt.Errorf("check rows of %s: %w", partitionName(month), err)
	}
	var err error
	for attempt := range attachAttempts {
		err = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return addToMonth(ctx, tx, table, month) })
		if Code(err) != codeLockTimeout || pause(ctx, time.Duration(attempt+1)*time.Second) != nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("add to %s: %w", partitionName(month), err)
	}
	return nil
}

func addToMonth(ctx context.Context, tx pgx.Tx, table string, month time.Time) error {
	attached, err := lockMonth(ctx, tx, month, attachLockTimeout)
	if err != nil {
		return err
	}
	if !attached {
		return nameAndAttach(ctx, tx, table, month)
	}
	name := pgx.Identifier{table}.Sanitize()
	return execAll(ctx, tx,
		"INSERT INTO events SELECT * FROM "+name+" ON CONFLICT DO NOTHING",
		"DROP TABLE "+name)
}

// checkMonth makes sure that the rows of a table are of a month before any lock
// on events is taken: ATTACH believes the constraint and does not look at them.
func checkMonth(ctx context.Context, tx pgx.Tx, table string, month time.Time) error {
	return execAll(ctx, tx, fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT of_month CHECK (occurred_at >= '%s' AND occurred_at < '%s')",
		pgx.Identifier{table}.Sanitize(), bound(month), bound(month.AddDate(0, 1, 0))))
}

// lockMonth takes the partition lock and reports whether the month has a
// partition.
func lockMonth(ctx context.Context, tx pgx.Tx, month time.Time, timeout string) (attached bool, err error) {
	if err := lockForPartitions(ctx, tx, timeout); err != nil {
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
		"ALTER TABLE events DETACH PARTITION "+late,
		"INSERT INTO "+pgx.Identifier{table}.Sanitize()+" SELECT * FROM "+late+" ON CONFLICT DO NOTHING",
		"DROP TABLE "+late)
	if err != nil {
		return fmt.Errorf("move late rows: %w", err)
	}
	return nil
}

func nameAndAttach(ctx context.Context, tx pgx.Tx, table string, month time.Time) error {
	name := pgx.Identifier{partitionName(month)}.Sanitize()
	if err := execAll(ctx, tx, "ALTER TABLE "+pgx.Identifier{table}.Sanitize()+" RENAME TO "+name); err != nil {
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
