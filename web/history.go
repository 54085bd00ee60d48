package web

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signpost/signpost/internal/service"
)

// historyPage is the changes of a link. The page of the link has its first ones.
type historyPage struct {
	LinkID   int64
	Name     string
	Rows     []changeRow
	Older    string // the path of the older ones, "" if there are none
	CanWrite bool
}

// changeRow is a change of a link.
type changeRow struct {
	When     moment
	Did      string // made, changed or deleted
	By       string // the name of the token, "" if the event does not say it
	Fields   []fieldChange
	At, ID   string // of the event, for the form that puts it back
	PutsBack bool
}

// fieldChange is a field that a change has set, in words.
type fieldChange struct{ Name, Old, New string }

// linkChange is the part of the details of an event that the history shows. Those of imported
// events may have any form.
type linkChange struct {
	Changes map[string]struct{ Old, New any } `json:"changes"`
	By      struct{ Name string }             `json:"by"`
}

// fieldNames are the words for the fields of a link, in the order in which they are shown.
var fieldNames = []struct{ field, name string }{
	{"original_url", "leads to"},
	{"short_code", "short code"},
	{"domain", "domain"},
	{"title", "title"},
	{"tags", "tags"},
	{"user_id", "owner"},
	{"is_active", "state"},
	{"expires_at", "ends"},
	{"redirect_status", "redirect"},
	{"forward_query", "passes the query on"},
}

// firstChanges is how many changes the page of a link shows, and changesOnPage how many the
// page of its history does.
const firstChanges, changesOnPage = 5, 25

// history reads up to limit changes of a link, the newest first, behind a position.
func (w *Web) history(ctx context.Context, r *Request, link service.Link, behind *service.EventAt, limit int) (historyPage, error) {
	loc := w.place(r)
	p := historyPage{LinkID: link.ID, Name: withoutScheme(link.ShortURL), CanWrite: r.may(service.WritesLinks)}
	list := changesOf(link.ID, time.Time{}, time.Time{})
	if behind != nil {
		list = list.Behind(*behind)
	}
	events, err := w.Service.ListEvents(ctx, r.Actor, list, 0, limit+1)
	if err != nil {
		return p, err
	}
	if len(events) > limit {
		events = events[:limit]
		last := events[limit-1]
		p.Older = Values{}.href(linkPath(link.ID)+"/history", "at", last.Timestamp.Format(time.RFC3339Nano), "event", strconv.FormatInt(last.ID, 10))
	}
	names := w.ownerNames(ctx, r)
	for _, e := range events {
		p.Rows = append(p.Rows, changeOf(e, loc, names))
	}
	return p, nil
}

// changesOf returns the list of the changes of a link from one time on and before another.
func changesOf(linkID int64, from, to time.Time) service.EventList {
	list, changed := service.EventsBetween(from, to), service.Changed
	list.URLID, list.EventType = &linkID, &changed
	return list
}

// ownerNames returns a function that names the user with an id.
func (w *Web) ownerNames(ctx context.Context, r *Request) func(id int64) string {
	return func(id int64) string {
		if user, err := w.Service.GetUser(ctx, r.Actor, id); err == nil {
			return user.Username
		}
		return "user " + strconv.FormatInt(id, 10) // deleted
	}
}

func changeOf(e service.Event, loc *time.Location, owner func(int64) string) changeRow {
	row := changeRow{
		When: momentOf(e.Timestamp, loc), Did: map[string]string{"created": "made", "updated": "changed", "deleted": "deleted"}[e.EventType],
		At: e.Timestamp.Format(time.RFC3339Nano), ID: strconv.FormatInt(e.ID, 10),
	}
	var c linkChange
	if json.Unmarshal(e.Details, &c) != nil {
		return row
	}
	row.By = c.By.Name
	for _, f := range fieldNames {
		if change, ok := c.Changes[f.field]; ok {
			row.Fields = append(row.Fields, fieldChange{f.name, inWords(f.field, change.Old, loc, owner), inWords(f.field, change.New, loc, owner)})
		}
	}
	row.PutsBack = e.EventType == "updated" && len(row.Fields) > 0
	return row
}

// inWords returns a value of a field of a link as people read it.
func inWords(field string, value any, loc *time.Location, owner func(int64) string) string {
	switch v := value.(type) {
	case nil:
		if field == "expires_at" {
			return "never"
		}
		return "none"
	case bool:
		return map[bool]map[bool]string{true: {true: "on", false: "off"}, false: {true: "yes", false: "no"}}[field == "is_active"][v]
	case float64:
		if field == "user_id" {
			return owner(int64(v))
		}
		return strconv.FormatInt(int64(v), 10)
	case string:
		if at, err := time.Parse(time.RFC3339, v); err == nil && field == "expires_at" {
			return momentOf(at, loc).Exact()
		}
		return v
	case []any:
		tags := make([]string, len(v))
		for i, tag := range v {
			tags[i] = fmt.Sprint(tag)
		}
		if len(tags) == 0 {
			return "none"
		}
		return strings.Join(tags, ", ")
	}
	return fmt.Sprint(value)
}

