package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
	"github.com/gofiber/fiber/v2"

	"github.com/signpost/signpost/internal/service"
)

type qrInput struct {
	IDInput
	Size        int    `query:"size" minimum:"16" maximum:"2048" default:"512" doc:"Width and height of the picture with its margin, in pixels. Modules of a PNG are whole pixels wide; what is left widens the margin."`
	Margin      int    `query:"margin" minimum:"0" maximum:"32" default:"4" doc:"The empty space around the code, in modules. Readers expect 4."`
	Level       string `query:"level" enum:"L,M,Q,H" default:"M" doc:"Error correction: how much of the code may be damaged or covered: 7, 15, 25 or 30 %."`
	Foreground  string `query:"foreground" default:"000000" example:"1a2b3c" doc:"The color of the code, three or six hexadecimal digits. It must be much darker than the background."`
	Background  string `query:"background" default:"ffffff" example:"ffffff" doc:"The color behind it."`
	Mark        bool   `query:"mark" default:"true" doc:"Whether the code holds the mark by which scans are told from clicks."`
	IfNoneMatch string `header:"If-None-Match" doc:"The ETag of an earlier answer. If the picture is still the same, the answer is 304."`
}

// fields returns what is asked for. It shares no memory with the request.
func (in *qrInput) fields() service.QRFields {
	return service.QRFields{
		Size: in.Size, Margin: in.Margin, Level: strings.Clone(in.Level),
		Foreground: strings.Clone(in.Foreground), Background: strings.Clone(in.Background), Mark: in.Mark,
	}
}

// Resolve implements huma.Resolver.
func (in *qrInput) Resolve(huma.Context) []error {
	faults := in.fields().Check()
	errs := make([]error, len(faults))
	for i, f := range faults {
		errs[i] = &huma.ErrorDetail{Location: "query." + f.Field, Message: f.Message}
	}
	return errs
}

// manageQR registers a route of the QR codes of links.
func manageQR(a *API, r route, contentType string, asPNG bool) {
	op := a.operation(r)
	op.Description = "The short URL with a mark, by which statistics tell scans (trigger qr) from clicks. " + op.Description
	op.Responses = map[string]*huma.Response{
		"200": {
			Description: http.StatusText(http.StatusOK),
			Content:     map[string]*huma.MediaType{contentType: {}},
			Headers: map[string]*huma.Param{fiber.HeaderETag: {
				Description: "Changes when the picture does.", Schema: &huma.Schema{Type: huma.TypeString},
			}},
		},
		"304": {Description: "The picture is still the one that If-None-Match names."},
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *qrInput) (*huma.StreamResponse, error) {
		code, err := a.service.GetQR(ctx, actorIn(ctx), in.ID, asPNG, in.fields())
		var picture []byte
		if err == nil && !hasTag(in.IfNoneMatch, code.Tag) {
			picture, err = code.Draw()
		}
		if err != nil {
			return nil, answerable(a.Log, requestIDOf(ctx), err)
		}
		return &huma.StreamResponse{Body: func(h huma.Context) { writePicture(humafiber.Unwrap(h), code.Tag, picture, contentType) }}, nil
	})
}

// writePicture answers with a picture, or with 304 if the client has it. The picture of
// a link changes with its code and its domain, so a client has to ask each time.
func writePicture(c *fiber.Ctx, tag string, picture []byte, contentType string) {
	c.Set(fiber.HeaderETag, tag)
	c.Set(fiber.HeaderCacheControl, "private, no-cache")
	if picture == nil {
		c.Status(http.StatusNotModified)
		return
	}
	c.Set(fiber.HeaderContentType, contentType)
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	_, _ = c.Write(picture) // into the buffer of the answer, which never fails
}
