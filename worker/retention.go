package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/archive"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// States of a part: rows of a month that are taken out of events. The table event_parts
// holds the state, so that any worker can go on with the next step:
//
//	state     where its rows are        next step
//	detached  in a table of their own   move change events back, write the file, read it
//	                                    back, write the manifest -> verified
//	verified  there and in the archive  drop the table -> dropped
//	dropped   in the archive only       none
//
// If there is no archive, a detached part is dropped at once. A step that fails leaves
// the part as it is, and is tried again. The previous release has one more state,
// "archived", between writing and reading back; a part that it left in that state is
// treated as detached.
const (
	partDetached = "detached"
	partVerified = "verified"
	partDropped  = "dropped"
)

const (
	// archiveTimeout is enough for months of a billion events. After a worker was
	// killed, its job still counts as running for that long. A new job can go on all
	// the same, because the lock ended with the dead worker's connection.
	archiveTimeout = 12 * time.Hour
	// partPause collects late rows, so that they make at most one part a day.
	partPause = 24 * time.Hour
	// lockArchiving is the key of the advisory lock that at most one worker, or one
	// restore, has at a time ("signpost" in ASCII, counted on from the keys of package
	// postgres).
	lockArchiving int64 = 0x7369676e706f7377
)

// Retention says how long events stay in the database and where they go then. The zero
// value keeps them for ever.
type Retention struct {
	// Months is how many months before the current one keep their events; 0 means all.
	Months int
	// Changes is how many months before the current one keep their change events, which
	// say who changed which user or link; 0 means all. Otherwise it is at least Months.
	Changes int
	// Archive is where older months go. If it is nil, they are deleted, which the
	// operator has to ask for explicitly.
	Archive archive.Store
}

// String shows the setting, without credentials.
func (r Retention) String() string {
	location := "nowhere"
	if r.Archive != nil {
		location = r.Archive.String()
	}
	return fmt.Sprintf("%d months, of changes %d, to %s", r.Months, r.Changes, location)
}

// older reports whether a month lies before the current one and the n months before
// that; n = 0 stands for all months, so that none is older.
func older(month, now time.Time, n int) bool {
	return n > 0 && month.Before(postgres.MonthOf(now).AddDate(0, -n, 0))
}

// toArchive returns the months that are older than the retention, without those that
// contain only change events which are still kept.
func (d *deps) toArchive(ctx context.Context, months []time.Time, now time.Time) ([]time.Time, error) {
	var found []time.Time
	for _, month := range months {
		if !older(month, now, d.retention.Months) {
			continue
		}
		if !older(month, now, d.retention.Changes) {
			only, err := queries.New(d.pool).OnlyChangesLeft(ctx, month, month.AddDate(0, 1, 0), month)
			if err != nil {
				return nil, fmt.Errorf("look what %s holds: %w", monthText(month), err)
			}
			if only {
				continue
			}
		}
		found = append(found, month)
	}
	return found, nil
}

// archiveMonths takes months that are older than the retention out of events. The
// rollups stay, so no total changes.
type archiveMonths struct {
	river.WorkerDefaults[jobs.ArchiveMonths]
	deps *deps
	now  func() time.Time
}

// Timeout implements [river.Worker].
func (w *archiveMonths) Timeout(*river.Job[jobs.ArchiveMonths]) time.Duration { return archiveTimeout }

// Work implements [river.Worker]. It first finishes parts that were begun, even if
// there is no retention any more.
func (w *archiveMonths) Work(ctx context.Context, _ *river.Job[jobs.ArchiveMonths]) error {
	unlock, err := lockForArchive(ctx, w.deps.pool)
	if err != nil || unlock == nil {
		return err // another worker is at it
	}
	defer unlock()
	if err := queries.New(w.deps.pool).PruneEventHolds(ctx); err != nil {
		return fmt.Errorf("forget holds that ended: %w", err)
	}
	if err := dropRestored(ctx, w.deps.pool); err != nil {
		return err
	}
	if err := w.finishParts(ctx); err != nil {
		return err
	}
	months, err := w.due(ctx)
	if err != nil {
		return err
	}
	for _, month := range months {
		if err := w.begin(ctx, month); err != nil {
			return err
		}
		if err := w.finishParts(ctx); err != nil {
			return err
		}
	}
	return nil
}

// finishParts finishes every part that was begun. If one fails, it goes on with the
// others.
func (w *archiveMonths) finishParts(ctx context.Context) error {
	parts, err := queries.New(w.deps.pool).ListOpenEventParts(ctx)
	if err != nil {
		return fmt.Errorf("list parts: %w", err)
	}
	var errs []error
	for _, part := range parts {
		errs = append(errs, w.finish(ctx, part))
	}
	return errors.Join(errs...)
}

