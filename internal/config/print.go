package config

import (
	"fmt"
	"log/slog"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

const hidden = "(hidden)"

// show returns a value in a form that anyone may see.
func (v variable) show(value string) string {
	switch {
	case value == "" || v.secret == "":
		return value
	case v.secret == "url":
		return redactURL(value)
	default:
		return hidden
	}
}

// redactURL hides the passwords in the URL of a database or a Redis. A text that is not
// clearly a URL is hidden altogether, since a password could be anywhere in it.
func redactURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || !slices.Contains([]string{"postgres", "postgresql", "redis", "rediss", "unix"}, u.Scheme) ||
		u.Opaque != "" || u.Host == "" && u.RawQuery == "" && u.Scheme != "unix" {
		return hidden
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.Fragment != "" || strings.Contains(u.Path+u.RawQuery, "@") {
		return hidden
	}
	for name := range query {
		if strings.Contains(strings.ToLower(name), "password") {
			query.Set(name, "xxxxx")
			u.RawQuery = query.Encode()
		}
	}
	return u.Redacted()
}

// values returns every variable with its value in force, in a form that anyone may see.
func (c Config) values() []slog.Attr {
	fields := reflect.ValueOf(c)
	var list []slog.Attr
	for _, v := range variables() {
		value := fmt.Sprint(fields.Field(v.field).Interface())
		if level, ok := fields.Field(v.field).Interface().(slog.Level); ok {
			value = strings.ToLower(level.String())
		}
		list = append(list, slog.String(v.env, v.show(value)))
	}
	return list
}

// String returns the configuration in force, one line for each variable, with secrets
// hidden.
func (c Config) String() string {
	var b strings.Builder
	for _, attr := range c.values() {
		b.WriteString(attr.Key + "=" + attr.Value.String() + "\n")
	}
	return b.String()
}

// GoString also keeps secrets out of %#v.
func (c Config) GoString() string { return c.String() }

// LogValue returns the configuration in force, with secrets hidden.
func (c Config) LogValue() slog.Value { return slog.GroupValue(c.values()...) }

// Markdown returns the reference page of all variables.
func Markdown() string {
	var b strings.Builder
	b.WriteString("# Configuration\n\n" +
		"Every role reads environment variables, once, when it starts. A wrong value stops the start with a message that\n" +
		"names the variable, the value and what is allowed; all wrong ones are listed at once. Blanks and line ends around a\n" +
		"value and one pair of quotes are taken off, as env files and mounted secrets leave them. An empty variable counts as\n" +
		"not given. `signpost config` prints what is in force, with secrets hidden.\n\n" +
		"This page is made from `internal/config/config.go` by `make generate`.\n\n" +
		"| variable | default | meaning | allowed |\n|---|---|---|---|\n")
	for _, v := range variables() {
		byDefault := ""
		if v.byDefault != "" {
			byDefault = "`" + v.byDefault + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", v.env, byDefault, v.doc, v.allowed)
	}
	return b.String()
}
