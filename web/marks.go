package web

import (
	"context"
	"strconv"

	"github.com/signpost/signpost/internal/service"
)

// marksPage lists the networks and User-Agents of which an operator says what they are.
type marksPage struct {
	Rows  []markRow
	Pages pages
}

type markRow struct {
	Of   string // the network or the pattern
	Kind string
	Made moment
	Path string
}

func (w *Web) marks(ctx context.Context, r *Request) (*Answer, error) {
	found, next, err := listPage(ctx, r, w.Service.ListMarks, func(m service.Mark) int64 { return m.ID })
	if err != nil {
		return nil, err
	}
	p := marksPage{Pages: next}
	for _, m := range found {
		row := markRow{Kind: markKindName(m.Kind), Made: momentOf(m.CreatedAt, w.place(r)), Path: "/app/marks/" + strconv.FormatInt(m.ID, 10) + "/delete"}
		if m.Network != nil {
			row.Of = *m.Network
		} else if m.UserAgent != nil {
			row.Of = *m.UserAgent
		}
		p.Rows = append(p.Rows, row)
	}
	return w.page(r, 200, "Marks", "marks.html", p)
}

// markKinds are the kinds that a mark may give.
var markKinds = []option{
	{"monitor", "monitors: programs that check whether a link works"},
	{"bot", "crawlers and robots"},
	{"preview", "previews: fetched for a post"},
	{"tool", "tools: libraries and commands"},
	{"person", "people"},
}

func markKindName(kind string) string { return kinds[kind].name }

func (w *Web) markForm(r *Request, status int, v Values, errors fieldErrors) (*Answer, error) {
	return w.form(r, status, formPage{
		Title: "New mark", Back: "/app/marks", Button: "Mark them", Errors: errors,
		Hints: []string{"Give either a network or a pattern. Workers follow within seconds, for clicks to come."},
		Fields: []formField{
			{Name: "network", Label: "Visits from the network", Value: v.Get("network"), Placeholder: "192.0.2.0/24"},
			{Name: "user_agent", Label: "Visits with a User-Agent like", Value: v.Get("user_agent"), Placeholder: "AcmeWatch/*", Hint: "* stands for any text."},
			{Name: "kind", Label: "are", Value: v.Get("kind"), Options: markKinds},
		},
	})
}

func (w *Web) newMark(_ context.Context, r *Request) (*Answer, error) {
	return w.markForm(r, 200, r.Query, nil)
}

func (w *Web) createMark(ctx context.Context, r *Request) (*Answer, error) {
	_, err := w.Service.CreateMark(ctx, r.Actor, service.MarkFields{
		Network: r.Form.field("network", true, false), UserAgent: r.Form.field("user_agent", true, false), Kind: r.Form.field("kind", true, false),
	})
	if faults, status, ok := asFields(err); ok {
		return w.markForm(r, status, r.Form, faults)
	}
	return seeOther("/app/marks?done=mark-made"), err
}

func (w *Web) askDeleteMark(_ context.Context, r *Request) (*Answer, error) {
	return w.ask(r, 200, askPage{
		Title: "Delete the mark?", Back: "/app/marks", Button: "Delete",
		Text: []string{"Clicks to come are judged by the rules again. Those that were counted stay as they are."},
	})
}

func (w *Web) deleteMark(ctx context.Context, r *Request) (*Answer, error) {
	return seeOther("/app/marks?done=mark-deleted"), w.Service.DeleteMark(ctx, r.Actor, r.ID)
}
