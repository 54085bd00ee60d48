package shipping

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/pgtest"
	"github.com/signpost/signpost/queries"
)

// taker is a process that takes clicks.
type taker struct {
	spool   *clicks.Spool
	shipper *Shipper
	stop    context.CancelFunc
	ended   chan struct{}
}

// startTaker starts a process whose spool is in dir. It ships once Run is called.
func startTaker(t *testing.T, pool *pgxpool.Pool, dir, host string) *taker {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	spool, err := clicks.Open(clicks.Options{
		Dir: dir, Log: log, Keep: time.Hour, AppendTimeout: time.Minute, SegmentAge: 20 * time.Millisecond,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = spool.Close() })
	inserter, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: log})
	require.NoError(t, err)
	shipper := New(Options{Pool: pool, River: inserter, Spool: spool, Log: log, Host: host})
	shipper.tidyEvery = 50 * time.Millisecond
	require.NoError(t, shipper.Report(t.Context()))
	return &taker{spool: spool, shipper: shipper}
}

func (k *taker) run() {
	ctx, stop := context.WithCancel(context.Background())
	k.stop, k.ended = stop, make(chan struct{})
	go func() {
		defer close(k.ended)
		_ = k.shipper.Run(ctx)
	}()
}

// die stops the process as a crash does: what is in its spool stays there, and Postgres
// is told nothing.
func (k *taker) die() {
	k.stop()
	<-k.ended
	_ = k.spool.Close()
}

// take appends a click whose redirect began a while ago.
func (k *taker) take(t *testing.T, ago time.Duration) {
	t.Helper()
	click := clicks.Click{At: time.Now().Add(-ago), URLID: 1, UserID: 1, IP: netip.MustParseAddr("192.0.2.1"), UserAgent: "test"}
	require.NoError(t, k.spool.Append(&click))
}

func freshness(t *testing.T, pool *pgxpool.Pool) queries.ReadFreshnessRow {
	t.Helper()
	row, err := queries.New(pool).ReadFreshness(t.Context())
	require.NoError(t, err)
	return row
}

func replicas(t *testing.T, pool *pgxpool.Pool) (hosts []string) {
	t.Helper()
	rows, err := pool.Query(t.Context(), "SELECT host FROM replicas ORDER BY host")
	require.NoError(t, err)
	hosts, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return hosts
}

// ingestAll counts all batches as ingested.
func ingestAll(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	pgtest.Exec(t, pool, "UPDATE click_batches SET payload = NULL, ingested_at = now() WHERE ingested_at IS NULL")
}

func TestReport(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	before := time.Now()
	k := startTaker(t, pool, t.TempDir(), "a")
	require.Equal(t, []string{"a"}, replicas(t, pool))
	first := freshness(t, pool)
	assert.Zero(t, first.Pending)
	assert.False(t, first.AsOf.Before(before.Truncate(time.Microsecond)), "as_of %v of a process started at %v", first.AsOf, before)

	began := time.Now()
	k.take(t, 0)
	k.take(t, 0)
	assert.Equal(t, first.AsOf, freshness(t, pool).AsOf, "as_of moved without a report")
	require.NoError(t, k.shipper.Report(t.Context()))
	spooled := freshness(t, pool)
	assert.EqualValues(t, 2, spooled.Pending)
	assert.False(t, spooled.AsOf.Before(began.Truncate(time.Microsecond)))
	assert.False(t, spooled.AsOf.After(time.Now()))

	require.NoError(t, k.spool.SealNow(t.Context()))
	require.NoError(t, k.shipper.Ship(t.Context()))
	shipped := freshness(t, pool)
	assert.EqualValues(t, 2, shipped.Pending, "clicks of a batch are pending")
	assert.Equal(t, spooled.AsOf, shipped.AsOf, "the oldest click is the same, in the spool and in its batch")

	ingestAll(t, pool)
	done := freshness(t, pool)
	assert.Zero(t, done.Pending)
	assert.True(t, done.AsOf.After(spooled.AsOf), "the transaction that ships reports too")

	require.NoError(t, k.shipper.Drain(t.Context()))
	require.NoError(t, k.shipper.Leave(t.Context()))
	require.NoError(t, k.spool.Close())
	assert.Empty(t, replicas(t, pool), "a process that stopped with an empty spool")
}

