package web

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/signpost/signpost/internal/service"
)

// qrPage is the QR code of a link, and how it is drawn.
type qrPage struct {
	Link     service.Link
	Name     string
	Address  string // in the code
	SVG, PNG string // the paths of the pictures
	File     string // the name of a picture on a disk, without its ending
	Values   Values
	Marked   bool
	Levels   []namedValue
	Errors   fieldErrors
}

// namedValue is a value of a field that has another name for people.
type namedValue struct{ Value, Name string }

var qrLevels = []namedValue{
	{"L", "L: 7 % may be damaged or covered"}, {"M", "M: 15 %, the usual"}, {"Q", "Q: 25 %"}, {"H", "H: 30 %, for logos and rough surfaces"},
}

// linkQR shows the QR code of a link. With check in the query it says what is wrong with
// what one has typed so far.
func (w *Web) linkQR(ctx context.Context, r *Request) (*Answer, error) {
	link, err := w.Service.GetLink(ctx, r.Actor, r.ID)
	if err != nil {
		return nil, err
	}
	v := qrValues(r.Query)
	path := linkPath(link.ID) + "/qr"
	p := qrPage{
		Link: link, Name: withoutScheme(link.ShortURL), SVG: v.href(path + ".svg"), PNG: v.href(path + ".png"),
		File: strings.ReplaceAll(link.ShortCode, "/", "-"), Values: v, Marked: v.Get("mark") == "true", Levels: qrLevels,
	}
	code, err := w.Service.GetQR(ctx, r.Actor, r.ID, true, qrFields(v)) // a PNG has more rules
	faults, status, ok := asFields(err)
	switch {
	case !ok && err != nil:
		return nil, err
	case !ok:
		p.Address, status = code.Address, http.StatusOK
	case r.Query.Has("check"):
		p.Errors, status = faults, http.StatusOK
	default:
		p.Errors = faults
	}
	return w.page(r, status, "QR code of "+p.Name, "qr.html", p)
}

// pictureQR returns the handler of a picture.
func (w *Web) pictureQR(asPNG bool) Handler {
	kind := "image/svg+xml"
	if asPNG {
		kind = "image/png"
	}
	return func(ctx context.Context, r *Request) (*Answer, error) {
		code, err := w.Service.GetQR(ctx, r.Actor, r.ID, asPNG, qrFields(qrValues(r.Query)))
		if err != nil {
			return nil, err
		}
		picture, err := code.Draw()
		return &Answer{Status: http.StatusOK, Body: picture, Type: kind}, err
	}
}

// qrValues returns the values of the form of a query; those that it does not have are the
// usual ones.
func qrValues(query Values) Values {
	usual := service.UsualQR
	v := Values{url.Values{
		"size": {strconv.Itoa(usual.Size)}, "margin": {strconv.Itoa(usual.Margin)}, "level": {usual.Level},
		"foreground": {"#" + usual.Foreground}, "background": {"#" + usual.Background}, "mark": {strconv.FormatBool(usual.Mark)},
	}}
	for name := range v.Values {
		// A box that is ticked comes after the hidden field that says there is one.
		if sent := query.Values[name]; len(sent) > 0 {
			v.Set(name, strings.TrimSpace(sent[len(sent)-1]))
		}
	}
	return v
}

func qrFields(v Values) service.QRFields {
	whole := func(name string) int {
		n, err := strconv.Atoi(v.Get(name))
		if err != nil {
			return -1 // out of every bound
		}
		return n
	}
	return service.QRFields{
		Size: whole("size"), Margin: whole("margin"), Level: v.Get("level"),
		Foreground: v.Get("foreground"), Background: v.Get("background"), Mark: v.Get("mark") == "true",
	}
}
