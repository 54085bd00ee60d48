package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/klauspost/compress/zstd"

	"github.com/signpost/signpost/internal/drive"
	"github.com/signpost/signpost/internal/pgserver"
)

// imports compares an import by one worker with psql's \copy of the same file
// into a logged staging table and INSERT ... SELECT ... ON CONFLICT DO NOTHING
// from there into the same table, in rows per second.
func (b *bench) imports(ctx context.Context) error {
	for _, kind := range []string{"users", "urls"} {
		var sizes []int
		var rates []float64
		for _, n := range []int{10_000, 100_000, 1_000_000} {
			rate, err := b.importOf(ctx, kind, b.scale(n))
			if err != nil {
				return fmt.Errorf("%d %s: %w", n, kind, err)
			}
			sizes, rates = append(sizes, b.scale(n)), append(rates, rate)
		}
		// The cost of a row is flat when many rows, counted whole from the first byte
		// to the last row, come in at 0.7 times the rate of few, or faster.
		for few := range 2 {
			b.ratio(fmt.Sprintf("flat cost of a row: %s per second, %d rows against %d", kind, sizes[2], sizes[few]),
				rates[2], rates[few], "%.0f", -0.7)
		}
	}
	return nil
}

// importOf returns the rate from the first byte on.
func (b *bench) importOf(ctx context.Context, kind string, n int) (float64, error) {
	file, err := writeImport(b.Dir, kind, n)
	if err != nil {
		return 0, err
	}
	defer os.Remove(file) //nolint:errcheck // the folder goes anyway
	api, worker, stop, err := b.launchImporters()
	if err != nil {
		return 0, err
	}
	defer stop()

	rounds := 3
	if n >= 1_000_000 {
		rounds = 1
	}
	var accepted, whole, copied []float64
	peaks, err := watchPeaks(api, worker)
	if err != nil {
		return 0, err
	}
	for range rounds {
		if err := b.emptyFor(ctx, kind); err != nil {
			return 0, err
		}
		afterAnswer, afterFirstByte, err := b.send(ctx, api.Addr, kind, file, n)
		if err != nil {
			return 0, err
		}
		accepted = append(accepted, float64(n)/afterAnswer.Seconds())
		whole = append(whole, float64(n)/afterFirstByte.Seconds())
		if err := b.emptyFor(ctx, kind); err != nil {
			return 0, err
		}
		took, err := b.copyAndInsert(ctx, kind, file)
		if err != nil {
			return 0, err
		}
		copied = append(copied, float64(n)/took.Seconds())
	}
	memory := peaks()
	what := fmt.Sprintf("%d %s imported per second, ", n, kind)
	b.ratio(what+"from the 202", median(accepted), median(copied), "%.0f", -0.5)
	b.ratio(what+"from the first byte", median(whole), median(copied), "%.0f", -0.35)
	b.limit(what+"API memory gained (MiB)", memory[0].gain(), 32)
	b.limit(what+"worker memory gained (MiB)", memory[1].gain(), 64)
	return median(whole), nil
}

// upload measures how much memory an import of a gigabyte adds to the api and to the
// worker. Other ways to upload the file are measured without a worker, for which all
// are the same.
func (b *bench) upload(ctx context.Context) error {
	const rowLength = 100
	n := b.scale(1 << 30 / rowLength)
	file, err := writeFile(b.Dir, "users", "username,email", n, func(w *bufio.Writer, i int) {
		_, _ = fmt.Fprintf(w, "user-with-a-long-name-%022d,somebody-with-a-long-address-%08d@mail.example.org\n", i, i)
	})
	if err != nil {
		return err
	}
	defer os.Remove(file) //nolint:errcheck // the folder goes anyway
	if err := b.uploadWhole(ctx, file, n); err != nil {
		return err
	}
	for _, as := range []upload{{coding: "gzip"}, {coding: "zstd"}, {key: "once"}} {
		if err := b.uploadOnly(ctx, file, n, as); err != nil {
			return fmt.Errorf("%s: %w", as, err)
		}
	}
	return nil
}

