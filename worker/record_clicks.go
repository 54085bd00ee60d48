package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/queries"
)

// Reasons for which a click is rejected. They are the values of the label "reason" of
// signpost_clicks_rejected_total.
const (
	rejectedTime    = "time"    // outside of the months that events may have
	rejectedMonth   = "month"   // of a month whose partition an operator detached
	rejectedRefused = "refused" // Postgres would not store it
	rejectedPanic   = "panic"   // it could not be enriched: a bug
)

// errForgotten says that a batch may have been ingested already, before its row was
// pruned from the ledger.
var errForgotten = errors.New("the batch is older than the ledger reaches and may have been counted before; " +
	"ingest it with `signpost batches retry`, or drop it")

// recordClicks ingests one batch of clicks into events and rollups, exactly once (I2).
type recordClicks struct {
	river.WorkerDefaults[jobs.RecordClicks]
	deps *deps
}

// Work implements [river.Worker].
//
// The batch is read, decoded and enriched before the transaction, so that the
// transaction is short. If Postgres refuses the data, the transaction is repeated with
// care: the batch is split until the clicks at fault are found.
func (w *recordClicks) Work(ctx context.Context, job *river.Job[jobs.RecordClicks]) error {
	batch, err := w.read(ctx, job.Args.BatchID)
	if errors.Is(err, clicks.ErrBadBatch) {
		return w.bad(ctx, job, err)
	}
	if err != nil || batch == nil {
		return err
	}
	err = w.ingest(ctx, job, batch)
	if postgres.NoPartition(err) {
		w.deps.partitions.Forget()
		w.deps.visitors.forget()
		if err := w.ensurePartitions(ctx, batch); err != nil {
			return err
		}
		err = w.ingest(ctx, job, batch)
	}
	if postgres.DataFault(err) || postgres.NoPartition(err) {
		batch.careful = true
		err = w.ingest(ctx, job, batch)
	}
	if errors.Is(err, errForgotten) {
		return errors.Join(w.fail(ctx, batch.id, err), river.JobCancel(err))
	}
	return err
}

// bad handles a batch that cannot be decoded. The job is tried as often as any other,
// because a worker of a newer release may know the format. After that the batch is
// failed: it keeps its payload and waits for an operator, and its job is discarded.
func (w *recordClicks) bad(ctx context.Context, job *river.Job[jobs.RecordClicks], err error) error {
	if job.Attempt < job.MaxAttempts {
		return err
	}
	return errors.Join(err, w.fail(ctx, job.Args.BatchID, err))
}

// fail marks a batch as failed, so that it is not tried again.
func (w *recordClicks) fail(ctx context.Context, id string, why error) error {
	reason := clicks.Clean(why.Error(), 500)
	n, err := queries.New(w.deps.pool).FailClickBatch(ctx, &reason, id)
	if err != nil {
		return fmt.Errorf("fail click batch: %w", err)
	}
	if n > 0 {
		w.deps.log.ErrorContext(ctx, "a click batch failed and waits for an operator", slog.String("batch_id", id), slog.Any("error", why))
	}
	return nil
}

// clickBatch is a batch while it is ingested.
type clickBatch struct {
	id      string
	clicks  []clicks.Click
	events  []event
	rejects []reject
	careful bool
}

// reject is a click that does not become an event.
type reject struct {
	reason string // of the metric
	row    queries.InsertClickRejectsParams
}

// read reads a batch. It returns nil if the batch was ingested already.
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
	if batch.clicks, err = decode(id, payload); err != nil {
		return nil, fmt.Errorf("decode click batch: %w", err)
	}
	good := batch.rejectBadTimes(time.Now())
	enricher, err := w.deps.newEnricher(ctx)
	if err != nil {
		return nil, err
	}
	if batch.events, err = enricher.events(ctx, batch.clicks, good); err != nil {
		return nil, err
	}
	for position, value := range enricher.panics {
		batch.reject(position, rejectedPanic, fmt.Sprint(value))
		w.deps.log.ErrorContext(ctx, "a click could not be enriched", slog.String("batch_id", id),
			slog.Int("position", int(position)), slog.Any("panic", value))
	}
	if err := storeAgents(ctx, w.deps.pool, batch.events, time.Now()); err != nil {
		return nil, err
	}
	return batch, w.ensurePartitions(ctx, batch)
}

