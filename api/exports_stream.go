package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/klauspost/compress/gzip"
	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/pause"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/service"
)

const (
	defaultExports = 4
	// exportWait is the Retry-After for a client that found all places taken.
	exportWait = 10 * time.Second
	// pieceTimeout bounds one query. pieceTries is how long queries are repeated while
	// Postgres cannot be reached, so that an export survives a restart of Postgres.
	pieceTimeout = 30 * time.Second
	pieceTries   = 30 * time.Second
	// exportIdle is how long a client may take for exportBuffer bytes.
	exportIdle   = time.Minute
	exportBuffer = 32 << 10
	// socketBuffer keeps the kernel from buffering megabytes. The kernel asks for more
	// only when a third of its buffer is free, and with a slow client that would take
	// longer than exportIdle.
	socketBuffer = 256 << 10
	// watchEvery is how often an export checks whether its client is gone.
	watchEvery = 200 * time.Millisecond
)

var (
	errExports        = &Error{Status: 503, Message: "as many exports run as may run at once, try again later", RetryAfter: exportWait}
	errExportsHalf    = tooMany("as many exports run as one token may run at once, try again later", exportWait)
	errExportLeft     = errors.New("the client is gone")
	errExportSlow     = errors.New("the client takes less than 1 KiB a second")
	errExportDraining = errors.New("the service is shutting down")
	errExportPanic    = errors.New("export panicked")
)

// export answers with the rows of source as a file. An error before the first rows are
// read is answered as an error. A later error cuts the answer off before its last
// chunk, so that every client notices that the file is incomplete.
func (a *API) export(c *fiber.Ctx, source service.Export, format exportFormat, only int64) {
	header := &c.Context().Response.Header
	c.Vary(fiber.HeaderAccept, fiber.HeaderAcceptEncoding)
	e := &export{
		api: a, source: source, format: format, left: only,
		actor: actorOf(c), conn: c.Context().Conn(), requestID: responseID(c), started: time.Now(),
		gzip: acceptsGzip(c.Context().Request.Header.Peek(fiber.HeaderAcceptEncoding)),
	}
	if c.Method() == fiber.MethodHead {
		e.describe(header)
		c.Context().SetBodyStream(strings.NewReader(""), -1) // so that no length is claimed
		return
	}
	if err := e.begin(c.UserContext()); err != nil {
		_ = a.fail(c, err) // never fails
		return
	}
	e.describe(header)
	c.Context().SetBodyStream(e, -1)
}

// export is an export while it is sent: a body that fasthttp has write itself, in the
// goroutine of its connection.
type export struct {
	api       *API
	source    service.Export
	format    exportFormat
	gzip      bool
	left      int64 // rows that may still come
	actor     Actor
	conn      net.Conn
	requestID string
	started   time.Time

	piece []service.ExportRow // read and not written yet
	last  bool                // there are no more behind piece
	rows  int64               // written
	bytes int64               // written to the connection
	leave func()              // gives the place back
}

var _ fasthttp.BodyWriterTo = (*export)(nil)

// begin takes a place among the exports and reads the first piece, which decides
// whether there will be an export. If it returns no error, the caller must call Close.
func (e *export) begin(ctx context.Context) error {
	var err error
	if e.leave, err = e.api.exports.take(e.actor, 1); err != nil {
		return err
	}
	begun := false
	defer func() { // after a panic too
		if !begun {
			_ = e.Close() // never fails
		}
	}()
	if err := e.read(ctx); err != nil {
		return err
	}
	begun = true
	return nil
}

// Close gives the place back. It may be called more than once.
func (e *export) Close() error {
	e.leave()
	return nil
}

// describe sets the headers.
func (e *export) describe(header *fasthttp.ResponseHeader) {
	contentType, extension := mimeNDJSON, "ndjson"
	if e.format == formatCSV {
		contentType, extension = mimeCSV+"; charset=utf-8; header=present", "csv"
	}
	header.SetContentType(contentType)
	name := e.source.File
	if name == "" {
		name = fmt.Sprintf("signpost-%s-%s", e.source.Kind, e.started.UTC().Format("20060102T150405Z"))
	}
	header.Set(fiber.HeaderContentDisposition, fmt.Sprintf(`attachment; filename="%s.%s"`, name, extension))
	header.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	if e.gzip {
		header.Set(fiber.HeaderContentEncoding, "gzip")
	}
}

