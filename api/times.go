package api

import (
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/signpost/signpost/internal/service"
)

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

func (t timeParam) or(absent time.Time) time.Time {
	if t.IsZero() {
		return absent
	}
	return t.Time
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}
