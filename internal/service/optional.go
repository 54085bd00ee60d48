package service

import (
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// Optional is a field of an input that may be absent, null or a value.
type Optional[T any] struct {
	Value T
	Sent  bool // also when null
	Null  bool
	// Wrong says that the value was not of type T.
	Wrong bool
}

// UnmarshalJSON never fails, so that one wrong field does not hide the others;
// Check reports what is wrong.
func (o *Optional[T]) UnmarshalJSON(data []byte) error {
	*o = Optional[T]{Sent: true}
	if string(data) == "null" {
		o.Null = true
		return nil
	}
	o.Wrong = json.Unmarshal(data, &o.Value) != nil
	return nil
}

// Faults collects what is wrong with the fields of an input.
type Faults []FieldError

// Add notes what is wrong with a field.
func (f *Faults) Add(field, message string) { *f = append(*f, FieldError{field, message}) }

// Err returns the error that says all of it, nil if nothing is wrong.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	return Invalid(f...)
}

// Check adds what is wrong with a field that has a rule; the rule is asked only
// about a value of the right type. It reports whether there is a value that
// keeps the rule.
func Check[T any](f *Faults, field string, o Optional[T], kind string, nullable bool, rule func(T) error) bool {
	switch {
	case !o.Sent:
		return false
	case o.Null:
		if !nullable {
			f.Add(field, "must not be null")
		}
		return false
	case o.Wrong:
		f.Add(field, "must be "+kind)
		return false
	}
	if rule == nil {
		return true
	}
	if err := rule(o.Value); err != nil {
		f.Add(field, err.Error())
		return false
	}
	return true
}

// ErrTime is the error of a time that ParseTime does not read.
var ErrTime = errors.New("must be a time in RFC 3339 from 1970 to 9999, such as 2030-01-31T12:00:00Z")

// ParseTime reads a time that a user gave: RFC 3339, which lets T and Z be in
// lower case, within the years that CheckTime allows. Otherwise the error is ErrTime.
func ParseTime(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, strings.ToUpper(text))
	if err != nil || CheckTime(t) != nil {
		return time.Time{}, ErrTime
	}
	return t, nil
}

// CheckTime keeps times to what JSON and Postgres both can hold in any zone.
func CheckTime(t time.Time) error {
	if year := t.UTC().Year(); year < 1970 || year > 9999 {
		return ErrTime
	}
	return nil
}

// OptionalTime is an Optional time, which ParseTime reads.
type OptionalTime struct{ Optional[time.Time] }

// UnmarshalJSON never fails, like the one of Optional.
func (o *OptionalTime) UnmarshalJSON(data []byte) error {
	o.Optional = Optional[time.Time]{Sent: true}
	if o.Null = string(data) == "null"; o.Null {
		return nil
	}
	var text string
	err := json.Unmarshal(data, &text)
	if err == nil {
		o.Value, err = ParseTime(text)
	}
	o.Wrong = err != nil
	return nil
}

// Check adds what is wrong with the time, which may be null, and reports whether
// there is one.
func (o OptionalTime) Check(f *Faults, field string) bool {
	return Check(f, field, o.Optional, strings.TrimPrefix(ErrTime.Error(), "must be "), true, CheckTime)
}