// read tries once to read the next piece.
func (e *export) read(ctx context.Context) error {
	leave, err := e.api.bulkheads.exports.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	limit := min(int64(e.source.Piece), e.left)
	rows, err := e.source.Next(ctx, int32(limit))
	if err != nil {
		return fmt.Errorf("read rows of the export: %w", err)
	}
	e.piece = rows
	e.left -= int64(len(rows))
	e.last = int64(len(rows)) < limit || e.left == 0
	return nil
}

// readOn reads the next piece. While Postgres cannot be reached, it tries again.
func (e *export) readOn(ctx context.Context) error {
	until := time.Now().Add(pieceTries)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		limited, cancel := context.WithTimeout(ctx, pieceTimeout)
		err := e.read(limited)
		cancel()
		if err == nil || ctx.Err() != nil || time.Now().After(until) ||
			!postgres.Unavailable(err) && !postgres.Retryable(err) {
			return err
		}
		_ = pause.For(ctx, wait) // read returns an error once ctx has ended
	}
}

// SupportsBodyWriteTo implements fasthttp.BodyWriterTo.
func (*export) SupportsBodyWriteTo() bool { return true }

// Read implements io.Reader, which the body of an answer has to be. It is not
// called: fasthttp prefers WriteTo.
func (*export) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

// WriteTo implements io.WriterTo: it writes the file, or as much of it as it
// can. After an error fasthttp closes the connection.
func (e *export) WriteTo(w io.Writer) (n int64, err error) {
	defer func() {
		if r := recover(); r != nil { // otherwise it would end the process
			e.api.Log.Error("export panicked", slog.String("panic", fmt.Sprint(r)), slog.String("request_id", e.requestID))
			err = errExportPanic
		}
		_ = e.Close() // never fails
		n = e.bytes
		e.report(err)
	}()
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { e.watch(ctx, cancel, done) })
	watching.Go(func() { e.watchToken(ctx, cancel) })
	defer watching.Wait()
	defer close(done)
	setSendBuffer(e.conn, socketBuffer) // it only bounds how slow a client may be
	err = e.write(ctx, &patientWriter{ctx, e, w, pace{limits: e.api.clientLimits}})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return n, err
}

// write writes the file to w.
func (e *export) write(ctx context.Context, w io.Writer) error {
	out := bufio.NewWriterSize(w, exportBuffer)
	rows := e.encoder(out)
	if e.gzip {
		packed, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
		if err != nil {
			return fmt.Errorf("start compression: %w", err)
		}
		rows = e.encoder(bufio.NewWriterSize(packed, exportBuffer))
		rows.packed = packed
	}
	if err := rows.header(e.source.Header); err != nil {
		return err
	}
	for {
		for _, row := range e.piece {
			if err := rows.row(row); err != nil {
				return err
			}
		}
		e.rows += int64(len(e.piece))
		e.api.metrics.exported.WithLabelValues(e.source.Kind).Add(float64(len(e.piece)))
		if e.last {
			break
		}
		e.piece = nil // before the next is there
		if err := rows.buffer.Flush(); err != nil {
			return err
		}
		if err := e.readOn(ctx); err != nil {
			return err
		}
	}
	if err := rows.close(); err != nil {
		return err
	}
	return out.Flush()
}

