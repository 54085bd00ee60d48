package rollup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/internal/pause"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

const (
	// lockFolding is the key of the advisory lock of merging.
	lockFolding int64 = 0x7369676e706f7378
	// MaxClicks is about how many clicks are merged at most in one transaction.
	MaxClicks = 100_000
	// MaxRecounts is how many link-days are counted again at most in one transaction.
	MaxRecounts  = 1000
	foldAttempts = 5
	// mostAlone is with how many recounts a merge may keep the previous release waiting.
	mostAlone = 16
	busyPause = 20 * time.Millisecond
)

// Folded says what a merge did.
type Folded struct {
	Clicks   int64 // in the digests that were merged
	Recounts int   // days of links that were counted again
	Busy     bool  // another process is merging, so nothing was done
	More     bool  // there is more to do at once
	// Failed is a digest that was set aside, because it cannot be decoded. Statistics
	// lack its clicks until the days from OldestAt on are counted again.
	Failed *queries.FailRollupDigestRow
	// Damaged names rows that could not be decoded and are counted again.
	Damaged []string
}

// Fold merges everything that waits, and counts again what is to be counted again,
// however many transactions that takes. It waits for other processes that merge.
func Fold(ctx context.Context, pool *pgxpool.Pool) error {
	for {
		did, err := FoldOnce(ctx, pool, MaxClicks, MaxRecounts)
		switch {
		case err != nil:
			return err
		case did.Busy:
			if err := pause.For(ctx, busyPause); err != nil {
				return fmt.Errorf("wait for another merge: %w", err)
			}
		case !did.More:
			return nil
		}
	}
}

// FoldOnce merges the oldest digests, of about the given number of clicks, in one
// transaction, unless another process is merging. If no more digests wait, it also counts
// link-days again, up to the given number, in a transaction of its own: one that fails
// does not hold up the merging. With an error, did says what was done before it.
func FoldOnce(ctx context.Context, pool *pgxpool.Pool, clicks int64, recounts int32) (did Folded, err error) {
	work, err := queries.New(pool).RollupWork(ctx)
	if err != nil {
		return Folded{}, fmt.Errorf("look for digests: %w", err)
	}
	if !work.Digests && !work.Recounts {
		return Folded{}, nil
	}
	err = locked(ctx, pool, func(conn *pgxpool.Conn) error {
		did, err = tryFold(ctx, pool, conn, clicks, 0)
		if broken := (*digestError)(nil); errors.As(err, &broken) {
			did, err = setAside(ctx, conn, broken)
		}
		if err != nil || did.More || !work.Recounts || recounts == 0 {
			return err
		}
		counted, err := tryFold(ctx, pool, conn, clicks, recounts)
		if postgres.Retryable(err) && recounts > mostAlone { // a few may go on alone
			counted, err = tryFold(ctx, pool, conn, clicks, mostAlone)
		}
		if err == nil {
			did = Folded{
				Clicks: did.Clicks + counted.Clicks, Recounts: counted.Recounts, More: counted.More,
				Damaged: append(did.Damaged, counted.Damaged...),
			}
		}
		return err
	})
	if errors.Is(err, ErrBusy) {
		return Folded{Busy: true}, nil
	}
	if err != nil {
		return did, fmt.Errorf("merge digests: %w", err)
	}
	return did, nil
}

// tryFold merges in one transaction, which is repeated if another one got in its way or
// a month is missing. If it was one of the previous release, these have to wait then:
// they may change the same rows all the time. While many rows are counted again, which may
// take long, they do not.
func tryFold(ctx context.Context, pool *pgxpool.Pool, conn *pgxpool.Conn, clicks int64, recounts int32) (did Folded, err error) {
	alone := false
	for range foldAttempts {
		did, err = foldTx(ctx, conn, alone, clicks, recounts)
		var months monthsError
		if errors.As(err, &months) {
			if err = EnsureMonths(ctx, pool, months); err == nil {
				continue
			}
		}
		if !postgres.Retryable(err) {
			break
		}
		alone = recounts <= mostAlone
	}
	if err != nil {
		return Folded{}, err
	}
	return did, nil
}

// setAside takes a digest that cannot be decoded out of the way, or returns why, if it
// has not waited for long.
func setAside(ctx context.Context, conn *pgxpool.Conn, broken *digestError) (Folded, error) {
	failed, err := queries.New(conn).FailRollupDigest(ctx, broken.id)
	if errors.Is(err, pgx.ErrNoRows) {
		return Folded{}, broken
	}
	if err != nil {
		return Folded{}, fmt.Errorf("set digest %d aside: %w", broken.id, err)
	}
	return Folded{Failed: &failed, More: true}, nil
}

// ErrBusy says that another process is merging.
var ErrBusy = errors.New("another process is merging")

