package api

import (
	"bytes"
	"context"
	"io"
	"net/url"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/service"
)

// sampleBytes is how much of the beginning of a file a preview reads, as it was sent and
// unpacked. It is more than an import looks at to find out how a file is written.
const sampleBytes = 128 << 10

// previewImport says what an import of a file would find, by its beginning in the body. A
// body that is shorter than sampleBytes is taken for the whole file.
func (a *API) previewImport(c *fiber.Ctx) error {
	c.Set(fiber.HeaderCacheControl, "no-store")
	ctx, cancel := context.WithTimeout(c.UserContext(), requestTimeout)
	defer cancel()
	give, err := a.bufferBody(c, checkSample)
	if err != nil {
		return err
	}
	defer give()
	leave, err := a.bulkheads.requests.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	preview, err := a.previewSample(ctx, actorOf(c), queryValues(c), c.Context().Request.Body())
	if err != nil {
		return err
	}
	return c.JSON(preview)
}

// checkSample refuses bodies that are no beginning of a file.
func checkSample(header *fasthttp.RequestHeader, _ []byte) error {
	kind, _, _ := strings.Cut(strings.ToLower(string(header.ContentType())), ";")
	if strings.TrimSpace(kind) != "text/csv" || len(header.ContentEncoding()) > 0 {
		return unsupported("send the beginning of the file as text/csv, without a Content-Encoding")
	}
	return nil
}

// previewSample previews an import with these parameters.
func (a *API) previewSample(ctx context.Context, actor Actor, values url.Values, body []byte) (service.ImportPreview, error) {
	u := &fileUpload{api: a, ctx: ctx, actor: actor}
	sample, whole, err := u.sample(body)
	if err != nil {
		return service.ImportPreview{}, err
	}
	if u.options.Kind, err = kindOfSample(values, sample); err != nil {
		return service.ImportPreview{}, err
	}
	if err := a.service.MayImport(actor, u.options.Kind); err != nil {
		return service.ImportPreview{}, err
	}
	if err := u.readOptions(ctx, values); err != nil {
		return service.ImportPreview{}, err
	}
	if err := a.service.CheckOwner(ctx, u.options.Owner); err != nil {
		return service.ImportPreview{}, err
	}
	preview, err := a.service.PreviewImport(ctx, actor, u.options, u.split, sample, whole)
	if err != nil {
		err = u.fault(err)
	}
	return preview, err
}

// sample returns the beginning of a file, unpacked, and whether it is the whole file. To
// unpack takes memory, so it takes a place of uploads.
func (u *fileUpload) sample(body []byte) (sample []byte, whole bool, err error) {
	leave, err := u.api.uploads.take(u.actor, 1)
	if err != nil {
		return nil, false, err
	}
	defer leave()
	defer u.close()
	cut := len(body) >= sampleBytes
	file, err := u.unpackFile(bytes.NewReader(body[:min(len(body), sampleBytes)]))
	if err != nil {
		return nil, false, err
	}
	sample, err = io.ReadAll(io.LimitReader(file, sampleBytes))
	if err != nil && cut && len(sample) > 0 {
		err = nil // what is packed ends in the middle
	}
	return sample, !cut && len(sample) < sampleBytes, err
}

// kindOfSample returns the kind that the parameters name, or else that of the sample.
func kindOfSample(values url.Values, sample []byte) (csvimport.Kind, error) {
	if values.Get("kind") != "" {
		return kindParam(values)
	}
	encoding, err := csvimport.ParseEncoding(values.Get("encoding"))
	if err != nil {
		return "", invalid("encoding", err.Error())
	}
	return csvimport.GuessKind(sample, csvimport.SplitOptions{Format: values.Get("format"), Encoding: encoding}), nil
}

func kindParam(values url.Values) (csvimport.Kind, error) {
	kind, err := csvimport.ParseKind(values.Get("kind"))
	if err != nil {
		return "", invalid("kind", "must be users, urls or events")
	}
	return kind, nil
}
