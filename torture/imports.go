package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/signpost/signpost/internal/drive"
)

const tortureToken = "torture-only-admin-token"

// imports loads one file twice: by one worker that is left alone, and by two
// that are killed again and again together with Postgres. Both must come to the
// rows from the lines that applying the file in its order gives, and to the same
// rejected rows with the same reasons.
func (h *harness) imports(ctx context.Context) error {
	file, want, err := writeUsers(h.Dir, h.rows)
	if err != nil {
		return err
	}
	calm, err := h.importRun(ctx, "calm", file, 1, 0)
	if err != nil {
		return fmt.Errorf("undisturbed import: %w", err)
	}
	wild, err := h.importRun(ctx, "wild", file, 2, h.kills)
	if err != nil {
		return fmt.Errorf("disturbed import: %w", err)
	}
	return h.importAccount(want, calm, wild)
}

// expectation is the result of applying the file row by row in its order.
type expectation struct {
	imported, rejected int64
	winners, refused   string // digests, see outcome
}

// outcome is the result of an import.
type outcome struct {
	total, imported, rejected, settled int64
	rows, inTable                      int64
	// Digests in the order of lines: of the rows that won, of the lines that were
	// rejected, and of those with field and reason.
	winners, refused, reasons string
	counted                   int64 // rejected rows that the problems of the import count
	stuck, leftover           int64
	reads, backwards          int64
	took                      time.Duration
}

// importRun loads the file into a database of its own.
func (h *harness) importRun(ctx context.Context, name, file string, workers, kills int) (outcome, error) {
	if err := h.makeDatabase(ctx, name); err != nil {
		return outcome{}, err
	}
	roles := append([]string{"api"}, slices.Repeat([]string{"worker"}, workers)...)
	if err := h.launch(roles); err != nil {
		return outcome{}, err
	}
	defer h.stopAll()
	if err := h.waitReady(ctx); err != nil {
		return outcome{}, err
	}
	began := time.Now()
	id, err := sendFile(ctx, "http://"+h.procs[0].Addr, file)
	if err != nil {
		return outcome{}, err
	}
	watch := &progress{ended: make(chan struct{})}
	go func() {
		defer close(watch.ended)
		watch.err = h.watchImport(ctx, id, watch)
	}()
	h.killAlong(ctx, kills, watch)
	<-watch.ended
	if watch.err != nil {
		return outcome{}, watch.err
	}
	o, err := h.importOutcome(ctx, id)
	o.took, o.reads, o.backwards = time.Since(began), watch.reads, watch.backwards
	return o, err
}

// progress is kept by the poller of an import. Fields that are not atomic are read
// once ended is closed.
type progress struct {
	settled          atomic.Int64
	reads, backwards int64
	ended            chan struct{}
	err              error
}

// watchImport reads the import as an administrator would until it has ended,
// whatever dies meanwhile. It gives up on one that stands still for longer than
// the patience allows, so that the run ends whatever becomes of the import.
func (h *harness) watchImport(ctx context.Context, id int64, watch *progress) error {
	var last importView
	for moved := time.Now(); ctx.Err() == nil; drive.Pause(ctx, 25*time.Millisecond) {
		var got importView
		status, err := call(ctx, http.MethodGet, fmt.Sprintf("http://%s/imports/%d", h.procs[0].Addr, id), nil, &got)
		if err == nil && status == http.StatusOK {
			watch.reads++
			if got.fellBehind(last) {
				watch.backwards++
				fmt.Printf("torture: progress went backwards: first %s, then %s\n", last, got)
			}
			if got != last {
				moved, last = time.Now(), got
			}
			watch.settled.Store(got.settled())
			switch got.State {
			case "completed":
				return nil
			case "failed", "cancelled":
				return fmt.Errorf("the import is %s", got)
			}
		}
		if time.Since(moved) > h.patience {
			return fmt.Errorf("nothing moved for %s: the import is %s (last asked: status %d, %s)", h.patience, last, status, fmt.Sprint(err))
		}
	}
	return ctx.Err()
}

// reach waits until so many rows are settled; it reports false when the import
// ended before.
func (p *progress) reach(ctx context.Context, due int64) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-p.ended:
			return false
		default:
		}
		if p.settled.Load() >= due {
			return true
		}
		drive.Pause(ctx, 10*time.Millisecond)
	}
}

// killAlong spreads the kills over the rows, so that all fall into the import.
// Only a kill that met a living process counts.
func (h *harness) killAlong(ctx context.Context, kills int, watch *progress) {
	began := time.Now()
	for n := range kills {
		due := int64(h.rows) * int64(n) / int64(kills+1)
		if !watch.reach(ctx, due) {
			return
		}
		fmt.Printf("torture: kill %d of %d after %s, at %d rows\n", n+1, kills, time.Since(began).Round(time.Second), watch.settled.Load())
		drive.Pause(ctx, time.Duration(h.rand.IntN(100))*time.Millisecond)
		if n%4 == 3 {
			if watch.reach(ctx, due) {
				h.killDatabase(ctx)
			}
			continue
		}
		for watch.reach(ctx, due) {
			if h.procs[1+h.rand.IntN(len(h.procs)-1)].signal(syscall.SIGKILL) {
				h.killed["worker SIGKILL"]++
				break
			}
			drive.Pause(ctx, 10*time.Millisecond)
		}
	}
}