// finish runs the remaining steps of a part. If a step fails, the next run tries it
// again. Until then the rows of the part are in a table of their own, and lists of
// events do not show them.
func (w *archiveMonths) finish(ctx context.Context, part queries.EventPart) error {
	err := w.steps(ctx, &part)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("archive part %d of %s, whose rows are in the table %s: %w", part.Part, monthText(part.Month), part.TableName, err)
	if ctx.Err() != nil || errors.Is(err, errSuperseded) {
		return err
	}
	w.deps.metrics.archiveFailures.Inc()
	return err
}

func (w *archiveMonths) steps(ctx context.Context, part *queries.EventPart) error {
	if part.State == partVerified {
		return w.drop(ctx, part)
	}
	if w.deps.retention.Archive == nil && w.deps.retention.Months <= 0 {
		return errors.New("there is no archive any more: set EVENTS_ARCHIVE")
	}
	if err := w.keepChanges(ctx, part); err != nil {
		return fmt.Errorf("keep change events: %w", err)
	}
	if w.deps.retention.Archive != nil {
		if err := w.archive(ctx, part); err != nil {
			return err
		}
	}
	return w.drop(ctx, part)
}

// keepChanges moves the change events of a detached month back into events, because
// they have a retention of their own. Late change events are put there too.
func (w *archiveMonths) keepChanges(ctx context.Context, part *queries.EventPart) error {
	if older(part.Month, w.now(), w.deps.retention.Changes) {
		return nil
	}
	table := pgx.Identifier{part.TableName}.Sanitize()
	var some bool
	err := w.deps.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+table+" WHERE event_type <> 'clicked')").Scan(&some)
	if err != nil || !some {
		return wrap("look for some", err)
	}
	if err := postgres.EnsurePartitions(ctx, w.deps.pool, []time.Time{part.Month}); err != nil {
		return err
	}
	// From now on it is often asked whether the table has clicks, and mostly it has
	// none.
	if _, err := w.deps.pool.Exec(ctx, "CREATE INDEX IF NOT EXISTS "+pgx.Identifier{part.TableName + "_clicked"}.Sanitize()+
		" ON "+pgx.Identifier{part.Month.Format("events_2006_01")}.Sanitize()+" (occurred_at) WHERE event_type = 'clicked'"); err != nil {
		return fmt.Errorf("make index: %w", err)
	}
	for _, kind := range []string{"created", "updated", "deleted"} { // in the order of the index
		if err := postgres.MoveEvents(ctx, w.deps.pool, part.TableName, "events", "event_type = '"+kind+"'"); err != nil {
			return err
		}
	}
	err = queries.New(w.deps.pool).ForgetIDsOfChanges(ctx, part.Month, part.Month.AddDate(0, 1, 0))
	return wrap("forget their ids", err)
}

// errSuperseded says that another worker has taken the part over.
var errSuperseded = errors.New("another worker has taken over")

// due returns the months whose events are to be taken out, oldest first.
func (w *archiveMonths) due(ctx context.Context) ([]time.Time, error) {
	if w.deps.retention.Months <= 0 {
		return nil, nil
	}
	q := queries.New(w.deps.pool)
	// An import looks in events to find out whether it brings an event twice, and its
	// undo looks there for the events that it brought.
	if busy, err := q.EventImportsSince(ctx, w.now()); err != nil || busy {
		return nil, wrap("look for imports", err)
	}
	months, err := postgres.Months(ctx, w.deps.pool)
	if err != nil {
		return nil, err
	}
	leave, err := q.ListMonthsToLeave(ctx, interval(partPause))
	if err != nil {
		return nil, fmt.Errorf("list months to leave: %w", err)
	}
	months = slices.DeleteFunc(months, func(month time.Time) bool { return slices.ContainsFunc(leave, month.Equal) })
	return w.deps.toArchive(ctx, months, w.now())
}