func (b *bench) uploadWhole(ctx context.Context, file string, n int) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	api, worker, stop, err := b.launchImporters()
	if err != nil {
		return err
	}
	defer stop()
	if err := b.emptyFor(ctx, "users"); err != nil {
		return err
	}
	peaks, err := watchPeaks(api, worker)
	if err != nil {
		return err
	}
	afterAnswer, afterFirstByte, err := b.send(ctx, api.Addr, "users", file, n)
	if err != nil {
		return err
	}
	memory := peaks()
	what := fmt.Sprintf("%d MB, %d users, imported in %s (received in %s), ", info.Size()/1_000_000, n,
		afterFirstByte.Round(time.Second), (afterFirstByte - afterAnswer).Round(time.Second))
	b.limit(what+"API memory gained (MiB)", memory[0].gain(), 32)
	b.limit(what+"worker memory gained (MiB)", memory[1].gain(), 64)
	return b.emptyFor(ctx, "users")
}

// uploadOnly has the file received by an API of its own and throws it away.
func (b *bench) uploadOnly(ctx context.Context, file string, n int, as upload) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if err := b.emptyFor(ctx, "users"); err != nil {
		return err
	}
	api, err := b.launch("signpost", b.environ("ADMIN_TOKEN="+benchToken), "api")
	if err != nil {
		return err
	}
	defer api.Stop()
	peaks, err := watchPeaks(api)
	if err != nil {
		return err
	}
	start := time.Now()
	id, err := post(ctx, api.Addr, "users", file, as)
	took := time.Since(start)
	memory := peaks()[0]
	if err != nil {
		return err
	}
	if rows, err := b.value(ctx, `SELECT rows_total FROM imports WHERE id = $1`, id); err != nil || rows != int64(n) {
		return fmt.Errorf("%d rows came of %d %w", rows, n, err)
	}
	b.limit(fmt.Sprintf("%d MB uploaded %s, received in %s, API memory gained (MiB)", info.Size()/1_000_000, as, took.Round(time.Second)),
		memory.gain(), 32)
	return b.sql(ctx, "DELETE FROM river_job; TRUNCATE imports CASCADE")
}

// launchImporters starts an api and a worker.
func (b *bench) launchImporters() (api, worker *drive.Process, stop func(), err error) {
	environ := b.environ("ADMIN_TOKEN=" + benchToken)
	if api, err = b.launch("signpost", environ, "api"); err != nil {
		return nil, nil, nil, err
	}
	if worker, err = b.launch("signpost", environ, "worker"); err != nil {
		api.Stop()
		return nil, nil, nil, err
	}
	return api, worker, func() { worker.Stop(); api.Stop() }, nil
}

const benchToken = "bench-only-admin-token"

// writeImport writes n rows in the form that an import reads.
func writeImport(dir, kind string, n int) (string, error) {
	if kind == "users" {
		return writeFile(dir, kind, "username,email", n, func(w *bufio.Writer, i int) {
			_, _ = fmt.Fprintf(w, "user%d,user%d@example.org\n", i, i)
		})
	}
	return writeFile(dir, kind, "user_id,short_code,original_url", n, func(w *bufio.Writer, i int) {
		_, _ = fmt.Fprintf(w, "%d,code%d,https://example.org/articles/%d?utm_source=import\n", 1+i%1000, i, i)
	})
}

