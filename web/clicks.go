package web

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/signpost/signpost/internal/service"
)

// clickRow is a click in a list of the latest ones. The page has an empty one too, which
// live.js fills.
type clickRow struct {
	When     moment
	Link     string // the short code, with its domain unless that is the main one
	Href     string
	Country  string // the name
	Referrer string
	Device   string
	Kind     string // "" for a person
}

// feed is a list of the latest clicks that grows while one looks.
type feed struct {
	Path   string // of the events
	Rows   []clickRow
	OfLink bool // all are of one link
	Empty  clickRow
}

const feedRows = 12

// latest returns the latest clicks on a link, or on all links (0).
func (w *Web) latest(ctx context.Context, r *Request, linkID int64, loc *time.Location) (feed, error) {
	f := feed{Path: "/app/live", OfLink: linkID != 0, Empty: clickRow{When: momentOf(now(), loc)}}
	list, clicked := service.EventsBetween(time.Time{}, time.Time{}), "clicked"
	list.EventType = &clicked
	if linkID != 0 {
		f.Path = linkPath(linkID) + "/live"
		list.URLID = &linkID
	}
	events, err := w.Service.ListEvents(ctx, r.Actor, list, 0, feedRows)
	if err != nil {
		return f, err
	}
	var ids []int64
	for _, e := range events {
		if e.URLID != nil {
			ids = append(ids, *e.URLID)
		}
	}
	names := map[int64]service.Link{}
	if linkID == 0 {
		links, err := w.Service.GetLinks(ctx, r.Actor, ids)
		if err != nil {
			return f, err
		}
		for _, l := range links {
			names[l.ID] = l
		}
	}
	for _, e := range events {
		row := viewClick(e, loc)
		if e.URLID != nil {
			row.Link, row.Href = "deleted link", ""
			if l, ok := names[*e.URLID]; ok {
				row.Link, row.Href = shortName(l), linkPath(l.ID)
			}
		}
		f.Rows = append(f.Rows, row)
	}
	return f, nil
}

// viewClick returns a click as a row. Details of imported clicks may be anything.
func viewClick(e service.Event, loc *time.Location) clickRow {
	var d struct{ Referrer, Device, Country, Kind string }
	row := clickRow{When: momentOf(e.Timestamp, loc)}
	if json.Unmarshal(e.Details, &d) != nil {
		return row
	}
	row.Referrer, row.Device = d.Referrer, d.Device
	if d.Country != "" {
		row.Country = countryName(d.Country)
	}
	if row.Kind = kinds[d.Kind].one; row.Kind != "" {
		row.Device = "" // it is "bot" for all of these
	}
	return row
}

func linkPath(id int64) string { return "/app/links/" + strconv.FormatInt(id, 10) }

// shortName is how pages call a link: by its code, with the domain unless that is the
// main one.
func shortName(l service.Link) string {
	if l.IsOnMainDomain() {
		return "/" + l.ShortCode
	}
	return l.Domain + "/" + l.ShortCode
}