// begin detaches a month, after a check that the archive can be written.
func (w *archiveMonths) begin(ctx context.Context, month time.Time) error {
	if err := w.probe(ctx, month); err != nil {
		w.deps.metrics.archiveFailures.Inc()
		return fmt.Errorf("try the archive: %w", err)
	}
	batch := w.now().UnixMicro()
	since, err := w.noteIDs(ctx, month, batch)
	if err != nil {
		return fmt.Errorf("archive %s: %w", monthText(month), err)
	}
	// The previous release reads the batch in the name of the table.
	table := fmt.Sprintf("events_%s_part_%d", month.Format("2006_01"), batch)
	err = postgres.DetachMonth(ctx, w.deps.pool, month, table, func(tx pgx.Tx) error {
		return noteDetached(ctx, tx, queries.CreateEventPartParams{Month: month, TableName: table, Batch: batch}, since)
	})
	if errors.Is(err, errImportBegan) {
		return nil // the next run takes the month
	}
	if err != nil {
		w.deps.metrics.archiveFailures.Inc()
		return fmt.Errorf("archive %s: %w", monthText(month), err)
	}
	w.deps.log.InfoContext(ctx, "a month of events was detached", slog.String("month", monthText(month)))
	return nil
}

// errImportBegan says that an import may have added events since the ids were noted.
var errImportBegan = errors.New("events are being imported")

// noteIDs notes the ids that imports gave to the events of a month. It returns a time:
// if an import began after it, the list may be incomplete.
func (w *archiveMonths) noteIDs(ctx context.Context, month time.Time, batch int64) (since time.Time, err error) {
	err = w.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		if err := tx.QueryRow(ctx, "SELECT now()").Scan(&since); err != nil {
			return fmt.Errorf("read the time: %w", err)
		}
		if err := q.ForgetUnusedEventIDs(ctx, month, month.AddDate(0, 1, 0)); err != nil {
			return fmt.Errorf("forget ids of imported events: %w", err)
		}
		err := q.NoteArchivedEventIDs(ctx, batch, month, month.AddDate(0, 1, 0))
		return wrap("note ids of imported events", err)
	})
	return since, err
}

// noteDetached stores a part in the transaction that detached it, and if the month was
// restored, also which parts it replaces. A partition without rows is dropped and does
// not become a part, unless it replaces one.
func noteDetached(ctx context.Context, tx pgx.Tx, part queries.CreateEventPartParams, since time.Time) error {
	q, name := queries.New(tx), pgx.Identifier{part.TableName}.Sanitize()
	// No transaction can write to events now, so no import can come in between.
	busy, err := q.EventImportsSince(ctx, since)
	if err != nil {
		return fmt.Errorf("look for imports: %w", err)
	}
	if busy {
		return errImportBegan
	}
	var some bool
	if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+name+")").Scan(&some); err != nil {
		return fmt.Errorf("look for rows: %w", err)
	}
	held, err := q.TakeHold(ctx, part.Month)
	if err != nil {
		return fmt.Errorf("end the hold: %w", err)
	}
	if len(held) > 0 {
		part.Replaces = held[0]
	}
	if !some && part.Replaces == nil {
		_, err := tx.Exec(ctx, "DROP TABLE "+name)
		return wrap("drop empty partition", err)
	}
	_, err = q.CreateEventPart(ctx, part)
	return wrap("note detached part", err)
}

// probe writes a file and removes it. Before that it makes sure that no other
// installation has archived the month in the same place.
func (w *archiveMonths) probe(ctx context.Context, month time.Time) error {
	store := w.deps.retention.Archive
	if store == nil {
		return nil
	}
	if _, err := partsOf(ctx, w.deps.pool, store, month); err != nil {
		return err
	}
	name := "probe" + archive.NewFileName(w.now(), 0)
	err := store.Create(ctx, name, func(w io.Writer) error {
		_, err := io.WriteString(w, "This file may be removed.\n")
		return err
	})
	return errors.Join(err, store.Remove(ctx, name))
}

// archive writes the rows of a part to a file with a name that no other attempt uses,
// and reads the file back. The manifest, which is written last, makes the file part of
// the archive.
func (w *archiveMonths) archive(ctx context.Context, part *queries.EventPart) error {
	if err := w.claim(ctx, part); err != nil {
		return err
	}
	sum, err := w.writeFile(ctx, part)
	if err == nil {
		err = w.note(ctx, part, sum)
	}
	if errors.Is(err, errSuperseded) {
		err = errors.Join(err, archive.Withdraw(ctx, w.deps.retention.Archive, monthText(part.Month), *part.File))
	}
	return err
}

