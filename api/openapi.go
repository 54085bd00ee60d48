package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gofiber/fiber/v2"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/service"
)

const specDescription = `Short links whose clicks are counted exactly once.

Management routes need a token: ` + "`Authorization: Bearer <token>`" + `. Times are RFC 3339, answers in UTC.
Every error has the same shape: a sentence, the status, and the fields at fault.
Lists are walked with ` + "`cursor`" + `; ` + "`page` and `per_page`" + ` work too.
PUT and PATCH both take a partial body; fields that are not known are ignored.`

// describe adds the routes that Huma does not serve to the specification and encodes
// it.
func (a *API) describe() error {
	spec := a.huma.OpenAPI()
	spec.Components.Schemas.Schema(reflect.TypeFor[service.ImportPreview](), true, "")
	for _, op := range plainOperations() {
		a.addErrors(op)
		spec.AddOperation(op)
	}
	describeErrorsAsCSV(spec.Paths["/imports/{id}/errors"].Get)
	for path, item := range spec.Paths {
		if strings.Contains(path, "/stats") {
			continue // these have one of their own
		}
		for _, op := range operations(item) {
			delete(op.Responses, "422") // Huma's 422 is a 400 here
		}
	}
	encoded, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode specification: %w", err)
	}
	a.spec = encoded
	return nil
}

// operations are the operations of a path.
func operations(path *huma.PathItem) []*huma.Operation {
	all := []*huma.Operation{path.Get, path.Post, path.Put, path.Patch, path.Delete}
	return slices.DeleteFunc(all, func(op *huma.Operation) bool { return op == nil })
}

// openAPI serves the specification.
func (a *API) openAPI(c *fiber.Ctx) error {
	c.Set(fiber.HeaderContentType, "application/json")
	boundSendBuffer(c.Context().Conn(), len(a.spec))
	return c.Send(a.spec)
}

// addErrors documents op's errors with the schema all errors have.
func (a *API) addErrors(op *huma.Operation) {
	for _, status := range op.Errors {
		op.Responses[fmt.Sprint(status)] = &huma.Response{
			Description: http.StatusText(status),
			Content: map[string]*huma.MediaType{
				"application/json": {Schema: &huma.Schema{Ref: "#/components/schemas/Error"}},
			},
		}
	}
}

// plainOperations are the routes that Fiber serves without Huma.
func plainOperations() []*huma.Operation {
	code := &huma.Param{
		Name: "code", In: "path", Required: true, Example: "spring",
		Description: "May have several segments.", Schema: &huma.Schema{Type: huma.TypeString},
	}
	redirect := func(id, path string) *huma.Operation {
		return &huma.Operation{
			OperationID: id, Method: http.MethodGet, Path: path, Summary: "Follow a short link", Tags: []string{"redirects"},
			Description: "Leads to the link's target and counts the click. HEAD is answered alike and not counted. " +
				"Browsers get errors as a page.",
			Parameters: []*huma.Param{code},
			Responses:  redirectResponses(),
			Errors:     []int{404, 410, 503},
		}
	}
	return []*huma.Operation{
		redirect("follow", "/{code}"),
		redirect("follow-r", "/r/{code}"),
		page("home", "/", "A page that says what this is", "text/html"),
		page("robots", "/robots.txt", "Short links are for crawlers, and nothing else", "text/plain"),
		page("favicon", "/favicon.ico", "The icon", "image/x-icon"),
		page("touch-icon", "/apple-touch-icon.png", "The icon for home screens", "image/png"),
		withParam(page("touch-icon-sized", "/apple-touch-icon{size}.png", "The same, whatever size is asked for", "image/png"),
			"size", "-120x120-precomposed", huma.TypeString),
		withErrors(page("security", "/.well-known/security.txt", "Where to report a weakness, if there is a contact (RFC 9116)", "text/plain"), 404),
		page("docs", "/docs", "This specification as a page", "text/html"),
		withErrors(withParam(page("docs-file", "/docs/{file}", "What that page consists of", "*/*"), "file", "start.js", huma.TypeString), 404),
		page("openapi", "/openapi.json", "This specification", "application/json"),
		status("health", "/health", "Liveness", map[string]any{"status": "ok", "db": "connected"}),
		status("ready", "/ready", "Readiness", map[string]any{"status": "ready"}, 503),
		uploadOperation("create-import", "/imports", "Upload a CSV file", kindParamOf(true), ownerParamOf()),
		previewOperation(),
		uploadOperation("create-users-import", "/users/bulk", "Upload a CSV file of users"),
		importStreamOperation("import-progress", "/imports/{id}/progress", "Follow an import", "text/event-stream",
			"Server-sent events: progress whenever something moved, and end at the end. The data of each is what "+
				"GET /imports/{id} answers. With the id of the last event as Last-Event-ID the answer is 204."),
		liveOperation("live", "/live", "Listen to clicks"),
		withErrors(withParam(liveOperation("url-live", "/urls/{id}/live", "Listen to the clicks of a link"), "id", 7, huma.TypeInteger), 400, 401, 403, 404, 429, 503),
		importStreamOperation("import-result", "/imports/{id}/result.csv", "What became of each row of an import", "text/csv",
			"One line a row in file order: line, outcome (imported, updated, skipped, rejected), id, short_url, field, reason."),
	}
}

