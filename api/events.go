package api

import (
	"context"
	"encoding/json"
	"iter"
	"math"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/signpost/signpost/internal/csvimport"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/service"
	"github.com/signpost/signpost/queries"
)

// Event is something that happened to a user or a link.
type Event struct {
	ID        int64     `json:"id" example:"1001"`
	URLID     *int64    `json:"url_id" example:"7"`
	UserID    *int64    `json:"user_id" example:"42"`
	EventType string    `json:"event_type" enum:"created,updated,deleted,clicked" example:"clicked"`
	Timestamp time.Time `json:"timestamp"`
	// Details hold a clickDetails, a changeDetails, or the details in an imported file.
	Details json.RawMessage `json:"details"`
}

// clickDetails are the details of a click; unknown ones are null.
type clickDetails struct {
	Referrer *string `json:"referrer"`
	Browser  *string `json:"browser"`
	OS       *string `json:"os"`
	Device   *string `json:"device"`
	Country  *string `json:"country"`
	Bot      *bool   `json:"bot"`
}

// TransformSchema implements huma.SchemaTransformer. Without it, Huma takes details,
// which are JSON already, for a list of bytes.
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

func viewEvent(r queries.ListEventsDownRow) Event {
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
	OrderInput
	URLID     int64     `query:"url_id" minimum:"1" doc:"Only events of this link."`
	UserID    int64     `query:"user_id" minimum:"1" doc:"Only events of this user and of the user's links."`
	EventType string    `query:"event_type" enum:"created,updated,deleted,clicked" doc:"Only events of this type."`
	From      timeParam `query:"from" doc:"Only events at or after this time."`
	To        timeParam `query:"to" doc:"Only events before this time."`
}

// maxEventOffset is the largest offset at which a numbered page of events may begin.
const maxEventOffset = 10_000

var errEventsTooDeep = invalid(FieldError{Field: "page", Message: "is too far in for this list: follow next_cursor instead, or begin at another time"})

// endOfTime is later than every event. Postgres accepts every year that JSON does.
var endOfTime = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// eventAt is a position between events.
type eventAt struct {
	at time.Time
	id int64
}

// before reports whether a comes before b in time.
func (a eventAt) before(b eventAt) bool {
	return a.at.Before(b.at) || a.at.Equal(b.at) && a.id < b.id
}

// eventList is a list of the events between two positions, which are not included.
type eventList struct {
	oldest      bool // the oldest event first; otherwise the newest
	since, till eventAt

	urlID, userID *int64
	eventType     *string
}

// list returns the list that the request asks for. It shares no memory with the
// request. Where a cursor and a time bound the same end, the narrower of the two
// counts.
func (in *eventListInput) list() (eventList, error) {
	order, at, err := in.place(eventCursors, newestFirst, 2)
	if err != nil {
		return eventList{}, err
	}
	l := eventList{
		oldest: order == oldestFirst,
		since:  eventAt{in.From.Time, math.MinInt64}, till: eventAt{in.To.or(endOfTime), math.MinInt64},
		urlID: given(in.URLID), userID: given(in.UserID), eventType: given(strings.Clone(in.EventType)),
	}
	if at == nil {
		return l, nil
	}
	cursor := eventAt{time.UnixMicro(at[0]).UTC(), at[1]}
	switch {
	case service.CheckTime(cursor.at) != nil:
		return eventList{}, invalid(FieldError{Field: "cursor", Message: "is not a cursor of this list"})
	case l.oldest && l.since.before(cursor):
		l.since = cursor
	case !l.oldest && cursor.before(l.till):
		l.till = cursor
	}
	return l, nil
}

func (l eventList) cursor(at eventAt) string {
	order := newestFirst
	if l.oldest {
		order = oldestFirst
	}
	return makeCursor(eventCursors[order], at.at.UnixMicro(), at.id)
}

// behind returns the part of the list after an event.
func (l eventList) behind(at eventAt) eventList {
	if l.oldest {
		l.since = at
	} else {
		l.till = at
	}
	return l
}

