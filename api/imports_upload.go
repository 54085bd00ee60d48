package api

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/queries"
)

const (
	// uploadIdle is how long an upload may pause. The whole upload has no time limit,
	// because files are large and lines slow.
	uploadIdle = 30 * time.Second
	// multipartSlack is how many bytes a form may have beside its file.
	multipartSlack = 64 << 10
	maxFilename    = 255 // bytes

	defaultUploads = 8
	// uploadWait is the Retry-After for a client that found all places taken.
	uploadWait = 10 * time.Second
)

// Reasons for which an upload ends early, beside errors of the file and the database.
var (
	errUploadDraining = unavailable("the service is shutting down, send the file again")
	errUploadBroken   = badRequest("the upload ended early")
	errUploadSlow     = &Error{Status: 408, Message: "the file comes too slowly, less than 1 KiB a second"}
	errUploadEncoding = unsupported("a file may be packed as " + uploadCodings + ", or not at all")
	errUploadType     = unsupported("send the file as text/csv, or as the field file of multipart/form-data")
	errUploadBoundary = badRequest("the Content-Type of a form must say its boundary: most clients do so if it is left to them")
	errUploads        = &Error{Status: 503, Message: "as many files are received as may be at once, try again later", RetryAfter: uploadWait}
	errUploadsHalf    = tooMany("as many files are received as one token may send at once, try again later", uploadWait)
	errUploadNoFile   = badRequest("the form has no file", FieldError{Field: "file", Message: "is missing"})
)

// createImport accepts an upload of the kind in the query.
func (a *API) createImport(c *fiber.Ctx) error {
	kind, err := kindParam(queryValues(c))
	if err != nil {
		return err
	}
	return a.upload(c, "POST /imports", kind)
}

// createUsersImport accepts an upload of users.
func (a *API) createUsersImport(c *fiber.Ctx) error {
	return a.upload(c, "POST /users/bulk", csvimport.KindUsers)
}

// upload streams a file into chunks in the database and queues the import. At most one
// chunk of the file is in memory. An upload that ends early leaves nothing but a failed
// import. If not even that can be written, a worker fails the import later.
//
// An upload that will be stored takes a place among the uploads. The repeat of a
// request that was answered takes one of a separate set of places. An upload that is
// refused needs no place.
func (a *API) upload(c *fiber.Ctx, route string, kind csvimport.Kind) error {
	c.Set(fiber.HeaderCacheControl, "no-store")
	u := &fileUpload{api: a, ctx: c.UserContext(), actor: actorOf(c), options: service.ImportOptions{Kind: kind}}
	if err := a.service.MayImport(u.actor, kind); err != nil {
		return err
	}
	if err := u.readOptions(u.ctx, queryValues(c)); err != nil {
		return err
	}
	defer u.close()
	if err := u.readHeader(c); err != nil {
		return err
	}
	var err error
	if u.once, err = readOnce(c, route); err != nil {
		return err
	}
	first, err := u.enter()
	if err != nil {
		return err
	}
	file, err := u.open(c.Context())
	if err != nil {
		return err
	}
	if file, err = u.hashed(file); err != nil {
		return err
	}
	if first != nil {
		return u.repeat(c, file, first)
	}
	queued, err := u.receive(file)
	if err != nil {
		u.fail(err)
		return err
	}
	c.Set(fiber.HeaderLocation, queued.Path())
	return c.Status(fiber.StatusAccepted).JSON(queued)
}

// fileUpload is one upload while it is received.
type fileUpload struct {
	api      *API
	ctx      context.Context
	actor    Actor
	options  service.ImportOptions
	split    csvimport.SplitOptions
	closers  []func()      // give back the place and free decoders
	once     *service.Once // nil if the client chose no key
	hash     hash.Hash     // hash of the request, if there is a key
	coding   string        // of the body
	limit    int64         // of the body, in bytes
	boundary string        // "" if the body is not a form
	body     *uploadBody
	form     io.Reader        // the unpacked body, if it is a form
	receipt  *service.Receipt // nil before the import exists
	// fields are those of a form before its file; nil if nobody reads them. fieldBytes is
	// how much they take.
	fields     url.Values
	fieldBytes int
	// holds returns an error if whoever sends the file may not go on, although the token
	// is valid; nil if only the token matters.
	holds func(context.Context) error
}

