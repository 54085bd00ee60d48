package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/gofiber/fiber/v2"

	"github.com/signpost/signpost/examples"
	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/web"
)

// This file receives files from the dashboard, within the bounds of the API.

// errUploadFields refuses a form with more beside its file than any form here has.
var errUploadFields = tooLarge("the fields of the form before its file must be at most 64 KiB")

// appUpload receives a file from a form. It is streamed like one that comes to POST
// /imports, so the parameters, which are fields of the form, have to stand before it.
func (a *API) appUpload(c *fiber.Ctx) error {
	found, err := a.admitSession(c, service.ImportsLinks)
	if err != nil {
		return err
	}
	u := a.formUpload(c, found)
	defer u.close()
	queued, err := u.receiveForm(c)
	if err != nil {
		u.fail(err)
		return a.refuseUpload(c, found, u.fields, false, err)
	}
	writeAnswer(c, &web.Answer{Location: "/app" + queued.Path()})
	return nil
}

// formUpload returns the upload of a form. It may take longer than other requests, as long
// as its session holds.
func (a *API) formUpload(c *fiber.Ctx, found session) *fileUpload {
	return &fileUpload{
		api: a, ctx: context.WithoutCancel(c.UserContext()), actor: found.actor, fields: url.Values{},
		holds: func(ctx context.Context) error { return a.Tokens.sessionHolds(ctx, found.id) },
	}
}

// receiveForm is upload for a form.
func (u *fileUpload) receiveForm(c *fiber.Ctx) (queued service.Import, err error) {
	if err := u.readForm(c); err != nil {
		return queued, err
	}
	leave, err := u.api.uploads.take(u.actor, 1)
	if err != nil {
		return queued, err
	}
	u.closers = append(u.closers, leave)
	file, err := u.open(c.Context())
	if err != nil {
		return queued, err
	}
	if u.options.Kind, err = kindParam(u.fields); err != nil {
		return queued, err
	}
	if err := u.api.service.MayImport(u.actor, u.options.Kind); err != nil {
		return queued, err
	}
	err = u.call(func(ctx context.Context) error {
		fields, err := u.named(ctx)
		if err != nil {
			return err
		}
		if err := u.readOptions(ctx, fields); err != nil {
			return err
		}
		return u.api.service.CheckOwner(ctx, u.options.Owner)
	})
	if err != nil {
		return queued, err
	}
	return u.receive(file)
}

// readForm reads the headers of a form with a file.
func (u *fileUpload) readForm(c *fiber.Ctx) error {
	if err := u.readHeader(c); err != nil {
		return err
	}
	if u.boundary == "" {
		return errUploadType
	}
	return nil
}

// named returns the fields with the id of the owner whom they name.
func (u *fileUpload) named(ctx context.Context) (url.Values, error) {
	v, err := u.api.web.Named(ctx, u.actor, web.Values{Values: u.fields})
	return v.Values, err
}

// readField reads a part of a form that stands before its file, if the upload wants it.
func (u *fileUpload) readField(part *multipart.Part) error {
	if u.fields == nil {
		return nil
	}
	value, err := io.ReadAll(io.LimitReader(part, multipartSlack+1))
	if err != nil {
		return u.fault(err)
	}
	name := part.FormName()
	// A field counts as more than its bytes, because thousands of empty ones take memory too.
	if u.fieldBytes += len(name) + len(value) + 100; u.fieldBytes > multipartSlack {
		return errUploadFields
	}
	if !utf8.ValidString(name) || !utf8.Valid(value) || bytes.IndexByte(value, 0) >= 0 {
		return badRequest("the form cannot be understood")
	}
	if name == "mapping" && len(value) == 0 {
		return nil // the column is read as the format says
	}
	u.fields.Add(name, strings.TrimSpace(string(value)))
	return nil
}

// refuseUpload shows the form again, with what was wrong. The browser has forgotten its
// file, unless a script has sent it.
func (a *API) refuseUpload(c *fiber.Ctx, found session, fields url.Values, scripted bool, err error) error {
	e := fromError(err)
	switch e.Status {
	case http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
	default:
		return err
	}
	return a.importForm(c, found, fields, nil, scripted, e)
}

// importForm answers with the form of an import, with a preview if there is one.
func (a *API) importForm(c *fiber.Ctx, found session, fields url.Values, preview *service.ImportPreview, scripted bool, e *Error) error {
	r := &web.Request{Actor: found.actor, Session: found.id, Path: "/app/imports", Query: web.Values{Values: url.Values{}}, Form: web.Values{Values: fields}, Zone: zoneOf(c)}
	refused := web.Refused{}
	if e != nil {
		refused = web.Refused{Status: e.Status, Message: e.Message, Fields: e.Fields}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.UserContext()), pageTimeout)
	defer cancel()
	leave, err := a.bulkheads.lists.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	answer, err := a.web.ImportForm(ctx, r, preview, scripted, refused)
	if err != nil {
		return err
	}
	writeAnswer(c, answer)
	return nil
}

// appPreview shows what an import would find, by the beginning of a file in a form.
func (a *API) appPreview(c *fiber.Ctx) error {
	found, err := a.admitSession(c, service.ImportsLinks)
	if err != nil {
		return err
	}
	give, err := a.bufferBody(c, anyBody)
	if err != nil {
		return err
	}
	defer give()
	u := a.formUpload(c, found)
	defer u.close()
	preview, err := u.previewForm(c)
	if err != nil {
		return a.refuseUpload(c, found, u.fields, true, err)
	}
	return a.importForm(c, found, u.fields, &preview, true, nil)
}

func (u *fileUpload) previewForm(c *fiber.Ctx) (service.ImportPreview, error) {
	if err := u.readForm(c); err != nil {
		return service.ImportPreview{}, err
	}
	u.form = bytes.NewReader(c.Context().Request.Body())
	part, err := u.part()
	if err != nil {
		return service.ImportPreview{}, err
	}
	body, err := io.ReadAll(part)
	if err != nil {
		return service.ImportPreview{}, u.fault(err)
	}
	leave, err := u.api.bulkheads.requests.enter(c.UserContext())
	if err != nil {
		return service.ImportPreview{}, err
	}
	defer leave()
	fields, err := u.named(c.UserContext())
	if err != nil {
		return service.ImportPreview{}, err
	}
	return u.api.previewSample(c.UserContext(), u.actor, fields, body)
}

// appSample sends one of the files to try an import with.
func (a *API) appSample(c *fiber.Ctx) error {
	if _, err := a.admitSession(c, service.ImportsLinks); err != nil {
		return err
	}
	name := strings.Clone(c.Params("file"))
	file, err := examples.Files.ReadFile(name)
	if err != nil {
		return plainError(http.StatusNotFound)
	}
	c.Set(fiber.HeaderContentType, mimeCSV+"; charset=utf-8")
	c.Set(fiber.HeaderContentDisposition, fmt.Sprintf(`attachment; filename="%s"`, name))
	c.Context().Response.SetBodyRaw(file)
	return nil
}