// A report promises that no click before its time will come, so a click whose redirect
// took long is kept with the time of the report.
func TestReportIsKept(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	k := startTaker(t, pool, t.TempDir(), "a")
	told := freshness(t, pool).AsOf
	k.take(t, 3*time.Second)
	require.NoError(t, k.spool.SealNow(t.Context()))
	require.NoError(t, k.shipper.Ship(t.Context()))
	var oldest time.Time
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT oldest_at FROM click_batches").Scan(&oldest))
	assert.False(t, oldest.Before(told), "a click of %v came after a report up to %v", oldest, told)
	assert.False(t, freshness(t, pool).AsOf.Before(told), "as_of went back")
}

// A process that died is known until another one has its folder and has counted what is
// in it, however long that takes.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	pool, dir := pgtest.Pool(t), t.TempDir()
	dead := startTaker(t, pool, dir, "dead")
	dead.take(t, 0)
	require.NoError(t, dead.shipper.Report(t.Context()))
	held := freshness(t, pool)
	for range 4 {
		dead.take(t, 0) // Postgres does not know of these
	}
	require.NoError(t, dead.spool.Close())

	elsewhere := startTaker(t, pool, t.TempDir(), "elsewhere")
	require.NoError(t, elsewhere.shipper.Report(t.Context()))
	assert.Equal(t, []string{"dead", "elsewhere"}, replicas(t, pool))
	assert.Equal(t, held, freshness(t, pool), "the dead process holds as_of back")

	heir := startTaker(t, pool, dir, "heir") // it adopts the folder, and reports
	assert.Equal(t, []string{"elsewhere", "heir"}, replicas(t, pool))
	taken := freshness(t, pool)
	assert.Equal(t, held.AsOf, taken.AsOf, "the heir has the same oldest click")
	assert.EqualValues(t, 5, taken.Pending)

	require.NoError(t, heir.shipper.Ship(t.Context()))
	ingestAll(t, pool)
	assert.True(t, freshness(t, pool).AsOf.After(held.AsOf))
}

// The row of a process that is gone is removed by who comes after it, also if nothing was
// in its spool, and if the first that took over its folder died before it could say so.
func TestTakeOverOfNothing(t *testing.T) {
	t.Parallel()
	pool, dir := pgtest.Pool(t), t.TempDir()
	dead := startTaker(t, pool, dir, "dead")
	require.NoError(t, dead.shipper.Report(t.Context()))
	require.NoError(t, dead.spool.Close(), "without telling Postgres")
	held := freshness(t, pool).AsOf

	silent, err := clicks.Open(clicks.Options{Dir: dir, Log: slog.New(slog.DiscardHandler), Keep: time.Nanosecond})
	require.NoError(t, err)
	_, err = silent.Adopt()
	require.NoError(t, err)
	require.NoError(t, silent.Close())
	assert.Equal(t, []string{"dead"}, replicas(t, pool))

	startTaker(t, pool, dir, "heir")
	assert.Equal(t, []string{"heir"}, replicas(t, pool))
	assert.True(t, freshness(t, pool).AsOf.After(held))
}

