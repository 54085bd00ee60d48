// Bench measures Signpost against the simplest thing that could do the same,
// both sides in one run, and prints one table of ratios.
//
//	go run ./bench [-only redirect,disk,outage,ingest,uncached,memory,redis,import,stats] [-clicks 10000000]
//
// Load comes from this process; other processes are measured. CPU time is the time
// that the operating system counted for the server, because throughput on a shared
// machine drifts. Everything is on loopback.
//
// A measure that fails has a row that says so, and the others still run. It
// exits with 1 if one failed or a goal was missed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/signpost/signpost/internal/drive"
)

type bench struct {
	*drive.Stage
	url   string
	db    *pgxpool.Pool // of url
	quick bool
	// clicks is how many the measure stats fills a database with.
	clicks int
	rows   []row
	// unrecorded redirects of the measure that runs have no click.
	unrecorded int
}

// row is one line of the table.
type row struct {
	what, ours, theirs, ratio, goal string
	ok, failed                      bool
}

func main() {
	only := flag.String("only", "", "which measures, separated by commas (default all but import and stats)")
	clicks := flag.Int("clicks", 10_000_000, "how many clicks the measure stats fills a database with")
	quick := flag.Bool("quick", false, "a tenth of the work, to see that it runs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, *only, *quick, *clicks)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, quick bool, clicks int) (err error) {
	// Enough memory for the links of every measure: reading files is not measured.
	stage, err := drive.NewStage(ctx, "bench", "1536MB")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Remove(context.WithoutCancel(ctx), false)) }()
	b := &bench{Stage: stage, quick: quick, clicks: clicks}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	defer b.db.Close()
	err = b.measureAll(ctx, only)
	return errors.Join(err, b.print())
}

