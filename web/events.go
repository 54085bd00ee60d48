package web

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signpost/signpost/internal/service"
)

// eventsPage lists what happened to links and users.
type eventsPage struct {
	Rows             []eventRow
	Values           Values
	Owners           []service.User
	Types            []option
	Zone             string
	CSV, NDJSON      string // the paths of the same as files
	Next, First      string
	Filtered, Marked bool
	Errors           fieldErrors
}

// eventRow is an event in words, and as it is.
type eventRow struct {
	ID          int64
	When        moment
	Type        string
	Link, Href  string
	User, Owner string // the name of the user, and the path of the user's events
	Text        string
	Fields      []fieldChange
	Details     string // in JSON
}

// eventsOnPage is how many events a page of the list has.
const eventsOnPage = 50

var eventTypes = []option{
	{"clicked", "clicks"}, {service.Changed, "all changes"}, {"created", "made"}, {"updated", "changed"}, {"deleted", "deleted"},
}

func (w *Web) events(ctx context.Context, r *Request) (*Answer, error) {
	p := eventsPage{
		Values: r.Query, Types: eventTypes, Zone: w.place(r).String(), Marked: r.may(service.ManagesMarks),
		Filtered: len(r.Query.only("event_type", "url_id", "user_id", "from", "to").Values) > 0,
	}
	filter := r.Query.only("event_type", "url_id", "user_id", "from", "to", "order")
	p.CSV, p.NDJSON = filter.href("/app/events/export", "format", "csv"), filter.href("/app/events/export", "format", "ndjson")
	var err error
	if p.Owners, _, err = w.choices(ctx, r); err != nil {
		return nil, err
	}
	list, err := w.eventList(ctx, r)
	if faults, status, ok := asFields(err); ok {
		p.Errors = faults
		return w.page(r, status, "Events", "events.html", p)
	} else if err != nil {
		return nil, err
	}
	events, err := w.Service.ListEvents(ctx, r.Actor, list, 0, eventsOnPage+1)
	if err != nil {
		return nil, err
	}
	if len(events) > eventsOnPage {
		events = events[:eventsOnPage]
		last := events[eventsOnPage-1]
		p.Next = r.Query.href(r.Path, "at", last.Timestamp.Format(time.RFC3339Nano), "event", strconv.FormatInt(last.ID, 10))
	}
	if r.Query.text("at") != "" {
		p.First = r.Query.href(r.Path, "at", "", "event", "")
	}
	p.Rows, err = w.eventRows(ctx, r, events, p.Owners)
	if err != nil {
		return nil, err
	}
	return w.page(r, 200, "Events", "events.html", p)
}

// eventList returns the list that a query asks for.
func (w *Web) eventList(ctx context.Context, r *Request) (service.EventList, error) {
	var faults service.Faults
	bound := func(name string) (t time.Time) {
		text := r.Query.text(name)
		if text == "" {
			return t
		}
		t, err := time.ParseInLocation(localTime, text, w.place(r))
		if err != nil || service.CheckTime(t) != nil {
			faults.Add(name, "must be a time")
		}
		return t
	}
	list := service.EventsBetween(bound("from"), bound("to"))
	var err error
	list.UserID, err = w.userID(ctx, r.Actor, r.Query)
	if err := note(&faults, err); err != nil {
		return list, err
	}
	list.URLID, err = w.linkID(ctx, r)
	if err := note(&faults, err); err != nil {
		return list, err
	}
	list.Oldest = r.Query.text("order") == "oldest"
	if kind := r.Query.text("event_type"); kind != "" {
		list.EventType = &kind
		if !slices.ContainsFunc(eventTypes, func(o option) bool { return o.Value == kind }) {
			faults.Add("event_type", "is not a kind of event")
		}
	}
	if at, ok := eventAt(r.Query); ok {
		list = list.Behind(at)
	}
	return list, faults.Err()
}

