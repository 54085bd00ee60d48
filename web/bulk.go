package web

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/signpost/signpost/internal/service"
)

// This file works on many links: on those that are ticked in the list, or on all that its
// filter finds.

const bulkPath = "/app/links/bulk"

// bulkPage asks before many links are changed or deleted.
type bulkPage struct {
	Action  string
	Title   string
	Text    []string
	Button  string
	Bad     bool     // it cannot be undone
	Kept    []hidden // fields that say which links, and from which list
	Tags    []string // to choose from
	Add     string
	Remove  string
	Key     string
	Count   int // how many are changed or deleted
	Found   int // how many it is about
	Back    string
	Refused string // why it cannot be done
	Errors  fieldErrors
}

// hidden is a hidden field of a form.
type hidden struct{ Name, Value string }

// The routes of the API that do the same, which keys of forms belong to.
const (
	changeMany = "PATCH /urls/bulk"
	deleteMany = "DELETE /urls/bulk"
)

// filterNames are the names of the filters of the list of links.
var filterNames = []string{"q", "tag", "user_id", "domain", "state"}

// selectionOf returns the links that a form is about, and the fields that say so. They also
// say which list the form was sent from.
func (w *Web) selectionOf(ctx context.Context, r *Request, v Values) (in service.Selection, kept []hidden, err error) {
	var f service.Faults
	for _, name := range append([]string{"all", "sort"}, filterNames...) {
		if value := v.text(name); value != "" {
			kept = append(kept, hidden{name, value})
		}
	}
	if v.Get("all") != "" {
		list, err := w.filterOf(ctx, r, v, &f)
		if err != nil {
			return in, kept, err
		}
		in.Filter = &list
		for i := range kept {
			if kept[i].Name == "user_id" && list.UserID != nil { // whose name may become somebody else's
				kept[i].Value = strconv.FormatInt(*list.UserID, 10)
			}
		}
		return in, kept, f.Err()
	}
	for _, text := range v.Values["id"] {
		id, err := strconv.ParseInt(text, 10, 64)
		if err != nil || id < 1 {
			f.Add("id", "is malformed")
			break
		}
		in.IDs = append(in.IDs, id)
		kept = append(kept, hidden{"id", text})
	}
	return in, kept, f.Err()
}

// bulkChangeOf returns the change that a form asks for.
func bulkChangeOf(v Values) service.BulkChange {
	var c service.BulkChange
	switch v.Get("do") {
	case "on", "off":
		c.IsActive = service.Optional[bool]{Value: v.Get("do") == "on", Sent: true}
	default:
		c.AddTags = service.Optional[[]string]{Value: tagsOf(v.Get("add_tags")), Sent: true}
		c.RemoveTags = service.Optional[[]string]{Value: tagsOf(v.Get("remove_tags")), Sent: true}
	}
	return c
}

// askBulk says how many links would be changed, and asks whether they are to be.
func (w *Web) askBulk(ctx context.Context, r *Request) (*Answer, error) {
	return w.showBulk(ctx, r, r.Query, nil)
}

func (w *Web) showBulk(ctx context.Context, r *Request, v Values, faults fieldErrors) (*Answer, error) {
	p := bulkPage{Action: v.Get("do"), Back: listOf(v), Key: cmp.Or(v.Get("key"), newKey()), Add: v.Get("add_tags"), Remove: v.Get("remove_tags"), Errors: faults}
	in, kept, err := w.selectionOf(ctx, r, v)
	p.Kept = kept
	var would service.BulkOutcome
	switch {
	case err != nil:
	case in.Filter == nil && len(in.IDs) == 0:
		p.Refused = "Tick some links in the list first, or choose all that the filter finds."
	case p.Action == "on" || p.Action == "off":
		would, err = w.Service.ChangeLinks(ctx, r.Actor, in, bulkChangeOf(v), true, nil)
	case p.Action == "tags" || p.Action == "delete":
		would, err = w.Service.DeleteLinks(ctx, r.Actor, in, true, nil) // which counts them
	default:
		p.Refused = "There is no such action."
	}
	status, err := 200, worded(err, v)
	if found, code, ok := asFields(err); ok {
		status, p.Refused = code, refusal(err, found)
	} else if err != nil {
		return nil, err
	}
	p.word(would)
	if p.Action == "tags" && p.Refused == "" {
		if p.Tags, err = w.someTags(ctx, r); err != nil {
			return nil, err
		}
	}
	if faults != nil {
		status = 400
	}
	return w.page(r, status, p.Title, "bulk.html", p)
}

