package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"unicode/utf8"

	"github.com/signpost/signpost/internal/links"
	"github.com/signpost/signpost/internal/service"
)

// tagView is a tag as pages show it.
type tagView struct{ Name, Color string }

// tagViews returns the tags of links with their colors, by the ids of the links.
func (w *Web) tagViews(ctx context.Context, r *Request, of []service.Link) (map[int64][]tagView, error) {
	var names []string
	for _, l := range of {
		names = append(names, l.Tags...)
	}
	colors, err := w.Service.TagColors(ctx, r.Actor, names)
	views := map[int64][]tagView{}
	for _, l := range of {
		for _, name := range l.Tags {
			views[l.ID] = append(views[l.ID], tagView{name, colors[name]})
		}
	}
	return views, err
}

// tagsPage is the list of tags.
type tagsPage struct {
	Rows     []tagRow
	Search   string
	Next     string // the path of the next page; "" on the last
	First    string // the path of the first page; "" on it
	CanWrite bool
	Errors   fieldErrors
}

// tagRow is a tag in the list.
type tagRow struct {
	service.Tag
	View         tagView
	Edit, Delete string // paths
}

const tagsOnPage = 50

func (w *Web) tags(ctx context.Context, r *Request) (*Answer, error) {
	p := tagsPage{Search: r.Query.text("q"), CanWrite: r.may(service.WritesLinks)}
	after := r.Query.Get("after")
	if utf8.RuneCountInString(p.Search) > links.MaxTag || utf8.RuneCountInString(after) > links.MaxTag {
		p.Errors = fieldErrors{"q": fmt.Sprintf("must be at most %d characters", links.MaxTag)}
		return w.page(r, http.StatusBadRequest, "Tags", "tags.html", p)
	}
	found, next, err := w.Service.ListTags(ctx, r.Actor, p.Search, after, 0, tagsOnPage)
	if err != nil {
		return nil, err
	}
	for _, tag := range found {
		p.Rows = append(p.Rows, tagRow{tag, tagView{tag.Name, tag.Color}, tagPath("edit", tag.Name), tagPath("delete", tag.Name)})
	}
	if next != "" {
		p.Next = r.Query.href(r.Path, "after", next, "done", "")
	}
	if after != "" {
		p.First = r.Query.href(r.Path, "after", "", "done", "")
	}
	return w.page(r, http.StatusOK, "Tags", "tags.html", p)
}

func tagPath(do, name string) string {
	return "/app/tags/" + do + "?" + url.Values{"tag": {name}}.Encode()
}

// tagForm changes a tag.
type tagForm struct {
	Action string
	Tag    service.Tag
	Values Values
	Colors []string
	Merge  bool // whether there is another tag of that name, so that one has to say it
	Errors fieldErrors
}

func (w *Web) editTag(ctx context.Context, r *Request) (*Answer, error) {
	tag, err := w.Service.GetTag(ctx, r.Actor, r.Query.Get("tag"))
	if err != nil {
		return nil, err
	}
	v := Values{url.Values{"name": {tag.Name}, "color": {tag.Color}, shown + "name": {tag.Name}, shown + "color": {tag.Color}}}
	return w.tagForm(r, http.StatusOK, tagForm{Tag: tag, Values: v})
}

func (w *Web) tagForm(r *Request, status int, f tagForm) (*Answer, error) {
	f.Action, f.Colors = tagPath("edit", f.Tag.Name), service.TagColors
	return w.page(r, status, "Edit "+f.Tag.Name, "tagform.html", f)
}

func (w *Web) changeTag(ctx context.Context, r *Request) (*Answer, error) {
	tag, err := w.Service.GetTag(ctx, r.Actor, r.Query.Get("tag"))
	if err != nil {
		return nil, err
	}
	var in service.TagFields
	in.Name.Sent, in.Name.Value = r.Form.Has("name") && !untouched(r.Form, "name"), r.Form.text("name")
	in.Color.Sent, in.Color.Value = r.Form.Has("color") && !untouched(r.Form, "color"), r.Form.text("color")
	in.Merge.Sent, in.Merge.Value = true, r.Form.Get("merge") == "true"
	changed, err := w.Service.ChangeTag(ctx, r.Actor, tag.Name, in)
	if faults, status, ok := asFields(err); ok {
		merge := status == http.StatusConflict && faults["name"] != ""
		return w.tagForm(r, status, tagForm{Tag: tag, Values: r.Form, Merge: merge, Errors: faults})
	} else if err != nil {
		return nil, err
	}
	return afterMove(changed, "tag-changed"), nil
}

// afterMove leads to the list of tags, which says what a form has done.
func afterMove(tag service.Tag, done string) *Answer {
	if tag.Becomes != nil {
		done = "tag-going"
	}
	return seeOther("/app/tags?done=" + done)
}

func (w *Web) askDeleteTag(ctx context.Context, r *Request) (*Answer, error) {
	tag, err := w.Service.GetTag(ctx, r.Actor, r.Query.Get("tag"))
	if err != nil {
		return nil, err
	}
	return w.page(r, http.StatusOK, "Delete a tag", "tagdelete.html", tagForm{Action: tagPath("delete", tag.Name), Tag: tag})
}

func (w *Web) deleteTag(ctx context.Context, r *Request) (*Answer, error) {
	tag, err := w.Service.DeleteTag(ctx, r.Actor, r.Query.Get("tag"))
	faults, status, ok := asFields(err)
	switch {
	case ok:
		gone := service.Tag{Name: r.Query.Get("tag")}
		return w.page(r, status, "Delete a tag", "tagdelete.html", tagForm{Action: tagPath("delete", gone.Name), Tag: gone, Errors: faults})
	case err != nil:
		return nil, err
	}
	return afterMove(tag, "tag-deleted"), nil
}
