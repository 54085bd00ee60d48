package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

// Why a click was set aside, as signpost_clicks_rejected_total says it.
const (
	rejectedTime    = "time"    // outside of the months that events may have
	rejectedRefused = "refused" // Postgres would not store it
)

// recordClicks makes events and rollups of one click batch, exactly once (I2).
type recordClicks struct {
	river.WorkerDefaults[jobs.RecordClicks]
	deps *deps
}

// Work implements [river.Worker].
//
// What the batch holds is read, decoded and enriched before the transaction,
// which is short for it. When Postgres refuses the data, the transaction is
// done over with care: split until the clicks at fault are found.
func (w *recordClicks) Work(ctx context.Context, job *river.Job[jobs.RecordClicks]) error {
	batch, err := w.read(ctx, job.Args.BatchID)
	if err != nil || batch == nil {
		return err
	}
	err = w.ingest(ctx, job, batch)
	if postgres.NoPartition(err) {
		w.deps.partitions.Forget()
		if err := w.ensurePartitions(ctx, batch.events); err != nil {
			return err
		}
		err = w.ingest(ctx, job, batch)
	}
	if postgres.DataFault(err) {
		batch.careful = true
		err = w.ingest(ctx, job, batch)
	}
	return err
}

// clickBatch is a batch on its way into the tables.
type clickBatch struct {
	id       string
	clicks   []clicks.Click
	events   []event
	badTimes []queries.InsertClickRejectsParams
	careful  bool
}

// read returns nil for a batch that was ingested already.
func (w *recordClicks) read(ctx context.Context, id string) (*clickBatch, error) {
	payload, err := queries.New(w.deps.pool).ReadClickBatch(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, river.JobCancel(fmt.Errorf("click batch %q does not exist", id))
	}
	if err != nil {
		return nil, fmt.Errorf("read click batch: %w", err)
	}
	if payload == nil {
		return nil, nil
	}
	batch := &clickBatch{id: id}
	if batch.clicks, err = clicks.DecodeBatch(payload); err != nil {
		return nil, fmt.Errorf("decode click batch: %w", err)
	}
	good := batch.setAsideBadTimes(time.Now())
	if batch.events, err = w.deps.newEnricher().events(ctx, batch.clicks, good); err != nil {
		return nil, err
	}
	return batch, w.ensurePartitions(ctx, batch.events)
}

// setAsideBadTimes takes out clicks of a clock so wrong that there is no
// partition for them, before salts are made for their days, and returns the
// positions of the others.
func (b *clickBatch) setAsideBadTimes(now time.Time) (good []int32) {
	first := time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)
	end := postgres.MonthOf(now).AddDate(0, 2, 0)
	good = make([]int32, 0, len(b.clicks))
	for i := range b.clicks {
		if at := b.clicks[i].At; at.Before(first) || !at.Before(end) {
			b.badTimes = append(b.badTimes, b.reject(int32(i), rejectedTime, "time is out of range"))
		} else {
			good = append(good, int32(i))
		}
	}
	return good
}

// reject describes a click that is set aside. Its address is left out (I9).
func (b *clickBatch) reject(position int32, reason, detail string) queries.InsertClickRejectsParams {
	c := b.clicks[position]
	// Bounded to what a timestamp can hold and people can read.
	at := c.At
	if at.Year() < 1 || at.Year() > 9999 {
		at = time.Unix(0, 0).UTC()
	}
	return queries.InsertClickRejectsParams{
		BatchID: b.id, Position: position, OccurredAt: at, URLID: c.URLID, UserID: c.UserID,
		UserAgent: new(clicks.Clean(c.UserAgent, clicks.MaxUserAgent)),
		Referrer:  new(clicks.Clean(c.Referrer, clicks.MaxReferrer)),
		Reason:    reason + ": " + clicks.Clean(detail, 200),
	}
}

func (w *recordClicks) ensurePartitions(ctx context.Context, events []event) error {
	var months []time.Time
	for i := range events {
		month := postgres.MonthOf(events[i].time())
		if len(months) == 0 || !month.Equal(months[len(months)-1]) {
			months = append(months, month)
		}
	}
	if err := w.deps.partitions.Ensure(ctx, months...); err != nil {
		return fmt.Errorf("ensure partitions of a click batch: %w", err)
	}
	return nil
}

// ingest is the transaction. The locked batch row alone decides whether there
// is something to do; the job row says nothing, since it may run twice.
func (w *recordClicks) ingest(ctx context.Context, job *river.Job[jobs.RecordClicks], b *clickBatch) error {
	var stored []event
	var refused []queries.InsertClickRejectsParams
	err := w.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		ingested, err := q.LockClickBatch(ctx, b.id)
		if err != nil {
			return fmt.Errorf("lock click batch: %w", err)
		}
		if ingested {
			stored, refused = nil, nil
			return complete(ctx, tx, job)
		}
		if stored, refused, err = b.store(ctx, tx, q); err != nil {
			return err
		}
		if err := addRollups(ctx, q, countRollups(stored)); err != nil {
			return err
		}
		if err := q.FinishClickBatch(ctx, b.id); err != nil {
			return fmt.Errorf("finish click batch: %w", err)
		}
		return complete(ctx, tx, job)
	})
	if err != nil {
		return err
	}
	w.account(ctx, b, stored, refused)
	return nil
}

