package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
	"github.com/gofiber/fiber/v2"
	"github.com/jackc/pgx/v5"

	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/queries"
)

const (
	headerIdempotencyKey = "Idempotency-Key"
	maxIdempotencyKey    = 255 // bytes
	// keyPatience is how long a request waits for the transaction of another one
	// with its key, in the words of Postgres.
	keyPatience = "1ms"
)

var (
	errKeyForm  = invalid(FieldError{headerIdempotencyKey, "must be 1 to 255 printable ASCII characters"})
	errKeyOther = invalid(FieldError{headerIdempotencyKey, "was used for another request: a new one needs a key of its own"})
	errKeyBusy  = &Error{
		Status: http.StatusConflict, Message: "the first request with this " + headerIdempotencyKey + " is under way, ask again",
		Fields:     []FieldError{{headerIdempotencyKey, "belongs to a request under way"}},
		RetryAfter: time.Second,
	}
)

// onceRequest is a request that its client may repeat: what is done for a key
// is done once, and its answer kept in the transaction that did it. Keys belong
// to a token and a route. A request that failed leaves its key free.
type onceRequest struct {
	onceKey
	hash [sha256.Size]byte // of what is asked
}

// onceKey tells such a request from others.
type onceKey struct {
	token int64 // 0 for ADMIN_TOKEN
	route string
	key   string
}

// keptAnswer is what the first request with a key was answered.
type keptAnswer struct {
	request  []byte // hash of what was asked
	status   int
	location string
	body     []byte
}

// readOnce returns nil for a request without a key.
func readOnce(c *fiber.Ctx, route string) (*onceRequest, error) {
	header := &c.Context().Request.Header
	switch values := header.PeekAll(headerIdempotencyKey); {
	case len(values) == 0:
		return nil, nil
	case len(values) > 1 || !validKey(values[0]):
		return nil, errKeyForm
	default:
		return &onceRequest{onceKey: onceKey{token: actorOf(c).token(), route: route, key: string(values[0])}}, nil
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

// find returns what the first request with the key was answered, nil if there
// was none that succeeded, and an error if there is one under way.
func (o *onceRequest) find(ctx context.Context, q *queries.Queries) (*keptAnswer, error) {
	if err := q.FreeIdempotencyKey(ctx, o.token, o.route, o.key); err != nil {
		return nil, fmt.Errorf("free key of a failed upload: %w", err)
	}
	row, err := q.FindIdempotencyKey(ctx, o.token, o.route, o.key)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for the key of a request: %w", err)
	case row.Status == 0:
		return nil, errKeyBusy
	}
	return &keptAnswer{row.Request, int(row.Status), row.Location, row.Body}, nil
}

// claim takes the key within the transaction that does what is asked. The
// constraint decides between requests that come at once: one gets the key, the
// others are told to ask again.
func (o *onceRequest) claim(ctx context.Context, q *queries.Queries, importID *int64) error {
	if o == nil {
		return nil
	}
	if err := q.FreeIdempotencyKey(ctx, o.token, o.route, o.key); err != nil {
		return fmt.Errorf("free key of a failed upload: %w", err)
	}
	patience := keyPatience
	if err := q.WaitForLocks(ctx, &patience); err != nil {
		return fmt.Errorf("wait no longer for locks: %w", err)
	}
	claimed, err := q.ClaimIdempotencyKey(ctx, queries.ClaimIdempotencyKeyParams{
		TokenID: o.token, Route: o.route, Key: o.key, ImportID: importID, Request: o.requestHash(importID),
	})
	switch {
	case postgres.LockTimeout(err), err == nil && claimed == 0:
		return errKeyBusy
	case err != nil:
		return fmt.Errorf("claim key of a request: %w", err)
	}
	if err := q.WaitForLocks(ctx, nil); err != nil {
		return fmt.Errorf("wait for locks as usual: %w", err)
	}
	return nil
}

// requestHash is not known yet of an upload that begins.
func (o *onceRequest) requestHash(importID *int64) []byte {
	if importID != nil {
		return nil
	}
	return o.hash[:]
}

// keep keeps the answer, in the transaction that did what was asked.
func (o *onceRequest) keep(ctx context.Context, q *queries.Queries, status int, location string, body []byte) error {
	if o == nil {
		return nil
	}
	err := q.KeepAnswer(ctx, queries.KeepAnswerParams{
		TokenID: o.token, Route: o.route, Key: o.key,
		Request: o.hash[:], Status: int16(status), Location: location, Body: body,
	})
	if err != nil {
		return fmt.Errorf("keep answer: %w", err)
	}
	return nil
}

// repeat answers as the first time, if the same was asked.
func (o *onceRequest) repeat(c *fiber.Ctx, first *keptAnswer) error {
	if subtle.ConstantTimeCompare(first.request, o.hash[:]) != 1 {
		return errKeyOther
	}
	c.Set(fiber.HeaderLocation, first.location)
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	return c.Status(first.status).Send(first.body)
}

// once makes a route with a JSON body take keys. A repeated request is answered
// before anything is validated: what was right then may not be now.
func (a *API) once(route string) func(huma.Context, func(huma.Context)) {
	return func(h huma.Context, next func(huma.Context)) {
		c := humafiber.Unwrap(h)
		request, err := readOnce(c, route)
		if err != nil || request == nil {
			a.pass(c, h, next, err)
			return
		}
		body, err := io.ReadAll(c.Context().Request.BodyStream())
		if err != nil { // cannot be: readBody has put a buffer there
			a.pass(c, h, next, err)
			return
		}
		request.hash = sha256.Sum256(body)
		c.Context().Request.SetBodyStream(bytes.NewReader(body), len(body))
		first, err := request.find(c.UserContext(), queries.New(a.Pool))
		if err == nil && first != nil {
			if err = request.repeat(c, first); err == nil {
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

// onceOf returns the key that a request came with, nil for none.
func onceOf(ctx context.Context) *onceRequest {
	request, _ := ctx.Value(onceRequestKey{}).(*onceRequest)
	return request
}

// create does what a POST asks for in a transaction of its own, once for its
// key. do returns where the new thing is, and the thing.
func create[T any](ctx context.Context, a *API, do func(*queries.Queries) (location string, body T, err error)) (location string, body T, err error) {
	request := onceOf(ctx)
	err = a.inTx(ctx, func(q *queries.Queries) error {
		if err := request.claim(ctx, q, nil); err != nil {
			return err
		}
		if location, body, err = do(q); err != nil || request == nil {
			return err
		}
		var encoded bytes.Buffer
		if err := huma.DefaultJSONFormat.Marshal(&encoded, body); err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		return request.keep(ctx, q, http.StatusCreated, location, encoded.Bytes())
	})
	return location, body, err
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
