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

// UnmarshalJSON never fails, so that one wrong field does not hide the others; Check
// reports the fault.
func (o *Optional[T]) UnmarshalJSON(data []byte) error {
	*o = Optional[T]{Sent: true}
	if string(data) == "null" {
		o.Null = true
		return nil
	}
	o.Wrong = json.Unmarshal(data, &o.Value) != nil
	return nil
}

// Faults collects the faults of the fields of an input.
type Faults []FieldError

// Add notes a fault of a field.
func (f *Faults) Add(field, message string) { *f = append(*f, FieldError{field, message}) }

// Err returns an error that names all faults, nil if there are none.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	return Invalid(f...)
}

// Check adds the fault of a field, if it has one. The rule is only asked about a value
// of the right type. Check reports whether there is a value that keeps the rule.
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

// ErrTime is the error for a text that ParseTime cannot read.
var ErrTime = errors.New("must be a time in RFC 3339 from 1970 to 9999, such as 2030-01-31T12:00:00Z")

// ParseTime reads a time that a user gave, in RFC 3339, where T and Z may also be in
// lower case. The year must be one that CheckTime allows. Any error is ErrTime.
func ParseTime(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, strings.ToUpper(text))
	if err != nil || CheckTime(t) != nil {
		return time.Time{}, ErrTime
	}
	return t, nil
}

// CheckTime allows only times that both JSON and Postgres can hold in any zone.
func CheckTime(t time.Time) error {
	if year := t.UTC().Year(); year < 1970 || year > 9999 {
		return ErrTime
	}
	return nil
}

// OptionalTime is an Optional time. ParseTime reads its text.
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

// Check adds the fault of the time, if it has one, and reports whether there is a time.
// It may be null.
func (o OptionalTime) Check(f *Faults, field string) bool {
	return Check(f, field, o.Optional, strings.TrimPrefix(ErrTime.Error(), "must be "), true, CheckTime)
}