// measureAll runs the measures wanted, also when an earlier one failed.
func (b *bench) measureAll(ctx context.Context, only string) error {
	measures := []struct {
		name string
		run  func(context.Context) error
	}{
		{"redirect", b.redirect},
		{"disk", b.disk},
		{"outage", b.outage},
		{"ingest", b.ingest},
		{"uncached", b.uncached},
		{"memory", b.memory},
		{"redis", b.redis},
		{"import", b.imports},
		{"stats", b.statistics},
	}
	var errs []error
	for _, m := range measures {
		if only == "" && (m.name == "import" || m.name == "stats") || only != "" && !slices.Contains(strings.Split(only, ","), m.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s ...\n", m.name)
		start := time.Now()
		b.unrecorded = 0
		if err := m.run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
			b.rows = append(b.rows, row{what: m.name, ours: "-", theirs: "-", ratio: "-", goal: "-", failed: true})
			fmt.Fprintf(os.Stderr, "bench: %s failed: %v\n", m.name, err)
		}
		fmt.Fprintf(os.Stderr, "bench: %s took %s\n", m.name, time.Since(start).Round(time.Second))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func (b *bench) prepare(ctx context.Context) (err error) {
	if err := b.Build(ctx, filepath.Join(b.Dir, "baseline"), "./bench/baseline"); err != nil {
		return err
	}
	if b.url, err = b.Database(ctx, "signpost"); err != nil {
		return err
	}
	if b.db, err = pgxpool.New(ctx, b.url); err != nil {
		return err
	}
	if err := b.sql(ctx, addUser); err != nil {
		return err
	}
	return b.makeLinks(ctx, 10_000)
}

const addUser = `INSERT INTO users (id, username, email) VALUES (1, 'bench', 'bench@example.org')`

// makeLinks leaves n links: link0, link1 and so on.
func (b *bench) makeLinks(ctx context.Context, n int) error {
	return b.sql(ctx, "TRUNCATE urls; "+addLinks(n))
}

func addLinks(n int) string {
	return fmt.Sprintf(`
		INSERT INTO urls (user_id, short_code, original_url)
		SELECT 1, 'link' || n, 'https://example.org/a/page/' || n FROM generate_series(0, %d) n;
		VACUUM ANALYZE urls`, n-1)
}

// sql runs statements one after another.
func (b *bench) sql(ctx context.Context, statements string) error {
	return sqlOn(ctx, b.db, statements)
}

func sqlOn(ctx context.Context, db *pgxpool.Pool, statements string) error {
	for statement := range strings.SplitSeq(statements, ";") {
		if _, err := db.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", strings.TrimSpace(statement), err)
		}
	}
	return nil
}

// value reads one number.
func (b *bench) value(ctx context.Context, query string, args ...any) (n int64, err error) {
	err = b.db.QueryRow(ctx, query, args...).Scan(&n)
	return n, err
}

// launch starts an api or a worker.
func (b *bench) launch(environ []string, role string) (*drive.Process, error) {
	return drive.Launch(b.Dir, environ, b.Binary, role)
}

// environ is the configuration of a process with a spool of its own.
func (b *bench) environ(extra ...string) []string {
	spool, err := os.MkdirTemp(b.Dir, "spool-")
	if err != nil {
		panic(err)
	}
	return append([]string{"DATABASE_URL=" + b.url, "SPOOL_DIR=" + spool, "SPOOL_MAX_BYTES=4GiB", "SPOOL_KEEP=0s"}, extra...)
}

// scale is n, or a tenth in a quick run.
func (b *bench) scale(n int) int {
	if b.quick {
		return n / 10
	}
	return n
}

// ratio adds a line: ours against theirs, which has to be at most (or, with a
// negative goal, at least) so many times.
func (b *bench) ratio(what string, ours, theirs float64, format string, goal float64) {
	b.compare(what, ours, theirs, ours/theirs, format, goal)
}

// ratios is ratio for measurements in pairs: it shows the medians of both
// sides, and the median of the ratios of the pairs, which is not their quotient.
func (b *bench) ratios(what string, ours, theirs []float64, format string, goal float64) {
	each := make([]float64, len(ours))
	for i := range ours {
		each[i] = ours[i] / theirs[i]
	}
	b.compare(what, drive.Median(ours), drive.Median(theirs), drive.Median(each), format, goal)
}

func (b *bench) compare(what string, ours, theirs, r float64, format string, goal float64) {
	l := row{what: what, ours: fmt.Sprintf(format, ours), theirs: fmt.Sprintf(format, theirs), ratio: fmt.Sprintf("%.2f", r)}
	if goal < 0 {
		l.goal, l.ok = fmt.Sprintf(">= %.2f", -goal), r >= -goal
	} else {
		l.goal, l.ok = fmt.Sprintf("<= %.2f", goal), r <= goal
	}
	b.add(l)
}

// limit adds a line: a size that has to be at most so many MiB.
func (b *bench) limit(what string, bytes, goal int64) {
	b.add(row{
		what: what, ours: fmt.Sprintf("%.1f", float64(bytes)/(1<<20)), theirs: "-", ratio: "-",
		goal: fmt.Sprintf("<= %d", goal), ok: bytes <= goal<<20,
	})
}

// add adds a line. A redirect that does not record its click is no redirect:
// with one of them in the measure no goal is met.
func (b *bench) add(l row) {
	if b.unrecorded > 0 {
		l.what, l.ok = fmt.Sprintf("%s (%d CLICKS NOT RECORDED)", l.what, b.unrecorded), false
	}
	b.rows = append(b.rows, l)
	fmt.Fprintf(os.Stderr, "bench:   %s: %s against %s, ratio %s (%s)\n", l.what, l.ours, l.theirs, l.ratio, l.goal)
}

// print writes the table. It is an error that a goal was missed.
func (b *bench) print() error {
	missed := 0
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "\nMEASURE\tOURS\tAGAINST\tRATIO\tGOAL\t")
	for _, l := range b.rows {
		mark := "met"
		switch {
		case l.failed:
			mark = "FAILED"
		case !l.ok:
			mark = "NOT MET"
			missed++
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", l.what, l.ours, l.theirs, l.ratio, l.goal, mark)
	}
	if missed > 0 {
		return errors.Join(w.Flush(), fmt.Errorf("%d of the goals were not met", missed))
	}
	return w.Flush()
}
