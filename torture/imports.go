package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

const tortureToken = "torture-only-admin-token"

// imports loads one file twice: by one worker that is left alone, and by two
// that are killed again and again together with Postgres. Both must come to the
// same rows from the same lines and the same rejected rows.
func (h *harness) imports(ctx context.Context) error {
	file, err := writeUsers(h.dir, h.rows)
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
	return h.importAccount(calm, wild)
}

// outcome is what an import came to.
type outcome struct {
	total, imported, rejected, settled int64
	rows, inTable                      int64
	winners, errors                    string // digests, in the order of lines
	stuck, leftover, backwards         int64
	took                               time.Duration
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
	id, err := sendFile(ctx, "http://"+h.procs[0].addr, file)
	if err != nil {
		return outcome{}, err
	}
	watch := &progress{}
	watching, stopWatching := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- h.watchImport(watching, id, watch) }()
	h.killAlong(ctx, kills, watch)
	select {
	case err = <-done:
	case <-time.After(h.patience):
		err = errors.New("the import did not end")
	}
	stopWatching()
	if err != nil {
		return outcome{}, err
	}
	o, err := h.importOutcome(ctx, id)
	o.took, o.backwards = time.Since(began), watch.backwards.Load()
	return o, err
}

// progress is what a poller saw of an import.
type progress struct {
	settled   atomic.Int64
	backwards atomic.Int64
}

// watchImport reads the import as an administrator would until it has ended,
// whatever dies meanwhile.
func (h *harness) watchImport(ctx context.Context, id int64, watch *progress) error {
	client := &http.Client{Timeout: 5 * time.Second}
	for ctx.Err() == nil {
		var got importView
		if status, err := call(ctx, client, http.MethodGet, fmt.Sprintf("http://%s/imports/%d", h.procs[0].addr, id), nil, &got); err == nil && status == http.StatusOK {
			settled := got.RowsImported + got.RowsRejected + got.RowsUpdated + got.RowsSkipped
			if settled < watch.settled.Swap(settled) {
				watch.backwards.Add(1)
			}
			switch got.State {
			case "completed":
				return nil
			case "failed", "cancelled":
				return fmt.Errorf("the import is %s: %s", got.State, got.Error)
			}
		}
		pause(ctx, 50*time.Millisecond)
	}
	return ctx.Err()
}

// killAlong spreads the kills over the rows, so that all fall into the import.
func (h *harness) killAlong(ctx context.Context, kills int, watch *progress) {
	for n := range kills {
		due := int64(h.rows) * int64(n) / int64(kills+1)
		for watch.settled.Load() < due && ctx.Err() == nil {
			pause(ctx, 20*time.Millisecond)
		}
		pause(ctx, time.Duration(h.rand.IntN(200))*time.Millisecond)
		if n%4 == 3 {
			h.killDatabase(ctx)
			continue
		}
		h.kill(h.procs[1+h.rand.IntN(len(h.procs)-1)], 1)
	}
}

