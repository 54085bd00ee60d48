package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/service"
)

// route declares one route of the management API.
type route struct {
	method, path string
	role         Role // the lowest role that is allowed
	status       int  // the status of a success
	summary      string
}

const tokenScheme = "token"

// newHuma returns the part of the API whose requests Huma validates, against the
// definitions from which /openapi.json is made.
func (a *API) newHuma() huma.API {
	config := huma.DefaultConfig("Signpost", a.Version)
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.CreateHooks = nil                         // no $schema in answers
	config.AllowAdditionalPropertiesByDefault = true // unknown fields are ignored
	config.Info.Description = specDescription
	// The docs page may load from no other host than its own.
	config.Servers = []*huma.Server{{URL: "/", Description: "where this was read"}, {URL: a.PublicURL}}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		tokenScheme: {Type: "http", Scheme: "bearer", Description: "An API token, or the value of ADMIN_TOKEN."},
	}
	return humafiber.NewWithGroup(a.app, headToo{a.app}, config)
}

// headToo makes every GET route answer HEAD as well, as Fiber does for its own.
type headToo struct{ fiber.Router }

func (r headToo) Add(method, path string, handlers ...fiber.Handler) fiber.Router {
	if method == fiber.MethodGet {
		r.Router.Add(fiber.MethodHead, path, handlers...)
	}
	return r.Router.Add(method, path, handlers...)
}

// manage registers a route of the management API. The context of the handler holds the
// actor and ends after requestTimeout, or bulkTimeout. Errors of the handler are answered as in
// fromError.
func manage[I, O any](a *API, r route, handler func(context.Context, *I) (*O, error)) {
	huma.Register(a.huma, a.operation(r), func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		if err != nil {
			return nil, answerable(a.Log, requestIDOf(ctx), err)
		}
		return out, nil
	})
}

func (a *API) operation(r route) huma.Operation {
	resource, _, _ := strings.Cut(r.path[1:], "/")
	errs := []int{401, 403, 404, 429, 503}
	name, timeout := r.method+" "+r.path, requestTimeout
	if r.path == "/urls/bulk" {
		timeout = bulkTimeout
	}
	if r.method != http.MethodGet && r.method != http.MethodDelete || deletesMany[name] {
		errs = append(errs, 409, 413, 415)
	}
	op := huma.Operation{
		OperationID:   strings.ReplaceAll(strings.ToLower(r.summary), " ", "-"),
		Method:        r.method,
		Path:          r.path,
		Summary:       r.summary,
		Description:   "Needs a token of the role " + r.role.String() + ".",
		Tags:          []string{resource},
		DefaultStatus: r.status,
		Errors:        append(errs, http.StatusBadRequest),
		Security:      []map[string][]string{{tokenScheme: {}}},
		Middlewares:   huma.Middlewares{a.guard(r.role, timeout)},
		// guard has read the body, within its own bound.
		MaxBodyBytes:     2 * maxBody,
		SkipValidateBody: ownChecks[name],
	}
	if onceRoutes[name] {
		op.Middlewares = append(op.Middlewares, a.once(name))
		op.Parameters = append(op.Parameters, onceParam())
	}
	return op
}

// onceRoutes are the routes with a JSON body that accept an Idempotency-Key.
var onceRoutes = map[string]bool{
	"POST /users": true, "POST /urls": true, "POST /urls/bulk": true, "PATCH /urls/bulk": true, "DELETE /urls/bulk": true,
}

// deletesMany are the routes with the method DELETE that have a body.
var deletesMany = map[string]bool{"DELETE /urls/bulk": true}

// ownChecks are the routes whose bodies only the service checks, so that one wrong thing
// in a list does not refuse the others.
var ownChecks = map[string]bool{"POST /urls/bulk": true}

// guard rejects a request to the management API unless its token and its body are
// valid, and gives it a deadline. The request takes a place among the requests while it
// is worked on, but not while its client sends the body.
func (a *API) guard(role Role, timeout time.Duration) func(huma.Context, func(huma.Context)) {
	return func(h huma.Context, next func(huma.Context)) {
		c := humafiber.Unwrap(h)
		c.Set(fiber.HeaderCacheControl, "no-store")
		base, cancel := context.WithTimeout(c.UserContext(), timeout)
		defer cancel()
		c.SetUserContext(base)
		err := a.admitInPlace(c, role)
		if err == nil && strings.Contains(h.Operation().Path, "{id}") {
			_, err = idParam(c)
		}
		give := func() {}
		if err == nil {
			give, err = a.bufferBody(c, checkJSON)
		}
		if err != nil {
			_ = a.fail(c, err) // never fails
			return
		}
		defer give()
		leave, err := a.bulkheads.requests.enter(base)
		if err != nil {
			_ = a.fail(c, err) // never fails
			return
		}
		defer leave()
		next(huma.WithContext(h, context.WithValue(c.UserContext(), ownHostsKey{}, a.OwnHosts)))
		if err := a.holdAnswer(c); err != nil {
			_ = a.fail(c, err) // never fails
		}
	}
}

