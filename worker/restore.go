package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/internal/archive"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// Restored says what a restore did.
type Restored struct {
	Parts int
	Rows  int64 // of the parts, each as its manifest promises
}

// RestoreMonth brings the events of a month back from an archive, all of them or
// none, and holds the month for a while before it is retired again. What is in
// the database already is not there twice, and parts that it was restored from
// before are not read again, so that what was removed since stays away. Totals
// do not change: they never left. month is any time within the month.
func RestoreMonth(ctx context.Context, pool *pgxpool.Pool, store archive.Store, month time.Time, hold time.Duration) (Restored, error) {
	month = postgres.MonthOf(month)
	parts, err := archive.Manifests(ctx, store, monthText(month))
	if err != nil {
		return Restored{}, err
	}
	if len(parts) == 0 {
		return Restored{}, fmt.Errorf("%s has no part of %s", store, monthText(month))
	}
	last := parts[len(parts)-1].Part
	parts = archive.Current(parts)
	done := Restored{Parts: len(parts)}
	err = postgres.InTx(ctx, pool, func(tx pgx.Tx) error {
		if err := lockToRestore(ctx, tx, month); err != nil {
			return err
		}
		there, err := partsThere(ctx, tx, month)
		if err != nil {
			return err
		}
		for _, m := range parts {
			done.Rows += m.Rows
		}
		if parts = slices.DeleteFunc(parts, func(m archive.Manifest) bool { return m.Part <= there }); len(parts) > 0 {
			if err := restoreParts(ctx, tx, store, parts, month); err != nil {
				return err
			}
		}
		q := queries.New(tx)
		if err := q.ForgetArchivedEventIDs(ctx, month, month.AddDate(0, 1, 0)); err != nil {
			return fmt.Errorf("forget ids of imported events: %w", err)
		}
		return wrap("hold the month", q.HoldMonth(ctx, month, interval(hold), int32(last)))
	})
	if err != nil {
		return Restored{}, fmt.Errorf("restore %s: %w", monthText(month), err)
	}
	return done, nil
}

// partsThere returns the last part whose rows the database has, 0 for none.
func partsThere(ctx context.Context, tx pgx.Tx, month time.Time) (int, error) {
	parts, err := queries.New(tx).RestoredParts(ctx, month)
	if err != nil {
		return 0, fmt.Errorf("look for an earlier restore: %w", err)
	}
	var attached bool // an operator may have dropped it
	err = tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass($1))",
		"events_"+month.Format("2006_01")).Scan(&attached)
	if err != nil || !attached {
		return 0, wrap("look for the month", err)
	}
	return int(parts), nil
}

// restoreParts makes the rows of parts rows of events.
func restoreParts(ctx context.Context, tx pgx.Tx, store archive.Store, parts []archive.Manifest, month time.Time) error {
	table := "events_" + month.Format("2006_01") + "_restored"
	if err := makeLike(ctx, tx, table); err != nil {
		return err
	}
	for i, m := range parts {
		if err := restorePart(ctx, tx, store, m, table, i == 0); err != nil {
			return fmt.Errorf("restore part %d: %w", m.Part, err)
		}
	}
	return postgres.AddToMonth(ctx, tx, table, month)
}

// lockToRestore keeps months from being retired until the end of tx.
func lockToRestore(ctx context.Context, tx pgx.Tx, month time.Time) error {
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '5s'"); err != nil {
		return fmt.Errorf("set lock timeout: %w", err)
	}
	_, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", lockRetire)
	if postgres.Code(err) == "55P03" { // lock_not_available
		return errors.New("a worker is retiring months, or another restore is at work: try again later")
	}
	if err != nil {
		return fmt.Errorf("take lock: %w", err)
	}
	open, err := queries.New(tx).ListOpenEventParts(ctx)
	if err != nil {
		return fmt.Errorf("list parts: %w", err)
	}
	for _, part := range open {
		if part.Month.Equal(month) {
			return fmt.Errorf("part %d is on its way to the archive: try again when it is there", part.Part)
		}
	}
	return nil
}

// makeLike makes a table as a partition would be.
func makeLike(ctx context.Context, tx pgx.Tx, table string) error {
	_, err := tx.Exec(ctx, "CREATE TABLE "+pgx.Identifier{table}.Sanitize()+
		" (LIKE events INCLUDING ALL EXCLUDING IDENTITY EXCLUDING STATISTICS)")
	if err != nil {
		return fmt.Errorf("create table: %w", err)
	}
	return nil
}

// restorePart copies a part into the table and checks that it is what its
// manifest promises. A month that was restored before and retired again has
// rows in several parts, so all parts but the first go by way of a table that
// takes everything.
func restorePart(ctx context.Context, tx pgx.Tx, store archive.Store, m archive.Manifest, table string, first bool) error {
	to := pgx.Identifier{table}.Sanitize()
	if !first {
		stage := "CREATE TEMP TABLE events_stage (LIKE events) ON COMMIT DROP"
		if _, err := tx.Exec(ctx, stage); err != nil {
			return fmt.Errorf("create table: %w", err)
		}
		to = "events_stage"
	}
	sum, err := archive.ReadData(ctx, store, m.File, func(csv io.Reader) error {
		_, err := tx.Conn().PgConn().CopyFrom(ctx, csv, "COPY "+to+" ("+columnList(m.Columns)+") FROM STDIN WITH (FORMAT csv, HEADER)")
		return err
	})
	if err != nil {
		return err
	}
	if sum != m.Sum() {
		return fmt.Errorf("%s: %w: it holds %+v, not %+v", m.File, archive.ErrDamaged, sum, m.Sum())
	}
	if first {
		return nil
	}
	_, err = tx.Exec(ctx, "INSERT INTO "+pgx.Identifier{table}.Sanitize()+" SELECT * FROM events_stage ON CONFLICT DO NOTHING")
	if err == nil {
		_, err = tx.Exec(ctx, "DROP TABLE events_stage")
	}
	return err
}

func columnList(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = pgx.Identifier{name}.Sanitize()
	}
	return strings.Join(quoted, ", ")
}

var errMonthText = errors.New("must be a month such as 2025-03")

// ParseMonth reads a month such as 2025-03.
func ParseMonth(text string) (time.Time, error) {
	month, err := time.Parse("2006-01", text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q %w", text, errMonthText)
	}
	return month, nil
}