// enter takes a place. If the upload repeats one that was answered, it returns that
// answer.
func (u *fileUpload) enter() (first *service.KeptAnswer, err error) {
	if first, err = u.findFirst(); err != nil {
		return nil, err
	}
	places := u.api.repeats
	if first == nil {
		if err := u.call(func(ctx context.Context) error { return u.api.service.CheckOwner(ctx, u.options.Owner) }); err != nil {
			return nil, err
		}
		places = u.api.uploads
	}
	leave, err := places.take(u.actor, 1)
	if err != nil {
		return nil, err
	}
	u.closers = append(u.closers, leave)
	return first, nil
}

// readHeader finds out the form of the body. It refuses a body that cannot be an upload
// before any of it is read.
func (u *fileUpload) readHeader(c *fiber.Ctx) error {
	header := &c.Context().Request.Header
	var err error
	if u.coding, err = codingOf(string(header.ContentEncoding())); err != nil {
		c.Set(fiber.HeaderAcceptEncoding, uploadCodings)
		return err
	}
	u.limit = u.api.ImportMaxBytes
	contentType := string(header.ContentType())
	switch media, _, _ := strings.Cut(contentType, ";"); strings.ToLower(strings.TrimSpace(media)) {
	case "text/csv":
	case "multipart/form-data":
		_, params, _ := mime.ParseMediaType(contentType) // none if they cannot be read
		if u.boundary = params["boundary"]; u.boundary == "" {
			return errUploadBoundary
		}
		u.limit += multipartSlack
	default:
		return errUploadType
	}
	if int64(header.ContentLength()) > u.limit {
		return u.tooLarge()
	}
	if _, params, err := mime.ParseMediaType(string(header.Peek(fiber.HeaderContentDisposition))); err == nil {
		u.options.Filename = cleanFilename(params["filename"])
	}
	return nil
}

// open returns the bytes of the file.
func (u *fileUpload) open(ctx *fasthttp.RequestCtx) (io.Reader, error) {
	if conn, ok := ctx.Conn().(*lingeringConn); ok {
		conn.hold()
	}
	u.body = &uploadBody{
		upload: u, conn: ctx, in: ctx.RequestBodyStream(), left: u.limit, heard: time.Now(),
		pace: pace{limits: u.api.clientLimits},
	}
	file, err := u.unpack(u.body, u.coding, u.limit)
	if err != nil {
		return nil, err
	}
	if u.boundary != "" {
		u.form = file
		if file, err = u.part(); err != nil {
			return nil, err
		}
	}
	return u.unpackFile(file)
}

func (u *fileUpload) tooLarge() error {
	return tooLarge(fmt.Sprintf("the file must be at most %d bytes", u.api.ImportMaxBytes))
}

// part returns the form's part named file. Parts before it are read as fields, or skipped.
func (u *fileUpload) part() (io.Reader, error) {
	form := multipart.NewReader(u.form, u.boundary)
	for {
		part, err := form.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil, errUploadNoFile
		}
		if err != nil {
			return nil, u.fault(err)
		}
		if part.FormName() == "file" {
			if name := cleanFilename(part.FileName()); name != nil {
				u.options.Filename = name
			}
			return part, nil
		}
		if err := u.readField(part); err != nil {
			return nil, err
		}
	}
}