// refusal returns the sentence of an error about fields that the form does not show.
func refusal(err error, found fieldErrors) string {
	e := service.Classify(err)
	if e.Hint != "" {
		return sentence(e.Message + ": " + e.Hint)
	}
	if len(found) == 1 {
		return sentence(e.Message)
	}
	return "This filter cannot be used: go back to the list, which says what is wrong with it."
}

// word sets the words of the page for what it would do.
func (p *bulkPage) word(would service.BulkOutcome) {
	p.Found, p.Count = would.Found, would.Found-would.Failed
	links := numbered(p.Count, "link", "links")
	switch p.Action {
	case "tags":
		p.Title, p.Button = "Change the tags of "+links, "Change tags"
	case "off":
		p.Title, p.Button = "Switch "+links+" off?", "Switch off"
		p.Text = append(p.Text, "Whoever follows one after this is told that it has ended, or is led where its domain leads then.")
	case "on":
		p.Title, p.Button = "Switch "+links+" on?", "Switch on"
	case "delete":
		p.Title, p.Button, p.Bad = "Delete "+links+"?", "Delete "+links, true
		p.Text = append(p.Text, "This cannot be undone: whoever follows one after this finds nothing, and others may use the codes. Clicks stay in the statistics.",
			"To stop links for a while, switch them off instead.")
	default:
		p.Title = "Many links"
	}
	if would.Unchanged > 0 {
		p.Text = append(p.Text, numbered(would.Unchanged, "of them is so already.", "of them are so already."))
	}
	if would.Failed > 0 {
		p.Text = append(p.Text, numbered(would.Failed, "of those that you chose is no longer there.", "of those that you chose are no longer there."))
	}
	switch {
	case p.Refused != "":
		p.Title = "Many links"
	case p.Count == 0:
		p.Refused = "There are no such links any more."
	}
}

// bulk changes or deletes many links, and leads back to the list, which says what became of
// them.
func (w *Web) bulk(ctx context.Context, r *Request) (*Answer, error) {
	in, _, err := w.selectionOf(ctx, r, r.Form)
	if err != nil {
		return w.showBulk(ctx, r, r.Form, nil)
	}
	if in.Filter != nil {
		in.Expected, _ = strconv.Atoi(r.Form.Get("expected"))
	}
	route, do := changeMany, func(key *service.Once) (service.BulkOutcome, error) {
		return w.Service.ChangeLinks(ctx, r.Actor, in, bulkChangeOf(r.Form), false, key)
	}
	if r.Form.Get("do") == "delete" {
		route, do = deleteMany, func(key *service.Once) (service.BulkOutcome, error) {
			return w.Service.DeleteLinks(ctx, r.Actor, in, false, key)
		}
	}
	key := onceOf(r, route)
	if key == nil { // it was not sent by a page of ours
		return w.showBulk(ctx, r, r.Form, nil)
	}
	out, err := once(ctx, w, key, func() (service.BulkOutcome, error) { return do(key) })
	if faults, _, ok := asFields(err); ok {
		if faults["add_tags"] == "" && faults["remove_tags"] == "" {
			faults = fieldErrors{"": sentence(service.Classify(err).Message)}
		}
		return w.showBulk(ctx, r, r.Form, faults)
	}
	if err != nil {
		return nil, err
	}
	if out.Unfinished {
		part, err := w.Service.KeepPart(ctx, *key, out)
		if err != nil { // the list cannot tell it then
			return w.page(r, 503, "Many links", "bulk.html", bulkPage{
				Title: "Many links", Action: r.Form.Get("do"), Back: listOf(r.Form),
				Refused: fmt.Sprintf("%s done. For the other %d: %s.", numbered(out.Changed, "link is", "links are"), out.Failed, out.Failures[len(out.Failures)-1].Message),
			})
		}
		key = &part
	}
	return seeOther(listOf(r.Form, "did", r.Form.Get("do")+" "+key.Key)), nil
}