func (h *harness) importOutcome(ctx context.Context, id int64) (o outcome, err error) {
	conn, err := pgx.Connect(ctx, h.url)
	if err != nil {
		return o, err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	err = conn.QueryRow(ctx, `
		SELECT rows_total, rows_imported, rows_rejected, rows_imported + rows_updated + rows_skipped + rows_rejected,
			(SELECT count(*) FROM users), (SELECT count(DISTINCT import_line) FROM users WHERE import_id = $1),
			(SELECT md5(string_agg(import_line || ':' || username || ':' || email, ',' ORDER BY import_line)) FROM users),
			(SELECT md5(string_agg(line || ':' || field || ':' || reason, ',' ORDER BY line)) FROM import_errors WHERE import_id = $1),
			(SELECT count(*) FROM river_job WHERE state IN ('discarded', 'running', 'retryable')
				AND kind IN ('plan_import', 'apply_chunk', 'finish_import')),
			(SELECT count(*) FROM import_chunks WHERE done_at IS NULL) + (SELECT count(*) FROM import_deferred)
		FROM imports WHERE id = $1`, id).
		Scan(&o.total, &o.imported, &o.rejected, &o.settled, &o.inTable, &o.rows, &o.winners, &o.errors, &o.stuck, &o.leftover)
	return o, err
}

func (h *harness) importAccount(calm, wild outcome) error {
	fmt.Printf("\n%-34s %12s %12s\n", "", "undisturbed", "killed")
	for _, line := range []struct {
		what       string
		calm, wild any
	}{
		{"rows in the file", calm.total, wild.total},
		{"imported", calm.imported, wild.imported},
		{"rejected", calm.rejected, wild.rejected},
		{"rows in the table", calm.inTable, wild.inTable},
		{"digest of lines that won", calm.winners[:12], wild.winners[:12]},
		{"digest of rejected lines, in order", calm.errors[:12], wild.errors[:12]},
		{"times progress went backwards", calm.backwards, wild.backwards},
		{"stuck jobs", calm.stuck, wild.stuck},
		{"chunks and rows left over", calm.leftover, wild.leftover},
		{"took", calm.took.Round(100 * time.Millisecond), wild.took.Round(100 * time.Millisecond)},
	} {
		fmt.Printf("%-34s %12v %12v\n", line.what, line.calm, line.wild)
	}
	for _, what := range slices.Sorted(maps.Keys(h.killed)) {
		fmt.Printf("%-34s %12s %12d\n", what, "-", h.killed[what])
	}
	var broken []string
	for _, o := range []outcome{calm, wild} {
		for what, is := range map[string]bool{
			"not every row was settled once":  o.total != o.settled || o.total != int64(h.rows),
			"rows in the table differ":        o.inTable != o.imported || o.rows != o.imported,
			"progress went backwards":         o.backwards > 0,
			"something was left over":         o.stuck+o.leftover > 0,
			"nothing was imported or refused": o.imported == 0 || o.rejected == 0,
		} {
			if is {
				broken = append(broken, what)
			}
		}
	}
	if calm.winners != wild.winners {
		broken = append(broken, "other rows won")
	}
	if calm.errors != wild.errors {
		broken = append(broken, "other rows were rejected")
	}
	if len(broken) > 0 {
		return errors.New("the promise is broken: " + strings.Join(broken, "; "))
	}
	fmt.Println("\nevery row was imported once or reported once, the same as undisturbed")
	return nil
}

// writeUsers writes n users; of a hundred lines one is wrong, and three claim
// the name or address of a line far away.
func writeUsers(dir string, n int) (string, error) {
	f, err := os.Create(filepath.Join(dir, "users.csv"))
	if err != nil {
		return "", err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	_, _ = fmt.Fprintln(w, "username,email") // an error stays until Flush
	for i := range n {
		name, address := i, i
		switch i % 100 {
		case 17:
			_, _ = fmt.Fprintf(w, "user%d,no address\n", i)
			continue
		case 42:
			name = (i*7 + 1) % n
		case 43:
			address = (i*11 + 3) % n
		case 44:
			name, address = n-i, (i+n/2)%n
		}
		_, _ = fmt.Fprintf(w, "user%d,user%d@example.org\n", name, address)
	}
	if err := w.Flush(); err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

type importView struct {
	ID           int64  `json:"id"`
	State        string `json:"state"`
	Error        string `json:"error"`
	RowsImported int64  `json:"rows_imported"`
	RowsUpdated  int64  `json:"rows_updated"`
	RowsSkipped  int64  `json:"rows_skipped"`
	RowsRejected int64  `json:"rows_rejected"`
}

func sendFile(ctx context.Context, server, file string) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // read-only
	var got importView
	status, err := call(ctx, http.DefaultClient, http.MethodPost, server+"/imports?kind=users", f, &got)
	if err == nil && status != http.StatusAccepted {
		err = fmt.Errorf("the upload was answered %d: %s", status, got.Error)
	}
	return got.ID, err
}

func call(ctx context.Context, client *http.Client, method, url string, body io.Reader, answer any) (int, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+tortureToken)
	req.Header.Set("Content-Type", "text/csv")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	return resp.StatusCode, json.NewDecoder(resp.Body).Decode(answer)
}
