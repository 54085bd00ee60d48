package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

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
	environ := b.environ("ADMIN_TOKEN=" + benchToken)
	api, err := b.launch(environ, "api")
	if err != nil {
		return 0, err
	}
	defer api.Stop()
	worker, err := b.launch(environ, "worker")
	if err != nil {
		return 0, err
	}
	defer worker.Stop()

	rounds := 3
	if n >= 1_000_000 {
		rounds = 1
	}
	var accepted, whole, copied []float64
	apiMemory, workerMemory := drive.Watch(api.Anonymous), drive.Watch(worker.Anonymous)
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
	ofAPI, ofWorker := apiMemory(), workerMemory()
	what := fmt.Sprintf("%d %s imported per second, ", n, kind)
	b.ratio(what+"from the 202", drive.Median(accepted), drive.Median(copied), "%.0f", -0.5)
	b.ratio(what+"from the first byte", drive.Median(whole), drive.Median(copied), "%.0f", -0.35)
	b.limit(what+"API memory gained (MiB)", ofAPI.Most-ofAPI.Before, 32)
	b.limit(what+"worker memory gained (MiB)", ofWorker.Most-ofWorker.Before, 64)
	return drive.Median(whole), nil
}

const benchToken = "bench-only-admin-token"

// writeImport writes n rows in the form that an import reads.
func writeImport(dir, kind string, n int) (string, error) {
	var text bytes.Buffer
	if kind == "users" {
		text.WriteString("username,email\n")
	} else {
		text.WriteString("user_id,short_code,original_url\n")
	}
	for i := range n {
		if kind == "users" {
			fmt.Fprintf(&text, "user%d,user%d@example.org\n", i, i)
		} else {
			fmt.Fprintf(&text, "%d,code%d,https://example.org/articles/%d?utm_source=import\n", 1+i%1000, i, i)
		}
	}
	path := filepath.Join(dir, kind+".csv")
	return path, os.WriteFile(path, text.Bytes(), 0o600)
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
	f, err := os.Open(file)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close() //nolint:errcheck // read-only
	first := time.Now()
	id, err := drive.Client{Addr: addr, Token: benchToken}.Upload(ctx, kind, f)
	if err != nil {
		return 0, 0, err
	}
	answered := time.Now()
	err = drive.Until(ctx, 15*time.Minute, 5*time.Millisecond, func(ctx context.Context) error {
		imported, err := b.value(ctx, `SELECT rows_imported FROM imports WHERE id = $1 AND state = 'completed'`, id)
		if err == nil && imported != int64(n) {
			err = fmt.Errorf("%d of %d rows are imported", imported, n)
		}
		return err
	})
	return time.Since(answered), time.Since(first), err
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