func (h *harness) importOutcome(ctx context.Context, id int64) (o outcome, err error) {
	conn, err := pgx.Connect(ctx, h.url)
	if err != nil {
		return o, err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	// A job that the import no longer names was replaced after its worker had died. River
	// takes it for running for two minutes more; then it finds that out and does nothing.
	err = conn.QueryRow(ctx, `
		SELECT rows_total, rows_imported, rows_rejected, rows_imported + rows_updated + rows_skipped + rows_rejected,
			(SELECT count(*) FROM users), (SELECT count(DISTINCT import_line) FROM users WHERE import_id = $1),
			(SELECT md5(string_agg(import_line || ':' || username || ':' || email, ',' ORDER BY import_line)) FROM users),
			(SELECT md5(string_agg(line::text, ',' ORDER BY line)) FROM import_errors WHERE import_id = $1),
			(SELECT md5(string_agg(line || ':' || field || ':' || reason, ',' ORDER BY line)) FROM import_errors WHERE import_id = $1),
			(SELECT COALESCE(sum(rows), 0) FROM import_problems WHERE import_id = $1 AND outcome = 'rejected'),
			(SELECT count(*) FROM river_job j WHERE j.id = imports.job_id AND j.state IN ('discarded', 'running', 'retryable')),
			(SELECT count(*) FROM import_chunks WHERE done_at IS NULL)
		FROM imports WHERE id = $1`, id).
		Scan(&o.total, &o.imported, &o.rejected, &o.settled, &o.inTable, &o.rows, &o.winners, &o.refused, &o.reasons, &o.counted, &o.stuck, &o.leftover)
	return o, err
}

func (h *harness) importAccount(want expectation, calm, wild outcome) error {
	fmt.Printf("\n%-34s %12s %12s %12s\n", "", "expected", "undisturbed", "killed")
	for _, line := range []struct {
		what             string
		want, calm, wild any
	}{
		{"rows in the file", h.rows, calm.total, wild.total},
		{"imported", want.imported, calm.imported, wild.imported},
		{"rejected", want.rejected, calm.rejected, wild.rejected},
		{"rows in the table", want.imported, calm.inTable, wild.inTable},
		{"digest of rows that won", short(want.winners), short(calm.winners), short(wild.winners)},
		{"digest of rejected lines", short(want.refused), short(calm.refused), short(wild.refused)},
		{"rejected rows among the problems", want.rejected, calm.counted, wild.counted},
		{"digest with field and reason", "-", short(calm.reasons), short(wild.reasons)},
		{"times progress was read", "-", calm.reads, wild.reads},
		{"times it went backwards", 0, calm.backwards, wild.backwards},
		{"stuck jobs", 0, calm.stuck, wild.stuck},
		{"chunks left over", 0, calm.leftover, wild.leftover},
		{"took", "-", calm.took.Round(100 * time.Millisecond), wild.took.Round(100 * time.Millisecond)},
	} {
		fmt.Printf("%-34s %12v %12v %12v\n", line.what, line.want, line.calm, line.wild)
	}
	kills := 0
	for _, what := range slices.Sorted(maps.Keys(h.killed)) {
		fmt.Printf("%-34s %12s %12s %12d\n", what, "-", "-", h.killed[what])
		kills += h.killed[what]
	}
	broken := append(calm.against(want, h.rows, "undisturbed"), wild.against(want, h.rows, "killed")...)
	odd, _ := h.ends.all()
	broken = append(broken, odd...)
	if calm.reasons != wild.reasons {
		broken = append(broken, "rows were rejected for other reasons when killed")
	}
	if len(broken) > 0 {
		return errors.New("the promise is broken: " + strings.Join(broken, "; "))
	}
	// Fewer would show less than was asked for, however well it went.
	if kills != h.kills {
		return fmt.Errorf("the import ended after %d of %d kills: it needs more rows", kills, h.kills)
	}
	fmt.Println("\nevery row was imported once or reported once, as applying the file in its order gives")
	return nil
}

// against lists the differences from the expectation.
func (o outcome) against(want expectation, rows int, run string) (broken []string) {
	for _, check := range []struct {
		what string
		ok   bool
	}{
		{"not every row was settled once", o.total == int64(rows) && o.settled == int64(rows)},
		{"not as many rows were imported as the file gives", o.imported == want.imported},
		{"not as many rows were rejected as the file gives", o.rejected == want.rejected},
		{"the problems do not count every rejected row once", o.counted == o.rejected},
		{"the rows in the table are not those imported", o.inTable == o.imported && o.rows == o.imported},
		{"other rows won", o.winners == want.winners},
		{"other lines were rejected", o.refused == want.refused},
		{"progress went backwards", o.backwards == 0},
		{"something was left over", o.stuck+o.leftover == 0},
	} {
		if !check.ok {
			broken = append(broken, run+": "+check.what)
		}
	}
	return broken
}

func short(digest string) string { return digest[:min(len(digest), 12)] }

type importView struct {
	ID           int64  `json:"id"`
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

func (v importView) String() string {
	return fmt.Sprintf("%s, with %d rows imported, %d rejected, error %q", cmp.Or(v.State, "unknown"), v.RowsImported, v.RowsRejected, v.Error)
}

func sendFile(ctx context.Context, server, file string) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // read-only
	var got importView
	status, err := call(ctx, http.MethodPost, server+"/imports?kind=users", f, &got)
	if err == nil && status != http.StatusAccepted {
		err = fmt.Errorf("the upload was answered %d: %s", status, got.Error)
	}
	return got.ID, err
}

// call sends a request of the administrator and decodes the answer.
func call(ctx context.Context, method, url string, body io.Reader, answer any) (int, error) {
	if body == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, drive.Longest)
		defer cancel()
	}
	status, text, err := drive.Call(ctx, method, url, tortureToken, "text/csv", body)
	if err != nil {
		return 0, err
	}
	return status, json.Unmarshal(text, answer)
}
