package web

import (
	"context"
	"fmt"
	"strings"

	"github.com/signpost/signpost/internal/service"
)

const pastePath = "/app/links/paste"

// pastePage makes many links of a text with an address on each line.
type pastePage struct {
	Lines   string
	Tags    string
	Owner   string
	Domain  string
	Owners  []service.User // to choose from; none if there are too many
	Domains []string
	NoUser  bool
	Known   []string // tags to choose from
	Checked []pasted // what would become of each line; none before the text is checked
	Sound   int      // how many of them can be made
	Made    []service.Link
	All     string // the short URLs that were made
	Left    int    // how many lines were not made
	Key     string
	Errors  fieldErrors
}

// pasted is a line of the text.
type pasted struct {
	Line   int
	Text   string
	Code   string // "" if one is drawn
	Target string
	Fault  string
}

func (w *Web) paste(ctx context.Context, r *Request) (*Answer, error) {
	return w.showPaste(ctx, r, 200, pastePage{Owner: r.Query.text("user_id")})
}

// makePasted checks the lines of a text, or makes links of those that are sound. The others
// stay in the text, to be mended.
func (w *Web) makePasted(ctx context.Context, r *Request) (*Answer, error) {
	p := pastePage{
		Lines: r.Form.Get("lines"), Tags: r.Form.Get("tags"), Owner: r.Form.text("user_id"), Domain: r.Form.text("domain"), Errors: fieldErrors{},
	}
	lines, _ := readLines(r.Form)
	switch {
	case len(lines) == 0:
		p.Errors["lines"] = "has no address yet"
	case len(lines) > service.MaxNewLinks:
		p.Errors["lines"] = fmt.Sprintf("has %d lines, and at most %d can be made at once: import the rest as a file", len(lines), service.MaxNewLinks)
	}
	if len(p.Errors) > 0 {
		return w.showPaste(ctx, r, 400, p)
	}
	making := r.Form.Get("step") == "make"
	key := onceOf(r, "POST /urls/bulk")
	if !making {
		key = nil
	}
	out, err := once(ctx, w, key, func() (service.NewLinks, error) {
		v, err := w.Named(ctx, r.Actor, r.Form)
		if err != nil {
			return service.NewLinks{}, err
		}
		_, fields := readLines(v)
		return w.Service.CreateLinks(ctx, r.Actor, fields, !making, key)
	})
	if faults, status, ok := asFields(err); ok {
		p.Errors = faults
		p.Errors["lines"] = faults[""]
		return w.showPaste(ctx, r, status, p) // with the text, which the browser would forget
	} else if err != nil {
		return nil, err
	}
	p.note(lines, out)
	if making && out.Created > 0 {
		p.Lines = p.left()
		p.Checked, p.Left = nil, len(p.Checked)
	}
	return w.showPaste(ctx, r, 200, p)
}

// readLines returns the lines of a form that are not empty, and the links that they
// describe: an address, or a code and an address.
func readLines(v Values) (lines []pasted, fields []service.LinkFields) {
	for i, text := range strings.Split(v.Get("lines"), "\n") {
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		line := pasted{Line: i + 1, Text: strings.TrimSpace(text), Target: words[0]}
		if len(words) > 1 {
			line.Code, line.Target = words[0], strings.Join(words[1:], " ")
		}
		own := Values{v.only("tags", "user_id", "domain").Values}
		own.Set("original_url", line.Target)
		own.Set("short_code", line.Code)
		lines = append(lines, line)
		fields = append(fields, linkFields(own, nil, true))
	}
	return lines, fields
}

// note notes what became of the lines, or would.
func (p *pastePage) note(lines []pasted, out service.NewLinks) {
	var all []string
	for i, made := range out.Data {
		line := lines[i]
		for _, f := range made.Fields {
			switch f.Field {
			case "original_url", "short_code":
				line.Fault = strings.TrimPrefix(line.Fault+"; ", "; ") + map[string]string{"original_url": "the address ", "short_code": "the code "}[f.Field] + f.Message
			default: // of all lines
				p.Errors[f.Field] = f.Message
			}
		}
		switch {
		case made.URL != nil:
			p.Made = append(p.Made, *made.URL)
			all = append(all, made.URL.ShortURL)
			continue
		case len(made.Fields) == 0:
			p.Sound++
		}
		p.Checked = append(p.Checked, line)
	}
	p.All = strings.Join(all, "\n")
}

// left returns the lines that were not made.
func (p *pastePage) left() string {
	var left []string
	for _, line := range p.Checked {
		left = append(left, line.Text)
	}
	return strings.Join(left, "\n")
}

func (w *Web) showPaste(ctx context.Context, r *Request, status int, p pastePage) (*Answer, error) {
	var err error
	if p.Owners, p.Domains, err = w.choices(ctx, r); err != nil {
		return nil, err
	}
	if p.Known, err = w.someTags(ctx, r); err != nil {
		return nil, err
	}
	p.NoUser = p.Owners != nil && len(p.Owners) == 0
	p.Key = newKey()
	return w.page(r, status, "Paste many links", "paste.html", p)
}
