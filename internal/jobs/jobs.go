// Package jobs holds what the inserting and the working side of River share:
// job arguments, kinds and queue names.
//
// Arguments hold ids only, never data: River indexes them. They stay readable
// by the previous and the next release, so a field is only ever added, and a
// kind is known to workers one release before anyone inserts it.
package jobs

import (
	"time"

	"github.com/riverqueue/river"
)

// Queues, by what their jobs work on. Operators give each its own concurrency.
const (
	QueueClicks      = "clicks"
	QueueImports     = "imports"
	QueueMaintenance = "maintenance"
	QueueRetention   = "retention" // of its own, since a month takes long
)

// MaxAttempts is how often a job runs before River discards it. Reenqueue then
// gives its batch or chunk a fresh job, so nothing is lost with it.
const MaxAttempts = 25

// RecordClicks ingests one click batch: a row of click_batches becomes events
// and rollups.
type RecordClicks struct {
	BatchID string `json:"batch_id"`
}

// Kind implements [river.JobArgs].
func (RecordClicks) Kind() string { return "record_clicks" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (RecordClicks) InsertOpts() river.InsertOpts { return options(QueueClicks) }

// PlanImport finds the keys that more than one row of an upload claims and
// queues a job for each of its chunks.
type PlanImport struct {
	ImportID int64 `json:"import_id"`
}

// Kind implements [river.JobArgs].
func (PlanImport) Kind() string { return "plan_import" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (PlanImport) InsertOpts() river.InsertOpts { return options(QueueImports) }

// ApplyChunk applies the rows of one chunk of an import.
type ApplyChunk struct {
	ImportID int64 `json:"import_id"`
	Seq      int32 `json:"seq"`
}

// Kind implements [river.JobArgs].
func (ApplyChunk) Kind() string { return "apply_chunk" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
//
// Thousands of chunks may wait. The few jobs that plan, end, cancel or undo an
// import come before them: a cancellation is to take seconds.
func (ApplyChunk) InsertOpts() river.InsertOpts {
	opts := options(QueueImports)
	opts.Priority = river.PriorityDefault + 1
	return opts
}

// FinishImport applies the rows that claim a key together with other rows, in
// file order, and ends the import; it also ends one that was cancelled.
type FinishImport struct {
	ImportID int64 `json:"import_id"`
}

// Kind implements [river.JobArgs].
func (FinishImport) Kind() string { return "finish_import" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (FinishImport) InsertOpts() river.InsertOpts { return options(QueueImports) }

// UndoImport takes back what an import created.
type UndoImport struct {
	ImportID int64 `json:"import_id"`
}

// Kind implements [river.JobArgs].
func (UndoImport) Kind() string { return "undo_import" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (UndoImport) InsertOpts() river.InsertOpts { return options(QueueImports) }

// NextOfImport returns the job that an import in this state, of so many chunks,
// waits for; chunks that run have jobs of their own. A file of one chunk needs
// no planning.
func NextOfImport(id int64, state string, chunks int32) river.JobArgs {
	switch {
	case state == "undoing":
		return UndoImport{ImportID: id}
	case state != "queued":
		return FinishImport{ImportID: id}
	case chunks == 1:
		return ApplyChunk{ImportID: id}
	default:
		return PlanImport{ImportID: id}
	}
}

// Reenqueue gives every batch, chunk and import whose job is gone a new one.
type Reenqueue struct{}

// Kind implements [river.JobArgs].
func (Reenqueue) Kind() string { return "rescue" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (Reenqueue) InsertOpts() river.InsertOpts { return periodic(time.Minute) }

// MakePartitions makes the monthly partitions of events ahead of time.
type MakePartitions struct{}

// Kind implements [river.JobArgs].
func (MakePartitions) Kind() string { return "make_partitions" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (MakePartitions) InsertOpts() river.InsertOpts { return periodic(time.Hour) }

// ArchiveMonths takes months of events that are older than the retention out of
// the database, and finishes those that were begun. Setting is the retention of the
// worker that inserts the job, as one text: a changed setting makes another job, so
// that it is looked at at once and not at the next hour.
type ArchiveMonths struct {
	Setting string `json:"setting,omitempty"`
}

// Kind implements [river.JobArgs].
func (ArchiveMonths) Kind() string { return "retire_months" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (ArchiveMonths) InsertOpts() river.InsertOpts {
	opts := periodic(time.Hour)
	opts.Queue = QueueRetention
	opts.UniqueOpts.ByArgs = true
	return opts
}

// Prune removes what has served: the read part of the change log, confirmed
// ledger rows, salts of days whose backlog is done.
type Prune struct{}

// Kind implements [river.JobArgs].
func (Prune) Kind() string { return "prune" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (Prune) InsertOpts() river.InsertOpts { return periodic(10 * time.Minute) }

func options(queue string) river.InsertOpts {
	return river.InsertOpts{Queue: queue, MaxAttempts: MaxAttempts}
}

// periodic makes a job unique by its period, because the clock of periodic
// jobs starts again with each leader.
func periodic(every time.Duration) river.InsertOpts {
	return river.InsertOpts{
		Queue:       QueueMaintenance,
		MaxAttempts: 3,
		UniqueOpts:  river.UniqueOpts{ByPeriod: every},
	}
}
