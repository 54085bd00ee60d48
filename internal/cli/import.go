package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/signpost/signpost/internal/client"
	"github.com/signpost/signpost/internal/pause"
)

const (
	// watchEvery is how often the command asks for the progress of an import.
	watchEvery = 500 * time.Millisecond
	// remotePatience is how long a server may be away before a command gives up. It is
	// long enough for a restart of the server.
	remotePatience = 5 * time.Minute
	// remoteReached is longer than any try that never reached the server: the limits on
	// connecting, and on waiting for an answer, are shorter.
	remoteReached = 2 * time.Minute
	// remoteWait bounds the pause between two tries.
	remoteWait = 5 * time.Second
)

const importHelp = `Upload a CSV file of users, links (urls) or events and watch how it is applied.

FILE may be - for standard input; names that end in .gz or .zst are sent
compressed as they are. A connection that breaks is made again, and an upload
that was cut off begins anew, without anything being imported twice.

The exit code is 0 only if the import ended and no row was rejected.`

// importFlags are the flags of "signpost import".
type importFlags struct {
	remoteFlags
	kind, format, encoding, onConflict, rejected string
	escape, timezone, domain                     string
	mapping                                      []string
	userID, watch                                int64
	dryRun, allowRejected                        bool
}

func importCommand(environ []string) *cobra.Command {
	var flags importFlags
	cmd := &cobra.Command{
		Use:   "import FILE --kind users|urls|events",
		Short: "Upload a file to a server and watch its import",
		Long:  importHelp,
		Example: `  signpost import links.csv --kind urls --user-id 7
  pg_dump_users | signpost import - --kind users --rejected rejected.csv
  signpost import --watch 12`,
		Args: func(_ *cobra.Command, args []string) error { return flags.check(args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			remote, err := flags.client(environ)
			if err != nil {
				return err
			}
			defer remote.Close()
			run := importRun{flags: &flags, client: remote, meter: newMeter(cmd.ErrOrStderr()), stdin: cmd.InOrStdin(), stdout: cmd.OutOrStdout()}
			return run.run(cmd.Context(), args)
		},
	}
	f := cmd.Flags()
	flags.add(f)
	f.StringVar(&flags.kind, "kind", "", "what the rows are: users, urls or events")
	f.Int64Var(&flags.userID, "user-id", 0, "who owns the links of a file that names no owner")
	f.StringVar(&flags.domain, "domain", "", "host of the links of a file that names no domain (default the main one)")
	f.StringVar(&flags.format, "format", "", "what the file is, if its header does not tell, such as yourls")
	f.StringVar(&flags.encoding, "encoding", "", "how the file's characters are written, if that is not UTF-8 or UTF-16, such as windows-1252")
	f.StringArrayVar(&flags.mapping, "mapping", nil, `what a column stands for, such as "Goes to:original_url"; may be repeated`)
	f.StringVar(&flags.escape, "escape", "", "how quotes within quotes are written, if the beginning of the file does not tell: backslash or none")
	f.StringVar(&flags.timezone, "timezone", "", "time zone of times that name none, such as Europe/Berlin (default UTC)")
	f.StringVar(&flags.onConflict, "on-conflict", "", "what becomes of rows whose keys are taken: reject (default), skip or update")
	f.BoolVar(&flags.dryRun, "dry-run", false, "only report what an import would do")
	f.StringVar(&flags.rejected, "rejected", "", "file for the rejected rows, as CSV with lines and reasons")
	f.BoolVar(&flags.allowRejected, "allow-rejected", false, "exit with 0 although rows were rejected")
	f.Int64Var(&flags.watch, "watch", 0, "watch the import with this id instead of uploading a file")
	return cmd
}

// check checks everything that can be judged without a server.
func (f *importFlags) check(args []string) error {
	switch {
	case f.watch < 0:
		return errors.New("--watch needs the id of an import")
	case f.watch > 0 && len(args) > 0:
		return errors.New("give a file or --watch, not both")
	case f.watch > 0:
		return nil
	case len(args) != 1:
		return errors.New("give one file to import, or - for standard input")
	case f.kind == "":
		return errors.New("say what the rows are with --kind users, urls or events")
	case f.kind != "users" && f.kind != "urls" && f.kind != "events":
		return fmt.Errorf("--kind must be users, urls or events, not %q", f.kind)
	case f.userID < 0:
		return errors.New("--user-id must be the id of a user")
	}
	return nil
}

// query returns the parameters that the flags stand for.
func (f *importFlags) query() url.Values {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("format", f.format)
	set("encoding", f.encoding)
	set("escape", f.escape)
	set("timezone", f.timezone)
	set("domain", f.domain)
	set("on_conflict", f.onConflict)
	if f.userID > 0 {
		set("user_id", strconv.FormatInt(f.userID, 10))
	}
	if f.dryRun {
		set("dry_run", "true")
	}
	for _, pair := range f.mapping {
		q.Add("mapping", pair)
	}
	return q
}

// importRun is one run of the command.
type importRun struct {
	flags  *importFlags
	client *client.Client
	meter  *meter
	stdin  io.Reader
	stdout io.Writer
}

func (r *importRun) run(ctx context.Context, args []string) error {
	id := r.flags.watch
	if id == 0 {
		imp, err := r.send(ctx, args[0])
		r.meter.end()
		if err != nil {
			return err
		}
		id = imp.ID
		if !r.meter.terminal {
			r.meter.say("import %d: the file has arrived", id)
		}
	}
	imp, err := r.follow(ctx, id)
	r.meter.end()
	if err != nil {
		return err
	}
	return r.conclude(ctx, imp)
}

// send uploads a file. If the connection breaks, it starts again from the beginning;
// the idempotency key makes sure that the server takes the file only once.
func (r *importRun) send(ctx context.Context, name string) (client.Import, error) {
	// This finds a wrong address or token before a gigabyte was sent.
	if err := r.client.Ready(ctx); err != nil {
		return client.Import{}, err
	}
	source := importSource{path: name, stdin: r.stdin}
	upload := client.Upload{Kind: r.flags.kind, Coding: codingOf(name), Key: rand.Text(), Query: r.flags.query()}
	if name != "-" {
		upload.Name = filepath.Base(name)
	}
	var imp client.Import
	err := retry(ctx, r.meter, func() error {
		in, size, err := source.open()
		if err != nil {
			return err
		}
		r.meter.begin("sending", size, true)
		body := &countedReader{in: in, count: r.meter.at}
		defer body.stop()
		// After a request was given up, it still waits until the reading of its body
		// ends.
		defer context.AfterFunc(ctx, body.stop)()
		upload.File, upload.Size = body, size
		imp, err = r.client.Upload(ctx, upload)
		if source.gone && client.Temporary(err) {
			return notAgain(err)
		}
		return err
	})
	switch {
	case ctx.Err() != nil:
		r.meter.end()
		r.meter.say("The upload was broken off. Unless all of it had arrived already, nothing is imported.")
		return imp, errSilent
	case err != nil:
		return imp, fmt.Errorf("import %s: %w", name, err)
	}
	return imp, nil
}

// importSource is the source of an upload: a file, or standard input for "-".
type importSource struct {
	path  string
	stdin io.Reader
	gone  bool // the input was opened and is a pipe, which cannot be opened again
}

// open returns the file from its beginning, which the caller closes, and its size, -1
// if it is not known.
func (s *importSource) open() (io.ReadCloser, int64, error) {
	if s.path == "-" {
		s.gone = true
		// The input is copied through a pipe of our own, because reading from someone
		// else's cannot be stopped: the goroutine ends with the input or the process.
		out, in := io.Pipe()
		go func() {
			_, err := io.Copy(in, s.stdin)
			in.CloseWithError(err)
		}()
		return out, -1, nil
	}
	file, err := os.Open(s.path)
	if err != nil {
		return nil, 0, fmt.Errorf("open the file: %w", err)
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = errors.New("it is a folder")
	case info.Mode().IsRegular():
		return file, info.Size(), nil
	default:
		s.gone = true
		return file, -1, nil
	}
	_ = file.Close()
	return nil, 0, err
}

// notAgain returns the error of an upload from a pipe, for an error after which any
// other upload would be tried again. It does not wrap err, or the upload would be tried
// again.
func notAgain(err error) error {
	when := ""
	if asked := client.RetryAfter(err); asked > 0 {
		when = fmt.Sprintf(" (in %v)", asked)
	}
	return errors.New(err.Error() + when + "; what comes from a pipe cannot be sent again: save it to a file first")
}

// codingOf returns the compression of a file, by its name.
func codingOf(name string) string {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".gz":
		return "gzip"
	case ".zst":
		return "zstd"
	}
	return ""
}

