package api

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

var errTime = errors.New("must be a time in RFC 3339 from 1970 to 9999, such as 2030-01-31T12:00:00Z")

// parseTime reads a time that a client sent: RFC 3339, which lets T and Z be in
// lower case, within what checkTime allows. Otherwise the error is errTime.
func parseTime(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, strings.ToUpper(text))
	if err != nil || checkTime(t) != nil {
		return time.Time{}, errTime
	}
	return t, nil
}

// checkTime keeps times to what JSON and Postgres both can hold in any zone.
func checkTime(t time.Time) error {
	if year := t.UTC().Year(); year < 1970 || year > 9999 {
		return errTime
	}
	return nil
}

// timeSchema is the schema of a time in a request. Its format is for readers of
// the specification only: Huma's own idea of it knows no lower case.
func timeSchema(example string) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Examples: []any{example}, Extensions: map[string]any{"format": "date-time"},
	}
}

// timeParam is a time in a query, the zero time if absent.
type timeParam struct{ time.Time }

// Schema implements huma.SchemaProvider.
func (timeParam) Schema(huma.Registry) *huma.Schema { return timeSchema("2026-01-31T12:00:00Z") }

// UnmarshalText implements encoding.TextUnmarshaler. The plus sign of a zone that
// was not percent-encoded is a blank by then.
func (t *timeParam) UnmarshalText(text []byte) (err error) {
	const zone = len(" 02:00")
	s := string(text)
	if i := len(s) - zone; i > 0 && s[i] == ' ' {
		s = s[:i] + "+" + s[i+1:]
	}
	t.Time, err = parseTime(s)
	return err
}

func (t timeParam) or(absent time.Time) time.Time {
	if t.IsZero() {
		return absent
	}
	return t.Time
}

// OptionalTime is an Optional time of a request.
type OptionalTime struct{ Optional[time.Time] }

// UnmarshalJSON never fails, like that of Optional.
func (o *OptionalTime) UnmarshalJSON(data []byte) error {
	o.Optional = Optional[time.Time]{Sent: true}
	if o.Null = string(data) == "null"; o.Null {
		return nil
	}
	var text string
	err := json.Unmarshal(data, &text)
	if err == nil {
		o.Value, err = parseTime(text)
	}
	o.wrong = err != nil
	return nil
}

// Schema implements huma.SchemaProvider.
func (*OptionalTime) Schema(huma.Registry) *huma.Schema { return timeSchema("2030-01-31T12:00:00Z") }

// check adds what is wrong with the time, which may be null, and reports whether
// there is one.
func (o OptionalTime) check(f *faults, field string) bool {
	return check(f, field, o.Optional, strings.TrimPrefix(errTime.Error(), "must be "), true, checkTime)
}