func writeFile(dir, kind, header string, n int, line func(w *bufio.Writer, i int)) (string, error) {
	f, err := os.Create(filepath.Join(dir, kind+".csv"))
	if err != nil {
		return "", err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	_, _ = fmt.Fprintln(w, header) // an error stays until Flush
	for i := range n {
		line(w, i)
	}
	if err := w.Flush(); err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// emptyFor brings the tables into the state with which both sides begin.
func (b *bench) emptyFor(ctx context.Context, kind string) error {
	statements := `TRUNCATE users, urls, imports, link_changes RESTART IDENTITY CASCADE`
	if kind == "urls" {
		statements += `; INSERT INTO users (id, username, email)
			SELECT n, 'owner' || n, 'owner' || n || '@example.org' FROM generate_series(1, 1000) n`
	}
	return b.sql(ctx, statements+"; VACUUM ANALYZE users; VACUUM ANALYZE urls; CHECKPOINT")
}

// send uploads the file and waits until the import is completed. It returns the
// time since the answer and since the first byte was sent.
func (b *bench) send(ctx context.Context, addr, kind, file string, n int) (afterAnswer, afterFirstByte time.Duration, err error) {
	first := time.Now()
	id, err := post(ctx, addr, kind, file, upload{})
	if err != nil {
		return 0, 0, err
	}
	answered := time.Now()
	if err := b.untilImported(ctx, id, n); err != nil {
		return 0, 0, err
	}
	return time.Since(answered), time.Since(first), nil
}

// upload is how a file is sent: packed as coding, under an Idempotency-Key.
type upload struct{ coding, key string }

func (u upload) String() string {
	if u.key != "" {
		return "under an Idempotency-Key"
	}
	return "as " + u.coding
}

// post uploads the file and returns the import's id.
func post(ctx context.Context, addr, kind, file string, as upload) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // read-only
	body, err := packed(f, as.coding)
	if err != nil {
		return 0, err
	}
	defer body.Close() //nolint:errcheck // read-only
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/imports?kind="+kind, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+benchToken)
	req.Header.Set("Content-Type", "text/csv")
	if as.coding != "" {
		req.Header.Set("Content-Encoding", as.coding)
	}
	if as.key != "" {
		req.Header.Set("Idempotency-Key", as.key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	var got struct{ ID int64 }
	if answer, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusAccepted || json.Unmarshal(answer, &got) != nil {
		return 0, fmt.Errorf("upload: %s %s %w", resp.Status, answer, err)
	}
	return got.ID, nil
}

// packed packs a file while it is read. Closing it ends the packing.
func packed(file io.Reader, coding string) (io.ReadCloser, error) {
	out, in := io.Pipe()
	var w io.WriteCloser
	var err error
	switch coding {
	case "":
		return io.NopCloser(file), nil
	case "gzip":
		w, err = gzip.NewWriterLevel(in, gzip.BestSpeed)
	case "zstd": // with the largest window that is accepted, which takes most to unpack
		w, err = zstd.NewWriter(in, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(8<<20), zstd.WithEncoderConcurrency(1))
	default:
		err = fmt.Errorf("no packing is called %q", coding)
	}
	if err != nil {
		return nil, err
	}
	go func() {
		_, err := io.Copy(w, file)
		in.CloseWithError(errors.Join(err, w.Close()))
	}()
	return out, nil
}

func (b *bench) untilImported(ctx context.Context, id int64, n int) error {
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // done with it
	for deadline := time.Now().Add(15 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var state string
		var imported int
		if err := conn.QueryRow(ctx, `SELECT state, rows_imported FROM imports WHERE id = $1`, id).Scan(&state, &imported); err != nil {
			return err
		}
		switch {
		case state == "completed" && imported == n:
			return nil
		case state == "completed" || state == "failed" || time.Now().After(deadline):
			return fmt.Errorf("the import is %s with %d of %d rows", state, imported, n)
		}
	}
}

// copyAndInsert loads the file as a person with psql would.
func (b *bench) copyAndInsert(ctx context.Context, kind, file string) (time.Duration, error) {
	bin, err := pgserver.FindBinaries()
	if err != nil {
		return 0, err
	}
	columns, types := "username, email", "username text, email text"
	if kind == "urls" {
		columns, types = "user_id, short_code, original_url", "user_id bigint, short_code text, original_url text"
	}
	if err := b.sql(ctx, "DROP TABLE IF EXISTS staging; CREATE TABLE staging ("+types+"); CHECKPOINT"); err != nil {
		return 0, err
	}
	defer b.sql(ctx, "DROP TABLE staging") //nolint:errcheck // dropped at the next call otherwise
	psql := exec.CommandContext(ctx, filepath.Join(bin, "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", b.url,
		"-c", fmt.Sprintf(`\copy staging (%s) from '%s' with (format csv, header)`, columns, file),
		"-c", fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM staging ON CONFLICT DO NOTHING", kind, columns, columns))
	start := time.Now()
	if out, err := psql.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("psql: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return time.Since(start), nil
}

// peak is the anonymous memory of a process before and at most.
type peak struct{ before, most int64 }

func (p peak) gain() int64 { return p.most - p.before }

// watchPeaks reads the anonymous memory of the processes now and then; the
// function that it returns ends that and returns the peak of each.
func watchPeaks(procs ...*drive.Process) (func() []peak, error) {
	peaks := make([]peak, len(procs))
	for i, p := range procs {
		n, err := p.Anonymous()
		if err != nil {
			return nil, err
		}
		peaks[i] = peak{n, n}
	}
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			for i, p := range procs {
				if n, err := p.Anonymous(); err == nil {
					peaks[i].most = max(peaks[i].most, n)
				}
			}
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	return func() []peak {
		close(done)
		watching.Wait()
		return peaks
	}, nil
}