// writeFile writes the data file, checks it, and writes its manifest last.
func (w *archiveMonths) writeFile(ctx context.Context, part *queries.EventPart) (archive.Sum, error) {
	sum, err := w.copyOut(ctx, part)
	if err != nil {
		return sum, fmt.Errorf("write %s: %w", *part.File, err)
	}
	if err := w.readBack(ctx, part, sum); err != nil {
		return sum, err
	}
	// Writing may have taken hours. Meanwhile the lock may have been lost and the part
	// taken over by another worker.
	n, err := queries.New(w.deps.pool).ClaimEventPart(ctx, queries.ClaimEventPartParams{
		NewPart: part.Part, Archive: part.Archive, File: part.File, Month: part.Month, Part: part.Part, OldFile: part.File,
	})
	if err := changed("claim part again", n, err); err != nil {
		return sum, err
	}
	return sum, wrap("write manifest", w.writeManifest(ctx, part, sum))
}

func (w *archiveMonths) note(ctx context.Context, part *queries.EventPart, sum archive.Sum) error {
	n, err := queries.New(w.deps.pool).SetEventPartVerified(ctx, queries.SetEventPartVerifiedParams{
		Rows: &sum.Rows, Bytes: &sum.Bytes, Sha256: &sum.SHA256, Month: part.Month, Part: part.Part, File: part.File,
	})
	if err := changed("note verified part", n, err); err != nil {
		return err
	}
	part.State, part.Rows = partVerified, &sum.Rows
	return nil
}

// claim stores the name of a new file. It then removes the file of an earlier attempt,
// which did not store that it had finished and now no longer can.
func (w *archiveMonths) claim(ctx context.Context, part *queries.EventPart) error {
	store := w.deps.retention.Archive
	number, err := w.nextPart(ctx, part)
	if err != nil {
		return err
	}
	before, file, location := part.File, archive.NewFileName(part.Month, number), store.String()
	n, err := queries.New(w.deps.pool).ClaimEventPart(ctx, queries.ClaimEventPartParams{
		NewPart: int32(number), Archive: &location, File: &file, Month: part.Month, Part: part.Part, OldFile: before,
	})
	if err := changed("claim part", n, err); err != nil {
		return err
	}
	part.State, part.Part, part.File, part.Archive = partDetached, int32(number), &file, &location
	if before == nil {
		return nil
	}
	return wrap("remove what an earlier attempt left", archive.Withdraw(ctx, store, monthText(part.Month), *before))
}

// nextPart returns the number of a part. It is the part's own number, unless the
// archive already has a part of that number, as it may after Postgres was restored from
// a backup.
func (w *archiveMonths) nextPart(ctx context.Context, part *queries.EventPart) (int, error) {
	there, err := partsOf(ctx, w.deps.pool, w.deps.retention.Archive, part.Month)
	if err != nil {
		return 0, err
	}
	number := int(part.Part)
	for _, m := range there {
		if part.File == nil || m.File != *part.File { // otherwise it is of an attempt that ended before it was noted
			number = max(number, m.Part+1)
		}
	}
	return number, nil
}

// copyOut writes the table as CSV in pages, oldest row first. Each page is read into
// memory before it is written, so that no transaction is open while the archive writes:
// its snapshot would keep Postgres from vacuuming tables. The table does not change, so
// the pages need no common snapshot.
func (w *archiveMonths) copyOut(ctx context.Context, part *queries.EventPart) (sum archive.Sum, err error) {
	var copied int64
	sum, err = archive.WriteData(ctx, w.deps.retention.Archive, *part.File, func(to io.Writer) error {
		copied = 0
		options, page := "(FORMAT csv, HEADER)", new(bytes.Buffer)
		return postgres.EachPage(ctx, w.deps.pool, part.TableName, "true", postgres.EventPage, func(condition string) error {
			page.Reset()
			n, err := w.copyPage(ctx, page, part.TableName, condition, options)
			if err != nil {
				return err
			}
			copied, options = copied+n, "(FORMAT csv)"
			_, err = page.WriteTo(to)
			return err
		})
	})
	if err == nil && copied != sum.Rows {
		err = fmt.Errorf("%d rows were copied and %d records written", copied, sum.Rows)
	}
	return sum, err
}

// copyPage copies rows as CSV, with times and numbers in full.
func (w *archiveMonths) copyPage(ctx context.Context, to io.Writer, table, condition, options string) (n int64, err error) {
	err = postgres.InTx(ctx, w.deps.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL timezone = 'UTC'"); err != nil {
			return fmt.Errorf("set date style: %w", err)
		}
		tag, err := tx.Conn().PgConn().CopyTo(ctx, to, "COPY (SELECT * FROM "+pgx.Identifier{table}.Sanitize()+
			" WHERE "+condition+" ORDER BY occurred_at, id) TO STDOUT WITH "+options)
		n = tag.RowsAffected()
		return wrap("copy rows", err)
	})
	return n, err
}

