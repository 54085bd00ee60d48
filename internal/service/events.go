package service

import (
	"context"
	"encoding/json"
	"iter"
	"math"
	"time"

	"github.com/signpost/signpost/internal/clicks"
	"github.com/signpost/signpost/internal/postgres"
	"github.com/signpost/signpost/internal/visits"
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

// clickDetails are the details of a click; unknown ones are null. Bot says that the kind
// is not a person's, for clients that know only this.
type clickDetails struct {
	Referrer *string `json:"referrer"`
	Browser  *string `json:"browser"`
	OS       *string `json:"os"`
	Device   *string `json:"device"`
	Country  *string `json:"country"`
	Bot      bool    `json:"bot"`
	Kind     string  `json:"kind"`
	Trigger  string  `json:"trigger"`
}

func viewEvent(r queries.ListEventsDownRow) Event {
	details := r.Details
	switch {
	case len(details) > 0:
	case r.EventType == "clicked":
		kind, trigger := visits.Stored(r.Kind, r.Bot), clicks.TriggerLink.String()
		if r.Trigger != nil {
			trigger = *r.Trigger
		}
		details, _ = json.Marshal(clickDetails{ // cannot fail: strings and a bool
			Referrer: r.ReferrerHost, Browser: r.Browser, OS: r.OS, Device: r.Device, Country: r.Country,
			Bot: kind != visits.Person, Kind: string(kind), Trigger: trigger,
		})
	default:
		details = json.RawMessage("{}")
	}
	return Event{
		ID: r.ID, URLID: r.URLID, UserID: r.UserID, EventType: r.EventType,
		Timestamp: r.OccurredAt.UTC(), Details: details,
	}
}

// EventAt is a position between events.
type EventAt struct {
	At time.Time
	ID int64
}

// before reports whether a comes before b in time.
func (a EventAt) before(b EventAt) bool {
	return a.At.Before(b.At) || a.At.Equal(b.At) && a.ID < b.ID
}

// At returns the position of the event.
func (e Event) At() EventAt { return EventAt{e.Timestamp, e.ID} }

// EventList is a list of the events between two positions, which are not included.
// Make it with EventsBetween.
type EventList struct {
	Oldest      bool // the oldest event first; otherwise the newest
	since, till EventAt

	URLID, UserID *int64
	EventType     *string // or Changed
}

// Changed as the type of events stands for created, updated and deleted. It needs a link:
// only the changes of a link have an index in the order of time.
const Changed = "changed"

var errChangedOfLink = Invalid(FieldError{"event_type", "can be changed only together with url_id"})

// endOfTime is later than every event. Postgres accepts every year that JSON does.
var endOfTime = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// EventsBetween returns the list of all events from one time on and before another. The
// zero time is no bound.
func EventsBetween(from, to time.Time) EventList {
	if to.IsZero() {
		to = endOfTime
	}
	return EventList{since: EventAt{from, math.MinInt64}, till: EventAt{to, math.MinInt64}}
}

// Behind returns the part of the list after a position. A position outside of the list
// changes nothing.
func (l EventList) Behind(at EventAt) EventList {
	switch {
	case l.Oldest && l.since.before(at):
		l.since = at
	case !l.Oldest && at.before(l.till):
		l.till = at
	}
	return l
}

// spans splits the list into spans of time, in the list's order. The first span is one
// month; each further one is as long as all before it together. A query for a span
// opens only the partitions of its months, because opening all partitions of ten years
// takes twenty times as long as opening one. months are the months that have
// partitions.
func (l EventList) spans(months []time.Time, now time.Time) iter.Seq[EventList] {
	return func(yield func(EventList) bool) {
		if len(months) == 0 {
			months = []time.Time{postgres.MonthOf(now)}
		}
		first, last := months[0], months[len(months)-1]
		if now.Before(last) && !now.Before(first) {
			last = postgres.MonthOf(now) // the months ahead are likely empty
		}
		for n := 1; ; n *= 2 {
			span := l
			if l.Oldest {
				begin := first
				if l.since.At.After(first) {
					begin = l.since.At
				}
				edge := postgres.MonthOf(begin).AddDate(0, n, 0)
				if edge.Before(l.till.At) && !edge.After(last) {
					span.till = EventAt{edge, math.MinInt64}
				}
				l.since = span.till
			} else {
				end := l.till.At.Add(-time.Microsecond)
				if end.After(last) {
					end = last
				}
				edge := postgres.MonthOf(end).AddDate(0, 1-n, 0)
				if edge.After(l.since.At) && edge.After(first) {
					span.since = EventAt{edge, math.MinInt64}
				}
				l.till = span.since
			}
			if !yield(span) || !l.since.before(l.till) {
				return
			}
		}
	}
}

// maxEventOffset is the largest offset at which a numbered page of events may begin.
const maxEventOffset = 10_000

var errEventsTooDeep = Invalid(FieldError{"page", "is too far in for this list: follow next_cursor instead, or begin at another time"})

// ListEvents returns up to limit events of a list without its first offset ones, fewer
// only if there are no more.
func (s *Service) ListEvents(ctx context.Context, actor Actor, l EventList, offset, limit int) ([]Event, error) {
	if err := actor.Require(ReadsEvents); err != nil {
		return nil, err
	}
	if offset > maxEventOffset {
		return nil, errEventsTooDeep
	}
	if l.EventType != nil && *l.EventType == Changed && l.URLID == nil {
		return nil, errChangedOfLink
	}
	months, err := postgres.Months(ctx, s.Pool)
	if err != nil {
		return nil, err
	}
	var rows []queries.ListEventsDownRow
	for span := range l.spans(months, time.Now()) {
		more, err := s.eventsOf(ctx, span, offset, limit-len(rows))
		if err != nil {
			return nil, err
		}
		if rows = append(rows, more...); len(rows) == limit {
			break
		}
		if offset > 0 && len(more) == 0 {
			skipped, err := s.lists().CountEvents(ctx, queries.CountEventsParams{
				Since: span.since.At, SinceID: span.since.ID, Until: span.till.At, UntilID: span.till.ID,
				URLID: span.URLID, UserID: span.UserID, EventType: span.EventType,
			})
			if err != nil {
				return nil, err
			}
			offset = max(offset-int(skipped), 0)
		} else {
			offset = 0
		}
	}
	return views(rows, viewEvent), nil
}

// eventsOf reads rows of one span of a list.
func (s *Service) eventsOf(ctx context.Context, span EventList, offset, limit int) ([]queries.ListEventsDownRow, error) {
	p := queries.ListEventsDownParams{
		At: span.till.At, AtID: span.till.ID, Until: span.since.At,
		URLID: span.URLID, UserID: span.UserID, EventType: span.EventType,
		RowOffset: int32(offset), RowLimit: int32(limit),
	}
	if !span.Oldest {
		return s.lists().ListEventsDown(ctx, p)
	}
	p.At, p.AtID, p.Until = span.since.At, span.since.ID, span.till.At
	up, err := s.lists().ListEventsUp(ctx, queries.ListEventsUpParams(p))
	return views(up, func(row queries.ListEventsUpRow) queries.ListEventsDownRow { return queries.ListEventsDownRow(row) }), err
}
