package worker

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/jobs"
	"github.com/signpost/signpost/internal/rollup"
	"github.com/signpost/signpost/queries"
)

// undoRemove is the step of an undo that removes rows. Before it, an undo drops the
// chunks that were not applied, as after a failure. The previous release has more steps
// before it: an undo that it began does the first step again.
const undoRemove = "remove"

// undoPiece is how many rows one transaction of an undo removes.
const undoPiece = 1000

// undoImport removes the rows that an import created and that nobody has changed,
// clicked or used since.
//
// It works in steps, each in file order and in pieces. A piece is a transaction that
// locks the import and stores there how far it came. So it may be killed at any moment,
// and may run twice at once: the second run continues where the first one is.
type undoImport struct {
	river.WorkerDefaults[jobs.UndoImport]
	deps *deps
}

// Work implements [river.Worker].
func (w *undoImport) Work(ctx context.Context, job *river.Job[jobs.UndoImport]) error {
	for turnEnds := time.Now().Add(w.deps.importTurn); ; {
		row, err := w.deps.findImport(ctx, job.Args.ImportID)
		if err != nil {
			return err
		}
		if row.State != jobs.ImportUndoing {
			return nil
		}
		if or(row.UndoStep, "") != undoRemove {
			q := queries.New(w.deps.pool)
			for _, remove := range []dropper{q.DropImportWork, q.DropImportNotices} {
				if err := drop(ctx, remove, row.ID, turnEnds); err != nil {
					return err
				}
			}
		}
		if err := w.step(ctx, job, row); err != nil {
			return err
		}
		if time.Now().After(turnEnds) {
			return river.JobSnooze(0)
		}
	}
}

// undone is the result of a piece of an undo.
type undone struct {
	line          int64 // up to which rows are removed
	removed, kept int64
	all           bool // no row is left to be removed
}

// step does one piece. The locked import says which one, because row may be out of
// date.
func (w *undoImport) step(ctx context.Context, job *river.Job[jobs.UndoImport], row queries.Import) error {
	var did undone
	err := w.deps.inTx(ctx, func(tx pgx.Tx, q *queries.Queries) error {
		did = undone{}
		if or(row.UndoStep, "") != undoRemove {
			// Chunks are locked before the import, as when they are applied, so this
			// waits for those that are being applied.
			if err := q.StopImportChunks(ctx, row.ID); err != nil {
				return fmt.Errorf("stop chunks: %w", err)
			}
		}
		locked, err := q.LockImport(ctx, row.ID)
		if err != nil {
			return fmt.Errorf("lock import: %w", err)
		}
		if locked.State != jobs.ImportUndoing || or(locked.UndoStep, "") != or(row.UndoStep, "") {
			return nil // another run of this job has done it
		}
		if err := actAs(ctx, q, row.ID); err != nil {
			return err
		}
		if did, err = w.do(ctx, q, locked); err != nil {
			return err
		}
		return w.note(ctx, tx, q, job, did)
	})
	if err == nil {
		w.account(ctx, row, did)
	}
	return err
}

// actAs makes the transaction act as the import, so that rows which the import made do
// not count as changed by somebody else.
func actAs(ctx context.Context, q *queries.Queries, importID int64) error {
	if err := q.ActAsImport(ctx, strconv.FormatInt(importID, 10)); err != nil {
		return fmt.Errorf("act as import: %w", err)
	}
	return nil
}

func (w *undoImport) note(ctx context.Context, tx pgx.Tx, q *queries.Queries, job *river.Job[jobs.UndoImport], did undone) error {
	step := undoRemove
	err := q.MoveUndo(ctx, queries.MoveUndoParams{
		ID: job.Args.ImportID, Step: &step, Line: did.line, Removed: did.removed, Kept: did.kept,
	})
	if err != nil {
		return fmt.Errorf("note how far the undo is: %w", err)
	}
	if !did.all {
		return nil
	}
	if err := q.FinishUndo(ctx, job.Args.ImportID); err != nil {
		return fmt.Errorf("finish undo: %w", err)
	}
	return complete(ctx, tx, job)
}

// do does the first step, or removes the next rows, except for those that are kept.
func (w *undoImport) do(ctx context.Context, q *queries.Queries, row queries.Import) (undone, error) {
	if or(row.UndoStep, "") != undoRemove {
		return undone{}, dropTraces(ctx, q, row.ID)
	}
	switch csvimport.Kind(row.Kind) {
	case csvimport.KindUsers:
		return w.removeUsers(ctx, q, row)
	case csvimport.KindLinks:
		return w.removeLinks(ctx, q, row)
	default:
		return w.removeEvents(ctx, q, row)
	}
}

// dropTraces removes the remains of the import's work, and the notices of its rows.
func dropTraces(ctx context.Context, q *queries.Queries, importID int64) error {
	for _, remove := range []dropper{q.DropImportWork, q.DropImportNotices} {
		if err := drop(ctx, remove, importID, time.Time{}); err != nil {
			return err
		}
	}
	if err := q.DropNoticeCounts(ctx, importID); err != nil {
		return fmt.Errorf("drop how many rows had a notice: %w", err)
	}
	if err := q.DropImportKept(ctx, importID); err != nil {
		return fmt.Errorf("drop the rows that an earlier undo kept: %w", err)
	}
	return nil
}

// madeRow is a row that an import made.
type madeRow = queries.LockImportedURLsRow

