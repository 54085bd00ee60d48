package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/drive"
)

const tortureToken = "torture-only-admin-token"

// imports loads a file by two workers that are killed again and again together with
// Postgres. They must come to the rows from the lines that applying the file in its
// order gives, and to the same rejected rows.
func (h *harness) imports(ctx context.Context) error {
	file, want, err := writeUsers(h.Dir, h.rows)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read-only
	if h.url, err = h.Database(ctx, "signpost"); err != nil {
		return err
	}
	if err := h.launch("api", "worker", "worker"); err != nil {
		return err
	}
	if err := h.waitReady(ctx); err != nil {
		return err
	}
	admin := drive.Client{Addr: h.procs[0].Addr, Token: tortureToken}
	id, err := admin.Upload(ctx, "users", f)
	if err != nil {
		return err
	}
	began := time.Now()
	kills, backwards, err := h.killAlong(ctx, admin, id)
	if err != nil {
		return err
	}
	took := time.Since(began)
	h.stopAll()
	return h.importAccount(ctx, id, want, kills, backwards, took)
}

// killAlong reads the import as an administrator would until it is completed, whatever
// dies meanwhile, and spreads the kills over its rows. It returns how many kills met a
// living process, and how often the progress went backwards. It gives up on an import
// that stands still for longer than the patience allows.
func (h *harness) killAlong(ctx context.Context, admin drive.Client, id int64) (kills, backwards int, err error) {
	var now, last importView
	for moved := time.Now(); time.Since(moved) < patience && ctx.Err() == nil; drive.Pause(ctx, 25*time.Millisecond) {
		if err = admin.Get(ctx, fmt.Sprintf("/imports/%d", id), &now); err != nil {
			continue // it may be because of a kill
		}
		if now.fellBehind(last) {
			backwards++
			fmt.Printf("torture: progress went backwards: first %+v, then %+v\n", last, now)
		}
		if now != last {
			moved, last = time.Now(), now
		}
		switch now.State {
		case "completed":
			return kills, backwards, nil
		case "failed", "cancelled":
			return kills, backwards, fmt.Errorf("the import ended: %+v", now)
		}
		due := int64(h.rows) * int64(kills) / int64(h.kills+1)
		if kills < h.kills && now.settled() >= due && h.killForImport(ctx, kills) {
			kills++
			fmt.Printf("torture: kill %d of %d at %d rows\n", kills, h.kills, now.settled())
		}
	}
	return kills, backwards, fmt.Errorf("nothing moved for %s: the import was %+v when it last answered: %w", patience, last, err)
}

// killForImport kills Postgres, every fourth time, or a worker. It reports whether there
// was a process to kill.
func (h *harness) killForImport(ctx context.Context, n int) bool {
	drive.Pause(ctx, rand.N(100*time.Millisecond))
	if n%4 == 3 {
		h.killDatabase(ctx)
		return true
	}
	return h.kill(h.procs[1+n%2], syscall.SIGKILL)
}

// importAccount compares the import with what applying the file row by row gives.
func (h *harness) importAccount(ctx context.Context, id int64, want expectation, kills, backwards int, took time.Duration) error {
	var total, imported, rejected, problems, inTable, lines, stuck, leftover int64
	var winners, refused string
	// A job that the import no longer names was replaced after its worker had died. River
	// takes it for running for two minutes more; then it finds that out and does nothing.
	err := drive.With(ctx, h, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `
			SELECT rows_total, rows_imported, rows_rejected,
				(SELECT count(*) FROM users), (SELECT count(DISTINCT import_line) FROM users WHERE import_id = $1),
				(SELECT md5(string_agg(import_line || ':' || username || ':' || email, ',' ORDER BY import_line)) FROM users),
				(SELECT md5(string_agg(line || ':' || field || ':' || kind, ',' ORDER BY line)) FROM import_errors WHERE import_id = $1),
				(SELECT COALESCE(sum(rows), 0) FROM import_problems WHERE import_id = $1 AND outcome = 'rejected'),
				(SELECT count(*) FROM river_job j WHERE j.id = imports.job_id AND j.state IN ('discarded', 'running', 'retryable')),
				(SELECT count(*) FROM import_chunks WHERE done_at IS NULL)
			FROM imports WHERE id = $1`, id).
			Scan(&total, &imported, &rejected, &inTable, &lines, &winners, &refused, &problems, &stuck, &leftover)
	})
	if err != nil {
		return err
	}
	same := func(what string, got, want any) finding {
		return finding{what, fmt.Sprintf("%v of %v", got, want), got != want}
	}
	err = h.report([]finding{
		same("rows in the file", total, int64(h.rows)),
		same("imported", imported, want.imported),
		same("rejected", rejected, want.rejected),
		same("rejected rows among the problems", problems, want.rejected),
		same("rows in the table", inTable, want.imported),
		same("lines that they are from", lines, want.imported),
		same("digest of rows that won", winners, want.winners),
		same("digest of rejected lines, with reasons", refused, want.refused),
		same("times that progress went backwards", backwards, 0),
		same("stuck jobs", stuck, int64(0)),
		same("chunks left over", leftover, int64(0)),
		// Fewer would show less than was asked for: then the file needs more rows.
		same("kills", kills, h.kills),
		{"took", took.Round(100 * time.Millisecond), false},
	})
	if err != nil {
		return err
	}
	fmt.Println("\nevery row was imported once or reported once, as applying the file in its order gives")
	return nil
}

type importView struct {
	State        string `json:"state"`
	Error        string `json:"error"`
	RowsImported int64  `json:"rows_imported"`
	RowsUpdated  int64  `json:"rows_updated"`
	RowsSkipped  int64  `json:"rows_skipped"`
	RowsRejected int64  `json:"rows_rejected"`
}

func (v importView) settled() int64 {
	return v.RowsImported + v.RowsUpdated + v.RowsSkipped + v.RowsRejected
}

// fellBehind reports whether a counter is lower than it was.
func (v importView) fellBehind(before importView) bool {
	return v.RowsImported < before.RowsImported || v.RowsUpdated < before.RowsUpdated ||
		v.RowsSkipped < before.RowsSkipped || v.RowsRejected < before.RowsRejected
}
