package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"io"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
	"github.com/gofiber/fiber/v2"

	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/queries"
)

const (
	headerIdempotencyKey = "Idempotency-Key"
	maxIdempotencyKey    = 255 // bytes
)

var (
	errKeyForm  = invalid(headerIdempotencyKey, "must be 1 to 255 printable ASCII characters")
	errKeyOther = invalid(headerIdempotencyKey, "was used for another request: a new one needs a key of its own")
)

// readOnce returns the idempotency key of a request, nil if it has none.
func readOnce(c *fiber.Ctx, route string) (*service.Once, error) {
	header := &c.Context().Request.Header
	switch values := header.PeekAll(headerIdempotencyKey); {
	case len(values) == 0:
		return nil, nil
	case len(values) > 1 || !validKey(values[0]):
		return nil, errKeyForm
	default:
		return &service.Once{OnceKey: service.OnceKey{Token: actorOf(c).Token(), Route: route, Key: string(values[0])}}, nil
	}
}

func validKey(key []byte) bool {
	for _, c := range key {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return len(key) > 0 && len(key) <= maxIdempotencyKey
}

// repeat sends the first answer again if the request is the same.
func repeat(c *fiber.Ctx, o *service.Once, first *service.KeptAnswer) error {
	if subtle.ConstantTimeCompare(first.Request, o.Hash[:]) != 1 {
		return errKeyOther
	}
	if first.Location != "" {
		c.Set(fiber.HeaderLocation, first.Location)
	}
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	return c.Status(first.Status).Send(first.Body)
}

// once makes a route with a JSON body accept idempotency keys. A repeated request is
// answered before anything is validated, because a body that was valid the first time
// may be invalid now.
func (a *API) once(route string) func(huma.Context, func(huma.Context)) {
	return func(h huma.Context, next func(huma.Context)) {
		c := humafiber.Unwrap(h)
		request, err := readOnce(c, route)
		if err != nil || request == nil {
			a.pass(c, h, next, err)
			return
		}
		body, err := io.ReadAll(c.Context().Request.BodyStream())
		if err != nil { // never happens: readBody has put a buffer there
			a.pass(c, h, next, err)
			return
		}
		request.Hash = sha256.Sum256(body)
		c.Context().Request.SetBodyStream(bytes.NewReader(body), len(body))
		first, err := request.Find(c.UserContext(), queries.New(a.Pool))
		if err == nil && first != nil {
			if err = repeat(c, request, first); err == nil {
				return
			}
		}
		a.pass(c, huma.WithContext(h, context.WithValue(h.Context(), onceRequestKey{}, request)), next, err)
	}
}

// pass goes on with a request, or answers the error.
func (a *API) pass(c *fiber.Ctx, h huma.Context, next func(huma.Context), err error) {
	if err != nil {
		_ = a.fail(c, err) // never fails
		return
	}
	next(h)
}

type onceRequestKey struct{}

// onceOf returns the idempotency key of the request that ctx belongs to, nil if it has
// none.
func onceOf(ctx context.Context) *service.Once {
	request, _ := ctx.Value(onceRequestKey{}).(*service.Once)
	return request
}

// onceParam describes the header.
func onceParam() *huma.Param {
	least, most := 1, maxIdempotencyKey
	return &huma.Param{
		Name: headerIdempotencyKey, In: "header", Example: "7c1b2f0e-import-of-may",
		Description: "Chosen by the client. A request that is repeated with it within 24 hours is done once and answered alike.",
		Schema:      &huma.Schema{Type: huma.TypeString, MinLength: &least, MaxLength: &most},
	}
}
