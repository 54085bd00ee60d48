package service

import (
	"context"
	"errors"
	"time"

	"github.com/signpost/signpost/internal/postgres"
)

// FieldError says why one field of an input is wrong. The message is worded so that it
// can follow the field's name.
type FieldError struct {
	Field   string `json:"field" example:"original_url" doc:"Name of the field or parameter at fault."`
	Message string `json:"message" example:"must start with http:// or https://" doc:"What is wrong with it."`
}

// Kind is the class of an [Error].
type Kind int

// The kinds of errors.
const (
	KindInvalid      Kind = iota // the input is wrong
	KindUnknownActor             // it is not known who asks
	KindForbidden                // the actor may not do this
	KindNotFound                 // the thing does not exist
	KindConflict                 // the state of another thing forbids it
	KindUnavailable              // the same request may well work later
	KindUnanswerable             // the input is sound, and there is no answer to it
)

// Error is a failure whose message a user may read. A surface turns its kind into
// its own terms, as HTTP does into a status.
type Error struct {
	Kind    Kind
	Message string
	Fields  []FieldError // every field at fault, if the error is about fields
	Hint    string       // what to do instead, if the message does not say it
	// RetryAfter, if not zero, is when it makes sense to try again.
	RetryAfter time.Duration
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Invalid returns the error that these fields are wrong. At least one is required.
func Invalid(fields ...FieldError) *Error {
	message := "several fields are invalid"
	if len(fields) == 1 {
		message = fields[0].Field + " " + fields[0].Message
	}
	return &Error{Kind: KindInvalid, Message: message, Fields: fields}
}

// Forbidden returns the error that the actor may not do this.
func Forbidden(message string) *Error { return &Error{Kind: KindForbidden, Message: message} }

// NotFound returns the error that there is no such thing, for example no such "user".
func NotFound(thing string) *Error {
	return &Error{Kind: KindNotFound, Message: "there is no such " + thing}
}

// Conflict returns the error that the state of another thing forbids this.
func Conflict(message string, fields ...FieldError) *Error {
	return &Error{Kind: KindConflict, Message: message, Fields: fields}
}

// Unavailable returns the error that the same request may work in a second.
func Unavailable(message string) *Error {
	return &Error{Kind: KindUnavailable, Message: message, RetryAfter: time.Second}
}

// ErrDatabase says that Postgres is away or overloaded.
var ErrDatabase = Unavailable("the database cannot be reached, try again shortly")

var errTooLong = Unavailable("the database did not answer in time, try again shortly or ask for less")

// byConstraint maps a constraint to the error that a user gets when a request violates
// it. A request cannot violate any other constraint, because validation comes first.
var byConstraint = map[string]*Error{
	"users_username_key":   taken("username"),
	"users_email_key":      taken("email"),
	"urls_short_code_key":  taken("short_code"),
	"urls_user_id_fkey":    Invalid(FieldError{"user_id", "is not a user"}),
	"urls_domain_id_fkey":  Invalid(FieldError{"domain", "was just deleted"}),
	"domains_host_key":     taken("host"),
	"marks_network_key":    marked("network"),
	"marks_user_agent_key": marked("user_agent"),
	// An import has just taken the id that the sequence was about to give.
	"users_pkey": Unavailable("the id was taken by an import, try again"),
	"urls_pkey":  Unavailable("the id was taken by an import, try again"),
}

func taken(field string) *Error {
	return Conflict(field+" is taken", FieldError{field, "is taken"})
}

func marked(field string) *Error {
	return Conflict(field+" is marked already: delete that mark first", FieldError{field, "is marked already"})
}

// Classify returns err as an error of this package if it is one, or if it is an error
// of Postgres with a known meaning. It returns nil for an error that nobody foresaw.
func Classify(err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	if known := byConstraint[postgres.Constraint(err)]; known != nil {
		return known
	}
	switch {
	case postgres.StatementTimeout(err):
		return errTooLong
	case postgres.Unavailable(err), errors.Is(err, context.Canceled):
		return ErrDatabase
	case postgres.Retryable(err):
		return Unavailable("other changes got in the way, try again")
	case postgres.Constraint(err) == "" && postgres.DataFault(err):
		return &Error{Kind: KindInvalid, Message: "a value cannot be stored"}
	}
	return nil
}