// eventAt returns the position of an event that a query or form names.
func eventAt(v Values) (at service.EventAt, ok bool) {
	t, err1 := service.ParseTime(v.text("at"))
	id, err2 := strconv.ParseInt(v.text("event"), 10, 64)
	return service.EventAt{At: t, ID: id}, err1 == nil && err2 == nil
}

// linkHistory is the page of all changes of a link.
func (w *Web) linkHistory(ctx context.Context, r *Request) (*Answer, error) {
	link, err := w.Service.GetLink(ctx, r.Actor, r.ID)
	if err != nil {
		return nil, err
	}
	var behind *service.EventAt
	if at, ok := eventAt(r.Query); ok {
		behind = &at
	}
	p, err := w.history(ctx, r, link, behind, changesOnPage)
	if err != nil {
		return nil, err
	}
	return w.page(r, http.StatusOK, "History of "+p.Name, "history.html", p)
}

// putBackPage asks whether a change is to be put back although its fields were changed
// again, or says why it cannot be.
type putBackPage struct {
	Link   service.Link
	Name   string
	At, ID string
	Seen   string        // which state of the link the question is about
	Again  []fieldChange // as they are now, and as they would be
	Errors []fieldChange // with the message as New
}

// putBack changes the fields of a change back to what they were. If one of them was changed
// again since, it asks first. Whoever says yes says it of the link as it was shown. Fields
// that are as they were are left alone.
func (w *Web) putBack(ctx context.Context, r *Request) (*Answer, error) {
	link, err := w.Service.GetLink(ctx, r.Actor, r.ID)
	if err != nil {
		return nil, err
	}
	event, err := w.changeAt(ctx, r)
	if err != nil {
		return nil, err
	}
	var c linkChange
	if json.Unmarshal(event.Details, &c) != nil || event.EventType != "updated" || len(c.Changes) == 0 {
		return nil, service.Conflict("this change says nothing that could be put back")
	}
	present := asJSON(link)
	maps.DeleteFunc(c.Changes, func(field string, change struct{ Old, New any }) bool {
		return reflect.DeepEqual(present[field], change.Old)
	})
	if len(c.Changes) == 0 {
		return seeOther(linkPath(r.ID) + "?done=was-put-back"), nil
	}
	loc, owner := w.place(r), w.ownerNames(ctx, r)
	p := putBackPage{
		Link: link, Name: withoutScheme(link.ShortURL), At: r.Form.text("at"), ID: r.Form.text("event"), Seen: link.UpdatedAt.Format(time.RFC3339Nano),
	}
	for _, f := range fieldNames {
		if change, ok := c.Changes[f.field]; ok && !reflect.DeepEqual(present[f.field], change.New) {
			p.Again = append(p.Again, fieldChange{f.name, inWords(f.field, present[f.field], loc, owner), inWords(f.field, change.Old, loc, owner)})
		}
	}
	if len(p.Again) > 0 && r.Form.text("seen") != p.Seen {
		return w.page(r, http.StatusConflict, "Put a change back", "putback.html", p)
	}
	_, err = w.Service.UpdateLink(ctx, r.Actor, r.ID, fieldsBefore(c))
	faults, status, ok := asFields(err)
	if !ok {
		return seeOther(linkPath(r.ID) + "?done=put-back"), err
	}
	for _, field := range slices.Sorted(maps.Keys(faults)) {
		p.Errors = append(p.Errors, fieldChange{Name: field, New: faults[field]})
	}
	p.Again = nil
	return w.page(r, status, "Put a change back", "putback.html", p)
}

// changeAt returns the change of a link that the form names.
func (w *Web) changeAt(ctx context.Context, r *Request) (service.Event, error) {
	at, ok := eventAt(r.Form)
	if !ok {
		return service.Event{}, service.NotFound("change")
	}
	events, err := w.Service.ListEvents(ctx, r.Actor, changesOf(r.ID, at.At, at.At.Add(time.Microsecond)), 0, changesOnPage)
	for _, e := range events {
		if e.ID == at.ID {
			return e, nil
		}
	}
	if err == nil {
		err = service.NotFound("change")
	}
	return service.Event{}, err
}

// fieldsBefore returns the fields of a change with the values that they had before.
func fieldsBefore(c linkChange) (in service.LinkFields) {
	old := map[string]any{}
	for field, change := range c.Changes {
		old[field] = change.Old
	}
	text, err := json.Marshal(old)
	if err == nil {
		err = json.Unmarshal(text, &in)
	}
	if err != nil {
		panic(err) // never: the values were JSON, and fields take any
	}
	return in
}

// asJSON returns the fields of a link as the details of events have them.
func asJSON(l service.Link) (fields map[string]any) {
	text, err := json.Marshal(l)
	if err == nil {
		err = json.Unmarshal(text, &fields)
	}
	if err != nil {
		panic(err) // never
	}
	return fields
}
