package web

import (
	"html/template"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/signpost/signpost/internal/service"
)

// Values are the values of a query or a form, in UTF-8.
type Values struct{ url.Values }

// ParseValues reads a query or a form. ok is false if it is malformed,
// not in UTF-8, or has a NUL.
func ParseValues(text string) (v Values, ok bool) {
	values, err := url.ParseQuery(text)
	if err != nil {
		return Values{url.Values{}}, false
	}
	for name, all := range values {
		for _, text := range append(all, name) {
			if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
				return Values{url.Values{}}, false
			}
		}
	}
	return Values{values}, true
}

// text returns a value without blanks around it.
func (v Values) text(name string) string { return strings.TrimSpace(v.Get(name)) }

// href returns the path of a page with a query like v in which some values are others,
// given as names and values. Empty values are left out.
func (v Values) href(path string, changes ...string) string {
	query := url.Values{}
	for name, all := range v.Values {
		query[name] = all
	}
	for i := 0; i < len(changes); i += 2 {
		query[changes[i]] = changes[i+1 : i+2]
	}
	for name, all := range query {
		if len(all) == 0 || all[0] == "" {
			delete(query, name)
		}
	}
	if len(query) == 0 {
		return path
	}
	return path + "?" + query.Encode()
}

// only returns the values with these names.
func (v Values) only(names ...string) Values {
	kept := Values{url.Values{}}
	for _, name := range names {
		if v.Get(name) != "" {
			kept.Set(name, v.Get(name))
		}
	}
	return kept
}

// A choice is one of several links, of which one is the present one.
type choice struct {
	Name, Href string
	Current    bool
}

// fieldErrors are the messages about the fields of a form, by their names. The message
// about the form as a whole has the name "".
type fieldErrors map[string]string

// asFields returns what an error says about the input, and false for an error that is
// not about the input.
func asFields(err error) (fieldErrors, int, bool) {
	e := service.Classify(err)
	if e == nil {
		return nil, 0, false
	}
	status := map[service.Kind]int{service.KindInvalid: 400, service.KindConflict: 409, service.KindUnanswerable: 422}[e.Kind]
	if status == 0 {
		return nil, 0, false
	}
	found := asErrors(e.Fields)
	if len(found) == 0 {
		found[""] = e.Message
		if e.Hint != "" {
			found[""] += ": " + e.Hint
		}
	}
	return found, status, true
}

// subject returns how a sentence about a field begins.
func subject(name, value string) string {
	switch name {
	case "q":
		return "The text"
	case "user_id", "url_id":
		return "“" + value + "”"
	case "id":
		return "The number of a link"
	case "ids":
		return "This choice"
	}
	return strings.ReplaceAll(name, "_", " ")
}

// worded returns an error about one field in words for people.
func worded(err error, v Values) error {
	e := service.Classify(err)
	if err == nil || e == nil || e.Kind != service.KindInvalid || len(e.Fields) != 1 {
		return err
	}
	f := e.Fields[0]
	return &service.Error{Kind: e.Kind, Message: subject(f.Field, v.text(f.Field)) + " " + f.Message, Fields: e.Fields, Hint: e.Hint}
}

func asErrors(faults service.Faults) fieldErrors {
	found := fieldErrors{}
	for _, f := range faults {
		found[f.Field] = f.Message
	}
	return found
}

// field returns the attributes of a field of a form. The first field that is wrong gets
// the focus.
func field(name string, errors fieldErrors) template.HTMLAttr {
	attributes := `id="` + name + `" name="` + name + `"`
	if errors[name] != "" {
		attributes += ` aria-invalid="true" aria-describedby="` + name + `-fault" autofocus`
	}
	return template.HTMLAttr(attributes) //nolint:gosec // names are our own words
}

// fault is a message beside a field.
type fault struct{ Name, Message string }

func faultOf(name string, errors fieldErrors) fault { return fault{name, errors[name]} }

// list returns its arguments, for templates that take more than one.
func list(values ...any) []any { return values }
