package web

import "context"

// sessionsPage lists the browsers that are signed in with the viewer's token.
type sessionsPage struct {
	Rows []sessionRow
}

type sessionRow struct {
	Agent      string
	Began      moment
	Used       moment
	IsThisHere bool
}

func (w *Web) sessions(ctx context.Context, r *Request) (*Answer, error) {
	found, err := w.Service.ListSessions(ctx, r.Actor)
	if err != nil {
		return nil, err
	}
	loc := w.place(r)
	p := sessionsPage{}
	for _, s := range found {
		p.Rows = append(p.Rows, sessionRow{s.Agent, momentOf(s.CreatedAt, loc), momentOf(s.UsedAt, loc), s.ID == r.Session})
	}
	return w.page(r, 200, "Sessions", "sessions.html", p)
}

// endSessions signs the viewer's token out everywhere, here too.
func (w *Web) endSessions(ctx context.Context, r *Request) (*Answer, error) {
	if err := w.Service.EndSessions(ctx, r.Actor); err != nil {
		return nil, err
	}
	return seeOther("/app/sign-in"), nil
}