func (w *recordClicks) account(ctx context.Context, b *clickBatch, stored []event, refused []queries.InsertClickRejectsParams) {
	w.deps.metrics.clicksIngested.Add(float64(len(stored)))
	if len(refused) == 0 {
		return
	}
	byTime := min(len(b.badTimes), len(refused))
	w.deps.metrics.clicksRejected.WithLabelValues(rejectedTime).Add(float64(byTime))
	w.deps.metrics.clicksRejected.WithLabelValues(rejectedRefused).Add(float64(len(refused) - byTime))
	w.deps.log.ErrorContext(ctx, "clicks were set aside", "batch_id", b.id, "clicks", len(refused), "reason", refused[len(refused)-1].Reason)
}

// store writes what it can and sets the rest aside.
func (b *clickBatch) store(ctx context.Context, tx pgx.Tx, q *queries.Queries) (stored []event, refused []queries.InsertClickRejectsParams, err error) {
	refused = slices.Clone(b.badTimes)
	if b.careful {
		stored, refused, err = b.storeHalves(ctx, tx, b.events, nil, refused)
	} else {
		stored, err = b.events, copyEvents(ctx, tx, b.events)
	}
	if err != nil {
		return nil, nil, err
	}
	if len(refused) > 0 {
		if _, err := q.InsertClickRejects(ctx, refused); err != nil {
			return nil, nil, fmt.Errorf("set clicks aside: %w", err)
		}
	}
	return stored, refused, nil
}

// storeHalves copies events below a savepoint, and each half by itself when
// Postgres refuses them together.
func (b *clickBatch) storeHalves(ctx context.Context, tx pgx.Tx, events, stored []event, refused []queries.InsertClickRejectsParams) ([]event, []queries.InsertClickRejectsParams, error) {
	if len(events) == 0 {
		return stored, refused, nil
	}
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return copyEvents(ctx, tx, events) })
	switch {
	case err == nil:
		return append(stored, events...), refused, nil
	case !postgres.DataFault(err):
		return nil, nil, err
	case len(events) == 1:
		return stored, append(refused, b.reject(events[0].position, rejectedRefused, err.Error())), nil
	}
	half := len(events) / 2
	stored, refused, err = b.storeHalves(ctx, tx, events[:half], stored, refused)
	if err != nil {
		return nil, nil, err
	}
	return b.storeHalves(ctx, tx, events[half:], stored, refused)
}

// rollups counts clicks by link and quarter of an hour, and by link and UTC
// day, in key order.
type rollups struct {
	quarters queries.AddClickQuartersParams
	days     queries.AddClickDaysParams
}

type rollupKey struct {
	urlID int64
	start int64 // seconds since 1970
}

type rollupCount struct{ clicks, bots int64 }

func countRollups(events []event) rollups {
	counts := map[rollupKey]rollupCount{}
	for i := range events {
		e := &events[i]
		key := rollupKey{e.urlID, floor(e.at, quarter) * int64(quarter/time.Second)}
		n := counts[key]
		n.clicks++
		if e.agent.bot {
			n.bots++
		}
		counts[key] = n
	}
	return sumRollups(counts)
}

func sumRollups(quarters map[rollupKey]rollupCount) rollups {
	var r rollups
	days := map[rollupKey]rollupCount{}
	for _, k := range sortedKeys(quarters) {
		n := quarters[k]
		start := time.Unix(k.start, 0).UTC()
		r.quarters.URLIds = append(r.quarters.URLIds, k.urlID)
		r.quarters.Buckets = append(r.quarters.Buckets, start)
		r.quarters.Clicks = append(r.quarters.Clicks, n.clicks)
		r.quarters.Bots = append(r.quarters.Bots, n.bots)
		day := rollupKey{k.urlID, start.Truncate(utcDay).Unix()}
		sum := days[day]
		days[day] = rollupCount{sum.clicks + n.clicks, sum.bots + n.bots}
	}
	for _, k := range sortedKeys(days) {
		r.days.URLIds = append(r.days.URLIds, k.urlID)
		r.days.Days = append(r.days.Days, time.Unix(k.start, 0).UTC())
		r.days.Clicks = append(r.days.Clicks, days[k].clicks)
		r.days.Bots = append(r.days.Bots, days[k].bots)
	}
	return r
}

func sortedKeys(counts map[rollupKey]rollupCount) []rollupKey {
	keys := make([]rollupKey, 0, len(counts))
	for k := range counts {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b rollupKey) int {
		return cmp.Or(cmp.Compare(a.urlID, b.urlID), cmp.Compare(a.start, b.start))
	})
	return keys
}

// addRollups comes last in a transaction, since popular links are in every
// batch and their rows are held from here to the commit.
func addRollups(ctx context.Context, q *queries.Queries, r rollups) error {
	if len(r.quarters.URLIds) == 0 {
		return nil
	}
	if err := q.AddClickQuarters(ctx, r.quarters); err != nil {
		return fmt.Errorf("add to quarters: %w", err)
	}
	if err := q.AddClickDays(ctx, r.days); err != nil {
		return fmt.Errorf("add to days: %w", err)
	}
	return nil
}