// readBack compares the file in the archive with the sum of the written bytes and with
// the table.
func (w *archiveMonths) readBack(ctx context.Context, part *queries.EventPart, want archive.Sum) error {
	var rows int64
	if err := w.deps.pool.QueryRow(ctx, "SELECT count(*) FROM "+pgx.Identifier{part.TableName}.Sanitize()).Scan(&rows); err != nil {
		return fmt.Errorf("count rows: %w", err)
	}
	got, err := archive.ReadData(ctx, w.deps.retention.Archive, *part.File, nil)
	if err != nil {
		return fmt.Errorf("read %s back: %w", *part.File, err)
	}
	if got != want || got.Rows != rows {
		return fmt.Errorf("%s: %w: it holds %+v, not %+v of %d rows", *part.File, archive.ErrDamaged, got, want, rows)
	}
	return nil
}

func (w *archiveMonths) writeManifest(ctx context.Context, part *queries.EventPart, sum archive.Sum) error {
	columns, err := w.columns(ctx, part.TableName)
	if err != nil {
		return err
	}
	installation, err := queries.New(w.deps.pool).GetInstallation(ctx)
	if err != nil {
		return fmt.Errorf("read which installation this is: %w", err)
	}
	return archive.WriteManifest(ctx, w.deps.retention.Archive, archive.Manifest{
		Month: monthText(part.Month), Part: int(part.Part), File: *part.File,
		Rows: sum.Rows, Bytes: sum.Bytes, SHA256: sum.SHA256, Columns: columns, CreatedAt: w.now().UTC(),
		Installation: installation, Replaces: int(or(part.Replaces, 0)),
	})
}

func (w *archiveMonths) columns(ctx context.Context, table string) ([]string, error) {
	rows, err := w.deps.pool.Query(ctx, "SELECT * FROM "+pgx.Identifier{table}.Sanitize()+" LIMIT 0")
	if err != nil {
		return nil, fmt.Errorf("read columns: %w", err)
	}
	var names []string
	for _, field := range rows.FieldDescriptions() { // before Close, which returns the connection to the pool
		names = append(names, field.Name)
	}
	rows.Close()
	return names, rows.Err()
}

// drop drops the table, in the transaction that stores the new state. If there is no
// archive, it runs right after the detach, and counts the rows for the record.
func (w *archiveMonths) drop(ctx context.Context, part *queries.EventPart) error {
	table := pgx.Identifier{part.TableName}.Sanitize()
	err := w.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		rows := part.Rows
		if rows == nil {
			if err := tx.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&rows); err != nil {
				return fmt.Errorf("count rows: %w", err)
			}
		}
		n, err := q.SetEventPartDropped(ctx, queries.SetEventPartDroppedParams{
			Rows: rows, Month: part.Month, Part: part.Part, State: part.State, File: part.File,
		})
		if err := changed("note dropped part", n, err); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "DROP TABLE "+table)
		return wrap("drop table", err)
	})
	if err != nil {
		return err
	}
	part.State = partDropped
	w.deps.log.InfoContext(ctx, "a month of events was archived", slog.String("month", monthText(part.Month)),
		slog.Int("part", int(part.Part)), slog.String("file", or(part.File, "none")))
	return nil
}

// changed returns an error for an update that changed nothing.
func changed(action string, n int64, err error) error {
	if err == nil && n == 0 {
		err = errSuperseded
	}
	return wrap(action, err)
}

func monthText(month time.Time) string { return month.Format("2006-01") }

// lockForArchive takes the advisory lock of archiving. The lock ends with its
// connection, even if this process is killed. It returns nil if another process has the
// lock.
func lockForArchive(ctx context.Context, pool *pgxpool.Pool) (unlock func(), err error) {
	conn, err := acquireLocked(ctx, pool)
	if err != nil || conn == nil {
		return nil, err
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, err := conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", lockArchiving); err != nil {
			_ = conn.Conn().Close(ctx) // which unlocks as well
		}
		conn.Release()
	}, nil
}

// acquireLocked returns a connection that has the advisory lock of archiving, nil if
// another process has it. It is a session lock, so it keeps no snapshot.
func acquireLocked(ctx context.Context, pool *pgxpool.Pool) (*pgxpool.Conn, error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("acquire connection: %w", err)
	}
	var locked bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", lockArchiving).Scan(&locked); err != nil || !locked {
		conn.Release()
		return nil, wrap("take lock", err)
	}
	return conn, nil
}