// describeErrorsAsCSV adds the part of the route that importErrorsAsCSV answers instead of
// Huma.
func describeErrorsAsCSV(op *huma.Operation) {
	op.Description += " As text/csv (by Accept or format=csv) it is all of them, as a file to be mended and uploaded again."
	op.Parameters = append(op.Parameters, &huma.Param{
		Name: "format", In: "query", Description: "Goes before Accept.",
		Schema: &huma.Schema{Type: huma.TypeString, Enum: []any{"json", "csv"}},
	})
	op.Responses["200"].Content["text/csv"] = &huma.MediaType{}
}

// importStreamOperation describes a route that answers with something else than
// JSON about an import.
func importStreamOperation(id, path, summary, contentType, description string) *huma.Operation {
	op := withParam(page(id, path, summary, contentType), "id", 7, huma.TypeInteger)
	op.Tags = []string{"imports"}
	op.Description = description + " Needs a token of the role reader."
	op.Security = []map[string][]string{{tokenScheme: {}}}
	return withErrors(op, 400, 401, 403, 404, 429, 503)
}

// liveOperation describes a route that answers with clicks as they come.
func liveOperation(id, path, summary string) *huma.Operation {
	op := page(id, path, summary, "text/event-stream")
	op.Tags = []string{"events"}
	op.Description = "Server-sent events, as clicks are ingested: ready once, then click, with timestamp, url_id, short_code, domain, " +
		"kind, country, referrer, device and trigger, and with more where further clicks of the same link are not shown one by one; " +
		"missed, with clicks, where some are left out. With the last id as Last-Event-ID a client gets what it has missed for some " +
		"minutes; a few clicks may then come twice. A stream ends after ten minutes at most. Needs a token of the role reader."
	op.Security = []map[string][]string{{tokenScheme: {}}}
	return withErrors(op, 400, 401, 403, 429, 503)
}

func redirectResponses() map[string]*huma.Response {
	responses := map[string]*huma.Response{}
	for _, status := range []int{301, 302, 307, 308} {
		responses[fmt.Sprint(status)] = &huma.Response{
			Description: http.StatusText(status),
			Headers: map[string]*huma.Param{
				"Location": {Description: "The target.", Schema: &huma.Schema{Type: huma.TypeString, Format: "uri"}},
			},
		}
	}
	return responses
}

func page(id, path, summary, contentType string) *huma.Operation {
	return &huma.Operation{
		OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Tags: []string{"pages"},
		Responses: map[string]*huma.Response{"200": {
			Description: "OK",
			Content:     map[string]*huma.MediaType{contentType: {}},
		}},
	}
}

// withParam adds a parameter of a path to an operation.
func withParam(op *huma.Operation, name string, example any, kind string) *huma.Operation {
	op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "path", Required: true, Example: example, Schema: &huma.Schema{Type: kind}})
	return op
}

func withErrors(op *huma.Operation, errs ...int) *huma.Operation {
	op.Errors = errs
	return op
}

func status(id, path, summary string, example map[string]any, errs ...int) *huma.Operation {
	properties := map[string]*huma.Schema{}
	for name := range example {
		properties[name] = &huma.Schema{Type: huma.TypeString}
	}
	op := withErrors(page(id, path, summary, "application/json"), errs...)
	op.Tags = []string{"health"}
	op.Responses["200"].Content["application/json"] = &huma.MediaType{
		Schema:  &huma.Schema{Type: huma.TypeObject, Properties: properties},
		Example: example,
	}
	return op
}

// queryParam describes an optional parameter of a query.
func queryParam(name string, example any, schema *huma.Schema, description string) *huma.Param {
	return &huma.Param{Name: name, In: "query", Example: example, Description: description, Schema: schema}
}