// eventRows words events. Their links are looked up together.
func (w *Web) eventRows(ctx context.Context, r *Request, events []service.Event, owners []service.User) ([]eventRow, error) {
	names := map[int64]string{}
	for _, u := range owners {
		names[u.ID] = u.Username
	}
	links, err := w.linksOf(ctx, r, events)
	if err != nil {
		return nil, err
	}
	loc := w.place(r)
	owner := func(id int64) string { return cmp.Or(names[id], "user "+strconv.FormatInt(id, 10)) }
	rows := make([]eventRow, len(events))
	for i, e := range events {
		row := eventRow{ID: e.ID, When: momentOf(e.Timestamp, loc), Type: e.EventType, Details: indented(e.Details)}
		if e.URLID != nil {
			row.Link = "deleted link"
			if l, ok := links[*e.URLID]; ok {
				row.Link, row.Href = shortName(l), linkPath(l.ID)
			}
		}
		if e.UserID != nil {
			id := strconv.FormatInt(*e.UserID, 10)
			row.User, row.Owner = owner(*e.UserID), Values{}.href(r.Path, "user_id", id)
		}
		if e.EventType == "clicked" {
			row.Text = clickInWords(viewClick(e, loc))
		} else {
			row.Text, row.Fields = changeInWords(e, loc, owner)
		}
		rows[i] = row
	}
	return rows, nil
}

func (w *Web) linksOf(ctx context.Context, r *Request, events []service.Event) (map[int64]service.Link, error) {
	var ids []int64
	for _, e := range events {
		if e.URLID != nil {
			ids = append(ids, *e.URLID)
		}
	}
	found, err := w.Service.GetLinks(ctx, r.Actor, ids)
	links := map[int64]service.Link{}
	for _, l := range found {
		links[l.ID] = l
	}
	return links, err
}

func clickInWords(c clickRow) string {
	words := slices.DeleteFunc([]string{cmp.Or(c.Kind, "person"), c.Device, c.Country, c.Referrer}, func(s string) bool { return s == "" })
	return strings.Join(words, " · ")
}

// changeInWords says what was changed, by whom, and how. Details of imported events may be
// anything.
func changeInWords(e service.Event, loc *time.Location, owner func(int64) string) (string, []fieldChange) {
	var d struct {
		Entity, Username, Domain, Network, Batch string
		UserAgent                                string `json:"user_agent"`
		linkChange
	}
	if json.Unmarshal(e.Details, &d) != nil {
		return "", nil
	}
	words := []string{}
	if d.Entity != "" && d.Entity != "url" {
		words = append(words, strings.TrimSpace(d.Entity+" "+cmp.Or(d.Username, d.Network, d.UserAgent, d.Batch, d.Domain)))
	}
	if d.By.Name != "" {
		words = append(words, "by "+d.By.Name)
	}
	var fields []fieldChange
	for _, name := range slices.Sorted(maps.Keys(d.Changes)) {
		change := d.Changes[name]
		label := strings.ReplaceAll(name, "_", " ")
		for _, f := range fieldNames {
			if f.field == name {
				label = f.name
			}
		}
		fields = append(fields, fieldChange{label, inWords(name, change.Old, loc, owner), inWords(name, change.New, loc, owner)})
	}
	return strings.Join(words, " "), fields
}

func indented(details json.RawMessage) string {
	var out bytes.Buffer
	if json.Indent(&out, details, "", "  ") != nil {
		return string(details)
	}
	return out.String()
}

// exportEvents sends all events that a query asks for as a file.
func (w *Web) exportEvents(ctx context.Context, r *Request) (*Answer, error) {
	list, err := w.eventList(ctx, r)
	if err != nil {
		return nil, worded(err, r.Query)
	}
	source, err := w.Service.ExportEvents(ctx, r.Actor, list, 0)
	return &Answer{Status: 200, Export: &source, Format: r.Query.text("format")}, err
}