// countedReader reports how much was read, until it is stopped. A request that failed
// may go on reading for a moment.
type countedReader struct {
	in      io.ReadCloser
	count   func(int64)
	n       int64
	stopped atomic.Bool
}

func (c *countedReader) Read(p []byte) (int, error) {
	if c.stopped.Load() {
		return 0, os.ErrClosed
	}
	n, err := c.in.Read(p)
	c.n += int64(n)
	if !c.stopped.Load() {
		c.count(c.n)
	}
	return n, err
}

func (c *countedReader) stop() {
	c.stopped.Store(true)
	_ = c.in.Close() // read-only
}

// follow waits until an import has ended and shows its progress. It survives broken
// connections and restarts of the server.
func (r *importRun) follow(ctx context.Context, id int64) (client.Import, error) {
	state := ""
	for {
		var imp client.Import
		err := retry(ctx, r.meter, func() (err error) {
			imp, err = r.client.Import(ctx, id)
			return err
		})
		switch {
		case ctx.Err() != nil:
			return imp, r.interrupted(id)
		case err != nil && client.Temporary(err):
			return imp, fmt.Errorf("%w; the import goes on, watch it with: signpost import --watch %d", err, id)
		case err != nil:
			return imp, fmt.Errorf("ask for import %d: %w", id, err)
		case imp.Ended():
			return imp, nil
		}
		if imp.State != state {
			state = imp.State
			total := imp.RowsTotal
			if total == 0 { // the file has not arrived completely
				total = -1
			}
			r.meter.begin(fmt.Sprintf("import %d %s", id, state), total, false)
		}
		r.meter.at(imp.Done())
		if pause.For(ctx, watchEvery) != nil {
			return imp, r.interrupted(id)
		}
	}
}