// decode decodes a payload. If the decoder panics, the error wraps clicks.ErrBadBatch
// too, because its input came from outside of this process.
func decode(id string, payload []byte) (batch []clicks.Click, err error) {
	defer func() {
		if value := recover(); value != nil {
			batch, err = nil, fmt.Errorf("%w: panic: %v", clicks.ErrBadBatch, value)
		}
	}()
	return clicks.DecodeBatch(id, payload)
}

// rejectBadTimes rejects clicks whose clock was so wrong that there is no partition for
// them, before salts are made for their days. It returns the positions of the others.
func (b *clickBatch) rejectBadTimes(now time.Time) (good []int32) {
	first := time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)
	end := postgres.MonthOf(now).AddDate(0, 2, 0)
	good = make([]int32, 0, len(b.clicks))
	for i := range b.clicks {
		if at := b.clicks[i].At; at.Before(first) || !at.Before(end) {
			b.reject(int32(i), rejectedTime, "time is out of range")
		} else {
			good = append(good, int32(i))
		}
	}
	return good
}

// rejectMonth rejects the clicks of a month that cannot have a partition.
func (b *clickBatch) rejectMonth(none *postgres.MonthError) {
	kept := b.events[:0]
	for _, e := range b.events {
		if postgres.MonthOf(e.time()).Equal(none.Month) {
			b.reject(e.position, rejectedMonth, none.Error())
		} else {
			kept = append(kept, e)
		}
	}
	b.events = kept
}

func (b *clickBatch) reject(position int32, reason, detail string) {
	b.rejects = append(b.rejects, b.rejected(position, reason, detail))
}

// rejected returns the record of a rejected click, without its address (I9), and without
// headers if the visitor does not want to be tracked.
func (b *clickBatch) rejected(position int32, reason, detail string) reject {
	c := b.clicks[position]
	// The time is bounded, so that a timestamp can hold it and people can read it.
	at := c.At
	if at.Year() < 1 || at.Year() > 9999 {
		at = time.Unix(0, 0).UTC()
	}
	row := queries.InsertClickRejectsParams{
		BatchID: b.id, Position: position, OccurredAt: at, URLID: c.URLID, UserID: c.UserID,
		Reason: reason + ": " + clicks.Clean(detail, 200),
	}
	if !c.Private {
		row.UserAgent = new(clicks.Clean(c.UserAgent, clicks.MaxUserAgent))
		row.Referrer = new(clicks.Clean(c.Referrer, clicks.MaxReferrer))
	}
	return reject{reason, row}
}

// ensurePartitions makes the partitions that a batch needs. It rejects the clicks of
// months that cannot have one, so that the other clicks are not held back.
func (w *recordClicks) ensurePartitions(ctx context.Context, b *clickBatch) error {
	for {
		err := w.deps.partitions.Ensure(ctx, b.months()...)
		var none *postgres.MonthError
		switch {
		case err == nil:
			return wrap("ensure days of visitors", w.deps.visitors.ensure(ctx, b.days()...))
		case !errors.As(err, &none):
			return fmt.Errorf("ensure partitions of a click batch: %w", err)
		}
		b.rejectMonth(none)
	}
}

// days returns the days of the salts of visitors.
func (b *clickBatch) days() []int64 {
	var days []int64
	for i := range b.events {
		if e := &b.events[i]; !e.private && !slices.Contains(days, e.day) {
			days = append(days, e.day)
		}
	}
	return days
}

func (b *clickBatch) months() []time.Time {
	var months []time.Time
	for i := range b.events {
		month := postgres.MonthOf(b.events[i].time())
		if len(months) == 0 || !month.Equal(months[len(months)-1]) {
			months = append(months, month)
		}
	}
	return months
}