// uploadParams are the parameters of every upload.
func uploadParams() []*huma.Param {
	text := &huma.Schema{Type: huma.TypeString}
	return []*huma.Param{
		queryParam("on_conflict", nil, &huma.Schema{Type: huma.TypeString, Enum: []any{"reject", "skip", "update"}, Default: "reject"},
			"What becomes of a row whose key is taken. Events cannot be updated."),
		queryParam("dry_run", nil, &huma.Schema{Type: huma.TypeBoolean, Default: false}, "Only say what an import of the file would do."),
		queryParam("format", "signpost", text, "The format of the file, if its header does not tell."),
		queryParam("encoding", "windows-1252", text,
			"How the file's characters are written: utf-8, utf-16, windows-1252, iso-8859-1, iso-8859-15 or macintosh, "+
				"or another usual name of one of these. Without it, the file is UTF-8 or UTF-16. A byte order mark goes before it."),
		queryParam("mapping", []string{"Goes to:original_url"}, &huma.Schema{Type: huma.TypeArray, Items: text},
			"A column of the file, a colon, and the column it stands for, or nothing to ignore it."),
		queryParam("domain", "go.example.com", text, "The host of the links in the file that name no domain; the main one if it is not given."),
		queryParam("escape", nil, &huma.Schema{Type: huma.TypeString, Enum: []any{csvimport.EscapeNone, csvimport.EscapeBackslash}},
			"What makes a quote within quotes a character, beside another quote: nothing, or a backslash. If it is not given, the beginning of the file tells."),
		queryParam("timezone", "Europe/Berlin", &huma.Schema{Type: huma.TypeString, Default: "UTC"},
			"The time zone, by its IANA name, of the times in the file that name none."),
		onceParam(),
	}
}

// kindParamOf and ownerParamOf describe parameters of an upload of any kind.
func kindParamOf(required bool) *huma.Param {
	return &huma.Param{
		Name: "kind", In: "query", Required: required, Example: "urls", Description: "What the rows are. Editors may import urls only.",
		Schema: &huma.Schema{Type: huma.TypeString, Enum: []any{"users", "urls", "events"}},
	}
}

func ownerParamOf() *huma.Param {
	return queryParam("user_id", 42, &huma.Schema{Type: huma.TypeInteger},
		"Who owns the links of a file that has no column user_id, or of rows where it is empty.")
}

// previewOperation describes the preview of an upload. It has the parameters of one,
// except for those that say what becomes of the whole file.
func previewOperation() *huma.Operation {
	params := slices.DeleteFunc(uploadParams(), func(p *huma.Param) bool { return p.Name == "dry_run" || p.Name == headerIdempotencyKey })
	return &huma.Operation{
		OperationID: "preview-import", Method: http.MethodPost, Path: "/imports/preview", Summary: "Look at the beginning of a CSV file", Tags: []string{"imports"},
		Description: "Says what an import of the file would find: its kind, its format, what its columns are read as, its first rows and their faults. " +
			"The body is the beginning of the file; 128 KiB of it are read, and a shorter one is taken for the whole file. It may be packed. Nothing is stored. " +
			"Without kind, the columns tell it. Needs a token of the role editor.",
		Parameters:  append([]*huma.Param{kindParamOf(false), ownerParamOf()}, params...),
		Security:    []map[string][]string{{tokenScheme: {}}},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"text/csv": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}},
		Responses: map[string]*huma.Response{"200": {
			Description: "OK",
			Content:     map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Ref: "#/components/schemas/ImportPreview"}}},
		}},
		Errors: []int{400, 401, 403, 413, 415, 429, 503},
	}
}

func uploadOperation(id, path, summary string, params ...*huma.Param) *huma.Operation {
	file := &huma.Schema{Type: huma.TypeString, Format: "binary", Description: "The CSV file, its first line the header."}
	return &huma.Operation{
		OperationID: id, Method: http.MethodPost, Path: path, Summary: summary, Tags: []string{"imports"},
		Description: "Streams the file into the database and queues it; follow the import at Location.",
		Parameters:  append(params, uploadParams()...),
		Security:    []map[string][]string{{tokenScheme: {}}},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"text/csv": {Schema: file},
			"multipart/form-data": {Schema: &huma.Schema{
				Type: huma.TypeObject, Properties: map[string]*huma.Schema{"file": file}, Required: []string{"file"},
			}},
		}},
		Responses: map[string]*huma.Response{"202": {
			Description: "Accepted",
			Content: map[string]*huma.MediaType{
				"application/json": {Schema: &huma.Schema{Ref: "#/components/schemas/Import"}},
			},
			Headers: map[string]*huma.Param{
				"Location": {Description: "Path of the import.", Schema: &huma.Schema{Type: huma.TypeString}},
			},
		}},
		Errors: []int{400, 401, 403, 409, 413, 415, 429, 503},
	}
}
