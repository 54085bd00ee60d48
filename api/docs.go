package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"sync"

	"github.com/gofiber/fiber/v2"
	"github.com/klauspost/compress/gzip"
	swaggerui "github.com/swaggest/swgui/v5/static"
)

// docsPolicy lets the page load from this host only. Swagger UI sets styles on its
// elements and has its icons inline.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// sharedFile is a file that anyone may read. It is made once, and every answer sends
// the same bytes, so that neither work nor memory grows with the number of clients or
// with slow ones. It is read-only.
type sharedFile struct {
	kind   string
	plain  []byte
	packed []byte // in gzip; nil for a file that does not get smaller
	tag    string // the ETag of plain, without the quotes
}

// docsFiles returns the files that the page uses, by name.
var docsFiles = sync.OnceValues(func() (map[string]sharedFile, error) {
	script, err := pageFiles.ReadFile("pages/start.js")
	if err != nil {
		return nil, fmt.Errorf("read bundled file: %w", err)
	}
	files := map[string]sharedFile{"start.js": newSharedFile("text/javascript; charset=utf-8", script, nil)}
	for _, f := range []struct{ name, kind string }{
		{"swagger-ui-bundle.js", "text/javascript; charset=utf-8"},
		{"swagger-ui.css", "text/css; charset=utf-8"},
	} {
		packed, err := swaggerui.FS.ReadFile(f.name + ".gz")
		if err != nil {
			return nil, fmt.Errorf("read bundled file: %w", err)
		}
		plain, err := unpack(packed)
		if err != nil {
			return nil, fmt.Errorf("unpack bundled file %s: %w", f.name, err)
		}
		files[f.name] = newSharedFile(f.kind, plain, packed)
	}
	icon, err := swaggerui.FS.ReadFile(docsIcon)
	if err != nil {
		return nil, fmt.Errorf("read bundled file: %w", err)
	}
	files[docsIcon] = newSharedFile("image/png", icon, nil)
	return files, nil
})

const docsIcon = "favicon-32x32.png"

func newSharedFile(kind string, plain, packed []byte) sharedFile {
	sum := sha256.Sum256(plain)
	return sharedFile{kind: kind, plain: plain, packed: packed, tag: hex.EncodeToString(sum[:8])}
}

func unpack(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// send answers c with the file, or says that the client has it already.
func (f sharedFile) send(c *fiber.Ctx) {
	body, tag := f.plain, `"`+f.tag+`"`
	header := &c.Context().Response.Header
	header.Set(fiber.HeaderCacheControl, "public, max-age=3600")
	if f.packed != nil {
		c.Vary(fiber.HeaderAcceptEncoding)
		if acceptsGzip(c.Context().Request.Header.Peek(fiber.HeaderAcceptEncoding)) {
			body, tag = f.packed, `"`+f.tag+`-gzip"`
			header.Set(fiber.HeaderContentEncoding, codingGzip)
		}
	}
	header.Set(fiber.HeaderETag, tag)
	if c.Get(fiber.HeaderIfNoneMatch) != "" && c.Fresh() {
		header.Del(fiber.HeaderContentEncoding)
		c.Status(fiber.StatusNotModified)
		return
	}
	header.SetContentType(f.kind)
	boundSendBuffer(c.Context().Conn(), len(body))
	c.Context().Response.SetBodyRaw(body)
}

// docs serves the page that shows /openapi.json to people.
func (*API) docs(c *fiber.Ctx) error {
	return writePage(&c.Context().Response, "docs.html", docsPolicy, nil)
}

// docsFile serves the files that the page uses.
func (*API) docsFile(c *fiber.Ctx) error {
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	files, err := docsFiles()
	if err != nil {
		return err
	}
	file, ok := files[c.Params("file")]
	if !ok {
		return fiber.ErrNotFound
	}
	file.send(c)
	return nil
}
