package api

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
	"github.com/gofiber/fiber/v2"

	"github.com/signpost/signpost/internal/service"
)

// ExportInput are the parameters of the lists that can also be exported as a file. It
// is exported for Huma, like PageInput, and its Resolve must be called too.
type ExportInput struct {
	PageInput
	Format string `query:"format" enum:"json,csv,ndjson" doc:"csv or ndjson stream the whole list as a file, without limit, page and per_page; goes before the header Accept."`

	accept exportFormat // the format that the header Accept prefers
}

// Resolve implements huma.Resolver.
func (in *ExportInput) Resolve(h huma.Context) []error {
	in.accept = preferredFormat([]byte(h.Header(fiber.HeaderAccept)))
	return in.PageInput.Resolve(h)
}

// exportFormat is the format in which a list is written.
type exportFormat string

const (
	formatJSON   exportFormat = "json"
	formatCSV    exportFormat = "csv"
	formatNDJSON exportFormat = "ndjson"
)

// format returns the format that the client asked for: in the query, or else in Accept.
func (in *ExportInput) format() exportFormat {
	if in.Format != "" {
		return exportFormat(strings.Clone(in.Format))
	}
	return in.accept
}

// preferredFormat returns the format that an Accept header prefers, JSON if it names
// none.
func preferredFormat(accept []byte) exportFormat {
	switch preferred(accept, mimeJSON, mimeCSV, mimeNDJSON, "application/ndjson", "application/jsonl") {
	case "", mimeJSON:
		return formatJSON
	case mimeCSV:
		return formatCSV
	default:
		return formatNDJSON
	}
}

// whole reports whether the request is for an export of all rows.
func (in *ExportInput) whole() bool { return in.format() != formatJSON && in.only() == everyRow }

// everyRow is the bound of an export that has none.
const everyRow = math.MaxInt64

// only returns the largest number of rows of an export: those of one page if the
// request names a page.
func (in *ExportInput) only() int64 {
	if in.Limit > 0 || in.Page > 0 || in.PerPage > 0 {
		return int64(in.size())
	}
	return everyRow
}

// asExport returns the parameters, so that the inputs of all lists can be treated
// alike.
func (in *ExportInput) asExport() *ExportInput { return in }

// manageList registers the list of a resource, which can be exported as a file too.
func manageList[I, T any, P interface {
	*I
	asExport() *ExportInput
}](a *API, r route,
	list func(context.Context, *I) (*listOutput[T], error),
	export func(context.Context, *I) (service.Export, error),
) {
	page := listing(a, list)
	op := a.operation(r)
	op.Description += " As CSV or NDJSON, it is an export of all rows that the filters leave."
	op.Responses = map[string]*huma.Response{"200": {
		Description: http.StatusText(http.StatusOK),
		Content:     listContent[T](a.huma.OpenAPI().Components.Schemas),
	}}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		params := P(in).asExport()
		if format := params.format(); format != formatJSON {
			source, err := export(ctx, in)
			if err != nil {
				return nil, answerable(a.Log, requestIDOf(ctx), err)
			}
			return &huma.StreamResponse{Body: func(h huma.Context) { a.export(humafiber.Unwrap(h), source, format, params.only()) }}, nil
		}
		out, err := page(ctx, in)
		if err != nil {
			return nil, answerable(a.Log, requestIDOf(ctx), err)
		}
		return &huma.StreamResponse{Body: func(h huma.Context) { a.writeList(humafiber.Unwrap(h), out.Body) }}, nil
	})
}

func listContent[T any](schemas huma.Registry) map[string]*huma.MediaType {
	page, row := reflect.TypeFor[list[T]](), reflect.TypeFor[T]()
	return map[string]*huma.MediaType{
		fiber.MIMEApplicationJSON: {Schema: schemas.Schema(page, true, "List"+row.Name())},
		mimeCSV:                   {Schema: &huma.Schema{Type: huma.TypeString, Description: "A header and a line for each row."}},
		mimeNDJSON:                {Schema: schemas.Schema(row, true, row.Name())},
	}
}

// writeList answers with a page of a list.
func (a *API) writeList(c *fiber.Ctx, body any) {
	c.Vary(fiber.HeaderAccept)
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	encoder := json.NewEncoder(c)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		c.Context().Response.ResetBody()
		_ = a.fail(c, fmt.Errorf("encode list: %w", err)) // never fails
	}
}
