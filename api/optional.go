package api

import (
	"encoding/json"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
)

// Optional is a field of a request body that may be absent, null or a value.
// In a body it must have a tag that says whether it is required and may be null.
type Optional[T any] struct {
	Value T
	Sent  bool // also when null
	Null  bool
	// wrong says that what was sent is no T.
	wrong bool
}

// UnmarshalJSON never fails, so that one wrong field does not hide the others;
// check reports what is wrong.
func (o *Optional[T]) UnmarshalJSON(data []byte) error {
	*o = Optional[T]{Sent: true}
	if string(data) == "null" {
		o.Null = true
		return nil
	}
	o.wrong = json.Unmarshal(data, &o.Value) != nil
	return nil
}

// Schema implements huma.SchemaProvider: the schema of T.
func (*Optional[T]) Schema(r huma.Registry) *huma.Schema {
	s := huma.SchemaFromType(r, reflect.TypeFor[T]())
	s.Nullable = false
	return s
}

// faults collects what is wrong with the fields of a body, for Huma to report
// with what it found itself.
type faults []error

func (f *faults) add(field, message string) {
	*f = append(*f, &huma.ErrorDetail{Location: "body." + field, Message: message})
}

// check adds what is wrong with a field that has a rule; the rule is asked only
// about a value of the right type. It reports whether there is a value that
// keeps the rule.
func check[T any](f *faults, field string, o Optional[T], kind string, nullable bool, rule func(T) error) bool {
	switch {
	case !o.Sent:
		return false
	case o.Null:
		if !nullable {
			f.add(field, "must not be null")
		}
		return false
	case o.wrong:
		f.add(field, "must be "+kind)
		return false
	}
	if rule == nil {
		return true
	}
	if err := rule(o.Value); err != nil {
		f.add(field, err.Error())
		return false
	}
	return true
}