// admitInPlace is admit with a place among the requests.
func (a *API) admitInPlace(c *fiber.Ctx, role Role) error {
	leave, err := a.bulkheads.requests.enter(c.UserContext())
	if err != nil {
		return err
	}
	defer leave()
	return a.admit(c, role)
}

// bodyCheck returns an error for a body that a route does not take.
type bodyCheck func(header *fasthttp.RequestHeader, body []byte) error

// bufferBody reads the body of a request, if it has one, and replaces it with a buffer.
// If it leaves bytes unread, fasthttp drains them or closes the connection, so that
// they are never taken for the next request. The body counts as held until give is
// called.
func (a *API) bufferBody(c *fiber.Ctx, check bodyCheck) (give func(), err error) {
	request := &c.Context().Request
	length := request.Header.ContentLength()
	if length > maxBody {
		return nil, tooLarge("the body must be at most 1 MiB")
	}
	give = func() {}
	stream := request.BodyStream()
	if stream == nil {
		request.SetBodyStream(bytes.NewReader(nil), 0)
		return give, nil
	}
	if length < 0 || length > heldLeast {
		most := length
		if length < 0 { // the length is not announced
			most = maxBody
		}
		if give, err = a.held.take(actorOf(c), int64(most)); err != nil {
			return nil, err
		}
	}
	if err := readBody(c, stream, length, check); err != nil {
		give()
		return nil, err
	}
	return give, nil
}

// readBody does the work of bufferBody for a body with the given length; a negative
// length is unknown.
func readBody(c *fiber.Ctx, stream io.Reader, length int, check bodyCheck) error {
	request := &c.Context().Request
	body, err := io.ReadAll(io.LimitReader(stream, maxBody+1))
	switch {
	case err != nil, length >= 0 && len(body) < length:
		c.Context().SetConnectionClose()
		return badRequest("the body ended early")
	case len(body) > maxBody:
		return tooLarge("the body must be at most 1 MiB")
	}
	method := string(request.Header.Method())
	switch {
	case method == http.MethodPost, method == http.MethodPut, method == http.MethodPatch, deletesMany[method+" "+c.Path()]:
		if err := check(&request.Header, body); err != nil {
			return err
		}
	default: // the body is not used
		body = nil
	}
	request.SetBodyStream(bytes.NewReader(body), len(body))
	return nil
}

// checkJSON reports early, in our own words, faults that Huma would report in the words
// of a decoder.
func checkJSON(header *fasthttp.RequestHeader, body []byte) error {
	if len(body) == 0 {
		return nil
	}
	if !isJSON(string(header.ContentType())) {
		return unsupported("the body must be JSON: send Content-Type: application/json")
	}
	if encoding := header.ContentEncoding(); len(encoding) > 0 && !bytes.EqualFold(encoding, []byte("identity")) {
		return unsupported("the body must not be compressed")
	}
	// Huma checks the header again, and accepts fewer forms of it.
	header.SetContentType("application/json")
	if !utf8.Valid(body) {
		return badRequest("the body is not valid UTF-8")
	}
	if bytes.Count(body, []byte(",")) > maxValues {
		return badRequest(fmt.Sprintf("the body has more than %d values", maxValues))
	}
	var raw json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return badRequest(fmt.Sprintf("the body is not valid JSON (at byte %d)", syntax.Offset))
		}
		return badRequest("the body is not valid JSON")
	}
	return nil
}

// isJSON reports whether a Content-Type is one of JSON, or none at all.
func isJSON(contentType string) bool {
	kind, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	kind = strings.TrimSpace(kind)
	return kind == "" || kind == "application/json" ||
		strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json")
}

// maxValues is the largest number of commas in a JSON body. A wrong value costs Huma a
// thousand times its size: a list of half a million values, in 1 MiB, took 226 MiB and
// more than a second.
const maxValues = service.MaxBulk + 100 // the ids of a request, and some fields

type ownHostsKey struct{}

// ownHostsOf returns the hosts that a link must not lead to.
func ownHostsOf(ctx context.Context) links.Hosts {
	hosts, _ := ctx.Value(ownHostsKey{}).(links.Hosts)
	return hosts
}