// locked calls do with a connection that has the lock of merging, or returns ErrBusy.
// The lock is the session's, so that the transaction's snapshot is taken after it.
func locked(ctx context.Context, pool *pgxpool.Pool, do func(*pgxpool.Conn) error) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("acquire connection: %w", err)
	}
	defer conn.Release()
	var free bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", lockFolding).Scan(&free); err != nil {
		return fmt.Errorf("take the lock of merging: %w", err)
	}
	if !free {
		return ErrBusy
	}
	defer unlock(ctx, conn)
	if _, err := conn.Exec(ctx, endIfSilent); err != nil {
		return fmt.Errorf("bound how long the lock of merging is held: %w", err)
	}
	return do(conn)
}

// The server ends a session that has the lock and of whose process it has not heard for a
// minute: the process is frozen, or its machine is gone without a word. It notices that
// while it waits for a statement, and (the last one) while it sends an answer.
const (
	endIfSilent = "SET idle_session_timeout = '60s'; SET idle_in_transaction_session_timeout = '60s'; SET tcp_user_timeout = '60s'"
	endNoMore   = "RESET idle_session_timeout; RESET idle_in_transaction_session_timeout; RESET tcp_user_timeout"
)

func unlock(ctx context.Context, conn *pgxpool.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, err := conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", lockFolding)
	if err == nil {
		_, err = conn.Exec(ctx, endNoMore)
	}
	if err != nil {
		_ = conn.Conn().Close(ctx) // which unlocks as well
	}
}

// monthsError are months that have no partition of rollups yet.
type monthsError []time.Time

func (m monthsError) Error() string { return "months of rollups are missing" }

// EnsureMonths makes the partitions of rollups for months, given by their starts, unless
// they are there.
func EnsureMonths(ctx context.Context, pool *pgxpool.Pool, months []time.Time) error {
	for _, month := range months {
		err := postgres.EnsurePartition(ctx, pool, postgres.Partition{
			Of: "rollups", Name: month.Format("rollups_2006_01"), From: month, To: month.AddDate(0, 1, 0),
			With: "fillfactor = 90", // room for rows that are written again and again
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// foldTx merges in one transaction. Its statements share a snapshot, so that it sees the
// events of exactly those digests that it sees: a row that is counted again has the
// clicks of all digests that are merged, and of no other.
func foldTx(ctx context.Context, conn *pgxpool.Conn, alone bool, clicks int64, recounts int32) (did Folded, err error) {
	err = postgres.InTx(ctx, conn, func(tx pgx.Tx) error {
		did = Folded{}
		begin := []string{"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"}
		if recounts > 0 { // no month of events can be detached meanwhile
			begin = append(begin, "LOCK TABLE ONLY events IN ACCESS SHARE MODE")
		}
		if alone { // in the order in which the previous release changes them
			begin = append(begin, "LOCK TABLE click_quarters, click_days IN SHARE ROW EXCLUSIVE MODE")
		}
		for _, sql := range begin { // all of this comes before the snapshot
			if _, err := tx.Exec(ctx, sql); err != nil {
				return fmt.Errorf("begin to merge: %w", err)
			}
		}
		m := merge{tx: tx, q: queries.New(queries.Planned{DBTX: tx}), others: map[key]*sides{}}
		entries, err := m.take(ctx, &did, clicks, recounts)
		if err != nil {
			return err
		}
		err = m.run(ctx, entries)
		did.Damaged, did.More = m.damaged, did.More || m.again
		return err
	})
	return did, err
}

// take takes digests of about so many clicks out of their table and returns their
// entries. If these are all that there are, it also takes link-days that are to be
// counted again, up to recounts.
func (m *merge) take(ctx context.Context, did *Folded, clicks int64, recounts int32) (entries []entry, err error) {
	digests, err := m.q.TakeRollupDigests(ctx, clicks)
	if err != nil {
		return nil, fmt.Errorf("take digests: %w", err)
	}
	for _, d := range digests {
		did.Clicks += int64(d.Clicks)
		before := len(entries)
		if entries, err = decodeDigest(entries, d.Payload); err != nil {
			return nil, &digestError{d.ID, err}
		}
		for i := range entries[before:] {
			entries[before+i].digest = d.ID
		}
	}
	if did.More, err = m.q.AreRollupDigestsLeft(ctx); err != nil {
		return nil, fmt.Errorf("look for more digests: %w", err)
	}
	if did.More || recounts == 0 {
		return entries, nil
	}
	rows, err := m.q.TakeRollupRecounts(ctx, recounts)
	if err != nil {
		return nil, fmt.Errorf("take link-days to count again: %w", err)
	}
	did.Recounts, did.More = len(rows), len(rows) == int(recounts)
	m.recounts = map[key]bool{}
	for _, r := range rows {
		m.recounts[key{r.URLID, dayNumber(r.Day)}] = true
	}
	return entries, nil
}