// listOf returns the path of the list that a form was sent from, with more in its query.
func listOf(v Values, more ...string) string {
	return v.only(append([]string{"sort"}, filterNames...)...).href("/app/links", more...)
}

// did is what a form about many links has done.
type did struct {
	Text     string
	Failures []string
	Key      string // "" if it cannot be undone
}

// whatItDid returns what the form has done that the query names, nil if it names none.
func (w *Web) whatItDid(ctx context.Context, r *Request) (*did, error) {
	action, key, ok := strings.Cut(r.Query.text("did"), " ")
	if !ok {
		return nil, nil
	}
	out, err := w.outcome(ctx, r, action, key)
	if err != nil || out == nil {
		return nil, err
	}
	d := &did{}
	switch action {
	case "tags":
		d.Text = "The tags of " + numbered(out.Changed, "link are", "links are") + " changed."
	case "delete":
		d.Text = numbered(out.Changed, "link is", "links are") + " deleted."
	default:
		d.Text = numbered(out.Changed, "link is", "links are") + " switched " + action + "."
	}
	if out.Unchanged > 0 {
		d.Text += " " + numbered(out.Unchanged, "was so already.", "were so already.")
	}
	for _, f := range out.Failures {
		d.Failures = append(d.Failures, numbered(len(f.IDs), "link", "links")+" could not be changed: "+strings.TrimSpace(f.Field+" "+f.Message)+".")
	}
	if out.NoUndo {
		d.Text += " They had so many different tags that this cannot be undone."
	}
	if len(out.Undo) > 0 {
		d.Key = key
	}
	return d, nil
}

// outcome returns what became of the links of a form with a key, nil if that is not known
// any more.
func (w *Web) outcome(ctx context.Context, r *Request, action, key string) (*service.BulkOutcome, error) {
	if len(key) > 100 {
		return nil, nil
	}
	route := changeMany
	if action == "delete" {
		route = deleteMany
	}
	kept, err := w.Service.Kept(ctx, &service.Once{OnceKey: service.OnceKey{Token: r.Actor.Token(), Route: route, Key: key}})
	if err != nil || kept == nil {
		return nil, err
	}
	var out service.BulkOutcome
	if err := json.Unmarshal(kept.Body, &out); err != nil {
		return nil, fmt.Errorf("read kept answer: %w", err)
	}
	return &out, nil
}

// undoBulk takes back what a form has done to many links.
func (w *Web) undoBulk(ctx context.Context, r *Request) (*Answer, error) {
	out, err := w.outcome(ctx, r, "", r.Form.text("key"))
	if err != nil {
		return nil, err
	}
	if out == nil {
		return nil, service.NotFound("change, or it was made more than a day ago")
	}
	failed, begun := 0, false
	for _, undo := range out.Undo {
		for ids := range slices.Chunk(undo.IDs, service.MaxBulk) {
			back, err := w.Service.ChangeLinks(ctx, r.Actor, service.Selection{IDs: ids}, undo.Change(), false, nil)
			switch {
			case err != nil && (!begun || service.Classify(err) == nil):
				return nil, err
			case err != nil: // some are taken back already, and the page says how many are not
				failed += len(ids)
			default:
				failed, begun = failed+back.Failed, true
			}
		}
	}
	done := "undone"
	if failed > 0 {
		done = "undone-partly"
	}
	return seeOther(listOf(r.Form, "done", done)), nil
}

// maxSuggested is how many tags a field suggests.
const maxSuggested = 200

// someTags returns tags to choose from.
func (w *Web) someTags(ctx context.Context, r *Request) ([]string, error) {
	tags, _, err := w.Service.ListTags(ctx, r.Actor, "", "", 0, maxSuggested)
	var names []string
	for _, tag := range tags {
		if tag.Links > 0 {
			names = append(names, tag.Name)
		}
	}
	return names, err
}
