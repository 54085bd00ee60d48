package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/internal/archive"
	"github.com/signpost/signpost/internal/pause"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// Restoring says which month to restore, and how.
type Restoring struct {
	Month time.Time     // any time within the month
	Hold  time.Duration // for how long it is not archived again
}

// Restored is the result of a restore.
type Restored struct {
	Parts int
	Rows  int64 // of all parts, as their manifests say
}

// RestoreMonth restores the events of a month from an archive, all of them or none. The
// month is then not archived again for a while. Events that are still in the database
// are not added twice. Parts that an earlier restore read are not read again, so that
// events which were removed since stay removed. Totals do not change, because the
// rollups were never removed.
//
// The rows are copied into a separate table, in transactions of about a second, and in
// the end the table becomes the month's partition. A restore that is killed leaves such
// a table; the next one drops it and begins anew.
func RestoreMonth(ctx context.Context, pool *pgxpool.Pool, store archive.Store, what Restoring) (Restored, error) {
	month := postgres.MonthOf(what.Month)
	parts, err := partsOf(ctx, pool, store, month)
	if err != nil {
		return Restored{}, err
	}
	if len(parts) == 0 {
		return Restored{}, fmt.Errorf("%s has no part of %s", store, monthText(month))
	}
	r := restore{store: store, month: month, hold: what.Hold, last: int32(parts[len(parts)-1].Part), pause: pauseAttaching}
	parts = archive.Current(parts)
	if r.conn, err = lockToRestore(ctx, pool); err == nil {
		err = r.run(ctx, parts)
		r.end(ctx)
	}
	if err != nil {
		return Restored{}, fmt.Errorf("restore %s: %w", monthText(month), err)
	}
	done := Restored{Parts: len(parts)}
	for _, m := range parts {
		done.Rows += m.Rows
	}
	return done, nil
}

// partsOf returns the parts of a month in an archive. It is an error if one is of another
// installation: its events refer to other links, and readers would take a part of ours
// for one more of theirs.
func partsOf(ctx context.Context, pool *pgxpool.Pool, store archive.Store, month time.Time) ([]archive.Manifest, error) {
	here, err := queries.New(pool).GetInstallation(ctx)
	if err != nil {
		return nil, fmt.Errorf("read which installation this is: %w", err)
	}
	parts, err := archive.Manifests(ctx, store, monthText(month))
	if err != nil {
		return nil, fmt.Errorf("look at the archive: %w", err)
	}
	for _, m := range parts {
		if !m.IsOf(here) {
			return nil, fmt.Errorf("%s has months of the installation %s, this is %s: give each an archive of its own", store, m.Installation, here)
		}
	}
	return parts, nil
}

// restore restores a month. It does everything on the connection that has the advisory
// lock of archiving, so it ends when the lock is lost.
type restore struct {
	conn  *pgxpool.Conn
	store archive.Store
	month time.Time
	hold  time.Duration
	last  int32                       // part in the archive
	pause func(context.Context) error // between attempts to attach the month
}

// table returns the name of the table that holds the rows until they are part of
// events.
func (r *restore) table() string { return r.month.Format("events_2006_01") + "_restored" }

func (r *restore) run(ctx context.Context, parts []archive.Manifest) error {
	if err := r.checkParts(ctx); err != nil {
		return err
	}
	there, err := r.partsThere(ctx)
	if err != nil {
		return err
	}
	parts = slices.DeleteFunc(slices.Clone(parts), func(m archive.Manifest) bool { return m.Part <= there })
	if len(parts) == 0 {
		return postgres.InTx(ctx, r.conn, func(tx pgx.Tx) error { return r.note(ctx, tx) })
	}
	if err := r.load(ctx, parts); err != nil {
		return err
	}
	return r.attach(ctx)
}

const (
	attachPause = 30 * time.Second
	attachTries = 100 // about an hour
)

// attach makes the table the month's partition. It tries for about an hour, because
// loading the table may have taken hours, and a transaction that reads events for long,
// such as a dump, should not make that useless.
func (r *restore) attach(ctx context.Context) error {
	for try := 1; ; try++ {
		err := postgres.AttachMonth(ctx, r.conn, r.table(), r.month, func(tx pgx.Tx) error { return r.note(ctx, tx) })
		if !postgres.LockTimeout(err) {
			return err
		}
		if try == attachTries {
			return fmt.Errorf("a transaction that uses events is in the way: %w", err)
		}
		if err := r.pause(ctx); err != nil {
			return err
		}
	}
}

func pauseAttaching(ctx context.Context) error { return pause.For(ctx, attachPause) }

// note stores that the month must not be archived for a while, in the transaction that
// makes the table part of events.
func (r *restore) note(ctx context.Context, tx pgx.Tx) error {
	q := queries.New(tx)
	if err := q.ForgetArchivedEventIDs(ctx, r.month, r.month.AddDate(0, 1, 0)); err != nil {
		return fmt.Errorf("forget ids of imported events: %w", err)
	}
	return wrap("hold the month", q.HoldMonth(ctx, r.month, interval(r.hold), &r.last))
}

