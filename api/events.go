package api

import (
	"context"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/signpost/signpost/internal/service"
)

// Event is something that happened to a user or a link.
type Event struct{ service.Event }

// TransformSchema implements huma.SchemaTransformer. Without it, Huma takes details,
// which are JSON already, for a list of bytes.
func (*Event) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["details"] = &huma.Schema{
		Type: huma.TypeObject,
		Description: "Of a click: referrer, browser, os, device, country, bot, kind, trigger. Of a change: entity, what was changed, " +
			"with old and new values, and by which token. Of an imported event: what the file said.",
		AdditionalProperties: true,
		Examples: []any{map[string]any{
			"referrer": "news.example", "browser": "Firefox", "os": "Linux",
			"device": "desktop", "country": "DE", "bot": false, "kind": "person", "trigger": "link",
		}},
	}
	return s
}

type eventListInput struct {
	OrderInput
	URLID     int64     `query:"url_id" minimum:"1" doc:"Only events of this link."`
	UserID    int64     `query:"user_id" minimum:"1" doc:"Only events of this user and of the user's links."`
	EventType string    `query:"event_type" enum:"created,updated,deleted,clicked,changed" doc:"Only events of this type. With url_id, changed stands for created, updated and deleted."`
	From      timeParam `query:"from" doc:"Only events at or after this time."`
	To        timeParam `query:"to" doc:"Only events before this time."`
}

// list returns the list that the request asks for. It shares no memory with the
// request. Where a cursor and a time bound the same end, the narrower of the two
// counts.
func (in *eventListInput) list() (service.EventList, error) {
	order, at, err := in.place(eventCursors, newestFirst, 2)
	if err != nil {
		return service.EventList{}, err
	}
	l := service.EventsBetween(in.From.Time, in.To.Time)
	l.Oldest = order == oldestFirst
	l.URLID, l.UserID, l.EventType = given(in.URLID), given(in.UserID), given(strings.Clone(in.EventType))
	if at == nil {
		return l, nil
	}
	cursor := service.EventAt{At: time.UnixMicro(at[0]).UTC(), ID: at[1]}
	if service.CheckTime(cursor.At) != nil {
		return service.EventList{}, errCursor
	}
	return l.Behind(cursor), nil
}

func (a *API) listEvents(ctx context.Context, in *eventListInput) (*listOutput[Event], error) {
	l, err := in.list()
	if err != nil {
		return nil, err
	}
	events, err := a.service.ListEvents(ctx, actorIn(ctx), l, in.offset(), in.size()+1)
	if err != nil {
		return nil, err
	}
	cursors := eventCursors[newestFirst]
	if l.Oldest {
		cursors = eventCursors[oldestFirst]
	}
	return newList(&in.PageInput, events, func(e service.Event) Event { return Event{e} }, func(e service.Event) string {
		return makeCursor(cursors, e.Timestamp.UnixMicro(), e.ID)
	})
}

// exportEvents exports the events that listEvents would list, all of them.
func (a *API) exportEvents(ctx context.Context, in *eventListInput) (service.Export, error) {
	l, err := in.list()
	if err != nil {
		return service.Export{}, err
	}
	return a.service.ExportEvents(ctx, actorIn(ctx), l, in.offset())
}
