package api

import (
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/signpost/signpost/internal/service"
)

// Optional is a field of a request body that may be absent, null or a value.
// In a body it must have a tag that says whether it is required and may be null.
type Optional[T any] struct{ service.Optional[T] }

// Schema implements huma.SchemaProvider: the schema of T.
func (*Optional[T]) Schema(r huma.Registry) *huma.Schema {
	s := huma.SchemaFromType(r, reflect.TypeFor[T]())
	s.Nullable = false
	return s
}

// OptionalTime is an Optional time of a request.
type OptionalTime struct{ service.OptionalTime }

// Schema implements huma.SchemaProvider.
func (*OptionalTime) Schema(huma.Registry) *huma.Schema { return timeSchema("2030-01-31T12:00:00Z") }

// bodyFaults turns faults of a body's fields into errors that Huma reports with its own.
func bodyFaults(faults service.Faults) []error {
	errs := make([]error, len(faults))
	for i, f := range faults {
		errs[i] = &huma.ErrorDetail{Location: "body." + f.Field, Message: f.Message}
	}
	return errs
}

// timeSchema is the schema of a time in a request. Its format is only for readers of
// the specification: Huma's own check of that format rejects lower case.
func timeSchema(example string) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Examples: []any{example}, Extensions: map[string]any{"format": "date-time"},
	}
}

// timeParam is a time in a query, the zero time if absent.
type timeParam struct{ time.Time }

// Schema implements huma.SchemaProvider.
func (timeParam) Schema(huma.Registry) *huma.Schema { return timeSchema("2026-01-31T12:00:00Z") }

// UnmarshalText implements encoding.TextUnmarshaler. If the plus sign of a zone was not
// percent-encoded, it arrives as a blank.
func (t *timeParam) UnmarshalText(text []byte) (err error) {
	const zone = len(" 02:00")
	s := string(text)
	if i := len(s) - zone; i > 0 && s[i] == ' ' {
		s = s[:i] + "+" + s[i+1:]
	}
	t.Time, err = service.ParseTime(s)
	return err
}