// removeLinks removes links. Those that were changed or clicked are kept as they are.
func (w *undoImport) removeLinks(ctx context.Context, q *queries.Queries, row queries.Import) (undone, error) {
	made, err := q.LockImportedURLs(ctx, row.ID, row.UndoLine, w.deps.undoPiece)
	if err != nil {
		return undone{}, fmt.Errorf("lock links: %w", err)
	}
	clicked, err := rollup.FindClicked(ctx, q, idsOf(made))
	if err != nil {
		return undone{}, fmt.Errorf("look for clicked links: %w", err)
	}
	gone, kept := sortOut(row.ID, made, clicked, "clicked")
	// The previous release switches links off before it removes them.
	if err := q.SwitchOnURLs(ctx, kept.RowIds); err != nil {
		return undone{}, fmt.Errorf("switch links on again: %w", err)
	}
	if err := q.DeleteURLs(ctx, gone); err != nil {
		return undone{}, fmt.Errorf("remove links: %w", err)
	}
	return w.keep(ctx, q, row, made, kept)
}

// removeUsers removes users. Those that somebody changed, or that own links, are kept.
func (w *undoImport) removeUsers(ctx context.Context, q *queries.Queries, row queries.Import) (undone, error) {
	locked, err := q.LockImportedUsers(ctx, row.ID, row.UndoLine, w.deps.undoPiece)
	if err != nil {
		return undone{}, fmt.Errorf("lock users: %w", err)
	}
	made := make([]madeRow, len(locked))
	for i, u := range locked {
		made[i] = madeRow(u)
	}
	// Nobody can give them a link once they are locked, so this is asked after that.
	owners, err := q.FindUsersWithURLs(ctx, idsOf(made))
	if err != nil {
		return undone{}, fmt.Errorf("look for users with links: %w", err)
	}
	gone, kept := sortOut(row.ID, made, owners, "owns_links")
	if err := q.DeleteUsers(ctx, gone); err != nil {
		return undone{}, fmt.Errorf("remove users: %w", err)
	}
	return w.keep(ctx, q, row, made, kept)
}

func idsOf(made []madeRow) []int64 {
	ids := make([]int64, len(made))
	for i, r := range made {
		ids[i] = r.ID
	}
	return ids
}

// sortOut separates rows that can be removed from those that are kept because somebody
// changed them or because they are in use.
func sortOut(importID int64, made []madeRow, inUse []int64, why string) (gone []int64, kept queries.InsertImportKeptParams) {
	used := make(map[int64]bool, len(inUse))
	for _, id := range inUse {
		used[id] = true
	}
	gone, kept = []int64{}, queries.InsertImportKeptParams{ImportID: importID, RowIds: []int64{}}
	for _, r := range made {
		reason := why
		switch {
		case r.Touched:
			reason = "changed"
		case !used[r.ID]:
			gone = append(gone, r.ID)
			continue
		}
		kept.Lines = append(kept.Lines, r.Line)
		kept.RowIds = append(kept.RowIds, r.ID)
		kept.Reasons = append(kept.Reasons, reason)
	}
	return gone, kept
}

// keep stores which rows are kept.
func (w *undoImport) keep(ctx context.Context, q *queries.Queries, row queries.Import, made []madeRow, kept queries.InsertImportKeptParams) (undone, error) {
	if len(made) == 0 {
		return undone{line: row.UndoLine, all: true}, nil
	}
	if err := q.InsertImportKept(ctx, kept); err != nil {
		return undone{}, fmt.Errorf("note rows that are kept: %w", err)
	}
	n := int64(len(kept.RowIds))
	return undone{line: made[len(made)-1].Line, removed: int64(len(made)) - n, kept: n}, nil
}

// removeEvents removes events; exactly those are taken out of the statistics.
func (w *undoImport) removeEvents(ctx context.Context, q *queries.Queries, row queries.Import) (undone, error) {
	last, err := q.FindImportedEvents(ctx, row.ID, row.UndoLine, w.deps.undoPiece)
	if err != nil {
		return undone{}, fmt.Errorf("look for events: %w", err)
	}
	if last == 0 {
		return undone{line: row.UndoLine, all: true}, nil
	}
	removed, err := q.DeleteImportedEvents(ctx, row.ID, row.UndoLine, last)
	if err != nil {
		return undone{}, fmt.Errorf("remove events: %w", err)
	}
	var counts rollup.Changes
	for _, e := range removed {
		if e.EventType == eventClicked {
			counts.Remove(rollup.Event{
				URLID: e.URLID, UserID: e.UserID, At: e.OccurredAt, Kind: e.Kind, Country: e.Country,
				Referrer: e.ReferrerHost, Browser: e.Browser, System: e.OS, Device: e.Device, Trigger: e.Trigger,
				First: e.Firsts&rollup.FirstOfLink != 0, FirstOfAll: e.Firsts&rollup.FirstOfAll != 0,
			})
		}
	}
	return undone{line: last, removed: int64(len(removed))}, counts.Apply(ctx, q)
}

// account updates metrics and log after the commit.
func (w *undoImport) account(ctx context.Context, row queries.Import, did undone) {
	w.deps.metrics.importUndone.WithLabelValues(row.Kind, "removed").Add(float64(did.removed))
	w.deps.metrics.importUndone.WithLabelValues(row.Kind, "kept").Add(float64(did.kept))
	if did.all {
		w.deps.metrics.importsFinished.WithLabelValues(row.Kind, jobs.ImportUndone).Inc()
		w.deps.log.InfoContext(ctx, "import undone", slog.Int64("import_id", row.ID), slog.String("kind", row.Kind))
	}
}
