// Package jobs holds the definitions that inserting and working clients of River share:
// job arguments, kinds and queue names.
//
// Arguments hold only ids, never data, because River indexes them. The previous and the
// next release must be able to read them, so fields are only ever added, and workers
// know a kind one release before it is inserted.
package jobs

import (
	"time"

	"github.com/riverqueue/river"
)

// The queues are divided by the things on which their jobs work. Operators set the
// concurrency of each.
const (
	QueueClicks      = "clicks"
	QueueImports     = "imports"
	QueueMaintenance = "maintenance"
	QueueRetention   = "retention" // a queue of its own, since a month takes long
)

// MaxAttempts is how often a job runs before River discards it. Reenqueue then gives
// its batch or import a new job, so nothing is lost.
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

// PlanImport continues an import. The previous release inserts it for files of more
// than one chunk.
type PlanImport struct {
	ImportID int64 `json:"import_id"`
}

// Kind implements [river.JobArgs].
func (PlanImport) Kind() string { return "plan_import" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (PlanImport) InsertOpts() river.InsertOpts { return options(QueueImports) }

// Import returns the import's id.
func (j PlanImport) Import() int64 { return j.ImportID }

// ApplyChunk continues an import, with the chunk Seq or wherever the import is by now.
type ApplyChunk struct {
	ImportID int64 `json:"import_id"`
	Seq      int32 `json:"seq"`
}

// Kind implements [river.JobArgs].
func (ApplyChunk) Kind() string { return "apply_chunk" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
//
// The few jobs that cancel or undo an import run before those that apply chunks,
// because a cancellation should take only seconds.
func (ApplyChunk) InsertOpts() river.InsertOpts {
	opts := options(QueueImports)
	opts.Priority = river.PriorityDefault + 1
	return opts
}

// Import returns the import's id.
func (j ApplyChunk) Import() int64 { return j.ImportID }

// FinishImport ends an import that was cancelled.
type FinishImport struct {
	ImportID int64 `json:"import_id"`
}

// Kind implements [river.JobArgs].
func (FinishImport) Kind() string { return "finish_import" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (FinishImport) InsertOpts() river.InsertOpts { return options(QueueImports) }

// Import returns the import's id.
func (j FinishImport) Import() int64 { return j.ImportID }

// UndoImport undoes an import.
type UndoImport struct {
	ImportID int64 `json:"import_id"`
}

// Kind implements [river.JobArgs].
func (UndoImport) Kind() string { return "undo_import" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (UndoImport) InsertOpts() river.InsertOpts { return options(QueueImports) }

// States of an import, as the table and the API name them.
const (
	ImportReceiving  = "receiving"
	ImportQueued     = "queued"
	ImportRunning    = "running"
	ImportCompleted  = "completed"
	ImportCancelling = "cancelling"
	ImportCancelled  = "cancelled"
	ImportFailed     = "failed"
	ImportUndoing    = "undoing"
	ImportUndone     = "undone"
)

// NextOfImport returns the job that continues an import in this state.
func NextOfImport(id int64, state string) river.JobArgs {
	switch state {
	case ImportUndoing:
		return UndoImport{ImportID: id}
	case ImportCancelling:
		return FinishImport{ImportID: id}
	}
	return ApplyChunk{ImportID: id}
}

// ReenqueuePeriod is how often Reenqueue runs.
const ReenqueuePeriod = 15 * time.Second

// Reenqueue gives a new job to every batch and import whose job is gone.
type Reenqueue struct{}

// Kind implements [river.JobArgs].
func (Reenqueue) Kind() string { return "rescue" } // its name in earlier releases, which run beside this one

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (Reenqueue) InsertOpts() river.InsertOpts { return periodic(ReenqueuePeriod) }

// MakePartitions makes the monthly partitions of events ahead of time.
type MakePartitions struct{}

// Kind implements [river.JobArgs].
func (MakePartitions) Kind() string { return "make_partitions" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (MakePartitions) InsertOpts() river.InsertOpts { return periodic(time.Hour) }

// ArchivePeriod is how often ArchiveMonths runs. A month whose worker was killed waits
// that long.
const ArchivePeriod = 15 * time.Minute

// ArchiveMonths takes months of events that are older than the retention out of the
// database, and finishes months that were begun. Setting is the retention of the worker
// that inserts the job, as one text. A changed setting makes another job, so that it
// takes effect at once.
type ArchiveMonths struct {
	Setting string `json:"setting,omitempty"`
}

// Kind implements [river.JobArgs].
func (ArchiveMonths) Kind() string { return "retire_months" } // its name in earlier releases, too

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (ArchiveMonths) InsertOpts() river.InsertOpts {
	opts := periodic(ArchivePeriod)
	opts.Queue = QueueRetention
	opts.UniqueOpts.ByArgs = true
	return opts
}

// Reclassify judges clicks that were counted by the rules of today.
type Reclassify struct {
	ID int64 `json:"id"` // in reclassifications
}

// Kind implements [river.JobArgs].
func (Reclassify) Kind() string { return "reclassify_clicks" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (Reclassify) InsertOpts() river.InsertOpts { return options(QueueMaintenance) }

// Prune removes rows that are not needed any more, by their age: worker/prune.go lists
// them.
type Prune struct{}

// Kind implements [river.JobArgs].
func (Prune) Kind() string { return "prune" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (Prune) InsertOpts() river.InsertOpts { return periodic(10 * time.Minute) }

func options(queue string) river.InsertOpts {
	return river.InsertOpts{Queue: queue, MaxAttempts: MaxAttempts}
}

// periodic makes a job unique by its period, because the clock of periodic jobs starts
// again with each leader.
func periodic(every time.Duration) river.InsertOpts {
	return river.InsertOpts{
		Queue:       QueueMaintenance,
		MaxAttempts: 3,
		UniqueOpts:  river.UniqueOpts{ByPeriod: every},
	}
}