// report logs and counts how the export ended.
func (e *export) report(err error) {
	attrs := []slog.Attr{
		slog.String("kind", e.source.Kind), slog.String("format", string(e.format)),
		slog.Int64("rows", e.rows), slog.Int64("bytes", e.bytes), slog.Duration("took", time.Since(e.started)),
		slog.String("request_id", e.requestID), slog.Any("error", err),
	}
	ctx, outcome := context.Background(), "failed"
	switch {
	case err == nil:
		outcome = "completed"
		e.api.Log.LogAttrs(ctx, slog.LevelInfo, "export completed", attrs[:len(attrs)-1]...)
	case errors.Is(err, errExportLeft), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		outcome = "left"
		e.api.Log.LogAttrs(ctx, slog.LevelInfo, "export left by its client", attrs...)
	case errors.Is(err, errExportSlow), errors.Is(err, service.ErrTokenEnded), errors.Is(err, os.ErrDeadlineExceeded):
		outcome = "cut"
		e.api.Log.LogAttrs(ctx, slog.LevelInfo, "export cut off", attrs...)
	default:
		e.api.Log.LogAttrs(ctx, slog.LevelWarn, "export failed", attrs...)
	}
	e.api.metrics.exports.WithLabelValues(e.source.Kind, outcome).Inc()
}

// watch cancels the export when its client hangs up or the process stops. Once the
// export is cancelled, watch also ends a write that waits for the client. watch ends
// when done is closed.
func (e *export) watch(ctx context.Context, cancel context.CancelCauseFunc, done <-chan struct{}) {
	defer cancel(nil)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	stopping := e.api.stopped
	for {
		select {
		case <-done:
			return
		case <-stopping:
			cancel(errExportDraining)
			stopping = nil
		case <-tick.C:
			if ctx.Err() == nil && hungUp(e.conn) {
				cancel(errExportLeft)
			}
		}
		if ctx.Err() != nil { // at every tick: the writer may just have moved the deadline
			_ = e.conn.SetWriteDeadline(time.Now())
		}
	}
}

// watchToken cancels the export when its token ends. It runs until ctx ends.
func (e *export) watchToken(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(e.api.clientLimits.recheckToken)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := e.api.lookAgain(ctx, e.actor); err != nil {
			cancel(err)
			return
		}
	}
}

// hungUp reports whether the client has closed or reset the connection. It reads
// without consuming, because the next request may have arrived already. A client that
// closes only its sending side counts as gone, as in net/http.
func hungUp(conn net.Conn) (gone bool) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		case err != nil, n == 0:
			gone = true
		}
	})
	return gone || err != nil
}

// patientWriter writes to the connection as long as the client reads fast enough.
type patientWriter struct {
	ctx    context.Context
	export *export
	next   io.Writer
	pace   pace
}

func (w *patientWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := w.export.conn.SetWriteDeadline(began.Add(exportIdle)); err != nil {
		return 0, err
	}
	n, err := w.next.Write(p)
	w.export.bytes += int64(n)
	if err == nil && w.pace.slow(n, time.Since(began)) {
		err = errExportSlow
	}
	return n, err
}

// rowEncoder writes rows as CSV or as JSON, each on a line.
type rowEncoder struct {
	buffer *bufio.Writer
	packed *gzip.Writer  // the compression that buffer writes to, if there is one
	json   *json.Encoder // nil for CSV
	cells  []string
	line   []byte
}

func (e *export) encoder(buffer *bufio.Writer) *rowEncoder {
	r := &rowEncoder{buffer: buffer}
	if e.format != formatCSV {
		r.json = json.NewEncoder(buffer)
		r.json.SetEscapeHTML(false)
	}
	return r
}

func (r *rowEncoder) header(columns []string) error {
	if r.json != nil {
		return nil
	}
	return r.record(columns)
}

func (r *rowEncoder) record(cells []string) error {
	r.line = csvimport.AppendRecord(r.line[:0], cells)
	_, err := r.buffer.Write(r.line)
	return err
}

func (r *rowEncoder) row(row service.ExportRow) error {
	if r.json != nil {
		return r.json.Encode(row)
	}
	r.cells = row.Cells(r.cells[:0])
	return r.record(r.cells)
}

// close flushes, and ends the compression.
func (r *rowEncoder) close() error {
	if err := r.buffer.Flush(); err != nil {
		return err
	}
	if r.packed != nil {
		return r.packed.Close()
	}
	return nil
}
