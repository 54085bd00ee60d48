package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gofiber/fiber/v2"

	"github.com/signpost/signpost/internal/service"
)

// FieldError says why one field of a request is wrong.
type FieldError = service.FieldError

// Error is the answer to a request that failed. All failed requests have an answer of
// this form (I5).
type Error struct {
	Message string       `json:"error" example:"original_url must start with http:// or https://" doc:"What went wrong, in one sentence."`
	Status  int          `json:"code" example:"400" doc:"The HTTP status."`
	Fields  []FieldError `json:"fields,omitempty" doc:"Every field at fault, if fields are."`
	Hint    string       `json:"hint,omitempty" example:"upper and lower case count: there is https://sign.example/spring" doc:"What to do instead. Of a short link that there is not: one that differs in case only."`
	near    *nearLink    // the link in Hint, if it is about one
	// RetryAfter, if not zero, is the time after which a client may try again. It is
	// sent in whole seconds, rounded up.
	RetryAfter time.Duration `json:"-"`
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// GetStatus implements huma.StatusError.
func (e *Error) GetStatus() int { return e.Status }

// GetHeaders implements huma.HeadersError.
func (e *Error) GetHeaders() http.Header {
	h := http.Header{}
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	if e.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="signpost"`)
	}
	return h
}

// invalid returns the error for a request with an invalid field.
func invalid(field, message string) *Error {
	return fromService(service.Invalid(FieldError{Field: field, Message: message}))
}

func badRequest(message string, fields ...FieldError) *Error {
	return &Error{Status: http.StatusBadRequest, Message: message, Fields: fields}
}

func unauthorized(message string) *Error {
	return &Error{Status: http.StatusUnauthorized, Message: message}
}

func gone(message string) *Error {
	return &Error{Status: http.StatusGone, Message: message}
}

func tooLarge(message string) *Error {
	return &Error{Status: http.StatusRequestEntityTooLarge, Message: message}
}

func unsupported(message string) *Error {
	return &Error{Status: http.StatusUnsupportedMediaType, Message: message}
}

func tooMany(message string, retryAfter time.Duration) *Error {
	return &Error{Status: http.StatusTooManyRequests, Message: message, RetryAfter: retryAfter}
}

func unavailable(message string) *Error { return fromService(service.Unavailable(message)) }

var errDatabase = fromService(service.ErrDatabase)

var errInternal = &Error{Status: http.StatusInternalServerError, Message: "something went wrong, the incident was logged"}

// byKind is the status of each class of errors.
var byKind = map[service.Kind]int{
	service.KindInvalid:      http.StatusBadRequest,
	service.KindUnknownActor: http.StatusUnauthorized,
	service.KindForbidden:    http.StatusForbidden,
	service.KindNotFound:     http.StatusNotFound,
	service.KindConflict:     http.StatusConflict,
	service.KindUnavailable:  http.StatusServiceUnavailable,
	service.KindUnanswerable: http.StatusUnprocessableEntity,
}

func fromService(e *service.Error) *Error {
	return &Error{Status: byKind[e.Kind], Message: e.Message, Fields: e.Fields, Hint: e.Hint, RetryAfter: e.RetryAfter}
}

// byStatus has the messages for errors that arise outside of our handlers.
var byStatus = map[int]string{
	http.StatusBadRequest:                  "the request cannot be understood",
	http.StatusNotFound:                    "there is nothing at this address",
	http.StatusMethodNotAllowed:            "this address does not allow the method",
	http.StatusRequestTimeout:              "the request took too long to arrive",
	http.StatusRequestEntityTooLarge:       "the request is too large",
	http.StatusRequestHeaderFieldsTooLarge: "the address and headers of the request are too long",
	http.StatusServiceUnavailable:          "the service is overloaded, try again shortly",
}

// fromError returns the answer for err. For an unexpected error that is errInternal
// itself, and callers then log err.
func fromError(err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	var router *fiber.Error
	if errors.As(err, &router) {
		return plainError(router.Code)
	}
	if known := service.Classify(err); known != nil {
		return fromService(known)
	}
	return errInternal
}

// worded reports whether an error is worded for clients.
func worded(err error) bool {
	var own *Error
	var known *service.Error
	return errors.As(err, &own) || errors.As(err, &known)
}

// plainError returns the answer for a status without further details.
func plainError(status int) *Error {
	message := byStatus[status]
	if message == "" {
		message = strings.ToLower(http.StatusText(status))
	}
	return &Error{Status: status, Message: message}
}

// answerable returns the answer for err. It logs err unless the client is at fault.
func answerable(log *slog.Logger, requestID string, err error) *Error {
	e := fromError(err)
	if e == errBusy || e == errHeld { // their metrics say more than a log line for each
		return e
	}
	if e.Status >= http.StatusInternalServerError {
		level := slog.LevelWarn
		if e == errInternal {
			level = slog.LevelError
		}
		log.LogAttrs(context.Background(), level, "request failed",
			slog.Int("status", e.Status), slog.String("request_id", requestID), slog.Any("error", err))
	}
	return e
}

// fail answers c with err. It never fails itself.
func (a *API) fail(c *fiber.Ctx, err error) error {
	e := answerable(a.Log, responseID(c), err)
	for name, values := range e.GetHeaders() {
		c.Set(name, values[0])
	}
	writeError(&c.Context().Response, e)
	return nil
}

// newHumaError turns an error of Huma into an Error. It replaces huma.NewError, so the
// schema of errors comes from it too.
func newHumaError(status int, message string, errs ...error) huma.StatusError {
	if status == http.StatusUnprocessableEntity {
		status = http.StatusBadRequest
	}
	fields := fieldErrors(errs)
	switch {
	case len(fields) > 0:
		return &Error{Status: status, Message: service.Invalid(fields...).Message, Fields: fields}
	case len(errs) > 0:
		return &Error{Status: status, Message: "the body must be a JSON object"}
	}
	return &Error{Status: status, Message: message}
}

// fieldErrors merges the errors of Huma and of our rules into one list with one entry
// for each field. Our rules come last and replace Huma's error, because they say more
// about a field than its type.
func fieldErrors(errs []error) []FieldError {
	var fields []FieldError
	place := map[string]int{}
	for _, err := range errs {
		f, ok := fieldError(err)
		if !ok {
			continue
		}
		if i, again := place[f.Field]; again {
			fields[i] = f
			continue
		}
		place[f.Field] = len(fields)
		fields = append(fields, f)
	}
	return fields
}

// fieldError returns the field and the message of an error of Huma or of our rules. ok
// is false if the error is about the body as a whole.
func fieldError(err error) (f FieldError, ok bool) {
	var detail *huma.ErrorDetail
	if !errors.As(err, &detail) {
		return f, false
	}
	if name, found := strings.CutPrefix(detail.Message, "expected required property "); found {
		return FieldError{Field: strings.TrimSuffix(name, " to be present"), Message: "is required"}, true
	}
	_, name, found := strings.Cut(detail.Location, ".")
	if !found {
		return f, false
	}
	name, _, _ = strings.Cut(name, "[") // for a list, the field as a whole
	return FieldError{Field: name, Message: rephrase(detail.Message)}, true
}

// rephrase changes Huma's messages so that they can follow a field's name.
func rephrase(message string) string {
	switch message {
	case "invalid integer":
		return "must be an integer"
	case "invalid boolean":
		return "must be true or false"
	case "unexpected property":
		return "is not known"
	}
	message = strings.TrimPrefix(message, "invalid value: ") // before what a parameter says itself
	if rest, ok := strings.CutPrefix(message, "expected value to be one of \""); ok {
		return "must be one of " + strings.TrimSuffix(rest, `"`)
	}
	if rest, ok := strings.CutPrefix(message, "expected "); ok {
		return "must be " + rest
	}
	return message
}

// encode returns the JSON of e.
func (e *Error) encode() []byte {
	body, err := json.Marshal(e)
	if err != nil { // cannot be: strings and numbers only
		return []byte(`{"error":"something went wrong","code":500}`)
	}
	return body
}

func init() {
	// Huma keeps these two for the whole process; there is no other way to
	// give validation errors a shape.
	huma.NewError = newHumaError
	huma.NewErrorWithContext = func(_ huma.Context, status int, message string, errs ...error) huma.StatusError {
		return newHumaError(status, message, errs...)
	}
}
