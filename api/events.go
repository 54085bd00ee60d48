package api

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/signpost/signpost/queries"
)

// Event is something that happened to a user or a link.
type Event struct {
	ID        int64     `json:"id" example:"1001"`
	URLID     *int64    `json:"url_id" example:"7"`
	UserID    *int64    `json:"user_id" example:"42"`
	EventType string    `json:"event_type" enum:"created,updated,deleted,clicked" example:"clicked"`
	Timestamp time.Time `json:"timestamp"`
	// Details hold a clickDetails, a changeDetails, or what an import brought.
	Details json.RawMessage `json:"details"`
}

// clickDetails are the details of a click; what is not known is null.
type clickDetails struct {
	Referrer *string `json:"referrer"`
	Browser  *string `json:"browser"`
	OS       *string `json:"os"`
	Device   *string `json:"device"`
	Country  *string `json:"country"`
	Bot      *bool   `json:"bot"`
}

// TransformSchema implements huma.SchemaTransformer: to Huma, details that are
// JSON already look like a list of bytes.
func (*Event) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["details"] = &huma.Schema{
		Type: huma.TypeObject,
		Description: "Of a click: referrer, browser, os, device, country, bot. Of a change: entity, what was changed, " +
			"with old and new values, and by which token. Of an imported event: what the file said.",
		AdditionalProperties: true,
		Examples: []any{map[string]any{
			"referrer": "news.example", "browser": "Firefox", "os": "Linux",
			"device": "desktop", "country": "DE", "bot": false,
		}},
	}
	return s
}

func viewEvent(r queries.ListEventsRow) Event {
	details := r.Details
	switch {
	case len(details) > 0:
	case r.EventType == "clicked":
		details, _ = json.Marshal(clickDetails{ // cannot fail: strings and a bool
			Referrer: r.ReferrerHost, Browser: r.Browser, OS: r.OS, Device: r.Device, Country: r.Country, Bot: r.Bot,
		})
	default:
		details = json.RawMessage("{}")
	}
	return Event{
		ID: r.ID, URLID: r.URLID, UserID: r.UserID, EventType: r.EventType,
		Timestamp: r.OccurredAt.UTC(), Details: details,
	}
}

type eventListInput struct {
	ExportInput
	URLID     int64     `query:"url_id" minimum:"1" doc:"Only events of this link."`
	UserID    int64     `query:"user_id" minimum:"1" doc:"Only events of this user and of the user's links."`
	EventType string    `query:"event_type" enum:"created,updated,deleted,clicked" doc:"Only events of this type."`
	From      timeParam `query:"from" doc:"Only events at or after this time."`
	To        timeParam `query:"to" doc:"Only events before this time."`
}

// endOfTime is after every event. Postgres takes any year that JSON does.
var endOfTime = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// filter returns the filters and where the cursor is, in memory of its own.
func (in *eventListInput) filter() (queries.ListEventsParams, error) {
	at, err := in.position("events", endOfTime.UnixMicro(), math.MaxInt64)
	if err != nil {
		return queries.ListEventsParams{}, err
	}
	before := time.UnixMicro(at[0])
	if checkTime(before) != nil {
		return queries.ListEventsParams{}, invalid(FieldError{"cursor", "is not a cursor of this list"})
	}
	return queries.ListEventsParams{
		BeforeAt: before, BeforeID: at[1], FromAt: in.From.Time, ToAt: in.To.or(endOfTime),
		URLID: given(in.URLID), UserID: given(in.UserID), EventType: given(strings.Clone(in.EventType)),
	}, nil
}

func (a *API) listEvents(ctx context.Context, in *eventListInput) (*listOutput[Event], error) {
	filter, err := in.filter()
	if err != nil {
		return nil, err
	}
	filter.RowOffset, filter.RowLimit = in.offset(), in.rows()
	rows, err := a.lists().ListEvents(ctx, filter)
	if err != nil {
		return nil, err
	}
	return newList(&in.PageInput, rows, viewEvent, func(r queries.ListEventsRow) string {
		return makeCursor("events", r.OccurredAt.UnixMicro(), r.ID)
	})
}

// timeParam is a time in a query, the zero time if absent.
type timeParam struct{ time.Time }

// Schema implements huma.SchemaProvider.
func (timeParam) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time", Examples: []any{"2026-01-31T12:00:00Z"}}
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *timeParam) UnmarshalText(text []byte) error {
	parsed, err := time.Parse(time.RFC3339, string(text))
	if err != nil || checkTime(parsed) != nil {
		return errTime
	}
	t.Time = parsed
	return nil
}

func (t timeParam) or(absent time.Time) time.Time {
	if t.IsZero() {
		return absent
	}
	return t.Time
}