// end drops the table of a failed restore and releases the lock. It unlocks explicitly,
// because the server may notice late that the connection is closed.
func (r *restore) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	conn := r.conn.Hijack()
	_ = dropRestored(ctx, conn) // otherwise the next process with the lock drops it
	_, _ = conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", lockArchiving)
	_ = conn.Close(ctx)
}

// querier is a pool of connections, or one of them.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// dropRestored drops the tables that killed restores left. The caller has the advisory
// lock of archiving, so no other restore is running.
func dropRestored(ctx context.Context, conn querier) error {
	rows, err := conn.Query(ctx, `SELECT relname FROM pg_class WHERE relkind = 'r' AND NOT relispartition
		AND relname ~ '^events_[0-9]{4}_[0-9]{2}_restored$' AND pg_table_is_visible(oid)`)
	if err != nil {
		return fmt.Errorf("look for tables of restores: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, table := range tables {
		if err == nil {
			_, err = conn.Exec(ctx, "DROP TABLE "+pgx.Identifier{table}.Sanitize())
		}
	}
	return wrap("drop what a restore left", err)
}

// checkParts returns an error if the month is just being archived.
func (r *restore) checkParts(ctx context.Context) error {
	open, err := queries.New(r.conn).ListOpenEventParts(ctx)
	if err != nil {
		return fmt.Errorf("list parts: %w", err)
	}
	for _, part := range open {
		if part.Month.Equal(r.month) {
			return fmt.Errorf("part %d is on its way to the archive: try again when it is there", part.Part)
		}
	}
	return nil
}

// partsThere returns the number of the last part whose rows the database has, 0 if it
// has none.
func (r *restore) partsThere(ctx context.Context) (int, error) {
	parts, err := queries.New(r.conn).RestoredParts(ctx, r.month)
	if err != nil {
		return 0, fmt.Errorf("look for an earlier restore: %w", err)
	}
	var attached bool // an operator may have dropped it
	err = r.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass($1))",
		r.month.Format("events_2006_01")).Scan(&attached)
	if err != nil || !attached {
		return 0, wrap("look for the month", err)
	}
	return int(parts), nil
}

// load copies the rows of parts into the table.
func (r *restore) load(ctx context.Context, parts []archive.Manifest) error {
	if err := dropRestored(ctx, r.conn); err != nil {
		return err
	}
	if err := postgres.MakeMonth(ctx, r.conn, r.table(), r.month); err != nil {
		return err
	}
	for i, m := range parts {
		if err := r.loadPart(ctx, m, i == 0); err != nil {
			return fmt.Errorf("restore part %d: %w", m.Part, err)
		}
	}
	return nil
}

// restorePiece is how many bytes of CSV are copied in one transaction.
const restorePiece = 4 << 20

// loadPart copies a part into the table and checks it against its manifest. Each piece
// is read before its transaction begins, because reading from the archive may be slow.
func (r *restore) loadPart(ctx context.Context, m archive.Manifest, first bool) error {
	options := "(FORMAT csv, HEADER)"
	sum, err := archive.ReadData(ctx, r.store, m.File, func(csv io.Reader) error {
		return archive.Pieces(csv, restorePiece, func(piece []byte) error {
			err := postgres.InTx(ctx, r.conn, func(tx pgx.Tx) error { return r.loadPiece(ctx, tx, m, piece, options, first) })
			options = "(FORMAT csv)"
			return err
		})
	})
	if err == nil && sum != m.Sum() {
		err = fmt.Errorf("%s: %w: it holds %+v, not %+v", m.File, archive.ErrDamaged, sum, m.Sum())
	}
	return err
}

// loadPiece copies rows into the table. If a month was restored and archived again,
// several parts have the same rows. So the rows of all parts but the first go through a
// staging table, which leaves out duplicates.
func (r *restore) loadPiece(ctx context.Context, tx pgx.Tx, m archive.Manifest, piece []byte, options string, first bool) error {
	table := pgx.Identifier{r.table()}.Sanitize()
	to := table
	if !first {
		if _, err := tx.Exec(ctx, "CREATE TEMP TABLE events_stage (LIKE events) ON COMMIT DROP"); err != nil {
			return fmt.Errorf("create table: %w", err)
		}
		to = "events_stage"
	}
	copySQL := "COPY " + to + " (" + columnList(m.Columns) + ") FROM STDIN WITH " + options
	if _, err := tx.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(piece), copySQL); err != nil || first {
		return err
	}
	_, err := tx.Exec(ctx, "INSERT INTO "+table+" SELECT * FROM events_stage ON CONFLICT DO NOTHING")
	return err
}

// lockToRestore keeps months from being archived as long as the connection lives.
func lockToRestore(ctx context.Context, pool *pgxpool.Pool) (*pgxpool.Conn, error) {
	for end := time.Now().Add(5 * time.Second); ; {
		conn, err := acquireLocked(ctx, pool)
		if err != nil || conn != nil {
			return conn, err
		}
		if time.Now().After(end) {
			return nil, errors.New("a worker is archiving months, or another restore is at work: try again later")
		}
		if err := pause.For(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
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