// interrupted tells a person who pressed Ctrl-C that the import goes on.
func (r *importRun) interrupted(id int64) error {
	r.meter.end()
	r.meter.say("Import %d goes on without us. Watch it with:  signpost import --watch %d", id, id)
	return errSilent
}

// conclude prints the outcome of the import and keeps the rejected rows.
func (r *importRun) conclude(ctx context.Context, imp client.Import) error {
	verb := "is " + imp.State
	if imp.DryRun {
		verb = "was a dry run, nothing was written"
	}
	_, _ = fmt.Fprintf(r.stdout, "import %d %s: %s imported, %s updated, %s skipped, %s rejected, of %s\n", imp.ID, verb,
		humanize.Comma(imp.RowsImported), humanize.Comma(imp.RowsUpdated), humanize.Comma(imp.RowsSkipped), humanize.Comma(imp.RowsRejected), rowsOf(imp.RowsTotal))
	r.showProblems(imp.Problems)
	if len(imp.IgnoredColumns) > 0 {
		more := ""
		if n := imp.IgnoredTotal - len(imp.IgnoredColumns); n > 0 { // 0 from an older server
			more = fmt.Sprintf(" and %d more", n)
		}
		_, _ = fmt.Fprintf(r.stdout, "columns that were not read: %s%s\n", strings.Join(imp.IgnoredColumns, ", "), more)
	}
	if imp.RowsRejected > 0 {
		if err := r.keepRejected(ctx, imp); err != nil {
			return err
		}
	}
	switch {
	case imp.Error != nil:
		return fmt.Errorf("import %d %s: %s", imp.ID, imp.State, *imp.Error)
	case !imp.Whole():
		return fmt.Errorf("import %d is %s: %s of %s were looked at", imp.ID, imp.State, humanize.Comma(imp.Done()), rowsOf(imp.RowsTotal))
	case imp.RowsRejected > 0 && !r.flags.allowRejected:
		return errors.New(countedRows(imp.RowsRejected) + " rejected")
	}
	return nil
}

func countedRows(n int64) string {
	if n == 1 {
		return "1 row was"
	}
	return humanize.Comma(n) + " rows were"
}

// showProblems prints why rows were rejected, reason by reason, and the notices about
// other rows.
func (r *importRun) showProblems(problems []client.Problem) {
	for _, p := range problems {
		_, _ = fmt.Fprintf(r.stdout, "%s %s: %s (first in line %d)\n", countedRows(p.Rows), p.Outcome, strings.TrimSpace(p.Column+" "+p.Reason), p.Line)
		if p.Cure != nil {
			_, _ = fmt.Fprintf(r.stdout, "  %s\n", asFlags.Replace(*p.Cure))
		}
	}
}

// asFlags replaces parameters of a request by flags of this command.
var asFlags = strings.NewReplacer("encoding=", "--encoding ", "escape=", "--escape ", "mapping=", "--mapping ", "format=", "--format ",
	"on_conflict=", "--on-conflict ", "timezone=", "--timezone ", "user_id=", "--user-id ")

// keepRejected writes the rejected rows to their file, or shows the first ones.
func (r *importRun) keepRejected(ctx context.Context, imp client.Import) error {
	if r.flags.rejected == "" {
		for _, e := range imp.FirstErrors {
			_, _ = fmt.Fprintf(r.stdout, "  line %d: %s\n", e.Line, strings.TrimSpace(e.Field+" "+e.Reason))
		}
		if more := imp.RowsRejected - int64(len(imp.FirstErrors)); more > 0 {
			_, _ = fmt.Fprintf(r.stdout, "  and %s more; --rejected FILE keeps them all\n", humanize.Comma(more))
		}
		return nil
	}
	err := writeWhole(r.flags.rejected, func(file *os.File) error {
		return retry(ctx, r.meter, func() error {
			if err := rewind(file); err != nil {
				return err
			}
			return r.client.Rejected(ctx, imp.ID, file)
		})
	})
	if err != nil {
		return fmt.Errorf("keep the rejected rows: %w", err)
	}
	_, _ = fmt.Fprintf(r.stdout, "rejected rows, with line and reason: %s\n", r.flags.rejected)
	return nil
}
