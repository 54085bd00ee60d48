package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// EventPage is how many events are read or moved in one statement. An event has at most
// 32 KiB, and usually about a hundred bytes.
const EventPage = 4000

// EachPage goes through the rows of a table that is like events, ordered by time and
// id, in pages of so many rows. It considers only rows for which the condition where
// holds. do gets a condition that selects the rows of the next page, and is called at
// least once. No transaction is open except for those in do, so do may take its time.
// No rows may be added to the table meanwhile.
func EachPage(ctx context.Context, db DB, table, where string, rows int, do func(condition string) error) error {
	name := pgx.Identifier{table}.Sanitize()
	for page := where; ; {
		var at time.Time
		var id int64
		err := db.QueryRow(ctx, "SELECT occurred_at, id FROM "+name+" WHERE "+page+" ORDER BY occurred_at, id LIMIT 1 OFFSET $1",
			rows-1).Scan(&at, &id)
		if errors.Is(err, pgx.ErrNoRows) {
			return do(page) // the last page
		}
		if err != nil {
			return fmt.Errorf("find the end of a page: %w", err)
		}
		end := fmt.Sprintf("('%s', %d)", at.UTC().Format("2006-01-02 15:04:05.999999+00"), id)
		if err := do(page + " AND (occurred_at, id) <= " + end); err != nil {
			return err
		}
		page = where + " AND (occurred_at, id) > " + end
	}
}

// MoveEvents moves the rows that where selects from one table like events into another,
// or into events itself. It uses short transactions, and at any moment each row is in
// one of the two. If the other table has the same row already, by its primary key or by
// the id that an import gave it, it ends up there once.
func MoveEvents(ctx context.Context, db DB, from, to, where string) error {
	source, target := pgx.Identifier{from}.Sanitize(), pgx.Identifier{to}.Sanitize()
	err := EachPage(ctx, db, from, where, EventPage, func(page string) error {
		return InTx(ctx, db, func(tx pgx.Tx) error {
			return execAll(ctx, tx, "WITH moved AS (DELETE FROM "+source+" WHERE "+page+" RETURNING *) INSERT INTO "+target+
				" SELECT * FROM moved ON CONFLICT DO NOTHING")
		})
	})
	return wrap("move rows of "+from, err)
}

// wrap adds the failed action to an error. It returns nil for nil.
func wrap(action string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	return nil
}