// A process that stops while clicks are left in its spool stays known.
func TestLeaveWithClicks(t *testing.T) {
	t.Parallel()
	pool, dir := pgtest.Pool(t), t.TempDir()
	k := startTaker(t, pool, dir, "a")
	k.take(t, 0)
	require.NoError(t, k.shipper.Report(t.Context()))
	held := freshness(t, pool)
	require.NoError(t, k.shipper.Leave(t.Context()))
	require.NoError(t, k.spool.Close())
	assert.Equal(t, held, freshness(t, pool))

	// A command that ships the folder by hand takes it over, too.
	spool, err := clicks.OpenForShipping(dir, clicks.Options{Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer spool.Close() //nolint:errcheck // takes no clicks
	byHand := New(Options{Pool: pool, River: k.shipper.River, Spool: spool, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, byHand.Report(t.Context()))
	assert.Equal(t, []string{"a"}, replicas(t, pool), "its click is not shipped yet")
	require.NoError(t, byHand.Ship(t.Context()))
	require.NoError(t, byHand.Report(t.Context()))
	assert.Empty(t, replicas(t, pool))
}

// A click that comes while its process stops is either refused, or holds back statistics
// until it is shipped.
func TestClickWhileStopping(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	k := startTaker(t, pool, t.TempDir(), "a")
	k.take(t, 0)
	require.NoError(t, k.spool.Stop())
	late := clicks.Click{At: time.Now(), URLID: 1, UserID: 1}
	assert.Error(t, k.spool.Append(&late))
	require.NoError(t, k.shipper.Leave(t.Context()))
	require.NoError(t, k.spool.Close())
	assert.Equal(t, []string{"a"}, replicas(t, pool))
	assert.EqualValues(t, 1, freshness(t, pool).Pending)
}

// asked is what somebody was told, and the batches that were ingested at that moment.
type asked struct {
	asOf     time.Time
	ingested map[string]bool
}

// TestFreshnessNeverLies asks while clicks come in, are shipped and ingested, and while
// processes die. No click that is older than what was said may turn up later.
func TestFreshnessNeverLies(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	dirs := []string{t.TempDir(), t.TempDir()}
	ctx, finish := context.WithTimeout(t.Context(), 4*time.Second)
	defer finish()
	found := map[string][]time.Time{} // the clicks of each batch
	var answers []asked
	var others sync.WaitGroup
	for i, dir := range dirs {
		others.Go(func() { // a process that is started anew when it has died
			random := rand.New(rand.NewPCG(uint64(i), 7))
			for ctx.Err() == nil {
				k := startTaker(t, pool, dir, dir)
				k.run()
				for range 200 + random.IntN(300) {
					k.take(t, time.Duration(random.IntN(30))*time.Millisecond)
					<-time.After(time.Duration(random.IntN(2000)) * time.Microsecond)
				}
				k.die()
			}
		})
	}
	others.Go(func() {
		for ctx.Err() == nil {
			answers = append(answers, ask(t, pool))
		}
	})
	for ctx.Err() == nil {
		ingestOne(t, pool, found)
	}
	others.Wait()
	for _, dir := range dirs {
		k := startTaker(t, pool, dir, dir)
		require.NoError(t, k.shipper.Drain(t.Context()))
		require.NoError(t, k.shipper.Leave(t.Context()))
		require.NoError(t, k.spool.Close())
	}
	for ingestOne(t, pool, found) {
	}

	assert.Empty(t, replicas(t, pool))
	assert.Zero(t, freshness(t, pool).Pending)
	moved := 0
	for i, a := range answers {
		if i > 0 && a.asOf.After(answers[i-1].asOf) {
			moved++
		}
		for id, times := range found {
			if oldest := slices.MinFunc(times, time.Time.Compare); !a.ingested[id] && oldest.Before(a.asOf) {
				t.Fatalf("answer %d: complete up to %v, but a click of %v was not ingested", i, a.asOf, oldest)
			}
		}
	}
	assert.Greater(t, moved, 10, "as_of hardly moved in %d answers", len(answers))
}

// ask returns what was said of a snapshot, and what was ingested in it.
func ask(t *testing.T, pool *pgxpool.Pool) asked {
	t.Helper()
	a := asked{ingested: map[string]bool{}}
	err := pgx.BeginTxFunc(t.Context(), pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		row, err := queries.New(tx).ReadFreshness(t.Context())
		require.NoError(t, err)
		a.asOf = row.AsOf
		rows, err := tx.Query(t.Context(), "SELECT id FROM click_batches WHERE ingested_at IS NOT NULL")
		require.NoError(t, err)
		ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		for _, id := range ids {
			a.ingested[id] = true
		}
		return err
	})
	require.NoError(t, err)
	return a
}

// ingestOne counts one batch as ingested and notes its clicks. It reports whether there
// was one.
func ingestOne(t *testing.T, pool *pgxpool.Pool, found map[string][]time.Time) bool {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		WITH one AS (SELECT id, payload FROM click_batches WHERE ingested_at IS NULL ORDER BY random() LIMIT 1)
		UPDATE click_batches b SET payload = NULL, ingested_at = now() FROM one WHERE b.id = one.id
		RETURNING one.id, one.payload`)
	require.NoError(t, err)
	type batch struct {
		ID      string
		Payload []byte
	}
	batches, err := pgx.CollectRows(rows, pgx.RowToStructByPos[batch])
	require.NoError(t, err)
	for _, b := range batches {
		list, err := clicks.DecodeBatch(b.ID, b.Payload)
		require.NoError(t, err)
		for _, c := range list {
			found[b.ID] = append(found[b.ID], c.At)
		}
	}
	return len(batches) > 0
}