// cleanFilename returns the last element of the file name that a client sent.
func cleanFilename(name string) *string {
	name = path.Base(strings.ReplaceAll(name, `\`, "/"))
	name = strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Bidi_Control, r) {
			return -1 // otherwise a list would show a different name
		}
		return r
	}, name)
	name = clicks.Clean(name, maxFilename)
	if name == "" || name == "." || name == "/" {
		return nil
	}
	return &name
}

// receive stores the file chunk by chunk and queues the import. The import is created
// together with the first chunk, so that a file that is not a valid CSV file leaves
// nothing.
func (u *fileUpload) receive(file io.Reader) (queued service.Import, err error) {
	splitter, err := csvimport.NewSplitter(file, u.options.Kind, u.split)
	if err != nil {
		return queued, u.fault(err)
	}
	if err := u.options.CheckOwned(splitter.Layout()); err != nil {
		return queued, err
	}
	for {
		chunk, err := splitter.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return queued, u.fault(err)
		}
		if err := u.store(splitter.Layout(), chunk); err != nil {
			return queued, err
		}
	}
	if err := u.finishForm(); err != nil {
		return queued, err
	}
	if u.holds != nil {
		if err := u.write(u.holds); err != nil {
			return queued, err
		}
	}
	if err := u.write(u.receipt.ReserveIDs); err != nil {
		return queued, err
	}
	if u.once != nil {
		u.once.Hash = [sha256.Size]byte(u.hash.Sum(nil))
	}
	err = u.write(func(ctx context.Context) error {
		queued, err = u.receipt.Queue(ctx, u.body.read)
		return err
	})
	return queued, err
}

// store stores a chunk, and before the first one creates the import.
func (u *fileUpload) store(layout csvimport.Layout, chunk csvimport.Chunk) error {
	if u.receipt == nil {
		err := u.write(func(ctx context.Context) (err error) {
			u.receipt, err = u.api.service.ReceiveImport(ctx, u.actor, u.options, layout, u.once)
			return err
		})
		if err != nil {
			return err
		}
	}
	u.body.heard = time.Now()
	return u.write(func(ctx context.Context) error { return u.receipt.Store(ctx, chunk, u.body.read) })
}

// finishForm reads the form to its end after the file, which shows whether a packed
// form was complete.
func (u *fileUpload) finishForm() error {
	if u.form == nil {
		return nil
	}
	if _, err := io.Copy(io.Discard, u.form); err != nil {
		return u.fault(err)
	}
	return nil
}

// fault turns an error of reading the file into an answer.
func (u *fileUpload) fault(err error) error {
	var format *csvimport.FormatError
	switch {
	case worded(err):
		return err
	case errors.As(err, &format):
		return badRequest("the file cannot be imported: "+format.Error(), FieldError{Field: cmp.Or(format.Field, "file"), Message: format.Error()})
	}
	return errUploadBroken
}

// findFirst returns the answer to the first upload with the same key, nil if this is
// the first.
func (u *fileUpload) findFirst() (first *service.KeptAnswer, err error) {
	if u.once == nil {
		return nil, nil
	}
	err = u.call(func(ctx context.Context) error {
		first, err = u.once.Find(ctx, queries.New(u.api.Pool))
		return err
	})
	return first, err
}

// hashed returns a reader of the file that hashes it, after the parameters of the
// query. The hash does not depend on how the file is packed, or on the form around it,
// in which clients use another boundary each time.
func (u *fileUpload) hashed(file io.Reader) (io.Reader, error) {
	if u.once == nil {
		return file, nil
	}
	o, split := u.options, u.split
	said := []any{o.Kind, o.Owner, o.Policy, o.DryRun, split.Format, split.Mapping}
	// New parameters are hashed only if they are given. Otherwise the hash of a
	// repeated request would differ from the one that the previous release stored.
	if split.Encoding != "" {
		said = append(said, split.Encoding)
	}
	if split.Escape != "" || split.Timezone != "" {
		said = append(said, split.Escape, split.Timezone)
	}
	if split.Domain != "" {
		said = append(said, "domain", split.Domain)
	}
	options, err := json.Marshal(said)
	if err != nil {
		return nil, fmt.Errorf("encode options: %w", err)
	}
	u.hash = sha256.New()
	_, _ = u.hash.Write(options) // never fails
	return io.TeeReader(file, u.hash), nil
}

// repeat reads a file only to check that it is the one that first came with this key.
// If so, it sends the first answer again.
func (u *fileUpload) repeat(c *fiber.Ctx, file io.Reader, first *service.KeptAnswer) error {
	if _, err := io.Copy(io.Discard, file); err != nil {
		return u.fault(err)
	}
	if err := u.finishForm(); err != nil {
		return err
	}
	u.once.Hash = [sha256.Size]byte(u.hash.Sum(nil))
	return repeat(c, u.once, first)
}

// call runs a short piece of work with the time limit of requests.
func (u *fileUpload) call(do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(u.ctx, requestTimeout)
	defer cancel()
	return do(ctx)
}

// write is call with a place among the imports.
func (u *fileUpload) write(do func(context.Context) error) error {
	return u.call(func(ctx context.Context) error {
		leave, err := u.api.bulkheads.imports.enter(ctx)
		if err != nil {
			return err
		}
		defer leave()
		return do(ctx)
	})
}

// fail ends the import of a failed upload.
func (u *fileUpload) fail(cause error) {
	if u.receipt == nil {
		return
	}
	reason := fromError(cause).Message
	if err := u.write(func(ctx context.Context) error { return u.receipt.Fail(ctx, reason) }); err != nil {
		u.api.Log.WarnContext(u.ctx, "failed upload could not be cleared away, a worker will do it",
			slog.Int64("import_id", u.receipt.ID()), slog.Any("error", err))
	}
}

// uploadBody reads the body of an upload up to its limit, as long as bytes arrive fast
// enough, the token is valid and no shutdown begins.
type uploadBody struct {
	upload *fileUpload
	conn   *fasthttp.RequestCtx
	in     io.Reader // nil if the request has no body
	read   int64
	left   int64
	heard  time.Time
	pace   pace
}

// Read implements io.Reader.
func (b *uploadBody) Read(p []byte) (int, error) {
	if b.in == nil {
		return 0, io.EOF
	}
	select {
	case <-b.upload.api.stopped:
		return 0, errUploadDraining
	default:
	}
	if time.Since(b.heard) > b.pace.limits.recheckToken {
		if err := b.hear(); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	if err := b.conn.SetReadDeadline(began.Add(uploadIdle)); err != nil {
		return 0, err
	}
	n, err := b.in.Read(p)
	b.read += int64(n)
	if err == nil && b.pace.slow(n, time.Since(began)) {
		return 0, errUploadSlow
	}
	if errors.Is(err, io.EOF) && !b.whole() {
		return n, errUploadBroken
	}
	if b.left -= int64(n); b.left < 0 {
		return 0, b.upload.tooLarge()
	}
	return n, err
}

// whole reports whether a body that has ended is complete. fasthttp also returns EOF
// when the client is gone, and half a file must not be taken for a file. If no length
// was announced, the only sign is whether the connection has ended too. So a client
// that sends in chunks must not close its side before the answer.
func (b *uploadBody) whole() bool {
	if length := b.conn.Request.Header.ContentLength(); length >= 0 {
		return b.read == int64(length)
	}
	if b.conn.SetReadDeadline(time.Now().Add(time.Millisecond)) != nil {
		return false
	}
	n, err := b.conn.Conn().Read(make([]byte, 1))
	if n > 0 { // these bytes are of the next request, which has to be sent again
		b.conn.SetConnectionClose()
		return true
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// hear stores that a slow upload is alive, much more often than a worker needs to see.
// If the database cannot be reached, it does nothing: the next chunk will find out.
func (b *uploadBody) hear() error {
	u := b.upload
	b.heard = time.Now()
	err := u.write(func(ctx context.Context) error {
		if u.holds != nil {
			if err := u.holds(ctx); err != nil {
				return err
			}
		}
		if u.receipt == nil {
			return u.api.service.TokenHolds(ctx, u.actor)
		}
		return u.receipt.Hear(ctx, b.read)
	})
	if errors.Is(err, errSession) || errors.Is(err, service.ErrTokenEnded) || errors.Is(err, service.ErrUploadCancelled) {
		return err
	}
	return nil
}

// maxMapping bounds the columns that one upload may map.
const maxMapping = 100

// queryValues returns the values of a query. They share no memory with the request.
func queryValues(c *fiber.Ctx) url.Values {
	values := url.Values{}
	for name, value := range c.Context().QueryArgs().All() {
		values.Add(string(name), string(value))
	}
	return values
}

// readOptions reads the parameters of an upload. All faults of the parameters themselves
// are reported at once. Whether the format and the mapping fit the file is found out when
// the file is read.
func (u *fileUpload) readOptions(ctx context.Context, values url.Values) error {
	var faults service.Faults
	note := func(field string, err error) {
		if err != nil {
			faults.Add(field, err.Error())
		}
	}
	var err error
	kind := u.options.Kind
	u.split.Format, u.split.Timezone = values.Get("format"), values.Get("timezone")
	u.options.Owner, err = ownerParam(values.Get("user_id"))
	note("user_id", err)
	u.options.Policy, err = csvimport.ParsePolicy(values.Get("on_conflict"), kind)
	note("on_conflict", err)
	u.options.DryRun, err = dryRunParam(values["dry_run"])
	note("dry_run", err)
	u.split.Mapping, err = mappingParam(values["mapping"])
	note("mapping", err)
	u.split.Encoding, err = csvimport.ParseEncoding(values.Get("encoding"))
	note("encoding", err)
	u.split.Escape, err = escapeParam(values.Get("escape"))
	note("escape", err)
	u.split.Domain, err = domainParam(values.Get("domain"), kind)
	note("domain", err)
	note("timezone", csvimport.CheckTimezone(u.split.Timezone))
	if err := faults.Err(); err != nil {
		return err
	}
	_, err = u.api.service.FindDomain(ctx, u.split.Domain)
	return err
}

// ownerParam returns the id of the user who will own the links if the file names no
// owner, nil if the query has none.
func ownerParam(value string) (*int64, error) {
	if value == "" {
		return nil, nil
	}
	id, err := strconv.ParseInt(value, 10, 64)
	if err != nil || id < 1 || id > csvimport.MaxID {
		return nil, errors.New("must be the id of a user")
	}
	return &id, nil
}

// domainParam returns the host for links in rows without a domain, "" if the query has
// none. Whether the domain exists is checked before the file is read.
func domainParam(value string, kind csvimport.Kind) (string, error) {
	switch {
	case value == "":
		return "", nil
	case kind != csvimport.KindLinks:
		return "", errors.New("is for links")
	}
	return links.CleanHost(value, links.Hosts{})
}

func escapeParam(value string) (string, error) {
	switch value {
	case "", csvimport.EscapeNone, csvimport.EscapeBackslash:
		return value, nil
	}
	return "", fmt.Errorf("must be %s or %s", csvimport.EscapeNone, csvimport.EscapeBackslash)
}

// dryRunParam reads the parameter dry_run. It must have a value, and one only: what was to
// be tried out must not be done.
func dryRunParam(values []string) (bool, error) {
	switch {
	case len(values) == 0:
		return false, nil
	case len(values) > 1:
		return false, errors.New("may be given once only")
	}
	switch values[0] {
	case "false", "0":
		return false, nil
	case "true", "1":
		return true, nil
	}
	return false, errors.New("must be true or false")
}

// mappingParam reads the mapping: columns of the file and their canonical names, as
// name:column. The name of a file's column may contain anything; canonical names
// contain no colon.
func mappingParam(values []string) (map[string]string, error) {
	if len(values) > maxMapping {
		return nil, fmt.Errorf("may be given %d times at most", maxMapping)
	}
	mapping := make(map[string]string, len(values))
	for _, pair := range values {
		i := strings.LastIndexByte(pair, ':')
		if i < 1 {
			return nil, errors.New("must be a column of the file, a colon and what it stands for, such as Goes to:original_url, or nothing to ignore it")
		}
		name := pair[:i]
		if _, twice := mapping[name]; twice {
			return nil, errors.New("names a column twice")
		}
		mapping[name] = pair[i+1:]
	}
	return mapping, nil
}