// spans splits the list into spans of time, in the list's order. The first span is one
// month; each further one is as long as all before it together. A query for a span
// opens only the partitions of its months, because opening all partitions of ten years
// takes twenty times as long as opening one. months are the months that have
// partitions.
func (l eventList) spans(months []time.Time, now time.Time) iter.Seq[eventList] {
	return func(yield func(eventList) bool) {
		if len(months) == 0 {
			months = []time.Time{postgres.MonthOf(now)}
		}
		first, last := months[0], months[len(months)-1]
		if now.Before(last) && !now.Before(first) {
			last = postgres.MonthOf(now) // the months ahead are likely empty
		}
		for n := 1; ; n *= 2 {
			span := l
			if l.oldest {
				begin := first
				if l.since.at.After(first) {
					begin = l.since.at
				}
				edge := postgres.MonthOf(begin).AddDate(0, n, 0)
				if edge.Before(l.till.at) && !edge.After(last) {
					span.till = eventAt{edge, math.MinInt64}
				}
				l.since = span.till
			} else {
				end := l.till.at.Add(-time.Microsecond)
				if end.After(last) {
					end = last
				}
				edge := postgres.MonthOf(end).AddDate(0, 1-n, 0)
				if edge.After(l.since.at) && edge.After(first) {
					span.since = eventAt{edge, math.MinInt64}
				}
				l.till = span.since
			}
			if !yield(span) || !l.since.before(l.till) {
				return
			}
		}
	}
}

// events reads up to limit rows of a list, fewer only if there are no more.
func (a *API) events(ctx context.Context, l eventList, offset, limit int) ([]queries.ListEventsDownRow, error) {
	months, err := postgres.Months(ctx, a.Pool)
	if err != nil {
		return nil, err
	}
	var rows []queries.ListEventsDownRow
	for span := range l.spans(months, time.Now()) {
		more, err := a.eventsOf(ctx, span, offset, limit-len(rows))
		if err != nil {
			return nil, err
		}
		if rows = append(rows, more...); len(rows) == limit {
			break
		}
		if offset > 0 && len(more) == 0 {
			skipped, err := a.lists().CountEvents(ctx, queries.CountEventsParams{
				Since: span.since.at, SinceID: span.since.id, Until: span.till.at, UntilID: span.till.id,
				URLID: span.urlID, UserID: span.userID, EventType: span.eventType,
			})
			if err != nil {
				return nil, err
			}
			offset = max(offset-int(skipped), 0)
		} else {
			offset = 0
		}
	}
	return rows, nil
}

// eventsOf reads rows of one span of a list.
func (a *API) eventsOf(ctx context.Context, span eventList, offset, limit int) ([]queries.ListEventsDownRow, error) {
	p := queries.ListEventsDownParams{
		At: span.till.at, AtID: span.till.id, Until: span.since.at,
		URLID: span.urlID, UserID: span.userID, EventType: span.eventType,
		RowOffset: int32(offset), RowLimit: int32(limit),
	}
	if !span.oldest {
		return a.lists().ListEventsDown(ctx, p)
	}
	p.At, p.AtID, p.Until = span.since.at, span.since.id, span.till.at
	up, err := a.lists().ListEventsUp(ctx, queries.ListEventsUpParams(p))
	rows := make([]queries.ListEventsDownRow, len(up))
	for i, row := range up {
		rows[i] = queries.ListEventsDownRow(row)
	}
	return rows, err
}

func (a *API) listEvents(ctx context.Context, in *eventListInput) (*listOutput[Event], error) {
	l, err := in.list()
	if err != nil {
		return nil, err
	}
	if in.offset() > maxEventOffset {
		return nil, errEventsTooDeep
	}
	rows, err := a.events(ctx, l, in.offset(), in.size()+1)
	if err != nil {
		return nil, err
	}
	return newList(&in.PageInput, rows, viewEvent, func(r queries.ListEventsDownRow) string {
		return l.cursor(eventAt{r.OccurredAt, r.ID})
	})
}

// exportEvents reads the events that listEvents would list, all of them.
func (a *API) exportEvents(_ context.Context, in *eventListInput) (exportSource, error) {
	l, err := in.list()
	offset := in.offset()
	if offset > maxEventOffset {
		err = errEventsTooDeep
	}
	return exportSource{kind: csvimport.KindEvents, piece: eventPiece, header: eventColumns, next: func(ctx context.Context, limit int32) ([]exportRow, error) {
		rows, err := a.events(ctx, l, offset, int(limit))
		if err != nil || len(rows) == 0 {
			return nil, err
		}
		last := rows[len(rows)-1]
		l, offset = l.behind(eventAt{last.OccurredAt, last.ID}), 0
		return exportRows(rows, viewEvent), nil
	}}, err
}