// ingest ingests a batch in one transaction. Only the locked row of the batch decides
// whether there is something to do. The job's row cannot, since a job may run twice.
func (w *recordClicks) ingest(ctx context.Context, job *river.Job[jobs.RecordClicks], b *clickBatch) error {
	var stored []event
	var rejects []reject
	err := w.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		stored, rejects = nil, nil
		row, err := q.LockClickBatch(ctx, b.id)
		switch {
		case err != nil:
			return fmt.Errorf("lock click batch: %w", err)
		case row.Ingested:
			return complete(ctx, tx, job)
		case row.Forgotten:
			return errForgotten
		}
		if stored, rejects, err = b.store(ctx, tx, q); err != nil {
			return err
		}
		if row.Live {
			if err := showLive(ctx, q, stored); err != nil {
				return err
			}
		}
		if err := q.FinishClickBatch(ctx, b.id); err != nil {
			return fmt.Errorf("finish click batch: %w", err)
		}
		if err := countInRollups(ctx, q, stored); err != nil {
			return err
		}
		return complete(ctx, tx, job)
	})
	if err != nil {
		return err
	}
	w.account(ctx, b, stored, rejects)
	return nil
}

func (w *recordClicks) account(ctx context.Context, b *clickBatch, stored []event, rejects []reject) {
	w.deps.metrics.clicksIngested.Add(float64(len(stored)))
	if len(rejects) == 0 {
		return
	}
	for _, r := range rejects {
		w.deps.metrics.clicksRejected.WithLabelValues(r.reason).Inc()
	}
	w.deps.log.ErrorContext(ctx, "clicks were rejected", slog.String("batch_id", b.id),
		slog.Int("clicks", len(rejects)), slog.String("reason", rejects[len(rejects)-1].row.Reason))
}

// store writes the events that Postgres accepts and rejects the others.
func (b *clickBatch) store(ctx context.Context, tx pgx.Tx, q *queries.Queries) (stored []event, rejects []reject, err error) {
	rejects = slices.Clone(b.rejects)
	if b.careful {
		stored, rejects, err = b.storeHalves(ctx, tx, b.events, nil, rejects)
	} else {
		stored, err = b.events, storeEvents(ctx, tx, b.events)
	}
	if err != nil || len(rejects) == 0 {
		return stored, nil, err
	}
	rows := make([]queries.InsertClickRejectsParams, len(rejects))
	for i, r := range rejects {
		rows[i] = r.row
	}
	if err := q.DropClickRejects(ctx, b.id); err != nil {
		return nil, nil, fmt.Errorf("delete earlier rejects: %w", err)
	}
	if _, err := q.InsertClickRejects(ctx, rows); err != nil {
		return nil, nil, fmt.Errorf("insert rejects: %w", err)
	}
	return stored, rejects, nil
}

// storeHalves copies events within a savepoint. If Postgres refuses them, it tries each
// half by itself.
func (b *clickBatch) storeHalves(ctx context.Context, tx pgx.Tx, events, stored []event, rejects []reject) ([]event, []reject, error) {
	if len(events) == 0 {
		return stored, rejects, nil
	}
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return storeEvents(ctx, tx, events) })
	switch {
	case err == nil:
		return append(stored, events...), rejects, nil
	case !postgres.DataFault(err) && !postgres.NoPartition(err):
		return nil, nil, err
	case len(events) == 1:
		return stored, append(rejects, b.rejected(events[0].position, refusal(err), err.Error())), nil
	}
	half := len(events) / 2
	stored, rejects, err = b.storeHalves(ctx, tx, events[:half], stored, rejects)
	if err != nil {
		return nil, nil, err
	}
	return b.storeHalves(ctx, tx, events[half:], stored, rejects)
}

func refusal(err error) string {
	if postgres.NoPartition(err) {
		return rejectedMonth
	}
	return rejectedRefused
}

// countInRollups adds clicks to the statistics.
func countInRollups(ctx context.Context, q *queries.Queries, events []event) error {
	var counts rollup.Changes
	for i := range events {
		e := &events[i]
		counts.Add(rollup.Event{
			URLID: e.urlID, UserID: e.userID, At: e.time(), Kind: string(e.kind), Country: strings.TrimRight(string(e.country[:]), "\x00"),
			Referrer: e.host, Browser: e.agent.Browser, System: e.agent.OS, Device: e.agent.Device, Trigger: e.trigger.String(),
			First: e.firsts&rollup.FirstOfLink != 0, FirstOfAll: e.firsts&rollup.FirstOfAll != 0,
		})
	}
	return counts.Apply(ctx, q)
}
